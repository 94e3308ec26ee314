// alloc.cpp: small blocks from size classes with a free list a thread, large ones kept for reuse, all in huge pages.
#include "alloc.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <utility>

#include "../base/errors.hpp"
#include "../base/view.hpp"
#include "limits.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace nl {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = int64_t(2) << 20;
constexpr int64_t kSmallMax = 64 << 10;      // longer blocks are large
constexpr int64_t kSlab = int64_t(1) << 20;  // what small blocks are cut from
constexpr int64_t kRegion = 2 * kHugePage;   // what slabs and large blocks below a huge page are cut from
constexpr int64_t kBatch = 16 << 10;         // bytes that go between a thread's list and the shared one at a time
constexpr int64_t kCheckEvery = int64_t(64) << 20;  // bytes mapped between two looks at the system's free memory

// ---- the sanitizer sees blocks as the program does: not a byte more than was asked for, none after the end ----

void poison([[maybe_unused]] void* p, [[maybe_unused]] int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(p, size_t(bytes));
#endif
}
void* unpoison(void* p, [[maybe_unused]] int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(p, size_t(bytes));
#endif
  return p;
}

// ---- size classes: steps of 64 bytes up to 1 KiB, then four a doubling (small) or eight a doubling (large) ----

int floor_log2(int64_t n) { return 63 - __builtin_clzll(uint64_t(n)); }

// The class of `bytes` among 2^steps_log2 a doubling, counted from 2^first_log2, and its size.
struct SizeClass {
  int index;
  int64_t size;
};
SizeClass geometric(int64_t bytes, int first_log2, int steps_log2) {
  const int64_t last = bytes - 1;
  const int e = floor_log2(last), shift = e - steps_log2;
  const int step = int(last >> shift) - (1 << steps_log2);
  return {((e - first_log2) << steps_log2) + step, ((last >> shift) + 1) << shift};
}

constexpr int kLinearClasses = 16, kSmallClasses = kLinearClasses + 6 * 4;
SizeClass small_class(int64_t bytes) {
  if (bytes <= 1024) {
    const int index = int((bytes - (bytes > 0)) >> 6);
    return {index, int64_t(index + 1) << 6};
  }
  const SizeClass c = geometric(bytes, 10, 2);
  return {kLinearClasses + c.index, c.size};
}
int64_t class_size(int small) {
  if (small < kLinearClasses) return int64_t(small + 1) << 6;
  const int doubling = (small - kLinearClasses) / 4, step = (small - kLinearClasses) % 4;
  return int64_t(4 + step + 1) << (8 + doubling);
}

constexpr int64_t kAddressable = int64_t(1) << 47;
constexpr int kLargeStepsLog2 = 3, kLeastLargeLog2 = 12, kLargeClasses = (47 - kLeastLargeLog2) << kLargeStepsLog2;
SizeClass large_class(int64_t bytes) { return geometric(bytes, kLeastLargeLog2, kLargeStepsLog2); }

// ---- memory from the system ----

std::mutex lock;  // guards everything below that is not a thread's own

struct SystemMemory {
  int64_t mapped = 0, peak = 0, requests = 0;
  int64_t unchecked = 0;  // mapped since the last look at what the system has free
};
SystemMemory system_memory;

std::string in_units(int64_t bytes) {
  return bytes < (int64_t(1) << 30) ? std::to_string(bytes >> 20) + " MiB" : std::to_string(bytes >> 30) + " GiB";
}

[[noreturn]] void throw_out_of_memory(int64_t bytes) {
  throw OutOfMemory("out of memory: " + (bytes < 0 ? "too many bytes" : in_units(bytes)) + " wanted, " +
                    in_units(available_memory()) + " available");
}

// Linux promises memory that it does not have, and kills when the promise is called in. So what was mapped but not
// touched yet counts as taken, and one part in 32 stays free for everybody else.
bool system_has(int64_t bytes) {
  static const int64_t total = total_memory();
  if (bytes > total - system_memory.mapped) return false;
  if (system_memory.unchecked + bytes < kCheckEvery) return true;
  const int64_t untouched = std::max<int64_t>(system_memory.mapped - resident_memory(), 0);
  const int64_t available = available_memory();
  if (bytes > available - available / 32 - untouched) return false;
  system_memory.unchecked = 0;
  return true;
}

// A huge page or more, from where one begins on. Null when there is no memory.
char* map(int64_t bytes) {
  if (!system_has(bytes)) return nullptr;
  constexpr int64_t kSlack = kHugePage - kPage;
  void* p = mmap(nullptr, size_t(bytes + kSlack), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(p);
  char* const block = begin + -reinterpret_cast<uintptr_t>(begin) % kHugePage;
  if (block > begin) munmap(begin, size_t(block - begin));
  if (block < begin + kSlack) munmap(block + bytes, size_t(begin + kSlack - block));
  madvise(block, size_t(bytes), MADV_HUGEPAGE);
  ++system_memory.requests;
  system_memory.mapped += bytes;
  system_memory.unchecked += bytes;
  system_memory.peak = std::max(system_memory.peak, system_memory.mapped);
  poison(block, bytes);
  return block;
}

void unmap(void* block, int64_t bytes) {
  unpoison(block, bytes);  // the addresses may come back as somebody else's
  munmap(block, size_t(bytes));
  system_memory.mapped -= bytes;
}

// ---- large blocks ----

// Written into the block that it describes.
struct FreeBlock {
  FreeBlock *prev, *next;    // in its class, the last freed first
  FreeBlock *older, *newer;  // among all
  int64_t size;
  int index;
};

class LargeCache {
 public:
  // Null when no block of the class waits.
  void* take(int index) {
    FreeBlock* b = bins_[index];
    if (b != nullptr) remove(b);
    return b;
  }

  void put(void* block, SizeClass c) {
    FreeBlock* b = static_cast<FreeBlock*>(unpoison(block, sizeof(FreeBlock)));
    *b = {nullptr, bins_[c.index], newest_, nullptr, c.size, c.index};
    if (b->next != nullptr) b->next->prev = b;
    bins_[c.index] = b;
    (newest_ != nullptr ? newest_->newer : oldest_) = b;
    newest_ = b;
    bytes_ += c.size;
    poison(b + 1, c.size - int64_t(sizeof(FreeBlock)));
  }

  // Unmaps the blocks that have waited longest until at most `bound` bytes wait.
  void shrink(int64_t bound) {
    while (bytes_ > bound) {
      FreeBlock* b = oldest_;
      remove(b);
      unmap(b, b->size);
    }
  }

 private:
  FreeBlock* bins_[kLargeClasses] = {};
  FreeBlock *oldest_ = nullptr, *newest_ = nullptr;
  int64_t bytes_ = 0;

  void remove(FreeBlock* b) {
    (b->prev != nullptr ? b->prev->next : bins_[b->index]) = b->next;
    if (b->next != nullptr) b->next->prev = b->prev;
    (b->older != nullptr ? b->older->newer : oldest_) = b->newer;
    (b->newer != nullptr ? b->newer->older : newest_) = b->older;
    bytes_ -= b->size;
  }
};
LargeCache large_cache;

// Several blocks share a huge page: mapped singly, those below one would lie in small pages, whose addresses miss the
// TLB whenever a step of training comes back to them.
struct Region {
  char* begin = nullptr;
  int64_t left = 0;

  char* cut(int64_t size) {
    left -= size;
    return std::exchange(begin, begin + size);
  }

  // Blocks of the longest classes that fit. The last one may be so short that nobody asks for it: it waits to go back.
  void keep_rest() {
    while (left > 0) {
      const SizeClass c = large_class(left & -(int64_t(1) << (floor_log2(left) - kLargeStepsLog2)));
      large_cache.put(cut(c.size), c);
    }
  }
};
Region region;

// Null when there is no memory.
char* map_block(int64_t size) {
  if (size >= kHugePage) return map(size);
  if (region.left < size) {
    char* p = map(kRegion);
    if (p == nullptr) return nullptr;
    region.keep_rest();
    region = {p, kRegion};
  }
  return region.cut(size);
}

// Maps memory even if cached blocks have to go for it. Throws when that is not enough.
char* map_or_throw(int64_t size, int64_t wanted) {
  char* p = map_block(size);
  if (p == nullptr) {
    large_cache.shrink(0);
    p = map_block(size);
  }
  if (p == nullptr) throw_out_of_memory(wanted);
  return p;
}

int64_t large_in_use = 0;

void* allocate_large(int64_t bytes) {
  if (bytes < 0 || bytes > kAddressable) throw_out_of_memory(bytes);
  const SizeClass c = large_class(bytes);
  const std::lock_guard<std::mutex> guard(lock);
  void* p = large_cache.take(c.index);
  if (p == nullptr) p = map_or_throw(c.size, bytes);
  large_in_use += c.size;
  return unpoison(p, bytes);
}

void free_large(void* block, int64_t bytes) {
  static const int64_t bound = total_memory() / 4;
  const SizeClass c = large_class(bytes);
  const std::lock_guard<std::mutex> guard(lock);
  large_in_use -= c.size;
  large_cache.put(block, c);
  large_cache.shrink(bound);
}

// ---- small blocks ----

struct Block {
  Block* next;
};

// A thread's blocks of one class. `room` is how many more it may keep; at first none, so that the slow path comes
// first.
struct FreeList {
  Block* head;
  int32_t room;
};

enum class ThreadState : uint8_t { fresh, open, closed };

// Constant-initialised, so that reaching it needs no check; `close_thread` is what a destructor would be.
struct ThreadCache {
  FreeList lists[kSmallClasses];
  std::atomic<int64_t> in_use;  // negative where a thread frees what another has allocated
  ThreadCache *prev, *next;     // among the threads
  void* kept[kKeptBlocks];
  int64_t kept_bytes[kKeptBlocks];
  std::atomic<int64_t> kept_total;  // bytes, those put aside included
  ThreadState state;
};
thread_local ThreadCache cache;

struct Shared {
  Block* lists[kSmallClasses] = {};
  char* slab = nullptr;
  int64_t slab_left = 0;
  ThreadCache* threads = nullptr;
  int64_t ended_in_use = 0;  // what the sum over threads lost when some ended
};
Shared shared;

int32_t list_capacity(int64_t size) { return int32_t(std::max<int64_t>(2 * kBatch / size, 8)); }

void push(Block*& head, void* block, int64_t size) {
  Block* b = static_cast<Block*>(unpoison(block, sizeof(Block)));
  b->next = head;
  head = b;
  poison(b + 1, size - int64_t(sizeof(Block)));
}

Block* pop(Block*& head) { return std::exchange(head, head->next); }

void count_kept(int64_t bytes) { cache.kept_total.store(cache.kept_total.load(std::memory_order_relaxed) + bytes); }

void free_kept(int i) {
  if (cache.kept[i] == nullptr) return;
  nl_free(std::exchange(cache.kept[i], nullptr), cache.kept_bytes[i]);
  count_kept(-std::exchange(cache.kept_bytes[i], 0));
}

void close_thread() {
  for (int i = 0; i < kKeptBlocks; ++i) free_kept(i);
  const std::lock_guard<std::mutex> guard(lock);
  for (int i = 0; i < kSmallClasses; ++i) {
    FreeList& list = cache.lists[i];
    while (list.head != nullptr) {
      Block* b = pop(list.head);
      b->next = shared.lists[i];
      shared.lists[i] = b;
    }
    list.room = 0;  // from now on every block goes through the slow path
  }
  (cache.prev != nullptr ? cache.prev->next : shared.threads) = cache.next;
  if (cache.next != nullptr) cache.next->prev = cache.prev;
  shared.ended_in_use += cache.in_use.exchange(0);
  cache.state = ThreadState::closed;
}

// On the slow paths only, with the lock held.
void open_thread() {
  if (cache.state != ThreadState::fresh) return;
  struct AtExit {
    ~AtExit() { close_thread(); }
  };
  static thread_local AtExit at_exit;
  (void)at_exit;
  cache.state = ThreadState::open;
  for (int i = 0; i < kSmallClasses; ++i) cache.lists[i].room = list_capacity(class_size(i));
  cache.next = shared.threads;
  if (cache.next != nullptr) cache.next->prev = &cache;
  shared.threads = &cache;
}

Block* cut_from_slab(int64_t size) {
  if (shared.slab_left < size) {
    shared.slab = map_or_throw(kSlab, kSlab);
    shared.slab_left = kSlab;
  }
  shared.slab_left -= size;
  char* block = std::exchange(shared.slab, shared.slab + size);
  return static_cast<Block*>(unpoison(block, sizeof(Block)));
}

Block* take_shared(SizeClass c) {
  Block*& head = shared.lists[c.index];
  return head != nullptr ? pop(head) : cut_from_slab(c.size);
}

// The thread's list is empty: fetches one block for the caller and a batch for later.
Block* refill(FreeList& list, SizeClass c) {
  const std::lock_guard<std::mutex> guard(lock);
  open_thread();
  Block* first = take_shared(c);
  if (cache.state == ThreadState::closed) return first;
  for (int64_t bytes = c.size; bytes < kBatch && (shared.lists[c.index] || shared.slab_left >= c.size);
       bytes += c.size) {
    push(list.head, take_shared(c), c.size);
    --list.room;
  }
  return first;
}

// The thread's list is full: half of it goes to the shared one.
void spill(FreeList& list, SizeClass c) {
  const std::lock_guard<std::mutex> guard(lock);
  open_thread();
  if (cache.state == ThreadState::closed) return;
  for (int32_t n = list_capacity(c.size) / 2; n > 0 && list.head != nullptr; --n, ++list.room) {
    Block* b = pop(list.head);
    b->next = shared.lists[c.index];
    shared.lists[c.index] = b;
  }
}

void free_shared(void* block, SizeClass c) {
  const std::lock_guard<std::mutex> guard(lock);
  push(shared.lists[c.index], block, c.size);
}

void count_in_use(int64_t bytes) {  // only the owner writes, so no atomic addition is needed
  cache.in_use.store(cache.in_use.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
}

// The thread's block number `i`, moved when it is too short.
void* keep(int i, int64_t bytes) {
  if (cache.kept[i] != nullptr && uint64_t(bytes) <= uint64_t(cache.kept_bytes[i])) {
    poison(cache.kept[i], cache.kept_bytes[i]);
    return unpoison(cache.kept[i], bytes);
  }
  {
    const std::lock_guard<std::mutex> guard(lock);
    open_thread();  // so that the block is freed when the thread ends
  }
  free_kept(i);
  cache.kept[i] = nl_alloc(bytes);
  cache.kept_bytes[i] = bytes;
  count_kept(bytes);
  return cache.kept[i];
}

// ---- fork: nobody else may hold the lock, and the other threads are gone in the child ----

void forget_other_threads() {
  for (ThreadCache* t = shared.threads; t != nullptr; t = t->next)
    if (t != &cache) shared.ended_in_use += t->in_use.load(std::memory_order_relaxed);
  shared.threads = cache.state == ThreadState::open ? &cache : nullptr;
  cache.prev = cache.next = nullptr;
  lock.unlock();
}
[[maybe_unused]] const int at_fork = pthread_atfork([] { lock.lock(); }, [] { lock.unlock(); }, forget_other_threads);

}  // namespace

MemoryStats memory_stats() {
  const std::lock_guard<std::mutex> guard(lock);
  int64_t in_use = large_in_use + shared.ended_in_use, arenas = 0;
  for (const ThreadCache* t = shared.threads; t != nullptr; t = t->next) {
    in_use += t->in_use.load(std::memory_order_relaxed);
    arenas += t->kept_total.load(std::memory_order_relaxed);
  }
  const SystemMemory& m = system_memory;
  return {in_use, m.mapped - in_use, m.mapped, m.peak, arenas, m.requests};
}

void reset_peak_memory() {
  const std::lock_guard<std::mutex> guard(lock);
  system_memory.peak = system_memory.mapped;
}

KeptMemoryAside::KeptMemoryAside() {
  for (int i = 0; i < kKeptBlocks; ++i) {
    kept_[i] = std::exchange(cache.kept[i], nullptr);
    kept_bytes_[i] = std::exchange(cache.kept_bytes[i], 0);
  }
}

KeptMemoryAside::~KeptMemoryAside() {
  for (int i = 0; i < kKeptBlocks; ++i) free_kept(i);
  std::copy_n(kept_, kKeptBlocks, cache.kept);
  std::copy_n(kept_bytes_, kKeptBlocks, cache.kept_bytes);
}

void release_cached_memory() {
  const std::lock_guard<std::mutex> guard(lock);
  large_cache.shrink(0);
}

}  // namespace nl

extern "C" void* nl_alloc(int64_t bytes) {
  using namespace nl;
  if (uint64_t(bytes) > uint64_t(kSmallMax)) return allocate_large(bytes);
  const SizeClass c = small_class(bytes);
  FreeList& list = cache.lists[c.index];
  Block* b;
  if (list.head != nullptr) {
    b = pop(list.head);
    ++list.room;
  } else {
    b = refill(list, c);
  }
  count_in_use(c.size);
  return unpoison(b, bytes);
}

extern "C" void nl_free(void* block, int64_t bytes) {
  using namespace nl;
  if (bytes > kSmallMax) return free_large(block, bytes);
  const SizeClass c = small_class(bytes);
  FreeList& list = cache.lists[c.index];
  count_in_use(-c.size);
  if (list.room == 0) {
    spill(list, c);
    if (list.room == 0) return free_shared(block, c);
  }
  push(list.head, block, c.size);
  --list.room;
}

extern "C" void* nl_scratch(int slot, int64_t bytes) { return nl::keep(slot, bytes); }

extern "C" void* nl_arena(int64_t bytes) { return nl::keep(4, bytes); }

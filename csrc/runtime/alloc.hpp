// alloc.hpp: the caching allocator behind tensors, the scratch memory of kernels and the arena of programs.
// (`nl_scratch` is declared in base/view.hpp, where kernels see it.)
#pragma once
#include <stdint.h>

extern "C" {
// A block of at least `bytes`, 64-byte aligned and never null. Blocks of 2 MiB and more are aligned to huge pages. When
// there is not that much memory it throws nl::OutOfMemory at once, rather than have the system kill somebody later.
void* nl_alloc(int64_t bytes);
// `bytes` as it was asked for. Any thread may free.
void nl_free(void* block, int64_t bytes);
// The calling thread's one arena, at least `bytes` long, 64-byte aligned. A call that needs more than all before it
// moves it; no content survives a call.
void* nl_arena(int64_t bytes);
}

namespace nl {

struct MemoryStats {
  int64_t in_use;    // bytes of blocks that are handed out, rounded up as the allocator does
  int64_t cached;    // bytes that wait to be used again
  int64_t mapped;    // bytes obtained from the system: the sum of the two
  int64_t peak;      // the most that was mapped at a time
  int64_t arenas;    // of the bytes in use: the arenas and scratch blocks of all threads
  int64_t requests;  // how often the system was asked for memory
};
MemoryStats memory_stats();

// From now on `peak` is the most that is mapped from now on.
void reset_peak_memory();

constexpr int kKeptBlocks = 5;  // that a thread keeps: scratch slots 0 to 3 and the arena

// While it lives, the calling thread's scratch blocks and arena are put aside: what runs meanwhile gets its own, and
// the computation that was left finds its contents again.
class KeptMemoryAside {
 public:
  KeptMemoryAside();
  ~KeptMemoryAside();
  KeptMemoryAside(const KeptMemoryAside&) = delete;
  KeptMemoryAside& operator=(const KeptMemoryAside&) = delete;

 private:
  void* kept_[kKeptBlocks];
  int64_t kept_bytes_[kKeptBlocks];
};

// Gives cached large blocks back to the system.
void release_cached_memory();

}  // namespace nl

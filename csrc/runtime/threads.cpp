// threads.cpp: a pool in which callers take part, work is claimed in chunks, and idle workers spin briefly, then sleep.
//
// Loops that take long are run in pieces of some milliseconds, between which the caller looks for signals.
//
// One loop runs in the pool at a time. Its chunks are claimed from one counter, so a worker that the system has taken
// off its processor costs at most the chunk it holds. A caller that finds the pool taken runs its loop alone: then all
// processors are busy already. So does a loop inside a loop.
#include "threads.hpp"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "../base/errors.hpp"
#include "../base/view.hpp"
#include "float_mode.hpp"
#include "interrupt.hpp"
#include "limits.hpp"

namespace nl {
namespace {

constexpr int kMaxThreads = 1024;
constexpr auto kSpin = std::chrono::microseconds(50);  // about what waking a sleeping thread costs

// ---- waiting ----

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

// With more threads than processors whoever spins keeps the one that it waits for from running.
std::atomic<bool> may_spin{true};

// Spins until `done()` or for `kSpin`, and says which.
template <class Done>
bool spin_until(const Done& done) {
  if (!may_spin.load(std::memory_order_relaxed)) return done();
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// ---- the loop in the pool ----

struct Loop {
  void (*fn)(void* ctx, int64_t begin, int64_t end);
  void* ctx;
  int64_t n, grain;
  int threads;
};

// The gate counts the workers inside the loop in its low half and the seats still free in its high half; without
// seats nobody comes in. The caller waits behind it until all are out.
constexpr uint32_t kSeat = 1u << 16, kInside = kSeat - 1;

// Trivially destructible: workers may outlive the destructors of statics.
struct Pool {
  std::atomic<bool> taken{false};
  Loop loop{};
  std::exception_ptr* error = nullptr;  // the caller's, set by the first chunk that throws
  std::atomic<bool> failed{false};
  alignas(64) std::atomic<int64_t> next{0};  // the first element that nobody has claimed
  alignas(64) std::atomic<uint32_t> gate{0};
  std::atomic<bool> caller_sleeps{false};      // on `gate`
  alignas(64) std::atomic<uint32_t> epoch{0};  // counts loops; idle workers sleep on it
  std::atomic<int> sleepers{0};
  std::atomic<int> wanted{0};   // threads a loop may use; 0: not decided yet
  std::atomic<int> workers{0};  // started so far; written under `taken`
};
static_assert(std::is_trivially_destructible_v<Pool>);

Pool pool;

// How many grains a thread runs at a time, so that a chunk lasts no longer than kStretch: few at first, then by the
// time that the last chunk took.
class Pace {
 public:
  int64_t grains() const { return grains_; }

  void ran(int64_t grains) {
    const auto now = std::chrono::steady_clock::now();
    const double each = std::chrono::duration<double>(now - start_).count() / double(grains);
    grains_ = std::max<int64_t>(int64_t(std::min(kStretch / each, 1e15)), 1);
    start_ = now;
  }

 private:
  static constexpr double kStretch = 0.01;  // seconds
  int64_t grains_ = 32;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Where a chunk that begins here ends: chunks shrink from a share of what is left down to the grain, so that all
// threads end together.
int64_t chunk_end(const Loop& loop, const Pace& pace, int64_t begin) {
  const int64_t share = (loop.n - begin) / (2 * loop.threads) / loop.grain;
  const int64_t chunk = std::clamp<int64_t>(share, 1, pace.grains()) * loop.grain;
  return loop.n - begin <= chunk ? loop.n : begin + chunk;
}

bool claim(const Loop& loop, const Pace& pace, int64_t& begin, int64_t& end) {
  begin = pool.next.load(std::memory_order_relaxed);
  do {
    if (begin >= loop.n) return false;
    end = chunk_end(loop, pace, begin);
  } while (!pool.next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
  return true;
}

// Runs [begin, end), which is claimed already, and then what else can be claimed.
void run_chunks(const Loop& loop, Pace& pace, int64_t begin, int64_t end, bool is_caller) {
  try {
    loop.fn(loop.ctx, begin, end);
    while (pool.next.load(std::memory_order_relaxed) < loop.n) {
      pace.ran((end - begin - 1) / loop.grain + 1);
      if (is_caller) poll_interrupt();
      if (!claim(loop, pace, begin, end)) return;
      loop.fn(loop.ctx, begin, end);
    }
  } catch (...) {
    if (!pool.failed.exchange(true)) *pool.error = std::current_exception();
    pool.next.store(loop.n, std::memory_order_relaxed);  // the others stop after their chunk
  }
}

// The whole loop on the calling thread.
void run_alone(const Loop& loop) {
  int64_t begin = 0;
  for (Pace pace; begin < loop.n;) {
    const int64_t left = (loop.n - begin - 1) / loop.grain + 1, grains = std::min(left, pace.grains());
    const int64_t end = grains == left ? loop.n : begin + grains * loop.grain;
    loop.fn(loop.ctx, begin, end);
    poll_interrupt();
    pace.ran(grains);
    begin = end;
  }
}

// ---- workers ----

// What a worker needs lies in the caller's cache; it is asked for all at once.
bool enter() {
  __builtin_prefetch(&pool.loop);
  __builtin_prefetch(&pool.next, 1);
  uint32_t gate = pool.gate.load(std::memory_order_relaxed);
  while (gate >= kSeat)
    if (pool.gate.compare_exchange_weak(gate, gate - kSeat + 1, std::memory_order_acquire)) return true;
  return false;
}

void leave() {
  if (pool.gate.fetch_sub(1) == 1 && pool.caller_sleeps.load()) futex_wake(pool.gate, 1);
}

void wait_for_loop(uint32_t seen) {
  const auto changed = [&] { return pool.epoch.load(std::memory_order_acquire) != seen; };
  if (spin_until(changed)) return;
  pool.sleepers.fetch_add(1);
  while (!changed()) futex_wait(pool.epoch, seen);
  pool.sleepers.fetch_sub(1);
}

thread_local bool is_worker = false;

void* work(void*) {
  is_worker = true;
  const DefaultFloatMode mode;
  for (;;) {
    const uint32_t seen = pool.epoch.load(std::memory_order_acquire);
    if (enter()) {
      Pace pace;
      int64_t begin, end;
      if (claim(pool.loop, pace, begin, end)) run_chunks(pool.loop, pace, begin, end, false);
      leave();
    }
    wait_for_loop(seen);
  }
}

// Workers take no signals: those are for the threads of the program.
bool start_worker() {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_t thread;
  const bool started = pthread_create(&thread, nullptr, work, nullptr) == 0;
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (started) pthread_detach(thread);
  return started;
}

// A forked child has no workers and nobody in the pool, whatever its parent was doing.
void reset_in_child() {
  pool.taken.store(false);
  pool.gate.store(0);
  pool.caller_sleeps.store(false);
  pool.sleepers.store(0);
  pool.failed.store(false);
  pool.workers.store(0);
}
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, reset_in_child);

void ensure_workers(int count) {
  while (pool.workers < count && start_worker()) ++pool.workers;
}

// ---- callers ----

// Elements up to `next` are claimed.
void open_gate(const Loop& loop, int64_t next) {
  pool.loop = loop;
  pool.next.store(next, std::memory_order_relaxed);
  pool.gate.store(uint32_t(loop.threads - 1) * kSeat, std::memory_order_release);
  pool.epoch.fetch_add(1);
  if (pool.sleepers.load() > 0) futex_wake(pool.epoch, loop.threads - 1);
}

void close_gate() {
  if ((pool.gate.fetch_and(kInside, std::memory_order_acquire) & kInside) == 0) return;
  if (spin_until([] { return pool.gate.load(std::memory_order_acquire) == 0; })) return;
  pool.caller_sleeps.store(true);
  while (const uint32_t inside = pool.gate.load()) futex_wait(pool.gate, inside);
  pool.caller_sleeps.store(false);
}

void run_in_pool(const Loop& loop) {
  std::exception_ptr error;
  pool.error = &error;
  ensure_workers(loop.threads - 1);
  // The first chunk is always the caller's: short loops over the same memory find it in its cache again.
  Pace pace;
  const int64_t first = chunk_end(loop, pace, 0);
  open_gate(loop, first);
  run_chunks(loop, pace, 0, first, true);
  close_gate();
  pool.failed.store(false, std::memory_order_relaxed);
  pool.taken.store(false, std::memory_order_release);
  if (error) std::rethrow_exception(error);
  poll_interrupt();
}

int decide_threads() {
  const char* text = std::getenv("NL_NUM_THREADS");
  if (text == nullptr || *text == 0) return std::min(available_cpus(), kMaxThreads);
  char* end;
  const long n = std::strtol(text, &end, 10);
  if (*end != 0 || n < 1 || n > kMaxThreads)
    throw std::invalid_argument(std::string("NL_NUM_THREADS=") + text + " is not a number from 1 to 1024");
  return int(n);
}

}  // namespace

void set_num_threads(int64_t n) {
  if (n < 1 || n > kMaxThreads)
    throw std::invalid_argument("set_num_threads: " + std::to_string(n) + " is not a number from 1 to 1024");
  static const int cpus = available_cpus();
  may_spin.store(n <= cpus, std::memory_order_relaxed);
  pool.wanted.store(int(n), std::memory_order_relaxed);
}

}  // namespace nl

extern "C" int nl_num_threads(void) {
  const int n = nl::pool.wanted.load(std::memory_order_relaxed);
  if (n != 0) return n;
  nl::set_num_threads(nl::decide_threads());
  return nl_num_threads();
}

extern "C" int nl_threads_at_hand(int64_t nanoseconds) {
  thread_local std::chrono::steady_clock::time_point last_asked;
  if (nl::is_worker || nl::pool.taken.load(std::memory_order_relaxed)) return 1;
  const int n = nl_num_threads();
  const int awake =
      nl::pool.workers.load(std::memory_order_relaxed) - nl::pool.sleepers.load(std::memory_order_relaxed);
  if (awake >= n - 1) return n;
  const auto now = std::chrono::steady_clock::now(), before = std::exchange(last_asked, now);
  return now - before < nl::kSpin + std::chrono::nanoseconds(nanoseconds) ? n : 1;
}

extern "C" void nl_check_interrupt(void) {
  if (!nl::is_worker) return nl::poll_interrupt();
  if (nl::pool.failed.load(std::memory_order_relaxed)) throw nl::Interrupted();
}

extern "C" void nl_parallel_for(int64_t n, int64_t grain, void (*fn)(void* ctx, int64_t begin, int64_t end),
                                void* ctx) {
  if (n <= 0) return;
  const nl::DefaultFloatMode mode;
  grain = std::max<int64_t>(grain, 1);
  if (n > grain) {
    const int64_t chunks = (n - 1) / grain + 1;
    const int threads = int(std::min<int64_t>(nl_num_threads(), chunks));
    if (threads > 1 && !nl::pool.taken.exchange(true, std::memory_order_acquire))
      return nl::run_in_pool({fn, ctx, n, grain, threads});
    return nl::run_alone({fn, ctx, n, grain, 1});
  }
  fn(ctx, 0, n);
}

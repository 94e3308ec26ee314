// interrupt.cpp: when to look for signals.
#include "interrupt.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

#include "../base/errors.hpp"
#include "alloc.hpp"

namespace nl {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(40);

std::atomic<InterruptHook> hook{nullptr};
thread_local std::chrono::steady_clock::time_point last_look;

bool is_main_thread() { return syscall(SYS_gettid) == getpid(); }

}  // namespace

void set_interrupt_hook(InterruptHook run_handlers) { hook.store(run_handlers); }

void poll_interrupt() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_look < kInterval) return;
  last_look = now;
  const InterruptHook run_handlers = hook.load(std::memory_order_relaxed);
  if (run_handlers == nullptr || !is_main_thread()) return;
  const KeptMemoryAside aside;  // a handler may compute, too
  if (run_handlers()) throw Interrupted();
}

}  // namespace nl

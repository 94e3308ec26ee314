// interrupt.hpp: long computations stop soon after a signal whose Python handler raises (Ctrl-C).
#pragma once

namespace nl {

// Runs Python's signal handlers on the calling thread; true if one raised. Set once, by the binding.
using InterruptHook = bool (*)();
void set_interrupt_hook(InterruptHook hook);

// Called between pieces of work that are short against 0.1 s; throws Interrupted. It looks for signals at most every
// 40 ms (for that it may have to wait for the interpreter's lock), and only on the process's main thread: no other runs
// handlers.
void poll_interrupt();

}  // namespace nl

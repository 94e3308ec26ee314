// threads.hpp: the thread pool behind nl_parallel_for (declared in base/view.hpp, where kernels see it).
#pragma once
#include <stdint.h>

namespace nl {

// Threads that a parallel loop may use, the caller included. At first the processors this process may use, or what the
// environment variable NL_NUM_THREADS says. Throws std::invalid_argument when `n` is not between 1 and 1024.
void set_num_threads(int64_t n);

}  // namespace nl

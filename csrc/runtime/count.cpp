// count.cpp: the linker sends this module's calls of NAME to __wrap_NAME (see CMakeLists.txt); each is counted and
// passed on to the real one.
#include "count.hpp"

#include <stddef.h>
#include <sys/types.h>

#include <atomic>
#include <new>

namespace {
std::atomic<int64_t> requests{0};
void count() { requests.fetch_add(1, std::memory_order_relaxed); }
}  // namespace

namespace nl {
int64_t allocation_count() { return requests.load(std::memory_order_relaxed); }
}  // namespace nl

#define NL_COUNTED(result, name, parameters, arguments) \
  result __real_##name parameters;                      \
  result __wrap_##name parameters {                     \
    count();                                            \
    return __real_##name arguments;                     \
  }

extern "C" {
NL_COUNTED(void*, malloc, (size_t n), (n))
NL_COUNTED(void*, calloc, (size_t n, size_t size), (n, size))
NL_COUNTED(void*, realloc, (void* p, size_t n), (p, n))
NL_COUNTED(int, posix_memalign, (void** p, size_t alignment, size_t n), (p, alignment, n))
NL_COUNTED(void*, aligned_alloc, (size_t alignment, size_t n), (alignment, n))
NL_COUNTED(void*, mmap, (void* at, size_t n, int protection, int flags, int file, off_t offset),
           (at, n, protection, flags, file, offset))
NL_COUNTED(void*, _Znwm, (size_t n), (n))                                                        // new
NL_COUNTED(void*, _Znam, (size_t n), (n))                                                        // new[]
NL_COUNTED(void*, _ZnwmSt11align_val_t, (size_t n, std::align_val_t alignment), (n, alignment))  // new, over-aligned
}

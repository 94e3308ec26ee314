// count.hpp: counts the requests for memory that this module makes, for the test that replaying makes none.
#pragma once
#include <stdint.h>

namespace nl {

// Calls of malloc and its kin, of operator new and of mmap from the code of this module so far, in all threads.
int64_t allocation_count();

}  // namespace nl

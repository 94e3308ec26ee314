// errors.hpp: the typed errors of the core. base/raise.cpp turns each into the Python class of the same meaning.
#pragma once
#include <stdint.h>

#include <stdexcept>
#include <string>

namespace nl {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ShapeError : Error {  // a ValueError
  using Error::Error;
};
struct DTypeError : Error {  // a TypeError
  using Error::Error;
};
struct IndexError : Error {
  using Error::Error;
};
struct AliasError : Error {  // a ValueError
  using Error::Error;
};
struct TraceError : Error {  // a RuntimeError
  using Error::Error;
};
struct OutOfMemory : Error {  // MemoryError
  using Error::Error;
};

// Thrown where a computation was stopped by a signal; what its handler raised waits in Python's error indicator.
struct Interrupted {};

// What a native kernel's kIndexError means; `fault` is {index, extent, axis}.
inline IndexError index_error(const char* op, const int64_t* fault) {
  return IndexError(std::string(op) + ": index " + std::to_string(fault[0]) + " is out of range for axis " +
                    std::to_string(fault[2]) + " of size " + std::to_string(fault[1]));
}

}  // namespace nl

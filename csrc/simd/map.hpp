// map.hpp: the loop of an elementwise kernel around its generated body, which exists once, for whole vectors and rest.
#pragma once
#include <stdint.h>

#include "../base/view.hpp"
#include "vec.h"

namespace nl::NL_ISA {
namespace {

// Fills `lanes` lanes of `size` bytes with one element.
inline void fill_lanes(char* to, const char* element, int size, int lanes) {
  uint64_t word = 0;
  __builtin_memcpy(&word, element, size == 8 ? 8 : size == 4 ? 4 : size == 2 ? 2 : 1);
  for (int bytes = size; bytes < 8; bytes *= 2) word |= word << 8 * bytes;
  for (int at = 0; at < lanes * size; at += 8) __builtin_memcpy(to + at, &word, 8);  // to whole words
}

// Positions in K operands (outputs first), a vector apart. An operand with step 0 is read from a buffer filled with its
// element; an incomplete last vector of every operand goes through buffers. A kernel runs over `vectors` from `at`, and
// again as long as `next` says so.
struct MapLoop {
  char* at[kMaxOperands];
  int64_t stride[kMaxOperands];  // bytes from one vector to the next
  int64_t vectors;

  // size: bytes of an element of each operand; ptr, step: as in MapFn.
  MapLoop(const uint8_t* size, int n_op, int n_out, int lanes, char* const* ptr, const int64_t* step, int64_t n)
      : vectors(n / lanes), size_(size), n_op_(n_op), n_out_(n_out), rest_(n % lanes) {
    for (int k = 0; k < n_op; ++k) {
      at[k] = ptr[k];
      stride[k] = lanes * step[k];
      if (step[k] != 0) continue;
      fill_lanes(buffer_[k], ptr[k], size[k], lanes);
      at[k] = buffer_[k];
    }
  }

  // Turns to the incomplete vector, if there is one; afterwards brings its results home.
  bool next() {
    if (home_[0] != nullptr) {
      for (int k = 0; k < n_out_; ++k) __builtin_memcpy(home_[k], buffer_[k], rest_ * size_[k]);
      return false;
    }
    if (rest_ == 0) return false;
    for (int k = 0; k < n_op_; ++k) {
      at[k] += vectors * stride[k];
      if (k < n_out_) home_[k] = at[k];
      if (stride[k] == 0) continue;
      __builtin_memset(buffer_[k], 0, NL_VEC_BYTES);
      if (k >= n_out_) __builtin_memcpy(buffer_[k], at[k], rest_ * size_[k]);
      at[k] = buffer_[k];
    }
    vectors = 1;
    return true;
  }

 private:
  const uint8_t* size_;
  int n_op_, n_out_;
  int64_t rest_;                   // elements in the incomplete vector
  char* home_[kMaxOperands] = {};  // where its results belong, once they are being computed
  alignas(64) char buffer_[kMaxOperands][NL_VEC_BYTES];
};

}  // namespace
}  // namespace nl::NL_ISA

// block_sums.hpp: sums of whole blocks of k that threads have found side by side, added in ascending order.
#pragma once
#include "loops.hpp"
#include "microkernel.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kSumBytes = 1 << 20;  // of sums of blocks that wait to be added

// Adds the sums of `count` blocks, `size` elements each, whole vectors, to `total`; or the first ones become it.
template <class T>
void add_blocks(const T* sums, int64_t size, int64_t count, bool add, T* total) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  parallel_for(size / W, grain_of(count * W), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin * W; i < end * W; i += W) {
      V sum = add ? load<V>(total + i) + load<V>(sums + i) : load<V>(sums + i);
      for (int64_t b = 1; b < count; b++) sum += load<V>(sums + b * size + i);
      store(total + i, sum);
    }
  });
}

}  // namespace
}  // namespace nl::NL_ISA

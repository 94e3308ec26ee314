// block_sums.hpp: sums of whole blocks of k that threads have found side by side, added in ascending order.
#pragma once
#include "loops.hpp"
#include "microkernel.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kSumBytes = 1 << 20;  // of sums of blocks that wait to be added

// Sums of `size` elements, whole vectors, over all blocks of k; those of a round are found before they are added. They
// lie in the calling thread's scratch memory.
template <class T>
struct BlockSums {
  int64_t blocks, size, round;
  T *total, *of_blocks;  // of a round
  int64_t* numbers;      // room for some of other use

  BlockSums(int64_t number, int64_t elements, int64_t at_a_time, int64_t others)
      : blocks(number),
        size(elements),
        round(min_of(number, at_a_time)),
        total((T*)nl_scratch(2, (1 + round) * size * int64_t(sizeof(T)) + others * int64_t(sizeof(int64_t)))),
        of_blocks(total + size),
        numbers((int64_t*)(of_blocks + round * size)) {}

  // find(first, count) puts the sums of `count` blocks from the first-th on at `of_blocks`.
  template <class Find>
  void run(const Find& find) const {
    for (int64_t first = 0; first < blocks; first += round) {
      const int64_t count = min_of(round, blocks - first);
      find(first, count);
      add(count, first > 0);
    }
  }

  // To the total, or the first ones become it.
  void add(int64_t count, bool follow) const {
    using V = typename Simd<T>::V;
    constexpr int W = kWidth<T>;
    parallel_for(size / W, grain_of(count * W), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin * W; i < end * W; i += W) {
        V sum = load<V>(of_blocks + i);
        if (follow) sum = load<V>(total + i) + sum;
        for (int64_t b = 1; b < count; b++) sum += load<V>(of_blocks + b * size + i);
        store(total + i, sum);
      }
    });
  }
};

}  // namespace
}  // namespace nl::NL_ISA

// microkernel.hpp: the one micro-kernel of all contractions: a tile of C, held in registers, over one block of k.
#pragma once
#include <stdint.h>

#include "vector.hpp"

namespace nl::NL_ISA {

constexpr int64_t kFarBytes = 6 << 20;  // of results that lie in memory: a fifth of a usual L3

// The largest tile: kTileRows rows of kTileVecs vectors. Share of the FMA peak with panels in L1 and L2 (Zen 5, f32):
// 14 x 2 of 64 bytes 98 %, 6 x 2 of 32 bytes 97 %; of 16 bytes 2 x 4 reaches 76 %, 4 x 2 only 56 %: SSE2 has no
// broadcast from memory, so there few rows are best. NEON has 32 registers: 24 sums, 4 of B and a row of A.
#if NL_VEC_BYTES == 64
constexpr int kTileRows = 14, kTileVecs = 2;
#elif NL_VEC_BYTES == 32
constexpr int kTileRows = 6, kTileVecs = 2;
#elif defined(__aarch64__)
constexpr int kTileRows = 6, kTileVecs = 4;
#else
constexpr int kTileRows = 2, kTileVecs = 4;
#endif

NL_FN vf32 multiply_add(vf32 a, vf32 b, vf32 c) { return vf32_fma(a, b, c); }
NL_FN hf32 multiply_add(hf32 a, hf32 b, hf32 c) { return hf32_fma(a, b, c); }
NL_FN vf64 multiply_add(vf64 a, vf64 b, vf64 c) { return vf64_fma(a, b, c); }

template <class T>
constexpr int kWidth = Simd<T>::kWidth;  // elements in a vector
template <class T>
constexpr int kTileColumns = kTileVecs * kWidth<T>;

// Columns of the narrowest tile, where that is half a vector: Zen 4 takes two passes for a whole one of 64 bytes.
template <class T>
constexpr int kHalf = NL_VEC_BYTES == 64 && sizeof(T) == sizeof(float) ? kWidth<T> / 2 : 0;

// The columns that the kernel of a tile of so many reads and writes.
template <class T>
constexpr int tile_width(int64_t columns) {
  return int(columns <= kHalf<T> ? kHalf<T> : whole_vectors<T>(columns));
}

// Whether they are no more than these, so that the kernel can write where they lie.
template <class T>
constexpr bool fills_tile(int64_t columns) {
  return columns == tile_width<T>(columns);
}

// Where the elements of one panel of an operand lie: element (line, k) at data[line * line_stride + k * step]. Lines
// are rows of A or columns of B; the columns of a B panel are always adjacent.
template <class T>
struct Panel {
  const T* data;
  int64_t line_stride;
  int64_t step;
  const int64_t* at = nullptr;  // listed: k adds at[k] to the address, and not k * step
  int64_t half = 0;             // of listed rows: how much further than evenly the second half of them lies
  const T* next = nullptr;      // of a B with something next: brought into L2 meanwhile, next_step elements a k
  int64_t next_step = 0;
  bool far = false;   // listed, or with something next: the results lie in memory, and are asked for meanwhile
  bool past = false;  // with something next: they are written past the caches, and nothing was before

  // Kernel `i` of `kernels` over this panel fetches its part of the next one. Where lines are few, B comes from beyond
  // L2 as fast as it is used up; fetched in bursts it held up the arithmetic.
  void fetch_next(const T* panel, int64_t depth, int64_t i, int64_t kernels) {
    next = panel + i * depth * step / kernels;
    next_step = step / kernels;
  }
};

// What the kernel knows of its panels: with all but the strided ones the rows of A are adjacent, which spares their
// addresses, three instructions in a hundred. B is listed, or A, whose rows are strided then; that B has something
// next.
enum class PanelKind { strided, packed, listed, with_next, strided_with_next, listed_rows };

template <class T>
PanelKind kind_of(const Panel<T>& a) {
  return a.line_stride == 1 ? PanelKind::packed : PanelKind::strided;
}

// c[i * c_row + j] = dot(row i of a, column j of b), each element one FMA chain from +0, which is added to the sum of
// the blocks before, before[i * before_row + j], unless that is null. Panels by reference: copies of a structure that
// was just written field by field wait for the stores.
template <class T>
using MicroKernel = void (*)(int64_t depth, const Panel<T>& a, const Panel<T>& b, T* c, int64_t c_row, const T* before,
                             int64_t before_row);

// The kernel of a tile of `rows` (1..kTileRows) rows of `columns` (1..kTileColumns) columns, of which it reads and
// writes tile_width; listed rows of one vector may be twice as many.
MicroKernel<float> micro_kernel(float, int rows, int columns, PanelKind kind = PanelKind::strided);
MicroKernel<double> micro_kernel(double, int rows, int columns, PanelKind kind = PanelKind::strided);

}  // namespace nl::NL_ISA

// reduce.cpp: the reductions in the order of T(n) over one axis: sum, sum_squares, prod, amax, amin, any, all.
#include "reduce.hpp"

#include "tree_columns.hpp"

namespace nl::NL_ISA {
namespace {

// The reduction by a monoid.
template <class M>
struct Tree {
  using In = typename M::In;
  using Out = typename M::Out;
  using Part = typename M::Lane;
  static constexpr int kWidth = Simd<Part>::kWidth;
  static constexpr int kTile = TreeColumns<M>::kTile;

  static constexpr bool kSeveral = TreeRow<M>::kSeveral, kSideBySide = kSeveral, kFew = true;

  static bool in_groups(int64_t n) { return is_short<In>(n); }
  template <class RowAt>
  static void several(const RowAt& row_at, int64_t n, Out* to) {
    store(to, M::results(TreeRow<M>::several_asking(row_at, n)));
  }
  static bool in_twos(int64_t n) { return TreeRow<M>::has_stretches(n); }
  static auto two(const In* p, const In* q, int64_t n, const In* end) { return TreeRow<M>::two(p, q, n, end); }
  static bool is_middling(int64_t n) { return TreeRow<M>::is_middling(n); }
  static auto middling(const In* p, const In* q, int64_t step, int64_t n) {
    return TreeRow<M>::middling(p, q, step, n);
  }
  static Part row(const In* p, int64_t step, int64_t n, const In* end, int64_t) {
    return TreeRow<M>::run(Strided<In>{p, step, end}, n);
  }
  static void columns(const In* p, int64_t step, int64_t stride, int64_t n, int columns, int64_t, Part* result) {
    TreeColumns<M>::run(p, {step, stride, columns}, n, result);
  }
  static void few(const In* p, int64_t step, int n, int columns, const In* end, Out* out, int64_t stride) {
    TreeColumns<M>::few(p, step, n, columns, end, [=](int at, int count, const auto& results) {
      if (stride == 1 && count == kWidth) return store(out + at, results);
      for (int k = 0; k < count; k++) out[(at + k) * stride] = results[k];
    });
  }
  static void merge(Part* a, const Part* b, int64_t count) { TreeColumns<M>::merge(a, b, count); }
  static Out finish(Part part) { return M::finish(part); }
};

template <class T>
using SumTree = Tree<Sum<T>>;
template <class T>
using SquaresTree = Tree<SumSquares<T>>;
template <class T>
using ProdTree = Tree<Prod<T>>;
template <class T>
using MaxTree = Tree<Max<T>>;
template <class T>
using MinTree = Tree<Min<T>>;
template <class T>
using AnyTree = Tree<Any<T>>;
template <class T>
using AllTree = Tree<All<T>>;

}  // namespace

int sum(const Call& call) { return reduce_by_dtype<SumTree>(call); }
int sum_squares(const Call& call) { return reduce_by_dtype<SquaresTree>(call); }
int prod(const Call& call) { return reduce_by_dtype<ProdTree>(call); }
int amax(const Call& call) { return reduce_by_dtype<MaxTree>(call); }
int amin(const Call& call) { return reduce_by_dtype<MinTree>(call); }
int any(const Call& call) { return reduce_by_dtype<AnyTree>(call); }
int all(const Call& call) { return reduce_by_dtype<AllTree>(call); }

}  // namespace nl::NL_ISA

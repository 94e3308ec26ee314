// blas.cpp: maps batched strided row-major products to calls of gemm.
#include "blas.hpp"

#include <algorithm>
#include <atomic>

#include "wide_copy.hpp"

namespace nl {
namespace {

constexpr int64_t kMaxExtent = (int64_t(1) << 31) - 1;

// One that is replaced is not freed: a product on another thread may still read it.
struct Chosen {
  Blas blas;
  std::atomic<int> threads{0};  // that it has been told
};
std::atomic<Chosen*> chosen{nullptr};

// A matrix as gemm takes it: lines of adjacent elements, `pitch` apart, that are its rows or, transposed, its columns.
struct Lines {
  bool transposed;
  int64_t pitch;
};

// Whether the last two axes of `v` are such lines; an axis of one element may have any stride.
bool as_lines(const View& v, Lines* lines) {
  const int r = v.rank - 2, c = v.rank - 1;
  const int64_t rows = v.shape[r], columns = v.shape[c];
  if ((v.strides[c] == 1 || columns == 1) && (v.strides[r] >= std::max<int64_t>(columns, 1) || rows == 1)) {
    *lines = {false, rows == 1 ? std::max<int64_t>(columns, 1) : v.strides[r]};
  } else if ((v.strides[r] == 1 || rows == 1) && v.strides[c] >= std::max<int64_t>(rows, 1)) {
    *lines = {true, v.strides[c]};
  } else {
    return false;
  }
  return lines->pitch <= kMaxExtent;
}

// An operand whose matrices are lines, in a copy where they are not, or made.
class Matrices {
 public:
  Matrices(const Call& call, int number) {
    const View& v = call.in[number];
    if (call.prologues != nullptr && call.prologues[number].fn != nullptr) {
      as_lines(view_ = copy_.made(v, call.prologues[number]), &lines_);
    } else if (as_lines(v, &lines_)) {
      view_ = v;
    } else {
      as_lines(view_ = copy_.matrices_of(v), &lines_);
    }
  }

  // In column-major terms a matrix is the transpose of its row-major self.
  const char* trans() const { return lines_.transposed ? "T" : "N"; }
  const int64_t* pitch() const { return &lines_.pitch; }
  template <class T>
  const T* batch(int64_t number) const {
    return reinterpret_cast<const T*>(view_.data) + locate(view_.shape, view_.strides, view_.rank - 2, number);
  }

 private:
  WideCopy copy_;
  View view_;
  Lines lines_{};
};

void finish(const Call& call, int64_t batch, int64_t rows, int64_t columns) {
  struct Context {
    const Epilogue* epilogue;
    int64_t batch, columns;
  } context = {call.epilogue, batch, columns};
  nl_parallel_for(
      rows, std::max<int64_t>(1, 4096 / columns),
      [](void* ctx, int64_t begin, int64_t end) {
        const auto& c = *static_cast<Context*>(ctx);
        c.epilogue->fn(c.epilogue->ctx, c.batch, begin, end, 0, c.columns);
      },
      &context);
}

// C^T = B^T A^T: what is row-major to us is the transpose to the library.
template <class T>
void multiply(const Call& call, Gemm<T> gemm) {
  const View& out = call.out[0];
  const int64_t m = out.shape[out.rank - 2], n = out.shape[out.rank - 1], k = call.in[0].shape[out.rank - 1];
  int64_t batches = 1;
  for (int d = 0; d < out.rank - 2; ++d) batches *= out.shape[d];
  const Matrices a(call, 0), b(call, 1);
  const T one = 1, zero = 0;
  for (int64_t i = 0; i < batches; ++i) {
    nl_check_interrupt();
    gemm(b.trans(), a.trans(), &n, &m, &k, &one, b.batch<T>(i), b.pitch(), a.batch<T>(i), a.pitch(), &zero,
         reinterpret_cast<T*>(out.data) + i * m * n, &n, 1, 1);
    if (call.epilogue != nullptr) finish(call, i, m, n);
  }
}

void follow_threads(Chosen* library) {
  const int wanted = nl_num_threads();
  if (library->blas.set_threads != nullptr && library->threads.exchange(wanted) != wanted) {
    library->blas.set_threads(wanted);
  }
}

}  // namespace

void use_blas(const Blas& blas) { chosen.store(blas.sgemm != nullptr ? new Chosen{blas} : nullptr); }

bool blas_in_use() { return chosen.load(std::memory_order_acquire) != nullptr; }

bool blas_matmul(const Call& call) {
  Chosen* library = chosen.load(std::memory_order_acquire);
  const View& out = call.out[0];
  if (library == nullptr || (out.dtype != DType::f32 && out.dtype != DType::f64)) return false;
  for (const View& v : {call.in[0], call.in[1]}) {
    for (int d = 0; d < out.rank; ++d)
      if (v.shape[d] == 0 || (d >= out.rank - 2 && v.shape[d] > kMaxExtent)) return false;
  }
  follow_threads(library);
  out.dtype == DType::f32 ? multiply<float>(call, library->blas.sgemm) : multiply<double>(call, library->blas.dgemm);
  return true;
}

}  // namespace nl

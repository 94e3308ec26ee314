// blas.hpp: products of float matrices by a BLAS library of the system, where the user asks for one.
#pragma once
#include <stddef.h>

#include "../base/view.hpp"

namespace nl {

// The Fortran interface: column-major, every argument by its address. All integers are int64_t below 2^31, so that
// their address serves libraries of 32-bit integers too.
template <class T>
using Gemm = void (*)(const char* trans_a, const char* trans_b, const int64_t* m, const int64_t* n, const int64_t* k,
                      const T* alpha, const T* a, const int64_t* lda, const T* b, const int64_t* ldb, const T* beta,
                      T* c, const int64_t* ldc, size_t trans_a_length, size_t trans_b_length);

struct Blas {
  Gemm<float> sgemm;
  Gemm<double> dgemm;
  void (*set_threads)(int64_t);  // null where the library has none
};

// From now on float products run by this library, also those of compiled programs; by our own kernels when sgemm is
// null. The library must stay loaded.
void use_blas(const Blas& blas);
bool blas_in_use();

// The row matmul by the library, for one float dtype; false where the library cannot: then nothing has been written.
bool blas_matmul(const Call& call);

}  // namespace nl

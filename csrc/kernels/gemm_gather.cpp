// gemm_gather.cpp: the row index_matmul: a product of rows that an index names, packed from where they lie.
#include "gemm_kept.hpp"
#include "indices.hpp"

namespace nl::NL_ISA {
namespace {

template <class T>
struct NamedRows {
  const T* data;
  int64_t extent, stride;
  const int64_t* index;
  int64_t step;

  const T* row(int64_t i) const { return data + place_of(index + i * step, extent) * stride; }

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const NamedRows& rows = *(const NamedRows*)source;
    auto line = [&](int64_t i) { return rows.row(slice.line + i) + slice.k; };
    pack_lines_of(line, slice.depth, slice, buffer, [](int k) { return k; });
    return {buffer, 1, slice.pitch};
  }
};

void finish(const void* owner, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const Epilogue* epilogue = (const Epilogue*)owner;
  epilogue->fn(epilogue->ctx, batch, i0, i1, j0, j1);
}

// The elements of a row are adjacent.
template <class T>
void multiply(const Call& call) {
  const View &index = call.in[0], &a = call.in[1], &b = call.in[2];
  const int64_t m = index.shape[0], k = a.shape[1], n = b.shape[1];
  const NamedRows<T> rows = {(const T*)a.data, a.shape[0], a.strides[0], (const int64_t*)index.data, index.strides[0]};
  const Matrix<T> columns = {(const T*)b.data, n, b.strides[1], b.strides[0], nullptr, 1, false};
  const Output<T> c = {(T*)call.out[0].data, m * n, n, {1, n, 0, 0, 1}};
  const Operand<T> right = {columns.fetch, &columns, columns.expect};
  Contraction<T> job = {1, m, n, 0, k, false, {rows.fetch, &rows}, right, c, nullptr, nullptr};
  if (call.epilogue) job.finish = finish, job.owner = call.epilogue;
  if (!call.kept) return contract(job);
  const KeptPanels<T> kept(columns, k, call.kept);
  job.b = kept.operand();
  contract(job);
}

}  // namespace

int index_matmul(const Call& call) {
  if (Status status = check(call.in[0], call.in[1].shape[0], 0, call.fault)) return status;
  call.out[0].dtype == DType::f32 ? multiply<float>(call) : multiply<double>(call);
  return kOk;
}

}  // namespace nl::NL_ISA

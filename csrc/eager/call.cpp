// call.cpp: executes or records one op; the single gate through which every computation goes.
#include <algorithm>
#include <cstdlib>

#include "../base/errors.hpp"
#include "../kernels/dispatch.hpp"
#include "../runtime/float_mode.hpp"
#include "blas.hpp"
#include "eager.hpp"
#include "ops.gen.hpp"
#include "tape.hpp"
#include "wide_copy.hpp"

namespace nl {

void extent(const TensorData& t, int64_t* lo, int64_t* hi) {
  *lo = t.offset;
  *hi = t.offset + 1;
  for (int d = 0; d < t.rank; ++d) {
    if (t.shape[d] == 0) {
      *hi = *lo = t.offset;
      return;
    }
    const int64_t reach = (t.shape[d] - 1) * t.strides[d];
    (reach < 0 ? *lo : *hi) += reach;
  }
}

static bool same_elements(const TensorData& a, const TensorData& b) {
  if (a.storage != b.storage || a.offset != b.offset || a.rank != b.rank || a.dtype != b.dtype) return false;
  for (int d = 0; d < a.rank; ++d)
    if (a.shape[d] != b.shape[d] || (a.shape[d] > 1 && a.strides[d] != b.strides[d])) return false;
  return true;
}

bool overlaps_partially(const TensorData& a, const TensorData& b) {
  const bool foreign = a.storage->flags & b.storage->flags & kForeign;
  if (a.storage != b.storage && !foreign) return false;
  if (same_elements(a, b)) return false;
  int64_t alo, ahi, blo, bhi;
  extent(a, &alo, &ahi);
  extent(b, &blo, &bhi);
  if (alo == ahi || blo == bhi) return false;
  const char* ad = a.storage->data;
  const char* bd = b.storage->data;
  const int64_t ai = itemsize(a.dtype), bi = itemsize(b.dtype);
  if (a.storage == b.storage) ad = bd = nullptr;  // one storage, which a tape may not have given memory yet
  const intptr_t a0 = intptr_t(ad) + alo * ai, a1 = intptr_t(ad) + ahi * ai;
  const intptr_t b0 = intptr_t(bd) + blo * bi, b1 = intptr_t(bd) + bhi * bi;
  return a0 < b1 && b0 < a1;
}

bool overlaps_itself(const TensorData& t) {
  // Sorted by stride, every axis must step over all that the finer axes reach.
  int order[kMaxRank], n = 0;
  for (int d = 0; d < t.rank; ++d) {
    if (t.shape[d] == 0) return false;
    if (t.shape[d] > 1) order[n++] = d;
  }
  std::sort(order, order + n, [&](int a, int b) { return std::abs(t.strides[a]) < std::abs(t.strides[b]); });
  int64_t reach = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t stride = std::abs(t.strides[order[i]]);
    if (stride <= reach) return true;
    reach += stride * (t.shape[order[i]] - 1);
  }
  return false;
}

void run_call(const Call& call) {
  const NativeFn fn = native_function(call.op);
  if (fn == nullptr) throw TraceError(std::string(op_name(call.op)) + " has no kernel");
  const DefaultFloatMode mode;
  if (fn(call) == kIndexError) throw index_error(op_name(call.op), call.fault);
}

static int run_nothing(const Call&) { return kOk; }

static int run_product(const Call& call) { return blas_matmul(call) ? kOk : nl_native_table()[kMatmul](call); }

// A library's product of rows that an index names: as in eager code, they are brought together first.
static int run_picked_product(const Call& call) {
  View factors[] = {call.in[1], call.in[2]};
  factors[0].shape[0] = call.in[0].shape[0];
  WideCopy rows;  // of a wide dtype already
  factors[0] = rows.like(factors[0]);
  const View sources[] = {call.in[1], call.in[0]};
  const int64_t axis = 0;
  const Call selection{sources, factors, &axis, call.fault, nullptr, kIndexSelect, 2, 1, 1};
  if (const int status = nl_native_table()[kIndexSelect](selection); status != kOk) return status;
  return run_product({factors, call.out, nullptr, call.fault, call.epilogue, kMatmul, 2, 1, 0});
}

// The kernel of a row, where the user has not asked for a library's products.
static NativeFn native_kernel(uint16_t op) {
  if (op == kMatmul && blas_in_use()) return run_product;
  if (op == kIndexMatmul && blas_in_use()) return run_picked_product;
  return nl_native_table()[op];
}

static int run_native(const Call& call) {
  const NativeFn fn = native_kernel(call.op);
  return is_direct(call.op) || !has_narrow(call) ? fn(call) : run_widened(call, fn);
}

NativeFn native_function(uint16_t op) {
  if (op >= kNumOps) return run_map;
  switch (op_kind(op)) {
    case OpKind::map: return run_map;
    case OpKind::source: return run_nothing;  // `empty`: memory, no contents
    default: return nl_native_table()[op] != nullptr ? run_native : nullptr;
  }
}

static View view_of(const Operand& o) {
  View v;
  v.dtype = o.dtype;
  v.rank = 0;
  v.data = reinterpret_cast<char*>(const_cast<uint64_t*>(&o.bits));
  return v;
}

static View view_of(const TensorData& t) {
  View v;
  v.dtype = t.dtype;
  v.rank = t.rank;
  std::copy_n(t.shape, t.rank, v.shape);
  std::copy_n(t.strides, t.rank, v.strides);
  v.data = t.storage->data + t.offset * itemsize(t.dtype);
  return v;
}

void execute(uint16_t op, const Operand* in, int n_in, TensorData* out, int n_out, const int64_t* attr, int n_attr) {
  if (Tape* tape = current_tape()) return tape->record(op, in, n_in, out, n_out, attr, n_attr);
  View views[kMaxOperands];
  for (int i = 0; i < n_in; ++i) {
    if (in[i].tensor != nullptr) check_usable(in[i].tensor->storage, nullptr);
    views[i] = in[i].tensor != nullptr ? view_of(*in[i].tensor) : view_of(in[i]);
  }
  Storage* created[kMaxOperands];
  int n_created = 0;
  try {
    for (int i = 0; i < n_out; ++i) {
      if (out[i].storage == nullptr) {
        created[n_created++] = out[i].storage = Storage::allocate(nbytes(out[i].dtype, numel(out[i])));
      } else {
        check_usable(out[i].storage, nullptr);
        ++out[i].storage->version;
      }
      views[n_in + i] = view_of(out[i]);
    }
    int64_t fault[3] = {0, 0, 0};
    run_call({views, views + n_in, attr, fault, nullptr, op, uint8_t(n_in), uint8_t(n_out), uint8_t(n_attr)});
  } catch (...) {
    for (int i = 0; i < n_created; ++i) created[i]->release();
    for (int i = 0; i < n_out; ++i)
      if (std::find(created, created + n_created, out[i].storage) != created + n_created) out[i].storage = nullptr;
    throw;
  }
}

}  // namespace nl

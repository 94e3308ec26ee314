// widen.cpp: narrow dtypes in kernels of the wide ones.
#include "widen.hpp"

#include "../runtime/alloc.hpp"
#include "ops.gen.hpp"

namespace nl {
namespace {

constexpr int64_t kWideBlock = 512;  // elements converted at a time: with two operands 6 KiB, which stay in L1

MapFn conversion(DType from, DType to) { return nl_map_table()[kCasts[int(to)]][int(from)]; }

void convert(const View& from, const View& to) {
  run_map({&from, &to, nullptr, nullptr, nullptr, kCasts[int(to.dtype)], 1, 1, 0});
}

// Memory for a view's elements in the wide dtype, row-major.
class WideCopy {
 public:
  WideCopy() = default;
  WideCopy(const WideCopy&) = delete;
  WideCopy& operator=(const WideCopy&) = delete;
  ~WideCopy() {
    if (view_.data != nullptr) nl_free(view_.data, bytes_);
  }

  const View& like(const View& v) {
    view_ = v;
    view_.data = nullptr;
    view_.dtype = wide(v.dtype);
    int64_t count = 1;
    for (int d = v.rank - 1; d >= 0; --d) {
      view_.strides[d] = count;
      count *= v.shape[d];
    }
    bytes_ = std::max<int64_t>(nbytes(view_.dtype, count), 1);
    view_.data = static_cast<char*>(nl_alloc(bytes_));
    return view_;
  }

  // The elements of v; those that several indices name are held once.
  const View& of(const View& v) {
    View once = v;
    for (int d = 0; d < v.rank; ++d)
      if (repeats(v, d)) once.shape[d] = 1;
    convert(once, like(once));
    for (int d = 0; d < v.rank; ++d) {
      if (!repeats(v, d)) continue;
      view_.shape[d] = v.shape[d];
      view_.strides[d] = 0;
    }
    return view_;
  }

 private:
  static bool repeats(const View& v, int d) { return v.strides[d] == 0 && v.shape[d] > 1; }

  View view_{};
  int64_t bytes_ = 0;
};

// The input that an in-place call's output is; -1 when it is none.
int overwritten(const Call& call, const View& out) {
  for (int i = 0; i < call.n_in; ++i)
    if (call.in[i].data == out.data && call.in[i].dtype == out.dtype) return i;
  return -1;
}

}  // namespace

bool has_narrow(const Call& call) {
  for (int i = 0; i < call.n_in; ++i)
    if (is_narrow(call.in[i].dtype)) return true;
  return false;
}

void set_kernel(Nest& nest, const Call& call) {
  const DType key = key_dtype(call);
  if (is_direct(call.op)) {
    nest.kernel = map_kernel(call.op, key);
    return;
  }
  nest.kernel = map_kernel(call.op, wide(key));
  for (int k = 0; k < nest.n_op; ++k) {
    const DType t = k < nest.n_out ? call.out[k].dtype : call.in[k - nest.n_out].dtype;
    if (!is_narrow(t)) continue;
    nest.convert[k] = k < nest.n_out ? conversion(wide(t), t) : conversion(t, wide(t));
    nest.widened = true;
  }
}

void call_widened(const Nest& nest, char* const* ptr, const int64_t* step, int64_t n, int64_t first) {
  alignas(64) char blocks[kMaxOperands][kWideBlock * 4];
  char* at[kMaxOperands];
  int64_t stride[kMaxOperands];
  for (int64_t i = 0; i < n; i += kWideBlock) {
    const int64_t count = std::min(kWideBlock, n - i);
    for (int k = 0; k < nest.n_op; ++k) {
      char* from = ptr[k] + i * step[k];
      at[k] = nest.convert[k] == nullptr ? from : blocks[k];
      stride[k] = nest.convert[k] == nullptr || step[k] == 0 ? step[k] : 4;
      if (nest.convert[k] == nullptr || k < nest.n_out) continue;
      char* const pair[] = {blocks[k], from};
      const int64_t steps[] = {4, nest.item[k]};
      nest.convert[k](pair, steps, step[k] == 0 ? 1 : count, 0);
    }
    nest.kernel(at, stride, count, first + i);
    for (int k = 0; k < nest.n_out; ++k) {
      if (nest.convert[k] == nullptr) continue;
      char* const pair[] = {ptr[k] + i * step[k], blocks[k]};
      const int64_t steps[] = {step[k], 4};
      nest.convert[k](pair, steps, count, 0);
    }
  }
}

int run_widened(const Call& call, NativeFn fn) {
  WideCopy copies[kMaxOperands];
  View views[kMaxOperands];
  for (int i = 0; i < call.n_in; ++i) views[i] = is_narrow(call.in[i].dtype) ? copies[i].of(call.in[i]) : call.in[i];
  View* outs = views + call.n_in;
  for (int i = 0; i < call.n_out; ++i) {
    const View& out = call.out[i];
    const int same = overwritten(call, out);
    outs[i] = !is_narrow(out.dtype) ? out : same >= 0 ? views[same] : copies[call.n_in + i].like(out);
  }
  Call wide_call = call;
  wide_call.in = views;
  wide_call.out = outs;
  if (const int status = fn(wide_call); status != kOk) return status;
  for (int i = 0; i < call.n_out; ++i)
    if (is_narrow(call.out[i].dtype)) convert(outs[i], call.out[i]);
  return kOk;
}

}  // namespace nl

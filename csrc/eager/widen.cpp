// widen.cpp: narrow dtypes in kernels of the wide ones.
#include "widen.hpp"

#include "ops.gen.hpp"
#include "wide_copy.hpp"

namespace nl {
namespace {

constexpr int64_t kWideBlock = 512;  // elements converted at a time: with two operands 6 KiB, which stay in L1

MapFn conversion(DType from, DType to) { return nl_map_table()[kCasts[int(to)]][int(from)]; }

constexpr int64_t kThin = 64;         // rows or columns of a product whose other operand is not reused much
constexpr int64_t kPacked = 1 << 14;  // elements of both matrices that are widened as they are packed, at least
constexpr int64_t kSlab = 1 << 17;    // elements of it that are widened at a time: with the source they fit L2

// A matmul with one thin side reads the other operand, the matrix, once. Slabs of it are widened into the cache, used
// and forgotten: 4096 x 4096 by a vector takes a tenth of the time of widening it whole.
struct ThinProduct {
  const Call& call;
  NativeFn fn;
  int side, axis;  // of the matrix: which operand, and which of its axes, also the result's, is cut
  int64_t size, slabs;
  WideCopy other;

  ThinProduct(const Call& c, NativeFn f) : call(c), fn(f) {
    const View& out = c.out[0];
    side = out.shape[out.rank - 2] <= out.shape[out.rank - 1];
    axis = out.rank - 2 + side;
    const int64_t least = c.in[side].strides[axis] == 1 ? 256 : 16;  // lines that are cut across are read in runs
    size = std::max<int64_t>(kSlab / std::max<int64_t>(c.in[1].shape[out.rank - 2], 1), least);
    const int64_t extent = out.shape[axis];
    while (extent > size && extent % size == 1) ++size;  // a slab of one line would be a vector, whose sums differ
    slabs = (extent + size - 1) / size;
  }

  bool pays() const {
    const View& out = call.out[0];
    return out.shape[out.rank - 1 - side] <= kThin && slabs > 1;
  }

  void run() {
    const View& out = call.out[0];
    int64_t batches = 1;
    for (int d = 0; d < out.rank - 2; ++d) batches *= out.shape[d];
    const View& thin = other.of(call.in[1 - side]);
    struct Context {
      const ThinProduct* product;
      const View* thin;
    } context = {this, &thin};
    nl_parallel_for(
        batches * slabs, 1,
        [](void* ctx, int64_t begin, int64_t end) {
          const auto& c = *static_cast<Context*>(ctx);
          for (int64_t u = begin; u < end; ++u) c.product->slab(*c.thin, u / c.product->slabs, u % c.product->slabs);
        },
        &context);
  }

  void slab(const View& thin, int64_t batch, int64_t number) const {
    WideCopy matrix, result;
    const View out = part(matrix_of(call.out[0], batch), number);
    View ins[2];
    ins[side] = matrix.of(part(matrix_of(call.in[side], batch), number));
    ins[1 - side] = matrix_of(thin, batch);
    Call product = call;
    product.kept = nullptr;  // what is kept belongs to the whole operand
    product.in = ins;
    product.out = &result.like(out);
    fn(product);
    convert(*product.out, out);
  }

  // The last two axes of v, in the batch of this number.
  static View matrix_of(const View& v, int64_t batch) {
    View m = v;
    const int lead = v.rank - 2;
    m.data += locate(v.shape, v.strides, lead, batch) * itemsize(v.dtype);
    m.rank = 2;
    std::copy_n(v.shape + lead, 2, m.shape);
    std::copy_n(v.strides + lead, 2, m.strides);
    return m;
  }

  View part(View v, int64_t number) const {
    v.data += number * size * v.strides[side] * itemsize(v.dtype);
    v.shape[side] = std::min(size, v.shape[side] - number * size);
    return v;
  }
};

int64_t elements(const View& v) {
  int64_t n = 1;
  for (int d = 0; d < v.rank; ++d) n *= v.shape[d];
  return n;
}

// Which operand of a product with a vector is the matrix; -1 for other products.
int matrix_beside_vector(const Call& call) {
  const View& out = call.out[0];
  return out.shape[out.rank - 2] == 1 ? 1 : out.shape[out.rank - 1] == 1 ? 0 : -1;
}

// Of a matrix of 16-bit floats, which our kernel widens as it reads it, and a vector.
int run_vector_product(const Call& call, NativeFn fn, int matrix) {
  WideCopy vector, result;
  View ins[2];
  ins[matrix] = call.in[matrix];
  ins[1 - matrix] = vector.of(call.in[1 - matrix]);
  Call product = call;
  product.in = ins;
  product.out = &result.like(call.out[0]);
  const int status = fn(product);
  convert(*product.out, call.out[0]);
  return status;
}

// Of larger matrices of 16-bit floats, which our kernel widens as it packs them: 0.83 of the time of 128 x 4096 x 4096,
// 0.95 of 1024 x 1024 x 1024. Small products read wide copies where they lie.
int run_packing(const Call& call, NativeFn fn) {
  WideCopy result;
  Call product = call;
  product.out = &result.like(call.out[0]);
  const int status = fn(product);
  convert(*product.out, call.out[0]);
  return status;
}

// The input that an in-place call's output is; -1 when it is none.
int overwritten(const Call& call, const View& out) {
  for (int i = 0; i < call.n_in; ++i)
    if (call.in[i].data == out.data && call.in[i].dtype == out.dtype) return i;
  return -1;
}

}  // namespace

void convert(const View& from, const View& to) {
  run_map({&from, &to, nullptr, nullptr, nullptr, kCasts[int(to.dtype)], 1, 1, 0});
}

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
  if (call.op == kMatmul) {
    const int matrix = matrix_beside_vector(call);
    const bool ours = fn == nl_native_table()[kMatmul];  // and not a library's
    if (ours && matrix >= 0 && is_float(call.in[matrix].dtype)) return run_vector_product(call, fn, matrix);
    ThinProduct product(call, fn);
    if (product.pays()) {
      product.run();
      return kOk;
    }
    if (ours && is_float(call.out[0].dtype) && elements(call.in[0]) + elements(call.in[1]) >= kPacked) {
      return run_packing(call, fn);
    }
  }
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

// Factors of the split matmul: rows scaled by a power of two so that their largest number is in [2^14, 2^15),
// then high = fp16(x), low = fp16(x - high). A number keeps 22 bits down to 2^-17 of its row's largest, and
// is off by 2^-39 of that largest below.
#include "split.h"

#include "linear.h"
#include "operands.h"
#include "reduce.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kMostThreads = 256;  // a block to a row
constexpr int kHeld = 8;           // quads of a row that a thread keeps from one pass to the other
constexpr int kTopExponent = 14;
constexpr unsigned kInfinite = 0x7f800000;
constexpr int64_t kDecodedBytes = int64_t{64} << 20;  // of scratch, where weights are decoded

// Weights whose digits an FP16 has all of, once scaled, need no low part.
bool is_exact_in_f16(DType dtype) {
  return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2;
}

// In one piece of memory: high [rows, padded], low [rows, padded] if there are two parts, scale [rows].
struct SplitMemory {
  uint16_t *high, *low;
  float* scale;

  SplitMemory(std::byte* data, int parts, int64_t rows, int64_t padded_k)
      : high(reinterpret_cast<uint16_t*>(data)),
        low(parts == 2 ? high + rows * padded_k : nullptr),
        scale(reinterpret_cast<float*>(high + parts * rows * padded_k)) {}
  static int64_t bytes(int parts, int64_t rows, int64_t padded_k) {
    return rows * (2 * parts * padded_k + 4);
  }
  SplitMemory from_row(int64_t row, int64_t padded_k) const {
    SplitMemory rest = *this;
    rest.high += row * padded_k;
    if (low) rest.low += row * padded_k;
    rest.scale += row;
    return rest;
  }
};

// Rows [k], read four numbers at a time, zeros behind the last.
template <typename From>
struct RowOfQuads {
  const typename From::Stored* data;
  int k;
  bool aligned;

  __device__ __forceinline__ void read(float (&v)[4], int col) const {
    if (aligned && col + 4 <= k) return load_vector<From>(v, data + col);
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < 4; ++j) v[j] = col + j < k ? From::decode(data[col + j]) : 0;
  }
};

// The scale of a row, and its inverse in two factors: it may be too large for one.
struct RowScale {
  float scale, factor, more;

  // 2^exponent, -126 ≤ exponent ≤ 127
  static __device__ __forceinline__ float power_of_two(int exponent) {
    return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
  }
  // largest: bits of the largest magnitude
  __device__ __forceinline__ explicit RowScale(unsigned largest) {
    const int exponent = largest >> 23 ? static_cast<int>(largest >> 23) - 127 : -126;
    const int up = kTopExponent - exponent;  // -113 … 140
    const int first = up > 100 ? 100 : up;
    factor = power_of_two(first);
    more = power_of_two(up - first);
    scale = power_of_two(-first) * power_of_two(first - up);
  }
};

// The largest over all threads of the block.
__device__ __forceinline__ unsigned block_max(unsigned v) {
  KOTOBA_SHARED(parts, unsigned[kMostThreads / 32]);
  for (int bits = 16; bits > 0; bits /= 2) {
    const unsigned other = __shfl_xor_sync(kWholeWarp, v, bits);
    v = other > v ? other : v;
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / 32; ++i) v = parts[i] > v ? parts[i] : v;
  return v;
}

// Bits of magnitudes are ordered as the magnitudes are; NaNs come last.
__device__ __forceinline__ unsigned larger_of(unsigned largest, const float (&v)[4]) {
  KOTOBA_UNROLL(unroll)
  for (int j = 0; j < 4; ++j) {
    const unsigned magnitude = __float_as_uint(v[j]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

__device__ __forceinline__ void write_parts(const SplitMemory& out, int64_t at, const float (&v)[4],
                                            const RowScale& row) {
  float high[4], low[4];
  KOTOBA_UNROLL(unroll)
  for (int j = 0; j < 4; ++j) high[j] = v[j] * row.factor * row.more;
  uint32_t pairs[2] = {F16Number::pack(high[0], high[1]), F16Number::pack(high[2], high[3])};
  *reinterpret_cast<uint2*>(out.high + at) = make_uint2(pairs[0], pairs[1]);
  if (!out.low) return;
  KOTOBA_UNROLL(unroll)
  for (int j = 0; j < 4; ++j)
    low[j] = high[j] - F16Number::decode(static_cast<uint16_t>(pairs[j / 2] >> j % 2 * 16));
  *reinterpret_cast<uint2*>(out.low + at) =
      make_uint2(F16Number::pack(low[0], low[1]), F16Number::pack(low[2], low[3]));
}

// Two passes over a row: its largest number, then its parts. What a thread can hold it reads once.
template <typename From>
__global__ void __launch_bounds__(kMostThreads)
    split_rows_kernel(SplitMemory out, const typename From::Stored* x, int64_t x_stride, int k, int padded_k,
                      bool aligned) {
  const int64_t row = blockIdx.x, to = row * padded_k;
  const RowOfQuads<From> quads = {x + row * x_stride, k, aligned};
  const int first = static_cast<int>(threadIdx.x) * 4, step = static_cast<int>(blockDim.x) * 4;
  float held[kHeld][4], v[4];
  unsigned largest = 0;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kHeld; ++i) quads.read(held[i], first + i * step);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kHeld; ++i) largest = larger_of(largest, held[i]);
  for (int c = first + kHeld * step; c < k; c += step) {
    quads.read(v, c);
    largest = larger_of(largest, v);
  }
  largest = block_max(largest);
  const bool finite = largest < kInfinite;  // else the row's scale makes a NaN of every result
  const RowScale scale(finite ? largest : 0);
  if (threadIdx.x == 0) out.scale[row] = finite ? scale.scale : __uint_as_float(0x7fc00000);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kHeld; ++i)
    if (first + i * step < padded_k) write_parts(out, to + first + i * step, held[i], scale);
  for (int c = first + kHeld * step; c < padded_k; c += step) {
    quads.read(v, c);
    write_parts(out, to + c, v, scale);
  }
}

// x: activations [rows, k]
void split_rows(const Context& context, const SplitMemory& out, const TensorView& x) {
  const int k = static_cast<int>(x.cols()), quads = static_cast<int>(ceil_div(k, 4));
  const int warps = std::clamp(quads / (32 * kHeld / 2), 1, kMostThreads / 32);
  const bool aligned =
      x.row_stride % 4 == 0 &&
      reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(4 * info(x.dtype).bytes) == 0;
  dispatch_activation(x.dtype, "split", [&]<typename From>() {
    launch(context.stream, {"split_rows", x.rows(), 32 * warps}, split_rows_kernel<From>, out,
           x.as<const typename From::Stored>(), x.row_stride, k, static_cast<int>(padded(k)), aligned);
  });
}

// w: of any weight dtype, decoded some rows at a time
void split_weights(const Context& context, const SplitMemory& out, const TensorView& w) {
  if (is_activation_dtype(w.dtype)) return split_rows(context, out, w);
  const int64_t k = w.cols();
  const int64_t at_once = std::min(w.rows(), std::max<int64_t>(1, kDecodedBytes / 4 / k));
  const Scratch decoded(context.pool, 4 * at_once * k);
  for (int64_t first = 0; first < w.rows(); first += at_once) {
    TensorView rows = w, floats = w;
    rows.shape[0] = floats.shape[0] = std::min(at_once, w.rows() - first);
    rows.data = w.row_bytes(first);
    floats.data = decoded.as<std::byte>();
    floats.dtype = DType::F32;
    floats.row_stride = k;
    decode(context, floats, rows);
    split_rows(context, out.from_row(first, padded(k)), floats);
  }
}

SplitRows as_rows(const SplitMemory& memory, int64_t padded_k) {
  return {memory.high, memory.low, padded_k, memory.scale};
}

void run(const Context& context, const LinearProblem& p, const SplitRows& x, const SplitRows& w,
         int64_t first, int64_t count) {
  const SplitProblem problem = {.size = {p.size.m, count, padded(p.size.k)},
                                .x = x,
                                .w = w,
                                .epilogue = from_column(p.epilogue, first),
                                .arch = p.arch,
                                .multiprocessors = p.multiprocessors};
  run_variant<SplitProblem>(context, "split", {split_wgmma_variants(), split_mma_variants()}, problem);
}

// Weights that are not kept: some rows at a time.
void run_in_parts(const Context& context, const LinearProblem& p, const SplitRows& x, int parts) {
  const int64_t padded_k = padded(p.size.k);
  const int64_t at_once = std::min(p.size.n, std::max<int64_t>(512, kDecodedBytes / 4 / padded_k));
  const Scratch scratch(context.pool, SplitMemory::bytes(parts, at_once, padded_k));
  for (int64_t first = 0; first < p.size.n; first += at_once) {
    TensorView rows = p.w;
    rows.shape[0] = std::min(at_once, p.size.n - first);
    rows.data = p.w.row_bytes(first);
    const SplitMemory memory(scratch.as<std::byte>(), parts, rows.shape[0], padded_k);
    split_weights(context, memory, rows);
    run(context, p, x, as_rows(memory, padded_k), first, rows.shape[0]);
  }
}

}  // namespace

bool split_fits(const LinearProblem& p) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return p.precision == Precision::kFp32 && std::max({p.size.m, p.size.n, p.size.k}) <= kMost;
}

void run_split(const Context& context, const LinearProblem& p) {
  const int64_t padded_k = padded(p.size.k);
  const Scratch scratch(context.pool, SplitMemory::bytes(2, p.size.m, padded_k));
  const SplitMemory memory(scratch.as<std::byte>(), 2, p.size.m, padded_k);
  split_rows(context, memory, p.x);
  const SplitRows x = as_rows(memory, padded_k);
  // F16 weights are their own high part, as stored.
  if (p.w.dtype == DType::F16 && is_operand(p.w))
    return run(context, p, x, {p.w.as<const uint16_t>(), nullptr, p.w.row_stride, nullptr}, 0, p.size.n);
  const int parts = is_exact_in_f16(p.w.dtype) ? 1 : 2;
  const std::byte* kept = context.forms.get(
      p.w, WeightForm::kSplit, SplitMemory::bytes(parts, p.size.n, padded_k),
      [&](std::byte* out) { split_weights(context, SplitMemory(out, parts, p.size.n, padded_k), p.w); });
  if (!kept) return run_in_parts(context, p, x, parts);
  const SplitMemory weights(const_cast<std::byte*>(kept), parts, p.size.n, padded_k);
  run(context, p, x, as_rows(weights, padded_k), 0, p.size.n);
}

}  // namespace kotoba::cuda

// rms_norm:   out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight                (arXiv:1910.07467)
// layer_norm: out[r, :] = (x[r, :] - mean) / sqrt(variance + eps) * weight + bias       (arXiv:1607.06450)
// layer_norm_modulated: the same with 1 + scale as weight and shift as bias, of each group of rows (AdaLN,
// arXiv:2212.09748 §3.2)
//
// A row is read once and stays in registers: those of a warp up to 1024 columns, of a block up to 4096.
// Longer rows, and those that cannot be read four numbers at a time, are read again for every sum.
#include "plain_vector.h"
#include "reduce.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;
constexpr int kWarpVectors = 8, kBlockVectors = 4;  // of a row, to a thread

struct Rows {
  Numbers out;
  const float* x;
  int64_t out_stride, x_stride, rows;
  int cols;
  float eps;
};

// ---- sums over the kLanes threads of a row: a warp or the block

template <int kLanes, int kCount>
__device__ __forceinline__ void row_sums(float (&v)[kCount]) {
  if constexpr (kLanes > 32) {
    block_sums<kLanes>(v);
  } else {
    KOTOBA_UNROLL(unroll)
    for (float& sum : v) sum = warp_sum(sum);
  }
}

// What turns a row into one of mean 0 and variance 1. The rounded mean leaves a rest that matters where
// |mean| is much larger than the deviation: the deviations' own mean is that rest.
struct Moments {
  float mean, rest, scale;
  __device__ __forceinline__ float normal(float v) const { return (v - mean - rest) * scale; }
};

// each(f) calls f(v) for every number of the row that this thread has.
template <int kLanes, typename Each>
__device__ __forceinline__ float rms_scale(Each each, int cols, float eps) {
  float squares[1] = {0};
  each([&](float v) { squares[0] = fmaf(v, v, squares[0]); });
  row_sums<kLanes>(squares);
  return 1 / sqrtf(squares[0] / static_cast<float>(cols) + eps);
}
template <int kLanes, typename Each>
__device__ __forceinline__ Moments row_moments(Each each, int cols, float eps) {
  const float n = static_cast<float>(cols);
  float sum[1] = {0};
  each([&](float v) { sum[0] += v; });
  row_sums<kLanes>(sum);
  const float mean = sum[0] / n;
  float sums[2] = {0, 0};  // of deviations, of their squares
  each([&](float v) {
    const float d = v - mean;
    sums[0] += d;
    sums[1] = fmaf(d, d, sums[1]);
  });
  row_sums<kLanes>(sums);
  const float rest = sums[0] / n, variance = sums[1] / n - rest * rest;
  // A NaN stays one: fmaxf would turn it into 0.
  return {mean, rest, 1 / sqrtf((variance < 0 ? 0 : variance) + eps)};
}

// ---- the kinds of norms: what a row needs to know, and kCount results from column c on

struct RmsNorm {
  Vector weight;

  using Row = float;
  template <int kLanes, typename Each>
  __device__ __forceinline__ Row of_row(Each each, int cols, float eps) const {
    return rms_scale<kLanes>(each, cols, eps);
  }
  template <int kCount>
  __device__ __forceinline__ void finish(float (&v)[kCount], const Row& scale, int64_t, int c) const {
    float w[kCount];
    load_some(w, weight, c);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) v[i] = v[i] * scale * w[i];
  }
};

struct LayerNorm {
  Vector weight, bias;

  using Row = Moments;
  template <int kLanes, typename Each>
  __device__ __forceinline__ Row of_row(Each each, int cols, float eps) const {
    return row_moments<kLanes>(each, cols, eps);
  }
  template <int kCount>
  __device__ __forceinline__ void finish(float (&v)[kCount], const Row& m, int64_t, int c) const {
    float w[kCount], b[kCount];
    load_some(w, weight, c);
    load_some(b, bias, c);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) v[i] = fmaf(m.normal(v[i]), w[i], b[i]);
  }
};

// shift, scale: [groups, cols], one row for each `group` rows
struct Modulated {
  const float *shift, *scale;
  int64_t shift_stride, scale_stride;
  Divisor group;

  using Row = Moments;
  template <int kLanes, typename Each>
  __device__ __forceinline__ Row of_row(Each each, int cols, float eps) const {
    return row_moments<kLanes>(each, cols, eps);
  }
  template <int kCount>
  __device__ __forceinline__ void finish(float (&v)[kCount], const Row& m, int64_t row, int c) const {
    const int64_t g = group.quotient(static_cast<uint32_t>(row));
    float w[kCount], b[kCount];
    load_vector<F32Number>(w, scale + g * scale_stride + c);
    load_vector<F32Number>(b, shift + g * shift_stride + c);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) v[i] = fmaf(m.normal(v[i]), 1 + w[i], b[i]);
  }
};

// ---- kernels

// kLanes threads to a row, whose numbers they keep: vector i · kLanes + lane in v[i].
template <typename Norm, int kLanes, int kVectors>
__global__ void __launch_bounds__(kThreads) norm_kernel(Rows p, Norm norm) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  if (row >= p.rows) return;
  const int first = static_cast<int>(threadIdx.x) % kLanes * kVector;
  constexpr int kStep = kLanes * kVector;  // columns
  float v[kVectors][kVector];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectors; ++i)
    if (first + i * kStep < p.cols) load_vector<F32Number>(v[i], p.x + row * p.x_stride + first + i * kStep);
  const auto each = [&](auto f) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kVectors; ++i)
      if (first + i * kStep < p.cols) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kVector; ++j) f(v[i][j]);
  };
  const auto known = norm.template of_row<kLanes>(each, p.cols, p.eps);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectors; ++i) {
    const int c = first + i * kStep;
    if (c >= p.cols) continue;
    norm.finish(v[i], known, row, c);
    store_vector(p.out, row * p.out_stride + c, v[i]);
  }
}

// Any row: a block to it, number by number.
template <typename Norm>
__global__ void __launch_bounds__(kThreads) long_norm_kernel(Rows p, Norm norm) {
  const int64_t row = blockIdx.x;
  const float* x = p.x + row * p.x_stride;
  const auto each = [&](auto f) {
    for (int c = static_cast<int>(threadIdx.x); c < p.cols; c += kThreads) f(x[c]);
  };
  const auto known = norm.template of_row<kThreads>(each, p.cols, p.eps);
  for (int c = static_cast<int>(threadIdx.x); c < p.cols; c += kThreads) {
    float v[1] = {x[c]};
    norm.finish(v, known, row, c);
    store_vector(p.out, row * p.out_stride + c, v);
  }
}

// `wide`: whatever `norm` reads may be read four numbers at a time.
template <typename Norm>
void run_norm(const Context& context, const char* op, const TensorView& out, const TensorView& x, float eps,
              const Norm& norm, bool wide) {
  if (x.elements() == 0) return;
  require(x.rows() < int64_t{1} << 31 && x.cols() < int64_t{1} << 31, op, ": ", x.rows(), " rows of ",
          x.cols(), " are more than a GPU's norms have numbers for");
  const Rows p = {{out.data, out.dtype},
                  x.as<float>(),
                  out.row_stride,
                  x.row_stride,
                  x.rows(),
                  static_cast<int>(x.cols()),
                  eps};
  const auto start = [&](auto kernel, int64_t blocks) {
    launch(context.stream, {op, blocks, kThreads}, kernel, p, norm);
  };
  wide = wide && fits_vectors(x, kVector) && fits_vectors(out, kVector);
  if (wide && p.cols <= 32 * kVector * kWarpVectors)
    return start(norm_kernel<Norm, 32, kWarpVectors>, ceil_div(p.rows, kThreads / 32));
  if (wide && p.cols <= kThreads * kVector * kBlockVectors)
    return start(norm_kernel<Norm, kThreads, kBlockVectors>, p.rows);
  start(long_norm_kernel<Norm>, p.rows);
}

}  // namespace

// out: activations, x: F32 [rows, cols]; weight: [cols] of any weight dtype. `out` in F32 may alias `x`.
void rms_norm(const Context& context, TensorView out, TensorView x, TensorView weight, float eps) {
  const PlainVector w(context, weight);
  run_norm(context, "rms_norm", out, x, eps, RmsNorm{w.get()}, fits_quads(w.get()));
}

// out: activations, x: F32 [rows, cols]; weight, bias: [cols] of any weight dtype. `out` in F32 may alias
// `x`.
void layer_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                float eps) {
  const PlainVector w(context, weight), b(context, bias);
  run_norm(context, "layer_norm", out, x, eps, LayerNorm{w.get(), b.get()},
           fits_quads(w.get()) && fits_quads(b.get()));
}

// out: activations, x: F32 [groups * rows, cols]; shift, scale: F32 [groups, cols]. `out` in F32 may alias
// `x`.
void layer_norm_modulated(const Context& context, TensorView out, TensorView x, TensorView shift,
                          TensorView scale, float eps) {
  if (x.elements() == 0) return;
  const Modulated norm = {shift.as<float>(), scale.as<float>(), shift.row_stride, scale.row_stride,
                          Divisor(x.rows() / shift.rows())};
  run_norm(context, "layer_norm_modulated", out, x, eps, norm,
           fits_vectors(shift, kVector) && fits_vectors(scale, kVector));
}

}  // namespace kotoba::cuda

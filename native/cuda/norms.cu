// rms_norm:   out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight                (arXiv:1910.07467)
// layer_norm: out[r, :] = (x[r, :] - mean) / sqrt(variance + eps) * weight + bias       (arXiv:1607.06450)
// layer_norm_modulated: the same with 1 + scale as weight and shift as bias, of each group of rows (AdaLN,
// arXiv:2212.09748 §3.2)
#include "launch.h"
#include "plain_vector.h"
#include "reduce.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;  // a block to a row

struct Rows {
  float* out;
  const float* x;
  int64_t out_stride, x_stride, cols;
  float eps;
};

Rows make_rows(const TensorView& out, const TensorView& x, float eps) {
  return {out.as<float>(), x.as<float>(), out.row_stride, x.row_stride, x.cols(), eps};
}

__global__ void rms_norm_kernel(Rows p, Vector weight) {
  const float* x = p.x + blockIdx.x * p.x_stride;
  float* out = p.out + blockIdx.x * p.out_stride;
  float squares = 0;
  for (int64_t c = threadIdx.x; c < p.cols; c += kThreads) squares = fmaf(x[c], x[c], squares);
  const float mean = block_sum<kThreads>(squares) / static_cast<float>(p.cols);
  const float scale = 1 / sqrtf(mean + p.eps);
  for (int64_t c = threadIdx.x; c < p.cols; c += kThreads) out[c] = x[c] * scale * load(weight, c);
}

// What turns a row into one of mean 0 and variance 1. The rounded mean leaves a rest that matters where
// |mean| is much larger than the deviation: the deviations' own mean is that rest.
struct Moments {
  float mean, rest, scale;
  __device__ __forceinline__ float normal(float v) const { return (v - mean - rest) * scale; }
};

__device__ __forceinline__ Moments row_moments(const float* x, int64_t cols, float eps) {
  const float n = static_cast<float>(cols);
  float sum = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += x[c];
  const float mean = block_sum<kThreads>(sum) / n;
  float deviations = 0, squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    const float d = x[c] - mean;
    deviations += d;
    squares = fmaf(d, d, squares);
  }
  const float rest = block_sum<kThreads>(deviations) / n;
  const float variance = block_sum<kThreads>(squares) / n - rest * rest;
  // A NaN stays one: fmaxf would turn it into 0.
  return {mean, rest, 1 / sqrtf((variance < 0 ? 0 : variance) + eps)};
}

__global__ void layer_norm_kernel(Rows p, Vector weight, Vector bias) {
  const float* x = p.x + blockIdx.x * p.x_stride;
  float* out = p.out + blockIdx.x * p.out_stride;
  const Moments m = row_moments(x, p.cols, p.eps);
  for (int64_t c = threadIdx.x; c < p.cols; c += kThreads)
    out[c] = fmaf(m.normal(x[c]), load(weight, c), load(bias, c));
}

// shift, scale: [groups, cols], one row for each `group` rows
struct Modulation {
  const float *shift, *scale;
  int64_t shift_stride, scale_stride, group;
};

__global__ void layer_norm_modulated_kernel(Rows p, Modulation by) {
  const float* x = p.x + blockIdx.x * p.x_stride;
  float* out = p.out + blockIdx.x * p.out_stride;
  const float* shift = by.shift + blockIdx.x / by.group * by.shift_stride;
  const float* scale = by.scale + blockIdx.x / by.group * by.scale_stride;
  const Moments m = row_moments(x, p.cols, p.eps);
  for (int64_t c = threadIdx.x; c < p.cols; c += kThreads)
    out[c] = fmaf(m.normal(x[c]), 1 + scale[c], shift[c]);
}

int64_t blocks_for(const TensorView& x) { return x.cols() == 0 ? 0 : x.rows(); }

}  // namespace

// out, x: F32 [rows, cols]; weight: [cols] of any weight dtype. `out` may alias `x`.
void rms_norm(const Context& context, TensorView out, TensorView x, TensorView weight, float eps) {
  const PlainVector w(context, weight);
  launch(context.stream, {"rms_norm", blocks_for(x), kThreads}, rms_norm_kernel, make_rows(out, x, eps),
         w.get());
}

// out, x: F32 [rows, cols]; weight, bias: [cols] of any weight dtype. `out` may alias `x`.
void layer_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                float eps) {
  const PlainVector w(context, weight), b(context, bias);
  launch(context.stream, {"layer_norm", blocks_for(x), kThreads}, layer_norm_kernel, make_rows(out, x, eps),
         w.get(), b.get());
}

// out, x: F32 [groups * rows, cols]; shift, scale: F32 [groups, cols]. `out` may alias `x`.
void layer_norm_modulated(const Context& context, TensorView out, TensorView x, TensorView shift,
                          TensorView scale, float eps) {
  const Modulation by = {shift.as<float>(), scale.as<float>(), shift.row_stride, scale.row_stride,
                         x.rows() / shift.rows()};
  launch(context.stream, {"layer_norm_modulated", blocks_for(x), kThreads}, layer_norm_modulated_kernel,
         make_rows(out, x, eps), by);
}

}  // namespace kotoba::cuda

// rms_norm:   out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight                (arXiv:1910.07467)
// layer_norm: out[r, :] = (x[r, :] - mean) / sqrt(variance + eps) * weight + bias       (arXiv:1607.06450)
// layer_norm_modulated: the same with 1 + scale as weight and shift as bias, of each group of rows (AdaLN,
// arXiv:2212.09748 §3.2)
#include "decode.h"
#include "row_loops.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

float reciprocal_sqrt(float a) { return 1 / __builtin_sqrtf(a); }

void rms_norm_row(float* out, const float* x, const float* weight, int64_t cols, float eps) {
  const float squares = sum_row(x, cols, [](VF v, int64_t) { return v_mul(v, v); });
  const VF scale = v_set(reciprocal_sqrt(squares / static_cast<float>(cols) + eps));
  map_row(out, cols, [&](const auto& load) { return v_mul(v_mul(load(x), scale), load(weight)); });
}

// What turns a row into one of mean 0 and variance 1.
struct Moments {
  // The rounded mean leaves a rest that matters where |mean| >> deviation: the deviations' own mean is that
  // rest.
  VF mean, rest;
  VF scale;

  VF normal(VF v) const { return v_mul(v_sub(v_sub(v, mean), rest), scale); }
};

Moments row_moments(const float* x, int64_t cols, float eps) {
  const float n = static_cast<float>(cols);
  const VF mean = v_set(sum_row(x, cols, [](VF v, int64_t) { return v; }) / n);
  const auto deviation = [&](VF v, int64_t lanes) {
    const VF d = v_sub(v, mean);
    if (lanes == kLanes) return d;
    alignas(64) float buffer[kLanes];
    v_store(buffer, d);
    return v_load_partial(buffer, lanes);
  };
  const auto [sum, squares] = sum_row(x, cols, [&](VF v, int64_t lanes) {
    const VF d = deviation(v, lanes);
    return VectorPair{d, v_mul(d, d)};
  });
  const float rest = sum / n;
  const float variance = squares / n - rest * rest;
  return {mean, v_set(rest), v_set(reciprocal_sqrt((variance > 0 ? variance : 0) + eps))};
}

void layer_norm_row(float* out, const float* x, const float* weight, const float* bias, int64_t cols,
                    float eps) {
  const Moments m = row_moments(x, cols, eps);
  map_row(out, cols, [&](const auto& load) { return v_fma(m.normal(load(x)), load(weight), load(bias)); });
}

void layer_norm_modulated_row(float* out, const float* x, const float* shift, const float* scale,
                              int64_t cols, float eps) {
  const Moments m = row_moments(x, cols, eps);
  const VF one = v_set(1.0f);
  map_row(out, cols,
          [&](const auto& load) { return v_fma(m.normal(load(x)), v_add(one, load(scale)), load(shift)); });
}

// Space for `vectors` decoded vectors of [cols], each aligned.
int64_t padded(int64_t cols) { return (cols + kLanes - 1) / kLanes * kLanes; }
float* vector_scratch(int64_t cols, int vectors) {
  const int64_t bytes = padded(cols) * vectors * static_cast<int64_t>(sizeof(float));
  return static_cast<float*>(scratch(Scratch::kOp, bytes));
}

}  // namespace

// out, x: F32 [rows, cols]; weight: [cols] of any weight dtype. `out` may alias `x`.
void rms_norm(const Context& context, TensorView out, TensorView x, TensorView weight, float eps) {
  const int64_t cols = x.cols();
  if (cols == 0) return;
  float* w = vector_scratch(cols, 1);
  decode_row(weight.dtype, weight.data, w, cols);
  for_each_row(context, x.rows(), cols,
               [&](int64_t r) { rms_norm_row(out.row<float>(r), x.row<float>(r), w, cols, eps); });
}

// out, x: F32 [rows, cols]; weight, bias: [cols] of any weight dtype. `out` may alias `x`.
void layer_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                float eps) {
  const int64_t cols = x.cols();
  if (cols == 0) return;
  float* w = vector_scratch(cols, 2);
  float* b = w + padded(cols);
  decode_row(weight.dtype, weight.data, w, cols);
  decode_row(bias.dtype, bias.data, b, cols);
  for_each_row(context, x.rows(), cols,
               [&](int64_t r) { layer_norm_row(out.row<float>(r), x.row<float>(r), w, b, cols, eps); });
}

// out, x: F32 [groups * rows, cols]; shift, scale: F32 [groups, cols]. `out` may alias `x`.
void layer_norm_modulated(const Context& context, TensorView out, TensorView x, TensorView shift,
                          TensorView scale, float eps) {
  const int64_t cols = x.cols(), group = x.rows() / shift.rows();
  if (cols == 0) return;
  for_each_row(context, x.rows(), cols, [&](int64_t r) {
    const int64_t g = r / group;
    layer_norm_modulated_row(out.row<float>(r), x.row<float>(r), shift.row<float>(g), scale.row<float>(g),
                             cols, eps);
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA

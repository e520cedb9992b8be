// rms_norm:   out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight                (arXiv:1910.07467)
// layer_norm: out[r, :] = (x[r, :] - mean) / sqrt(variance + eps) * weight + bias       (arXiv:1607.06450)
// Four vectors of partial sums keep the error of a sum over some thousand columns near 1e-7.
#include "decode.h"
#include "isa.h"
#include "simd.h"
#include "thread_pool.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int64_t kChunkElements = 16384;  // 64 KB of rows a chunk: some microseconds

float reciprocal_sqrt(float a) { return 1 / __builtin_sqrtf(a); }

// Sum of f(vector) over a row; f also takes the last, partly zero vector.
template <typename F>
KOTOBA_INLINE float sum_row(const float* x, int64_t cols, const F& f) {
  VF s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
  int64_t c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes) {
    s0 = v_add(s0, f(v_load(x + c), kLanes));
    s1 = v_add(s1, f(v_load(x + c + kLanes), kLanes));
    s2 = v_add(s2, f(v_load(x + c + 2 * kLanes), kLanes));
    s3 = v_add(s3, f(v_load(x + c + 3 * kLanes), kLanes));
  }
  for (; c < cols; c += kLanes) {
    const int64_t n = cols - c < kLanes ? cols - c : kLanes;
    s0 = v_add(s0, f(n == kLanes ? v_load(x + c) : v_load_partial(x + c, n), n));
  }
  return v_sum(v_add(v_add(s0, s1), v_add(s2, s3)));
}

// out[c] = f(x[c], c) over a row.
template <typename F>
KOTOBA_INLINE void map_row(float* out, const float* x, int64_t cols, const F& f) {
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) v_store(out + c, f(v_load(x + c), c));
  if (c < cols) v_store_partial(out + c, f(v_load_partial(x + c, cols - c), c), cols - c);
}

void rms_norm_row(float* out, const float* x, const float* weight, int64_t cols, float eps) {
  const float squares = sum_row(x, cols, [](VF v, int64_t) { return v_mul(v, v); });
  const VF scale = v_set(reciprocal_sqrt(squares / static_cast<float>(cols) + eps));
  map_row(out, x, cols, [&](VF v, int64_t c) { return v_mul(v_mul(v, scale), v_load(weight + c)); });
}

// The rounded mean leaves a rest that matters where |mean| >> deviation: the deviations' own mean is that
// rest.
void layer_norm_row(float* out, const float* x, const float* weight, const float* bias, int64_t cols,
                    float eps) {
  const float n = static_cast<float>(cols);
  const VF mean = v_set(sum_row(x, cols, [](VF v, int64_t) { return v; }) / n);
  const auto deviation = [&](VF v, int64_t lanes) {
    const VF d = v_sub(v, mean);
    if (lanes == kLanes) return d;
    alignas(64) float buffer[kLanes];
    v_store(buffer, d);
    return v_load_partial(buffer, lanes);
  };
  const float rest = sum_row(x, cols, deviation) / n;
  const float squares = sum_row(x, cols, [&](VF v, int64_t lanes) {
    const VF d = deviation(v, lanes);
    return v_mul(d, d);
  });
  const float variance = squares / n - rest * rest;
  const VF scale = v_set(reciprocal_sqrt((variance > 0 ? variance : 0) + eps));
  map_row(out, x, cols, [&](VF v, int64_t c) {
    const VF normal = v_mul(v_sub(v_sub(v, mean), v_set(rest)), scale);
    return v_fma(normal, v_load(weight + c), v_load(bias + c));
  });
}

// Space for `vectors` decoded vectors of [cols], each readable a whole SIMD vector past its end.
int64_t padded(int64_t cols) { return (cols + kLanes - 1) / kLanes * kLanes; }
float* vector_scratch(int64_t cols, int vectors) {
  const int64_t bytes = padded(cols) * vectors * static_cast<int64_t>(sizeof(float));
  return static_cast<float*>(scratch(Scratch::kOp, bytes));
}

template <typename F>
void for_each_row(const Context& context, int64_t rows, int64_t cols, const F& f) {
  const int64_t step = cols < kChunkElements ? kChunkElements / cols : 1;
  context.pool->run(context.threads, (rows + step - 1) / step, [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    const int64_t end = (chunk + 1) * step < rows ? (chunk + 1) * step : rows;
    for (int64_t r = chunk * step; r < end; ++r) f(r);
  });
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

}  // namespace kotoba::cpu::KOTOBA_ISA

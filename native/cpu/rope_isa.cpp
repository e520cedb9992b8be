// RMS norm of each head (arXiv:1910.07467), then rotary embedding of its pairs (arXiv:2104.09864):
//   h = x[t, head] / sqrt(mean(x[t, head]²) + eps) * weight
//   out[offset + t, head, 2i]     = cos[offset + t, i] h[2i] - sin[offset + t, i] h[2i + 1]
//   out[offset + t, head, 2i + 1] = sin[offset + t, i] h[2i] + cos[offset + t, i] h[2i + 1]
#include "row_loops.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// What all heads of a token share: [head_dim], either may be null.
struct HeadParts {
  const float* weight;
  const float* rotation;
};

// One head; out may be x.
template <bool kNorm, bool kRotate>
void head_row(float* out, const float* x, HeadParts parts, int64_t head_dim, float eps) {
  VF scale = v_zero();
  if constexpr (kNorm) {
    const float squares = sum_row(x, head_dim, [](VF v, int64_t) { return v_mul(v, v); });
    scale = v_set(1 / __builtin_sqrtf(squares / static_cast<float>(head_dim) + eps));
  }
  map_row(out, head_dim, [&](const auto& load) {
    VF v = load(x);
    if constexpr (kNorm) v = v_mul(v_mul(v, scale), load(parts.weight));
    if constexpr (kRotate) v = v_rotate_pairs(v, load(parts.rotation));
    return v;
  });
}

using HeadRow = void (*)(float* out, const float* x, HeadParts, int64_t head_dim, float eps);
constexpr HeadRow kHeadRows[2][2] = {{head_row<false, false>, head_row<false, true>},
                                     {head_row<true, false>, head_row<true, true>}};

}  // namespace

// x: F32 [batch * tokens, heads * head_dim], to rows of out: F32 [batch * longer, heads * head_dim]; weight:
// [head_dim] of any weight dtype or empty; rotation: F32 [longer, head_dim] or empty. `out` may alias `x`
// where they have the same rows.
void head_norm_rope(const Context& context, TensorView out, TensorView x, TensorView weight,
                    TensorView rotation, const HeadNormRope& how) {
  const int64_t cols = x.cols(), head_dim = cols / how.heads;
  const int64_t tokens = x.rows() / how.batch, longer = out.rows() / how.batch;
  if (cols == 0) return;
  float* decoded = nullptr;
  if (!weight.empty()) {
    decoded = static_cast<float*>(scratch(Scratch::kOp, head_dim * static_cast<int64_t>(sizeof(float))));
    decode_row(weight.dtype, weight.data, decoded, head_dim);
  }
  const HeadRow row = kHeadRows[!weight.empty()][!rotation.empty()];
  for_each_row(context, x.rows(), cols, [&](int64_t r) {
    const int64_t token = how.offset + r % tokens;
    float* to = out.row<float>(r / tokens * longer + token);
    const HeadParts parts{decoded, rotation.empty() ? nullptr : rotation.row<float>(token)};
    for (int64_t c = 0; c < cols; c += head_dim) row(to + c, x.row<float>(r) + c, parts, head_dim, how.eps);
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA

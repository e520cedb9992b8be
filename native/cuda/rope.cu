// RMS norm of each head (arXiv:1910.07467), then rotary embedding of its pairs (arXiv:2104.09864):
//   h = x[t, head] / sqrt(mean(x[t, head]²) + eps) * weight
//   out[offset + t, head, 2i]     = cos[offset + t, i] h[2i] - sin[offset + t, i] h[2i + 1]
//   out[offset + t, head, 2i + 1] = sin[offset + t, i] h[2i] + cos[offset + t, i] h[2i + 1]
#include "launch.h"
#include "plain_vector.h"
#include "reduce.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kWarps = 4;  // to a block; a warp to a head of a token

struct HeadRows {
  float* out;
  const float* x;
  int64_t out_stride, x_stride;
  int64_t tokens, longer, offset, heads, head_dim, count;
  float eps;
};

__global__ void head_norm_rope_kernel(HeadRows p, Vector weight, const float* rotation,
                                      int64_t rotation_stride) {
  const int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (i >= p.count) return;
  const int64_t row = i / p.heads, head = i % p.heads;
  const int64_t token = p.offset + row % p.tokens;
  const float* x = p.x + row * p.x_stride + head * p.head_dim;
  float* out = p.out + (row / p.tokens * p.longer + token) * p.out_stride + head * p.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % 32;

  float scale = 1;
  if (weight.data) {
    float squares = 0;
    for (int64_t c = lane; c < p.head_dim; c += 32) squares = fmaf(x[c], x[c], squares);
    scale = 1 / sqrtf(warp_sum(squares) / static_cast<float>(p.head_dim) + p.eps);
  }
  const auto normed = [&](int64_t c) { return weight.data ? x[c] * scale * load(weight, c) : x[c]; };
  if (!rotation) {
    for (int64_t c = lane; c < p.head_dim; c += 32) out[c] = normed(c);
    return;
  }
  const float* turn = rotation + token * rotation_stride;  // cosine and sine of each pair, side by side
  for (int64_t c = 2 * lane; c < p.head_dim; c += 64) {
    const float even = normed(c), odd = normed(c + 1);
    out[c] = even * turn[c] - odd * turn[c + 1];
    out[c + 1] = odd * turn[c] + even * turn[c + 1];
  }
}

}  // namespace

// x: F32 [batch * tokens, heads * head_dim], to rows of out: F32 [batch * longer, heads * head_dim]; weight:
// [head_dim] of any weight dtype or empty; rotation: F32 [longer, head_dim] or empty. `out` may alias `x`
// where they have the same rows.
void head_norm_rope(const Context& context, TensorView out, TensorView x, TensorView weight,
                    TensorView rotation, const HeadNormRope& how) {
  const PlainVector w(context, weight);
  const HeadRows p = {out.as<float>(),
                      x.as<float>(),
                      out.row_stride,
                      x.row_stride,
                      x.rows() / how.batch,
                      out.rows() / how.batch,
                      how.offset,
                      how.heads,
                      x.cols() / how.heads,
                      x.cols() == 0 ? 0 : x.rows() * how.heads,
                      how.eps};
  launch(context.stream, {"head_norm_rope", ceil_div(p.count, kWarps), 32 * kWarps}, head_norm_rope_kernel, p,
         w.get(), rotation.as<float>(), rotation.row_stride);
}

}  // namespace kotoba::cuda

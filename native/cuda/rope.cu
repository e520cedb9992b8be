// RMS norm of each head (arXiv:1910.07467), then rotary embedding of its pairs (arXiv:2104.09864):
//   h = x[t, head] / sqrt(mean(x[t, head]²) + eps) * weight
//   out[offset + t, head, 2i]     = cos[offset + t, i] h[2i] - sin[offset + t, i] h[2i + 1]
//   out[offset + t, head, 2i + 1] = sin[offset + t, i] h[2i] + cos[offset + t, i] h[2i + 1]
#include "plain_vector.h"
#include "reduce.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 4;        // to a block of the kernel for any heads
constexpr int kMostVectors = 2;  // of a head, to a thread

struct HeadRows {
  Numbers out, x;
  int64_t out_stride, x_stride;
  int64_t tokens, longer, offset, heads, head_dim, count;
  float eps;
};

// ---- heads of whole vectors: 2^lane_bits threads of a warp to a head, which stays in registers

struct HeadTiles {
  int lane_bits;
  Divisor heads, tokens;
};

// The sum over the threads of a head.
__device__ __forceinline__ float head_sum(float v, int lane_bits) {
  for (int bits = 1 << lane_bits >> 1; bits > 0; bits /= 2) v += __shfl_xor_sync(kWholeWarp, v, bits);
  return v;
}

// Numbers c… of a head become weight · them · scale, then their pairs are turned.
template <int kCount>
__device__ __forceinline__ void norm_and_turn(float (&v)[kCount], float scale, const Vector& weight,
                                              const float* turn, int c) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount && weight.data; i += 4) {
    float w[4];
    load_some(w, weight, c + i);
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < 4; ++j) v[i + j] = v[i + j] * scale * w[j];
  }
  if (!turn) return;
  float by[kCount];  // cosine and sine of each pair, side by side
  load_vector<F32Number>(by, turn + c);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; i += 2) {
    const float even = v[i], odd = v[i + 1];
    v[i] = even * by[i] - odd * by[i + 1];
    v[i + 1] = odd * by[i] + even * by[i + 1];
  }
}

// kCount: numbers to a vector, 16 bytes of x.
template <typename From, int kCount>
__global__ void __launch_bounds__(kThreads)
    vector_heads_kernel(HeadRows p, HeadTiles t, Vector weight, const float* rotation,
                        int64_t rotation_stride) {
  const int lanes = 1 << t.lane_bits, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) >> t.lane_bits;
  const bool works = index < p.count;
  uint32_t head = works ? static_cast<uint32_t>(index) : 0;
  const int64_t row = t.heads.divide(head);
  uint32_t token = static_cast<uint32_t>(row);
  const int64_t sequence = t.tokens.divide(token), placed = p.offset + token;
  const auto* x =
      reinterpret_cast<const typename From::Stored*>(p.x.data) + row * p.x_stride + head * p.head_dim;
  const int64_t to = (sequence * p.longer + placed) * p.out_stride + head * p.head_dim;

  float v[kMostVectors][kCount];
  const auto column = [&](int i) { return (i * lanes + lane) * kCount; };
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kMostVectors; ++i)
    if (works && column(i) < p.head_dim) load_vector<From>(v[i], x + column(i));
  float squares = 0;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kMostVectors; ++i)
    if (works && column(i) < p.head_dim) KOTOBA_UNROLL(unroll)
  for (int j = 0; j < kCount; ++j) squares = fmaf(v[i][j], v[i][j], squares);
  float scale = 1;
  if (weight.data) scale = 1 / sqrtf(head_sum(squares, t.lane_bits) / static_cast<float>(p.head_dim) + p.eps);
  const float* turn = rotation ? rotation + placed * rotation_stride : nullptr;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kMostVectors; ++i) {
    if (!works || column(i) >= p.head_dim) continue;
    norm_and_turn(v[i], scale, weight, turn, column(i));
    store_vector(p.out, to + column(i), v[i]);
  }
}

// ---- any heads: a warp to a head of a token

__global__ void head_norm_rope_kernel(HeadRows p, Vector weight, const float* rotation,
                                      int64_t rotation_stride) {
  const int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (i >= p.count) return;
  const int64_t row = i / p.heads, head = i % p.heads;
  const int64_t token = p.offset + row % p.tokens;
  const int64_t from = row * p.x_stride + head * p.head_dim;
  const int64_t to = (row / p.tokens * p.longer + token) * p.out_stride + head * p.head_dim;
  const auto x = [&](int64_t c) { return p.x.load(from + c); };
  const int lane = static_cast<int>(threadIdx.x) % 32;

  float scale = 1;
  if (weight.data) {
    float squares = 0;
    for (int64_t c = lane; c < p.head_dim; c += 32) squares = fmaf(x(c), x(c), squares);
    scale = 1 / sqrtf(warp_sum(squares) / static_cast<float>(p.head_dim) + p.eps);
  }
  const auto normed = [&](int64_t c) { return weight.data ? x(c) * scale * load(weight, c) : x(c); };
  if (!rotation) {
    for (int64_t c = lane; c < p.head_dim; c += 32) p.out.store(to + c, normed(c));
    return;
  }
  const float* turn = rotation + token * rotation_stride;  // cosine and sine of each pair, side by side
  for (int64_t c = 2 * lane; c < p.head_dim; c += 64) {
    const float even = normed(c), odd = normed(c + 1);
    p.out.store(to + c, even * turn[c] - odd * turn[c + 1]);
    p.out.store(to + c + 1, odd * turn[c] + even * turn[c + 1]);
  }
}

template <typename From>
void run_vectors(const Context& context, const HeadRows& p, const Vector& weight,
                 const TensorView& rotation) {
  constexpr int kCount = 16 / static_cast<int>(sizeof(typename From::Stored));
  HeadTiles t = {0, Divisor(p.heads), Divisor(p.tokens)};
  while (t.lane_bits < 5 && int64_t{kCount} << t.lane_bits < p.head_dim) ++t.lane_bits;
  launch(context.stream, {"head_norm_rope", ceil_div(p.count << t.lane_bits, kThreads), kThreads},
         vector_heads_kernel<From, kCount>, p, t, weight, rotation.as<float>(), rotation.row_stride);
}

// Whether heads are made of vectors, wherever they are read and written.
bool fits_heads(const HeadRows& p, const TensorView& out, const TensorView& x, const Vector& weight,
                const TensorView& rotation) {
  const int64_t count = 16 / info(x.dtype).bytes;
  return p.head_dim % count == 0 && p.head_dim <= 32 * count * kMostVectors && p.count < int64_t{1} << 31 &&
         fits_vectors(x, count) && fits_vectors(out, count) && (!weight.data || fits_quads(weight)) &&
         (rotation.empty() || fits_vectors(rotation, count));
}

}  // namespace

// x: activations [batch * tokens, heads * head_dim], to rows of out: activations [batch * longer, heads *
// head_dim]; weight: [head_dim] of any weight dtype or empty; rotation: F32 [longer, head_dim] or empty.
// `out` may alias `x` where they have the same rows.
void head_norm_rope(const Context& context, TensorView out, TensorView x, TensorView weight,
                    TensorView rotation, const HeadNormRope& how) {
  const PlainVector w(context, weight);
  const HeadRows p = {{out.data, out.dtype},
                      {x.data, x.dtype},
                      out.row_stride,
                      x.row_stride,
                      x.rows() / how.batch,
                      out.rows() / how.batch,
                      how.offset,
                      how.heads,
                      x.cols() / how.heads,
                      x.cols() == 0 ? 0 : x.rows() * how.heads,
                      how.eps};
  if (p.count == 0) return;
  if (fits_heads(p, out, x, w.get(), rotation))
    return dispatch_activation(x.dtype, "head_norm_rope",
                               [&]<typename From>() { run_vectors<From>(context, p, w.get(), rotation); });
  launch(context.stream, {"head_norm_rope", ceil_div(p.count, kWarps), 32 * kWarps}, head_norm_rope_kernel, p,
         w.get(), rotation.as<float>(), rotation.row_stride);
}

}  // namespace kotoba::cuda

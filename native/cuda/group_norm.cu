// group_norm: out[p, c] = act((x[p, c] - mean) / sqrt(variance + eps) * weight[c] + bias[c]), mean and
// variance over all pixels and the adjacent channels of a group, image by image (arXiv:1803.08494).
//
// Three kernels: moments of pieces of pixels in two passes of FP32, pieces merged in FP64 into one line of
// coefficients per channel, and the map. Pieces and their order depend on the shape alone.
#include "epilogue.cuh"
#include "launch.h"
#include "reduce.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPieceElements = 4096;

// Of `count` values: m2 is the sum of squared deviations from the mean.
struct Moments {
  double count, mean, m2;

  // Chan, Golub, LeVeque 1979.
  __device__ __forceinline__ void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, apart = other.mean - mean;
    mean += apart * other.count / total;
    m2 += other.m2 + apart * apart * count * other.count / total;
    count = total;
  }
};

struct Shape {
  const float* x;
  int64_t stride, pixels, channels, groups;
  int64_t piece;   // pixels
  int64_t pieces;  // of an image
  __device__ __host__ int64_t width() const { return channels / groups; }
};

// A block to a piece of a group: blockIdx = (image * groups + group) * pieces + piece.
__global__ void piece_moments_kernel(Shape s, Moments* moments) {
  const int64_t piece = blockIdx.x % s.pieces, group = blockIdx.x / s.pieces % s.groups;
  const int64_t image = blockIdx.x / s.pieces / s.groups, width = s.width();
  const int64_t first = piece * s.piece, rest = s.pixels - first;
  const int64_t count = (rest < s.piece ? rest : s.piece) * width;
  const float* x = s.x + (image * s.pixels + first) * s.stride + group * width;
  const auto value = [&](int64_t i) { return x[i / width * s.stride + i % width]; };

  const float n = static_cast<float>(count);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += value(i);
  const float mean = block_sum<kThreads>(sum) / n;
  float deviations = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const float d = value(i) - mean;
    deviations += d;
    squares = fmaf(d, d, squares);
  }
  deviations = block_sum<kThreads>(deviations);
  squares = block_sum<kThreads>(squares);
  if (threadIdx.x != 0) return;
  const double exact = static_cast<double>(count),
               shift = deviations / exact;  // what rounding left of the mean
  moments[blockIdx.x] = {exact, mean + shift, squares - shift * shift * exact};
}

// Of a channel: out = act((x - mean) * scale + shift). `shift` holds what rounding left of the mean, which
// matters where |mean| >> deviation.
struct Coefficients {
  float mean, scale, shift;
};

// A block to a group of an image.
__global__ void group_coefficients_kernel(Shape s, const Moments* moments, Vector weight, Vector bias,
                                          float eps, Coefficients* coefficients) {
  KOTOBA_SHARED(parts, Moments[kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  Moments all = {0, 0, 0};
  for (int64_t i = thread; i < s.pieces; i += kThreads) all.merge(moments[blockIdx.x * s.pieces + i]);
  parts[thread] = all;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) parts[thread].merge(parts[thread + half]);
    __syncthreads();
  }
  const Moments& m = parts[0];
  const int64_t image = blockIdx.x / s.groups, group = blockIdx.x % s.groups, width = s.width();
  const float mean = static_cast<float>(m.mean);
  const double scale = 1 / sqrt(m.m2 / m.count + static_cast<double>(eps));
  for (int64_t i = thread; i < width; i += kThreads) {
    const int64_t c = group * width + i;
    const double w = load(weight, c);
    coefficients[image * s.channels + c] = {mean, static_cast<float>(scale * w),
                                            static_cast<float>(load(bias, c) - (m.mean - mean) * scale * w)};
  }
}

__global__ void apply_group_norm_kernel(float* out, int64_t out_stride, Shape s, int64_t count,
                                        const Coefficients* coefficients, Activation activation) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t pixel = i / s.channels, c = i % s.channels;
  const Coefficients k = coefficients[pixel / s.pixels * s.channels + c];
  out[pixel * out_stride + c] = apply(activation, fmaf(s.x[pixel * s.stride + c] - k.mean, k.scale, k.shift));
}

}  // namespace

// out, x: F32 [batch * pixels, c]; weight, bias: [c] of any weight dtype. `out` may alias `x`.
void group_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                const GroupNorm& how) {
  if (x.elements() == 0) return;
  Shape s = {x.as<float>(), x.row_stride, x.rows() / how.batch, x.cols(), how.groups, 0, 0};
  s.piece = s.width() < kPieceElements ? kPieceElements / s.width() : 1;
  s.pieces = ceil_div(s.pixels, s.piece);
  const int64_t groups = how.batch * how.groups;
  const PlainVector w(context, weight), b(context, bias);
  const Scratch moments(context.pool, groups * s.pieces * static_cast<int64_t>(sizeof(Moments)));
  const Scratch coefficients(context.pool,
                             how.batch * s.channels * static_cast<int64_t>(sizeof(Coefficients)));
  launch(context.stream, {"group_norm_moments", groups * s.pieces, kThreads}, piece_moments_kernel, s,
         moments.as<Moments>());
  launch(context.stream, {"group_norm_coefficients", groups, kThreads}, group_coefficients_kernel, s,
         moments.as<Moments>(), w.get(), b.get(), how.eps, coefficients.as<Coefficients>());
  launch(context.stream, {"group_norm_apply", ceil_div(x.elements(), kThreads), kThreads},
         apply_group_norm_kernel, out.as<float>(), out.row_stride, s, x.elements(),
         coefficients.as<Coefficients>(), how.activation);
}

}  // namespace kotoba::cuda

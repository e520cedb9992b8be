// group_norm: out[p, c] = act((x[p, c] - mean) / sqrt(variance + eps) * weight[c] + bias[c]), mean and
// variance over all pixels and the adjacent channels of a group, image by image (arXiv:1803.08494).
//
// Three kernels: moments of pieces of pixels (read once, in whole rows, wherever rows are made of vectors),
// pieces merged in FP64 into one line of coefficients per channel, and the map. Pieces and their order depend
// on the shape alone.
#include "epilogue.cuh"
#include "group_moments.cuh"

namespace kotoba::cuda {
namespace {

using namespace group_moments;

// ---- coefficients

// Of channels: out = act((x - mean) * scale + shift). `shift` holds what rounding left of the mean, which
// matters where |mean| >> deviation. Each [images * channels].
struct Coefficients {
  float *mean, *scale, *shift;
};

// A block to a group of an image.
__global__ void group_coefficients_kernel(Shape s, const Moments* moments, Vector weight, Vector bias,
                                          float eps, Coefficients coefficients) {
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
    const int64_t c = group * width + i, to = image * s.channels + c;
    const double w = load(weight, c);
    coefficients.mean[to] = mean;
    coefficients.scale[to] = static_cast<float>(scale * w);
    coefficients.shift[to] = static_cast<float>(load(bias, c) - (m.mean - mean) * scale * w);
  }
}

// ---- the map: a thread keeps its channels' coefficients for several pixels

struct MapTiling {
  int lane_bits;    // 2^lane_bits threads share a row of a tile
  int tile_pixels;  // to a block
  Divisor across, pieces;
};

template <typename From, int kCount>
__global__ void __launch_bounds__(kThreads)
    apply_group_norm_kernel(Numbers out, int64_t out_stride, Shape s, MapTiling t, Coefficients k,
                            Activation activation) {
  uint32_t chunk = blockIdx.x;
  uint32_t piece = t.across.divide(chunk);
  const int64_t image = t.pieces.divide(piece);
  const int thread = static_cast<int>(threadIdx.x), lane = thread & ((1 << t.lane_bits) - 1);
  const int64_t c = ((int64_t{chunk} << t.lane_bits) + lane) * kCount;
  if (c >= s.channels) return;
  float mean[kCount], scale[kCount], shift[kCount];
  load_vector<F32Number>(mean, k.mean + image * s.channels + c);
  load_vector<F32Number>(scale, k.scale + image * s.channels + c);
  load_vector<F32Number>(shift, k.shift + image * s.channels + c);

  const int64_t first = int64_t{piece} * t.tile_pixels;
  const int64_t end = std::min(first + t.tile_pixels, s.pixels);
  const auto* x = reinterpret_cast<const typename From::Stored*>(s.x.data) + image * s.pixels * s.stride + c;
  const int64_t to = image * s.pixels * out_stride + c;
  const int slots = kThreads >> t.lane_bits;
  KOTOBA_UNROLL(unroll 2)
  for (int64_t pixel = first + (thread >> t.lane_bits); pixel < end; pixel += slots) {
    float v[kCount];
    load_vector<From>(v, x + pixel * s.stride);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) v[i] = apply(activation, fmaf(v[i] - mean[i], scale[i], shift[i]));
    store_vector(out, to + pixel * out_stride, v);
  }
}

// ---- launches

// Tiles of whole groups, as few as threads allow; none if a group is too wide for one.
int64_t plan_tiles(Shape& s, Tiling& t) {
  const int64_t width = s.width(), most = std::min<int64_t>(kThreads * kVector / width, kMostGroups);
  if (most == 0) return 0;
  int64_t tiles = ceil_div(s.groups, most), groups = ceil_div(s.groups, tiles);
  while (groups * width % kVector != 0 && groups < s.groups) ++groups;  // tiles start at whole vectors
  if (groups > most) return 0;
  tiles = ceil_div(s.groups, groups);
  const int64_t lanes = groups * width / kVector;
  t = {static_cast<int>(lanes), static_cast<int>(kThreads / lanes),
       static_cast<int>(tiles), static_cast<int>(groups),
       static_cast<int>(width), Divisor(lanes),
       Divisor(tiles),          Divisor(1)};
  s.piece = int64_t{t.slots} * kTilePixels;
  s.pieces = ceil_div(s.pixels, s.piece);
  t.by_pieces = Divisor(s.pieces);
  return tiles * s.pieces;
}

// The moments of every piece of every group.
Scratch make_moments(const Context& context, Shape& s, const TensorView& x, int64_t batch) {
  Tiling tiling;
  const int64_t tiles = fits_vectors(x, kVector) ? plan_tiles(s, tiling) : 0;
  if (tiles == 0) {
    s.piece = s.width() < kPieceElements ? kPieceElements / s.width() : 1;
    s.pieces = ceil_div(s.pixels, s.piece);
  }
  const int64_t count = batch * s.groups * s.pieces;
  Scratch moments(context.pool, count * static_cast<int64_t>(sizeof(Moments)));
  if (tiles == 0) {
    launch(context.stream, {"group_norm_moments", count, kThreads}, piece_moments_kernel, s,
           moments.as<Moments>());
    return moments;
  }
  dispatch_activation(x.dtype, "group_norm", [&]<typename From>() {
    launch(context.stream, {"group_norm_tiles", batch * tiles, kThreads}, tile_moments_kernel<From>, s,
           tiling, moments.as<Moments>());
  });
  return moments;
}

template <int kCount>
void map(const Context& context, const TensorView& out, const Shape& s, int64_t batch, const Coefficients& k,
         Activation activation) {
  MapTiling t = {};
  while (t.lane_bits < 8 && int64_t{kCount} << t.lane_bits < s.channels) ++t.lane_bits;
  t.tile_pixels = kTilePixels * (kThreads >> t.lane_bits);
  const int64_t across = ceil_div(s.channels, int64_t{kCount} << t.lane_bits);
  const int64_t pieces = ceil_div(s.pixels, t.tile_pixels);
  t.across = Divisor(across);
  t.pieces = Divisor(pieces);
  dispatch_activation(s.x.dtype, "group_norm", [&]<typename From>() {
    launch(context.stream, {"group_norm_apply", batch * pieces * across, kThreads},
           apply_group_norm_kernel<From, kCount>, Numbers{out.data, out.dtype}, out.row_stride, s, t, k,
           activation);
  });
}

}  // namespace

// out, x: activations [batch * pixels, c]; weight, bias: [c] of any weight dtype. `out` may alias `x` of its
// own dtype.
void group_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                const GroupNorm& how) {
  if (x.elements() == 0) return;
  Shape s = {{x.data, x.dtype}, x.row_stride, x.rows() / how.batch, x.cols(), how.groups, 0, 0};
  const Scratch moments = make_moments(context, s, x, how.batch);
  const PlainVector w(context, weight), b(context, bias);
  const int64_t lines = how.batch * s.channels;
  const Scratch memory(context.pool, 3 * lines * static_cast<int64_t>(sizeof(float)));
  const Coefficients k = {memory.as<float>(), memory.as<float>() + lines, memory.as<float>() + 2 * lines};
  launch(context.stream, {"group_norm_coefficients", how.batch * how.groups, kThreads},
         group_coefficients_kernel, s, moments.as<Moments>(), w.get(), b.get(), how.eps, k);
  if (fits_vectors(x, kVector) && fits_vectors(out, kVector)) {
    map<kVector>(context, out, s, how.batch, k, how.activation);
  } else {
    map<1>(context, out, s, how.batch, k, how.activation);
  }
}

}  // namespace kotoba::cuda

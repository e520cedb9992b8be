// Convolutions as matmuls on mma.sync (sm_80 and newer). A block makes 128 pixels of the output; for each tap
// it gathers the pixels that they see, line by line (conv.h), zeros outside of the image. Nothing is unfolded
// in memory: a table of 128 pixels for each tap is all that a block computes of the geometry.
//
// Split factors (conv.h): high·high + high·low + low·high. The tensor cores' sums lose bits as they grow, so
// they are moved to FP32 registers every 64 channels, times the scale of the pixel seen.
#include "conv_mma.cuh"

namespace kotoba::cuda {
namespace {

using namespace conv_mma;

constexpr int kMostTaps = 25;

// Through shared memory, so that a warp writes neighbours.
template <int kCols, typename Tile>
__device__ __forceinline__ void store_tile(const ConvKernel& p, float* shared, const Tile& tile,
                                           const typename Tile::Sums& sums, int64_t m0, int64_t n0) {
  constexpr int kPitch = Shape<kCols>::kPitch;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* to = shared + (tile.first_row + lane / 4) * kPitch + tile.first_col + lane % 4 * 2;
  KOTOBA_UNROLL(unroll)
  for (int r = 0; r < Tile::kRowTiles; ++r) KOTOBA_UNROLL(unroll)
  for (int j = 0; j < kWarpCols / 8; ++j) KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 4; i += 2)
    *reinterpret_cast<float2*>(to + (16 * r + 4 * i) * kPitch + 8 * j) =
        make_float2(sums[r][j][i], sums[r][j][i + 1]);
  __syncthreads();
  KOTOBA_UNROLL(unroll 2)
  for (int i = static_cast<int>(threadIdx.x); i < kPixels * kCols / 2; i += kThreads) {
    const int row = i / (kCols / 2), col = i % (kCols / 2) * 2;
    if (m0 + row >= p.size.m || n0 + col >= p.size.n) continue;
    const bool pair = n0 + col + 1 < p.size.n;
    float2 v = *reinterpret_cast<const float2*>(shared + row * kPitch + col);
    if (p.w_scale) {
      v.x *= p.w_scale[n0 + col];
      if (pair) v.y *= p.w_scale[n0 + col + 1];
    }
    if (pair)
      finish_pair(p.epilogue, m0 + row, n0 + col, v.x, v.y);
    else
      finish(p.epilogue, m0 + row, n0 + col, v.x);
  }
}

template <typename Number, int kCols, bool kSplit>
__global__ void __launch_bounds__(kThreads, 2) conv_mma_kernel(const __grid_constant__ ConvKernel p) {
  KOTOBA_DYNAMIC_SHARED(memory);
  using Tile = WarpTile<Number, kCols>;
  const int64_t across = (p.size.n + kCols - 1) / kCols;
  const int64_t m0 = blockIdx.x / across * kPixels, n0 = blockIdx.x % across * kCols;
  int* seen = reinterpret_cast<int*>(memory + kStages * Shape<kCols>::kStageBytes);
  const Shared shared = {reinterpret_cast<uint16_t*>(memory), seen,
                         reinterpret_cast<float*>(seen + p.geometry.taps * kPixels)};
  make_tables(p, shared, m0, kSplit);
  __syncthreads();

  // Start: all stages but one are under way.
  Loader<kCols> loader(p, shared, n0);
  const int lines = p.geometry.taps * p.lines;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < lines) loader.load(i);
    ptx::cp_async_commit();
  }
  // Multiply one line while the others come.
  const Tile tile;
  typename Tile::Sums sums = {}, total = {};
  int stage = 0, tap = 0, line = 0;
  KOTOBA_UNROLL(unroll 1)
  for (int i = 0; i < lines; ++i) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();
    if (i + kStages - 1 < lines) loader.load(stage == 0 ? kStages - 1 : stage - 1);
    ptx::cp_async_commit();
    const uint16_t* here = shared.stages + stage * Shape<kCols>::kStageNumbers;
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if constexpr (kSplit) {
      tile.add_split_line(sums, here);
      ++line;
      if (line % kStepsToPromotion == 0 || line == p.lines)
        tile.promote(total, sums, shared.seen_scales + tap * kPixels);
      if (line == p.lines) line = 0, ++tap;
    } else {
      tile.add_line(sums, here);
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  store_tile<kCols>(p, reinterpret_cast<float*>(memory), tile, kSplit ? total : sums, m0, n0);
}

// ---- launches

ConvKernel kernel_of(const ConvProblem& p, const ConvFactors& factors) {
  const Conv2d& how = p.how;
  const Geometry geometry = {
      Divisor(how.out_size(how.width)), Divisor(how.out_size(how.height)), Divisor(how.kernel),
      static_cast<int>(how.height),     static_cast<int>(how.width),       how.upscale == 2 ? 1 : 0,
      static_cast<int>(how.stride),     static_cast<int>(how.pad_before),  static_cast<int>(p.taps())};
  return {p.size,          geometry,        factors.x,        factors.w,
          factors.x_scale, factors.w_scale, factors.x_stride, static_cast<int>(factors.lines),
          p.epilogue};
}

template <typename Number, int kCols, bool kSplit>
void launch_tiles(const Context& context, const ConvKernel& kernel) {
  const int64_t tiles = ceil_div(kernel.size.m, kPixels) * ceil_div(kernel.size.n, kCols);
  launch(context.stream, {"conv2d_mma", tiles, kThreads, Shape<kCols>::shared(kernel.geometry.taps)},
         conv_mma_kernel<Number, kCols, kSplit>, kernel);
}

template <int kCols>
void run_tiles(const Context& context, const ConvProblem& p) {
  const ConvFactors factors = conv_factors(context, p);
  const ConvKernel kernel = kernel_of(p, factors);
  if constexpr (kCols <= 64)
    if (factors.split) return launch_tiles<F16Number, kCols, true>(context, kernel);
  if (factors.dtype == DType::F16) return launch_tiles<F16Number, kCols, false>(context, kernel);
  launch_tiles<BF16Number, kCols, false>(context, kernel);
}

// A multiprocessor's shared memory, bytes.
int64_t shared_memory(int arch) {
  if (arch == 80 || arch == 87) return int64_t{163} << 10;
  return (arch < 90 || arch >= 120 ? int64_t{99} : int64_t{227}) << 10;
}

constexpr double kTileOverhead = 32;  // outputs: what a tile costs beyond its width

// Waves of tiles, times a tile's width. Split sums of 128 outputs leave too few registers.
template <int kCols>
double tile_cost(const ConvProblem& p) {
  const int64_t shared = Shape<kCols>::shared(p.taps()) + 1024;
  constexpr int64_t kMost = int64_t{1} << 31;
  if (p.taps() > kMostTaps || p.size.m >= kMost || p.x.rows() >= kMost) return kUnfit;
  if (shared > shared_memory(p.arch) || (kCols > 64 && p.precision == Precision::kFp32)) return kUnfit;
  const int64_t at_once = p.multiprocessors * std::min<int64_t>(2, shared_memory(p.arch) / shared);
  const int64_t tiles = ceil_div(p.size.m, kPixels) * ceil_div(p.size.n, kCols);
  return static_cast<double>(ceil_div(tiles, at_once)) * (kCols + kTileOverhead);
}

constexpr Variant<ConvProblem> kVariants[] = {
    {"mma_128x128", tile_cost<128>, run_tiles<128>},
    {"mma_128x64", tile_cost<64>, run_tiles<64>},
    {"mma_128x32", tile_cost<32>, run_tiles<32>},
};

}  // namespace

std::span<const Variant<ConvProblem>> conv_mma_variants() { return kVariants; }

}  // namespace kotoba::cuda

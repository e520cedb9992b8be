// What conv_mma.cu is made of: the table of pixels seen, the copies into shared memory, a warp's products.
#pragma once

#include "conv.h"
#include "vectors.cuh"

namespace kotoba::cuda::conv_mma {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kPixels = 128;                                 // of a tile
constexpr int kLine = static_cast<int>(ConvFactors::kLine);  // numbers: 128 bytes, a row of a shared tile
constexpr int kStages = 3;
constexpr int kWarpCols = 32;
constexpr int kRowsAtOnce = kThreads / 8;  // rows of a tile that the threads copy at once, 16 bytes each
constexpr int kStepsToPromotion = 2;       // lines of split factors

// From output pixels to the pixels that they see.
struct Geometry {
  Divisor out_width, out_height, kernel;
  int height, width;  // of the image as stored
  int upscale_bits, stride, pad, taps;

  // The pixel that tap `tap` of output pixel `pixel` sees; -1 outside of the image.
  struct Corner {
    int image, y, x;
  };
  __device__ __forceinline__ Corner corner(uint32_t pixel) const {
    const uint32_t row = out_width.divide(pixel);
    uint32_t y = row;
    const uint32_t image = out_height.divide(y);
    return {static_cast<int>(image), static_cast<int>(y) * stride - pad,
            static_cast<int>(pixel) * stride - pad};
  }
  __device__ __forceinline__ int seen(const Corner& from, int tap) const {
    uint32_t kx = static_cast<uint32_t>(tap);
    const int y = from.y + static_cast<int>(kernel.divide(kx)), x = from.x + static_cast<int>(kx);
    const bool inside = y >= 0 && x >= 0 && y < height << upscale_bits && x < width << upscale_bits;
    return inside ? (from.image * height + (y >> upscale_bits)) * width + (x >> upscale_bits) : -1;
  }
};

struct ConvKernel {
  MatmulSize size;
  Geometry geometry;
  const uint16_t *x, *w;
  const float *x_scale, *w_scale;
  int64_t x_stride;
  int lines;  // to a tap
  RowEpilogue epilogue;
};

// kCols: outputs of a tile. A warp makes kRowTiles times 16 pixels x 32 outputs.
template <int kCols>
struct Shape {
  static constexpr int kWarpsAcross = kCols / kWarpCols, kWarpsDown = kWarps / kWarpsAcross;
  static constexpr int kRowTiles = kPixels / 16 / kWarpsDown;
  static constexpr int kStageNumbers = (kPixels + kCols) * kLine;
  static constexpr int kStageBytes = 2 * kStageNumbers;
  static constexpr int kPitch = kCols + 8;  // of sums on their way to memory: a warp meets no bank twice
  static_assert(kPixels * kPitch * 4 <= kStages * kStageBytes);

  static int64_t shared(int64_t taps) { return kStages * kStageBytes + taps * kPixels * 8; }
};

struct Shared {
  uint16_t* stages;
  int* seen;           // [taps, kPixels]
  float* seen_scales;  // [taps, kPixels]
};

__device__ __forceinline__ void make_tables(const ConvKernel& p, const Shared& shared, int64_t first,
                                            bool split) {
  const int row = static_cast<int>(threadIdx.x) % kPixels;
  const bool exists = first + row < p.size.m;
  const Geometry::Corner corner = p.geometry.corner(exists ? static_cast<uint32_t>(first + row) : 0u);
  KOTOBA_UNROLL(unroll 1)
  for (int tap = static_cast<int>(threadIdx.x) / kPixels; tap < p.geometry.taps; tap += kThreads / kPixels) {
    const int seen = exists ? p.geometry.seen(corner, tap) : -1;
    shared.seen[tap * kPixels + row] = seen;
    if (split) shared.seen_scales[tap * kPixels + row] = seen < 0 ? 0 : p.x_scale[seen];
  }
}

// What a thread copies: 16 bytes of every kRowsAtOnce-th row. Bits of the row's number are mixed into the
// place of the 16 bytes, so that ldmatrix meets no bank twice.
template <int kCols>
struct Loader {
  const ConvKernel& p;
  const Shared& shared;
  const uint16_t* w;  // of the thread's first row, the next line
  int outputs;        // from that row on
  int row, chunk, to;
  int tap = 0, line = 0;  // the next

  __device__ __forceinline__ Loader(const ConvKernel& kernel, const Shared& memory, int64_t first_output)
      : p(kernel), shared(memory) {
    const int thread = static_cast<int>(threadIdx.x);
    row = thread / 8;
    chunk = thread % 8;
    to = row * kLine + (chunk ^ row % 8) * 8;
    outputs = static_cast<int>(std::min<int64_t>(p.size.n - first_output, kCols)) - row;
    w = p.w + (first_output + row) * (int64_t{p.geometry.taps} * p.lines * kLine) + chunk * 8;
  }

  __device__ __forceinline__ void load(int stage) {
    uint16_t* x_tile = shared.stages + stage * Shape<kCols>::kStageNumbers + to;
    uint16_t* w_tile = x_tile + kPixels * kLine;
    const int* seen = shared.seen + tap * kPixels + row;
    const uint16_t* x = p.x + line * kLine + chunk * 8;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kPixels; i += kRowsAtOnce) {
      const int pixel = seen[i];
      ptx::cp_async_16(x_tile + i * kLine, pixel < 0 ? p.x : x + pixel * p.x_stride, pixel >= 0);
    }
    const int64_t w_stride = int64_t{p.geometry.taps} * p.lines * kLine;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCols; i += kRowsAtOnce) {
      const bool exists = i < outputs;
      ptx::cp_async_16(w_tile + i * kLine, exists ? w + i * w_stride : p.w, exists);
    }
    w += kLine;
    if (++line == p.lines) line = 0, ++tap;
  }
};

template <typename Number>
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  if constexpr (std::is_same_v<Number, F16Number>)
    ptx::mma_m16n8k16_f16(d, a, b);
  else
    ptx::mma_m16n8k16_bf16(d, a, b);
}

// A warp's part of a stage, and its sums: rows lane / 4 and that + 8 of a row tile, columns 8j + 2 (lane % 4)
// and the next.
template <typename Number, int kCols>
struct WarpTile {
  static constexpr int kRowTiles = Shape<kCols>::kRowTiles;
  using Sums = float[kRowTiles][kWarpCols / 8][4];

  int first_row, first_col;  // in the tile

  __device__ __forceinline__ WarpTile() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    first_row = warp / Shape<kCols>::kWarpsAcross * kRowTiles * 16;
    first_col = warp % Shape<kCols>::kWarpsAcross * kWarpCols;
  }

  // The 16 numbers from 8 · chunk on, of 16 pixels each.
  __device__ __forceinline__ void load_x(uint32_t (&a)[kRowTiles][4], const uint16_t* stage,
                                         int chunk) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint16_t* row = stage + (first_row + lane % 16) * kLine + ((chunk + lane / 16) ^ lane % 8) * 8;
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) ptx::ldmatrix_x4(a[r], row + r * 16 * kLine);
  }
  // The same of the warp's outputs, 16 each.
  __device__ __forceinline__ void load_w(uint32_t (&b)[kWarpCols / 16][4], const uint16_t* stage,
                                         int chunk) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint16_t* row = stage + (kPixels + first_col + lane % 8 + lane / 16 * 8) * kLine +
                          ((chunk + lane / 8 % 2) ^ lane % 8) * 8;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kWarpCols / 16; ++j) ptx::ldmatrix_x4(b[j], row + j * 16 * kLine);
  }

  static __device__ __forceinline__ void add_products(Sums& sums, const uint32_t (&a)[kRowTiles][4],
                                                      const uint32_t (&b)[kWarpCols / 16][4]) {
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kWarpCols / 8; ++j)
      multiply<Number>(sums[r][j], a[r], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }

  __device__ __forceinline__ void add_line(Sums& sums, const uint16_t* stage) const {
    KOTOBA_UNROLL(unroll)
    for (int chunk = 0; chunk < 8; chunk += 2) {
      uint32_t a[kRowTiles][4], b[kWarpCols / 16][4];
      load_x(a, stage, chunk);
      load_w(b, stage, chunk);
      add_products(sums, a, b);
    }
  }
  __device__ __forceinline__ void add_split_line(Sums& sums, const uint16_t* stage) const {
    KOTOBA_UNROLL(unroll)
    for (int chunk = 0; chunk < 4; chunk += 2) {
      uint32_t high[kRowTiles][4], low[kRowTiles][4], b[kWarpCols / 16][4];
      load_x(high, stage, chunk);
      load_w(b, stage, chunk + 4);
      add_products(sums, high, b);
      load_w(b, stage, chunk);
      load_x(low, stage, chunk + 4);
      add_products(sums, low, b);
      add_products(sums, high, b);
    }
  }

  // total += sums · the scale of the row, sums = 0
  __device__ __forceinline__ void promote(Sums& total, Sums& sums, const float* scales) const {
    const float* scale = scales + first_row + threadIdx.x % 32 / 4;
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) {
      const float of_rows[2] = {scale[16 * r], scale[16 * r + 8]};
      KOTOBA_UNROLL(unroll)
      for (int j = 0; j < kWarpCols / 8; ++j) KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 4; ++i) {
        total[r][j][i] = fmaf(sums[r][j][i], of_rows[i / 2], total[r][j][i]);
        sums[r][j][i] = 0;
      }
    }
  }
};

}  // namespace kotoba::cuda::conv_mma

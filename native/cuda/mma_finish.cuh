// Around the main loop of matmul_mma.cuh: what a kernel of it is, which tile a block makes, the sum of the
// parts of k, and the way from the warps' registers through the epilogue to memory.
#pragma once

#include <optional>

#include "context.h"
#include "epilogue.cuh"
#include "mma_plan.h"
#include "split.h"

namespace kotoba::cuda {

// kWarpRows_ x kWarpCols_ of the tile are a warp's. kBlocks_: on a multiprocessor at once, by registers.
template <int kRows_, int kCols_, int kDepth_, int kWarpRows_, int kWarpCols_, int kStages_, int kBlocks_>
struct MmaTile {
  static constexpr int kRows = kRows_, kCols = kCols_, kDepth = kDepth_;  // of m, n, k
  static constexpr int kWarpRows = kWarpRows_, kWarpCols = kWarpCols_;
  static constexpr int kStages = kStages_, kBlocks = kBlocks_;
  static constexpr int kWarpsAcross = kCols / kWarpCols, kWarps = kRows / kWarpRows * kWarpsAcross;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kDown = kWarpRows / 16, kAcross = kWarpCols / 8;  // a warp's results of one mma

  // x_parts, w_parts: as in MmaKernel
  static constexpr MmaTileShape shape(int x_parts = 1, int w_parts = 1) {
    return {kRows, kCols, kDepth, kStages, kWarps, kBlocks, kWarpRows, kWarpCols, x_parts, w_parts};
  }
};

// Those of dense_mma.cu and split_mma.cu.
using DenseTile128x256 = MmaTile<128, 256, 32, 64, 64, 4, 1>;
using DenseTile128x128 = MmaTile<128, 128, 32, 64, 64, 3, 2>;
using DenseTile128x64 = MmaTile<128, 64, 32, 64, 32, 4, 3>;
using DenseTile64x64 = MmaTile<64, 64, 64, 32, 32, 3, 3>;
using SplitTile128x128 = MmaTile<128, 128, 32, 64, 32, 3, 1>;
using SplitTile64x128 = MmaTile<64, 128, 32, 32, 64, 3, 2>;
using SplitTile64x64 = MmaTile<64, 64, 32, 32, 32, 3, 3>;

// Factors are sums of kXParts_ and kWParts_ numbers.
template <typename Tile_, typename Number_, int kXParts_ = 1, int kWParts_ = 1>
struct MmaKernel {
  using Tile = Tile_;
  using Number = Number_;  // F16Number or BF16Number
  using Sums = float[Tile::kDown][Tile::kAcross][4];
  static constexpr int kSums = Tile::kDown * Tile::kAcross * 4;
  static constexpr int kXParts = kXParts_, kWParts = kWParts_;
  static constexpr bool kIsSplit = kXParts == 2;

  static constexpr int kXNumbers = Tile::kRows * Tile::kDepth, kWNumbers = Tile::kCols * Tile::kDepth;
  static constexpr int kStageNumbers = kXParts * kXNumbers + kWParts * kWNumbers;
  // Rows of a warp's sums that pass through shared memory together; their pitch avoids bank conflicts.
  static constexpr int kStagedRows = Tile::kWarpRows < 32 ? Tile::kWarpRows : 32;
  static constexpr int kStagedPitch = Tile::kWarpCols + 8;
  static constexpr int64_t kStageBytes = int64_t{2} * Tile::kStages * kStageNumbers;
  static constexpr int64_t kStagedBytes = int64_t{4} * Tile::kWarps * kStagedRows * kStagedPitch;
  static constexpr int64_t kSharedBytes = kStageBytes > kStagedBytes ? kStageBytes : kStagedBytes;
  static_assert(kSharedBytes <= 99 << 10, "what every GPU since sm_80 has");
};

struct MmaProblem {
  const uint16_t *x[2] = {},
                 *w[2] = {};           // high and low parts of the factors [m, k] and [n, k]; low ones if any
  int64_t x_stride = 0, w_stride = 0;  // numbers
  int m = 0, n = 0, k = 0;
  const float *x_scale = nullptr, *w_scale = nullptr;  // split: [m] and [n] powers of two; w_scale null: 1
  RowEpilogue epilogue = {};
  int splits = 1;               // parts of k
  float* parts = nullptr;       // sums over each, as the threads hold them
  unsigned* arrived = nullptr;  // [tiles], parts that are done
};

// What a block makes: a tile of the output, over some steps of k.
struct MmaPlace {
  int row, col;           // first ones
  int first_step, steps;  // of Tile::kDepth
  int64_t tile, split;

  // Groups of 8 tiles downwards go from left to right, so that what runs at once shares its rows of x and w
  // in the L2 cache.
  template <typename Tile>
  static __device__ __forceinline__ MmaPlace of_block(const MmaProblem& p) {
    constexpr unsigned kGroup = 8;
    const unsigned down = (static_cast<unsigned>(p.m) + Tile::kRows - 1) / Tile::kRows;
    const unsigned across = (static_cast<unsigned>(p.n) + Tile::kCols - 1) / Tile::kCols;
    const unsigned tile = blockIdx.x % (down * across), split = blockIdx.x / (down * across);
    const unsigned group = tile / (kGroup * across), inside = tile % (kGroup * across);
    const unsigned height = std::min(kGroup, down - group * kGroup);
    const int steps = (p.k + Tile::kDepth - 1) / Tile::kDepth, part = static_cast<int>(split);
    const int first_step = static_cast<int>(int64_t{steps} * part / p.splits);
    const int end = static_cast<int>(int64_t{steps} * (part + 1) / p.splits);
    return {static_cast<int>((group * kGroup + inside % height) * Tile::kRows),
            static_cast<int>(inside / height * Tile::kCols),
            first_step,
            end - first_step,
            tile,
            split};
  }
};

struct WarpPlace {
  int row, col;  // first ones in the tile
  int warp, lane;

  template <typename Tile>
  static __device__ __forceinline__ WarpPlace of() {
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    return {warp / Tile::kWarpsAcross * Tile::kWarpRows, warp % Tile::kWarpsAcross * Tile::kWarpCols, warp,
            thread % 32};
  }
};

// ---- the sum of the parts of k

// True for the block that is the last of its tile to be here: its `sums` are then those of all parts, added
// in the order of k whichever block it is.
template <typename Kernel>
__device__ __forceinline__ bool sum_of_parts(const MmaProblem& p, const MmaPlace& place, std::byte* shared,
                                             typename Kernel::Sums& sums) {
  using Tile = typename Kernel::Tile;
  constexpr int kQuads = Kernel::kSums / 4;
  auto* parts =
      reinterpret_cast<float4*>(p.parts) + place.tile * p.splits * kQuads * Tile::kThreads + threadIdx.x;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kQuads; ++i) {
    const float(&own)[4] = sums[i / Tile::kAcross][i % Tile::kAcross];
    parts[(place.split * kQuads + i) * Tile::kThreads] = make_float4(own[0], own[1], own[2], own[3]);
  }
  bool& last = *reinterpret_cast<bool*>(shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the block's sums are seen before its arrival,
    last = atomicAdd(p.arrived + place.tile, 1u) + 1 == static_cast<unsigned>(p.splits);
    __threadfence();  // and the others' after theirs
  }
  __syncthreads();
  const bool is_last = last;
  __syncthreads();  // the epilogue's sums may take its place
  if (!is_last) return false;
  constexpr int kAtOnce = std::min(8, kQuads);  // under way together
  KOTOBA_UNROLL(unroll)
  for (int first = 0; first < kQuads; first += kAtOnce) KOTOBA_UNROLL(unroll 1)
  for (int split = 0; split < p.splits; ++split) KOTOBA_UNROLL(unroll)
  for (int i = first; i < first + kAtOnce; ++i) {
    const float4 part = parts[(int64_t{split} * kQuads + i) * Tile::kThreads];
    float(&sum)[4] = sums[i / Tile::kAcross][i % Tile::kAcross];
    sum[0] = split ? sum[0] + part.x : part.x;
    sum[1] = split ? sum[1] + part.y : part.y;
    sum[2] = split ? sum[2] + part.z : part.z;
    sum[3] = split ? sum[3] + part.w : part.w;
  }
  return true;
}

// ---- the epilogue

// Rows [first, first + kStagedRows) of the warp's sums to shared memory.
template <typename Kernel>
__device__ __forceinline__ void stage_sums(float* staged, const typename Kernel::Sums& sums, int first,
                                           int lane) {
  using Tile = typename Kernel::Tile;
  constexpr int kPitch = Kernel::kStagedPitch;
  float* to = staged + lane / 4 * kPitch + lane % 4 * 2;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < Tile::kDown; ++i) {
    if (i * 16 / Kernel::kStagedRows * Kernel::kStagedRows != first) continue;
    const int row = i * 16 % Kernel::kStagedRows;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < Tile::kAcross; ++j) {
      *reinterpret_cast<float2*>(to + row * kPitch + j * 8) = make_float2(sums[i][j][0], sums[i][j][1]);
      *reinterpret_cast<float2*>(to + (row + 8) * kPitch + j * 8) = make_float2(sums[i][j][2], sums[i][j][3]);
    }
  }
}

// Rows `row` + i · kAtOnce of columns col … col + 3, from `staged`, where the lane's first sum lies.
template <typename Kernel, int kAtOnce, int kBatch>
__device__ __forceinline__ void finish_batch(const MmaProblem& p, const QuadColumns& columns,
                                             const float (&w_scale)[4], const float* staged, int row,
                                             int col) {
  float v[kBatch][4];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kBatch; ++i) {
    const float4 quad = *reinterpret_cast<const float4*>(staged + i * kAtOnce * Kernel::kStagedPitch);
    v[i][0] = quad.x, v[i][1] = quad.y, v[i][2] = quad.z, v[i][3] = quad.w;
    if constexpr (Kernel::kIsSplit) {
      const float scale = p.x_scale[std::min(row + i * kAtOnce, p.m - 1)];
      KOTOBA_UNROLL(unroll)
      for (int j = 0; j < 4; ++j) v[i][j] = times_powers(v[i][j], scale, w_scale[j]);
    }
  }
  finish_quads<kAtOnce>(p.epilogue, columns, row, p.m, col, v);
}

// The same where the output's edge or alignment allows single numbers only.
template <typename Kernel, int kAtOnce, int kBatch>
__device__ __forceinline__ void finish_singly(const MmaProblem& p, const float* staged, int row, int col) {
  KOTOBA_UNROLL(unroll 1)
  for (int i = 0; i < 4 * kBatch; ++i) {
    const int r = row + i / 4 * kAtOnce, c = col + i % 4;
    if (r >= p.m || c >= p.n) continue;
    float sum = staged[i / 4 * kAtOnce * Kernel::kStagedPitch + i % 4];
    if constexpr (Kernel::kIsSplit) sum = times_powers(sum, p.x_scale[r], p.w_scale ? p.w_scale[c] : 1);
    finish(p.epilogue, r, c, sum);
  }
}

// Each warp's sums pass through its own piece of shared memory, so that lanes side by side store to rows.
template <typename Kernel>
__device__ __forceinline__ void finish_tile(const MmaProblem& p, const MmaPlace& place, float* shared,
                                            const typename Kernel::Sums& sums) {
  using Tile = typename Kernel::Tile;
  constexpr int kLanes = Tile::kWarpCols / 4, kAtOnce = 32 / kLanes;  // lanes to a row, rows
  constexpr int kBatch = 8 / kAtOnce;                                 // rows of a lane that are read together
  const WarpPlace warp = WarpPlace::of<Tile>();
  float* staged = shared + warp.warp * Kernel::kStagedRows * Kernel::kStagedPitch;
  const int down = warp.lane / kLanes, right = warp.lane % kLanes * 4;
  const int row = place.row + warp.row + down, col = place.col + warp.col + right;
  const bool quads = p.epilogue.quads && col + 4 <= p.n;
  QuadColumns columns;
  float w_scale[4] = {1, 1, 1, 1};
  if (quads) {
    columns.read(p.epilogue, col);
    if (Kernel::kIsSplit && p.w_scale)
      for (int j = 0; j < 4; ++j) w_scale[j] = p.w_scale[col + j];
  }
  KOTOBA_UNROLL(unroll 1)
  for (int first = 0; first < Tile::kWarpRows; first += Kernel::kStagedRows) {
    stage_sums<Kernel>(staged, sums, first, warp.lane);
    __syncwarp();
    KOTOBA_UNROLL(unroll 1)
    for (int r = 0; r < Kernel::kStagedRows; r += kBatch * kAtOnce) {
      const float* from = staged + (r + down) * Kernel::kStagedPitch + right;
      if (quads)
        finish_batch<Kernel, kAtOnce, kBatch>(p, columns, w_scale, from, row + first + r, col);
      else
        finish_singly<Kernel, kAtOnce, kBatch>(p, from, row + first + r, col);
    }
    __syncwarp();  // before the next rows take their place
  }
}

}  // namespace kotoba::cuda

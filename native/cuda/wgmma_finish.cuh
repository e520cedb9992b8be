// The end of a tile in the matmuls on wgmma: the sum of its parts, where k was divided, and the way from the
// warps' registers through the epilogue to memory.
#pragma once

#include <optional>
#include <utility>

#include "context.h"
#include "epilogue.cuh"
#include "matmul_schedule.h"
#include "matmul_tile.cuh"
#include "reduce.cuh"

namespace kotoba::cuda::wgmma {

constexpr int kConsumers = 2;                            // warpgroups that multiply
constexpr int kWarps = 4 * kConsumers;                   // of them
constexpr int kThreads = 128 * (kConsumers + 1);         // the last warpgroup loads
constexpr int kLoadRegisters = 40, kSumRegisters = 232;  // to a thread: 128 * (40 + 2 * 232) ≤ 65536
constexpr int kRows = 64 * kConsumers, kDepth = 64;      // of a tile, of a step of k
constexpr int kRowBytes = 2 * kDepth;                    // of factors in a stage: the swizzle's 128
constexpr int kMostShared = 227 << 10;

// The sums of a warp on their way to global memory: 16 rows of kCols.
constexpr int stage_cols(int tile_cols) { return tile_cols % 64 == 0 ? 64 : 32; }

// Tiles whose k is divided: [divided tile, part] sums of a tile, and a count of arrivals for every warp of
// it.
struct Partials {
  float4* sums;
  unsigned* arrived;
};

// Memory for what the parts of divided tiles sum, for one launch.
class DividedSums {
 public:
  DividedSums(const Context& context, const MatmulSchedule& schedule, int tile_cols) {
    if (schedule.divided() == 0) return;
    const int64_t counts = int64_t{schedule.divided()} * kWarps * 4;
    const int64_t sums = int64_t{schedule.divided()} * schedule.parts * kRows * tile_cols * 4;
    memory_.emplace(context.pool, sums + counts);
    partials_ = {memory_->as<float4>(), reinterpret_cast<unsigned*>(memory_->as<std::byte>() + sums)};
    check(cudaMemsetAsync(partials_.arrived, 0, static_cast<size_t>(counts), context.stream.get()),
          "clearing the counts of a matmul's parts");
  }
  const Partials& partials() const { return partials_; }

 private:
  std::optional<Scratch> memory_;
  Partials partials_ = {};
};

#ifdef KOTOBA_SM90A

// Of all threads of a warp the same, and known to the compiler to be: branches on it are uniform.
__device__ __forceinline__ int uniform(int v) { return __shfl_sync(kWholeWarp, v, 0); }

// Adds the parts of a divided tile. False for all warps but the last to come, which has the whole sum then.
// The order of addition is that of the parts, whoever comes last.
template <int kCount>
__device__ __forceinline__ bool join_parts(float (&d)[kCount], const Partials& partials,
                                           const MatmulUnit& unit, int warp, int parts) {
  constexpr int kFours = kCount / 4, kStride = 32 * kWarps;  // from four numbers of a thread to the next
  float4* first = partials.sums + int64_t{unit.divided} * parts * kFours * kStride + threadIdx.x;
  float4* own = first + int64_t{unit.part} * kFours * kStride;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kFours; ++i)
    own[i * kStride] = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
  // Release and acquire around the count: a warp's stores are visible before it is counted, and the last
  // warp reads after it has seen all others counted.
  __threadfence();
  __syncwarp();
  unsigned* arrived = partials.arrived + unit.divided * kWarps + warp;
  int before = 0;
  if (threadIdx.x % 32 == 0) before = static_cast<int>(atomicAdd(arrived, 1u));
  if (uniform(before) != parts - 1) return false;
  __threadfence();
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) d[i] = 0;
  KOTOBA_UNROLL(unroll 1)
  for (int part = 0; part < parts; ++part) {
    const float4* from = first + int64_t{part} * kFours * kStride;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kFours; ++i) {
      if (i % 8 == 0) __syncwarp();  // more loads than that at once would not find registers
      const float4 four = from[i * kStride];
      d[4 * i] += four.x, d[4 * i + 1] += four.y, d[4 * i + 2] += four.z, d[4 * i + 3] += four.w;
    }
  }
  return true;
}

// Where the number of a row of a warp's 16 lies: groups of 8 columns change places by row, so that neither
// writing by wgmma's layout nor reading fours of a row meets a bank twice.
template <int kCols>
__device__ __forceinline__ int staged_at(int row, int col) {
  return row * kCols + (col ^ row % 4 * 8);
}

// Columns [kFirst, kFirst + kCols) of the sums.
template <int kFirst, int kCols, int kCount>
__device__ __forceinline__ void stage_sums(float* staged, const float (&d)[kCount]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, col = lane % 4 * 2;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCols; i += 8) {
    const float* pair = d + (kFirst + i) / 2;
    *reinterpret_cast<float2*>(staged + staged_at<kCols>(row, i + col)) = make_float2(pair[0], pair[1]);
    *reinterpret_cast<float2*>(staged + staged_at<kCols>(row + 8, i + col)) = make_float2(pair[2], pair[3]);
  }
}

// Sums of 16 rows from `row` on and kCols columns from `col` on, of a matrix [m, n].
struct StagedSums {
  const float* staged;
  int row, col, m, n;
};

// Where the output's edge or its alignment allows single numbers only.
template <int kCols, typename Scaled>
__device__ __forceinline__ void store_singly(const StagedSums& sums, const RowEpilogue& epilogue,
                                             Scaled scaled) {
  KOTOBA_UNROLL(unroll 1)
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 16 * kCols; i += 32) {
    const int row = sums.row + i / kCols, col = sums.col + i % kCols;
    if (row >= sums.m || col >= sums.n) continue;
    finish(epilogue, row, col, scaled(sums.staged[staged_at<kCols>(i / kCols, i % kCols)], row, col));
  }
}

// scaled(sum, row, col): what the epilogue gets of a sum. Four columns to a lane, kBatch rows at once.
template <int kCols, int kBatch, typename Scaled>
__device__ __forceinline__ void store_quads(const StagedSums& sums, const RowEpilogue& epilogue,
                                            Scaled scaled) {
  constexpr int kLanes = kCols / 4, kAtOnce = 32 / kLanes;  // lanes to a row, rows
  const int lane = static_cast<int>(threadIdx.x) % 32, right = lane % kLanes * 4, col = sums.col + right;
  if (col >= sums.n) return;
  QuadColumns columns;
  columns.read(epilogue, col);
  KOTOBA_UNROLL(unroll 1)
  for (int down = lane / kLanes; down < 16; down += kBatch * kAtOnce) {
    float v[kBatch][4];
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kBatch; ++i) {
      const int here = down + i * kAtOnce, row = std::min(sums.row + here, sums.m - 1);
      const float4 quad = *reinterpret_cast<const float4*>(sums.staged + staged_at<kCols>(here, right));
      v[i][0] = scaled(quad.x, row, col), v[i][1] = scaled(quad.y, row, col + 1);
      v[i][2] = scaled(quad.z, row, col + 2), v[i][3] = scaled(quad.w, row, col + 3);
    }
    finish_quads<kAtOnce>(epilogue, columns, sums.row + down, sums.m, col, v);
  }
}

// The warp's rows of a tile, some columns at a time through shared memory.
template <int kTileCols, typename Scaled>
__device__ __forceinline__ void store_sums(const float (&d)[kTileCols / 2], float* staged,
                                           const RowEpilogue& epilogue, const MatmulSize& size, int row,
                                           int first_col, Scaled scaled) {
  constexpr int kCols = stage_cols(kTileCols);
  constexpr int kBatch = kTileCols > 128 ? 2 : 4;  // rows of a lane at once, as registers allow
  const int m = static_cast<int>(size.m), n = static_cast<int>(size.n);
  KOTOBA_UNROLL(unroll 1)
  for (int start = 0; start < kTileCols && first_col + start < n; start += kCols) {
    __syncwarp();  // what was staged before has been read
    [&]<size_t... i>(std::index_sequence<i...>) {
      ((start == i * kCols ? stage_sums<i * kCols, kCols>(staged, d) : void()), ...);
    }
    (std::make_index_sequence<kTileCols / kCols>());
    __syncwarp();
    const StagedSums sums = {staged, row, first_col + start, m, n};
    if (epilogue.quads && n % 4 == 0)
      store_quads<kCols, kBatch>(sums, epilogue, scaled);
    else
      store_singly<kCols>(sums, epilogue, scaled);
  }
  __syncwarp();  // wgmma wants the lanes together again
}

#endif

}  // namespace kotoba::cuda::wgmma

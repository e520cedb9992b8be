// What the matmuls on wgmma share (sm_90a). A persistent block has two warpgroups that multiply, 64 rows of a
// tile each, and one warp that keeps a ring of stages in shared memory filled by TMA, also with the next
// tile's factors while the last tile's sums are stored.
#pragma once

#include <algorithm>

#include "tensor_map.h"
#include "wgmma_finish.cuh"

namespace kotoba::cuda::wgmma {

// Bytes of dynamic shared memory: stages, sums of the warps, barriers.
template <int kStageBytes_, int kTileCols>
struct Shared {
  static constexpr int kStageBytes = kStageBytes_;
  static constexpr int kSumBytes = kWarps * 16 * stage_cols(kTileCols) * 4;
  static constexpr int kMostStages = (kMostShared - kSumBytes - 1024) / kStageBytes;
  static constexpr int kStages = kMostStages < 8 ? kMostStages : 8;
  static constexpr int kSumsAt = kStages * kStageBytes, kBarriersAt = kSumsAt + kSumBytes;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kStageBytes % 1024 == 0 && kStages >= 2);

  std::byte* data;

  __device__ __forceinline__ std::byte* stage(int i) const { return data + i * kStageBytes; }
  __device__ __forceinline__ float* sums(int warp) const {
    return reinterpret_cast<float*>(data + kSumsAt) + warp * 16 * stage_cols(kTileCols);
  }
  __device__ __forceinline__ uint64_t* full(int i) const {
    return reinterpret_cast<uint64_t*>(data + kBarriersAt) + i;
  }
  __device__ __forceinline__ uint64_t* empty(int i) const { return full(kStages + i); }
};

// Where in the ring a warp is.
template <int kStages>
struct Place {
  int stage = 0, parity = 0;

  __device__ __forceinline__ void next() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// What a kernel gets beside the maps of its factors.
struct Arguments {
  MatmulSize size;
  MatmulSchedule schedule;
  RowEpilogue epilogue;
  Partials partials;
};

// Places in tiles are counted in int.
inline bool fits(const MatmulSize& size, int arch) {
  return runs_wgmma(arch) && size.k > 0 && std::max({size.m, size.n, size.k}) <= int64_t{1} << 30;
}

// Of one Hopper multiprocessor, from public specifications. Factors are x_parts and w_parts numbers each, and
// `products` of them are multiplied.
inline TileTimes tile_times(int cols, int x_parts, int w_parts, int products) {
  constexpr double kClocks = 1750;                      // in a microsecond
  constexpr double kProducts = 0.9 * 2048;              // a clock
  constexpr double kL2Bytes = 48, kRow = 2.0 * kDepth;  // a clock; bytes
  const double multiplied = static_cast<double>(kRows) * cols * kDepth * products / kProducts;
  const double loaded = (x_parts * kRows + w_parts * cols) * kRow / kL2Bytes;
  const double tile_bytes = 4.0 * kRows * cols;
  return {.step = std::max(multiplied, loaded) / kClocks,
          .finish = (600 + tile_bytes / kL2Bytes / 2) / kClocks,
          .part = tile_bytes / kL2Bytes / kClocks};
}

#ifdef KOTOBA_SM90A

template <typename Ring>
__device__ __forceinline__ void start_ring(const Ring& ring) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < Ring::kStages; ++i) {
      ptx::mbarrier_init(ring.full(i), 1);        // the loading thread, and the bytes that it announces
      ptx::mbarrier_init(ring.empty(i), kWarps);  // every warp that multiplies, when its products are done
    }
    // The barriers are also used by the copy engine, which does not take part in __syncthreads().
    ptx::fence_mbarrier_init();
    ptx::fence_async_proxy();
  }
  __syncthreads();
}

// ---- the loading warp

// For every step of the block's units: waits for a free stage, then load(stage, barrier, unit, step).
template <typename Ring, typename Load>
__device__ __forceinline__ void fill_ring(const Ring& ring, const MatmulSchedule& schedule, int stage_bytes,
                                          Load load) {
  Place<Ring::kStages> place;
  for (int index = blockIdx.x; index < schedule.units(); index += gridDim.x) {
    const MatmulUnit unit = schedule.unit(index);
    for (int step = unit.first_step; step < unit.end_step; ++step) {
      // A new barrier is in phase 0: the phase before it counts as over, so the first round does not wait.
      ptx::mbarrier_wait(ring.empty(place.stage), place.parity ^ 1);
      ptx::mbarrier_arrive_expect(ring.full(place.stage), stage_bytes);
      load(ring.stage(place.stage), ring.full(place.stage), unit, step);
      place.next();
    }
  }
}

// ---- the multiplying warps

// One arrival a warp: a warp's wgmma_wait covers its own quarter of the products only. Both the products and
// the next copy are work of the async proxy, so no fence is needed between them.
__device__ __forceinline__ void release(uint64_t* empty) {
  if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty);
}

// The units of a block: sum(d, steps) adds up `steps` stages of the ring, scaled(sum, row, col) is what the
// epilogue gets of a sum.
template <int kTileCols, typename Ring, typename Sum, typename Scaled>
__device__ __forceinline__ void sum_tiles(const Ring& ring, const Arguments& p, Sum sum, Scaled scaled) {
  float d[kTileCols / 2];
  for (int index = blockIdx.x; index < p.schedule.units(); index += gridDim.x) {
    const MatmulUnit unit = p.schedule.unit(index);
    sum(d, unit.end_step - unit.first_step);
    const int warp = uniform(static_cast<int>(threadIdx.x) / 32), row = unit.row * kRows + warp * 16;
    if (row >= p.size.m) continue;
    if (unit.divided >= 0 && !join_parts(d, p.partials, unit, warp, p.schedule.parts)) continue;
    store_sums<kTileCols>(d, ring.sums(warp), p.epilogue, p.size, row, unit.col * kTileCols, scaled);
  }
}

#endif

}  // namespace kotoba::cuda::wgmma

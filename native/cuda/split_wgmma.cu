// The split matmul on Hopper: TMA and wgmma. The tensor cores' sums lose bits as they grow, so those of every
// step, 64 of k, are added up in FP32 registers; meanwhile the other warpgroup's products are under way.
#include "matmul_wgmma.cuh"
#include "split.h"

namespace kotoba::cuda {
namespace {

using namespace wgmma;

// A stage: x high and low, w high and, if kWParts is 2, low.
template <int kCols, int kWParts>
struct SplitStage {
  static constexpr int kXBytes = kRows * kRowBytes, kWBytes = kCols * kRowBytes;
  static constexpr int kWAt = 2 * kXBytes, kBytes = kWAt + kWParts * kWBytes;
};

template <int kCols, int kWParts>
struct SplitRing : Shared<SplitStage<kCols, kWParts>::kBytes, kCols> {
  using Stage = SplitStage<kCols, kWParts>;
};

struct SplitMaps {
  TensorMap x_high, x_low, w_high, w_low;  // w_low: as w_high if there is none
};

struct SplitScales {
  const float *x, *w;  // of rows; null: 1
};

#ifdef KOTOBA_SM90A

// step_sum = the products of a stage: the small ones first, so that few of their bits are lost.
template <int kCols, int kWParts>
__device__ __forceinline__ void multiply_stage(float (&step_sum)[kCols / 2], uint64_t x, uint64_t w) {
  using Stage = SplitStage<kCols, kWParts>;
  constexpr uint64_t kXLow = Stage::kXBytes >> 4, kWLow = Stage::kWBytes >> 4;  // in a descriptor
  KOTOBA_UNROLL(unroll)
  for (int k = 0; k < kDepth / 16; ++k) {
    ptx::wgmma_f16<kCols>(step_sum, x + kXLow + 2 * k, w + 2 * k, k > 0);
    if constexpr (kWParts == 2) ptx::wgmma_f16<kCols>(step_sum, x + 2 * k, w + kWLow + 2 * k, true);
  }
  KOTOBA_UNROLL(unroll)
  for (int k = 0; k < kDepth / 16; ++k) ptx::wgmma_f16<kCols>(step_sum, x + 2 * k, w + 2 * k, true);
}

// d = the warpgroup's 64 rows of a tile, summed over `steps` stages.
template <int kCols, int kWParts>
__device__ __forceinline__ void sum_steps(float (&d)[kCols / 2], const SplitRing<kCols, kWParts>& ring,
                                          Place<SplitRing<kCols, kWParts>::kStages>& place, int warpgroup,
                                          int steps) {
  using Stage = SplitStage<kCols, kWParts>;
  constexpr uint64_t kStage = Stage::kBytes >> 4;  // in a descriptor
  const uint64_t x = ptx::wgmma_descriptor(ring.stage(0) + warpgroup * 64 * kRowBytes);
  const uint64_t w = ptx::wgmma_descriptor(ring.stage(0) + Stage::kWAt);
  float step_sum[kCols / 2];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCols / 2; ++i) d[i] = 0;
  KOTOBA_UNROLL(unroll 1)
  for (int step = 0; step < steps; ++step) {
    ptx::mbarrier_wait(ring.full(place.stage), place.parity);
    ptx::wgmma_fence();
    multiply_stage<kCols, kWParts>(step_sum, x + place.stage * kStage, w + place.stage * kStage);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::hold_registers(step_sum);
    release(ring.empty(place.stage));
    place.next();
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCols / 2; ++i) d[i] += step_sum[i];
  }
}

#endif

template <int kCols, int kWParts>
__global__ void __launch_bounds__(kThreads, 1)
    split_wgmma(const __grid_constant__ SplitMaps maps, const __grid_constant__ Arguments p,
                SplitScales scales) {
#ifdef KOTOBA_SM90A
  using Stage = SplitStage<kCols, kWParts>;
  KOTOBA_DYNAMIC_SHARED(shared);
  const SplitRing<kCols, kWParts> ring = {shared};
  start_ring(ring);
  const int warpgroup = uniform(static_cast<int>(threadIdx.x) / 128);
  if (warpgroup < kConsumers) {
    ptx::take_registers<kSumRegisters>();
    Place<SplitRing<kCols, kWParts>::kStages> place;
    sum_tiles<kCols>(
        ring, p, [&](float(&d)[kCols / 2], int steps) { sum_steps(d, ring, place, warpgroup, steps); },
        [&](float sum, int row, int col) {
          return times_powers(sum, scales.x ? scales.x[row] : 1, scales.w ? scales.w[col] : 1);
        });
  } else {
    ptx::give_registers<kLoadRegisters>();
    if (threadIdx.x != 128 * kConsumers) return;
    for (const TensorMap* map : {&maps.x_high, &maps.x_low, &maps.w_high, &maps.w_low})
      ptx::prefetch_map(map);
    fill_ring(ring, p.schedule, Stage::kBytes,
              [&](std::byte* stage, uint64_t* full, const MatmulUnit& unit, int step) {
                const int k = step * kDepth, row = unit.row * kRows, col = unit.col * kCols;
                ptx::tma_load_2d(stage, &maps.x_high, full, k, row);
                ptx::tma_load_2d(stage + Stage::kXBytes, &maps.x_low, full, k, row);
                ptx::tma_load_2d(stage + Stage::kWAt, &maps.w_high, full, k, col);
                if constexpr (kWParts == 2)
                  ptx::tma_load_2d(stage + Stage::kWAt + Stage::kWBytes, &maps.w_low, full, k, col);
              });
  }
#endif
}

// ---- host

template <int kCols>
MatmulPlan plan(const SplitProblem& p) {
  const MatmulSize& s = p.size;
  const int w_parts = p.w.low ? 2 : 1;
  return plan_matmul(s.m, s.n, s.k, {kRows, kCols, kDepth}, tile_times(kCols, 2, w_parts, 1 + w_parts),
                     2 * w_parts * s.n * s.k + 4 * s.m * (s.k + s.n), p.multiprocessors);
}

template <int kCols>
double cost(const SplitProblem& p) {
  return fits(p.size, p.arch) && p.x.low ? plan<kCols>(p).microseconds : kUnfit;
}

template <int kCols>
void run(const Context& context, const SplitProblem& p) {
  const MatmulPlan plan = cuda::plan<kCols>(p);
  const DividedSums divided(context, plan.schedule, kCols);
  const Arguments arguments = {p.size, plan.schedule, p.epilogue, divided.partials()};
  const auto x_map = [&](const uint16_t* x) { return matrix_map(x, p.size.m, p.size.k, p.x.stride, kRows); };
  const auto w_map = [&](const uint16_t* w) { return matrix_map(w, p.size.n, p.size.k, p.w.stride, kCols); };
  const SplitMaps maps = {x_map(p.x.high), x_map(p.x.low), w_map(p.w.high),
                          w_map(p.w.low ? p.w.low : p.w.high)};
  const SplitScales scales = {p.x.scale, p.w.scale};
  const auto start = [&]<int kWParts>() {
    launch(context.stream, {"split_wgmma", plan.blocks, kThreads, SplitRing<kCols, kWParts>::kBytes},
           split_wgmma<kCols, kWParts>, maps, arguments, scales);
  };
  if (p.w.low) return start.template operator()<2>();
  start.template operator()<1>();
}

constexpr Variant<SplitProblem> kVariants[] = {
    {"wgmma_128x128", cost<128>, run<128>},
    {"wgmma_128x64", cost<64>, run<64>},
};

}  // namespace

std::span<const Variant<SplitProblem>> split_wgmma_variants() { return kVariants; }

}  // namespace kotoba::cuda

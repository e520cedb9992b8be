// The dense matmul on Hopper: TMA and wgmma, tiles of 128 rows and 64 to 256 columns.
#include "dense.h"
#include "matmul_wgmma.cuh"

namespace kotoba::cuda {
namespace {

using namespace wgmma;

template <int kCols>
struct DenseRing : Shared<(kRows + kCols) * kRowBytes, kCols> {};  // a stage: x, then w

#ifdef KOTOBA_SM90A

template <typename Number, int kCols>
__device__ __forceinline__ void multiply(float (&d)[kCols / 2], uint64_t x, uint64_t w, bool accumulate) {
  if constexpr (std::is_same_v<Number, F16Number>)
    ptx::wgmma_f16<kCols>(d, x, w, accumulate);
  else
    ptx::wgmma_bf16<kCols>(d, x, w, accumulate);
}

// d = the warpgroup's 64 rows of a tile, summed over `steps` stages.
template <typename Number, int kCols>
__device__ __forceinline__ void sum_steps(float (&d)[kCols / 2], const DenseRing<kCols>& ring,
                                          Place<DenseRing<kCols>::kStages>& place, int warpgroup, int steps) {
  constexpr uint64_t kStage = DenseRing<kCols>::kStageBytes >> 4;  // in a descriptor
  const uint64_t x = ptx::wgmma_descriptor(ring.stage(0) + warpgroup * 64 * kRowBytes);
  const uint64_t w = ptx::wgmma_descriptor(ring.stage(0) + kRows * kRowBytes);
  int previous = 0;
  KOTOBA_UNROLL(unroll 1)
  for (int step = 0; step < steps; ++step) {
    ptx::mbarrier_wait(ring.full(place.stage), place.parity);
    ptx::wgmma_fence();
    KOTOBA_UNROLL(unroll)
    for (int k = 0; k < kDepth / 16; ++k)
      multiply<Number, kCols>(d, x + place.stage * kStage + 2 * k, w + place.stage * kStage + 2 * k,
                              step > 0 || k > 0);
    ptx::wgmma_commit();
    // The products of this step stay under way while the last step's stage is given back.
    ptx::wgmma_wait<1>();
    if (step > 0) release(ring.empty(previous));
    previous = place.stage;
    place.next();
  }
  ptx::wgmma_wait<0>();
  ptx::hold_registers(d);
  release(ring.empty(previous));
}

#endif

template <typename Number, int kCols>
__global__ void __launch_bounds__(kThreads, 1)
    dense_wgmma(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                const __grid_constant__ Arguments p) {
#ifdef KOTOBA_SM90A
  KOTOBA_DYNAMIC_SHARED(shared);
  const DenseRing<kCols> ring = {shared};
  start_ring(ring);
  const int warpgroup = uniform(static_cast<int>(threadIdx.x) / 128);
  if (warpgroup < kConsumers) {
    ptx::take_registers<kSumRegisters>();
    Place<DenseRing<kCols>::kStages> place;
    sum_tiles<kCols>(
        ring, p,
        [&](float(&d)[kCols / 2], int steps) { sum_steps<Number, kCols>(d, ring, place, warpgroup, steps); },
        [](float sum, int, int) { return sum; });
  } else {
    ptx::give_registers<kLoadRegisters>();
    if (threadIdx.x != 128 * kConsumers) return;
    ptx::prefetch_map(&x);
    ptx::prefetch_map(&w);
    fill_ring(ring, p.schedule, ring.kStageBytes,
              [&](std::byte* stage, uint64_t* full, const MatmulUnit& unit, int step) {
                ptx::tma_load_2d(stage, &x, full, step * kDepth, unit.row * kRows);
                ptx::tma_load_2d(stage + kRows * kRowBytes, &w, full, step * kDepth, unit.col * kCols);
              });
  }
#endif
}

// ---- host

template <int kCols>
MatmulPlan plan(const DenseProblem& p) {
  const MatmulSize& s = p.size;
  return plan_matmul(s.m, s.n, s.k, {kRows, kCols, kDepth}, tile_times(kCols, 1, 1, 1),
                     2 * (s.n * s.k + s.m * s.k + s.m * s.n), p.multiprocessors);
}

template <int kCols>
double cost(const DenseProblem& p) {
  return fits(p.size, p.arch) ? plan<kCols>(p).microseconds : kUnfit;
}

template <int kCols>
void run(const Context& context, const DenseProblem& p) {
  const MatmulPlan plan = cuda::plan<kCols>(p);
  const DividedSums divided(context, plan.schedule, kCols);
  const Arguments arguments = {p.size, plan.schedule, p.epilogue, divided.partials()};
  const TensorMap x = matrix_map(p.x, p.size.m, p.size.k, p.x_stride, kRows);
  const TensorMap w = matrix_map(p.w, p.size.n, p.size.k, p.w_stride, kCols);
  dispatch_16_bit(p.dtype, "dense", [&]<typename Number>() {
    launch(context.stream, {"dense_wgmma", plan.blocks, kThreads, DenseRing<kCols>::kBytes},
           dense_wgmma<Number, kCols>, x, w, arguments);
  });
}

constexpr Variant<DenseProblem> kVariants[] = {
    {"wgmma_128x256", cost<256>, run<256>},
    {"wgmma_128x192", cost<192>, run<192>},
    {"wgmma_128x128", cost<128>, run<128>},
    {"wgmma_128x64", cost<64>, run<64>},
};

}  // namespace

std::span<const Variant<DenseProblem>> dense_wgmma_variants() { return kVariants; }

}  // namespace kotoba::cuda

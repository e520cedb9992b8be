// Tiles of the split matmul (split.h) on mma.sync (matmul_mma.cuh).
#include "matmul_mma.cuh"
#include "split.h"

namespace kotoba::cuda {
namespace {

template <typename Tile>
MmaPlan plan(const SplitProblem& p) {
  return plan_mma(Tile::shape(2, p.w.low ? 2 : 1), p.size.m, p.size.n, p.size.k, p.arch, p.multiprocessors);
}

template <typename Tile>
double cost(const SplitProblem& p) {
  return mma_fits(p.size.m, p.size.n, p.size.k, p.arch) ? plan<Tile>(p).microseconds : kUnfit;
}

template <typename Tile>
void run(const Context& context, const SplitProblem& p) {
  const MmaProblem problem = {.x = {p.x.high, p.x.low},
                              .w = {p.w.high, p.w.low},
                              .x_stride = p.x.stride,
                              .w_stride = p.w.stride,
                              .m = static_cast<int>(p.size.m),
                              .n = static_cast<int>(p.size.n),
                              .k = static_cast<int>(p.size.k),
                              .x_scale = p.x.scale,
                              .w_scale = p.w.scale,
                              .epilogue = p.epilogue};
  const int splits = plan<Tile>(p).splits;
  if (p.w.low) return run_mma<MmaKernel<Tile, F16Number, 2, 2>>(context, "split_mma", problem, splits);
  run_mma<MmaKernel<Tile, F16Number, 2, 1>>(context, "split_mma", problem, splits);
}

constexpr Variant<SplitProblem> kVariants[] = {
    {"mma_128x128", cost<SplitTile128x128>, run<SplitTile128x128>},
    {"mma_64x128", cost<SplitTile64x128>, run<SplitTile64x128>},
    {"mma_64x64", cost<SplitTile64x64>, run<SplitTile64x64>},
};

}  // namespace

std::span<const Variant<SplitProblem>> split_mma_variants() { return kVariants; }

}  // namespace kotoba::cuda

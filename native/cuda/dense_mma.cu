// Tiles of the dense 16-bit matmul on mma.sync (matmul_mma.cuh).
#include "dense.h"
#include "matmul_mma.cuh"

namespace kotoba::cuda {
namespace {

template <typename Tile>
MmaPlan plan(const DenseProblem& p) {
  return plan_mma(Tile::shape(), p.size.m, p.size.n, p.size.k, p.arch, p.multiprocessors);
}

template <typename Tile>
double cost(const DenseProblem& p) {
  return mma_fits(p.size.m, p.size.n, p.size.k, p.arch) ? plan<Tile>(p).microseconds : kUnfit;
}

template <typename Tile>
void run(const Context& context, const DenseProblem& p) {
  const MmaProblem problem = {.x = {p.x, nullptr},
                              .w = {p.w, nullptr},
                              .x_stride = p.x_stride,
                              .w_stride = p.w_stride,
                              .m = static_cast<int>(p.size.m),
                              .n = static_cast<int>(p.size.n),
                              .k = static_cast<int>(p.size.k),
                              .epilogue = p.epilogue};
  dispatch_16_bit(p.dtype, "dense", [&]<typename Number>() {
    run_mma<MmaKernel<Tile, Number>>(context, "dense_mma", problem, plan<Tile>(p).splits);
  });
}

constexpr Variant<DenseProblem> kVariants[] = {
    {"mma_128x256", cost<DenseTile128x256>, run<DenseTile128x256>},
    {"mma_128x128", cost<DenseTile128x128>, run<DenseTile128x128>},
    {"mma_128x64", cost<DenseTile128x64>, run<DenseTile128x64>},
    {"mma_64x64", cost<DenseTile64x64>, run<DenseTile64x64>},
};

}  // namespace

std::span<const Variant<DenseProblem>> dense_mma_variants() { return kVariants; }

}  // namespace kotoba::cuda

#include "dense.h"

namespace kotoba::cuda {

void dense_matmul(const Context& context, const DenseProblem& problem) {
  run_variant<DenseProblem>(context, "dense", {dense_wgmma_variants(), dense_mma_variants()}, problem);
}

}  // namespace kotoba::cuda

#!/usr/bin/env bash
# The CUDA kernels on the simulated device: every op test and every golden model with the kernels that the tables
# choose, then again with every kernel forced in turn. KOTOBA_ADDON names an addon with kotoba_cuda_sim.so beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
export KOTOBA_TEST_DEVICE=cuda-sim

npx vitest run test/runtime test/cuda test/bench -t "cuda-sim|simulated GPU|names"
npx vitest run test/cuda test/precision test/pipeline/families_precision.test.ts test/cli/device.test.ts
npx vitest run test/encoders/golden.test.ts test/diffusion test/pipeline/image_pipeline.test.ts
npx vitest run test/pipeline/painting/sampler_{sd1,sdxl,flow}.test.ts test/pipeline/conditioning/family_text.test.ts -t golden

# An op's variants are those that the error names for one that does not exist, so that none can be forgotten.
.ci/variants.sh

#!/usr/bin/env bash
# Every kernel forced in turn, wherever it fits: op tests, golden models and the small model's pictures on the simulated
# device. test/cuda/variants.test.ts holds this list to the kernels that there are.
set -euo pipefail
cd "$(dirname "$0")/.."
export KOTOBA_TEST_DEVICE=cuda-sim

fp32=(
  linear:gemv linear:split linear:simt_64x64
  split:mma_128x128 split:mma_64x128 split:mma_64x64 split:wgmma_128x128 split:wgmma_128x64
  conv2d:simt_64x64 conv2d:mma_128x64 conv2d:mma_128x32
)
sixteen_bits=(
  linear:fused_quant linear:dense
  dense:mma_128x256 dense:mma_128x128 dense:mma_128x64 dense:mma_64x64
  dense:wgmma_128x256 dense:wgmma_128x192 dense:wgmma_128x128 dense:wgmma_128x64
  attention:simt_16x32 attention:mma_64x64 attention:mma_128x64 attention:mma_wide_64x32 attention:wgmma_128x128
  conv2d:mma_128x128
)

forced() {
  local variant=$1
  shift
  echo "== $variant"
  # Tiles are chosen where their route is taken.
  case $variant in
    dense:*) variant="linear:dense,$variant" ;;
    split:*) variant="linear:split,$variant" ;;
  esac
  KOTOBA_VARIANT=$variant npx vitest run --reporter=dot "$@"
}

for variant in "${fp32[@]}"; do
  forced "$variant" test/runtime -t cuda-sim
  forced "$variant" test/encoders/golden.test.ts test/diffusion test/pipeline/image_pipeline.test.ts
done
for variant in "${sixteen_bits[@]}"; do
  forced "$variant" test/precision
done

#!/usr/bin/env bash
# How long the CUDA library takes to build, without ccache, and what its kernels use:
#
#   bench/build_time.sh [ARCHITECTURES] [JOBS]      default: every one of native/cuda/CMakeLists.txt, 2 jobs
#   bench/build_time.sh 90a-real                    one, as for development
#
# Goals on 2 cores: all in less than 12 minutes, one in less than 2. CPU seconds tell it on a machine that others use, too.
set -euo pipefail
cd "$(dirname "$0")/.."
architectures=${1:-}
jobs=${2:-2}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cmake -S . -B "$folder" -G Ninja -DKOTOBA_CUDA=ON -DKOTOBA_CUDA_SIM=OFF -DCCACHE_PROGRAM=CCACHE_PROGRAM-NOTFOUND \
  -DCMAKE_CUDA_FLAGS=-Xptxas=-v ${architectures:+"-DKOTOBA_CUDA_ARCHITECTURES=$architectures"} >"$folder/configure.log"
start=$SECONDS
TIMEFORMAT='%U %S'
{ time cmake --build "$folder" --target kotoba_cuda -j "$jobs" >"$folder/ptxas.log" 2>&1; } 2>"$folder/cpu" || {
  tail -40 "$folder/ptxas.log"
  exit 1
}
# .ninja_log: start and end in ms, mtime, output, hash
awk 'NR > 1 { printf "%7.1f s  %s\n", ($2 - $1) / 1000, $4 }' "$folder/.ninja_log" | sort -rn | head -12
npx tsx bench/ptxas_report.ts "$folder/ptxas.log" || status=$?
if [ -n "${KEEP_REPORT:-}" ]; then cp "$folder/ptxas.log" "$KEEP_REPORT"; fi
tail -1 "$folder/cpu" | awk -v wall=$((SECONDS - start)) -v jobs="$jobs" -v what="${architectures:-all targets}" \
  '{ printf "%s: %d s on %d jobs, %.0f CPU seconds\n", what, wall, jobs, $1 + $2 }'
exit "${status:-0}"

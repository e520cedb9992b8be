#!/usr/bin/env bash
# Kotoba on a bare GPU machine: build, tests, sanitizer, benches beside PyTorch, profile; a table at the end.
#
#   OUT=results bench/device.sh PART…
#
#   build           the addon and the CUDA library for this machine's card
#   test            the whole test suite, models and pictures on the card
#   sanitize        every op and a picture under compute-sanitizer: memcheck, racecheck, synccheck, initcheck
#   bench-ops       kernels beside PyTorch's, ceilings
#   bench-encode    T5-XXL (FP16, Q8_0, Q4_K) and CLIP beside transformers
#   bench-generate  Flux.1-schnell's shape, words to pictures, its step beside PyTorch's; SD1.5's shape
#   profile         Nsight Compute on the kernels of PROFILE
#   report          goals.md and page.html from the JSON in $OUT
#   all             one after another
#
# Each part takes less than ten minutes and can run alone, once build has run; each keeps to PART_SECONDS (default 540).
# What comes back lies in $OUT: JSON, tables, and logs-PART.txt. Needs nvcc, cmake, ninja, python3 with PyTorch; Node comes
# from .device (bench/device_pack.sh) where the machine has none. Files with random weights are made in KOTOBA_BENCH_DIR
# (default /tmp/kotoba-bench; 60 GB for all). DEVICE=cuda-sim tries the script itself where there is no GPU. It changes no
# setting of the card.
# shellcheck disable=SC2086,SC2054,SC2317 # options of one's own are split; lists have commas; parts are called by name
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD

export KOTOBA_BENCH_DIR=${KOTOBA_BENCH_DIR:-/tmp/kotoba-bench}
OUT=${OUT:-$root/out/device}
DEVICE=${DEVICE:-cuda}
PART_SECONDS=${PART_SECONDS:-540}
BUILD=${BUILD:-$root/build-device}
PROFILE=${PROFILE:-'^linear (4608x21504x3072|512x4096x4096) BF16 bf16$|^linear 4096x4096x4096 F32 fp32$|^linear (1x8192x8192|16x4096x4096|77x8192x8192|512x4096x4096|4608x12288x3072) Q4_K|^attention (flux 24x128 4608|t5 64x64 512) tokens bf16$|^conv2d 512x512 256-256 3x3 bf16|^(rms_norm 32768|decode 8192x4096 Q4_K|group_norm 1048576x128 fp32)'}
mkdir -p "$OUT" "$KOTOBA_BENCH_DIR"
declare -a summary=()

# ---- Node, the packages, and where the addon is

prepare() {
  if ! command -v node >/dev/null; then
    local home=${KOTOBA_NODE_HOME:-/tmp/kotoba-node}
    [ -x "$home/bin/node" ] || { mkdir -p "$home" && unpack .device/node.tar.xz "$home"; } || return 1
    export PATH="$home/bin:$PATH"
  fi
  if [ ! -d node_modules ] || [ ! -d dist ]; then
    [ -f .device/packages.tar.xz ] || { echo "device: neither node_modules with dist nor .device: run bench/device_pack.sh where the tree comes from" >&2; return 1; }
    unpack .device/packages.tar.xz . || return 1
  fi
  if [ -z "${KOTOBA_BENCH_COMMIT:-}" ] && [ -f .device/commit ]; then
    KOTOBA_BENCH_COMMIT=$(cat .device/commit)
    export KOTOBA_BENCH_COMMIT
  fi
  export KOTOBA_ADDON=$BUILD/Release/kotoba.node
}

# Python unpacks: a bare machine may have no xz.
unpack() {
  python3 -c 'import sys, tarfile
with tarfile.open(sys.argv[1], "r:xz") as archive: archive.extractall(sys.argv[2])' "$1" "$2"
}

kotoba() { node bin/kotoba.js "$@"; }
simulated() { [[ $DEVICE == cuda-sim* ]]; }

# 2026-11-22-h200: the beginning of the reports' names
stem() {
  local card=$DEVICE
  simulated || card=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | sed 's/^NVIDIA //' | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
  echo "$(date -u +%F)-$card"
}

# ---- the parts

part_build() {
  local options=(-DKOTOBA_CUDA=AUTO "-DCMAKE_CUDA_FLAGS=-Xptxas=-v")
  simulated && options=(-DKOTOBA_CUDA=OFF -DKOTOBA_CUDA_SIM=ON)
  cmake -S . -B "$BUILD" -G Ninja "${options[@]}" || return 1
  cmake --build "$BUILD" >"$BUILD/ptxas.log" 2>&1 || { tail -60 "$BUILD/ptxas.log"; return 1; }
  grep -v 'ptxas info\|bytes stack frame' "$BUILD/ptxas.log" | tail -5
  if ! simulated; then
    [ -f "$BUILD/Release/kotoba_cuda.so" ] || { echo "device: kotoba_cuda.so was not built" >&2; return 1; }
    # An incremental build reports nothing of what it did not compile; then the library itself is asked.
    if ! grep -q 'Compiling entry function' "$BUILD/ptxas.log"; then
      cuobjdump --dump-resource-usage "$BUILD/Release/kotoba_cuda.so" >"$BUILD/ptxas.log" || return 1
    fi
    cp "$BUILD/ptxas.log" "$OUT/ptxas.txt"
    node dist/bench/ptxas_report.js "$BUILD/ptxas.log" || echo "device: kernels use local memory (above); the rest goes on"
  fi
  # The device opens and computes.
  kotoba bench ops --device "$DEVICE" --tiny --check --filter '^rms_norm' | tail -4
}

part_test() {
  local workers=$(($(nproc) / 2))
  export KOTOBA_TEST_DEVICE=$DEVICE
  # A process of its own for every file already keeps each on a device of its own; more of them share the card.
  # Not through npx: what travels is Node alone.
  node node_modules/vitest/vitest.mjs run --maxWorkers="$((workers > 8 ? 8 : workers < 1 ? 1 : workers))" \
    --reporter=default --reporter=json --outputFile.json="$OUT/test.json" ${TESTS:-}
}

part_sanitize() {
  local tool=compute-sanitizer failed=0
  if ! command -v "$tool" >/dev/null; then
    simulated || { echo "device: compute-sanitizer is not on PATH" >&2; return 1; }
    echo "the simulator checks memory and races itself; compute-sanitizer is for a real card"
    return 0
  fi
  # A tenth of the time for each picture, the rest for the ops.
  local each=$((PART_SECONDS / 4 - 5))
  for check in memcheck racecheck synccheck initcheck; do
    echo "---- $check"
    timeout "$each" "$tool" --tool "$check" --error-exitcode 9 --print-limit 20 \
      node bin/kotoba.js bench ops --device "$DEVICE" --tiny --check || { failed=1; echo "$check: FAILED ($?)"; }
  done
  echo "---- memcheck, a picture"
  timeout "$each" "$tool" --tool memcheck --error-exitcode 9 --print-limit 20 \
    node bin/kotoba.js bench generate --device "$DEVICE" --files small --runs 1 --precisions bf16 --size 64x64 || { failed=1; echo "picture: FAILED"; }
  return "$failed"
}

part_bench_ops() {
  kotoba bench ops --device "$DEVICE" --peer torch --deadline $((PART_SECONDS - 40)) \
    --output "$OUT/$(stem)-ops.json" ${OPS_OPTIONS:-}
}

part_bench_encode() {
  local full=(--files t5_f16,t5_q8_0,t5_q4_k,clip_l_f16,clip_g_f16 --tokens 512 --batches 1,8,64)
  simulated && full=(--files clip_l_f16,t5_q4_k --tokens 13 --batches 1,2 --size tiny)
  kotoba bench encode --device "$DEVICE" --peer torch --runs 5 --precisions fp32,bf16,fp16 \
    "${full[@]}" --deadline $((PART_SECONDS - 90)) --output "$OUT/$(stem)-encode.json" ${ENCODE_OPTIONS:-}
}

# The steps are timed beside PyTorch with bf16 alone, so that all models fit on the card; then the other precisions.
part_bench_generate() {
  local full=(--files flux_q8_0 --size 1024x1024 --steps 4) more=(--files flux_f16,flux_q4_k --size 1024x1024 --steps 4)
  local sd1=(--files sd1_f16 --size 512x512 --steps 20 --cfg 7)
  simulated && full=(--files flux_q8_0 --file-size tiny --size 32x32) && more=(--files flux_q4_k --file-size tiny --size 32x32) &&
    sd1=(--files sd1_f16 --file-size tiny --size 64x64)
  kotoba bench generate --device "$DEVICE" --peer torch --runs 3 --precisions bf16 "${full[@]}" \
    --output "$OUT/$(stem)-generate.json" ${GENERATE_OPTIONS:-} || return 1
  kotoba bench generate --device "$DEVICE" --runs 3 --precisions bf16 "${more[@]}" \
    --output "$OUT/$(stem)-generate-files.json" ${GENERATE_OPTIONS:-} || return 1
  kotoba bench generate --device "$DEVICE" --runs 3 --precisions fp16,fp32 "${sd1[@]}" \
    --output "$OUT/$(stem)-generate-sd1.json" ${GENERATE_OPTIONS:-}
}

part_profile() {
  local log=$OUT/profile
  if ! command -v ncu >/dev/null; then
    simulated && { echo "nothing to profile on a simulated device"; return 0; }
    echo "device: ncu is not on PATH" >&2
    return 1
  fi
  # The clocks stay as they are: the card is shared with whoever comes next.
  ncu --clock-control none --target-processes all --section SpeedOfLight --section Occupancy --section LaunchStats \
    --section WarpStateStats --section MemoryWorkloadAnalysis --force-overwrite --export "$log" \
    node bin/kotoba.js bench ops --device "$DEVICE" --check --filter "$PROFILE" || return 1
  ncu --import "$log.ncu-rep" --page raw --csv >"$log.csv" && python3 bench/profile_table.py "$log.csv"
}

part_report() {
  local reports
  reports=$(ls "$OUT"/*-ops.json "$OUT"/*-encode.json "$OUT"/*-generate*.json 2>/dev/null)
  [ -n "$reports" ] || { echo "device: no reports in $OUT" >&2; return 1; }
  kotoba bench goals $reports >"$OUT/goals.md" && kotoba bench plot $reports --out "$OUT/page.html" && cat "$OUT/goals.md"
}

# ---- running them

run_part() {
  local name=$1 start=$SECONDS code=0
  echo "==== $name"
  "part_${name//-/_}" > >(tee "$OUT/logs-$name.txt") 2>&1 || code=$?
  wait "$!" 2>/dev/null # tee has written all
  summary+=("$(printf '%-15s %-7s %4d s' "$name" "$([ $code = 0 ] && echo ok || echo FAILED)" $((SECONDS - start)))")
  return $code
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || { sed -n '2,25p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
[ "${parts[0]}" = all ] && parts=(build test sanitize bench-ops bench-encode bench-generate profile report)
for name in "${parts[@]}"; do
  [ "$(type -t "part_${name//-/_}")" = function ] || { echo "device: no part '$name'" >&2; exit 2; }
done
prepare || exit 1
simulated || nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,utilization.gpu --format=csv

status=0
for name in "${parts[@]}"; do
  run_part "$name" || status=1
  [ "$name" = build ] && [ $status != 0 ] && break # nothing runs without it
done
printf '\n%s\n' "---- summary"
printf '%s\n' "${summary[@]}"
exit $status

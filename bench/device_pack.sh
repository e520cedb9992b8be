#!/usr/bin/env bash
# Packs what a bare GPU machine lacks (Node, the packages that tests need, the compiled TypeScript) into .device/, which
# git ignores: it travels beside the working tree, and bench/device.sh unpacks it there.
#
#   bench/device_pack.sh                 here, after npm run build:ts
#   OUT=out bench/device.sh build …      there, with .device carried along (as `carry: [".device"]`, say)
#
# The tree and .device together may be as large as KOTOBA_CARRY_LIMIT bytes (default 64 MiB); it says what they are.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=${KOTOBA_CARRY_LIMIT:-67108864}
folder=.device
[ -d dist/bench ] || { echo "device_pack: dist is missing: npm run build:ts" >&2; exit 1; }
mkdir -p "$folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Stripped and packed as x86 code, Node's 95 MB become 21.
node=$(readlink -f "$(command -v node)")
mark="$(sha256sum "$node" | cut -c1-16)"
if [ "$(cat "$folder/node.mark" 2>/dev/null)" != "$mark" ]; then
  echo "packing $node ($(node --version))"
  mkdir -p "$scratch/bin"
  cp "$node" "$scratch/bin/node"
  strip -s "$scratch/bin/node"
  tar -C "$scratch" -cf - bin | xz --x86 --lzma2=preset=9 -T1 >"$folder/node.tar.xz"
  echo "$mark" >"$folder/node.mark"
fi

# Tools that only a workplace needs, and what is only read by people, stay.
left=(typescript @typescript @types prettier cmake-js node-gyp undici undici-types tar minipass yargs exponential-backoff)
excluded=()
for name in "${left[@]}"; do excluded+=("--exclude=node_modules/$name"); done
tar "${excluded[@]}" --exclude='node_modules/lightningcss*' --exclude='*.map' --exclude='*.d.ts' --exclude='*.md' --exclude='*.d.mts' --exclude='*.d.cts' \
  -cf - node_modules dist | xz --x86 --lzma2=preset=9 -T1 >"$folder/packages.tar.xz"
git describe --always --dirty --abbrev=12 >"$folder/commit" 2>/dev/null || echo unknown >"$folder/commit"

tree=$(git ls-files -co --exclude-standard -z | du -cb --files0-from=- | tail -1 | cut -f1)
carried=$(du -cb "$folder"/* | tail -1 | cut -f1)
echo "tree $tree + $folder $carried = $((tree + carried)) bytes of $limit"
[ $((tree + carried)) -le "$limit" ] || { echo "device_pack: more than the limit" >&2; exit 1; }

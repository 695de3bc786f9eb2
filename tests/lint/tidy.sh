#!/usr/bin/env bash
# clang-tidy over the product code of a configured build folder; any finding fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:?build folder with compile_commands.json}
mapfile -t files < <(git ls-files '*.c' | grep -E '^(base|schema|kernels|coordinator|worker|analysis)/')
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -quiet -p "$build" 2>/dev/null
echo "clang-tidy: ${#files[@]} files clean"

#!/usr/bin/env bash
# Benchmark: gpu-short
# Items of 72 shared tokens and four endings of 24 (as HellaSwag), scored items a second, ours against transformers in batches
# of 64 x 96 tokens: the same random checkpoint, tokens and loss. Needs a GPU, and python3 with torch and transformers.
#   bench_gpu_short.sh BIN [SHAPE...]   (default: 70m 1.4b)
set -euo pipefail
bin=$(realpath "$1"); shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
[ $# -gt 0 ] || set -- 70m 1.4b
declare -A goal=([70m]=3 [410m]=2 [1.4b]=2 [6.9b]=2)
for shape in "$@"; do
    python3 "$here/gpu_usual.py" make "$shape" "$dir/m" "$dir/ids" 2>/dev/null
    ours=$("$bin/bench_cuda_model" short "$dir/m" "$dir/ids")
    theirs=$(python3 "$here/gpu_usual.py" short "$dir/m" "$dir/ids" 2>/dev/null)
    rm -rf "$dir/m"
    printf '%s\n%s\n' "$ours" "$theirs"
    python3 "$here/gpu_ratio.py" gpu-short "$shape" items_per_second "${goal[$shape]}" "$ours" "$theirs"
done

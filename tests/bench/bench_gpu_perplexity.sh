#!/usr/bin/env bash
# Benchmark: gpu-perplexity
# 8 windows of 2,048 tokens with log-likelihoods, ours against transformers (fp16, sdpa) in the same run: the same random
# checkpoint, the same tokens, the same loss. Needs a GPU, and python3 with torch and transformers.
#   bench_gpu_perplexity.sh BIN [SHAPE...]   SHAPE: 70m 410m 1b 1.4b 2.8b 6.9b (default: 70m 410m 1.4b)
set -euo pipefail
bin=$(realpath "$1"); shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
[ $# -gt 0 ] || set -- 70m 410m 1.4b
declare -A goal=([70m]=2 [410m]=1.5 [1b]=1.3 [1.4b]=1.3 [2.8b]=1.2 [6.9b]=1.2)
for shape in "$@"; do
    python3 "$here/gpu_usual.py" make "$shape" "$dir/m" "$dir/ids" 2>/dev/null
    ours=$("$bin/bench_cuda_model" perplexity "$dir/m" "$dir/ids")
    theirs=$(python3 "$here/gpu_usual.py" perplexity "$dir/m" "$dir/ids" 2>/dev/null)
    rm -rf "$dir/m"
    printf '%s\n%s\n' "$ours" "$theirs"
    python3 "$here/gpu_ratio.py" gpu-perplexity "$shape" tokens_per_second "${goal[$shape]}" "$ours" "$theirs"
done

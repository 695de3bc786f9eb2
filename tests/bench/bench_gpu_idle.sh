#!/usr/bin/env bash
# Benchmark: gpu-idle
# The 226 configurations of sweeps/paper.yaml on one random checkpoint of pythia-410m's shapes, perplexity of 65,536 tokens each:
# how often the checkpoint was read, and what share of the time the GPU had nothing to do. Needs a GPU, CUPTI, and python3 with
# torch and transformers, which make the checkpoint.
#   bench_gpu_idle.sh BIN [SHAPE [TOKENS]]
set -euo pipefail
bin=$(realpath "$1") shape=${2:-410m} tokens=${3:-65536}
here=$(cd "$(dirname "$0")" && pwd)
shared=${ISOBIT_SHARED:-$here/../../../shared}
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 "$here/gpu_usual.py" make "$shape" "$dir/m" "$dir/ids" "$shared/data/tokenizers/gpt-neox-20b-tokenizer.json" 2>/dev/null
{
    printf 'name: idle\ncompute: fp16\nmodels:\n  - {family: pythia, sizes: ["%s"], path: m}\n' "$shape"
    sed -n '/^configurations:/,/^exclude:/p' "$here/../../sweeps/paper.yaml" | sed '/^exclude:/d'
    printf 'evaluations:\n  - {task: perplexity, data: %s, window: 2048, max_tokens: %s}\n' \
        "$(realpath "$shared/data/heldout_420k.txt")" "$tokens"
} >"$dir/idle.yaml"
"$bin/bench_cuda_idle" "$dir/idle.yaml"

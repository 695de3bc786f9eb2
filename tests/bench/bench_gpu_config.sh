#!/usr/bin/env bash
# Benchmark: gpu-config
# A whole configuration of pythia-410m's shapes: quantize, perplexity and four real task files (from ISOBIT_SHARED), ours with
# the checkpoint resident against the usual loop: load with transformers, quantize in torch, score length-sorted batches, the
# best of batch sizes 16, 64, 256. Needs a GPU, and python3 with torch, transformers and tokenizers.
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
shared=${ISOBIT_SHARED:-$here/../../../shared}
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 "$here/gpu_usual.py" make 410m "$dir/m" "$dir/ids" "$shared/data/tokenizers/gpt-neox-20b-tokenizer.json" 2>/dev/null
ours=$("$bin/bench_cuda_model" config "$dir/m" "$shared")
printf '%s\n' "$ours"
theirs=$(python3 "$here/gpu_usual.py" config "$dir/m" "$shared" 2>/dev/null)
printf '%s\n' "$theirs"
python3 "$here/gpu_ratio.py" gpu-config 410m seconds 5 "$ours" "$theirs"

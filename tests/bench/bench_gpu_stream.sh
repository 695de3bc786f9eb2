#!/usr/bin/env bash
# Benchmark: gpu-stream
# Layer by layer within a quarter of the checkpoint against resident, by FLOP: the largest OPT shape whose file the memory-backed
# folder holds (30b: 60 GB), streamed with ten configurations in a pass, against pythia-6.9b's shape held whole. Random weights.
# Goal: 0.6. Needs a GPU.
#   bench_gpu_stream.sh BIN [SHAPE]   SHAPE: 30b 20b 13b (default: the largest that fits)
set -euo pipefail
bin=$(realpath "$1")
dir=$(mktemp -d /dev/shm/isobit-stream-XXXXXX); trap 'rm -rf "$dir"' EXIT
room=$(df --output=avail -B1 /dev/shm | tail -1)
memory=$(awk '/MemAvailable/ {printf "%d", $2 * 1024}' /proc/meminfo)
[ "$memory" -ge "$room" ] || room=$memory
shape=${2:-}
if [ -z "$shape" ]; then
    shape=13b
    [ "$room" -le 45000000000 ] || shape=20b
    [ "$room" -le 66000000000 ] || shape=30b
fi
"$bin/bench_cuda_stream" make 6.9b "$dir/m" >/dev/null
whole=$("$bin/bench_cuda_stream" resident "$dir/m"); rm -rf "$dir/m"
bytes=$("$bin/bench_cuda_stream" make "$shape" "$dir/m")
streamed=$("$bin/bench_cuda_stream" stream "$dir/m" $((bytes / 4)) 10 3)
printf '%s\n%s\n' "$whole" "$streamed"
value() { sed -n "s/.*\"tflops\": \([0-9.]*\).*/\1/p" <<<"$1"; }
awk -v s="$(value "$streamed")" -v r="$(value "$whole")" -v shape="$shape" -v machine="$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)" \
    -v commit="${ISOBIT_BENCH_COMMIT:-unknown}" 'BEGIN {
    printf "{\"name\": \"gpu-stream\", \"value\": %.1f, \"unit\": \"TFLOP/s of %s streamed\", \"against\": \"6.9b resident\", \"against_value\": %.1f, \"ratio\": %.3f, \"limit\": \"goal\", \"limit_value\": 0.6, \"of_limit\": %.3f, \"machine\": \"%s\", \"commit\": \"%s\"}\n", s, shape, r, s / r, s / r / 0.6, machine, commit}'

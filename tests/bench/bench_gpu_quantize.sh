#!/usr/bin/env bash
# Benchmark: gpu-quantize
# Quantize-dequantize of 537 million weights (4 bytes a weight) for every data type beside a device copy of the same weights,
# and the time of a quantile codebook of 50 million weights. Needs a GPU.
set -euo pipefail
out=$("$1/bench_cuda" quantize)
printf '%s\n' "$out"
printf '%s\n' "$out" | awk '
    /^copy:/ { copy = $2 }
    /^(int|float)/ { v = $5; if (least == "" || v < least) least = v }
    /^quantile codebook/ { ms = $(NF - 1) }
    END { printf "{\"benchmark\": \"gpu-quantize\", \"least_int_float_tb_s\": %s, \"goal\": 3.2, \"limit\": %s, \"codebook_ms\": %s}\n", least, copy, ms }'

#!/usr/bin/env bash
# Benchmark: gpu-quantize
# Quantize-dequantize of 537 million weights (4 bytes a weight) for every data type and k beside a device copy of the same weights,
# and the time of a quantile codebook of 50 million weights. Needs a GPU.
set -euo pipefail
out=$("$1/bench_cuda" quantize)
printf '%s\n' "$out"
printf '%s\n' "$out" | awk '
    /^copy:/ { copy = $2 }
    /^(int|float) +[3-8]/ { v = $5; if (least == "" || v < least) least = v }
    /^(dynamic|nf|quantile) +[3-8] +block +[1-9]/ { v = $5; if (other == "" || v < other) other = v }
    /^quantile codebook/ { ms = $(NF - 1) }
    END { printf "{\"benchmark\": \"gpu-quantize\", \"least_int_float_tb_s\": %s, \"goal\": 3.2, \"least_other_tb_s\": %s, \"goal_other\": 1.5, \"limit\": %s, \"codebook_ms\": %s}\n", least, other, copy, ms }'

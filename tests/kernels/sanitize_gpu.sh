#!/usr/bin/env bash
# The GPU tests under compute-sanitizer, in their short form; fails on a finding. Needs a GPU and the toolkit's compute-sanitizer.
#   tests/kernels/sanitize_gpu.sh BIN [SECONDS]    BIN: build/cuda/bin; SECONDS: most for each run (default 900)
#
# What is left out, and why (docs/CUDA.md): calls that a test makes to see them refused; cuBLASLt's products under racecheck, in
# whose kernels the tool sees hazards or dies; its newest ones under synccheck, which do not end there; under initcheck the
# results of products, since the tool does not see stores of the tensor memory copier, ours or cuBLASLt's.
set -uo pipefail
bin=${1:?usage: sanitize_gpu.sh BIN [SECONDS]} limit=${2:-900}
tool=$(command -v compute-sanitizer) || { echo "sanitize_gpu.sh: compute-sanitizer is not in PATH; it comes with the CUDA toolkit" >&2; exit 4; }
export ISOBIT_TEST_SHORT=1
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT

# run TOOL "PROGRAM [PART...]" TOOL-OPTION...: all at once, since they wait for the tool on the CPU most of the time. Says what
# came of it.
run() {
    local name="$1 $2" file="$dir/$1 $2" kind=$1 program=$2 status=0 said; shift 2
    # shellcheck disable=SC2086 # the program's parts are words
    timeout "$limit" "$tool" --error-exitcode 9 --print-limit 10 --tool "$kind" "$@" "$bin"/$program >"$file" 2>&1 || status=$?
    case $status in
        0) said=$(grep -E 'SUMMARY' "$file" | tail -1) ;;
        124) said="not finished within $limit s: $(tail -1 "$file")" ;;
        *) said=$(printf 'status %d\n' "$status"; grep -E '^=========' "$file" | head -40) ;;
    esac
    printf '%-34s %4d s  %s\n' "$name" "$SECONDS" "$said"
    [ $status = 0 ] || touch "$dir/failed"
}

for program in test_cuda test_cuda_quant; do
    run memcheck "$program" --report-api-errors no &
    run synccheck "$program" --kernel-name-exclude kns=nvjet &
done
for part in rows tiles attention scores; do
    run racecheck "test_cuda $part" &
done
run racecheck test_cuda_quant &
run initcheck test_cuda_quant &
wait
[ ! -e "$dir/failed" ]

#!/usr/bin/env bash
# The GPU tests under compute-sanitizer, in their short form; fails on a finding. Needs a GPU and the toolkit's compute-sanitizer.
#   tests/kernels/sanitize_gpu.sh BIN [SECONDS]    BIN: build/cuda/bin; SECONDS: most for each run (default 900)
#
# What is left out, and why (docs/CUDA.md): calls that a test makes to see them refused; cuBLASLt's own kernels under racecheck,
# which reports hazards inside them on bare products too; under initcheck the products' results, since the tool does not see
# stores of the tensor memory copier, ours or cuBLASLt's: it looks at the quantizers.
set -uo pipefail
bin=${1:?usage: sanitize_gpu.sh BIN [SECONDS]} limit=${2:-900}
tool=$(command -v compute-sanitizer) || { echo "sanitize_gpu.sh: compute-sanitizer is not in PATH; it comes with the CUDA toolkit" >&2; exit 4; }
export ISOBIT_TEST_SHORT=1
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT

# run FILE PROGRAM TOOL-OPTION...: all at once, since they wait for the tool on the CPU most of the time
run() {
    local file=$dir/$1 program=$2; shift 2
    timeout "$limit" "$tool" --error-exitcode 9 --print-limit 10 "$@" "$bin/$program" >"$file" 2>&1
    echo $? >"$file.status"
}

for program in test_cuda test_cuda_quant; do
    run "memcheck $program" "$program" --tool memcheck --report-api-errors no &
    run "racecheck $program" "$program" --tool racecheck --kernel-name-exclude kns=nvjet &
    run "synccheck $program" "$program" --tool synccheck &
done
run "initcheck test_cuda_quant" test_cuda_quant --tool initcheck &
wait

failed=0
for status in "$dir"/*.status; do
    file=${status%.status}
    printf '%-28s %s\n' "$(basename "$file")" "$(grep -E 'SUMMARY' "$file" | tail -1)"
    case $(cat "$status") in
        0) ;;
        124) echo "  not finished within $limit s"; failed=1 ;;
        *) grep -E '^=========' "$file" | head -40; failed=1 ;;
    esac
done
exit $failed

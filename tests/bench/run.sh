#!/usr/bin/env bash
# run.sh NAME: builds what the benchmark NAME needs (release build) and runs it; its last line is one JSON object with the measured
# value, what it was measured against in the same run, and the limit. run.sh --list names the benchmarks.
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A program=()
for f in tests/bench/bench_*.c; do
    name=$(sed -n 's/^ *\* *Benchmark: *\([a-z0-9-]*\).*/\1/p' "$f" | head -1)
    [ -z "$name" ] || program[$name]=$(basename "$f" .c)
done
for f in tests/bench/bench_*.sh; do
    [ -f "$f" ] || continue
    name=$(sed -n 's/^# *Benchmark: *\([a-z0-9-]*\).*/\1/p' "$f" | head -1)
    [ -z "$name" ] || program[$name]=$f
done
if [ "${1:-}" = --list ] || [ $# = 0 ]; then
    printf '%s\n' "${!program[@]}" | sort
    exit 0
fi
target=${program[$1]-}
[ -n "$target" ] || { echo "run.sh: no benchmark '$1'; see run.sh --list" >&2; exit 2; }
if grep -qs gpu_usual.py "$target" && # which says nothing itself: transformers talks too much for that
    ! python3 -c 'import sys, torch, transformers; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "run.sh: $1 needs a GPU, and a python3 whose torch and transformers see it" >&2
    exit 4
fi
cmake/install-deps.sh --test
cuda=OFF # the module is built for the benchmarks that use it
[[ $1 != *cuda* && $1 != gpu-* ]] || cuda=ON
cmake --preset release -DISOBIT_TESTS=ON -DISOBIT_CUDA=$cuda >/dev/null
export ISOBIT_BENCH_COMMIT=$(git rev-parse --short HEAD)
if [[ $target == *.sh ]]; then
    cmake --build --preset release >/dev/null
    exec bash "$target" build/release/bin "${@:2}"
fi
cmake --build --preset release --target "$target" >/dev/null
exec "build/release/tests/$target" "${@:2}"

#!/usr/bin/env bash
# Installs what is missing, builds and runs all tests.
#   test.sh            everything: warnings as errors with gcc and clang, all tests, sanitizers, format, static analysis
#   test.sh --quick    gcc build and its tests only
# The CUDA module is not part of it: cmake --preset cuda builds it, ctest --test-dir build/cuda -R cuda
# tests it on a GPU.
set -euo pipefail
cd "$(dirname "$0")"
cmake/install-deps.sh --test

step() { printf '\n== %s\n' "$*"; }
run_tests() { ctest --test-dir "build/$1" -j"$(nproc)" --output-on-failure --no-tests=error "${@:2}"; }

step "gcc build, warnings are errors, all tests"
cmake --preset dev -DCMAKE_BUILD_TYPE=RelWithDebInfo -DISOBIT_CUDA=OFF >/dev/null
cmake --build --preset dev
run_tests dev
[ "${1:-}" != --quick ] || exit 0

step "clang build, warnings are errors"
CC=clang cmake -S . -B build/clang -G Ninja -DISOBIT_WERROR=ON -DISOBIT_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
cmake --build build/clang

step "address, undefined-behaviour and leak sanitizers: unit tests, fuzz corpora, command lines"
cmake --preset asan -DISOBIT_CUDA=OFF >/dev/null
cmake --build --preset asan
run_tests asan -E '^(lint|integration)\.'

step "thread sanitizer: the tests that use several threads or processes"
cmake --preset tsan -DISOBIT_CUDA=OFF >/dev/null
cmake --build --preset tsan
run_tests tsan -R '^integration\.(serve|drain|ahead)$'

step "static analysis"
tests/lint/tidy.sh build/dev

#!/usr/bin/env bash
# From a fresh machine to a scaling-law report: installs what is missing, builds, runs sweeps/demo.yaml with local workers.
# Interrupt it and start it again: it goes on where it stopped. Further arguments go to `isobit run`.
set -euo pipefail
cd "$(dirname "$0")"
cmake/install-deps.sh --run
[ -f build/release/build.ninja ] || cmake --preset release -DISOBIT_TESTS=OFF -DISOBIT_CUDA=OFF >/dev/null
cmake --build --preset release
exec build/release/bin/isobit run sweeps/demo.yaml "$@"

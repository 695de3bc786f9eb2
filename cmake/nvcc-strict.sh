#!/usr/bin/env bash
# Compiles, and fails where the assembler makes asynchronous products (wgmma) wait for each other (ptxas C7510 and on): it only
# says so in passing, results stay right, and attention or our products lose a good part of their speed.
#   nvcc-strict.sh COMPILER ARGUMENT...
said=$("$@" 2>&1); status=$?
[ -z "$said" ] || printf '%s\n' "$said" >&2
if grep -q 'wgmma.mma_async instructions are serialized' <<<"$said"; then
    echo "nvcc-strict.sh: products wait for each other; the loop around them, or what the compiler knows of its lanes, must change" >&2
    exit 1
fi
exit "$status"

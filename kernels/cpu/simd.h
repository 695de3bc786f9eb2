/* How hot loops get the vector width of the machine they run on: ISOBIT_CLONES in front of a function compiles it
 * for several instruction sets and lets the loader choose. All of them give the same bits: no operation is
 * reordered or contracted. */
#ifndef ISOBIT_KERNELS_CPU_SIMD_H
#define ISOBIT_KERNELS_CPU_SIMD_H

#include <features.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define ISOBIT_SANITIZED 1
#endif
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define ISOBIT_SANITIZED 1
#endif

/* Clones are chosen by an ifunc resolver, which runs before a sanitizer's own start-up and needs glibc. */
#if defined __x86_64__ && defined __GLIBC__ && !defined ISOBIT_SANITIZED
#define ISOBIT_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define ISOBIT_CLONES
#endif

#endif

/* vec.h for AVX-512: sixteen lanes; a tile of 12 x 16 takes 12 of 32 registers. */
#include "kernels/cpu/vec.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <stddef.h>

/* Vector types have no other spelling. */
typedef float vec __attribute__((vector_size(64)));
typedef int32_t veci __attribute__((vector_size(64)));

#define VEC_LANES  16
#define VEC_TILE   12
#define VEC_FN     static __attribute__((target("avx512f,fma")))
#define VEC_INLINE static inline __attribute__((always_inline, target("avx512f,fma")))

#define VEC_SPLAT(f)     _mm512_set1_ps(f)
#define VEC_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define VEC_MAX(a, b)    _mm512_max_ps((a), (b))
#define VEC_MIN(a, b)    _mm512_min_ps((a), (b))
#define VEC_MERGE_LOW(a, b)                                                                        \
    __builtin_shufflevector((a), (b), 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define VEC_MERGE_HIGH(a, b)                                                                       \
    __builtin_shufflevector((a), (b), 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

#include "kernels/cpu/vec_body.h"

const struct vec_ops vec_ops_avx512 = VEC_OPS_TABLE("avx512");

#endif

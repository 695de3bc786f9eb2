/* vec.h for AVX2 with FMA: eight lanes; a tile of 6 x 16 takes 12 of 16 registers. */
#include "kernels/cpu/vec.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <stddef.h>

/* Vector types have no other spelling. */
typedef float vec __attribute__((vector_size(32)));
typedef int32_t veci __attribute__((vector_size(32)));

#define VEC_LANES  8
#define VEC_TILE   6
#define VEC_FN     static __attribute__((target("avx2,fma")))
#define VEC_INLINE static inline __attribute__((always_inline, target("avx2,fma")))

#define VEC_SPLAT(f)         _mm256_set1_ps(f)
#define VEC_FMA(a, b, c)     _mm256_fmadd_ps((a), (b), (c))
#define VEC_MAX(a, b)        _mm256_max_ps((a), (b))
#define VEC_MIN(a, b)        _mm256_min_ps((a), (b))
#define VEC_MERGE_LOW(a, b)  __builtin_shufflevector((a), (b), 0, 8, 1, 9, 2, 10, 3, 11)
#define VEC_MERGE_HIGH(a, b) __builtin_shufflevector((a), (b), 4, 12, 5, 13, 6, 14, 7, 15)

#include "kernels/cpu/vec_body.h"

const struct vec_ops vec_ops_avx2 = VEC_OPS_TABLE("avx2");

#endif

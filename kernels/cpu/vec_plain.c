/* vec.h for any machine: four lanes (SSE2, NEON), products and sums rounded one by one. Also the place where the
 * table is chosen. */
#include "kernels/cpu/vec.h"

#include <stddef.h>

/* Vector types have no other spelling. */
typedef float vec __attribute__((vector_size(16)));
typedef int32_t veci __attribute__((vector_size(16)));

#define VEC_LANES  4
#define VEC_TILE   3
#define VEC_FN     static
#define VEC_INLINE static inline __attribute__((always_inline))

#define VEC_SPLAT(f)     ((vec){(f), (f), (f), (f)})
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#define VEC_SELECT(mask, a, b)                                                                     \
    ((vec)(((veci)(a) & (mask)) | ((veci)(b) & ~(mask)))) /* no blend in plain vectors */
#define VEC_MAX(a, b)        VEC_SELECT((a) > (b), (a), (b))
#define VEC_MIN(a, b)        VEC_SELECT((a) < (b), (a), (b))
#define VEC_MERGE_LOW(a, b)  __builtin_shufflevector((a), (b), 0, 4, 1, 5)
#define VEC_MERGE_HIGH(a, b) __builtin_shufflevector((a), (b), 2, 6, 3, 7)

#include "kernels/cpu/vec_body.h"

const struct vec_ops vec_ops_plain = VEC_OPS_TABLE("plain");

const struct vec_ops *vec_select(bool may_avx512)
{
#ifdef __x86_64__
    if (may_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"))
        return &vec_ops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &vec_ops_avx2;
#endif
    (void)may_avx512;
    return &vec_ops_plain;
}

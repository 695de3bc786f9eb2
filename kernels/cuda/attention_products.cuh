/* The products of attention on Hopper (wgmma): scores, both sides in shared memory, and values, whose weights are in registers and
 * whose right side has its columns along the row. Outputs of a warpgroup of 64 rows: d[n / 8][4], of row lane / 4 of the warp's 16 the
 * columns 8 j + 2 (lane % 4) and the next in d[j][0] and d[j][1], of the row 8 below in d[j][2] and d[j][3]. */
#ifndef ISOBIT_KERNELS_CUDA_ATTENTION_PRODUCTS_CUH
#define ISOBIT_KERNELS_CUDA_ATTENTION_PRODUCTS_CUH

#include "kernels/cuda/gemm_hopper.cuh"

#if GEMM_HAS_HOPPER
#define WGMMA_4(d, i)    "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_16(d, i)   WGMMA_4(d, i), WGMMA_4(d, i + 1), WGMMA_4(d, i + 2), WGMMA_4(d, i + 3)
#define WGMMA_OUT_64(d)  WGMMA_16(d, 0), WGMMA_16(d, 4)
#define WGMMA_OUT_80(d)  WGMMA_OUT_64(d), WGMMA_4(d, 8), WGMMA_4(d, 9)
#define WGMMA_OUT_96(d)  WGMMA_OUT_64(d), WGMMA_16(d, 8)
#define WGMMA_OUT_128(d) WGMMA_OUT_96(d), WGMMA_16(d, 12)
#define WGMMA_OUT_256(d)                                                                           \
    WGMMA_OUT_128(d), WGMMA_16(d, 16), WGMMA_16(d, 20), WGMMA_16(d, 24), WGMMA_16(d, 28)
#define WGMMA_LIST_64                                                                              \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"   \
    "%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_LIST_80 WGMMA_LIST_64 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define WGMMA_LIST_96 WGMMA_LIST_80 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_LIST_128                                                                             \
    WGMMA_LIST_96 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_LIST_256                                                                             \
    WGMMA_LIST_128 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82," \
                   "%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,"     \
                   "%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,"   \
                   "%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
/* d[64, n] (+)= a[64, 16] b[16, n]; a in shared memory, both with k along the row. */
#define WGMMA_SHARED(type, n, list, a_at, b_at, sum_at)                                            \
    "{\n.reg .pred p;\nsetp.ne.b32 p, " sum_at ", 0;\n"                                            \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" list "}, " a_at ", " b_at  \
    ", p, 1, 1, 0, 0;\n}\n"
/* d[64, n] += a[64, 16] b[16, n]; a in registers, b with n along the row. */
#define WGMMA_REGISTERS(type, n, list, a_at, b_at)                                                 \
    "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"                                                     \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" list "}, {" a_at           \
    "}, " b_at ", p, 1, 1, 1;\n}\n"

template <typename E> struct wgmma;

/* One overload for each width n of the output: d[n / 8][4]. */
#define WGMMA_SCORES(type, n, a_at, b_at, sum_at)                                                  \
    static __device__ __forceinline__ void scores(float(&d)[n / 8][4], uint64_t a, uint64_t b,     \
                                                  int is_sum)                                      \
    {                                                                                              \
        asm volatile(WGMMA_SHARED(type, #n, WGMMA_LIST_##n, a_at, b_at, sum_at)                    \
                     : WGMMA_OUT_##n(d)                                                            \
                     : "l"(a), "l"(b), "r"(is_sum));                                               \
    }
#define WGMMA_VALUES(type, n, a_at, b_at)                                                          \
    static __device__ __forceinline__ void values(float(&d)[n / 8][4], const uint32_t *a,          \
                                                  uint64_t b)                                      \
    {                                                                                              \
        asm volatile(WGMMA_REGISTERS(type, #n, WGMMA_LIST_##n, a_at, b_at)                         \
                     : WGMMA_OUT_##n(d)                                                            \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
#define WGMMA_OF(E, type)                                                                          \
    template <> struct wgmma<E> {                                                                  \
        WGMMA_SCORES(type, 64, "%32", "%33", "%34")                                                \
        WGMMA_SCORES(type, 128, "%64", "%65", "%66")                                               \
        WGMMA_VALUES(type, 64, "%32,%33,%34,%35", "%36")                                           \
        WGMMA_VALUES(type, 80, "%40,%41,%42,%43", "%44")                                           \
        WGMMA_VALUES(type, 96, "%48,%49,%50,%51", "%52")                                           \
        WGMMA_VALUES(type, 128, "%64,%65,%66,%67", "%68")                                          \
        WGMMA_VALUES(type, 256, "%128,%129,%130,%131", "%132")                                     \
    };

WGMMA_OF(__half, "f16")
WGMMA_OF(__nv_bfloat16, "bf16")

/* Keeps the compiler from moving work on products' outputs over a wait. */
template <int N> static __device__ __forceinline__ void outputs_settle(float (&d)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : WGMMA_4(d, i)::"memory");
}
#endif /* GEMM_HAS_HOPPER */

#endif

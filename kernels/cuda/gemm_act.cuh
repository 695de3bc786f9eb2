/* Activations in fp32 of several values at once, whose chains of operations fill each other's waits. NaN stays NaN. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_ACT_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_ACT_CUH

#include "kernels/cuda/cuda_util.cuh"

/* 2^x to 2 units in the last place; what is below the smallest normal number is 0. */
static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ float relu(float x)
{
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
    return y;
}

/* x Phi(x) = max(x, 0) - a h, h = erfc(a / sqrt 2) / 2 = 2^(a P(a) - 1), a = |x|, where h is next to nothing at most 5.7 or
 * 6. P for fp32 is the cpu backend's (docs/ENGINE.md says how it was made) in base 2: an error of 1e-7 |x|. P for 16-bit
 * results has the least error of a h, with a weight of 1e-3 a at least, by iterated least squares: 7e-7 |x|, and 2e-4
 * of h where that is small. Of all numbers of fp16, 104 come out one unit beside the rounded exact value. */
template <bool IS_FP32, int N> static __device__ __forceinline__ void gelu_erf(float (&x)[N])
{
    constexpr double log2_e = 1.4426950408889634;
    constexpr float most = IS_FP32 ? 5.65685425F : 6.0F;
    constexpr float c[] = {(float)(2.576926964e-7 * log2_e),  (float)(-5.256182968e-6 * log2_e),
                           (float)(4.419971635e-5 * log2_e),  (float)(-1.741019333e-4 * log2_e),
                           (float)(-2.788671781e-5 * log2_e), (float)(4.840225181e-3 * log2_e),
                           (float)(-3.636304135e-2 * log2_e), (float)(-3.183038361e-1 * log2_e),
                           (float)(-7.978850021e-1 * log2_e), -1.0F};
    float a[N], p[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        a[i] = fminf(fabsf(x[i]), most);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (IS_FP32) {
            p[i] = c[0];
#pragma unroll
            for (int k = 1; k < (int)(sizeof c / sizeof *c); k++)
                p[i] = fmaf(p[i], a[i], c[k]);
        } else { /* in pairs: a shorter chain */
            const float square = a[i] * a[i];
            p[i] = fmaf(3.13756088e-5F, a[i], -7.4224907e-4F);
            p[i] = fmaf(p[i], square, fmaf(7.95078857e-3F, a[i], -5.31479298e-2F));
            p[i] = fmaf(p[i], square, fmaf(-4.5900896e-1F, a[i], -1.15111765F));
            p[i] = fmaf(p[i], a[i], -1.0F);
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = fmaf(-a[i], exp2_fast(p[i]), relu(x[i]));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
template <int N> static __device__ __forceinline__ void gelu_tanh(float (&x)[N])
{
    constexpr double scale = -1.5957691216057308 * 1.4426950408889634;
    float u[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        u[i] = x[i] * fmaf(x[i] * x[i], (float)(0.044715 * scale), (float)scale);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = __fdividef(x[i], 1.0F + exp2_fast(u[i]));
}

template <typename E, kern_act ACT, int N>
static __device__ __forceinline__ void activate(float (&x)[N])
{
    if (ACT == KERN_ACT_RELU)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = relu(x[i]);
    if (ACT == KERN_ACT_GELU_ERF)
        gelu_erf<sizeof(E) == sizeof(float)>(x);
    if (ACT == KERN_ACT_GELU_TANH)
        gelu_tanh(x);
}

#endif

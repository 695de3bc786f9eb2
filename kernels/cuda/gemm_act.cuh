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

/* x Phi(x) = max(x, 0) - a h, h = erfc(a / sqrt 2) / 2 = 2^(a P(a) - 1), a = |x|.
 * fp32: P is the cpu backend's (docs/ENGINE.md says how it was made) in base 2, an error of 1e-7 |x|; beyond a = 5.7 h is next
 * to nothing.
 * 16 bit: beside products an instruction costs what it takes, so P is short: the least error of a h in units of the last
 * place of fp16 (a linear program over a = 0 .. 6.2), 0.16 units. Of all numbers of fp16, 1.4 % come out one unit beside the
 * rounded exact value. Its exponent falls beyond 6 too, so that finite values need no bound. */
template <bool IS_FP32> static __device__ __forceinline__ float gelu_exponent(float a)
{
    constexpr double log2_e = 1.4426950408889634;
    constexpr float wide[] = {(float)(-5.256182968e-6 * log2_e),
                              (float)(4.419971635e-5 * log2_e),
                              (float)(-1.741019333e-4 * log2_e),
                              (float)(-2.788671781e-5 * log2_e),
                              (float)(4.840225181e-3 * log2_e),
                              (float)(-3.636304135e-2 * log2_e),
                              (float)(-3.183038361e-1 * log2_e),
                              (float)(-7.978850021e-1 * log2_e),
                              -1.0F};
    constexpr float narrow[] = {6.042689085e-3F, -4.9034830183e-2F, -4.6286636591e-1F,
                                -1.14994549751F, -1.0F};
    float p = IS_FP32 ? (float)(2.576926964e-7 * log2_e) : -3.41222534e-4F;
    if (IS_FP32)
#pragma unroll
        for (float c : wide)
            p = fmaf(p, a, c);
    else
#pragma unroll
        for (float c : narrow)
            p = fmaf(p, a, c);
    return p;
}

template <bool IS_FP32, bool IS_FINITE, int N>
static __device__ __forceinline__ void gelu_erf(float (&x)[N])
{
    constexpr float most = IS_FP32 ? 5.65685425F : 6.0F;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float a = IS_FINITE && !IS_FP32 ? fabsf(x[i]) : fminf(fabsf(x[i]), most);
        x[i] = fmaf(-a, exp2_fast(gelu_exponent<IS_FP32>(a)), relu(x[i]));
    }
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

/* IS_FINITE: of sums, not of 16-bit numbers, which may have overflown to an infinity. */
template <typename E, kern_act ACT, bool IS_FINITE, int N>
static __device__ __forceinline__ void activate(float (&x)[N])
{
    if (ACT == KERN_ACT_RELU)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = relu(x[i]);
    if (ACT == KERN_ACT_GELU_ERF)
        gelu_erf<sizeof(E) == sizeof(float), IS_FINITE>(x);
    if (ACT == KERN_ACT_GELU_TANH)
        gelu_tanh(x);
}

#endif

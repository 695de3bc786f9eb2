/* quant_vec.h in plain C: the definition, one element at a time. */
#include "kernels/cpu/f16.h"
#include "kernels/cpu/quant_vec.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

static float value_of(const struct quant_run *r, uint8_t code, float m, float mean)
{
    /* A block of zeros gives +0, whatever the sign of its entry. */
    float x = m > 0 ? r->book->v[code] * m + mean : 0 + mean;
    return r->is_fp32 ? x : f32_round_to_f16(x);
}

void quant_plain_write(const struct quant_run *r, int start, int end, float m, float mean)
{
    for (int i = start; i < end; i++) {
        float t = m > 0 ? f16_to_f32(r->y[i]) / m : 0;
        uint8_t code = book_find(r->book, t);
        if (r->codes != NULL)
            r->codes[i] = code;
        if (r->out != NULL)
            r->out[i] = value_of(r, code, m, mean);
    }
}

static void maxima(const uint16_t *y, int n, int block, uint16_t *max)
{
    for (int start = 0; start < n; start += block, max++) {
        int end = n - start < block ? n : start + block;
        int most = 0;
        for (int i = start; i < end; i++) {
            int mag = y[i] & F16_MAGNITUDE;
            most = mag > most ? mag : most;
        }
        *max = (uint16_t)most;
    }
}

static void write_run(const struct quant_run *r)
{
    int b = 0;
    for (int start = 0; start < r->n; start += r->block, b++) {
        int end = r->n - start < r->block ? r->n : start + r->block;
        quant_plain_write(r, start, end, f16_to_f32(r->max[b]), r->mean[b]);
    }
}

static double sum(const uint16_t *y, int n)
{
    double total = 0;
    for (int i = 0; i < n; i++)
        total += (double)f16_to_f32(y[i]);
    return total;
}

/* A binary32 difference rounded again is the correctly rounded one, because 24 >= 2 * 11 + 2 (Figueroa 1995). */
static void subtract(const uint16_t *w, float mean, int n, uint16_t *y)
{
    for (int i = 0; i < n; i++)
        y[i] = f32_to_f16(f16_to_f32(w[i]) - mean);
}

const struct quant_vec quant_vec_plain = {
    .name = "plain",
    .maxima = maxima,
    .write = write_run,
    .sum = sum,
    .subtract = subtract,
};

const struct quant_vec *quant_vec_select(void)
{
#ifdef __x86_64__
    /* clang 14 does not know F16C by name. */
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool has_f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
    if (__builtin_cpu_supports("avx2") && has_f16c)
        return &quant_vec_avx2;
#endif
    return &quant_vec_plain;
}

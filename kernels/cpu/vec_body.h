/* The loops of vec.h, written in terms of macros that the including file defines for its instruction set:
 *   vec, veci            (types) vector of VEC_LANES floats, and of as many int32_t
 *   VEC_LANES            4, 8 or 16
 *   VEC_FN, VEC_INLINE   qualifiers of a function: static, with the target attribute
 *   VEC_FMA(a, b, c)     a * b + c
 *   VEC_MAX(a, b), VEC_MIN(a, b)
 *   VEC_TILE             3, 6 or 12: rows of a register tile, so that VEC_TILE * 16 / VEC_LANES accumulators, one
 *                        broadcast and the tile's other operand fit the registers
 * GCC's vector operators do the rest. Included once by each vec_*.c, never elsewhere. */
#ifndef ISOBIT_KERNELS_CPU_VEC_BODY_H
#define ISOBIT_KERNELS_CPU_VEC_BODY_H

#ifndef VEC_LANES
#error "vec_body.h is included by vec_plain.c, vec_avx2.c and vec_avx512.c only"
#endif

#include <math.h>
#include <string.h>

enum { PER_TILE = VEC_QUERIES / VEC_LANES };

VEC_INLINE vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

VEC_INLINE void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

VEC_INLINE vec splat(float f)
{
    return (vec){0} + f;
}

/* The first n < VEC_LANES floats of p, the rest `fill`. */
VEC_INLINE vec load_part(const float *p, int64_t n, float fill)
{
    float part[VEC_LANES];
    for (int64_t i = 0; i < VEC_LANES; i++)
        part[i] = i < n ? p[i] : fill;
    return load(part);
}

VEC_INLINE void store_part(float *p, vec v, int64_t n)
{
    float part[VEC_LANES];
    store(part, v);
    memcpy(p, part, (size_t)n * sizeof(float));
}

VEC_INLINE float sum_lanes(vec v)
{
    float part[VEC_LANES];
    store(part, v);
    for (int half = VEC_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            part[i] += part[i + half];
    return part[0];
}

/* e^x to 1 unit in the last place on [-87, 88], clamped outside. x = n ln 2 + r with |r| <= ln 2 / 2; the
 * polynomial is the Remez minimax of (e^r - 1 - r) / r^2, degree 4, relative error of the whole 3.1e-9.
 * Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, from where a shift takes it into
 * the exponent. ln 2 is split so that n * LN2_HI is exact. */
VEC_INLINE vec exp_vec(vec x)
{
    const float to_integer = 12582912.0F;
    x = VEC_MAX(x, splat(-87.0F));
    x = VEC_MIN(x, splat(88.0F));
    vec shifted = VEC_FMA(x, splat(1.44269504F), splat(to_integer));
    vec n = shifted - to_integer;
    vec r = VEC_FMA(n, splat(-0.693359375F), x);
    r = VEC_FMA(n, splat(2.12194440e-4F), r);
    vec p = VEC_FMA(r, splat(0.001381449627F), splat(0.008368780278F));
    p = VEC_FMA(p, r, splat(0.04166839378F));
    p = VEC_FMA(p, r, splat(0.1666652011F));
    p = VEC_FMA(p, r, splat(0.4999999341F));
    p = VEC_FMA(p * r, r, r) + 1.0F;
    return (vec)((veci)p + ((veci)shifted << 23));
}

/* x * Phi(x) through h = erfc(|x| / sqrt 2) / 2 = e^(-z^2) * P(t), t = 1 / (1 + 0.45 z), z = |x| / sqrt 2. P is the
 * minimax (Lawson) fit of erfcx(z) / 2, degree 7 without constant term, error of h 2e-9 before rounding. In
 * single precision |error| <= 2e-7 |x|; 1 - h never cancels, so the negative tail stays accurate too. */
VEC_INLINE vec gelu_erf_vec(vec x)
{
    vec z = VEC_MAX(x, -x) * 0.70710678F;
    vec t = 1.0F / VEC_FMA(z, splat(0.45F), splat(1.0F));
    vec p = VEC_FMA(t, splat(4.554404236e-2F), splat(-2.435687263e-1F));
    p = VEC_FMA(p, t, splat(4.218156859e-1F));
    p = VEC_FMA(p, t, splat(-1.809492819e-1F));
    p = VEC_FMA(p, t, splat(2.261053535e-1F));
    p = VEC_FMA(p, t, splat(1.017081929e-1F));
    p = VEC_FMA(p, t, splat(1.293447316e-1F));
    vec h = exp_vec(-(z * z)) * (p * t);
    /* x >= 0: x - x h; x < 0: x h. */
    return VEC_MAX(x, splat(0.0F)) - VEC_MAX(x, -x) * h;
}

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
VEC_INLINE vec gelu_tanh_vec(vec x)
{
    vec cubic = VEC_FMA(x * x * x, splat(0.044715F), x);
    return x / (1.0F + exp_vec(cubic * -1.59576912F));
}

VEC_INLINE vec act_vec(vec x, enum kern_act act)
{
    switch (act) {
    case KERN_ACT_NONE:
        break;
    case KERN_ACT_RELU:
        return VEC_MAX(x, splat(0.0F));
    case KERN_ACT_GELU_ERF:
        return gelu_erf_vec(x);
    case KERN_ACT_GELU_TANH:
        return gelu_tanh_vec(x);
    }
    return x;
}

VEC_INLINE void bias_act_row(float *y, int64_t n, const float *bias, enum kern_act act)
{
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec x = load(y + i);
        store(y + i, act_vec(bias != NULL ? x + load(bias + i) : x, act));
    }
    if (i < n) {
        vec x = load_part(y + i, n - i, 0.0F);
        if (bias != NULL)
            x += load_part(bias + i, n - i, 0.0F);
        store_part(y + i, act_vec(x, act), n - i);
    }
}

VEC_FN void bias_act(float *y, int64_t ldy, int64_t m, int64_t n, const float *bias,
                     enum kern_act act)
{
    /* One loop per activation: the choice must not sit inside the loop over elements. */
    for (int64_t r = 0; r < m; r++) {
        float *row = y + r * ldy;
        switch (act) {
        case KERN_ACT_NONE:
            bias_act_row(row, n, bias, KERN_ACT_NONE);
            break;
        case KERN_ACT_RELU:
            bias_act_row(row, n, bias, KERN_ACT_RELU);
            break;
        case KERN_ACT_GELU_ERF:
            bias_act_row(row, n, bias, KERN_ACT_GELU_ERF);
            break;
        case KERN_ACT_GELU_TANH:
            bias_act_row(row, n, bias, KERN_ACT_GELU_TANH);
            break;
        }
    }
}

/* Mean and variance in double: their rounding then vanishes beside that of the fp32 output. */
VEC_FN void layernorm(float *y, const float *x, const float *w, const float *b, float eps,
                      int64_t d)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++)
        sum += x[i];
    const double mean = sum / (double)d;
    double squares = 0.0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < d; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    const double scale = 1.0 / sqrt(squares / (double)d + (double)eps);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        float unit = (float)((x[i] - mean) * scale);
        float scaled = w != NULL ? unit * w[i] : unit;
        y[i] = b != NULL ? scaled + b[i] : scaled;
    }
}

/* out[r][16] = sum over i < n of a[r * lane + i * step] * b[i][16] for r < rows <= VEC_TILE; `rows` is a constant
 * at each call, so that the accumulators stay in registers. */
VEC_INLINE void tile_rows(const int rows, int64_t n, const float *a, int64_t lane, int64_t step,
                          const float *b, float *out)
{
    vec acc[VEC_TILE][PER_TILE];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            acc[r][v] = splat(0.0F);
    for (int64_t i = 0; i < n; i++) {
        vec row[PER_TILE];
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            row[v] = load(b + i * VEC_QUERIES + v * VEC_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vec x = splat(a[r * lane + i * step]);
#pragma GCC unroll 4
            for (int v = 0; v < PER_TILE; v++)
                acc[r][v] = VEC_FMA(x, row[v], acc[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            store(out + r * VEC_QUERIES + v * VEC_LANES, acc[r][v]);
}

#define TILE_CASE(count)                                                                           \
    case count:                                                                                    \
        tile_rows(count, n, a, lane, step, b, out);                                                \
        break;

VEC_INLINE void tile_any(int rows, int64_t n, const float *a, int64_t lane, int64_t step,
                         const float *b, float *out)
{
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
#if VEC_TILE > 3
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
#endif
#if VEC_TILE > 6
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
#endif
    }
}

/* scores[key][query] = k . q, whole tiles of keys first. */
VEC_INLINE void attend_scores(const struct vec_attend *a)
{
    int64_t hd = a->head_dim, j = 0;
    for (; j + VEC_TILE <= a->n_keys; j += VEC_TILE)
        tile_rows(VEC_TILE, hd, a->k + j * hd, hd, 1, a->q, a->scores + j * VEC_QUERIES);
    if (j < a->n_keys)
        tile_any((int)(a->n_keys - j), hd, a->k + j * hd, hd, 1, a->q, a->scores + j * VEC_QUERIES);
}

/* Keys that some lanes do not see yet get `value` there. */
VEC_INLINE void attend_mask(const struct vec_attend *a, float value)
{
    for (int64_t j = a->n_common; j < a->n_keys; j++)
        for (int64_t l = 0; l <= j - a->n_common; l++)
            a->scores[j * VEC_QUERIES + l] = value;
}

/* Turns scores into e^(score - maximum of the column), with the columns' sums. Sums are gathered in runs of keys:
 * their rounding error grows with the run's length plus the number of runs, not with their product. */
VEC_INLINE void attend_softmax(const struct vec_attend *a)
{
    enum { RUN = 32 };
    vec top[PER_TILE], sum[PER_TILE];
    for (int v = 0; v < PER_TILE; v++) {
        top[v] = splat(-INFINITY);
        sum[v] = splat(0.0F);
    }
    if (a->slope != NULL)
        for (int64_t j = 0; j < a->n_keys; j++)
            for (int v = 0; v < PER_TILE; v++) {
                float *s = a->scores + j * VEC_QUERIES + v * VEC_LANES;
                store(s, load(s) + *a->slope * (float)j);
            }
    attend_mask(a, -INFINITY);
    for (int64_t j = 0; j < a->n_keys; j++)
        for (int v = 0; v < PER_TILE; v++)
            top[v] = VEC_MAX(top[v], load(a->scores + j * VEC_QUERIES + v * VEC_LANES));
    for (int64_t j0 = 0; j0 < a->n_keys; j0 += RUN) {
        int64_t j1 = j0 + RUN < a->n_keys ? j0 + RUN : a->n_keys;
        vec run[PER_TILE];
        for (int v = 0; v < PER_TILE; v++)
            run[v] = splat(0.0F);
        for (int64_t j = j0; j < j1; j++)
            for (int v = 0; v < PER_TILE; v++) {
                float *s = a->scores + j * VEC_QUERIES + v * VEC_LANES;
                vec p = exp_vec(load(s) - top[v]);
                store(s, p);
                run[v] += p;
            }
        for (int v = 0; v < PER_TILE; v++)
            sum[v] += run[v];
    }
    attend_mask(a, 0.0F); /* e^-87 becomes a true zero */
    for (int v = 0; v < PER_TILE; v++)
        store(a->sums + v * VEC_LANES, sum[v]);
}

/* out[dim][query] = sum over keys of v[key][dim] * scores[key][query], dimensions in tiles of nearly equal size. */
VEC_INLINE void attend_values(const struct vec_attend *a)
{
    int hd = a->head_dim;
    int n_tiles = (hd + VEC_TILE - 1) / VEC_TILE;
    for (int i = 0; i < n_tiles; i++) {
        int from = hd * i / n_tiles, to = hd * (i + 1) / n_tiles;
        tile_any(to - from, a->n_keys, a->v + from, 1, hd, a->scores, a->out + from * VEC_QUERIES);
    }
}

VEC_FN void attend(const struct vec_attend *a)
{
    attend_scores(a);
    attend_softmax(a);
    attend_values(a);
}

VEC_FN float row_max(const float *x, int64_t n)
{
    vec top = splat(x[0]);
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        top = VEC_MAX(top, load(x + i));
    if (i < n)
        top = VEC_MAX(top, load_part(x + i, n - i, x[0]));
    float part[VEC_LANES];
    store(part, top);
    float best = part[0];
    for (int l = 1; l < VEC_LANES; l++)
        best = part[l] > best ? part[l] : best;
    return best;
}

VEC_FN float row_sum_exp(const float *x, int64_t n, float max)
{
    vec even = splat(0.0F), odd = splat(0.0F);
    int64_t i = 0;
    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        even += exp_vec(load(x + i) - max);
        odd += exp_vec(load(x + i + VEC_LANES) - max);
    }
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        even += exp_vec(load(x + i) - max);
    if (i < n)
        odd += exp_vec(load_part(x + i, n - i, -INFINITY) - max);
    return sum_lanes(even + odd);
}

VEC_FN struct vec_divergence row_divergence(const float *p, const float *q, int64_t n, float p_max)
{
    vec s = splat(0.0F), d = splat(0.0F);
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec x = load(p + i);
        vec w = exp_vec(x - p_max);
        s += w;
        d = VEC_FMA(w, x - load(q + i), d);
    }
    if (i < n) {
        /* Far below the maximum and equal: adds nothing to either sum. */
        vec x = load_part(p + i, n - i, p_max - 100.0F);
        vec w = exp_vec(x - p_max);
        s += w;
        d = VEC_FMA(w, x - load_part(q + i, n - i, p_max - 100.0F), d);
    }
    return (struct vec_divergence){.s = sum_lanes(s), .d = sum_lanes(d)};
}

VEC_FN void row_exp(float *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        store(y + i, exp_vec(load(x + i)));
    if (i < n)
        store_part(y + i, exp_vec(load_part(x + i, n - i, 0.0F)), n - i);
}

#define VEC_OPS_TABLE(label)                                                                       \
    {                                                                                              \
        .name = label, .attend = attend, .bias_act = bias_act, .layernorm = layernorm,             \
        .max = row_max, .sum_exp = row_sum_exp, .divergence = row_divergence, .exp = row_exp,      \
    }

#endif

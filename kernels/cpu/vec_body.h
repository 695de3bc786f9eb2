/* The loops of vec.h, written in terms of macros that the including file defines for its instruction set:
 *   vec, veci            (types) vector of VEC_LANES floats, and of as many int32_t
 *   VEC_LANES            4, 8 or 16
 *   VEC_FN, VEC_INLINE   qualifiers of a function: static, with the target attribute
 *   VEC_FMA(a, b, c)     a * b + c
 *   VEC_SPLAT(f)         f in every lane
 *   VEC_MAX(a, b), VEC_MIN(a, b)
 *   VEC_MERGE_LOW(a, b), VEC_MERGE_HIGH(a, b)   the lower and the upper halves in turns: a0 b0 a1 b1 ...
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

// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result): places in a tile of a few thousand numbers

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

/* e^x to 1 unit in the last place for x in [-87, 88]. x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is the
 * Remez minimax of (e^r - 1 - r) / r^2, degree 4, relative error of the whole 3.1e-9. Adding 1.5 * 2^23 rounds to
 * an integer and leaves it in the low bits, from where a shift takes it into the exponent. ln 2 is split so that
 * n times its first part is exact. Polynomials here are in Estrin's order: the processor overlaps only few
 * iterations of a loop, so a short chain counts more than a few multiplications. */
VEC_INLINE vec exp_inside(vec x)
{
    const float to_integer = 12582912.0F;
    vec shifted = VEC_FMA(x, VEC_SPLAT(1.44269504F), VEC_SPLAT(to_integer));
    vec n = shifted - to_integer;
    vec r = VEC_FMA(n, VEC_SPLAT(-0.693359375F), x);
    r = VEC_FMA(n, VEC_SPLAT(2.12194440e-4F), r);
    vec rr = r * r;
    vec low = VEC_FMA(r, VEC_SPLAT(0.1666652011F), VEC_SPLAT(0.4999999341F));
    vec high = VEC_FMA(r, VEC_SPLAT(0.008368780278F), VEC_SPLAT(0.04166839378F));
    high = VEC_FMA(rr, VEC_SPLAT(0.001381449627F), high);
    low = VEC_FMA(rr, high, low);
    vec p = VEC_FMA(rr, low, r) + 1.0F;
    return (vec)((veci)p + ((veci)shifted << 23));
}

/* For x <= 88: what lies below -87 gives e^-87. */
VEC_INLINE vec exp_below(vec x)
{
    return exp_inside(VEC_MAX(x, VEC_SPLAT(-87.0F)));
}

VEC_INLINE vec exp_any(vec x)
{
    return exp_below(VEC_MIN(x, VEC_SPLAT(88.0F)));
}

/* x Phi(x) = max(x, 0) - |x| h, h = erfc(|x| / sqrt 2) / 2 = e^(a P(a)) / 2, a = |x|. P is the fit (Lawson's
 * reweighted least squares, weight h^0.75) of ln erfc(a / sqrt 2) / a on [0, 4 sqrt 2], degree 8: error of h 6e-9 before
 * rounding, 8e-8 |x| in single precision, less than that of 0.5 x (1 + erff). Beyond 4 sqrt 2 h stays at 8e-9. */
VEC_INLINE vec gelu_erf_vec(vec x)
{
    vec magnitude = VEC_MAX(x, -x);
    vec a = VEC_MIN(magnitude, VEC_SPLAT(5.65685425F));
    vec a2 = a * a, a4 = a2 * a2;
    vec p01 = VEC_FMA(a, VEC_SPLAT(-3.183038361e-1F), VEC_SPLAT(-7.978850021e-1F));
    vec p23 = VEC_FMA(a, VEC_SPLAT(4.840225181e-3F), VEC_SPLAT(-3.636304135e-2F));
    vec p45 = VEC_FMA(a, VEC_SPLAT(-1.741019333e-4F), VEC_SPLAT(-2.788671781e-5F));
    vec p67 = VEC_FMA(a, VEC_SPLAT(-5.256182968e-6F), VEC_SPLAT(4.419971635e-5F));
    vec low = VEC_FMA(a2, p23, p01);
    vec high = VEC_FMA(a2, p67, p45);
    high = VEC_FMA(a4, VEC_SPLAT(2.576926964e-7F), high);
    vec e = exp_inside(a * VEC_FMA(a4, high, low));
    return VEC_FMA(magnitude * -0.5F, e, VEC_MAX(x, VEC_SPLAT(0.0F)));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
VEC_INLINE vec gelu_tanh_vec(vec x)
{
    vec cubic = VEC_FMA(x * x * x, VEC_SPLAT(0.044715F), x);
    return x / (1.0F + exp_any(cubic * -1.59576912F));
}

VEC_INLINE vec act_vec(vec x, enum kern_act act)
{
    switch (act) {
    case KERN_ACT_NONE:
        break;
    case KERN_ACT_RELU:
        return VEC_MAX(x, VEC_SPLAT(0.0F));
    case KERN_ACT_GELU_ERF:
        return gelu_erf_vec(x);
    case KERN_ACT_GELU_TANH:
        return gelu_tanh_vec(x);
    }
    return x;
}

/* `act` and `is_sum` are constants at each call: the choice must not sit inside the loop over elements. */
VEC_INLINE void finish_row(const struct vec_finish *f, int64_t r, enum kern_act act, bool is_sum)
{
    float *y = f->y + r * f->ldy;
    const float *x = f->x + r * f->ldx;
    int64_t i = 0;
    for (; i + VEC_LANES <= f->n; i += VEC_LANES) {
        vec v = load(x + i);
        v = act_vec(f->bias != NULL ? v + load(f->bias + i) : v, act);
        store(y + i, is_sum ? load(y + i) + v : v);
    }
    if (i < f->n) {
        vec v = load_part(x + i, f->n - i, 0.0F);
        if (f->bias != NULL)
            v += load_part(f->bias + i, f->n - i, 0.0F);
        v = act_vec(v, act);
        store_part(y + i, is_sum ? load_part(y + i, f->n - i, 0.0F) + v : v, f->n - i);
    }
}

VEC_FN void finish(const struct vec_finish *f)
{
    for (int64_t r = 0; r < f->m; r++) {
        switch (f->act) {
        case KERN_ACT_NONE:
            if (f->is_sum)
                finish_row(f, r, KERN_ACT_NONE, true);
            else
                finish_row(f, r, KERN_ACT_NONE, false);
            break;
        case KERN_ACT_RELU:
            finish_row(f, r, KERN_ACT_RELU, false);
            break;
        case KERN_ACT_GELU_ERF:
            finish_row(f, r, KERN_ACT_GELU_ERF, false);
            break;
        case KERN_ACT_GELU_TANH:
            finish_row(f, r, KERN_ACT_GELU_TANH, false);
            break;
        }
    }
}

/* Sum of x, or of (x - mean)^2, in double. Four quarters side by side hide the latency of the additions. */
VEC_INLINE double sum_deviations(const float *x, int64_t d, double mean, bool is_squared)
{
    const int64_t q = d / 4;
    const float *x1 = x + q, *x2 = x1 + q, *x3 = x2 + q;
    double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < q; i++) {
        double a = x[i] - mean, b = x1[i] - mean, c = x2[i] - mean, e = x3[i] - mean;
        s0 += is_squared ? a * a : a;
        s1 += is_squared ? b * b : b;
        s2 += is_squared ? c * c : c;
        s3 += is_squared ? e * e : e;
    }
    for (int64_t i = 4 * q; i < d; i++)
        s0 += is_squared ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
    return s0 + s1 + s2 + s3;
}

/* The affine part of a layer norm: y = ((x - mean) * scale - rest) * w + b, where `rest` makes up for the rounding
 * of the mean. */
struct norm_terms {
    float mean, scale, rest;
};

VEC_INLINE vec norm_vec(vec x, struct norm_terms t, vec w, vec b)
{
    return VEC_FMA(VEC_FMA(x - t.mean, VEC_SPLAT(t.scale), VEC_SPLAT(-t.rest)), w, b);
}

VEC_INLINE void norm_row(float *y, const float *x, const float *w, const float *b,
                         struct norm_terms t, int64_t d)
{
    vec one = VEC_SPLAT(1.0F), zero = VEC_SPLAT(0.0F);
    int64_t i = 0;
    for (; i + VEC_LANES <= d; i += VEC_LANES)
        store(y + i, norm_vec(load(x + i), t, w != NULL ? load(w + i) : one,
                              b != NULL ? load(b + i) : zero));
    if (i < d)
        store_part(y + i,
                   norm_vec(load_part(x + i, d - i, 0.0F), t,
                            w != NULL ? load_part(w + i, d - i, 0.0F) : one,
                            b != NULL ? load_part(b + i, d - i, 0.0F) : zero),
                   d - i);
}

/* Mean and variance in double: their rounding then vanishes beside that of the fp32 output. */
VEC_FN void layernorm(float *y, const float *x, const float *w, const float *b, float eps,
                      int64_t d)
{
    const double mean = sum_deviations(x, d, 0.0, false) / (double)d;
    const double variance = sum_deviations(x, d, mean, true) / (double)d;
    const double scale = 1.0 / sqrt(variance + (double)eps);
    const double rest = (mean - (double)(float)mean) * scale;
    norm_row(y, x, w, b,
             (struct norm_terms){.mean = (float)mean, .scale = (float)scale, .rest = (float)rest},
             d);
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
            acc[r][v] = VEC_SPLAT(0.0F);
    for (int64_t i = 0; i < n; i++) {
        vec row[PER_TILE];
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            row[v] = load(b + i * VEC_QUERIES + v * VEC_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vec x = VEC_SPLAT(a[r * lane + i * step]);
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

/* scores[key][query] = k . q, whole tiles of keys first. `hd` is a constant where it is a usual one, so that the keys of a tile
 * lie at constant distances. */
VEC_INLINE void scores_of(const struct vec_attend *a, const int64_t hd)
{
    int64_t j = 0;
    for (; j + VEC_TILE <= a->n_keys; j += VEC_TILE)
        tile_rows(VEC_TILE, hd, a->k + j * hd, hd, 1, a->q, a->scores + j * VEC_QUERIES);
    if (j < a->n_keys)
        tile_any((int)(a->n_keys - j), hd, a->k + j * hd, hd, 1, a->q, a->scores + j * VEC_QUERIES);
}

VEC_INLINE void attend_scores(const struct vec_attend *a)
{
    switch (a->head_dim) {
    case 32:
        scores_of(a, 32);
        break;
    case 64:
        scores_of(a, 64);
        break;
    case 80:
        scores_of(a, 80);
        break;
    case 128:
        scores_of(a, 128);
        break;
    default:
        scores_of(a, a->head_dim);
    }
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
#pragma GCC unroll 4
    for (int v = 0; v < PER_TILE; v++) {
        top[v] = VEC_SPLAT(-INFINITY);
        sum[v] = VEC_SPLAT(0.0F);
    }
    if (a->slope != NULL)
        for (int64_t j = 0; j < a->n_keys; j++)
#pragma GCC unroll 4
            for (int v = 0; v < PER_TILE; v++) {
                float *s = a->scores + j * VEC_QUERIES + v * VEC_LANES;
                store(s, load(s) + *a->slope * (float)j);
            }
    attend_mask(a, -INFINITY);
    for (int64_t j = 0; j < a->n_keys; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            top[v] = VEC_MAX(top[v], load(a->scores + j * VEC_QUERIES + v * VEC_LANES));
    for (int64_t j0 = 0; j0 < a->n_keys; j0 += RUN) {
        int64_t j1 = j0 + RUN < a->n_keys ? j0 + RUN : a->n_keys;
        vec run[PER_TILE];
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            run[v] = VEC_SPLAT(0.0F);
        for (int64_t j = j0; j < j1; j++)
#pragma GCC unroll 4
            for (int v = 0; v < PER_TILE; v++) {
                float *s = a->scores + j * VEC_QUERIES + v * VEC_LANES;
                vec p = exp_below(load(s) - top[v]);
                store(s, p);
                run[v] += p;
            }
#pragma GCC unroll 4
        for (int v = 0; v < PER_TILE; v++)
            sum[v] += run[v];
    }
    attend_mask(a, 0.0F); /* e^-87 becomes a true zero */
#pragma GCC unroll 4
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

/* y[VEC_LANES, ldy] = x[VEC_LANES, ldx]^T of a square of VEC_LANES rows. Merging rows i and i + VEC_LANES / 2 element by element
 * shuffles all elements of the square as one deals cards; log2 VEC_LANES such rounds transpose it. */
VEC_INLINE void transpose_square(float *y, int64_t ldy, const float *x, int64_t ldx)
{
    enum { HALF = VEC_LANES / 2 };
    vec rows[VEC_LANES], merged[VEC_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < VEC_LANES; i++)
        rows[i] = load(x + i * ldx);
#pragma GCC unroll 4
    for (int n = 1; n < VEC_LANES; n *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < HALF; i++) {
            merged[2 * i] = VEC_MERGE_LOW(rows[i], rows[i + HALF]);
            merged[2 * i + 1] = VEC_MERGE_HIGH(rows[i], rows[i + HALF]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VEC_LANES; i++)
            rows[i] = merged[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < VEC_LANES; i++)
        store(y + i * ldy, rows[i]);
}

VEC_FN void transpose(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t rows,
                      int64_t cols)
{
    const int64_t r_end = rows / VEC_LANES * VEC_LANES, c_end = cols / VEC_LANES * VEC_LANES;
    for (int64_t c = 0; c < c_end; c += VEC_LANES)
        for (int64_t r = 0; r < r_end; r += VEC_LANES)
            transpose_square(y + c * ldy + r, ldy, x + r * ldx + c, ldx);
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = c < c_end ? r_end : 0; r < rows; r++)
            y[c * ldy + r] = x[r * ldx + c];
}

VEC_FN float row_max(const float *x, int64_t n)
{
    vec top = VEC_SPLAT(x[0]);
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
    vec even = VEC_SPLAT(0.0F), odd = VEC_SPLAT(0.0F);
    int64_t i = 0;
    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        even += exp_below(load(x + i) - max);
        odd += exp_below(load(x + i + VEC_LANES) - max);
    }
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        even += exp_below(load(x + i) - max);
    if (i < n)
        odd += exp_below(load_part(x + i, n - i, -INFINITY) - max);
    return sum_lanes(even + odd);
}

VEC_FN struct vec_divergence row_divergence(const float *p, const float *q, int64_t n, float p_max)
{
    vec s = VEC_SPLAT(0.0F), d = VEC_SPLAT(0.0F);
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec x = load(p + i);
        vec w = exp_below(x - p_max);
        s += w;
        d = VEC_FMA(w, x - load(q + i), d);
    }
    if (i < n) {
        /* Far below the maximum and equal: adds nothing to either sum. */
        vec x = load_part(p + i, n - i, p_max - 100.0F);
        vec w = exp_below(x - p_max);
        s += w;
        d = VEC_FMA(w, x - load_part(q + i, n - i, p_max - 100.0F), d);
    }
    return (struct vec_divergence){.s = sum_lanes(s), .d = sum_lanes(d)};
}

VEC_FN void row_exp(float *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        store(y + i, exp_any(load(x + i)));
    if (i < n)
        store_part(y + i, exp_any(load_part(x + i, n - i, 0.0F)), n - i);
}

#define VEC_OPS_TABLE(label)                                                                       \
    {                                                                                              \
        .name = (label), .attend = attend, .finish = finish, .layernorm = layernorm,               \
        .transpose = transpose, .max = row_max, .sum_exp = row_sum_exp,                            \
        .divergence = row_divergence, .exp = row_exp,                                              \
    }

// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

#endif

/* quant_vec.h for AVX2 with F16C: eight lanes. Conversions, division, product and comparison are the machine's IEEE
 * operations, so every lane does what the plain loop does. */
#include "kernels/cpu/quant_vec.h"

#ifdef __x86_64__

#include <immintrin.h>

#include "kernels/cpu/f16.h"

#define AVX2        __attribute__((target("avx2,f16c")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2,f16c")))

enum { LANES = 8, ROUND_NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };

AVX2_INLINE __m256 load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

AVX2_INLINE uint16_t block_max(const uint16_t *y, int n)
{
    const __m256i magnitude = _mm256_set1_epi16(F16_MAGNITUDE);
    __m256i max = _mm256_setzero_si256();
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(y + i));
        max = _mm256_max_epu16(max, _mm256_and_si256(h, magnitude));
    }
    __m128i half = _mm_max_epu16(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    /* There is a horizontal minimum only. */
    __m128i ones = _mm_set1_epi16(-1);
    int most = 0xffff & ~_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(half, ones)));
    for (; i < n; i++) {
        int mag = y[i] & F16_MAGNITUDE;
        most = mag > most ? mag : most;
    }
    return (uint16_t)most;
}

AVX2 static void maxima(const uint16_t *y, int n, int block, uint16_t *max)
{
    for (int start = 0; start < n; start += block)
        *max++ = block_max(y + start, n - start < block ? n - start : block);
}

AVX2_INLINE __m256 dequantize(__m256 f, __m256 m, __m256 mean, bool is_fp32)
{
    __m256 x = _mm256_add_ps(_mm256_mul_ps(f, m), mean);
    return is_fp32 ? x : _mm256_cvtph_ps(_mm256_cvtps_ph(x, ROUND_NEAREST));
}

/* ---- up to 16 entries: four halvings of the midpoints, which fit into registers ---- */

struct small_book {
    __m256 mid7, mid3, mid11; /* broadcast */
    __m256 step3, step4;      /* mid[1, 5, 9, 13], mid[0, 2, .. 14] */
    __m256 low, high;         /* F[0..8), F[8..16) */
};

AVX2_INLINE struct small_book small_load(const struct book *b)
{
    const float *m = b->mid;
    return (struct small_book){
        .mid7 = _mm256_set1_ps(m[7]),
        .mid3 = _mm256_set1_ps(m[3]),
        .mid11 = _mm256_set1_ps(m[11]),
        .step3 = _mm256_setr_ps(m[1], m[5], m[9], m[13], 0, 0, 0, 0),
        .step4 = _mm256_setr_ps(m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]),
        .low = _mm256_loadu_ps(b->v),
        .high = _mm256_loadu_ps(b->v + LANES),
    };
}

/* 2 * code, plus 1 where t is beyond the midpoint. */
AVX2_INLINE __m256i halve(__m256i code, __m256 mid, __m256 t)
{
    __m256i is_beyond = _mm256_castps_si256(_mm256_cmp_ps(mid, t, _CMP_LT_OQ));
    return _mm256_sub_epi32(_mm256_add_epi32(code, code), is_beyond);
}

AVX2_INLINE __m256i small_find(const struct small_book *s, __m256 t)
{
    __m256 is_high = _mm256_cmp_ps(s->mid7, t, _CMP_LT_OQ);
    __m256i code = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_castps_si256(is_high));
    code = halve(code, _mm256_blendv_ps(s->mid3, s->mid11, is_high), t);
    code = halve(code, _mm256_permutevar8x32_ps(s->step3, code), t);
    return halve(code, _mm256_permutevar8x32_ps(s->step4, code), t);
}

/* F[code]; a permutation looks at three bits of an index. */
AVX2_INLINE __m256 small_value(const struct small_book *s, __m256i code)
{
    __m256 low = _mm256_permutevar8x32_ps(s->low, code);
    __m256 high = _mm256_permutevar8x32_ps(s->high, code);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

/* ---- more entries: the table of cells ---- */

AVX2_INLINE __m256i cell_find(const struct book *b, __m256 t)
{
    const __m256i rest_mask = _mm256_set1_epi32(BOOK_REST);
    __m256i u = _mm256_castps_si256(t);
    __m256i is_negative = _mm256_srai_epi32(u, 31);
    __m256i mag = _mm256_and_si256(u, _mm256_set1_epi32(INT32_MAX));
    __m256i above = _mm256_max_epi32(_mm256_sub_epi32(mag, _mm256_set1_epi32(BOOK_LOW)),
                                     _mm256_setzero_si256());
    __m256i half = _mm256_and_si256(is_negative, _mm256_set1_epi32(BOOK_CELLS));
    __m256i cell = _mm256_add_epi32(_mm256_srli_epi32(above, BOOK_SHIFT), half);
    __m256i entry = _mm256_i32gather_epi32((const int *)(const void *)b->cell, cell, 4);
    __m256i rest = _mm256_and_si256(_mm256_xor_si256(above, is_negative), rest_mask);
    __m256i is_beyond = _mm256_cmpgt_epi32(rest, _mm256_srli_epi32(entry, BOOK_SHIFT));
    __m256i shift = _mm256_and_si256(is_beyond, _mm256_set1_epi32(8));
    return _mm256_and_si256(_mm256_srlv_epi32(entry, shift), _mm256_set1_epi32(0xff));
}

/* ---- blocks ---- */

AVX2_INLINE void store_codes(uint8_t *p, __m256i code)
{
    __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
}

/* The whole vectors of elements [start, end), all of one block; returns where they end. */
AVX2_INLINE int write_vectors(const struct quant_run *r, const struct small_book *small, int start,
                              int end, float m, float mean)
{
    const struct quant_run run = *r; /* a copy that no store can change */
    const __m256 all_m = _mm256_set1_ps(m);
    const __m256 all_mean = _mm256_set1_ps(mean);
    int i = start;
    for (; i + LANES <= end; i += LANES) {
        __m256 t = _mm256_div_ps(load_f16(run.y + i), all_m);
        __m256i code = small != NULL ? small_find(small, t) : cell_find(run.book, t);
        if (run.codes != NULL)
            store_codes(run.codes + i, code);
        if (run.out == NULL)
            continue;
        __m256 f = small != NULL ? small_value(small, code)
                                 : _mm256_i32gather_ps(run.book->v, code, sizeof(float));
        _mm256_storeu_ps(run.out + i, dequantize(f, all_m, all_mean, run.is_fp32));
    }
    return i;
}

AVX2_INLINE void write_blocks(const struct quant_run *r, const struct small_book *small)
{
    int b = 0;
    for (int start = 0; start < r->n; start += r->block, b++) {
        int end = r->n - start < r->block ? r->n : start + r->block;
        float m = f16_to_f32(r->max[b]);
        int i = m > 0 ? write_vectors(r, small, start, end, m, r->mean[b]) : start;
        if (i < end)
            quant_plain_write(r, i, end, m, r->mean[b]);
    }
}

AVX2 static void write_run(const struct quant_run *r)
{
    if (r->book->n <= BOOK_SMALL) {
        struct small_book small = small_load(r->book);
        write_blocks(r, &small);
    } else if (r->book->has_cells) {
        write_blocks(r, NULL);
    } else {
        quant_vec_plain.write(r);
    }
}

AVX2 static double sum(const uint16_t *y, int n)
{
    __m256d low = _mm256_setzero_pd();
    __m256d high = _mm256_setzero_pd();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 x = load_f16(y + i);
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
    }
    double part[4];
    _mm256_storeu_pd(part, _mm256_add_pd(low, high));
    return part[0] + part[1] + part[2] + part[3] + quant_vec_plain.sum(y + i, n - i);
}

AVX2 static void subtract(const uint16_t *w, float mean, int n, uint16_t *y)
{
    __m256 all_mean = _mm256_set1_ps(mean);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m256 x = _mm256_sub_ps(load_f16(w + i), all_mean);
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(x, ROUND_NEAREST));
    }
    quant_vec_plain.subtract(w + i, mean, n - i, y + i);
}

const struct quant_vec quant_vec_avx2 = {
    .name = "avx2",
    .maxima = maxima,
    .write = write_run,
    .sum = sum,
    .subtract = subtract,
};

#endif

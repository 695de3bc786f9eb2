/* Bit accounting against both tables of the quantization spec, section 7. */
#include <criterion/criterion.h>

#include "base/check.h"
#include "schema/bits.h"

static struct config config_of(int k, int64_t block)
{
    return (struct config){.k = k, .dtype = DTYPE_int, .block = block};
}

Test(bits, nominal_bits_per_parameter_are_those_of_the_table)
{
    static const struct {
        int k;
        int64_t block;
        double pct;
        enum center center;
        double bits;
    } rows[] = {
        {4, 64, 0, CENTER_NONE, 4.25},    {4, 128, 0, CENTER_NONE, 4.125},
        {4, 256, 0, CENTER_NONE, 4.0625}, {4, 1024, 0, CENTER_NONE, 4.015625},
        {4, 64, 2, CENTER_NONE, 4.49},    {3, 64, 0, CENTER_NONE, 3.25},
        {3, 64, 2, CENTER_NONE, 3.51},    {5, 64, 0, CENTER_NONE, 5.25},
        {8, 64, 0, CENTER_NONE, 8.25},    {4, 64, 0, CENTER_BLOCK, 4.5},
        {4, 64, 0, CENTER_TENSOR, 4.25},  {4, 0, 0, CENTER_NONE, 4.015625}, /* 1,024 weights */
        {16, 64, 2, CENTER_BLOCK, 16},    {32, 64, 2, CENTER_BLOCK, 32},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config c = config_of(rows[i].k, rows[i].block);
        c.outlier_pct = rows[i].pct;
        c.center = rows[i].center;
        double got = bits_nominal_per_param(&c, 1024);
        cr_expect_float_eq(got, rows[i].bits, 1e-12, "row %zu: %.17g", i, got);
    }
}

Test(bits, kept_columns_are_a_share_rounded_half_up)
{
    static const struct {
        double pct;
        int64_t in, n;
    } rows[] = {
        {2, 64, 1},       {2, 512, 10},       {2, 768, 15},
        {2, 1024, 20},    {2, 25, 1}, /* exactly 0.5 */
        {2, 24, 0},       {0.7, 500, 4},      {1, 50, 1},
        {1, 150, 2},      {0, 4096, 0},       {-1, 64, 0},
        {100, 64, 64},    {101, 64, 64},      {4, 12288, 492}, /* 491.52 */
        {32.3, 500, 162}, {16.15, 1000, 162},                  /* halves that doubles miss */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t n = bits_n_keep(rows[i].pct, rows[i].in);
        cr_expect_eq(n, rows[i].n, "%g %% of %ld: %ld", rows[i].pct, (long)rows[i].in, (long)n);
    }
    cr_expect_eq(bits_n_keep(0.0 / 0.0, 64), 0);
}

enum family { FUSED /* qkv is one tensor */, SPLIT /* OPT */ };

static const struct model {
    const char *name;
    enum family family;
    int64_t layers, d, projection /* embedding width of opt-350m, or 0 */;
    int64_t n_total, n_linear, full, nominal;
} models[] = {
    {"gpt2", FUSED, 12, 768, 0, 124439808, 84934656, 993054720, 528869184},
    {"gpt2-medium", FUSED, 24, 1024, 0, 354823168, 301989888, 2128789504, 1507998464},
    {"gpt2-large", FUSED, 36, 1280, 0, 774030080, 707788800, 4067962880, 3289627840},
    {"gpt2-xl", FUSED, 48, 1600, 0, 1557611200, 1474560000, 7595699200, 6619847600},
    {"opt-125m", SPLIT, 12, 768, 0, 125239296, 84934656, 1005846528, 532267008},
    {"opt-350m", SPLIT, 24, 1024, 512, 331196416, 303038464, 1738440704, 1407584768},
    {"opt-1.3b", SPLIT, 24, 2048, 0, 1315758080, 1207959552, 6858604544, 5591971840},
    {"opt-2.7b", SPLIT, 32, 2560, 0, 2651596800, 2516582400, 12855705600, 11269286400},
    {"opt-6.7b", SPLIT, 32, 4096, 0, 6658473984, 6442450944, 30836785152, 28298514432},
    {"opt-13b", SPLIT, 40, 5120, 0, 12853473280, 12582912000, 57806356480, 54627261440},
    {"pythia-70m", FUSED, 6, 512, 0, 70426624, 18874368, 905052160, 299313152},
    {"pythia-160m", FUSED, 12, 768, 0, 162322944, 84934656, 1599184896, 689872512},
    {"pythia-410m", FUSED, 24, 1024, 0, 405334016, 301989888, 2936963072, 1722669568},
    {"pythia-1b", FUSED, 16, 2048, 0, 1011781632, 805306368, 6726156288, 4300071936},
    {"pythia-1.4b", FUSED, 24, 2048, 0, 1414647808, 1207959552, 8440840192, 6012253184},
    {"pythia-2.8b", FUSED, 32, 2560, 0, 2775208960, 2516582400, 14833500160, 11794638080},
    {"pythia-6.9b", FUSED, 32, 4096, 0, 6857302016, 6442450944, 34018033664, 29143533568},
    {"pythia-12b", FUSED, 36, 5120, 0, 11846072320, 11324620800, 56472862720, 50345807360},
    {"bloom-560m", FUSED, 24, 1024, 0, 559214592, 301989888, 5399052288, 2376662016},
    {"bloom-1b1", FUSED, 24, 1536, 0, 1065314304, 679477248, 9061171200, 4527585792},
    {"bloom-1b7", FUSED, 24, 2048, 0, 1722408960, 1207959552, 13365018624, 7320238080},
    {"bloom-3b", FUSED, 30, 2560, 0, 3002557440, 2359296000, 20319191040, 12760869120},
    {"bloom-7b1", FUSED, 30, 4096, 0, 7069016064, 6039797760, 42136633344, 30043318272},
};

enum { MAX_TENSORS = 6 * 48 + 2 };

/* The linear layers of a model, `pct` per cent of their columns kept. */
static int tensors_of(const struct model *m, double pct, struct bits_tensor *t)
{
    int n = 0;
    for (int64_t layer = 0; layer < m->layers; layer++) {
        if (m->family == FUSED)
            t[n++] = (struct bits_tensor){.out = 3 * m->d, .in = m->d};
        for (int i = 0; i < 3 && m->family == SPLIT; i++)
            t[n++] = (struct bits_tensor){.out = m->d, .in = m->d};
        t[n++] = (struct bits_tensor){.out = m->d, .in = m->d};
        t[n++] = (struct bits_tensor){.out = 4 * m->d, .in = m->d};
        t[n++] = (struct bits_tensor){.out = m->d, .in = 4 * m->d};
    }
    for (int i = 0; i < n; i++)
        t[i].n_keep = bits_n_keep(pct, t[i].in);
    if (m->projection > 0) {
        t[n++] = (struct bits_tensor){.out = m->d, .in = m->projection};
        t[n++] = (struct bits_tensor){.out = m->projection, .in = m->d};
    }
    return n;
}

Test(bits, published_models_have_the_totals_of_the_table)
{
    struct config c = config_of(4, 64);
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        const struct model *m = &models[i];
        struct bits_tensor t[MAX_TENSORS];
        int n = tensors_of(m, 0, t);
        int64_t n_linear = 0;
        for (int j = 0; j < n; j++)
            n_linear += t[j].out * t[j].in;
        cr_expect_eq(n_linear, m->n_linear, "%s: %ld linear", m->name, (long)n_linear);
        struct bits b = bits_of(&c, t, n, m->n_total);
        cr_expect_eq(b.total_full, m->full, "%s: T_full %ld", m->name, (long)b.total_full);
        cr_expect(b.total_nominal == (double)m->nominal, "%s: T_nominal %.3f", m->name,
                  b.total_nominal);
        cr_expect(b.per_param == 4.25, "%s: %.17g", m->name, b.per_param);
        cr_expect_eq(b.total_linear, m->n_linear / 4 * 17);
        cr_expect_eq(b.uncharged, 0);
    }
}

Test(bits, exact_sums_count_partial_blocks_means_kept_columns_and_tables)
{
    /* 7 x 100 = 700 weights: 10 whole blocks of 64 and one of 60; 2 kept columns are 14 weights. */
    struct bits_tensor t[] = {{.out = 7, .in = 100, .n_keep = 2}};
    struct config c = config_of(4, 64);
    c.dtype = DTYPE_quantile;
    struct bits b = bits_of(&c, t, 1, 1000);
    int64_t linear = 686 * 4 + 14 * 16 + 11 * 16;
    cr_expect_eq(b.total_linear, linear);
    cr_expect_eq(b.total_full, linear + 300 * 16);
    cr_expect_float_eq(b.per_param, (double)linear / 700, 1e-15);
    cr_expect_float_eq(b.total_nominal, (4 + 0.25 + 0.02 * 12) * 1000, 1e-9);
    cr_expect_eq(b.uncharged, 16 * 16 + 2 * 16);

    c.center = CENTER_TENSOR;
    cr_expect_eq(bits_of(&c, t, 1, 1000).total_linear, linear + 16);
    c.center = CENTER_BLOCK;
    cr_expect_eq(bits_of(&c, t, 1, 1000).total_linear, linear + 11 * 16);
    c.block = 0;
    cr_expect_eq(bits_of(&c, t, 1, 1000).total_linear, 686 * 4 + 14 * 16 + 2 * 16);
}

Test(bits, a_two_per_cent_share_of_narrow_layers_is_what_it_really_keeps)
{
    struct bits_tensor t[] = {{.out = 64, .in = 64, .n_keep = bits_n_keep(2, 64)}};
    struct config c = config_of(4, 64);
    struct bits b = bits_of(&c, t, 1, 64 * 64);
    cr_expect_float_eq(b.per_param, 4.25 + 12 / 64.0, 1e-12); /* 1 of 64 is 1.56 % */
    cr_expect_float_eq(b.total_nominal, (4.25 + 12 / 64.0) * 64 * 64, 1e-9);
}

Test(bits, whole_tensor_constants_are_one_for_each_tensor)
{
    struct bits_tensor t[] = {{.out = 10, .in = 30}, {.out = 10, .in = 10}};
    struct config c = config_of(3, 0);
    struct bits b = bits_of(&c, t, 2, 400);
    cr_expect_eq(b.total_linear, 400 * 3 + 2 * 16);
    cr_expect_float_eq(b.total_nominal, 400 * 3 + 2 * 16, 1e-9);
}

Test(bits, sixteen_and_thirty_two_bits_are_that_everywhere)
{
    struct bits_tensor t[] = {{.out = 10, .in = 30, .n_keep = 3}};
    for (int k = 16; k <= 32; k += 16) {
        struct config c = config_of(k, 64);
        c.dtype = DTYPE_quantile;
        c.center = CENTER_BLOCK;
        c.outlier_pct = 10;
        struct bits b = bits_of(&c, t, 1, 1000);
        cr_expect_eq(b.total_full, 1000 * k);
        cr_expect_eq(b.total_linear, 300 * k);
        cr_expect(b.total_nominal == 1000 * k && b.per_param == k);
        cr_expect_eq(b.uncharged, 0);
        b = bits_of(&c, NULL, 0, 1000);
        cr_expect_eq(b.total_full, 1000 * k);
        cr_expect_eq(b.per_param, k);
    }
}

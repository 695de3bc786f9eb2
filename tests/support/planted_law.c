#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schema/bits.h"
#include "schema/catalog.h"
#include "tests/support/planted.h"

static const char *const family_names[PLANTED_FAMILIES] = {"opt", "pythia", "gpt2", "bloom",
                                                           "bloomz"};
/* The mean of the four tasks when guessing: (0 + 50 + 25 + 50) / 4. */
static const double chance = 31.25;

struct planted planted_paper(void)
{
    return (struct planted){
        .law = {.base = 52,
                .slope = 4,
                .loss = {[3] = 5, [4] = 1.2, [5] = 0.4, [6] = 0.1, [7] = 0.02, [8] = 0},
                .weight = {[3] = 2, [4] = 1, [5] = 0.5, [6] = 0.1, [7] = 0.05, [8] = 0.02},
                .type_loss = {[DTYPE_float] = 0.1, [DTYPE_int] = 0.6, [DTYPE_dynamic] = 1.2},
                .block_loss = {[PLANTED_OPT] = 1.0,
                               [PLANTED_PYTHIA] = 2.2,
                               [PLANTED_GPT2] = 2.2,
                               [PLANTED_BLOOM] = 1.0,
                               [PLANTED_BLOOMZ] = 1.0},
                .best_exponent = {[3] = 2, [4] = 2, [5] = 2, [6] = 3, [7] = 4, [8] = 4},
                .exponent_loss = 0.45,
                .collapse = {[PLANTED_OPT] = {45, 20, 8}, [PLANTED_PYTHIA] = {45, 20, 8}},
                .outlier_gain = {[3] = 0.5, [4] = 0.05},
                .center_loss = 0.2,
                .has_tie = true,
                .tie_gap = 0.2,
                .nll_base = 2.6,
                .nats_per_point = 0.03},
        .grids = PLANTED_ALL,
        .families = (1U << PLANTED_FAMILIES) - 1,
        .max_sizes = 5,
        .max_params = 1e11,
        .linear_share = 0.998,
        .n_items = {[TASK_perplexity] = 640,
                    [TASK_lambada] = 500,
                    [TASK_winogrande] = 500,
                    [TASK_hellaswag] = 500,
                    [TASK_piqa] = 500},
        .difficulty_share = 0.95,
        .nll_difficulty = 0.3,
        .nll_noise = 0.02,
        .seed = 1,
        .has_samples = true,
    };
}

struct planted planted_full_size(void)
{
    struct planted p = planted_paper();
    p.grids = PLANTED_FULL;
    p.max_sizes = 0;
    p.n_items[TASK_lambada] = 5153;
    p.n_items[TASK_winogrande] = 1267;
    p.n_items[TASK_hellaswag] = 10042;
    p.n_items[TASK_piqa] = 1838;
    return p;
}

/* ---- models ---- */

static int family_of(const char *name)
{
    for (int i = 0; i < PLANTED_FAMILIES; i++)
        if (strcmp(family_names[i], name) == 0)
            return i;
    BUG("the catalog names a family that no law was written for");
}

static bool is_wanted(const struct planted *p, const struct model_facts *f)
{
    return (p->families >> family_of(f->family) & 1) != 0 &&
           (double)shape_n_params(&f->shape) <= p->max_params;
}

/* Of n sizes, largest first, rank `i` stays when it is one of `keep` evenly picked ones. */
static bool is_picked(int i, int n, int keep)
{
    if (keep == 0 || keep >= n)
        return true;
    for (int j = 0; j < keep; j++)
        if (i == j * (n - 1) / (keep > 1 ? keep - 1 : 1))
            return true;
    return false;
}

/* The catalog lists the sizes of a family in ascending order. */
static int count_above(const struct planted *p, int at)
{
    int n = 0;
    for (int i = at + 1; i < catalog_size(); i++)
        n += is_wanted(p, catalog_at(i)) &&
             strcmp(catalog_at(i)->family, catalog_at(at)->family) == 0;
    return n;
}

static int count_family(const struct planted *p, const char *family)
{
    int n = 0;
    for (int i = 0; i < catalog_size(); i++)
        n += is_wanted(p, catalog_at(i)) && strcmp(catalog_at(i)->family, family) == 0;
    return n;
}

struct planted_model *planted_models(const struct planted *p, struct arena *a, int *n)
{
    struct planted_model *models = arena_array(a, (size_t)catalog_size(), sizeof(*models));
    *n = 0;
    for (int i = 0; i < catalog_size(); i++) {
        const struct model_facts *f = catalog_at(i);
        if (!is_wanted(p, f))
            continue;
        int above = count_above(p, i);
        int n_family = count_family(p, f->family);
        if (!is_picked(above, n_family, p->max_sizes))
            continue;
        int rank = 0;
        for (int j = 0; j < above; j++)
            rank += is_picked(j, n_family, p->max_sizes);
        models[(*n)++] = (struct planted_model){.family = (enum planted_family)family_of(f->family),
                                                .family_name = f->family,
                                                .size = f->size,
                                                .n_params = (double)shape_n_params(&f->shape),
                                                .rank = rank};
    }
    return models;
}

/* ---- configurations ---- */

struct config_list {
    struct config *v;
    int n;
};

static void add_config(struct config_list *l, struct config c)
{
    config_normalize(&c);
    for (int i = 0; i < l->n; i++)
        if (config_equal(&l->v[i], &c))
            return;
    l->v[l->n++] = c;
}

static void add_grid(struct config_list *l, int k_from, int k_to, unsigned dtypes,
                     const int64_t *blocks, int n_blocks, struct config like)
{
    for (int k = k_from; k <= k_to; k++)
        for (int t = 0; t < DTYPE_COUNT; t++)
            for (int b = 0; b < n_blocks && (dtypes >> t & 1) != 0; b++) {
                struct config c = like;
                c.k = k;
                c.dtype = (enum dtype)t;
                c.block = blocks[b];
                add_config(l, c);
            }
}

static const unsigned good_types = 1U << DTYPE_float | 1U << DTYPE_quantile;
static const unsigned paper_types =
    1U << DTYPE_float | 1U << DTYPE_quantile | 1U << DTYPE_int | 1U << DTYPE_dynamic;
static const int64_t all_blocks[] = {64, 128, 256, 512, 1024, 0};

static void add_exponents(struct config_list *l)
{
    for (int k = 3; k <= PLANTED_MAX_K; k++)
        for (int bits = 1; bits < k; bits++) {
            struct config c = config_default();
            c.k = k;
            c.dtype = DTYPE_float;
            c.exponent_bits = bits;
            add_config(l, c);
        }
}

/* The grid of 35,030 jobs: every type, width and block, exponents, centers, and shares of kept columns. */
static void add_full(struct config_list *l)
{
    const struct config plain = config_default();
    add_grid(l, 3, PLANTED_MAX_K, paper_types, all_blocks, (int)ARRAY_LEN(all_blocks), plain);
    add_exponents(l);
    struct config centered = plain;
    centered.center = CENTER_TENSOR;
    add_grid(l, 3, PLANTED_MAX_K, paper_types, all_blocks, 1, centered);
    struct config kept = plain;
    kept.outlier_pct = 2;
    unsigned three = good_types | 1U << DTYPE_int;
    add_grid(l, 3, PLANTED_MAX_K, three, all_blocks, 1, kept);
    static const double shares[] = {1, 4, 8};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        kept.outlier_pct = shares[i];
        add_grid(l, 3, 4, three, all_blocks, 1, kept);
    }
}

struct config *planted_configs(const struct planted *p, struct arena *a, int *n)
{
    enum { MAX_CONFIGS = 400 };
    static const int64_t two_blocks[] = {64, 1024};
    struct config_list l = {.v = arena_array(a, MAX_CONFIGS, sizeof(struct config))};
    const struct config plain = config_default();
    struct config centered = plain;
    centered.center = CENTER_TENSOR;
    struct config kept = plain;
    kept.outlier_pct = 2;
    add_config(&l, plain);
    if ((p->grids & PLANTED_WIDTHS) != 0)
        add_grid(&l, 3, PLANTED_MAX_K, good_types, two_blocks, 1, plain);
    if ((p->grids & PLANTED_TYPES) != 0)
        add_grid(&l, 3, PLANTED_MAX_K, paper_types, two_blocks, 2, plain);
    if ((p->grids & PLANTED_BLOCKS) != 0)
        add_grid(&l, 3, 5, good_types, all_blocks, (int)ARRAY_LEN(all_blocks), plain);
    if ((p->grids & PLANTED_EXPONENTS) != 0)
        add_exponents(&l);
    if ((p->grids & PLANTED_OUTLIERS) != 0)
        add_grid(&l, 3, 4, good_types, two_blocks, 1, kept);
    if ((p->grids & PLANTED_CENTERS) != 0)
        add_grid(&l, 3, PLANTED_MAX_K, paper_types, two_blocks, 1, centered);
    if ((p->grids & PLANTED_FULL) != 0)
        add_full(&l);
    *n = l.n;
    return l.v;
}

struct bits planted_bits(const struct planted *p, const struct planted_model *m,
                         const struct config *c)
{
    enum { WIDTH = 4096 };
    int64_t n_total = (int64_t)m->n_params;
    int64_t rows = (int64_t)(p->linear_share * m->n_params / WIDTH);
    struct bits_tensor t = {rows, WIDTH, bits_n_keep(c->outlier_pct, WIDTH)};
    return bits_of(c, &t, 1, n_total);
}

/* ---- the law ---- */

/* Blocks of 64 lose nothing, 1024 the family's loss, in between evenly per doubling; a whole tensor as two doublings more. */
static double block_share(int64_t block)
{
    return block == 0 ? 1.5 : log2((double)block / 64) / 4;
}

static double loss_of(const struct planted_law *l, const struct planted_model *m,
                      const struct config *c)
{
    double loss = l->loss[c->k] +
                  l->weight[c->k] *
                      (l->type_loss[c->dtype] + l->block_loss[m->family] * block_share(c->block));
    if (c->dtype == DTYPE_float)
        loss += l->exponent_loss * abs(c->exponent_bits - l->best_exponent[c->k]);
    if (c->outlier_pct > 0)
        loss -= l->outlier_gain[c->k];
    if (c->k == 3 && c->outlier_pct == 0 && m->rank < 3)
        loss += l->collapse[m->family][m->rank];
    if (c->center != CENTER_NONE)
        loss += l->center_loss;
    if (m->family == PLANTED_BLOOMZ)
        loss += l->bloomz_loss;
    return loss;
}

/* What 4 bit loses more, so that 5 bit is ahead by the tie's gap at equal bits, as quantile in blocks of 64. */
static double tie_loss(const struct planted_law *l)
{
    return l->loss[5] - l->loss[4] + l->slope * log2(5.25 / 4.25) + l->tie_gap;
}

static double raw_accuracy(const struct planted *p, const struct planted_model *m,
                           const struct config *c)
{
    const struct planted_law *l = &p->law;
    double x = log2(m->n_params / 1e9);
    double raw = l->base + l->slope * x;
    if (c->k >= 16)
        return raw;
    raw += l->tilt[c->k] * x - loss_of(l, m, c);
    if (l->has_tie && c->k == 4 && m->family == PLANTED_PYTHIA)
        raw -= tie_loss(l);
    return raw;
}

double planted_accuracy(const struct planted *p, const struct planted_model *m,
                        const struct config *c)
{
    return fmax(raw_accuracy(p, m, c) + p->law.shift[m->family], chance);
}

double planted_nll(const struct planted *p, const struct planted_model *m, const struct config *c)
{
    if (p->law.has_power_law)
        return 30 * pow(m->n_params, -0.1) * pow(c->k, -0.05);
    return p->law.nll_base - p->law.nats_per_point * (raw_accuracy(p, m, c) - p->law.base);
}

/* ---- correlation ---- */

static double correlation(const struct planted *p)
{
    struct arena a = {0};
    int n_models = 0, n_configs = 0;
    struct planted_model *models = planted_models(p, &a, &n_models);
    struct config *configs = planted_configs(p, &a, &n_configs);
    double n = 0, sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
    for (int i = 0; i < n_models * n_configs; i++) {
        const struct planted_model *m = &models[i / n_configs];
        const struct config *c = &configs[i % n_configs];
        double x = planted_accuracy(p, m, c);
        double y = fmin(exp(planted_nll(p, m, c)), 100);
        n++;
        sx += x;
        sy += y;
        sxx += x * x;
        syy += y * y;
        sxy += x * y;
    }
    arena_release(&a);
    return (n * sxy - sx * sy) / sqrt((n * sxx - sx * sx) * (n * syy - sy * sy));
}

void planted_correlate(struct planted *p, double r)
{
    static const double pattern[PLANTED_FAMILIES] = {0.5, -1, -0.5, 1, 0};
    double low = 0, high = 40;
    for (int step = 0; step < 60; step++) {
        double middle = (low + high) / 2;
        for (int f = 0; f < PLANTED_FAMILIES; f++)
            p->law.shift[f] = pattern[f] * middle;
        if (correlation(p) < r)
            low = middle;
        else
            high = middle;
    }
}

/* ---- as a frame ---- */

static struct frame_row row_of(const struct planted *p, const struct planted_model *m,
                               const struct config *c)
{
    struct bits b = planted_bits(p, m, c);
    struct frame_row row = {.sweep = "planted",
                            .family = m->family_name,
                            .size = m->size,
                            .k = c->k,
                            .dtype = dtype_label(c->dtype),
                            .exponent_bits = c->exponent_bits,
                            .subnormal_shift = c->subnormal_shift,
                            .block = c->block,
                            .center = center_label(c->center),
                            .outlier_pct = c->outlier_pct,
                            .outlier_rule = outlier_rule_label(c->outlier_rule),
                            .compute = compute_label(c->compute),
                            .n_params = m->n_params,
                            .bits_per_param = b.per_param};
    row.total_bits[BITS_FULL] = (double)b.total_full;
    row.total_bits[BITS_NOMINAL] = b.total_nominal;
    row.total_bits[BITS_LINEAR] = (double)b.total_linear;
    row.metric[METRIC_ZERO_SHOT] = planted_accuracy(p, m, c) / 100;
    row.metric[METRIC_ZERO_SHOT_NORM] = row.metric[METRIC_ZERO_SHOT];
    row.metric[METRIC_NLL] = planted_nll(p, m, c);
    row.metric[METRIC_PERPLEXITY] = exp(row.metric[METRIC_NLL]);
    row.metric[METRIC_KL] = NAN;
    return row;
}

struct frame planted_frame(const struct planted *p, struct arena *a)
{
    int n_models = 0, n_configs = 0;
    struct planted_model *models = planted_models(p, a, &n_models);
    struct config *configs = planted_configs(p, a, &n_configs);
    struct frame f = {.rows =
                          arena_array(a, (size_t)n_models * (size_t)n_configs, sizeof(*f.rows))};
    for (int m = 0; m < n_models; m++)
        for (int c = 0; c < n_configs; c++) {
            bool is_out =
                p->is_left_out != NULL &&
                p->is_left_out(models[m].family_name, models[m].size, &configs[c], TASK_perplexity);
            if (!is_out)
                f.rows[f.n++] = row_of(p, &models[m], &configs[c]);
        }
    return f;
}

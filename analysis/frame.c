#include "analysis/frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schema/job.h"

static const struct metric_info metrics[] = {
#define X(id, option, column, title, is_larger_better, format)                                     \
    {option, column, title, is_larger_better, format},
    METRIC_LIST(X)
#undef X
};

const struct metric_info *metric_info_of(enum metric_id m)
{
    return &metrics[m];
}

enum metric_id metric_of_option(const char *option)
{
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++)
        if (strcmp(metrics[i].option, option) == 0)
            return (enum metric_id)i;
    BUG("metric option is checked by its table of choices");
}

static const char *const bits_options[BITS_COUNT] = {"full", "nominal", "linear"};

enum bits_id bits_of_option(const char *option)
{
    for (size_t i = 0; i < BITS_COUNT; i++)
        if (strcmp(bits_options[i], option) == 0)
            return (enum bits_id)i;
    BUG("bits option is checked by its table of choices");
}

const char *bits_title(enum bits_id b)
{
    static const char *const titles[BITS_COUNT] = {
        "Total model bits", "Total model bits (all parameters at the same width)",
        "Bits of the quantized tensors"};
    return titles[b];
}

static const char frame_sql[] =
    "SELECT sweep, family, size, k, dtype, exponent_bits, subnormal_shift, block, center, "
    "outlier_pct,"
    " outlier_rule, compute, n_params, bits_per_param, total_bits_full, total_bits_nominal,"
    " total_bits_linear, mean_zero_shot, mean_zero_shot_norm, nll, perplexity, kl_to_16bit "
    "FROM scaling WHERE total_bits_full IS NOT NULL AND (?1 = '' OR sweep = ?1) AND (?2 = '' OR "
    "family = ?2) AND (?3 = '' OR "
    "compute = ?3) "
    "ORDER BY sweep, family, n_params, size, k, dtype, exponent_bits, block, center, outlier_pct";

enum {
    FRAME_TEXT_SWEEP,
    FRAME_TEXT_FAMILY,
    FRAME_TEXT_SIZE,
    FRAME_K,
    FRAME_DTYPE,
    FRAME_EXPONENT,
    FRAME_SHIFT,
    FRAME_BLOCK,
    FRAME_CENTER,
    FRAME_OUTLIER_PCT,
    FRAME_OUTLIER_RULE,
    FRAME_COMPUTE,
    FRAME_N_PARAMS,
    FRAME_BITS_PER_PARAM,
    FRAME_TOTAL_BITS,
    FRAME_METRIC = FRAME_TOTAL_BITS + BITS_COUNT
};

struct loading {
    struct frame *frame;
    struct arena *arena;
    int capacity;
};

static const char *keep_text(struct arena *a, const struct store_row *r, int col)
{
    const char *text = store_col_text(r, col);
    return text != NULL ? arena_strdup(a, text) : NULL;
}

static enum err_code add_row(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct loading *l = arg;
    struct frame *f = l->frame;
    if (f->n == l->capacity) {
        l->capacity = l->capacity != 0 ? l->capacity * 2 : 256;
        struct frame_row *rows = arena_array(l->arena, (size_t)l->capacity, sizeof(*rows));
        if (f->n > 0)
            memcpy(rows, f->rows, (size_t)f->n * sizeof(*rows));
        f->rows = rows;
    }
    struct frame_row *row = &f->rows[f->n++];
    *row = (struct frame_row){
        .sweep = keep_text(l->arena, r, FRAME_TEXT_SWEEP),
        .family = keep_text(l->arena, r, FRAME_TEXT_FAMILY),
        .size = keep_text(l->arena, r, FRAME_TEXT_SIZE),
        .k = (int)store_col_int(r, FRAME_K),
        .dtype = keep_text(l->arena, r, FRAME_DTYPE),
        .exponent_bits = (int)store_col_int(r, FRAME_EXPONENT),
        .subnormal_shift = (int)store_col_int(r, FRAME_SHIFT),
        .block = store_col_int(r, FRAME_BLOCK), /* 'tensor' reads as 0 */
        .center = keep_text(l->arena, r, FRAME_CENTER),
        .outlier_pct =
            store_col_is_null(r, FRAME_OUTLIER_PCT) ? 0 : store_col_num(r, FRAME_OUTLIER_PCT),
        .outlier_rule = keep_text(l->arena, r, FRAME_OUTLIER_RULE),
        .compute = keep_text(l->arena, r, FRAME_COMPUTE),
        .n_params = store_col_num(r, FRAME_N_PARAMS),
        .bits_per_param = store_col_num(r, FRAME_BITS_PER_PARAM),
    };
    for (int b = 0; b < BITS_COUNT; b++)
        row->total_bits[b] = store_col_num(r, FRAME_TOTAL_BITS + b);
    for (int m = 0; m < METRIC_COUNT; m++)
        row->metric[m] = store_col_num(r, FRAME_METRIC + m);
    return ERR_OK;
}

enum err_code frame_load(struct store *s, const struct frame_filter *filter, struct arena *a,
                         struct frame *out, struct err *e)
{
    const char *params[] = {filter->sweep != NULL ? filter->sweep : "",
                            filter->family != NULL ? filter->family : "",
                            filter->compute != NULL ? filter->compute : ""};
    *out = (struct frame){0};
    struct loading l = {.frame = out, .arena = a};
    return store_query(s, frame_sql, params, ARRAY_LEN(params), add_row, &l, e);
}

static const char *text_or(const char *text, const char *def)
{
    return text != NULL ? text : def;
}

struct setting setting_of(const struct frame_row *row, struct arena *a)
{
    const char *dtype = text_or(row->dtype, "");
    if (strcmp(dtype, "float") == 0 && row->exponent_bits != config_heuristic_exponent_bits(row->k))
        dtype = arena_printf(a, "float E%d", row->exponent_bits);
    return (struct setting){
        .dtype = dtype,
        .block = row->block,
        .center = text_or(row->center, "none"),
        .outlier_pct = row->outlier_pct,
        .outlier_rule = text_or(row->outlier_rule, "previous"),
        .subnormal_shift = row->subnormal_shift,
        .compute = text_or(row->compute, "fp32"),
    };
}

bool setting_equal(const struct setting *x, const struct setting *y)
{
    return strcmp(x->dtype, y->dtype) == 0 && x->block == y->block &&
           strcmp(x->center, y->center) == 0 && x->outlier_pct == y->outlier_pct &&
           strcmp(x->outlier_rule, y->outlier_rule) == 0 &&
           x->subnormal_shift == y->subnormal_shift && strcmp(x->compute, y->compute) == 0;
}

bool setting_is_plain(const struct setting *x)
{
    return strcmp(x->center, "none") == 0 && x->outlier_pct == 0 && x->subnormal_shift == 0 &&
           strchr(x->dtype, ' ') == NULL;
}

const char *block_label(int64_t block, struct arena *a)
{
    return block == 0 ? "tensor" : arena_printf(a, "%lld", (long long)block);
}

const char *setting_label(const struct setting *x, struct arena *a)
{
    const char *label = x->block == 0
                            ? arena_printf(a, "%s, whole tensor", x->dtype)
                            : arena_printf(a, "%s, block %lld", x->dtype, (long long)x->block);
    if (strcmp(x->center, "none") != 0)
        label = arena_printf(a, "%s, centered (%s)", label, x->center);
    if (x->outlier_pct > 0)
        label = arena_printf(a, "%s, %g %% outliers%s", label, x->outlier_pct,
                             strcmp(x->outlier_rule, "previous") == 0 ? "" : " (residual)");
    if (x->subnormal_shift != 0)
        label = arena_printf(a, "%s, shift %d", label, x->subnormal_shift);
    return label;
}

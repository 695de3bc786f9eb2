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
    " total_bits_linear, mean_zero_shot, mean_zero_shot_norm, nll, perplexity, kl_to_16bit,"
    " quant_head, quant_embed, dequant, model, model_id, config_id "
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
    FRAME_METRIC = FRAME_TOTAL_BITS + BITS_COUNT,
    FRAME_QUANT_HEAD = FRAME_METRIC + METRIC_COUNT,
    FRAME_QUANT_EMBED,
    FRAME_DEQUANT,
    FRAME_MODEL,
    FRAME_MODEL_ID,
    FRAME_CONFIG_ID
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
        .quant_head = store_col_int(r, FRAME_QUANT_HEAD) != 0,
        .quant_embed = store_col_int(r, FRAME_QUANT_EMBED) != 0,
        .dequant = keep_text(l->arena, r, FRAME_DEQUANT),
        .model = keep_text(l->arena, r, FRAME_MODEL),
        .model_id = store_col_int(r, FRAME_MODEL_ID),
        .config_id = store_col_int(r, FRAME_CONFIG_ID),
    };
    for (int b = 0; b < BITS_COUNT; b++)
        row->total_bits[b] = store_col_num(r, FRAME_TOTAL_BITS + b);
    for (int m = 0; m < METRIC_COUNT; m++)
        row->metric[m] = store_col_num(r, FRAME_METRIC + m);
    return ERR_OK;
}

/* Where a row stands, to find the one that a job belongs to. */
struct place {
    const char *sweep;
    int64_t model_id, config_id;
    struct frame_row *row;
};

static int compare_place(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;
    int by_sweep = strcmp(x->sweep, y->sweep);
    if (by_sweep != 0)
        return by_sweep;
    if (x->model_id != y->model_id)
        return x->model_id < y->model_id ? -1 : 1;
    return (x->config_id > y->config_id) - (x->config_id < y->config_id);
}

struct placing {
    struct place *v; /* sorted */
    size_t n;
};

static const char cells_sql[] =
    "SELECT sweep, model_id, config_id, task, job FROM cells WHERE ?1 = '' OR sweep = ?1";

static enum err_code place_job(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct placing *p = arg;
    struct place wanted = {.sweep = store_col_text(r, 0),
                           .model_id = store_col_int(r, 1),
                           .config_id = store_col_int(r, 2)};
    const struct place *at = bsearch(&wanted, p->v, p->n, sizeof(*p->v), compare_place);
    int task = task_of(str_of(store_col_text(r, 3)));
    if (at != NULL && task >= 0)
        at->row->job[task] = store_col_int(r, 4);
    return ERR_OK;
}

static enum err_code place_jobs(struct store *s, const struct frame_filter *filter, struct arena *a,
                                struct frame *f, struct err *e)
{
    struct placing p = {.v = arena_array(a, (size_t)f->n + 1, sizeof(*p.v)), .n = (size_t)f->n};
    for (int i = 0; i < f->n; i++)
        p.v[i] = (struct place){f->rows[i].sweep, f->rows[i].model_id, f->rows[i].config_id,
                                &f->rows[i]};
    qsort(p.v, p.n, sizeof(*p.v), compare_place);
    const char *params[] = {filter->sweep != NULL ? filter->sweep : ""};
    return store_query(s, cells_sql, params, ARRAY_LEN(params), place_job, &p, e);
}

enum err_code frame_load(struct store *s, const struct frame_filter *filter, struct arena *a,
                         struct frame *out, struct err *e)
{
    const char *params[] = {filter->sweep != NULL ? filter->sweep : "",
                            filter->family != NULL ? filter->family : "",
                            filter->compute != NULL ? filter->compute : ""};
    *out = (struct frame){0};
    struct loading l = {.frame = out, .arena = a};
    TRY(store_query(s, frame_sql, params, ARRAY_LEN(params), add_row, &l, e));
    TRY(place_jobs(s, filter, a, out, e));
    for (int i = 0; i < out->n; i++) {
        struct frame_row *row = &out->rows[i];
        bool is_infinite = isnan(row->metric[METRIC_NLL]) && row->job[TASK_perplexity] != 0;
        row->raw_nll = is_infinite ? INFINITY : row->metric[METRIC_NLL];
    }
    return ERR_OK;
}

void frame_cap(struct frame *f, double perplexity)
{
    double limit = perplexity > 0 ? log(perplexity) : INFINITY;
    f->cap = perplexity;
    f->n_capped = 0;
    for (int i = 0; i < f->n; i++) {
        struct frame_row *row = &f->rows[i];
        row->is_capped = row->raw_nll > limit;
        f->n_capped += row->is_capped;
        double nll = row->is_capped ? limit : row->raw_nll;
        row->metric[METRIC_NLL] = isfinite(nll) ? nll : NAN;
        if (row->is_capped)
            row->metric[METRIC_PERPLEXITY] = perplexity;
    }
}

static const char *text_or(const char *text, const char *def)
{
    return text != NULL ? text : def;
}

/* What sets a configuration apart beside the axes of the paper; "" for the defaults. */
static const char *also_of(const struct frame_row *row, struct arena *a)
{
    bool is_fp32 = row->dequant != NULL && strcmp(row->dequant, "fp32") == 0;
    if (!row->quant_head && !row->quant_embed && !is_fp32)
        return "";
    const char *head = row->quant_head ? ", head quantized" : "";
    const char *embed = row->quant_embed ? ", embeddings quantized" : "";
    return arena_printf(a, "%s%s%s", head, embed, is_fp32 ? ", dequantized to fp32" : "");
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
        .also = also_of(row, a),
    };
}

int setting_compare(const struct setting *x, const struct setting *y)
{
    const int by[] = {
        strcmp(x->dtype, y->dtype),
        (x->block > y->block) - (x->block < y->block),
        strcmp(x->center, y->center),
        (x->outlier_pct > y->outlier_pct) - (x->outlier_pct < y->outlier_pct),
        strcmp(x->outlier_rule, y->outlier_rule),
        x->subnormal_shift - y->subnormal_shift,
        strcmp(x->compute, y->compute),
        strcmp(text_or(x->also, ""), text_or(y->also, "")),
    };
    for (size_t i = 0; i < ARRAY_LEN(by); i++)
        if (by[i] != 0)
            return by[i];
    return 0;
}

bool setting_equal(const struct setting *x, const struct setting *y)
{
    return setting_compare(x, y) == 0;
}

bool setting_is_plain(const struct setting *x)
{
    return strcmp(x->center, "none") == 0 && x->outlier_pct == 0 && x->subnormal_shift == 0 &&
           strchr(x->dtype, ' ') == NULL && text_or(x->also, "")[0] == '\0';
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
    return text_or(x->also, "")[0] != '\0' ? arena_printf(a, "%s%s", label, x->also) : label;
}

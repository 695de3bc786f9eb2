#include "schema/job.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/sha256.h"

/* ---- labels: one pair of functions for each axis, made from its list ---- */

static int label_index(const char *const *labels, int n, struct str label)
{
    for (int i = 0; i < n; i++) {
        if (str_eqz(label, labels[i]))
            return i;
    }
    return -1;
}

#define LABEL(id, label) label,
#define LABEL_FUNCTIONS(kind, COUNT, ...)                                                          \
    static const char *const kind##_labels[] = {__VA_ARGS__};                                      \
    _Static_assert(ARRAY_LEN(kind##_labels) == (COUNT), "one label for each value");               \
    const char *kind##_label(enum kind v)                                                          \
    {                                                                                              \
        CHECK((unsigned)v < (unsigned)(COUNT));                                                    \
        return kind##_labels[v];                                                                   \
    }                                                                                              \
    int kind##_of(struct str label)                                                                \
    {                                                                                              \
        return label_index(kind##_labels, (COUNT), label);                                         \
    }

LABEL_FUNCTIONS(compute, COMPUTE_COUNT, COMPUTE_LIST(LABEL))
LABEL_FUNCTIONS(center, CENTER_COUNT, CENTER_LIST(LABEL))
LABEL_FUNCTIONS(outlier_rule, OUTLIER_RULE_COUNT, OUTLIER_RULE_LIST(LABEL))
LABEL_FUNCTIONS(method, METHOD_COUNT, METHOD_LIST(LABEL))
LABEL_FUNCTIONS(join, JOIN_COUNT, JOIN_LIST(LABEL))
LABEL_FUNCTIONS(dequant, DEQUANT_COUNT, DEQUANT_LIST(LABEL))
LABEL_FUNCTIONS(job_state, JOB_STATE_COUNT, JOB_STATE_LIST(LABEL))

struct dtype_row {
    const char *label;
    int k_min, k_max;
};
static const struct dtype_row dtype_rows[] = {
#define X(id, label, k_min, k_max) {label, k_min, k_max},
#include "schema/dtype.def"
#undef X
};

struct task_row {
    const char *label;
    int choices;
    bool is_zero_shot;
};
static const struct task_row task_rows[] = {
#define X(id, label, choices, is_zero_shot, requests, tokens, shared_tokens, scored)               \
    {label, choices, is_zero_shot},
#include "schema/task.def"
#undef X
};

const char *dtype_label(enum dtype v)
{
    CHECK((unsigned)v < DTYPE_COUNT);
    return dtype_rows[v].label;
}

int dtype_of(struct str label)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (str_eqz(label, dtype_rows[i].label))
            return i;
    }
    return -1;
}

const char *task_label(enum task v)
{
    CHECK((unsigned)v < TASK_COUNT);
    return task_rows[v].label;
}

int task_of(struct str label)
{
    for (int i = 0; i < TASK_COUNT; i++) {
        if (str_eqz(label, task_rows[i].label))
            return i;
    }
    return -1;
}

int task_choices(enum task v)
{
    CHECK((unsigned)v < TASK_COUNT);
    return task_rows[v].choices;
}

bool task_is_zero_shot(enum task v)
{
    CHECK((unsigned)v < TASK_COUNT);
    return task_rows[v].is_zero_shot;
}

enum method eval_default_method(const char *data)
{
    struct str name = str_of(data);
    return str_ends(name, ".jsonl") || str_ends(name, ".jsonl.zst") ? METHOD_ROLLING
                                                                    : METHOD_STRIDED;
}

/* ---- configurations ---- */

enum { K_QUANTIZED_MAX = 8, BLOCK_DEFAULT = 64, BLOCK_MIN = 32, BLOCK_MAX = 4096 };
static const double outlier_pct_max = 50;

struct config config_default(void)
{
    return (struct config){.k = 16,
                           .dtype = DTYPE_int,
                           .block = BLOCK_DEFAULT,
                           .center = CENTER_NONE,
                           .outlier_rule = OUTLIER_RULE_PREVIOUS,
                           .dequant = DEQUANT_FP16,
                           .compute = COMPUTE_FP32};
}

int config_heuristic_exponent_bits(int k)
{
    return (k + 1) / 2;
}

int config_paper_exponent_bits(int k)
{
    return k == 3 ? 2 : 3;
}

void config_normalize(struct config *c)
{
    if (c->k > K_QUANTIZED_MAX) {
        int k = c->k;
        enum compute compute = c->compute;
        *c = config_default();
        c->k = k;
        c->compute = compute;
        return;
    }
    if (c->dtype != DTYPE_float) {
        c->exponent_bits = 0;
        c->subnormal_shift = 0;
    } else if (c->exponent_bits == 0) {
        c->exponent_bits = config_heuristic_exponent_bits(c->k);
    }
    /* Without mantissa bits there are no subnormals to shift (quantization spec 2.2). */
    if (c->exponent_bits == c->k - 1)
        c->subnormal_shift = 0;
    /* The mean of the one block that is the whole tensor is the tensor's mean. */
    if (c->block == 0 && c->center == CENTER_BLOCK)
        c->center = CENTER_TENSOR;
    if (c->outlier_pct == 0)
        c->outlier_rule = OUTLIER_RULE_PREVIOUS;
}

static bool block_is_legal(int64_t block)
{
    return block == 0 || (block >= BLOCK_MIN && block <= BLOCK_MAX && (block & (block - 1)) == 0);
}

static enum err_code validate_float(const struct config *c, struct err *e)
{
    if (c->dtype != DTYPE_float) {
        if (c->exponent_bits != 0)
            return err_set(e, ERR_FORMAT,
                           "exponent_bits: %d means nothing for dtype %s, only for float",
                           c->exponent_bits, dtype_label(c->dtype));
        if (c->subnormal_shift != 0)
            return err_set(e, ERR_FORMAT,
                           "subnormal_shift: %d means nothing for dtype %s, only for float",
                           c->subnormal_shift, dtype_label(c->dtype));
        return ERR_OK;
    }
    if (c->exponent_bits < 0 || c->exponent_bits > c->k - 1)
        return err_set(e, ERR_FORMAT,
                       "exponent_bits: %d is impossible at k: %d, where the sign leaves 1 to %d",
                       c->exponent_bits, c->k, c->k - 1);
    if (c->subnormal_shift != 0 && c->subnormal_shift != 2 && c->subnormal_shift != 4)
        return err_set(e, ERR_FORMAT, "subnormal_shift: %d is not 0, 2 or 4", c->subnormal_shift);
    return ERR_OK;
}

static enum err_code validate_enums(const struct config *c, struct err *e)
{
    if ((unsigned)c->dtype >= DTYPE_COUNT || (unsigned)c->center >= CENTER_COUNT ||
        (unsigned)c->outlier_rule >= OUTLIER_RULE_COUNT || (unsigned)c->dequant >= DEQUANT_COUNT ||
        (unsigned)c->compute >= COMPUTE_COUNT)
        return err_set(e, ERR_FORMAT, "a configuration axis holds a value without a label");
    return ERR_OK;
}

enum err_code config_validate(const struct config *c, struct err *e)
{
    TRY(validate_enums(c, e));
    if (c->k == 16 || c->k == 32)
        return ERR_OK;
    const struct dtype_row *row = &dtype_rows[c->dtype];
    if (c->k < row->k_min || c->k > row->k_max)
        return err_set(e, ERR_FORMAT, "k: %d is not 16, 32 or %d to %d, what dtype %s has", c->k,
                       row->k_min, row->k_max, row->label);
    TRY(validate_float(c, e));
    if (!block_is_legal(c->block))
        return err_set(e, ERR_FORMAT, "block: %lld is not a power of two from %d to %d, or tensor",
                       (long long)c->block, BLOCK_MIN, BLOCK_MAX);
    if (!(c->outlier_pct >= 0 && c->outlier_pct <= outlier_pct_max))
        return err_set(e, ERR_FORMAT, "outlier_pct: %g is not from 0 to %g per cent",
                       c->outlier_pct, outlier_pct_max);
    if (c->outlier_pct > 0 && c->block == 0)
        return err_set(e, ERR_FORMAT,
                       "outlier_pct: %g cannot go with block: tensor, where one constant serves "
                       "the whole tensor; expected a block size",
                       c->outlier_pct);
    return ERR_OK;
}

bool config_equal(const struct config *a, const struct config *b)
{
    return a->k == b->k && a->dtype == b->dtype && a->exponent_bits == b->exponent_bits &&
           a->subnormal_shift == b->subnormal_shift && a->block == b->block &&
           a->center == b->center && a->outlier_pct == b->outlier_pct &&
           a->outlier_rule == b->outlier_rule && a->quant_head == b->quant_head &&
           a->quant_embed == b->quant_embed && a->dequant == b->dequant && a->compute == b->compute;
}

/* ---- canonical keys ---- */

/* `|` separates fields and `%` escapes, so both are escaped; control characters would break lines. */
static void key_add_text(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "|%s=", name);
    for (const char *p = value; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '|' || c == '%' || c < 0x20 || c == 0x7f)
            buf_printf(b, "%%%02X", c);
        else
            buf_addc(b, *p);
    }
}

/* The shortest decimal that reads back as the same number, so that one value has one spelling. */
static void key_add_number(struct buf *b, const char *name, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        double back = 0;
        if (parse_f64(str_of(text), &back) && back == value)
            break;
    }
    key_add_text(b, name, text);
}

/* Defaults are omitted, so that a new axis leaves old keys as they are. */
static void key_add_int(struct buf *b, const char *name, int64_t value, int64_t def)
{
    if (value != def)
        buf_printf(b, "|%s=%lld", name, (long long)value);
}

static char *key_finish(struct buf *b, struct arena *a)
{
    char *text = arena_strndup(a, b->data != NULL ? b->data : "", b->len);
    buf_release(b);
    return text;
}

void key_of_config(const struct config *c, struct arena *a, char **head, char **tail)
{
    struct buf b = {0};
    buf_adds(&b, "v1");
    if (c->block == 0)
        buf_adds(&b, "|block=tensor");
    else
        key_add_int(&b, "block", c->block, BLOCK_DEFAULT);
    if (c->center != CENTER_NONE)
        key_add_text(&b, "center", center_label(c->center));
    if (c->compute != COMPUTE_FP32)
        key_add_text(&b, "compute", compute_label(c->compute));
    if (c->dequant != DEQUANT_FP16)
        key_add_text(&b, "dequant", dequant_label(c->dequant));
    if (c->dtype != DTYPE_int)
        key_add_text(&b, "dtype", dtype_label(c->dtype));
    key_add_int(&b, "exponent_bits", c->exponent_bits, 0);
    buf_printf(&b, "|k=%d", c->k);
    *head = key_finish(&b, a);

    if (c->outlier_pct != 0)
        key_add_number(&b, "outlier_pct", c->outlier_pct);
    if (c->outlier_rule != OUTLIER_RULE_PREVIOUS)
        key_add_text(&b, "outlier_rule", outlier_rule_label(c->outlier_rule));
    if (c->quant_embed)
        key_add_text(&b, "quant_embed", "true");
    if (c->quant_head)
        key_add_text(&b, "quant_head", "true");
    key_add_int(&b, "subnormal_shift", c->subnormal_shift, 0);
    *tail = key_finish(&b, a);
}

static const char *copy(const char *s, struct arena *a)
{
    return s != NULL ? arena_strdup(a, s) : NULL;
}

struct model_ref model_ref_copy(const struct model_ref *m, struct arena *a)
{
    return (struct model_ref){.family = copy(m->family, a),
                              .size = copy(m->size, a),
                              .name = copy(m->name, a),
                              .path = copy(m->path, a),
                              .hub = copy(m->hub, a),
                              .revision = copy(m->revision, a)};
}

struct eval_spec eval_spec_copy(const struct eval_spec *ev, struct arena *a)
{
    struct eval_spec own = *ev;
    own.name = copy(ev->name, a);
    own.data = copy(ev->data, a);
    own.data_path = copy(ev->data_path, a);
    own.subset = copy(ev->subset, a);
    return own;
}

char *eval_labels_path(const char *path)
{
    struct str s = str_of(path);
    if (str_ends(s, ".zst"))
        s.n -= strlen(".zst");
    if (str_ends(s, ".jsonl"))
        s.n -= strlen(".jsonl");
    return xasprintf("%.*s-labels.lst", (int)s.n, s.p);
}

char *key_of_model(const struct model_ref *m, struct arena *a)
{
    struct buf b = {0};
    key_add_text(&b, "model", m->name);
    return key_finish(&b, a);
}

/* The name of an evaluation is a label only: it changes no number and is no part of the key. The method of a
 * perplexity is always written, so that the rule that picks it by file name can never change an old key. */
char *key_of_eval(const struct eval_spec *ev, struct arena *a)
{
    struct buf b = {0};
    key_add_text(&b, "task", task_label(ev->task));
    if (ev->bos)
        key_add_text(&b, "task.bos", "true");
    key_add_text(&b, "task.data", ev->data);
    if (ev->join != JOIN_H26)
        key_add_text(&b, "task.join", join_label(ev->join));
    key_add_int(&b, "task.limit", ev->limit, 0);
    key_add_int(&b, "task.max_tokens", ev->max_tokens, 0);
    if (ev->task == TASK_perplexity)
        key_add_text(&b, "task.method", method_label(ev->method));
    if (ev->subset != NULL)
        key_add_text(&b, "task.subset", ev->subset);
    key_add_int(&b, "task.window", ev->window, 0);
    return key_finish(&b, a);
}

void items_identity(const struct eval_spec *ev, int64_t window, const char *data_sha256,
                    const char *tokenizer_sha256, char out[65])
{
    struct eval_spec form = *ev;
    form.data = "";
    form.limit = 0;
    if (ev->task != TASK_perplexity)
        form.window = form.max_tokens = 0;
    else if (form.window == 0)
        form.window = window;
    struct arena a = {0};
    const char *text =
        arena_printf(&a, "%s|%s%s", data_sha256, tokenizer_sha256, key_of_eval(&form, &a));
    sha256_bytes(text, strlen(text), out);
    arena_release(&a);
}

char *job_key(const struct model_ref *m, const struct config *c, const struct eval_spec *ev,
              struct arena *a)
{
    char *head = NULL;
    char *tail = NULL;
    key_of_config(c, a, &head, &tail);
    return arena_printf(a, "%s%s%s%s", head, key_of_model(m, a), tail, key_of_eval(ev, a));
}

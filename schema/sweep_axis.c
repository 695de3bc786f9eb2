#include "schema/sweep_axis.h"

#include <math.h>
#include <string.h>

#include "schema/sweep_spec.h"

struct axis_row {
    const char *key, *expected;
};
static const struct axis_row axis_rows[] = {
#define X(id, key, expected) {key, expected},
    AXIS_LIST(X)
#undef X
};

const char *axis_key(enum axis x)
{
    return axis_rows[x].key;
}

/* ---- suggestions ---- */

enum { WORD_MAX = 32 };

/* Levenshtein's distance, one row at a time; words longer than WORD_MAX are near to nothing. */
static int edit_distance(const char *a, const char *b)
{
    size_t na = strlen(a);
    size_t nb = strlen(b);
    int row[WORD_MAX + 1];
    if (na > WORD_MAX || nb > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
        }
    }
    return row[nb];
}

const char *spec_suggest(const char *word, const char *const *words, int n, struct arena *a)
{
    int best = WORD_MAX;
    const char *nearest = NULL;
    for (int i = 0; i < n; i++) {
        int d = edit_distance(word, words[i]);
        if (d < best) {
            best = d;
            nearest = words[i];
        }
    }
    size_t len = strlen(word);
    if (nearest == NULL || best > 3 || (size_t)best * 2 > len)
        return "";
    return arena_printf(a, "; did you mean %s?", nearest);
}

/* ---- values ---- */

enum { LABELS_MAX = 16 };

/* The labels of an axis that has them, in the order of its enum; 0 for a numeric axis. */
static int axis_labels(enum axis x, const char *labels[LABELS_MAX])
{
    int n = 0;
    switch (x) {
    case AXIS_DTYPE:
        for (; n < DTYPE_COUNT; n++)
            labels[n] = dtype_label((enum dtype)n);
        return n;
    case AXIS_CENTER:
        for (; n < CENTER_COUNT; n++)
            labels[n] = center_label((enum center)n);
        return n;
    case AXIS_OUTLIER_RULE:
        for (; n < OUTLIER_RULE_COUNT; n++)
            labels[n] = outlier_rule_label((enum outlier_rule)n);
        return n;
    case AXIS_DEQUANT:
        for (; n < DEQUANT_COUNT; n++)
            labels[n] = dequant_label((enum dequant)n);
        return n;
    case AXIS_COMPUTE:
        for (; n < COMPUTE_COUNT; n++)
            labels[n] = compute_label((enum compute)n);
        return n;
    case AXIS_QUANT_HEAD:
    case AXIS_QUANT_EMBED:
        labels[0] = "false";
        labels[1] = "true";
        return 2;
    case AXIS_K:
    case AXIS_EXPONENT_BITS:
    case AXIS_SUBNORMAL_SHIFT:
    case AXIS_BLOCK:
    case AXIS_OUTLIER_PCT:
    case AXIS_COUNT:
        return 0;
    }
    return 0;
}

static enum err_code parse_label(const struct spec_source *src, enum axis x, const struct node *v,
                                 const char *const *labels, int n, double *out, struct err *e)
{
    struct buf list = {0};
    for (int i = 0; i < n; i++) {
        if (strcmp(v->text, labels[i]) == 0) {
            *out = i;
            buf_release(&list);
            return ERR_OK;
        }
        buf_printf(&list, "%s%s", i == 0 ? "" : ", ", labels[i]);
    }
    enum err_code rc =
        spec_error(src, v->mark, e, "%s: expected one of %s, not \"%.40s\"%s", axis_key(x),
                   list.data, v->text, spec_suggest(v->text, labels, n, src->arena));
    buf_release(&list);
    return rc;
}

/* Whether the number is one that the axis can ever have; what goes with what is config_validate's. */
static bool number_is_legal(enum axis x, double v)
{
    struct config c = config_default();
    struct err ignored;
    if (x != AXIS_OUTLIER_PCT && v != floor(v))
        return false;
    if (v < 0 || v > 1e6)
        return false;
    if (x == AXIS_EXPONENT_BITS)
        return v >= 1 && v <= 7;
    c.k = 8;
    if (x == AXIS_SUBNORMAL_SHIFT) {
        c.dtype = DTYPE_float;
        c.exponent_bits = 1;
    }
    axis_set(&c, x, v);
    return config_validate(&c, &ignored) == ERR_OK;
}

enum err_code axis_parse(const struct spec_source *src, enum axis x, const struct node *v,
                         double *out, struct err *e)
{
    if (v->kind != NODE_SCALAR)
        return spec_error(src, v->mark, e, "%s: expected %s, or a list of such values, not a %s",
                          axis_key(x), axis_rows[x].expected, v->kind == NODE_MAP ? "map" : "list");
    const char *labels[LABELS_MAX];
    int n = axis_labels(x, labels);
    if (n > 0)
        return parse_label(src, x, v, labels, n, out, e);
    if (x == AXIS_EXPONENT_BITS && strcmp(v->text, "paper") == 0) {
        *out = EXPONENT_BITS_PAPER;
        return ERR_OK;
    }
    if (x == AXIS_BLOCK && strcmp(v->text, "tensor") == 0) {
        *out = 0;
        return ERR_OK;
    }
    double number = 0;
    bool is_number = parse_f64(str_of(v->text), &number);
    bool is_hidden_tensor =
        x == AXIS_BLOCK && is_number && number == 0; /* `tensor` is its one name */
    if (!is_number || is_hidden_tensor || !number_is_legal(x, number))
        return spec_error(src, v->mark, e, "%s: expected %s, not \"%.40s\"", axis_key(x),
                          axis_rows[x].expected, v->text);
    *out = number;
    return ERR_OK;
}

const char *axis_spell(enum axis x, double v, struct arena *a)
{
    const char *labels[LABELS_MAX];
    int n = axis_labels(x, labels);
    if (n > 0)
        return labels[(int)v];
    if (x == AXIS_BLOCK && v == 0)
        return "tensor";
    if (x == AXIS_EXPONENT_BITS && v == EXPONENT_BITS_PAPER)
        return "paper";
    return arena_printf(a, "%g", v);
}

void axis_set(struct config *c, enum axis x, double v)
{
    int i = (int)v;
    switch (x) {
    case AXIS_K:
        c->k = i;
        break;
    case AXIS_DTYPE:
        c->dtype = (enum dtype)i;
        break;
    case AXIS_EXPONENT_BITS:
        c->exponent_bits = i;
        break;
    case AXIS_SUBNORMAL_SHIFT:
        c->subnormal_shift = i;
        break;
    case AXIS_BLOCK:
        c->block = i;
        break;
    case AXIS_CENTER:
        c->center = (enum center)i;
        break;
    case AXIS_OUTLIER_PCT:
        c->outlier_pct = v;
        break;
    case AXIS_OUTLIER_RULE:
        c->outlier_rule = (enum outlier_rule)i;
        break;
    case AXIS_QUANT_HEAD:
        c->quant_head = i != 0;
        break;
    case AXIS_QUANT_EMBED:
        c->quant_embed = i != 0;
        break;
    case AXIS_DEQUANT:
        c->dequant = (enum dequant)i;
        break;
    case AXIS_COMPUTE:
        c->compute = (enum compute)i;
        break;
    case AXIS_COUNT:
        break;
    }
}

double axis_get(const struct config *c, enum axis x)
{
    switch (x) {
    case AXIS_K:
        return c->k;
    case AXIS_DTYPE:
        return c->dtype;
    case AXIS_EXPONENT_BITS:
        return c->exponent_bits;
    case AXIS_SUBNORMAL_SHIFT:
        return c->subnormal_shift;
    case AXIS_BLOCK:
        return (double)c->block;
    case AXIS_CENTER:
        return c->center;
    case AXIS_OUTLIER_PCT:
        return c->outlier_pct;
    case AXIS_OUTLIER_RULE:
        return c->outlier_rule;
    case AXIS_QUANT_HEAD:
        return c->quant_head;
    case AXIS_QUANT_EMBED:
        return c->quant_embed;
    case AXIS_DEQUANT:
        return c->dequant;
    case AXIS_COMPUTE:
        return c->compute;
    case AXIS_COUNT:
        break;
    }
    return 0;
}

bool axis_applies(const struct config *c, enum axis x)
{
    if (x == AXIS_K || x == AXIS_COMPUTE)
        return true;
    if (c->k >= 16)
        return false;
    if (x == AXIS_EXPONENT_BITS || x == AXIS_SUBNORMAL_SHIFT)
        return c->dtype == DTYPE_float;
    return x != AXIS_OUTLIER_RULE || c->outlier_pct > 0;
}

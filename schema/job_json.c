#include "schema/job_json.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* What a message may claim, far above what any model or data set needs. */
enum { ITEMS_MAX = 20 << 20, CHOICES_MAX = 64 };
static const int64_t count_max = (int64_t)1 << 53;

/* ---- writing ---- */

static void put(json_t *o, const char *key, json_t *v)
{
    CHECK(json_object_set_new(o, key, v) == 0);
}

/* Text from a file name may be no UTF-8, which JSON cannot carry: '?' stands for each byte of it then. */
static json_t *text_or_null(const char *z)
{
    if (z == NULL)
        return json_null();
    json_t *v = json_string(z);
    if (v != NULL)
        return v;
    char *ascii = xstrdup(z);
    for (char *p = ascii; *p != '\0'; p++) {
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    }
    v = json_string(ascii);
    xfree(ascii);
    return v;
}

json_t *config_to_json(const struct config *c)
{
    json_t *o = json_object();
    put(o, "k", json_integer(c->k));
    put(o, "dtype", json_string(dtype_label(c->dtype)));
    put(o, "exponent_bits", json_integer(c->exponent_bits));
    put(o, "subnormal_shift", json_integer(c->subnormal_shift));
    put(o, "block", c->block == 0 ? json_string("tensor") : json_integer(c->block));
    put(o, "center", json_string(center_label(c->center)));
    put(o, "outlier_pct", json_real(c->outlier_pct));
    put(o, "outlier_rule", json_string(outlier_rule_label(c->outlier_rule)));
    put(o, "quant_head", json_boolean(c->quant_head));
    put(o, "quant_embed", json_boolean(c->quant_embed));
    put(o, "dequant", json_string(dequant_label(c->dequant)));
    put(o, "compute", json_string(compute_label(c->compute)));
    return o;
}

json_t *model_ref_to_json(const struct model_ref *m)
{
    json_t *o = json_object();
    put(o, "family", text_or_null(m->family));
    put(o, "size", text_or_null(m->size));
    put(o, "name", text_or_null(m->name));
    put(o, "path", text_or_null(m->path));
    put(o, "hub", text_or_null(m->hub));
    put(o, "revision", text_or_null(m->revision));
    return o;
}

json_t *eval_spec_to_json(const struct eval_spec *ev)
{
    json_t *o = json_object();
    put(o, "name", text_or_null(ev->name));
    put(o, "task", json_string(task_label(ev->task)));
    put(o, "data", text_or_null(ev->data));
    put(o, "data_path", text_or_null(ev->data_path));
    put(o, "subset", text_or_null(ev->subset));
    put(o, "limit", json_integer(ev->limit));
    put(o, "window", json_integer(ev->window));
    put(o, "max_tokens", json_integer(ev->max_tokens));
    put(o, "method", json_string(method_label(ev->method)));
    put(o, "join", json_string(join_label(ev->join)));
    put(o, "bos", json_boolean(ev->bos));
    return o;
}

static json_t *bits_to_json(const struct bits *b)
{
    json_t *o = json_object();
    put(o, "per_param", json_number_or_null(b->per_param));
    put(o, "total_full", json_integer(b->total_full));
    put(o, "total_nominal", json_number_or_null(b->total_nominal));
    put(o, "total_linear", json_integer(b->total_linear));
    put(o, "uncharged", json_integer(b->uncharged));
    return o;
}

static const char stderr_suffix[] = "_stderr";

/* {"acc": 0.53, "acc_stderr": 0.01}; a metric's n stands in "metric_n" under the metric's name. */
static void put_metrics(json_t *o, const struct job_result *r)
{
    json_t *values = json_object();
    json_t *counts = json_object();
    for (int i = 0; i < r->n_metrics; i++) {
        const struct metric *m = &r->metrics[i];
        put(values, m->name, json_number_or_null(m->value));
        put(counts, m->name, json_integer(m->n));
        if (!isnan(m->stderr_)) {
            char *key = xasprintf("%s%s", m->name, stderr_suffix);
            put(values, key, json_number_or_null(m->stderr_));
            xfree(key);
        }
    }
    put(o, "metrics", values);
    put(o, "metric_n", counts);
}

json_t *job_result_to_json(const struct job_result *r)
{
    json_t *o = json_object();
    put_metrics(o, r);
    put(o, "n", json_integer(r->n));
    put(o, "tokens", json_integer(r->tokens));
    put(o, "seconds", json_number_or_null(r->seconds));
    put(o, "bits", bits_to_json(&r->bits));
    put(o, "n_params", json_integer(r->n_params));
    put(o, "n_params_linear", json_integer(r->n_params_linear));
    put(o, "weights_read", json_integer(r->weights_read));
    put(o, "n_items", json_integer(r->n_items));
    put(o, "per_item", json_integer(r->per_item));
    put(o, "device", text_or_null(r->device));
    json_t *identity = json_object();
    put(identity, "weights_sha256", json_string(r->weights_sha256));
    put(identity, "data_sha256", json_string(r->data_sha256));
    put(identity, "tokenizer_sha256", json_string(r->tokenizer_sha256));
    put(identity, "items_sha256", json_string(r->items_sha256));
    put(identity, "program", text_or_null(r->program));
    put(o, "identity", identity);
    return o;
}

static void append_int(json_t *a, int32_t v)
{
    CHECK(json_array_append_new(a, json_integer(v)) == 0);
}

/* One flat array for each item keeps 10,000 items far below a message's limit:
 * [gold, chars, bytes, tokens of choice 0, chars, bytes, tokens of choice 1, …] */
json_t *item_list_to_json(const struct item_list *l)
{
    json_t *items = json_array();
    for (int64_t i = 0; i < l->n; i++) {
        const struct item *it = &l->items[i];
        json_t *row = json_array();
        append_int(row, it->gold);
        for (int c = 0; c < it->n_choices; c++) {
            append_int(row, it->chars[c]);
            append_int(row, it->bytes[c]);
            append_int(row, it->tokens[c]);
        }
        CHECK(json_array_append_new(items, row) == 0);
    }
    json_t *o = json_object();
    put(o, "tokenizer_sha256", json_string(l->tokenizer_sha256));
    put(o, "items_sha256", json_string(l->items_sha256));
    put(o, "items", items);
    return o;
}

/* ---- reading ---- */

static enum err_code need_object(const json_t *j, const char *what, struct err *e)
{
    if (!json_is_object(j))
        return err_set(e, ERR_FORMAT, "%s: expected a JSON object", what);
    return ERR_OK;
}

static bool is_absent(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v == NULL || json_is_null(v);
}

static enum err_code opt_int(const json_t *o, const char *key, const char *what, int64_t max,
                             int64_t *out, struct err *e)
{
    return is_absent(o, key) ? ERR_OK : json_need_int(o, key, what, 0, max, out, e);
}

static enum err_code opt_small(const json_t *o, const char *key, const char *what, int *out,
                               struct err *e)
{
    int64_t v = *out;
    TRY(opt_int(o, key, what, INT_MAX, &v, e));
    *out = (int)v;
    return ERR_OK;
}

static enum err_code opt_num(const json_t *o, const char *key, const char *what, double *out,
                             struct err *e)
{
    return is_absent(o, key) ? ERR_OK : json_need_num(o, key, what, out, e);
}

static enum err_code opt_bool(const json_t *o, const char *key, const char *what, bool *out,
                              struct err *e)
{
    if (is_absent(o, key))
        return ERR_OK;
    const json_t *v = json_object_get(o, key);
    if (!json_is_boolean(v))
        return err_set(e, ERR_FORMAT, "%s: \"%s\" must be true or false", what, key);
    *out = json_is_true(v);
    return ERR_OK;
}

/* A label of one axis; `of` is that axis' dtype_of, center_of, … */
static enum err_code opt_label(const json_t *o, const char *key, const char *what,
                               int (*of)(struct str), int *out, struct err *e)
{
    if (is_absent(o, key))
        return ERR_OK;
    const char *text = NULL;
    TRY(json_need_str(o, key, what, &text, e));
    int v = of(str_of(text));
    if (v < 0)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" has no value \"%.60s\"", what, key, text);
    *out = v;
    return ERR_OK;
}

static enum err_code opt_text(const json_t *o, const char *key, const char *what, struct arena *a,
                              const char **out, struct err *e)
{
    *out = NULL;
    if (is_absent(o, key))
        return ERR_OK;
    const char *text = NULL;
    TRY(json_need_str(o, key, what, &text, e));
    *out = arena_strdup(a, text);
    return ERR_OK;
}

static enum err_code need_text(const json_t *o, const char *key, const char *what, struct arena *a,
                               const char **out, struct err *e)
{
    const char *text = NULL;
    TRY(json_need_str(o, key, what, &text, e));
    if (text[0] == '\0')
        return err_set(e, ERR_FORMAT, "%s: \"%s\" must not be empty", what, key);
    *out = arena_strdup(a, text);
    return ERR_OK;
}

static enum err_code read_block(const json_t *o, const char *what, int64_t *out, struct err *e)
{
    const json_t *v = json_object_get(o, "block");
    if (json_is_string(v) && strcmp(json_string_value(v), "tensor") == 0) {
        *out = 0;
        return ERR_OK;
    }
    return opt_int(o, "block", what, INT_MAX, out, e);
}

enum err_code config_from_json(const json_t *j, const char *what, struct config *out, struct err *e)
{
    TRY(need_object(j, what, e));
    struct config c = config_default();
    int dtype = c.dtype;
    int center = c.center;
    int rule = c.outlier_rule;
    int dequant = c.dequant;
    int compute = c.compute;
    int64_t k = 0;
    TRY(json_need_int(j, "k", what, 2, 32, &k, e));
    c.k = (int)k;
    TRY(opt_label(j, "dtype", what, dtype_of, &dtype, e));
    TRY(opt_small(j, "exponent_bits", what, &c.exponent_bits, e));
    TRY(opt_small(j, "subnormal_shift", what, &c.subnormal_shift, e));
    TRY(read_block(j, what, &c.block, e));
    TRY(opt_label(j, "center", what, center_of, &center, e));
    TRY(opt_num(j, "outlier_pct", what, &c.outlier_pct, e));
    TRY(opt_label(j, "outlier_rule", what, outlier_rule_of, &rule, e));
    TRY(opt_bool(j, "quant_head", what, &c.quant_head, e));
    TRY(opt_bool(j, "quant_embed", what, &c.quant_embed, e));
    TRY(opt_label(j, "dequant", what, dequant_of, &dequant, e));
    TRY(opt_label(j, "compute", what, compute_of, &compute, e));
    c.dtype = (enum dtype)dtype;
    c.center = (enum center)center;
    c.outlier_rule = (enum outlier_rule)rule;
    c.dequant = (enum dequant)dequant;
    c.compute = (enum compute)compute;
    if (config_validate(&c, e) != ERR_OK)
        return err_wrap(e, "%s", what);
    config_normalize(&c);
    *out = c;
    return ERR_OK;
}

enum err_code model_ref_from_json(const json_t *j, const char *what, struct arena *a,
                                  struct model_ref *out, struct err *e)
{
    TRY(need_object(j, what, e));
    struct model_ref m = {0};
    TRY(need_text(j, "family", what, a, &m.family, e));
    TRY(need_text(j, "size", what, a, &m.size, e));
    TRY(need_text(j, "name", what, a, &m.name, e));
    TRY(opt_text(j, "path", what, a, &m.path, e));
    TRY(opt_text(j, "hub", what, a, &m.hub, e));
    TRY(opt_text(j, "revision", what, a, &m.revision, e));
    if ((m.path == NULL) == (m.hub == NULL))
        return err_set(e, ERR_FORMAT, "%s: expected either \"path\" or \"hub\"", what);
    *out = m;
    return ERR_OK;
}

enum err_code eval_spec_from_json(const json_t *j, const char *what, struct arena *a,
                                  struct eval_spec *out, struct err *e)
{
    TRY(need_object(j, what, e));
    struct eval_spec ev = {0};
    const char *task_text = NULL;
    TRY(json_need_str(j, "task", what, &task_text, e));
    int task = task_of(str_of(task_text));
    if (task < 0)
        return err_set(e, ERR_FORMAT, "%s: \"task\" has no value \"%.60s\"", what, task_text);
    ev.task = (enum task)task;
    TRY(opt_text(j, "name", what, a, &ev.name, e));
    if (ev.name == NULL)
        ev.name = task_label(ev.task);
    TRY(need_text(j, "data", what, a, &ev.data, e));
    TRY(opt_text(j, "data_path", what, a, &ev.data_path, e));
    if (ev.data_path == NULL)
        ev.data_path = ev.data;
    TRY(opt_text(j, "subset", what, a, &ev.subset, e));
    TRY(opt_int(j, "limit", what, count_max, &ev.limit, e));
    TRY(opt_int(j, "window", what, INT_MAX, &ev.window, e));
    TRY(opt_int(j, "max_tokens", what, count_max, &ev.max_tokens, e));
    int method = eval_default_method(ev.data);
    int join = JOIN_H26;
    TRY(opt_label(j, "method", what, method_of, &method, e));
    TRY(opt_label(j, "join", what, join_of, &join, e));
    TRY(opt_bool(j, "bos", what, &ev.bos, e));
    ev.method = (enum method)method;
    ev.join = (enum join)join;
    *out = ev;
    return ERR_OK;
}

static bool is_sha256(const char *hex)
{
    return hex[0] == '\0' || (strlen(hex) == 64 && strspn(hex, "0123456789abcdef") == 64);
}

static enum err_code read_sha256(const json_t *o, const char *key, const char *what, char out[65],
                                 struct err *e)
{
    const char *hex = NULL;
    TRY(json_need_str(o, key, what, &hex, e));
    if (!is_sha256(hex))
        return err_set(e, ERR_FORMAT, "%s: \"%s\" must be 64 lower-case hexadecimal digits", what,
                       key);
    memcpy(out, hex, strlen(hex) + 1);
    return ERR_OK;
}

static bool int32_at(const json_t *row, size_t i, int32_t min, int32_t *out)
{
    const json_t *v = json_array_get(row, i);
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > INT32_MAX)
        return false;
    *out = (int32_t)json_integer_value(v);
    return true;
}

/* See item_list_to_json for the layout of a row. */
static bool read_item(const json_t *row, struct arena *a, struct item *it)
{
    size_t n = json_array_size(row);
    if (n == 0 || (n - 1) % 3 != 0 || (n - 1) / 3 > CHOICES_MAX)
        return false;
    size_t choices = (n - 1) / 3;
    int32_t *facts = arena_array(a, 3 * choices, sizeof(*facts));
    int32_t gold = -1;
    if (!int32_at(row, 0, -1, &gold) || (choices > 1 && gold >= (int32_t)choices))
        return false;
    for (size_t i = 0; i < choices; i++) {
        if (!int32_at(row, 1 + 3 * i, 0, &facts[i]) ||
            !int32_at(row, 2 + 3 * i, 0, &facts[choices + i]) ||
            !int32_at(row, 3 + 3 * i, 0, &facts[2 * choices + i]))
            return false;
    }
    *it = (struct item){.gold = gold,
                        .n_choices = (int)choices,
                        .chars = facts,
                        .bytes = facts + choices,
                        .tokens = facts + 2 * choices};
    return true;
}

enum err_code item_list_from_json(const json_t *j, const char *what, struct arena *a,
                                  struct item_list *out, struct err *e)
{
    TRY(need_object(j, what, e));
    struct item_list l = {0};
    json_t *rows = NULL;
    TRY(read_sha256(j, "tokenizer_sha256", what, l.tokenizer_sha256, e));
    TRY(read_sha256(j, "items_sha256", what, l.items_sha256, e));
    TRY(json_need_arr(j, "items", what, &rows, e));
    if (json_array_size(rows) > ITEMS_MAX)
        return err_set(e, ERR_FORMAT, "%s: more than %d items", what, ITEMS_MAX);
    struct item *items = arena_array(a, json_array_size(rows), sizeof(*items));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (!read_item(json_array_get(rows, i), a, &items[i]))
            return err_set(e, ERR_FORMAT,
                           "%s: item %zu must be [gold, chars, bytes, tokens, …], three numbers "
                           "for each choice",
                           what, i);
    }
    l.items = items;
    l.n = (int64_t)json_array_size(rows);
    *out = l;
    return ERR_OK;
}

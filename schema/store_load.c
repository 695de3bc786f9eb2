/* What dispatch starts from: the parts of all jobs, and the jobs that are open. */
#include "schema/store_work.h"

#include <string.h>

#include "schema/store_impl.h"

struct loading {
    struct arena *a;
    struct store_parts *out;
    const char *db;
};

static const char *text_or_null(struct arena *a, const struct store_row *r, int col)
{
    const char *t = store_col_text(r, col);
    return t != NULL ? arena_strdup(a, t) : NULL;
}

/* Value of a stored label; an unknown one is another version's. */
static enum err_code label_value(int value, const char *label, const char *axis, const char *db,
                                 int *out, struct err *e)
{
    if (value < 0)
        return err_set(e, ERR_FORMAT, "%s: unknown %s \"%s\"; use the isobit that planned it", db,
                       axis, label);
    *out = value;
    return ERR_OK;
}
#define LABEL(l, r, col, of, axis, out, e)                                                         \
    label_value(of(str_of(store_col_text(r, col))), store_col_text(r, col), axis, (l)->db, out, e)

static enum err_code add_model(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct loading *l = arg;
    l->out->models[l->out->n_models++] = (struct store_model){
        .id = store_col_int(r, 0),
        .ref = {.family = text_or_null(l->a, r, 1),
                .size = text_or_null(l->a, r, 2),
                .name = text_or_null(l->a, r, 3),
                .path = text_or_null(l->a, r, 4),
                .hub = text_or_null(l->a, r, 5),
                .revision = text_or_null(l->a, r, 6)},
        .weights_sha256 = text_or_null(l->a, r, 7),
        .n_params = store_col_int(r, 8),
    };
    return ERR_OK;
}

static enum err_code add_config(void *arg, const struct store_row *r, struct err *e)
{
    struct loading *l = arg;
    int dtype = 0, center = 0, rule = 0, dequant = 0, compute = 0;
    TRY(LABEL(l, r, 2, dtype_of, "dtype", &dtype, e));
    TRY(LABEL(l, r, 6, center_of, "center", &center, e));
    TRY(LABEL(l, r, 8, outlier_rule_of, "outlier_rule", &rule, e));
    TRY(LABEL(l, r, 11, dequant_of, "dequant", &dequant, e));
    TRY(LABEL(l, r, 12, compute_of, "compute", &compute, e));
    l->out->configs[l->out->n_configs++] = (struct store_config){
        .id = store_col_int(r, 0),
        .config = {.k = (int)store_col_int(r, 1),
                   .dtype = (enum dtype)dtype,
                   .exponent_bits = (int)store_col_int(r, 3),
                   .subnormal_shift = (int)store_col_int(r, 4),
                   .block = store_col_int(r, 5),
                   .center = (enum center)center,
                   .outlier_pct = store_col_num(r, 7),
                   .outlier_rule = (enum outlier_rule)rule,
                   .quant_head = store_col_int(r, 9) != 0,
                   .quant_embed = store_col_int(r, 10) != 0,
                   .dequant = (enum dequant)dequant,
                   .compute = (enum compute)compute},
    };
    return ERR_OK;
}

static enum err_code add_eval(void *arg, const struct store_row *r, struct err *e)
{
    struct loading *l = arg;
    int task = 0, method = 0, join = 0;
    TRY(LABEL(l, r, 2, task_of, "task", &task, e));
    TRY(LABEL(l, r, 9, method_of, "method", &method, e));
    TRY(LABEL(l, r, 10, join_of, "join", &join, e));
    l->out->evals[l->out->n_evals++] = (struct store_eval){
        .id = store_col_int(r, 0),
        .spec = {.name = text_or_null(l->a, r, 1),
                 .task = (enum task)task,
                 .data = text_or_null(l->a, r, 3),
                 .data_path = text_or_null(l->a, r, 4),
                 .subset = text_or_null(l->a, r, 5),
                 .limit = store_col_int(r, 6),
                 .window = store_col_int(r, 7),
                 .max_tokens = store_col_int(r, 8),
                 .method = (enum method)method,
                 .join = (enum join)join,
                 .bos = store_col_int(r, 11) != 0},
        .data_sha256 = text_or_null(l->a, r, 12),
    };
    return ERR_OK;
}

static enum err_code add_set(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct loading *l = arg;
    l->out->sets[l->out->n_sets++] = (struct store_set){store_col_int(r, 0), store_col_int(r, 1)};
    return ERR_OK;
}

enum err_code store_load_parts(struct store *s, struct arena *a, struct store_parts *out,
                               struct err *e)
{
    static const char sql_sets[] =
        "SELECT m.set_id, CASE WHEN min(s.job_limit_s) = 0 THEN 0 ELSE max(s.job_limit_s) END "
        "FROM sweep_set_member m JOIN sweep s ON s.id = m.sweep_id GROUP BY m.set_id ORDER BY 1";
    int64_t n_models = 0, n_configs = 0, n_evals = 0, n_sets = 0;
    TRY(store_query_int(s, "SELECT count(*) FROM sweep_set", 0, &n_sets, e));
    TRY(store_query_int(s, "SELECT count(*) FROM model", 0, &n_models, e));
    TRY(store_query_int(s, "SELECT count(*) FROM config", 0, &n_configs, e));
    TRY(store_query_int(s, "SELECT count(*) FROM eval", 0, &n_evals, e));
    struct loading l = {.a = a, .out = out, .db = s->path};
    *out = (struct store_parts){
        .models = arena_array(a, (size_t)n_models, sizeof(*out->models)),
        .configs = arena_array(a, (size_t)n_configs, sizeof(*out->configs)),
        .evals = arena_array(a, (size_t)n_evals, sizeof(*out->evals)),
        .sets = arena_array(a, (size_t)n_sets, sizeof(*out->sets)),
    };
    TRY(store_query(s, sql_sets, NULL, 0, add_set, &l, e));
    TRY(store_query(s,
                    "SELECT id, family, size, name, path, hub, revision, weights_sha256, n_params "
                    "FROM model ORDER BY id",
                    NULL, 0, add_model, &l, e));
    TRY(store_query(s,
                    "SELECT id, k, dtype, exponent_bits, subnormal_shift, block, center, "
                    "outlier_pct, outlier_rule, "
                    "quant_head, quant_embed, dequant, compute FROM config ORDER BY id",
                    NULL, 0, add_config, &l, e));
    return store_query(
        s,
        "SELECT id, name, task, data, data_path, subset, max_items, window, max_tokens, method, "
        "join_rule, bos, data_sha256 FROM eval ORDER BY id",
        NULL, 0, add_eval, &l, e);
}

struct each_open {
    store_open_fn fn;
    void *arg;
};

static enum err_code hand_open_job(void *arg, const struct store_row *r, struct err *e)
{
    struct each_open *each = arg;
    struct store_open_job job = {
        .id = store_col_int(r, 0),
        .model_id = store_col_int(r, 1),
        .config_id = store_col_int(r, 2),
        .eval_id = store_col_int(r, 3),
        .set_id = store_col_int(r, 4),
        .attempt = (int)store_col_int(r, 5),
        .failures = (int)store_col_int(r, 6),
        .priority = (int)store_col_int(r, 7),
        .worker_id = store_col_int(r, 8),
    };
    return each->fn(each->arg, &job, e);
}

enum err_code store_each_open_job(struct store *s, store_open_fn fn, void *arg, struct err *e)
{
    struct each_open each = {fn, arg};
    return store_query(
        s,
        "SELECT id, model_id, config_id, eval_id, set_id, attempt, failures, priority, "
        "CASE state WHEN 'leased' THEN worker_id ELSE 0 END "
        "FROM job WHERE state IN ('pending', 'leased') ORDER BY id",
        NULL, 0, hand_open_job, &each, e);
}

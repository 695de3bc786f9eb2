/* /api/progress: how many jobs are in which state, by family, size, bits, data type and evaluation. One pass over all jobs, counted
 * here instead of in SQL: grouping a million rows by text takes SQLite several times as long. */
#include "base/clock.h"
#include "base/mem.h"
#include "coordinator/site_docs.h"

enum { MAX_CELLS = 4 << 20 };

/* Numbers for names, in the order they are met: "pythia s1" is 3. */
struct names {
    json_t *index; /* text -> number */
    json_t *list;  /* array of arrays: the columns of a name */
};

/* Which name a row of model, config or eval has, by its id. */
struct ids {
    int32_t *name; /* -1: there is no such row */
    int64_t n;
};

struct grid {
    struct names models, configs, evals;
    struct ids of_model, of_config, of_eval;
    int32_t *count; /* [models][configs][evals][JOB_STATE_COUNT] */
    int64_t n_models, n_configs, n_evals;
};

static void names_init(struct names *n)
{
    n->index = json_object();
    n->list = json_array();
}

static void ids_set(struct ids *ids, int64_t id, int32_t name)
{
    if (id >= ids->n) {
        int64_t n = id + 64;
        ids->name = xrealloc(ids->name, (size_t)n * sizeof(*ids->name));
        for (int64_t i = ids->n; i < n; i++)
            ids->name[i] = -1;
        ids->n = n;
    }
    ids->name[id] = name;
}

static int32_t ids_get(const struct ids *ids, int64_t id)
{
    return id >= 0 && id < ids->n ? ids->name[id] : -1;
}

struct loading {
    struct names *names;
    struct ids *ids;
};

/* A row: id, then the columns that make the name. */
static enum err_code add_name(void *arg, const struct store_row *row, struct err *e)
{
    const struct loading *l = arg;
    struct buf text = {0};
    json_t *columns = json_array();
    int64_t id = store_col_int(row, 0);
    if (id < 0 || id > MAX_CELLS) {
        json_decref(columns);
        return err_set(e, ERR_FORMAT, "the database has a part numbered %lld", (long long)id);
    }
    for (int i = 1; i < store_n_cols(row); i++) {
        bool is_number = store_col_type(row, i) == STORE_INT;
        const char *word = store_col_text(row, i);
        json_array_append_new(columns, is_number ? json_integer(store_col_int(row, i))
                                                 : json_string(word != NULL ? word : ""));
        buf_printf(&text, "%s\x1f", word != NULL ? word : "");
    }
    json_t *known = json_object_get(l->names->index, text.data);
    int32_t name = known != NULL ? (int32_t)json_integer_value(known)
                                 : (int32_t)json_array_size(l->names->list);
    if (known == NULL) {
        json_object_set_new(l->names->index, text.data, json_integer(name));
        json_array_append_new(l->names->list, columns);
    } else {
        json_decref(columns);
    }
    ids_set(l->ids, id, name);
    buf_release(&text);
    return ERR_OK;
}

static enum err_code load_names(struct grid *g, struct store *s, struct err *e)
{
    struct loading models = {&g->models, &g->of_model}, configs = {&g->configs, &g->of_config},
                   evals = {&g->evals, &g->of_eval};
    names_init(&g->models);
    names_init(&g->configs);
    names_init(&g->evals);
    TRY(store_query(
        s,
        "SELECT id, family, size FROM model ORDER BY family, n_params IS NULL, n_params, "
        "size",
        NULL, 0, add_name, &models, e));
    TRY(store_query(
        s, "SELECT id, k, CASE WHEN k < 16 THEN dtype ELSE '' END FROM config ORDER BY k, dtype",
        NULL, 0, add_name, &configs, e));
    TRY(store_query(s, "SELECT id, name FROM eval ORDER BY id", NULL, 0, add_name, &evals, e));
    g->n_models = (int64_t)json_array_size(g->models.list);
    g->n_configs = (int64_t)json_array_size(g->configs.list);
    g->n_evals = (int64_t)json_array_size(g->evals.list);
    if (g->n_models * g->n_configs > MAX_CELLS ||
        g->n_models * g->n_configs * g->n_evals > MAX_CELLS)
        return err_set(e, ERR_UNSUPPORTED, "the sweeps have too many different names for a page");
    g->count = xcalloc((size_t)(g->n_models * g->n_configs * g->n_evals) + 1,
                       JOB_STATE_COUNT * sizeof(*g->count));
    return ERR_OK;
}

/* By the first letter, since a million labels are compared here; they differ in it (checked below). */
static int state_of(const char *label)
{
    static const enum job_state by_letter[128] = {
        ['p'] = JOB_PENDING, ['l'] = JOB_LEASED, ['d'] = JOB_DONE,
        ['b'] = JOB_BURIED,  ['h'] = JOB_HELD,   ['c'] = JOB_CANCELLED};
    int letter = label != NULL ? label[0] & 127 : 0;
    enum job_state state = by_letter[letter];
    return label != NULL && label[0] == job_state_label(state)[0] ? (int)state : -1;
}

static enum err_code count_job(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct grid *g = arg;
    int32_t model = ids_get(&g->of_model, store_col_int(row, 0));
    int32_t config = ids_get(&g->of_config, store_col_int(row, 1));
    int32_t eval = ids_get(&g->of_eval, store_col_int(row, 2));
    int state = state_of(store_col_text(row, 3));
    /* A part planned since the names were read is counted next time. */
    if (model >= 0 && config >= 0 && eval >= 0 && state >= 0)
        g->count[((model * g->n_configs + config) * g->n_evals + eval) * JOB_STATE_COUNT + state]++;
    return ERR_OK;
}

static void extend(json_t *row, const json_t *columns)
{
    size_t i = 0;
    json_t *v = NULL;
    json_array_foreach(columns, i, v)
    {
        json_array_append(row, v);
    }
}

static void add_cells(const struct grid *g, json_t *rows)
{
    for (int64_t at = 0; at < g->n_models * g->n_configs * g->n_evals; at++) {
        const int32_t *n = &g->count[at * JOB_STATE_COUNT];
        int64_t total = 0;
        for (int i = 0; i < JOB_STATE_COUNT; i++)
            total += n[i];
        if (total == 0)
            continue;
        json_t *row = json_array();
        extend(row, json_array_get(g->models.list, (size_t)(at / g->n_evals / g->n_configs)));
        extend(row, json_array_get(g->configs.list, (size_t)(at / g->n_evals % g->n_configs)));
        extend(row, json_array_get(g->evals.list, (size_t)(at % g->n_evals)));
        for (int i = 0; i < JOB_STATE_COUNT; i++)
            json_array_append_new(row, json_integer(n[i]));
        json_array_append_new(rows, row);
    }
}

static void grid_release(struct grid *g)
{
    const struct names *const all[] = {&g->models, &g->configs, &g->evals};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        json_decref(all[i]->index);
        json_decref(all[i]->list);
    }
    xfree(g->of_model.name);
    xfree(g->of_config.name);
    xfree(g->of_eval.name);
    xfree(g->count);
}

enum err_code site_doc_progress(struct store *s, const struct site_live *live, struct buf *out,
                                struct err *e)
{
    (void)live;
    struct grid g = {0};
    int64_t began_ns = clock_mono_ns();
    enum err_code rc = load_names(&g, s, e);
    if (rc == ERR_OK)
        rc = store_query(s, "SELECT model_id, config_id, eval_id, state FROM job", NULL, 0,
                         count_job, &g, e);
    if (rc == ERR_OK) {
        json_t *columns =
            json_pack("[s, s, s, s, s]", "family", "size", "k", "dtype", "evaluation");
        for (int i = 0; i < JOB_STATE_COUNT; i++)
            json_array_append_new(columns, json_string(job_state_label((enum job_state)i)));
        json_t *rows = json_array();
        add_cells(&g, rows);
        json_t *doc = json_pack("{s:o, s:f, s:o, s:o}", "time", site_time(), "seconds",
                                clock_seconds_since(began_ns), "columns", columns, "rows", rows);
        json_append(out, doc, false);
        buf_addc(out, '\n');
        json_decref(doc);
    }
    grid_release(&g);
    return rc;
}

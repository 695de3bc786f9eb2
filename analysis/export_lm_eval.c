/* lm-evaluation-harness 0.4 writes a run as one results JSON, whose metrics are named "acc,none" (metric, filter), and one file of
 * samples a task. Tables and plots made for these read ours the same way. What a sweep does not have (prompts, few-shot examples)
 * is left out rather than invented. */
#include <math.h>
#include <string.h>

#include "analysis/export.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"

/* A configuration of a model: the file being put together. */
struct run_file {
    const struct export_what *what;
    const char *dir;
    int64_t model_id, config_id; /* of the rows so far; 0: none */
    char *path;                  /* folder of the configuration */
    json_t *doc;
    int n_files;
    struct export_sample sample;
};

static const char run_sql[] =
    "SELECT c.model_id, c.config_id, c.task, r.evaluation, r.metric, r.value, r.stderr, r.n,"
    " r.family, r.size, r.k, r.dtype, r.exponent_bits, r.block, r.center, r.outlier_pct,"
    " r.outlier_rule, r.compute, r.program, r.device, r.seconds, r.finished_at, g.model,"
    " s.codec, s.blob, r.job, g.quant_head, g.quant_embed, g.dequant, g.subnormal_shift "
    "FROM cells c JOIN results r ON r.job = c.job"
    " JOIN scaling g ON g.sweep = c.sweep AND g.model_id = c.model_id AND g.config_id = c.config_id"
    " LEFT JOIN samples s ON s.job = c.job "
    "WHERE (?1 = '' OR c.sweep = ?1) AND (?2 = '' OR r.family = ?2) "
    "ORDER BY c.sweep, c.model_id, c.config_id, c.job, r.metric";

enum {
    COL_MODEL_ID,
    COL_CONFIG_ID,
    COL_TASK,
    COL_EVALUATION,
    COL_METRIC,
    COL_VALUE,
    COL_STDERR,
    COL_N,
    COL_FAMILY,
    COL_SIZE,
    COL_K,
    COL_DTYPE,
    COL_EXPONENT,
    COL_BLOCK,
    COL_CENTER,
    COL_OUTLIER_PCT,
    COL_OUTLIER_RULE,
    COL_COMPUTE,
    COL_PROGRAM,
    COL_DEVICE,
    COL_SECONDS,
    COL_FINISHED,
    COL_MODEL,
    COL_CODEC,
    COL_JOB = COL_CODEC + 2,
    COL_HEAD,
    COL_EMBED,
    COL_DEQUANT,
    COL_SHIFT
};

/* "k4-float-e2-b64", with what is not at its default at the end. */
static void add_config_name(struct buf *out, const struct store_row *r)
{
    buf_printf(out, "k%lld", (long long)store_col_int(r, COL_K));
    if (store_col_int(r, COL_K) < 16) {
        buf_printf(out, "-%s", store_col_text(r, COL_DTYPE));
        if (store_col_int(r, COL_EXPONENT) > 0)
            buf_printf(out, "-e%lld", (long long)store_col_int(r, COL_EXPONENT));
        if (store_col_int(r, COL_SHIFT) != 0)
            buf_printf(out, "-shift%lld", (long long)store_col_int(r, COL_SHIFT));
        if (store_col_int(r, COL_BLOCK) > 0)
            buf_printf(out, "-b%lld", (long long)store_col_int(r, COL_BLOCK));
        else
            buf_adds(out, "-tensor");
        if (strcmp(store_col_text(r, COL_CENTER), "none") != 0)
            buf_printf(out, "-center-%s", store_col_text(r, COL_CENTER));
        if (store_col_num(r, COL_OUTLIER_PCT) > 0)
            buf_printf(out, "-outliers%g-%s", store_col_num(r, COL_OUTLIER_PCT),
                       store_col_text(r, COL_OUTLIER_RULE));
        if (store_col_int(r, COL_HEAD) != 0)
            buf_adds(out, "-head");
        if (store_col_int(r, COL_EMBED) != 0)
            buf_adds(out, "-embed");
        if (strcmp(store_col_text(r, COL_DEQUANT), "fp16") != 0)
            buf_printf(out, "-dequant-%s", store_col_text(r, COL_DEQUANT));
    }
    buf_printf(out, "-%s", store_col_text(r, COL_COMPUTE));
}

/* Names of models are paths or hub names; the harness writes their "/" as "__". Nothing leaves the folder. */
static void add_model_name(struct buf *out, const char *model)
{
    for (const char *c = model; *c != '\0'; c++)
        if (*c == '/')
            buf_adds(out, "__");
        else
            buf_addc(out, *c == '\\' || (unsigned char)*c <= ' ' ? '_' : *c);
    if (out->len > 0 && out->data[0] == '.')
        out->data[0] = '_';
}

/* The harness's names where it has the task. */
static const char *task_name(const struct store_row *r)
{
    const char *task = store_col_text(r, COL_TASK);
    if (strcmp(task, "lambada") == 0)
        return "lambada_openai";
    return strcmp(task, "perplexity") == 0 ? store_col_text(r, COL_EVALUATION) : task;
}

static enum err_code finish(struct run_file *f, struct err *e)
{
    if (f->doc == NULL)
        return ERR_OK;
    struct buf text = {0};
    char *path = io_join(f->path, "results.json");
    json_append(&text, f->doc, true);
    buf_addc(&text, '\n');
    enum err_code rc = io_make_dirs(f->path, e);
    if (rc == ERR_OK)
        rc = io_write_file(path, text.data, text.len, e);
    f->n_files += rc == ERR_OK;
    xfree(path);
    buf_release(&text);
    json_decref(f->doc);
    f->doc = NULL;
    return rc;
}

static void start(struct run_file *f, const struct store_row *r)
{
    struct buf model = {0};
    struct buf config = {0};
    add_model_name(&model, store_col_text(r, COL_MODEL));
    add_config_name(&config, r);
    xfree(f->path);
    f->path = xasprintf("%s/%s/%s", f->dir, model.data, config.data);
    char *args =
        xasprintf("pretrained=%s,configuration=%s", store_col_text(r, COL_MODEL), config.data);
    f->doc = json_pack("{s:{},s:{},s:{},s:{},s:{},s:{s:s,s:s,s:s},s:s,s:s,s:s}", "results",
                       "versions", "n-shot", "higher_is_better", "n-samples", "config", "model",
                       "isobit", "model_args", args, "device", store_col_text(r, COL_DEVICE),
                       "model_name", store_col_text(r, COL_MODEL), "model_name_sanitized",
                       model.data, "isobit_version", store_col_text(r, COL_PROGRAM));
    CHECK(f->doc != NULL);
    f->model_id = store_col_int(r, COL_MODEL_ID);
    f->config_id = store_col_int(r, COL_CONFIG_ID);
    xfree(args);
    buf_release(&model);
    buf_release(&config);
}

static json_t *member(json_t *o, const char *name)
{
    json_t *m = json_object_get(o, name);
    if (m == NULL) {
        m = json_object();
        json_object_set_new(o, name, m);
    }
    return m;
}

static bool is_larger_better(const char *metric)
{
    return strncmp(metric, "acc", 3) == 0 || strcmp(metric, "same_top") == 0;
}

static void add_metric(struct run_file *f, const struct store_row *r)
{
    const char *task = task_name(r);
    const char *metric = store_col_text(r, COL_METRIC);
    json_t *results = member(json_object_get(f->doc, "results"), task);
    char *name = xasprintf("%s,none", metric);
    char *stderr_name = xasprintf("%s_stderr,none", metric);
    json_object_set_new(results, "alias", json_string(task));
    json_object_set_new(results, name, json_number_or_null(store_col_num(r, COL_VALUE)));
    json_object_set_new(results, stderr_name,
                        store_col_is_null(r, COL_STDERR)
                            ? json_string("N/A")
                            : json_number_or_null(store_col_num(r, COL_STDERR)));
    json_object_set_new(member(json_object_get(f->doc, "higher_is_better"), task), metric,
                        json_boolean(is_larger_better(metric)));
    /* The harness versions its tasks; what stands for a task here is the program that ran it. */
    json_object_set_new(json_object_get(f->doc, "versions"), task,
                        json_string(store_col_text(r, COL_PROGRAM)));
    json_object_set_new(json_object_get(f->doc, "n-shot"), task, json_integer(0));
    json_object_set_new(json_object_get(f->doc, "n-samples"), task,
                        json_pack("{s:I,s:I}", "original", (json_int_t)store_col_int(r, COL_N),
                                  "effective", (json_int_t)store_col_int(r, COL_N)));
    xfree(name);
    xfree(stderr_name);
}

/* One line an item: {"doc_id", "filter", "filtered_resps": log-likelihoods}. */
static enum err_code write_samples(struct run_file *f, const struct store_row *r, struct err *e)
{
    TRY(export_unpack(f->what, r, COL_JOB, COL_CODEC, &f->sample, e));
    TRY(io_make_dirs(f->path, e));
    struct buf text = {.max = (size_t)1 << 30};
    size_t width = (size_t)f->sample.width;
    for (size_t i = 0; i < f->sample.n / width; i++) {
        buf_printf(&text, "{\"doc_id\":%zu,\"filter\":\"none\",\"filtered_resps\":[", i);
        for (size_t c = 0; c < width; c++) {
            double v = (double)f->sample.values[i * width + c];
            buf_adds(&text, c > 0 ? "," : "");
            if (isfinite(v))
                buf_printf(&text, "%.9g", v);
            else
                buf_adds(&text, "null");
        }
        buf_adds(&text, "]}\n");
    }
    char *path = xasprintf("%s/samples_%s.jsonl", f->path, task_name(r));
    enum err_code rc = io_write_file(path, text.data, text.len, e);
    xfree(path);
    buf_release(&text);
    return rc;
}

/* Rows of a job follow each other; the samples are written with its first metric. */
static enum err_code take_row(void *arg, const struct store_row *r, struct err *e)
{
    struct run_file *f = arg;
    if (f->model_id != store_col_int(r, COL_MODEL_ID) ||
        f->config_id != store_col_int(r, COL_CONFIG_ID)) {
        TRY(finish(f, e));
        start(f, r);
    }
    bool is_first = json_object_get(json_object_get(f->doc, "results"), task_name(r)) == NULL;
    add_metric(f, r);
    if (is_first && f->what->has_samples && !store_col_is_null(r, COL_CODEC))
        TRY(write_samples(f, r, e));
    return ERR_OK;
}

enum err_code export_lm_eval(const struct export_what *w, const char *dir, int *n_files,
                             struct err *e)
{
    const char *params[] = {w->sweep != NULL ? w->sweep : "", w->family != NULL ? w->family : ""};
    struct run_file f = {.what = w, .dir = dir};
    enum err_code rc = store_query(w->store, run_sql, params, 2, take_row, &f, e);
    if (rc == ERR_OK)
        rc = finish(&f, e);
    *n_files = f.n_files;
    json_decref(f.doc);
    xfree(f.path);
    xfree(f.sample.values);
    return rc;
}

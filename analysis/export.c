#include "analysis/export.h"

#include <math.h>
#include <string.h>

#include "analysis/zstd_blob.h"
#include "base/json.h"
#include "base/mem.h"

/* The longest data set has 40,168 values; room for a hundred times as many. */
enum { MAX_VALUES = 1 << 22, MAX_CHOICES = 4 };

/* What a query writes to. */
struct writing {
    const struct export_what *what;
    FILE *out;
    bool has_head;
    struct export_sample sample;
};

static const char *const codecs[] = {"zstd-f32/1", "zstd-f32/2", "zstd-f32/3", "zstd-f32/4"};

enum err_code export_unpack(const struct export_what *w, const struct store_row *row, int job_col,
                            int codec_col, struct export_sample *room, struct err *e)
{
    const char *codec = store_col_text(row, codec_col);
    size_t bytes = 0;
    const void *blob = store_col_blob(row, codec_col + 1, &bytes);
    room->width = 0;
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++)
        if (codec != NULL && strcmp(codec, codecs[i]) == 0)
            room->width = (int)i + 1;
    if (room->values == NULL)
        room->values = xmalloc(MAX_VALUES * sizeof(float));
    if (room->width == 0 || blob == NULL ||
        !zstd_blob_unpack(blob, bytes, room->values, MAX_VALUES, &room->n) ||
        room->n % (size_t)room->width != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: the samples of job %lld (codec %s) cannot be read; leave out --samples "
                       "or run the job again: isobit retry --done",
                       w->db, (long long)store_col_int(row, job_col),
                       codec != NULL ? codec : "none");
    return ERR_OK;
}

static void filter_params(const struct export_what *w, const char *params[2])
{
    params[0] = w->sweep != NULL ? w->sweep : "";
    params[1] = w->family != NULL ? w->family : "";
}

#define FILTER " WHERE (?1 = '' OR r.sweep = ?1) AND (?2 = '' OR r.family = ?2) "

/* One line a job with its samples; the configuration's columns come first. */
static const char samples_sql[] =
    "SELECT r.job, r.key, r.family, r.size, r.k, r.dtype, r.block, r.task, s.codec, s.blob "
    "FROM jobs r JOIN samples s ON s.job = r.job" FILTER "AND r.state = 'done' ORDER BY r.job";
enum { SAMPLE_JOB, SAMPLE_CODEC = 8 };

/* ---- CSV (RFC 4180, lines end with \n) ---- */

static void put_text(FILE *out, const char *text)
{
    if (text[strcspn(text, ",\"\r\n")] == '\0') {
        fputs(text, out);
        return;
    }
    putc('"', out);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"')
            putc('"', out);
        putc(*c, out);
    }
    putc('"', out);
}

static void put_column(FILE *out, const struct store_row *row, int col)
{
    switch (store_col_type(row, col)) {
    case STORE_INT:
        fprintf(out, "%lld", (long long)store_col_int(row, col));
        break;
    case STORE_NUM:
        fprintf(out, "%.17g", store_col_num(row, col));
        break;
    case STORE_TEXT:
        put_text(out, store_col_text(row, col));
        break;
    case STORE_NULL:
    case STORE_BLOB:
        break;
    }
}

static enum err_code write_csv_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct writing *w = arg;
    for (int i = 0; !w->has_head && i < store_n_cols(row); i++)
        fprintf(w->out, "%s%s", i > 0 ? "," : "", store_col_name(row, i));
    if (!w->has_head)
        putc('\n', w->out);
    w->has_head = true;
    for (int i = 0; i < store_n_cols(row); i++) {
        if (i > 0)
            putc(',', w->out);
        put_column(w->out, row, i);
    }
    putc('\n', w->out);
    return ERR_OK;
}

static enum err_code write_csv_items(void *arg, const struct store_row *row, struct err *e)
{
    struct writing *w = arg;
    TRY(export_unpack(w->what, row, SAMPLE_JOB, SAMPLE_CODEC, &w->sample, e));
    if (!w->has_head)
        fputs("job,key,family,size,k,dtype,block,task,item,value_0,value_1,value_2,value_3\n",
              w->out);
    w->has_head = true;
    for (size_t i = 0; i < w->sample.n / (size_t)w->sample.width; i++) {
        for (int col = 0; col < SAMPLE_CODEC; col++) {
            put_column(w->out, row, col);
            putc(',', w->out);
        }
        fprintf(w->out, "%zu", i);
        for (int c = 0; c < MAX_CHOICES; c++) {
            putc(',', w->out);
            if (c < w->sample.width)
                fprintf(w->out, "%.9g",
                        (double)w->sample.values[i * (size_t)w->sample.width + (size_t)c]);
        }
        putc('\n', w->out);
    }
    return ERR_OK;
}

static enum err_code run_query(const struct export_what *what, FILE *out, const char *sql,
                               store_row_fn fn, struct err *e)
{
    const char *params[2];
    filter_params(what, params);
    struct writing w = {.what = what, .out = out};
    enum err_code rc = store_query(what->store, sql, params, 2, fn, &w, e);
    xfree(w.sample.values);
    if (rc == ERR_OK && (fflush(out) != 0 || ferror(out)))
        rc = err_set(e, ERR_IO, "the output cannot be written; is the disk full?");
    return rc;
}

enum err_code export_csv(const struct export_what *w, FILE *out, struct err *e)
{
    return w->has_samples ? run_query(w, out, samples_sql, write_csv_items, e)
                          : run_query(w, out, "SELECT r.* FROM results r" FILTER "ORDER BY r.job",
                                      write_csv_row, e);
}

/* ---- JSON lines ---- */

/* SQLite makes the object; the columns after it are the sample, or nothing. */
static const char jsonl_sql[] =
    "SELECT r.job, json_object('key', r.key, 'sweep', r.sweep, 'family', r.family, 'size', r.size,"
    " 'n_params', r.n_params, 'k', r.k, 'dtype', r.dtype, 'exponent_bits', r.exponent_bits,"
    " 'subnormal_shift', r.subnormal_shift, 'block', r.block, 'center', r.center,"
    " 'outlier_pct', r.outlier_pct, 'outlier_rule', r.outlier_rule, 'compute', r.compute,"
    " 'evaluation', r.evaluation, 'task', r.task, 'bits_per_param', r.bits_per_param,"
    " 'total_bits_full', r.total_bits_full, 'total_bits_nominal', r.total_bits_nominal,"
    " 'total_bits_linear', r.total_bits_linear, 'device', r.device, 'host', r.host,"
    " 'seconds', r.seconds, 'program', r.program, 'weights_sha256', r.weights_sha256,"
    " 'data_sha256', r.data_sha256, 'finished_at', r.finished_at, 'metrics',"
    " json_group_object(r.metric, json_object('value', r.value, 'stderr', r.stderr, 'n', r.n))),"
    " s.codec, s.blob "
    "FROM results r LEFT JOIN samples s ON s.job = r.job" FILTER "GROUP BY r.job ORDER BY r.job";

static void put_json_number(FILE *out, double v)
{
    if (isfinite(v))
        fprintf(out, "%.9g", v);
    else
        fputs("null", out);
}

static enum err_code write_json_line(void *arg, const struct store_row *row, struct err *e)
{
    struct writing *w = arg;
    const char *object = store_col_text(row, 1);
    if (!w->what->has_samples || store_col_is_null(row, 2)) {
        fprintf(w->out, "%s\n", object);
        return ERR_OK;
    }
    TRY(export_unpack(w->what, row, 0, 2, &w->sample, e));
    fprintf(w->out, "%.*s,\"samples\":[", (int)strlen(object) - 1, object);
    size_t width = (size_t)w->sample.width;
    for (size_t i = 0; i < w->sample.n; i++) {
        fputs(i % width == 0 ? (i > 0 ? ",[" : "[") : ",", w->out);
        put_json_number(w->out, (double)w->sample.values[i]);
        if (i % width == width - 1)
            putc(']', w->out);
    }
    fputs("]}\n", w->out);
    return ERR_OK;
}

enum err_code export_jsonl(const struct export_what *w, FILE *out, struct err *e)
{
    return run_query(w, out, jsonl_sql, write_json_line, e);
}

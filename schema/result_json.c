/* RESULT's `result` as it arrives: read from the text, since a coordinator reads little else (base/json_text.h). */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "schema/job_json.h"

/* What a message may claim, far above what any model or data set needs. */
enum { METRICS_MAX = 64, CHOICES_MAX = 64 };
static const int64_t count_max = (int64_t)1 << 53, items_max = 20 << 20;
static const char stderr_suffix[] = "_stderr";

/* What is read from, and what the strings belong to. */
struct source {
    const struct json_text *t;
    struct arena *a;
    struct err *e;
};

static enum err_code opt_int(const struct source *s, int object, const char *name, int64_t max,
                             int64_t *out)
{
    if (json_text_is_null(s->t, json_text_get(s->t, object, name)))
        return ERR_OK;
    return json_text_int(s->t, object, name, 0, max, out, s->e);
}

static enum err_code opt_num(const struct source *s, int object, const char *name, double *out)
{
    if (json_text_is_null(s->t, json_text_get(s->t, object, name)))
        return ERR_OK;
    return json_text_num(s->t, object, name, out, s->e);
}

static enum err_code read_bits(const struct source *s, int result, struct bits *b)
{
    int o = 0;
    TRY(json_text_obj(s->t, result, "bits", &o, s->e));
    TRY(opt_num(s, o, "per_param", &b->per_param));
    TRY(opt_num(s, o, "total_nominal", &b->total_nominal));
    TRY(opt_int(s, o, "total_full", INT64_MAX, &b->total_full));
    TRY(opt_int(s, o, "total_linear", INT64_MAX, &b->total_linear));
    return opt_int(s, o, "uncharged", INT64_MAX, &b->uncharged);
}

/* null stands for what JSON cannot carry: NaN. */
static enum err_code number_or_nan(const struct source *s, int object, const char *name,
                                   double *out)
{
    *out = NAN;
    return opt_num(s, object, name, out);
}

/* "acc_stderr" belongs to "acc" when there is an "acc"; else it is a metric of its own. */
static bool is_stderr_of_another(const struct source *s, int metrics, const char *name)
{
    struct str z = str_of(name);
    if (!str_ends(z, stderr_suffix))
        return false;
    const char *base = arena_strndup(s->a, name, z.n - strlen(stderr_suffix));
    return json_text_get(s->t, metrics, base) >= 0;
}

static enum err_code read_metrics(const struct source *s, int result, struct job_result *r)
{
    int metrics = 0, n = 0;
    TRY(json_text_obj(s->t, result, "metrics", &metrics, s->e));
    int counts = json_text_get(s->t, result, "metric_n");
    const struct json_token *v = s->t->v;
    struct metric *out = arena_array(s->a, METRICS_MAX, sizeof(*out));
    for (int i = metrics + 1; i < v[metrics].next; i = v[i + 1].next) {
        const char *name = arena_strndup(s->a, v[i].text.p, v[i].text.n);
        if (is_stderr_of_another(s, metrics, name))
            continue;
        if (n == METRICS_MAX)
            return err_set(s->e, ERR_FORMAT, "%s: more than %d metrics", s->t->what, METRICS_MAX);
        struct metric *m = &out[n++];
        m->name = name;
        TRY(number_or_nan(s, metrics, name, &m->value));
        TRY(number_or_nan(s, metrics, arena_printf(s->a, "%s%s", name, stderr_suffix),
                          &m->stderr_));
        TRY(opt_int(s, counts, name, count_max, &m->n));
    }
    r->metrics = out;
    r->n_metrics = n;
    return ERR_OK;
}

static enum err_code read_sha256(const struct source *s, int object, const char *name, char out[65])
{
    int at = json_text_get(s->t, object, name);
    struct str hex = at >= 0 ? s->t->v[at].text : (struct str){0};
    bool is_hex = at >= 0 && s->t->v[at].kind == JSON_KIND_STRING && (hex.n == 0 || hex.n == 64);
    for (size_t i = 0; i < hex.n && is_hex; i++)
        is_hex = (hex.p[i] >= '0' && hex.p[i] <= '9') || (hex.p[i] >= 'a' && hex.p[i] <= 'f');
    if (!is_hex)
        return err_set(s->e, ERR_FORMAT, "%s: \"%s\" must be 64 lower-case hexadecimal digits",
                       s->t->what, name);
    memcpy(out, hex.p, hex.n);
    out[hex.n] = '\0';
    return ERR_OK;
}

static enum err_code read_identity(const struct source *s, int result, struct job_result *r)
{
    int o = 0;
    TRY(json_text_obj(s->t, result, "identity", &o, s->e));
    TRY(read_sha256(s, o, "weights_sha256", r->weights_sha256));
    TRY(read_sha256(s, o, "data_sha256", r->data_sha256));
    TRY(read_sha256(s, o, "tokenizer_sha256", r->tokenizer_sha256));
    if (!json_text_is_null(s->t, json_text_get(s->t, o, "items_sha256")))
        TRY(read_sha256(s, o, "items_sha256", r->items_sha256));
    return json_text_str(s->t, o, "program", s->a, &r->program, s->e);
}

enum err_code job_result_from_text(const struct json_text *t, int result, struct arena *a,
                                   struct job_result *out, struct err *e)
{
    const struct source s = {t, a, e};
    struct job_result r = {0};
    int64_t per_item = 0;
    TRY(read_metrics(&s, result, &r));
    TRY(json_text_int(t, result, "n", 0, count_max, &r.n, e));
    TRY(json_text_int(t, result, "tokens", 0, count_max, &r.tokens, e));
    TRY(opt_num(&s, result, "seconds", &r.seconds));
    TRY(read_bits(&s, result, &r.bits));
    TRY(json_text_int(t, result, "n_params", 0, count_max, &r.n_params, e));
    TRY(json_text_int(t, result, "n_params_linear", 0, count_max, &r.n_params_linear, e));
    TRY(opt_int(&s, result, "weights_read", count_max, &r.weights_read));
    TRY(opt_int(&s, result, "n_items", items_max, &r.n_items));
    TRY(opt_int(&s, result, "per_item", CHOICES_MAX, &per_item));
    r.per_item = (int)per_item;
    TRY(json_text_str(t, result, "device", a, &r.device, e));
    TRY(read_identity(&s, result, &r));
    *out = r;
    return ERR_OK;
}

#include "worker/eval/items.h"

#include <math.h>
#include <string.h>

#include "base/io.h"
#include "worker/eval/data.h"
#include "worker/eval/requests.h"
#include "worker/eval/stats.h"
#include "worker/tok/text.h"

enum { MAX_METRICS = 12, PROGRESS_EVERY = 64 };

enum err_code items_need_text(const json_t *record, const char *key, const char *where,
                              struct str *out, struct err *e)
{
    const char *text = NULL;
    TRY(json_need_str(record, key, where, &text, e));
    *out = (struct str){text, json_string_length(json_object_get(record, key))};
    return ERR_OK;
}

enum err_code items_need_gold(const json_t *record, const char *key, const char *where, int base,
                              int n_choices, int *out, struct err *e)
{
    const json_t *v = json_object_get(record, key);
    int64_t n = INT64_MIN;
    if (json_is_integer(v))
        n = json_integer_value(v);
    else if (!json_is_string(v) || !parse_i64(str_of(json_string_value(v)), &n))
        n = INT64_MIN;
    if (n < base || n >= base + n_choices)
        return err_set(e, ERR_FORMAT,
                       "%s: \"%s\" must be a number from %d to %d: use a file with answers", where,
                       key, base, base + n_choices - 1);
    *out = (int)n - base;
    return ERR_OK;
}

struct str items_concat(struct arena *a, struct str first, struct str second)
{
    char *p = arena_alloc(a, first.n + second.n + 1);
    if (first.n != 0)
        memcpy(p, first.p, first.n);
    if (second.n != 0)
        memcpy(p + first.n, second.p, second.n);
    return (struct str){p, first.n + second.n};
}

/* Gold of the next line of a labels file: one digit per line, aligned with the records. */
static enum err_code next_label(struct data_reader *labels, int n_choices, int *gold, struct err *e)
{
    struct str line = {0};
    bool has_line = false;
    int64_t n = -1;
    TRY(data_next_line(labels, &line, &has_line, e));
    if (!has_line)
        return err_set(e, ERR_FORMAT,
                       "%s: ends here, but the data file has more records; each needs its label",
                       data_where(labels));
    if (!parse_i64(str_trim(line), &n) || n < 0 || n >= n_choices)
        return err_set(e, ERR_FORMAT, "%s: expected a label from 0 to %d", data_where(labels),
                       n_choices - 1);
    *gold = (int)n;
    return ERR_OK;
}

static enum err_code add_item(const struct eval_source *src, const struct task_item *item,
                              const char *where, struct eval_set *set, struct err *e)
{
    requests_begin_item(set, item->gold);
    for (int i = 0; i < item->n_choices; i++) {
        int32_t n_scored = 0;
        struct str text = item->continuation[i];
        if (requests_add_text(set, src, item->context[i], text, &n_scored, e) != ERR_OK)
            return err_wrap(e, "%s: choice %d", where, i + 1);
        /* Lengths are those of the choice without the space that joins it to the context. */
        if (text.n > 0 && text.p[0] == ' ')
            text = (struct str){text.p + 1, text.n - 1};
        requests_add_choice(set, text_count_chars(text), (int64_t)text.n, n_scored);
    }
    return ERR_OK;
}

/* Reads records until the file or the limit ends. `labels` may be NULL. */
static enum err_code read_items(const struct eval_source *src, const struct task_ops *ops,
                                struct data_reader *data, struct data_reader *labels,
                                struct eval_set *set, struct err *e)
{
    int64_t limit = src->spec->limit != 0 ? src->spec->limit : INT64_MAX;
    struct arena texts = {0};
    enum err_code rc = ERR_OK;
    while (rc == ERR_OK && set->n_items < limit) {
        struct task_item item = {.gold = -1};
        json_t *record = NULL;
        rc = data_next_record(data, &record, e);
        if (rc != ERR_OK || record == NULL)
            break;
        rc = ops->parse(record, data_where(data), &texts, &item, e);
        if (rc == ERR_OK && labels != NULL)
            rc = next_label(labels, item.n_choices, &item.gold, e);
        if (rc == ERR_OK)
            rc = add_item(src, &item, data_where(data), set, e);
        json_decref(record);
        arena_release(&texts);
        bool is_asked = set->n_items % PROGRESS_EVERY == 0 && src->progress != NULL;
        if (rc == ERR_OK && is_asked && src->progress(src->progress_arg))
            rc = err_set(e, ERR_STOPPED, "stopped while reading %s", src->spec->data_path);
    }
    arena_release(&texts);
    return rc;
}

enum err_code items_load(const struct eval_source *src, const struct task_ops *ops,
                         struct eval_set *set, struct err *e)
{
    const struct eval_spec *spec = src->spec;
    struct data_reader *data = NULL, *labels = NULL;
    char *labels_path = ops->has_labels_file ? eval_labels_path(spec->data_path) : NULL;
    enum err_code rc = data_open(spec->data_path, &data, e);
    if (rc == ERR_OK && labels_path != NULL) {
        rc = data_open(labels_path, &labels, e);
        if (rc != ERR_OK)
            err_wrap(e, "%s needs its labels beside it", spec->data_path);
    }
    if (rc == ERR_OK)
        rc = read_items(src, ops, data, labels, set, e);
    if (rc == ERR_OK && set->n_items == 0)
        rc = err_set(e, ERR_FORMAT, "%s: no records; expected JSON lines", spec->data_path);
    if (rc == ERR_OK)
        rc = data_identity(spec->data_path, labels_path, spec->data, set->data_sha256, e);
    data_close(labels);
    data_close(data);
    xfree(labels_path);
    return rc;
}

void items_add_metric(struct job_result *out, struct arena *a, const char *name, struct estimate v,
                      int64_t n)
{
    struct metric *list = (struct metric *)out->metrics;
    if (list == NULL)
        list = arena_array(a, MAX_METRICS, sizeof(*list));
    CHECK(out->n_metrics < MAX_METRICS);
    list[out->n_metrics++] =
        (struct metric){.name = name, .value = v.value, .stderr_ = v.stderr_, .n = n};
    out->metrics = list;
}

void items_add_samples(const struct eval_set *set, const struct eval_scores *s,
                       struct job_result *out, struct arena *a)
{
    float *samples = arena_array(a, (size_t)set->n_requests, sizeof(*samples));
    for (int64_t i = 0; i < set->n_requests; i++)
        samples[i] = (float)s->ll[i];
    out->samples = samples;
    out->n_items = set->n_items;
    out->per_item = set->n_choices;
}

/* First maximum of ll[i] / len[i]; len NULL: of ll[i]. A choice without characters divides by zero, as in the reference
 * implementation: -inf, which never wins. */
static int best_choice(const double *ll, const int32_t *len, int n)
{
    int best = 0;
    double best_value = -INFINITY;
    for (int i = 0; i < n; i++) {
        double v = len != NULL ? ll[i] / len[i] : ll[i];
        if (v > best_value) {
            best = i;
            best_value = v;
        }
    }
    return best;
}

static int64_t count_hits(const struct eval_set *set, const struct eval_scores *s,
                          const int32_t *len)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < set->n_items; i++) {
        int64_t at = i * set->n_choices;
        const int32_t *item_len = len != NULL ? len + at : NULL;
        hits += best_choice(s->ll + at, item_len, set->n_choices) == set->gold.v[i];
    }
    return hits;
}

static void add_share(const struct eval_set *set, const struct eval_scores *s, const char *name,
                      const int32_t *len, struct job_result *out, struct arena *a)
{
    int64_t n = set->n_items;
    items_add_metric(out, a, name, stats_share(count_hits(set, s, len), n), n);
}

void items_score_choice(const struct eval_set *set, const struct eval_scores *s,
                        struct job_result *out, struct arena *a)
{
    add_share(set, s, "acc", NULL, out, a);
    items_add_samples(set, s, out, a);
}

void items_score_normed_choice(const struct eval_set *set, const struct eval_scores *s,
                               struct job_result *out, struct arena *a)
{
    add_share(set, s, "acc", NULL, out, a);
    add_share(set, s, "acc_norm", set->chars.v, out, a);
    add_share(set, s, "acc_bytes", set->bytes.v, out, a);
    items_add_samples(set, s, out, a);
}

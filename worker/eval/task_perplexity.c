/* Perplexity of text (evaluation spec, section 6). Two methods:
 *   strided  one token stream, cut into windows that do not overlap; each predicts its tokens 1..window-1, the tail is
 *            dropped (6.4). Documents of a JSON lines file are joined by an empty line first.
 *   rolling  document by document; every token is scored once, windows never cross documents (6.1).
 * An item is a window or a document. Sums over the corpus come first, one exponential at the end. bits_per_byte counts
 * the UTF-8 bytes of what was scored: whole documents when rolling, the text of tokens 1..window-1 of each window (as
 * the tokenizer decodes them) when strided. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "worker/eval/data.h"
#include "worker/eval/items.h"
#include "worker/eval/requests.h"
#include "worker/eval/stats.h"
#include "worker/eval/windows.h"
#include "worker/tok/text.h"

/* Tokens of a window: what was asked for, at most the model's context. */
static enum err_code window_of(const struct eval_source *src, int32_t *window, struct err *e)
{
    int64_t n = src->spec->window != 0 ? src->spec->window : src->context;
    if (n < 2 || n > src->context)
        return err_set(
            e, ERR_FORMAT,
            "window %lld: expected 2 to %lld tokens, the model's context (or \"context\")",
            (long long)n, (long long)src->context);
    *window = (int32_t)n;
    return ERR_OK;
}

/* An evaluation over fewer tokens than asked for must say so. */
static void warn_short(const struct eval_source *src, int64_t found)
{
    if (found < src->spec->max_tokens)
        log_event(LOG_WARN, "eval", "short", "data=\"%s\" tokens=%lld max_tokens=%lld",
                  src->spec->data, (long long)found, (long long)src->spec->max_tokens);
}

/* ---- strided ---- */

static enum err_code load_strided(const struct eval_source *src, struct data_reader *r,
                                  struct eval_set *set, struct err *e)
{
    const struct eval_spec *spec = src->spec;
    int32_t window = 0;
    TRY(window_of(src, &window, e));
    TRY(windows_read(src, r, set, e));
    warn_short(src, (int64_t)set->tokens.n);
    if (spec->max_tokens != 0 && set->tokens.n > (size_t)spec->max_tokens)
        set->tokens.n = (size_t)spec->max_tokens;
    return windows_add(src, set, window, spec->limit, e);
}

/* ---- rolling ---- */

/* Windows over tokens[start] (the prefix) and its document of n tokens behind it. With t_j the document's tokens and
 * `limit` the most inputs of a window:  [P t_0 ... | scores t_0 ...], then windows of at most `limit` scored tokens; the
 * last, shorter one is padded with older tokens on the left. */
static void add_document(struct eval_set *set, size_t start, int64_t n, int64_t limit)
{
    for (int64_t done = 0; done < n;) {
        int64_t scored = n - done < limit ? n - done : limit;
        int64_t end = done + scored;
        int64_t n_span = (done == 0 ? scored : limit) + 1;
        requests_add_span(set, start + (size_t)(end + 1 - n_span), (int32_t)n_span,
                          (int32_t)scored);
        done = end;
    }
}

struct rolling {
    const struct eval_source *src;
    int32_t limit, prefix;
    int64_t n_tokens;
    bool is_full; /* the next document would pass max_tokens */
};

static enum err_code roll_document(struct rolling *roll, struct str text, struct eval_set *set,
                                   struct err *e)
{
    const struct eval_spec *spec = roll->src->spec;
    size_t start = set->tokens.n;
    tok_ids_push(&set->tokens, roll->prefix);
    TRY(requests_encode(roll->src, text, &set->tokens, e));
    int64_t n = (int64_t)(set->tokens.n - start - 1);
    roll->is_full = spec->max_tokens != 0 && roll->n_tokens + n > spec->max_tokens;
    if (roll->is_full) {
        set->tokens.n = start;
        return ERR_OK;
    }
    requests_begin_item(set, -1);
    requests_add_choice(set, text_count_chars(text), (int64_t)text.n, n);
    add_document(set, start, n, roll->limit);
    roll->n_tokens += n;
    if (roll->src->progress != NULL && roll->src->progress(roll->src->progress_arg))
        return err_set(e, ERR_STOPPED, "stopped while reading");
    return ERR_OK;
}

static enum err_code roll_records(struct rolling *roll, struct data_reader *r, struct eval_set *set,
                                  struct err *e)
{
    int64_t limit = roll->src->spec->limit;
    while (!roll->is_full && (limit == 0 || set->n_items < limit)) {
        json_t *record = NULL;
        struct str text = {0};
        TRY(windows_next_document(roll->src, r, &record, &text, e));
        if (record == NULL) {
            warn_short(roll->src, roll->n_tokens);
            break;
        }
        enum err_code rc = roll_document(roll, text, set, e);
        json_decref(record);
        if (rc != ERR_OK)
            return err_wrap(e, "%s", data_where(r));
    }
    return ERR_OK;
}

/* A plain text file is one document. */
static enum err_code roll_text(struct rolling *roll, struct data_reader *r, struct eval_set *set,
                               struct err *e)
{
    struct buf text = {0};
    TRY(data_read_rest(r, &text, e));
    enum err_code rc = roll_document(roll, (struct str){text.data, text.len}, set, e);
    buf_release(&text);
    return rc;
}

static enum err_code load_rolling(const struct eval_source *src, struct data_reader *r,
                                  struct eval_set *set, struct err *e)
{
    struct rolling roll = {.src = src};
    TRY(window_of(src, &roll.limit, e));
    TRY(requests_prefix(src, &roll.prefix, e));
    TRY((data_is_jsonl(src->spec->data) ? roll_records : roll_text)(&roll, r, set, e));
    if (set->n_requests > 0)
        return ERR_OK;
    if (roll.is_full)
        return err_set(e, ERR_FORMAT, "%s: the first document has more than max_tokens %lld tokens",
                       src->spec->data_path, (long long)src->spec->max_tokens);
    const char *subset = src->spec->subset;
    return err_set(e, ERR_FORMAT, "%s: no text to score%s%s", src->spec->data_path,
                   subset != NULL ? " in subset " : "", subset != NULL ? subset : "");
}

static enum err_code perplexity_load(const struct eval_source *src, struct eval_set *set,
                                     struct err *e)
{
    const struct eval_spec *spec = src->spec;
    struct data_reader *r = NULL;
    if (spec->subset != NULL && !data_is_jsonl(spec->data))
        return err_set(e, ERR_FORMAT, "%s: a subset needs a .jsonl or .jsonl.zst file", spec->data);
    TRY(data_open(spec->data_path, &r, e));
    enum err_code rc =
        (spec->method == METHOD_ROLLING ? load_rolling : load_strided)(src, r, set, e);
    data_close(r);
    TRY(rc);
    return data_identity(spec->data_path, NULL, spec->data, set->data_sha256, e);
}

/* ---- metrics ---- */

static void add_comparison(const struct eval_scores *s, struct job_result *out, struct arena *a)
{
    int64_t same = 0;
    for (int64_t i = 0; i < s->n_kl; i++)
        same += s->same_top[i];
    items_add_metric(out, a, "kl_to_16bit", stats_mean(s->kl, s->n_kl), s->n_kl);
    items_add_metric(out, a, "same_top", stats_share(same, s->n_kl), s->n_kl);
    items_add_metric(out, a, "kl_positions", (struct estimate){(double)s->n_kl, NAN}, s->n_kl);
}

static void perplexity_score(const struct eval_set *set, const struct eval_scores *s,
                             struct job_result *out, struct arena *a)
{
    size_t n = (size_t)set->n_items;
    double *nll = arena_array(a, n, sizeof(*nll)), *bits = arena_array(a, n, sizeof(*bits));
    double *tokens = arena_array(a, n, sizeof(*tokens)), *bytes = arena_array(a, n, sizeof(*bytes));
    float *samples = arena_array(a, n, sizeof(*samples));
    int64_t n_tokens = 0;
    for (size_t i = 0; i < n; i++) {
        for (int64_t r = set->first[i]; r < set->first[i + 1]; r++)
            nll[i] -= s->ll[r];
        bits[i] = nll[i] / log(2);
        tokens[i] = set->n_scored.v[i];
        bytes[i] = set->bytes.v[i];
        samples[i] = (float)-nll[i];
        n_tokens += set->n_scored.v[i];
    }
    struct estimate mean = stats_ratio(nll, tokens, set->n_items);
    items_add_metric(out, a, "nll", mean, n_tokens);
    items_add_metric(out, a, "perplexity", stats_exp(mean), n_tokens);
    items_add_metric(out, a, "bits_per_byte", stats_ratio(bits, bytes, set->n_items), n_tokens);
    items_add_metric(out, a, "tokens", (struct estimate){(double)n_tokens, NAN}, n_tokens);
    if (s->n_kl > 0)
        add_comparison(s, out, a);
    out->samples = samples;
    out->n_items = set->n_items;
    out->per_item = 1;
}

const struct task_ops task_ops_perplexity = {
    .load = perplexity_load,
    .score = perplexity_score,
};

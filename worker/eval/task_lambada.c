/* LAMBADA (openai variant): the last word of a passage. acc: all its tokens are the arg max; perplexity: exp of minus
 * the mean log-likelihood of the word, summed over its tokens. */
#include <math.h>

#include "worker/eval/items.h"
#include "worker/eval/stats.h"

/* Splits at the last space character only: a newline may stand inside the target. */
static enum err_code lambada_parse(const json_t *record, const char *where, struct arena *a,
                                   struct task_item *out, struct err *e)
{
    struct str text = {0};
    TRY(items_need_text(record, "text", where, &text, e));
    size_t at = text.n;
    while (at > 0 && text.p[at - 1] != ' ')
        at--;
    if (at == 0 || at == text.n)
        return err_set(e, ERR_FORMAT, "%s: \"text\" must end in a space and a word", where);
    out->n_choices = 1;
    out->context[0] = items_concat(a, (struct str){text.p, at - 1}, STR(""));
    out->continuation[0] = items_concat(a, (struct str){text.p + at - 1, text.n - at + 1}, STR(""));
    return ERR_OK;
}

static void lambada_score(const struct eval_set *set, const struct eval_scores *s,
                          struct job_result *out, struct arena *a)
{
    int64_t n = set->n_items, hits = 0;
    double *nll = arena_array(a, (size_t)n, sizeof(*nll));
    float *samples = arena_array(a, (size_t)n, 2 * sizeof(*samples));
    for (int64_t i = 0; i < n; i++) {
        hits += s->is_greedy[i];
        nll[i] = -s->ll[i];
        samples[2 * i] = (float)s->ll[i];
        samples[2 * i + 1] = s->is_greedy[i];
    }
    items_add_metric(out, a, "acc", stats_share(hits, n), n);
    items_add_metric(out, a, "perplexity", stats_exp(stats_mean(nll, n)), n);
    out->samples = samples;
    out->n_items = n;
    out->per_item = 2;
}

const struct task_ops task_ops_lambada = {
    .parse = lambada_parse,
    .score = lambada_score,
};

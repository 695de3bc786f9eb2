/* Does the spread of a unit's weights tell the size of its output (claim C32; table 2 of the first paper)? One forward
 * pass over the first windows of a text; per layer and pair of model_magnitude.h the rank correlation over units between
 * the standard deviation of a unit's weights and the mean magnitude of its output. A metric is the mean over layers; its
 * standard error treats layers as the observations. An item is a window. */
#include <math.h>

#include "worker/eval/data.h"
#include "worker/eval/items.h"
#include "worker/eval/stats.h"
#include "worker/eval/windows.h"
#include "worker/model/model_magnitude.h"

/* Tokens that make up the pass unless `limit` says how many windows: means over that many have settled. */
enum { PASS_TOKENS = 4096 };

static enum err_code load(const struct eval_source *src, struct eval_set *set, struct err *e)
{
    int64_t usual = src->context < PASS_TOKENS ? PASS_TOKENS / src->context : 1;
    int64_t limit = src->spec->limit != 0 ? src->spec->limit : usual;
    struct data_reader *r = NULL;
    TRY(data_open(src->spec->data_path, &r, e));
    enum err_code rc = windows_read(src, r, set, e);
    data_close(r);
    TRY(rc);
    TRY(windows_add(src, set, (int32_t)src->context, limit, e));
    return data_identity(src->spec->data_path, NULL, src->spec->data, set->data_sha256, e);
}

/* Layers in which one side is constant have no correlation and are left out. */
static struct estimate mean_over_layers(const struct model_magnitudes *m, enum model_pair pair,
                                        struct arena *a, int64_t *n)
{
    double *rho = arena_array(a, (size_t)m->n_layers, sizeof(*rho));
    *n = 0;
    for (int layer = 0; layer < m->n_layers; layer++) {
        double one = stats_spearman(model_magnitudes_spread(m, pair, layer),
                                    model_magnitudes_sum(m, pair, layer), m->n_units[pair]);
        if (isfinite(one))
            rho[(*n)++] = one;
    }
    return *n > 0 ? stats_mean(rho, *n) : (struct estimate){NAN, NAN};
}

static void score(const struct eval_set *set, const struct eval_scores *s, struct job_result *out,
                  struct arena *a)
{
    static const char *const names[MODEL_PAIRS] = {
        [MODEL_PAIR_FFN1_RELU] = "spearman_ffn1_relu",
        [MODEL_PAIR_KVQ_ATTN] = "spearman_kvq_attn",
        [MODEL_PAIR_ATTN_FFN1] = "spearman_attn_ffn1",
    };
    for (int i = 0; i < MODEL_PAIRS; i++) {
        int64_t n;
        struct estimate mean = mean_over_layers(s->magnitudes, (enum model_pair)i, a, &n);
        items_add_metric(out, a, names[i], mean, n);
    }
    items_add_samples(set, s, out, a);
}

const struct task_ops task_ops_weight_std = {
    .load = load,
    .score = score,
    .needs_magnitudes = true,
};

/* Claims about the study as a whole, about the metrics, and those that are arithmetic. */
#include <math.h>
#include <string.h>

#include "analysis/bootstrap.h"
#include "analysis/claims_impl.h"
#include "analysis/stat.h"
#include "schema/bits.h"

void claim_runs(struct claim_ctx *c)
{
    static const double many = 35000;
    const struct claims_facts *facts = c->in->facts;
    double n = facts != NULL && (double)facts->n_done >= many ? (double)facts->n_done : NAN;
    claim_set(c, 1);
    claim_state_exact(c, AT_LEAST(many), n, "finished jobs");
}

/* ---- correlation of the metrics ---- */

struct pairs {
    double *x, *y;
    int n;
};

enum perplexity_kind { PERPLEXITY_CAPPED, PERPLEXITY_LOG, PERPLEXITY_UNCAPPED };

static double perplexity_as(const struct claim_ctx *c, int row, enum perplexity_kind kind)
{
    switch (kind) {
    case PERPLEXITY_CAPPED:
        return fmin(exp(c->nll[row]), 100);
    case PERPLEXITY_LOG:
        return c->nll[row];
    case PERPLEXITY_UNCAPPED:
        return exp(c->in->frame->rows[row].raw_nll);
    }
    BUG("a kind of perplexity");
}

static double correlate(struct claim_ctx *c, enum perplexity_kind kind, bool has_pythia)
{
    enum { FEW = 10 };
    size_t room = (size_t)c->world->n_rows + 1;
    struct pairs p = {arena_array(c->scratch, room, sizeof(double)),
                      arena_array(c->scratch, room, sizeof(double)), 0};
    for (int i = 0; i < c->world->n_rows; i++) {
        int row = c->world->rows[i];
        const char *family = c->in->frame->rows[row].family;
        double perplexity = perplexity_as(c, row, kind);
        if (!isfinite(c->zero_shot[row]) || !isfinite(perplexity) ||
            (!has_pythia && strcmp(family, "pythia") == 0))
            continue;
        p.x[p.n] = c->zero_shot[row];
        p.y[p.n++] = perplexity;
        if (c->used != NULL)
            c->used[row] = true;
    }
    return p.n >= FEW ? stat_pearson(p.x, p.y, p.n) : NAN;
}

void claim_correlation(struct claim_ctx *c)
{
    claim_set(c, 1);
    claim_state(c, AT_MOST(-0.9), correlate(c, PERPLEXITY_CAPPED, true),
                "r with perplexity capped at 100");
    claim_range(c, -1, 1);
    claim_state(c, TOLD, correlate(c, PERPLEXITY_CAPPED, false), "the same without Pythia");
    claim_state(c, TOLD, correlate(c, PERPLEXITY_LOG, true), "r with log perplexity");
    /* The bootstrap only knows capped values: this number has no interval. */
    claim_state_exact(c, TOLD, c->is_first ? correlate(c, PERPLEXITY_UNCAPPED, true) : NAN,
                      "r with perplexity as measured");
}

/* ---- arithmetic ---- */

static double gigabytes(double n_params, int k, int64_t block)
{
    struct config config = config_default();
    config.k = k;
    config.block = block;
    return bits_nominal_per_param(&config, (int64_t)1 << 30) * n_params / 8 / 1e9;
}

void claim_memory(struct claim_ctx *c)
{
    static const double memory = 48;
    claim_set(c, 1);
    claim_state_exact(c, AT_MOST(memory), gigabytes(66e9, 5, 64), "66B at 5 bit");
    claim_state_exact(c, AT_LEAST(memory), gigabytes(175e9, 4, 0), "175B at 4 bit");
}

/* ---- weights and what they put out (paper table 2) ---- */

void claim_weight_std(struct claim_ctx *c)
{
    enum { MAX_MODELS = 64 };
    const struct claims_facts *facts = c->in->facts;
    int n = facts != NULL ? facts->n_weight_std : 0;
    n = n < MAX_MODELS ? n : MAX_MODELS;
    double size[MAX_MODELS], ffn[MAX_MODELS];
    double control = NAN, least = NAN;
    for (int i = 0; i < n; i++) {
        size[i] = facts->weight_std[i].n_params;
        ffn[i] = facts->weight_std[i].ffn;
        control = fmax(control, fabs(facts->weight_std[i].control));
        least = fmin(least, ffn[i]);
    }
    bool has_data = n >= CLAIM_MIN_SIZES;
    claim_set(c, 1);
    claim_state_exact(c, AT_MOST(0.12), has_data ? control : NAN, "largest control, absolute");
    claim_state_exact(c, AT_LEAST(0.5), has_data ? least : NAN, "least of attention output / FFN1");
    claim_state_exact(c, AT_LEAST(0.8), has_data ? stat_spearman(size, ffn, n) : NAN,
                      "its rank correlation with size");
}

/* ---- noise of the metrics ---- */

static double spread_of_row(const double *draws, int n_resamples, int n_rows, int row,
                            double *column)
{
    int n = 0;
    for (int r = 0; r < n_resamples; r++) {
        double v = draws[(size_t)r * (size_t)n_rows + (size_t)row];
        if (isfinite(v))
            column[n++] = v;
    }
    return n == n_resamples ? spread_of(column, n) : NAN;
}

/* Mean standard error of a model's configurations over their range; rows [from, to) of the list are the model's. */
static double relative_noise(struct claim_ctx *c, const int *rows, int n, enum metric_id m)
{
    const double *draws = m == METRIC_NLL ? c->in->nll : c->in->zero_shot;
    const double *values = m == METRIC_NLL ? c->nll : c->zero_shot;
    const bool *has_items = m == METRIC_NLL ? c->in->has_nll_items : c->in->has_zero_shot_items;
    double *column = arena_array(c->scratch, (size_t)c->in->n_resamples, sizeof(*column));
    struct mean error = {0};
    double low = NAN, high = NAN;
    for (int i = 0; i < n; i++) {
        if (!isfinite(values[rows[i]]) || (has_items != NULL && !has_items[rows[i]]))
            continue;
        double spread = spread_of_row(draws, c->in->n_resamples, c->in->frame->n, rows[i], column);
        mean_add(&error, spread > 0 ? spread : NAN);
        low = fmin(low, values[rows[i]]);
        high = fmax(high, values[rows[i]]);
        if (c->used != NULL)
            c->used[rows[i]] = true;
    }
    return high > low ? mean_of(&error) / (high - low) : NAN;
}

static bool is_same_model(const struct frame_row *x, const struct frame_row *y)
{
    return strcmp(x->family, y->family) == 0 && strcmp(x->size, y->size) == 0 &&
           x->model_id == y->model_id;
}

/* Rows are in the order of models (pick_rows). */
static double share_of_quiet_models(struct claim_ctx *c)
{
    const struct world *w = c->world;
    struct mean quiet = {0};
    if (c->in->zero_shot == NULL || c->in->nll == NULL)
        return NAN;
    for (int i = 0; i < w->n_rows;) {
        int j = i;
        while (j < w->n_rows &&
               is_same_model(&c->in->frame->rows[w->rows[i]], &c->in->frame->rows[w->rows[j]]))
            j++;
        double nll = relative_noise(c, w->rows + i, j - i, METRIC_NLL);
        double accuracy = relative_noise(c, w->rows + i, j - i, METRIC_ZERO_SHOT);
        mean_add(&quiet, isnan(nll) || isnan(accuracy) ? NAN : nll < accuracy);
        i = j;
    }
    return mean_of(&quiet);
}

void claim_less_noisy(struct claim_ctx *c)
{
    const struct claims_facts *facts = c->in->facts;
    int n = facts != NULL ? facts->n_ranks : 0;
    double *ahead = arena_array(c->scratch, (size_t)n + 1, sizeof(*ahead));
    for (int i = 0; i < n; i++)
        ahead[i] = facts->ranks[i].halves_nll - facts->ranks[i].halves_zero_shot;
    claim_set(c, 1);
    claim_state_exact(c, AT_LEAST(0.9), c->is_first ? share_of_quiet_models(c) : NAN,
                      "share of models with less noise in cross entropy");
    claim_set(c, 1);
    claim_state_mean(c, AT_LEAST(0), ahead, n,
                     "rank agreement of halves, cross entropy over accuracy");
}

void claim_few_samples(struct claim_ctx *c)
{
    const struct claims_facts *facts = c->in->facts;
    int n = facts != NULL ? facts->n_ranks : 0;
    double *agreement = arena_array(c->scratch, (size_t)n + 1, sizeof(*agreement));
    for (int i = 0; i < n; i++)
        agreement[i] = facts->ranks[i].short_long;
    claim_set(c, 1);
    claim_state_mean(c, AT_LEAST(0.98), agreement, n, "Spearman, mean over models");
}

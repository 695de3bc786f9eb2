/* What the claims need beside the frame: counts, rankings from parts of the items, correlations of weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/claims.h"
#include "analysis/stat.h"
#include "base/proc.h"
#include "schema/store_work.h"

/* ---- rankings of a model's configurations ---- */

struct ranked_row {
    const struct frame_row *row;
};

static int compare_model(const void *a, const void *b)
{
    const struct frame_row *x = ((const struct ranked_row *)a)->row;
    const struct frame_row *y = ((const struct ranked_row *)b)->row;
    if (x->model_id != y->model_id)
        return x->model_id < y->model_id ? -1 : 1;
    if (x->compute != y->compute && strcmp(x->compute, y->compute) != 0)
        return strcmp(x->compute, y->compute);
    if (x->config_id != y->config_id)
        return x->config_id < y->config_id ? -1 : 1;
    return 0;
}

static bool is_same_ranking(const struct frame_row *x, const struct frame_row *y)
{
    return x->model_id == y->model_id && strcmp(x->compute, y->compute) == 0;
}

/* How many documents hold this many tokens; -1: not that many. */
static int documents_for(const struct item_job *j, double tokens)
{
    double sum = 0;
    for (int i = 0; i < j->n; i++) {
        sum += j->tokens[i];
        if (sum >= tokens)
            return i + 1;
    }
    return -1;
}

/* Pairs of numbers per configuration, to be correlated. */
struct rank_pairs {
    double *x, *y;
    int n;
};

static void add_pair(struct rank_pairs *p, double x, double y)
{
    if (!isfinite(x) || !isfinite(y))
        return;
    p->x[p->n] = x;
    p->y[p->n++] = y;
}

static double agreement(const struct rank_pairs *p)
{
    enum { FEW = 5 };
    return p->n >= FEW ? stat_spearman(p->x, p->y, p->n) : NAN;
}

/* Mean accuracy over the tasks in one half of the items each; NaN unless all tasks are there. */
static double half_accuracy(const struct frame_row *row, const struct items *items, int half)
{
    double sum = 0;
    int n = 0;
    for (int t = 0; t < TASK_COUNT; t++) {
        if (!task_is_zero_shot((enum task)t))
            continue;
        const struct item_job *j = items_of(items, row->job[t]);
        if (j == NULL)
            return NAN;
        int middle = j->n / 2;
        sum += half == 0 ? items_accuracy(j, SCORE_ACC, 0, middle)
                         : items_accuracy(j, SCORE_ACC, middle, j->n);
        n++;
    }
    return sum / n;
}

enum ranking { RANKING_NLL, RANKING_ZERO_SHOT, RANKING_SHORT_LONG };

static void add_row(struct rank_pairs *p, enum ranking what, const struct frame_row *row,
                    const struct items *items)
{
    static const double sequence_tok = 2048;
    const struct item_job *j = items_of(items, row->job[TASK_perplexity]);
    switch (what) {
    case RANKING_NLL:
        if (j != NULL && j->nll != NULL)
            add_pair(p, items_nll(j, 0, j->n / 2), items_nll(j, j->n / 2, j->n));
        break;
    case RANKING_ZERO_SHOT:
        add_pair(p, half_accuracy(row, items, 0), half_accuracy(row, items, 1));
        break;
    case RANKING_SHORT_LONG:
        if (j != NULL && j->nll != NULL && documents_for(j, 512 * sequence_tok) > 0)
            add_pair(p, items_nll(j, 0, documents_for(j, 64 * sequence_tok)),
                     items_nll(j, 0, documents_for(j, 512 * sequence_tok)));
        break;
    }
}

static double rank_model(const struct ranked_row *rows, int n, enum ranking what,
                         const struct items *items, struct rank_pairs *room)
{
    room->n = 0;
    for (int i = 0; i < n; i++)
        if (i == 0 || rows[i].row->config_id != rows[i - 1].row->config_id)
            add_row(room, what, rows[i].row, items);
    return agreement(room);
}

static void load_ranks(const struct frame *f, const struct items *items, struct arena *a,
                       struct claims_facts *out)
{
    size_t room = (size_t)f->n + 1;
    struct ranked_row *rows = arena_array(a, room, sizeof(*rows));
    struct claims_ranks *ranks = arena_array(a, room, sizeof(*ranks));
    struct rank_pairs pairs = {arena_array(a, room, sizeof(double)),
                               arena_array(a, room, sizeof(double)), 0};
    for (int i = 0; i < f->n; i++)
        rows[i].row = &f->rows[i];
    qsort(rows, (size_t)f->n, sizeof(*rows), compare_model);
    for (int i = 0; i < f->n;) {
        int j = i;
        while (j < f->n && is_same_ranking(rows[i].row, rows[j].row))
            j++;
        ranks[out->n_ranks++] = (struct claims_ranks){
            .family = rows[i].row->family,
            .size = rows[i].row->size,
            .halves_nll = rank_model(rows + i, j - i, RANKING_NLL, items, &pairs),
            .halves_zero_shot = rank_model(rows + i, j - i, RANKING_ZERO_SHOT, items, &pairs),
            .short_long = rank_model(rows + i, j - i, RANKING_SHORT_LONG, items, &pairs)};
        i = j;
    }
    out->ranks = ranks;
}

/* ---- weights (paper table 2), from an evaluation `weight-std` ---- */

static const char weight_std_sql[] =
    "SELECT family, size, n_params,"
    " max(CASE metric WHEN 'spearman_ffn1_relu' THEN value END),"
    " max(CASE metric WHEN 'spearman_kvq_attn' THEN value END),"
    " max(CASE metric WHEN 'spearman_attn_ffn1' THEN value END) "
    "FROM results WHERE task = 'weight-std' AND family = 'opt' GROUP BY family, size, n_params "
    "ORDER BY n_params LIMIT 64";

struct weight_std_list {
    struct claims_weight_std *v;
    int n;
    struct arena *arena;
};

static enum err_code add_weight_std(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct weight_std_list *l = arg;
    l->v[l->n++] =
        (struct claims_weight_std){.family = arena_strdup(l->arena, store_col_text(r, 0)),
                                   .size = arena_strdup(l->arena, store_col_text(r, 1)),
                                   .n_params = store_col_num(r, 2),
                                   .control = store_col_num(r, 3),
                                   .attention = store_col_num(r, 4),
                                   .ffn = store_col_num(r, 5)};
    return ERR_OK;
}

static enum err_code load_weight_std(struct store *s, struct arena *a, struct claims_facts *out,
                                     struct err *e)
{
    int64_t has_any = 0;
    /* The view joins every result: asked only where there is something to find. */
    TRY(store_query_int(s, "SELECT count(*) FROM eval WHERE task = 'weight-std'", 0, &has_any, e));
    if (has_any == 0)
        return ERR_OK;
    struct weight_std_list l = {.v = arena_array(a, 64, sizeof(*l.v)), .arena = a};
    TRY(store_query(s, weight_std_sql, NULL, 0, add_weight_std, &l, e));
    out->weight_std = l.v;
    out->n_weight_std = l.n;
    return ERR_OK;
}

enum err_code claims_facts_load(struct store *s, const struct frame *f, const struct items *items,
                                struct arena *a, struct claims_facts *out, struct err *e)
{
    *out = (struct claims_facts){0};
    if (items->n > 0)
        load_ranks(f, items, a, out);
    struct store_counts counts;
    TRY(store_count(s, &counts, e));
    out->n_done = counts.n[JOB_DONE];
    return load_weight_std(s, a, out, e);
}

enum err_code claims_test(const struct source *src, const struct items *items,
                          const struct bootstrap *b, int64_t n_threads, struct claims *out,
                          struct err *e)
{
    struct claims_facts facts;
    TRY(claims_facts_load(src->store, &src->frame, items, src->arena, &facts, e));
    struct claims_input in = {.frame = &src->frame,
                              .facts = &facts,
                              .zero_shot = b->value[METRIC_ZERO_SHOT],
                              .nll = b->value[METRIC_NLL],
                              .has_zero_shot_items = b->is_drawn[METRIC_ZERO_SHOT],
                              .has_nll_items = b->is_drawn[METRIC_NLL],
                              .n_resamples = b->n_resamples,
                              .n_threads = n_threads > 0 ? (int)n_threads : proc_cores()};
    *out = claims_run(&in, src->arena);
    return ERR_OK;
}

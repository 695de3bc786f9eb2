#include "analysis/recommend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One candidate: its number is linear in row values, whether interpolated or measured. */
struct candidate {
    const struct group *group;
    const struct curve *curve;
    const struct curve_point *point; /* NULL: interpolated */
    struct linear value;
    double bits, now;
    int n_best; /* resamples in which it is best */
};

struct contest {
    const struct bootstrap *b;
    enum metric_id metric;
    bool is_larger_better;
    double budget; /* log2 */
    struct candidate *v;
    int n;
    struct arena *arena;
};

static bool is_better(const struct contest *c, double x, double y)
{
    return c->is_larger_better ? x > y : x < y;
}

/* ---- candidates ---- */

static void add_candidate(struct contest *c, const struct group *g, const struct curve *curve,
                          const struct curve_point *point)
{
    double x = point != NULL ? point->log2_bits : c->budget;
    struct linear value = linear_value(curve, x, c->arena);
    if (value.n == 0)
        return;
    c->v[c->n++] = (struct candidate){.group = g,
                                      .curve = curve,
                                      .point = point,
                                      .value = value,
                                      .bits = nearbyint(exp2(x)),
                                      .now = curve_at(curve, x)};
}

/* The baselines stand in every group of a family and compete once. */
static bool competes(const struct curve *curve, int group)
{
    return curve->k < 16 || group == 0;
}

static int n_points(const struct group *groups, int n)
{
    int points = 1;
    for (int i = 0; i < n; i++)
        for (int c = 0; c < groups[i].n_curves; c++)
            points += groups[i].curves[c].n;
    return points;
}

static void list_curves(struct contest *c, const struct group *groups, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < groups[i].n_curves; k++)
            if (competes(&groups[i].curves[k], i))
                add_candidate(c, &groups[i], &groups[i].curves[k], NULL);
}

static void list_models(struct contest *c, const struct group *groups, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < groups[i].n_curves; k++) {
            const struct curve *curve = &groups[i].curves[k];
            for (int p = 0; competes(curve, i) && p < curve->n; p++)
                if (curve->points[p].log2_bits <= c->budget)
                    add_candidate(c, &groups[i], curve, &curve->points[p]);
        }
}

static int compare_larger(const void *a, const void *b)
{
    double x = ((const struct candidate *)a)->now;
    double y = ((const struct candidate *)b)->now;
    return (x < y) - (x > y);
}

static int compare_smaller(const void *a, const void *b)
{
    return -compare_larger(a, b);
}

static void count_best(struct contest *c)
{
    for (int r = 0; c->b->value[c->metric] != NULL && r < c->b->n_resamples; r++) {
        const double *values = c->b->value[c->metric] + (size_t)r * (size_t)c->b->n_rows;
        int best = -1;
        double best_value = NAN;
        for (int i = 0; i < c->n; i++) {
            double v = linear_at(&c->v[i].value, values);
            if (best < 0 || is_better(c, v, best_value)) {
                best = i;
                best_value = v;
            }
        }
        if (best >= 0)
            c->v[best].n_best++;
    }
}

/* ---- choices ---- */

/* The point of `curve` for the checkpoint of `point`: same parameters. */
static const struct curve_point *same_model(const struct curve *curve,
                                            const struct curve_point *point)
{
    for (int i = 0; i < curve->n; i++)
        if (curve->points[i].n_params == point->n_params)
            return &curve->points[i];
    return NULL;
}

/* Among the curves of the candidate's setting, the next one up or down. The baseline has no setting and no neighbours. */
static const struct curve *next_curve(const struct candidate *v, int direction)
{
    const struct curve *next = NULL;
    for (int i = 0; v->curve->k < 16 && i < v->group->n_curves; i++) {
        const struct curve *c = &v->group->curves[i];
        if (c->k == v->curve->k + direction)
            next = c;
    }
    return next;
}

static struct step step_of(const struct contest *c, const struct candidate *v, int direction)
{
    struct step s = {.change = NAN, .range = {NAN, NAN}};
    const struct curve *curve = next_curve(v, direction);
    if (curve == NULL)
        return s;
    double x = c->budget;
    if (v->point != NULL) {
        const struct curve_point *point = same_model(curve, v->point);
        if (point == NULL)
            return s;
        x = point->log2_bits;
    }
    struct linear there = linear_value(curve, x, c->arena);
    if (there.n == 0)
        return s;
    struct linear change = linear_difference(&there, &v->value, c->arena);
    return (struct step){.k = curve->k,
                         .bits = nearbyint(exp2(x)),
                         .change = curve_at(curve, x) - v->now,
                         .range = bootstrap_interval(c->b, c->metric, &change),
                         .is_within = x <= c->budget};
}

/* Parameters of the model that would have these bits: interpolated as the metric is. */
static double params_at(const struct curve *c, double x)
{
    for (int i = 1; i < c->n; i++) {
        const struct curve_point *p = &c->points[i - 1];
        const struct curve_point *q = &c->points[i];
        if (x <= q->log2_bits)
            return exp2(log2(p->n_params) + (log2(q->n_params) - log2(p->n_params)) *
                                                (x - p->log2_bits) / (q->log2_bits - p->log2_bits));
    }
    return c->points[0].n_params;
}

static struct choice choice_of(const struct contest *c, const struct candidate *v)
{
    struct linear behind = linear_difference(&v->value, &c->v[0].value, c->arena);
    bool is_first = v == &c->v[0];
    struct choice out = {
        .setting = v->curve->k < 16 ? &v->group->setting : NULL,
        .k = v->curve->k,
        .size = v->point != NULL ? v->point->size : NULL,
        .row = v->point != NULL ? v->point->rows[0] : -1,
        .n_params =
            v->point != NULL ? v->point->n_params : nearbyint(params_at(v->curve, c->budget)),
        .bits = v->bits,
        .value = v->now,
        .range = bootstrap_interval(c->b, c->metric, &v->value),
        .probability = c->n > 1 && c->b->value[c->metric] != NULL
                           ? (double)v->n_best / c->b->n_resamples
                           : NAN,
        .behind = {NAN, NAN},
        .less = step_of(c, v, -1),
        .more = step_of(c, v, 1),
    };
    if (!is_first)
        out.behind = bootstrap_interval(c->b, c->metric, &behind);
    out.is_tied = !is_first && out.behind.low <= 0 && out.behind.high >= 0;
    return out;
}

/* Sorts the candidates and writes the best ones. */
static int judge(struct contest *c, struct choice out[RECOMMEND_MAX])
{
    count_best(c);
    qsort(c->v, (size_t)c->n, sizeof(*c->v),
          c->is_larger_better ? compare_larger : compare_smaller);
    int n = c->n < RECOMMEND_MAX ? c->n : RECOMMEND_MAX;
    for (int i = 0; i < n; i++)
        out[i] = choice_of(c, &c->v[i]);
    return n;
}

/* Groups of one family follow each other (the frame's order). */
static bool is_same_family(const struct group *x, const struct group *y)
{
    return strcmp(x->sweep, y->sweep) == 0 && strcmp(x->family, y->family) == 0 &&
           strcmp(x->setting.compute, y->setting.compute) == 0;
}

static struct advice advise(const struct contest *like, const struct group *groups, int n)
{
    struct advice out = {.sweep = groups[0].sweep,
                         .family = groups[0].family,
                         .compute = groups[0].setting.compute,
                         .log2_bits = like->budget};
    struct contest c = *like;
    c.v = arena_array(c.arena, (size_t)n_points(groups, n), sizeof(*c.v));
    list_curves(&c, groups, n);
    out.n_curves_compared = c.n;
    out.n_curves = judge(&c, out.curves);
    c.n = 0;
    list_models(&c, groups, n);
    out.n_models_compared = c.n;
    out.n_models = judge(&c, out.models);
    return out;
}

struct advice *recommend(const struct bootstrap *b, enum metric_id m, const struct group *groups,
                         int n_groups, double log2_bits, struct arena *a, int *n)
{
    struct contest like = {.b = b,
                           .metric = m,
                           .is_larger_better = metric_info_of(m)->is_larger_better,
                           .budget = log2_bits,
                           .arena = a};
    struct advice *out = arena_array(a, (size_t)n_groups + 1, sizeof(*out));
    struct group *family = arena_array(a, (size_t)n_groups + 1, sizeof(*family));
    bool *is_done = arena_array(a, (size_t)n_groups + 1, sizeof(*is_done));
    *n = 0;
    for (int i = 0; i < n_groups; i++) {
        if (is_done[i])
            continue;
        int members = 0;
        for (int j = i; j < n_groups && strcmp(groups[j].family, groups[i].family) == 0; j++)
            if (is_same_family(&groups[i], &groups[j])) {
                is_done[j] = true;
                family[members++] = groups[j];
            }
        out[(*n)++] = advise(&like, family, members);
        family += members;
    }
    return out;
}

const char *choice_label(const struct choice *c, struct arena *a)
{
    if (c->setting == NULL)
        return arena_printf(a, "%d bit, not quantized", c->k);
    return arena_printf(a, "%d bit %s", c->k, setting_label(c->setting, a));
}

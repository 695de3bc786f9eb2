/* Claims about columns kept at 16 bit, about centering, and about a fine-tuned family. */
#include <math.h>

#include "analysis/claims_impl.h"
#include "analysis/stat.h"

static const struct curve *kept_curve(const struct lane *lane, int k)
{
    struct slice s = lane->slice;
    s.outlier_pct = 2;
    return curve_of(lane->family, s, k);
}

/* What kept columns are worth at 3 bit to the model `rank` places below the largest. */
static double stabilized(struct claim_ctx *c, const struct lane *lane, int rank)
{
    const struct curve *plain = group_curve(lane->group, 3);
    if (plain == NULL || plain->n < CLAIM_MIN_SIZES)
        return NAN;
    const struct curve_point *p = &plain->points[plain->n - 1 - rank];
    const struct curve_point *kept = point_of(c, kept_curve(lane, 3), p->size);
    if (kept == NULL)
        return NAN;
    use_point(c, p);
    return kept->value - p->value;
}

/* Accuracy of the largest model at 3 bit with kept columns, where the 16-bit model is well above chance. */
static double largest_kept(struct claim_ctx *c, const struct lane *lane)
{
    static const double well_above_chance = 45;
    const struct curve *base = group_curve(lane->group, 16);
    if (base == NULL || base->points[base->n - 1].value < well_above_chance)
        return NAN;
    const struct curve_point *p = point_of(c, kept_curve(lane, 3), base->points[base->n - 1].size);
    return p != NULL ? p->value : NAN;
}

void claim_outliers_stabilize(struct claim_ctx *c)
{
    static const char *const places[] = {"largest", "second largest", "third largest"};
    static const double near_chance = 40;
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        if (lane->family->id != FAMILY_OPT && lane->family->id != FAMILY_PYTHIA)
            continue;
        for (int rank = 0; rank < 3; rank++)
            claim_state(c, AT_LEAST(0), stabilized(c, lane, rank), "gain of the %s, %s",
                        places[rank], lane->label);
        if (c->world->metric == METRIC_ZERO_SHOT)
            claim_state(c, AT_LEAST(near_chance), largest_kept(c, lane),
                        "accuracy of the largest, %s", lane->label);
    }
}

void claim_outliers_below_four(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        claim_state(c, AT_LEAST(0), gap_of(c, group_curve(lane->group, 4), kept_curve(lane, 3)),
                    "%s", lane->label);
    }
}

void claim_outliers_at_four(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        claim_state(c, AT_MOST(0.3), gap_of(c, kept_curve(lane, 4), group_curve(lane->group, 4)),
                    "%s", lane->label);
    }
}

void claim_centering(struct claim_ctx *c)
{
    static const enum dtype types[] = {DTYPE_int, DTYPE_float, DTYPE_dynamic, DTYPE_quantile};
    claim_set(c, 0.95);
    for (size_t t = 0; t < ARRAY_LEN(types); t++)
        for (int k = 3; k <= 8; k++) {
            struct slice plain = slice_default(types[t]);
            struct slice centered = plain;
            centered.is_centered = true;
            struct mean gap = {0};
            for (int f = 0; f < c->world->n_families; f++)
                mean_add(&gap, gap_at(c, &c->world->families[f], centered, k, plain, k));
            claim_state(c, NOT_ABOVE(0), mean_of(&gap), "%s, %d bit", dtype_label(types[t]), k);
        }
}

static const struct lane *lane_of(const struct world *w, enum claim_family f, enum dtype t)
{
    for (int i = 0; i < w->n_lanes; i++)
        if (w->lanes[i].family->id == f && w->lanes[i].slice.dtype == t)
            return &w->lanes[i];
    return NULL;
}

enum { MAX_REACTIONS = 512 };
struct reactions {
    double mine[MAX_REACTIONS], theirs[MAX_REACTIONS];
    int n;
};

/* What quantizing does to each size of two families that both have. */
static void add_reactions(struct claim_ctx *c, const struct lane *x, const struct lane *y, int k,
                          struct reactions *r)
{
    const struct curve *base = group_curve(x->group, 16);
    for (int i = 0; base != NULL && i < base->n && r->n < MAX_REACTIONS; i++) {
        const char *size = base->points[i].size;
        const struct curve_point *x_k = point_of(c, group_curve(x->group, k), size);
        const struct curve_point *y_k = point_of(c, group_curve(y->group, k), size);
        const struct curve_point *y_base = point_of(c, group_curve(y->group, 16), size);
        if (x_k == NULL || y_k == NULL || y_base == NULL)
            continue;
        use_point(c, &base->points[i]);
        r->mine[r->n] = x_k->value - base->points[i].value;
        r->theirs[r->n++] = y_k->value - y_base->value;
    }
}

void claim_bloomz(struct claim_ctx *c)
{
    static const enum dtype types[] = {DTYPE_float, DTYPE_quantile, DTYPE_int};
    struct reactions *r = arena_alloc(c->scratch, sizeof(*r));
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        const struct lane *x = lane_of(c->world, FAMILY_BLOOM, types[t]);
        const struct lane *y = lane_of(c->world, FAMILY_BLOOMZ, types[t]);
        for (int k = 3; k <= 8 && x != NULL && y != NULL; k++)
            add_reactions(c, x, y, k, r);
    }
    struct mean apart = {0};
    for (int i = 0; i < r->n; i++)
        mean_add(&apart, fabs(r->mine[i] - r->theirs[i]));
    bool has_data = r->n >= CLAIM_MIN_SIZES;
    claim_set(c, 1);
    claim_state(c, AT_MOST(1), has_data ? mean_of(&apart) : NAN,
                "mean difference in points, %d pairs", r->n);
    claim_state(c, AT_LEAST(0.9), has_data ? stat_pearson(r->mine, r->theirs, r->n) : NAN,
                "correlation");
    claim_range(c, -1, 1);
}

/* Claims about the number of bits. */
#include <math.h>

#include "analysis/claims_impl.h"
#include "analysis/stat.h"

/* Per cent; and the parameters from which a collapse at "the largest sizes" can be meant. */
static const double near_chance = 40, well_above_chance = 45, chance = 31.25;
static const double many_params = 1e9;

/* Share of the budgets that the k-bit curve covers together with another one at which it is the best. */
static double share_of_best(struct claim_ctx *c, const struct lane *lane, int k)
{
    const struct curve *mine = group_curve(lane->group, k);
    if (mine == NULL || mine->n < CLAIM_MIN_SIZES)
        return NAN;
    double from = mine->points[0].log2_bits;
    double step = (mine->points[mine->n - 1].log2_bits - from) / (CLAIM_BUDGETS - 1);
    int n_best = 0;
    int n_compared = 0;
    for (int i = 0; i < CLAIM_BUDGETS; i++) {
        struct best best = best_at(lane->group, from + step * i, true);
        n_compared += best.n_covering > 1;
        n_best += best.n_covering > 1 && best.k == k;
    }
    for (int i = 0; i < lane->group->n_curves && n_compared > 0; i++)
        use_curve(c, &lane->group->curves[i]);
    return n_compared > 0 ? (double)n_best / n_compared : NAN;
}

void claim_four_is_best(struct claim_ctx *c)
{
    static const int others[] = {5, 6, 7, 8, 16};
    const struct world *w = c->world;
    claim_set(c, 0.8);
    for (int i = 0; i < w->n_lanes; i++) {
        claim_state(c, AT_LEAST(0.7), share_of_best(c, &w->lanes[i], 4), "share of budgets, %s",
                    w->lanes[i].label);
        claim_range(c, 0, 1);
    }
    claim_set(c, 1);
    for (size_t o = 0; o < ARRAY_LEN(others); o++) {
        if (others[o] == 16) /* the baseline is a must, of the widths between some */
            claim_set(c, 1);
        struct mean gap = {0};
        for (int i = 0; i < w->n_lanes; i++)
            mean_add(&gap, gap_of(c, group_curve(w->lanes[i].group, 4),
                                  group_curve(w->lanes[i].group, others[o])));
        claim_state(c, AT_LEAST(0), mean_of(&gap), "4 bit over %d bit, points", others[o]);
    }
}

/* Kendall's tau between bit width and what it is worth at equal bits; NaN without both ends and one step between. */
static double tau_of_steps(struct claim_ctx *c, const struct lane *lane)
{
    static const int widths[] = {5, 6, 8, 16};
    const struct curve *four = group_curve(lane->group, 4);
    double k[5] = {4}, offset[5] = {0};
    int n = 1;
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        double gap = gap_of(c, group_curve(lane->group, widths[i]), four);
        if (isnan(gap))
            continue;
        k[n] = widths[i];
        offset[n++] = gap;
    }
    return n >= 4 && k[n - 1] == 16 ? stat_kendall(k, offset, n) : NAN;
}

void claim_steps_down(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        claim_state(c, AT_MOST(-0.8), tau_of_steps(c, &c->world->lanes[i]), "%s",
                    c->world->lanes[i].label);
        claim_range(c, -1, 1);
    }
}

void claim_three_reverses(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        claim_state(c, AT_LEAST(0),
                    gap_of(c, group_curve(lane->group, 4), group_curve(lane->group, 3)), "%s",
                    lane->label);
    }
}

/* At the most bits that the 3-bit curve reaches, where the largest model stands. */
void claim_largest_bloom(struct claim_ctx *c)
{
    static const double very_large = 1.5e11;
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        const struct curve *three = group_curve(lane->group, 3);
        const struct curve *four = group_curve(lane->group, 4);
        double ahead = NAN;
        if (lane->family->id == FAMILY_BLOOM && three != NULL && four != NULL &&
            four->n >= CLAIM_MIN_SIZES && three->points[three->n - 1].n_params >= very_large) {
            const struct curve_point *top = &three->points[three->n - 1];
            use_point(c, top);
            use_curve(c, four);
            ahead = top->value - curve_at(four, top->log2_bits);
        }
        claim_state(c, NEAR_ZERO, ahead, "%s", lane->label);
    }
}

void claim_pythia_tie(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        if (lane->family->id == FAMILY_PYTHIA)
            claim_state(c, WITHIN(0.5),
                        gap_of(c, group_curve(lane->group, 5), group_curve(lane->group, 4)), "%s",
                        lane->label);
    }
}

static bool has_sizes(const struct group *g, int k)
{
    const struct curve *x = group_curve(g, k);
    return x != NULL && x->n >= CLAIM_MIN_SIZES;
}

/* With and without 3 bit; the squares of the residuals are added up over the lanes. */
void claim_parallel(struct claim_ctx *c)
{
    double with_three = 0, without = 0;
    int n = 0;
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        struct offset_fit fit = {0}, worse = {0};
        bool has_data = has_sizes(lane->group, 4) && has_sizes(lane->group, 16);
        if (has_data)
            fit = offset_fit(lane->group, 4, c->scratch);
        has_data = has_data && fit.n_curves > 2;
        if (has_data && has_sizes(lane->group, 3)) {
            worse = offset_fit(lane->group, 3, c->scratch);
            with_three += worse.residual * worse.residual;
            without += fit.residual * fit.residual;
            n++;
        }
        for (int k = 0; k < lane->group->n_curves && has_data; k++)
            use_curve(c, &lane->group->curves[k]);
        claim_state(c, AT_MOST(1), has_data ? fit.residual : NAN, "residual in points, %s",
                    lane->label);
        claim_state(c, AT_MOST(0.15), has_data ? fit.slope_spread : NAN, "spread of slopes, %s",
                    lane->label);
    }
    /* A fit without any residual is perfect; the floor keeps its ratio a number. */
    claim_set(c, 1);
    claim_state(c, AT_LEAST(1.5), n > 0 ? sqrt(with_three / fmax(without, 1e-12)) : NAN,
                "residual with 3 bit, times that without");
}

/* The group with its values in nats again: a power law needs positive numbers. */
static struct group in_nats(const struct group *g, struct arena *a)
{
    struct group out = *g;
    out.curves = arena_array(a, (size_t)g->n_curves + 1, sizeof(*out.curves));
    for (int i = 0; i < g->n_curves; i++) {
        out.curves[i] = g->curves[i];
        out.curves[i].points =
            arena_array(a, (size_t)g->curves[i].n + 1, sizeof(*out.curves[i].points));
        for (int p = 0; p < g->curves[i].n; p++) {
            out.curves[i].points[p] = g->curves[i].points[p];
            out.curves[i].points[p].value *= -CLAIM_NATS_PER_POINT;
        }
    }
    return out;
}

void claim_power_law(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        struct group g = in_nats(lane->group, c->scratch);
        struct law_fit fit = law_fit(&g, 4, c->scratch);
        bool has_data = has_sizes(lane->group, 4) && fit.is_fitted && fit.n_held_out > 0;
        for (int k = 0; k < g.n_curves && has_data; k++)
            use_curve(c, &g.curves[k]);
        claim_state(c, AT_LEAST(0), has_data ? fit.law_error - fit.curve_error : NAN, "%s",
                    lane->label);
    }
}

/* The largest model says something only where it is a large one, and its 16-bit run well above chance. */
static double accuracy_of_largest(struct claim_ctx *c, const struct lane *lane, struct slice s)
{
    const struct curve *base = group_curve(lane->group, 16);
    if (base == NULL || base->n < CLAIM_MIN_SIZES ||
        base->points[base->n - 1].n_params < many_params ||
        base->points[base->n - 1].value < well_above_chance)
        return NAN;
    const struct curve_point *largest = &base->points[base->n - 1];
    const struct curve_point *p = point_of(c, curve_of(lane->family, s, 3), largest->size);
    if (p != NULL)
        use_point(c, largest);
    return p != NULL ? p->value : NAN;
}

void claim_collapse(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        if (lane->family->id != FAMILY_OPT && lane->family->id != FAMILY_PYTHIA)
            continue;
        struct slice whole = lane->slice;
        whole.block = 0;
        double value = accuracy_of_largest(c, lane, lane->slice);
        claim_state(c, AT_MOST(near_chance), value, "%s", lane->label);
        claim_state(c, TOLD, value - chance, "%s, above chance", lane->label);
        claim_state(c, AT_MOST(near_chance), accuracy_of_largest(c, lane, whole),
                    "%s, whole tensor", lane->label);
    }
}

/* What going from 4 to 3 bit costs each model of at least half a billion parameters. */
static void state_drops(struct claim_ctx *c, const struct lane *lane)
{
    const struct curve *three = group_curve(lane->group, 3);
    const struct curve *four = group_curve(lane->group, 4);
    for (int i = 0; three != NULL && i < three->n; i++) {
        const struct curve_point *p = &three->points[i];
        const struct curve_point *above = point_of(c, four, p->size);
        if (p->n_params < 0.5e9 || above == NULL)
            continue;
        use_point(c, p);
        claim_state(c, AT_MOST(5), above->value - p->value, "%s, %s", p->size, lane->label);
    }
}

void claim_stable(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        if (lane->family->id == FAMILY_GPT2 || lane->family->id == FAMILY_BLOOM)
            state_drops(c, lane);
    }
}

/* Adds, for every pair of a model at 8 bit and a larger one at 4 bit of nearly the same size in bits, whether the larger wins. */
static void add_pairs(struct claim_ctx *c, const struct lane *lane, struct mean *wins)
{
    static const double apart = 0.17;
    const struct curve *eight = group_curve(lane->group, 8);
    const struct curve *four = group_curve(lane->group, 4);
    for (int i = 0; eight != NULL && four != NULL && i < eight->n; i++)
        for (int j = 0; j < four->n; j++) {
            const struct curve_point *small = &eight->points[i];
            const struct curve_point *large = &four->points[j];
            double ratio = exp2(-fabs(small->log2_bits - large->log2_bits));
            if (large->n_params <= small->n_params || ratio < 1 - apart)
                continue;
            use_point(c, small);
            use_point(c, large);
            mean_add(wins, large->value > small->value);
        }
}

void claim_larger_wins(struct claim_ctx *c)
{
    struct mean wins = {0};
    for (int i = 0; i < c->world->n_lanes; i++)
        add_pairs(c, &c->world->lanes[i], &wins);
    claim_set(c, 1);
    claim_state(c, AT_LEAST(0.8), mean_of(&wins), "share of %d pairs", wins.n);
    claim_range(c, 0, 1);
}

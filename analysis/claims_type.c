/* Claims about data types and exponent bits. */
#include <math.h>

#include "analysis/claims_impl.h"
#include "analysis/stat.h"

static struct slice float_with(int exponent_bits)
{
    struct slice s = slice_default(DTYPE_float);
    s.exponent_bits = exponent_bits;
    return s;
}

/* Each of the good types over each of the bad ones. */
static void state_types(struct claim_ctx *c, const struct world_family *f, struct slice good,
                        struct bound bound, const char *label)
{
    static const enum dtype bad[] = {DTYPE_int, DTYPE_dynamic};
    for (size_t b = 0; b < ARRAY_LEN(bad); b++)
        claim_state(c, bound, gap_at(c, f, good, 4, slice_default(bad[b]), 4), "%s over %s, %s",
                    label, dtype_label(bad[b]), f->name);
}

/* Float with no mantissa (E3M0), the paper's 4-bit float by its text, is told beside the one with (E2M1): see docs/ANALYSIS.md. */
void claim_good_types(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_families; i++) {
        const struct world_family *f = &c->world->families[i];
        if (f->id != FAMILY_PYTHIA)
            continue;
        state_types(c, f, slice_default(DTYPE_quantile), AT_LEAST(0), "quantile");
        state_types(c, f, float_with(2), AT_LEAST(0), "float E2M1");
        state_types(c, f, float_with(3), TOLD, "float E3M0");
    }
}

enum { N_TYPES = 4 };
static const enum dtype ranked_types[N_TYPES] = {DTYPE_quantile, DTYPE_float, DTYPE_int,
                                                 DTYPE_dynamic};

/* One block of the test for each model and width that has all types; returns how many. Smaller is better, as for losses. */
static int collect_blocks(struct claim_ctx *c, const struct world_family *f, int k, double *v)
{
    const struct curve *curves[N_TYPES];
    int n = 0;
    for (int t = 0; t < N_TYPES; t++)
        curves[t] = curve_of(f, slice_default(ranked_types[t]), k);
    for (int i = 0; curves[0] != NULL && i < curves[0]->n; i++) {
        bool is_complete = true;
        for (int t = 0; t < N_TYPES; t++) {
            const struct curve_point *p = point_of(c, curves[t], curves[0]->points[i].size);
            is_complete = is_complete && p != NULL;
            v[n * N_TYPES + t] = p != NULL ? -p->value : NAN;
        }
        n += is_complete;
    }
    return n;
}

void claim_type_ranks(struct claim_ctx *c)
{
    size_t n_most = 1;
    for (int i = 0; i < c->world->n_groups; i++)
        for (int k = 0; k < c->world->groups[i].n_curves; k++)
            n_most += (size_t)c->world->groups[i].curves[k].n;
    double *v = arena_array(c->scratch, n_most * N_TYPES, sizeof(*v));
    int n = 0;
    bool has_data = true;
    for (int k = 3; k <= 5; k++) {
        int before = n;
        for (int i = 0; i < c->world->n_families; i++)
            n += collect_blocks(c, &c->world->families[i], k, v + (size_t)n * N_TYPES);
        has_data = has_data && n - before >= CLAIM_MIN_SIZES;
    }
    double rank[N_TYPES];
    struct friedman f = stat_friedman(v, n, N_TYPES, rank);
    double ahead = fmin(fmin(rank[1], rank[2]), rank[3]) - rank[0];
    /* By accuracy another type may win: told, not tested. */
    bool is_tested = c->world->metric == METRIC_NLL;
    claim_set(c, 1);
    claim_state(c, is_tested ? AT_LEAST(0) : TOLD, has_data ? ahead : NAN,
                "mean rank of the next type behind quantile's, %d comparisons", n);
    claim_state(c, is_tested ? AT_MOST(0.01) : TOLD, has_data ? f.p : NAN, "Friedman's p");
    for (int t = 0; t < N_TYPES; t++)
        claim_state(c, TOLD, has_data ? rank[t] : NAN, "mean rank of %s",
                    dtype_label(ranked_types[t]));
}

void claim_int_at_five(struct claim_ctx *c)
{
    static const double vanished = 0.3;
    struct mean three = {0}, two = {0};
    for (int i = 0; i < c->world->n_families; i++) {
        const struct world_family *f = &c->world->families[i];
        double over_three = gap_at(c, f, slice_default(DTYPE_int), 5, float_with(3), 5);
        double over_two = gap_at(c, f, slice_default(DTYPE_int), 5, float_with(2), 5);
        if (isnan(over_three) || isnan(over_two))
            continue;
        mean_add(&three, over_three);
        mean_add(&two, over_two);
    }
    claim_set(c, 1);
    claim_state(c, AT_LEAST(0), mean_of(&three), "int over float E3M1");
    claim_state(c, AT_MOST(vanished), mean_of(&two), "int over float E2M2");
}

/* Mean over the models that have both of x minus y. */
static double mean_difference(struct claim_ctx *c, const struct curve *x, const struct curve *y)
{
    struct mean m = {0};
    for (int i = 0; x != NULL && i < x->n; i++) {
        const struct curve_point *p = point_of(c, y, x->points[i].size);
        if (p == NULL)
            continue;
        use_point(c, &x->points[i]);
        mean_add(&m, x->points[i].value - p->value);
    }
    return m.n >= CLAIM_MIN_SIZES ? mean_of(&m) : NAN;
}

/* Lead of the rule's exponent over another; NaN where it was not measured. */
static double rule_ahead(struct claim_ctx *c, const struct world_family *f, int k, int other)
{
    int rule = config_heuristic_exponent_bits(k);
    return mean_difference(c, curve_of(f, float_with(rule), k), curve_of(f, float_with(other), k));
}

static void state_rule(struct claim_ctx *c, const struct world_family *f, int k)
{
    int rule = config_heuristic_exponent_bits(k);
    double least = NAN;
    for (int other = 1; other < k; other++) {
        double ahead = other != rule ? rule_ahead(c, f, k, other) : NAN;
        least = fmin(least, ahead);
        if (other != rule && k != 5)
            claim_state(c, AT_LEAST(0), ahead, "E%d over E%d, %d bit", rule, other, k);
    }
    if (k == 5) /* some other exponent is better */
        claim_state(c, AT_MOST(0), least, "E%d over the best other, 5 bit", rule);
}

void claim_exponent_rule(struct claim_ctx *c)
{
    for (int k = 3; k <= 8; k++) {
        claim_set(c, 1); /* each width must be there */
        for (int i = 0; i < c->world->n_families; i++)
            if (c->world->families[i].id == FAMILY_OPT)
                state_rule(c, &c->world->families[i], k);
    }
}

/* Mean quality of each number of exponent bits over the models that have all that were measured; NaN: not measured. */
static int exponent_means(struct claim_ctx *c, int k, struct mean means[9])
{
    int n_models = 0;
    for (int i = 0; i < c->world->n_families; i++) {
        const struct curve *curves[9] = {NULL};
        const struct curve *first = NULL;
        for (int bits = 1; bits < k; bits++) {
            curves[bits] = curve_of(&c->world->families[i], float_with(bits), k);
            first = first == NULL ? curves[bits] : first;
        }
        for (int p = 0; first != NULL && p < first->n; p++) {
            bool is_complete = true;
            for (int bits = 1; bits < k; bits++)
                is_complete =
                    is_complete && point_of(c, curves[bits], first->points[p].size) != NULL;
            for (int bits = 1; bits < k && is_complete; bits++)
                mean_add(&means[bits], point_of(c, curves[bits], first->points[p].size)->value);
            n_models += is_complete;
        }
    }
    return n_models;
}

void claim_exponent_two_three(struct claim_ctx *c)
{
    for (int k = 3; k <= 6; k++) {
        claim_set(c, 1);
        struct mean means[9] = {{0}};
        int n = exponent_means(c, k, means);
        double good = NAN, other = NAN;
        for (int bits = 1; bits < k; bits++) {
            if (bits == 2 || bits == 3)
                good = fmax(good, mean_of(&means[bits]));
            else
                other = fmax(other, mean_of(&means[bits]));
        }
        claim_state(c, AT_LEAST(0), n >= CLAIM_MIN_SIZES ? good - other : NAN,
                    "E2 or E3 over any other, %d bit", k);
    }
}

/* What a statistic says about its threshold, and what the statistics of a claim say together. */
#include <math.h>

#include "analysis/claims_impl.h"

const char *verdict_label(enum verdict v)
{
    static const char *const labels[] = {
#define X(id, label) label,
        VERDICT_LIST(X)
#undef X
    };
    return labels[v];
}

/* A threshold such as 0.7 and a share such as 45/64 are both rounded: equality is not decided by their last bits. */
static const double rounding = 1e-9;

/* On which side of the bound does a number lie? 1: the claimed one, -1: the other. */
static int side_of(struct bound b, double v)
{
    switch (b.kind) {
    case BOUND_AT_LEAST:
        return v >= b.at - rounding ? 1 : -1;
    case BOUND_AT_MOST:
    case BOUND_NOT_ABOVE:
        return v <= b.at + rounding ? 1 : -1;
    case BOUND_WITHIN:
        return fabs(v) <= b.at + rounding ? 1 : -1;
    case BOUND_EQUAL:
        return fabs(v - b.at) <= rounding ? 1 : -1;
    case BOUND_NEAR_ZERO:
    case BOUND_TOLD:
        return 0;
    }
    BUG("a kind of bound");
}

static enum verdict verdict_of_sides(int low, int high)
{
    if (low != high)
        return VERDICT_INCONCLUSIVE;
    return low > 0 ? VERDICT_CONFIRMED : VERDICT_CONTRADICTED;
}

enum verdict verdict_of_point(struct bound b, double value)
{
    if (b.kind == BOUND_NEAR_ZERO)
        return VERDICT_INCONCLUSIVE;
    if (b.kind == BOUND_NOT_ABOVE)
        return side_of(b, value) > 0 ? VERDICT_CONFIRMED : VERDICT_INCONCLUSIVE;
    return side_of(b, value) > 0 ? VERDICT_CONFIRMED : VERDICT_CONTRADICTED;
}

enum verdict verdict_of_part(struct bound b, const struct claim_part *p, double spread)
{
    if (isnan(p->low))
        return VERDICT_INCONCLUSIVE;
    switch (b.kind) {
    case BOUND_NEAR_ZERO:
        return fabs(p->value) < 2 * spread ? VERDICT_CONFIRMED : VERDICT_CONTRADICTED;
    case BOUND_NOT_ABOVE:
        return p->low > b.at ? VERDICT_CONTRADICTED : VERDICT_CONFIRMED;
    case BOUND_WITHIN: /* outside on the same side with both ends */
        if ((p->low > b.at && p->high > b.at) || (p->low < -b.at && p->high < -b.at))
            return VERDICT_CONTRADICTED;
        return side_of(b, p->low) > 0 && side_of(b, p->high) > 0 ? VERDICT_CONFIRMED
                                                                 : VERDICT_INCONCLUSIVE;
    case BOUND_AT_LEAST:
    case BOUND_AT_MOST:
    case BOUND_EQUAL:
    case BOUND_TOLD:
        break;
    }
    return verdict_of_sides(side_of(b, p->low), side_of(b, p->high));
}

const char *bound_text(struct bound b, struct arena *a)
{
    switch (b.kind) {
    case BOUND_AT_LEAST:
        return arena_printf(a, ">= %g", b.at);
    case BOUND_AT_MOST:
        return arena_printf(a, "<= %g", b.at);
    case BOUND_WITHIN:
        return arena_printf(a, "within %g", b.at);
    case BOUND_EQUAL:
        return arena_printf(a, "= %g", b.at);
    case BOUND_NOT_ABOVE:
        return arena_printf(a, "not above %g", b.at);
    case BOUND_NEAR_ZERO:
        return "within 2 standard errors of 0";
    case BOUND_TOLD:
        return "";
    }
    BUG("a kind of bound");
}

struct counts {
    int n[VERDICT_COUNT];
};

/* `share` of the covered parts must hold: one that fails may be made up for by the others. */
static enum verdict verdict_of_set(const struct counts *n, double share)
{
    int covered = n->n[VERDICT_CONFIRMED] + n->n[VERDICT_CONTRADICTED] + n->n[VERDICT_INCONCLUSIVE];
    int wanted = (int)ceil(share * covered - rounding);
    if (covered == 0)
        return VERDICT_NOT_COVERED;
    if (n->n[VERDICT_CONFIRMED] >= wanted)
        return VERDICT_CONFIRMED;
    return n->n[VERDICT_CONTRADICTED] > covered - wanted ? VERDICT_CONTRADICTED
                                                         : VERDICT_INCONCLUSIVE;
}

/* All of them: a contradiction weighs more than a lack of data, and that more than a lack of precision. */
static enum verdict verdict_of_all(const struct counts *n)
{
    static const enum verdict order[] = {VERDICT_CONTRADICTED, VERDICT_NOT_COVERED,
                                         VERDICT_INCONCLUSIVE};
    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        if (n->n[order[i]] > 0)
            return order[i];
    return n->n[VERDICT_CONFIRMED] > 0 ? VERDICT_CONFIRMED : VERDICT_NOT_COVERED;
}

enum verdict verdict_of_parts(const struct statement *s, const struct claim_part *p, int n)
{
    struct counts sets = {{0}};
    for (int i = 0; i < n;) {
        struct counts parts = {{0}};
        int j = i;
        for (; j < n && s[j].set == s[i].set; j++)
            if (s[j].bound.kind != BOUND_TOLD)
                parts.n[p[j].verdict]++;
        sets.n[verdict_of_set(&parts, s[i].share)]++;
        i = j;
    }
    return verdict_of_all(&sets);
}

int decisive_part(const struct statement *s, const struct claim_part *p, int n, enum verdict v)
{
    int best = -1;
    double best_margin = 0;
    for (int i = 0; i < n; i++) {
        if (p[i].verdict != v || s[i].bound.kind == BOUND_TOLD || isnan(p[i].value))
            continue;
        double at =
            s[i].bound.kind == BOUND_WITHIN ? copysign(s[i].bound.at, p[i].value) : s[i].bound.at;
        double margin = fabs(p[i].value - at) / fmax(fabs(at), 1);
        bool is_better = v == VERDICT_CONTRADICTED ? margin > best_margin : margin < best_margin;
        if (best < 0 || is_better) {
            best = i;
            best_margin = margin;
        }
    }
    return best;
}

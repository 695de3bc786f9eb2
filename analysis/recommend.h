/* The answer: which configuration for a budget of bits, how sure that is, and what one bit more or less would change. Two views of
 * it: along the scaling curves (interpolated between sizes, so that bit widths are compared at equal bits) and among the
 * checkpoints that were measured and fit. Pure. */
#ifndef ISOBIT_ANALYSIS_RECOMMEND_H
#define ISOBIT_ANALYSIS_RECOMMEND_H

#include "analysis/bootstrap.h"

enum { RECOMMEND_MAX = 8 };

/* The same configuration with one bit more or less per weight. */
struct step {
    int k;                 /* 0: was not measured there */
    double bits;           /* total, of that choice */
    double change;         /* of the metric */
    struct interval range; /* of the change */
    bool is_within;        /* it still fits the budget */
};

struct choice {
    const struct setting *setting; /* NULL: the unquantized baseline */
    int k;
    const char *size; /* NULL: interpolated between sizes */
    int row;          /* of the frame; -1: interpolated */
    double n_params;  /* interpolated: of the model that has this many bits */
    double bits;      /* total */
    double value;     /* expected metric */
    struct interval range;
    double
        probability; /* share of resamples in which it is the best of all candidates; NaN: no resamples, or no other candidate */
    struct interval behind; /* of its difference to the first choice; NaN for the first */
    bool is_tied;           /* `behind` covers 0: the data cannot tell it from the first */
    struct step less, more;
};

/* Choices of one family, best first. */
struct advice {
    const char *sweep, *family, *compute;
    double log2_bits;
    struct choice curves[RECOMMEND_MAX]; /* at exactly this budget, along the curves */
    int n_curves, n_curves_compared;
    struct choice models[RECOMMEND_MAX]; /* measured checkpoints of at most this many bits */
    int n_models, n_models_compared;
};

/* One advice per (sweep, family, compute) of the groups, in their order; choices may be none where a budget is below or beyond
 * everything measured. `groups` are from groups_build over the frame that `b` was made of, with the same metric. Owned by `a`. */
struct advice *recommend(const struct bootstrap *b, enum metric_id m, const struct group *groups,
                         int n_groups, double log2_bits, struct arena *a, int *n);

/* "4 bit float, block 64" or "16 bit, not quantized"; owned by `a`. */
const char *choice_label(const struct choice *c, struct arena *a);

#endif

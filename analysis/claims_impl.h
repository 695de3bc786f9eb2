/* What the files of the claims share: the world (curves of one set of numbers), access to it, and how a claim states what it found.
 * Included by analysis/claims*.c only.
 *
 * Numbers are in points of quality, larger is better, whatever the metric: accuracy in per cent, or cross entropy, capped at
 * ln 100 and turned over, where CLAIM_NATS_PER_POINT make a point. Thresholds hold for both so. */
#ifndef ISOBIT_ANALYSIS_CLAIMS_IMPL_H
#define ISOBIT_ANALYSIS_CLAIMS_IMPL_H

#include "analysis/claims.h"
#include "analysis/fit.h"

#define CLAIM_NATS_PER_POINT 0.05

enum { CLAIM_MIN_SIZES = 3, CLAIM_BUDGETS = 64, CLAIM_MAX_STATEMENTS = 256 };

enum claim_family {
    FAMILY_OPT,
    FAMILY_PYTHIA, /* with GPT-NeoX */
    FAMILY_GPT2,
    FAMILY_BLOOM,
    FAMILY_BLOOMZ,
    FAMILY_OTHER /* any name the paper does not know */
};

/* A setting as numbers, to be found quickly. */
struct slice {
    enum dtype dtype;
    int exponent_bits; /* float; 0: the heuristic's at each k */
    int64_t block;     /* 0: whole tensor */
    double outlier_pct;
    bool is_centered;
};

struct world_group {
    struct slice slice;
    struct group *group;
};

struct world_family {
    const char *name;
    enum claim_family id;
    struct world_group *groups;
    int n_groups;
};

/* A family in one of the types that the paper's main curves are told for (float and quantile; int where neither was measured), in
 * blocks of 64. */
struct lane {
    const struct world_family *family;
    struct slice slice;
    struct group *group;
    const char *label; /* "pythia, float" */
};

/* The curves under one metric and one count of bits. */
struct world {
    enum metric_id metric;
    enum bits_id bits;
    struct world_family *families;
    int n_families;
    struct group *groups;
    int n_groups;
    struct lane *lanes;
    int n_lanes;
    const int *rows; /* rows of the frame that are looked at: one precision, each cell once */
    int n_rows;
    int n_frame_rows;
};

/* Curves of those rows of the frame that `compute` has, each (checkpoint, configuration) once. Owned by `a`. */
struct world world_build(const struct frame *f, const char *compute, enum metric_id m,
                         enum bits_id b, struct arena *a);
/* Sets every point from values[row], in the unit of the frame. `scratch` holds one number per row of the frame. */
void world_set(struct world *w, const double *values, double *scratch);
/* The precision most rows have. */
const char *world_compute(const struct frame *f);

/* How a claim speaks. The functions of one pass over a claim are always called in the same order, whatever the numbers are. */
struct claim_ctx {
    const struct world *world;
    const struct claims_input *in;
    const double *zero_shot, *nll; /* of this pass, per row of the frame, in its units */
    struct arena *scratch;         /* for one pass */
    bool *used;                    /* per row of the frame; NULL: not asked for */
    bool is_first; /* the pass over the measured numbers; labels are made in this one */
    struct statement *statements;
    double *values; /* of this pass */
    int n;
    int set; /* the open one */
    double share;
    struct arena *arena; /* of the result */
};

enum bound_kind {
    BOUND_AT_LEAST,  /* value >= at */
    BOUND_AT_MOST,   /* value <= at */
    BOUND_WITHIN,    /* -at <= value <= at */
    BOUND_EQUAL,     /* value == at, for arithmetic */
    BOUND_NOT_ABOVE, /* nothing shows that value > at */
    BOUND_NEAR_ZERO, /* less than 2 standard errors from 0 */
    BOUND_TOLD       /* no threshold: a number for the reader */
};
struct bound {
    enum bound_kind kind;
    double at;
};
#define AT_LEAST(x)  ((struct bound){BOUND_AT_LEAST, (x)})
#define AT_MOST(x)   ((struct bound){BOUND_AT_MOST, (x)})
#define WITHIN(x)    ((struct bound){BOUND_WITHIN, (x)})
#define EQUAL(x)     ((struct bound){BOUND_EQUAL, (x)})
#define NOT_ABOVE(x) ((struct bound){BOUND_NOT_ABOVE, (x)})
#define NEAR_ZERO    ((struct bound){BOUND_NEAR_ZERO, 0})
#define TOLD         ((struct bound){BOUND_TOLD, 0})

struct statement {
    const char *label;
    struct bound bound;
    double share;       /* of the set's covered statements that must hold */
    double least, most; /* the statistic's natural range; equal: none */
    double low, high;   /* its interval, where it is exact */
    int set;
    bool is_exact; /* no resampling */
};

/* Opens a set of statements: `share` of those that are covered must hold (1: all). A claim holds when all of its sets do; it
 * is not covered when one of them has nothing. */
void claim_set(struct claim_ctx *c, double share);
/* One statistic of the open set; NaN: not covered. Labels are only made in the first pass. */
void claim_state(struct claim_ctx *c, struct bound b, double value, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* The natural range of the statistic that was stated last: an interval does not reach beyond. */
void claim_range(struct claim_ctx *c, double least, double most);
/* The same for a number without sampling error, which only the first pass needs to compute. */
void claim_state_exact(struct claim_ctx *c, struct bound b, double value, const char *label);
/* The same for the mean of independent numbers, one a model; its interval follows from their spread. */
void claim_state_mean(struct claim_ctx *c, struct bound b, const double *v, int n,
                      const char *label);

/* ---- verdicts ---- */

/* Of one statistic with its interval, `spread` the standard deviation of its draws. */
enum verdict verdict_of_part(struct bound b, const struct claim_part *p, double spread);
/* Without an interval, where nobody asked for one: the statistic alone decides, but where nothing but an interval could. */
enum verdict verdict_of_point(struct bound b, double value);
enum verdict verdict_of_parts(const struct statement *s, const struct claim_part *p, int n);
/* The part that speaks for the verdict: of those that agree with it the one closest to its threshold, or farthest beyond. */
int decisive_part(const struct statement *s, const struct claim_part *p, int n, enum verdict v);
/* ">= 0.7"; owned by `a`. */
const char *bound_text(struct bound b, struct arena *a);

/* ---- access; NULL and NaN stand for what was not measured ---- */

struct slice slice_default(enum dtype t); /* blocks of 64, nothing else */
const struct curve *curve_of(const struct world_family *f, struct slice s, int k);
/* G(x, y) of paper.md section 2; NaN unless both have CLAIM_MIN_SIZES sizes and a common support. Notes the rows. */
double gap_of(struct claim_ctx *c, const struct curve *x, const struct curve *y);
double gap_at(struct claim_ctx *c, const struct world_family *f, struct slice x, int kx,
              struct slice y, int ky);
/* The point of a size; NULL. Notes its rows. */
const struct curve_point *point_of(struct claim_ctx *c, const struct curve *x, const char *size);
void use_curve(struct claim_ctx *c, const struct curve *x);
void use_point(struct claim_ctx *c, const struct curve_point *p);

/* A mean that nothing was added to is NaN; what is not a number is not added. */
struct mean {
    double sum;
    int n;
};
void mean_add(struct mean *m, double v);
double mean_of(const struct mean *m);

/* ---- the table ---- */

enum claim_axes {
    AXES_BOTH,     /* accuracy speaks, cross entropy beside it; both counts of bits */
    AXES_NLL,      /* cross entropy speaks */
    AXES_ACCURACY, /* about accuracy only */
    AXES_NLL_ONLY, /* about cross entropy only */
    AXES_SINGLE    /* neither metric nor bits matter */
};

struct claim_def {
    const char *id, *sentence, *test, *unit;
    const char *lacks; /* what a sweep must have for it */
    enum claim_axes axes;
    bool is_slow;                         /* its interval comes from the first 200 resamples */
    void (*compute)(struct claim_ctx *c); /* NULL: no sweep produces its data */
};
extern const struct claim_def claim_defs[];
extern const int claim_n_defs;

/* One per claim; the theme's file says more. */
#define CLAIM_FUNCTIONS(X)                                                                         \
    X(runs)                                                                                        \
    X(four_is_best)                                                                                \
    X(steps_down)                                                                                  \
    X(three_reverses)                                                                              \
    X(largest_bloom)                                                                               \
    X(pythia_tie)                                                                                  \
    X(parallel)                                                                                    \
    X(power_law)                                                                                   \
    X(collapse)                                                                                    \
    X(stable)                                                                                      \
    X(correlation)                                                                                 \
    X(block_is_a_bit)                                                                              \
    X(overhead)                                                                                    \
    X(small_blocks)                                                                                \
    X(no_rescue)                                                                                   \
    X(best_block)                                                                                  \
    X(nothing_helps)                                                                               \
    X(good_types)                                                                                  \
    X(type_ranks)                                                                                  \
    X(int_at_five)                                                                                 \
    X(exponent_rule)                                                                               \
    X(exponent_two_three)                                                                          \
    X(outliers_stabilize)                                                                          \
    X(outliers_below_four)                                                                         \
    X(outliers_at_four)                                                                            \
    X(centering)                                                                                   \
    X(bloomz)                                                                                      \
    X(larger_wins)                                                                                 \
    X(memory)                                                                                      \
    X(weight_std)                                                                                  \
    X(less_noisy)                                                                                  \
    X(few_samples)
#define X(name) void claim_##name(struct claim_ctx *c);
CLAIM_FUNCTIONS(X)
#undef X

#endif

/* The claims of the paper tested on the results of a sweep (paper.md sections 2 and 3). A claim is plain code that computes
 * named statistics from one set of numbers (a value of each metric per row of the frame) and says what each must satisfy;
 * running the same code over the resamples of the bootstrap gives the intervals, and these the verdicts. Every claim is run
 * for accuracy and for cross entropy and over two counts of bits. docs/ANALYSIS.md tells how verdicts are reached. Pure but
 * for claims_facts_load. */
#ifndef ISOBIT_ANALYSIS_CLAIMS_H
#define ISOBIT_ANALYSIS_CLAIMS_H

#include "analysis/bootstrap.h"
#include "analysis/source.h"
#include "base/json.h"

#define VERDICT_LIST(X)                                                                            \
    X(CONFIRMED, "confirmed")                                                                      \
    X(CONTRADICTED, "contradicted")                                                                \
    X(INCONCLUSIVE, "inconclusive")                                                                \
    X(NOT_COVERED, "not covered")
#define X(id, label) VERDICT_##id,
enum verdict { VERDICT_LIST(X) VERDICT_COUNT };
#undef X
const char *verdict_label(enum verdict v);

/* The numbers that the claims are computed from. */
struct claims_input {
    const struct frame *frame;
    const struct claims_facts
        *facts; /* NULL: claims that need more than the frame are not covered */
    /* Resample r of row i at [r * frame->n + i], as in the frame (share of items right; nats per token). NaN where a row has
     * no per-item values: then its own value stands in every resample. NULL: no intervals. */
    const double *zero_shot, *nll;
    const bool *has_zero_shot_items,
        *has_nll_items; /* per row; NULL: all have. A statistic over rows without has no interval */
    int n_resamples;
    int n_threads; /* 0 and 1: none but the caller's; changes no number */
};

/* What the database knows beside the curves. */
struct claims_facts {
    int64_t n_done; /* finished (model, configuration, evaluation) */
    /* Rank agreement between configurations of one model, one entry a model; NaN: not measured. */
    const struct claims_ranks *ranks;
    int n_ranks;
    const struct claims_weight_std *weight_std;
    int n_weight_std;
};
/* Spearman correlations of the order of a model's configurations. */
struct claims_ranks {
    const char *family, *size;
    double halves_nll, halves_zero_shot; /* two disjoint halves of the items */
    double short_long; /* the first 64 against the first 512 sequences' worth of tokens */
};
/* Spearman correlation of a weight's column spread with the size of what it puts out (paper table 2). */
struct claims_weight_std {
    const char *family, *size;
    double n_params;
    double control, attention, ffn;
};
/* Finds what the frame does not hold; `items` may be all zero. Everything in *out is owned by `a`. Errors: those of store_query. */
MUST_USE enum err_code claims_facts_load(struct store *s, const struct frame *f,
                                         const struct items *items, struct arena *a,
                                         struct claims_facts *out, struct err *e);

/* One statistic of a claim and what it must satisfy. */
struct claim_part {
    const char *label; /* "pythia, float"; "" where a claim has one statistic only */
    double value;      /* NaN: not covered */
    double low, high;  /* 95 % interval; NaN: none */
    const char *needs; /* ">= 0.7"; "" for a number that is only told */
    enum verdict verdict;
};

/* A claim under one metric and one count of bits. */
struct claim_variant {
    enum metric_id metric; /* METRIC_ZERO_SHOT or METRIC_NLL */
    enum bits_id bits;     /* BITS_FULL or BITS_NOMINAL */
    enum verdict verdict;
    const struct claim_part *parts;
    int n_parts;
    int decisive;    /* the part that the verdict hangs on; -1: none */
    const int *rows; /* rows of the frame that were used, ascending */
    int n_rows;
    const char *reason; /* why it is not covered or has no intervals; NULL */
};

struct claim {
    const char *id;       /* "C2" */
    const char *sentence; /* what is claimed, one sentence */
    const char *test;     /* statistic and threshold, one sentence */
    const char *unit;     /* of the statistic; "" for pure numbers */
    enum verdict verdict;
    const struct claim_variant *variants; /* the first one that is covered speaks for the claim */
    int n_variants;
    const char *note; /* why it is not covered, or that variants differ; NULL: nothing to say */
};

struct claims {
    const struct claim *v; /* C1 to C35, then E1 to E9 */
    int n;
    int n_of[VERDICT_COUNT];
    const char *compute; /* the precision that was looked at */
    const char
        *remark; /* intervals or their absence, capped values, what was left out; never NULL */
};

/* Everything in the result is owned by `a`. */
struct claims claims_run(const struct claims_input *in, struct arena *a);

/* Both of it for a command: what the database knows, and the resamples. `items` and `b` may be all zero. n_threads 0: one a core. */
MUST_USE enum err_code claims_test(const struct source *src, const struct items *items,
                                   const struct bootstrap *b, int64_t n_threads, struct claims *out,
                                   struct err *e);

/* The variant and the part that a claim's row shows; NULL when nothing is covered. */
const struct claim_variant *claim_shown(const struct claim *c);
const struct claim_part *claim_shown_part(const struct claim *c);

/* As printed by `claims --json`. New reference. */
json_t *claims_json(const struct claims *c, const struct frame *f);

#endif

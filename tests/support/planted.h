/* Databases written from known laws, so that an analysis can be judged by what was put in. A law gives every (model,
 * configuration) its true accuracy and cross entropy; items are then drawn around these numbers: each item has a difficulty
 * that all configurations share and noise of its own per configuration, so that paired differences are known better than the
 * numbers themselves, as in reality.
 *
 *   raw = base + slope log2(N / 1e9) - loss(family, size, configuration)      points of accuracy
 *   A   = raw + shift of the family, not below chance                         mean of the four tasks
 *   H   = nll_base - nats_per_point (raw - base)                              nats per token
 *
 * Straight lines over log2 N with a loss per configuration are straight over log2(total bits) with an offset per configuration:
 * the gap between two settings at equal bits is known exactly. */
#ifndef ISOBIT_TESTS_SUPPORT_PLANTED_H
#define ISOBIT_TESTS_SUPPORT_PLANTED_H

#include <stdbool.h>

#include "analysis/frame.h"
#include "schema/job.h"

enum planted_family { PLANTED_OPT, PLANTED_PYTHIA, PLANTED_GPT2, PLANTED_BLOOM, PLANTED_BLOOMZ };
enum { PLANTED_FAMILIES = 5, PLANTED_MAX_K = 8, PLANTED_TASKS = 5 };

/* Everything in points of accuracy. planted_paper() is a world in which the paper is right. */
struct planted_law {
    double base, slope;
    double loss[PLANTED_MAX_K + 1];       /* by k, quantile in blocks of 64 */
    double weight[PLANTED_MAX_K + 1];     /* by k: how much of the losses below is felt */
    double type_loss[DTYPE_COUNT];        /* beyond quantile's at 4 bit */
    double block_loss[PLANTED_FAMILIES];  /* of blocks of 1024 instead of 64 at 4 bit */
    int best_exponent[PLANTED_MAX_K + 1]; /* float */
    double exponent_loss;                 /* per exponent bit away from the best */
    double collapse[PLANTED_FAMILIES]
                   [3]; /* extra loss at 3 bit of the three largest sizes, largest first */
    double outlier_gain[PLANTED_MAX_K + 1]; /* by k, of kept columns; they also undo the collapse */
    double tilt[PLANTED_MAX_K + 1]; /* by k: points per doubling of parameters beyond slope */
    double center_loss;
    bool has_tie;                   /* Pythia: 5 bit about as good as 4 bit at equal bits, */
    double tie_gap;                 /* ahead by this */
    double shift[PLANTED_FAMILIES]; /* of accuracy only: what perplexity does not tell */
    double bloomz_loss;             /* BLOOMZ's own, for every quantized configuration */
    double nll_base, nats_per_point;
    /* H = 30 N^-0.1 k^-0.05 instead: no straight lines, and nothing but N and k counts. */
    bool has_power_law;
};

/* Grids of configurations; they add up, equal cells count once. */
enum planted_grid {
    PLANTED_WIDTHS =
        1,             /* k 3..8, float and quantile, blocks of 64; the baseline is in every grid */
    PLANTED_TYPES = 2, /* k 3..8, four types, blocks of 64 and 1024 */
    PLANTED_BLOCKS = 4, /* k 3..5, float and quantile, blocks of 64 to 4096 and the whole tensor */
    PLANTED_EXPONENTS = 8, /* float, k 3..8, every number of exponent bits */
    PLANTED_OUTLIERS = 16, /* k 3 and 4, float and quantile, 2 % of the columns kept */
    PLANTED_CENTERS = 32,  /* k 3..8, four types, centered */
    PLANTED_ALL = 63,
    PLANTED_FULL = 64 /* 226 configurations: with the 31 models and 5 evaluations 35,030 jobs */
};

struct planted {
    struct planted_law law;
    unsigned grids;
    unsigned families;              /* bits of enum planted_family */
    int max_sizes;                  /* of a family, evenly picked, largest kept; 0: all */
    double max_params;              /* larger models are left out */
    double linear_share;            /* of the parameters, in quantized tensors */
    int64_t n_items[PLANTED_TASKS]; /* by enum task */
    double difficulty_share;        /* of an item's variance that all configurations share, 0..1 */
    double nll_difficulty;          /* standard deviation between documents, nats per token */
    double nll_noise;               /* of one document under one configuration, nats per token */
    uint64_t seed;
    double missing; /* share of jobs that never ran */
    bool has_samples;
    /* Jobs to leave out besides; NULL: none. */
    bool (*is_left_out)(const char *family, const char *size, const struct config *c, enum task t);
};

/* A paper-like world: losses by k, unstable 3-bit OPT and Pythia, a tie of 5 and 4 bit on Pythia, small items sets. */
struct planted planted_paper(void);
/* The data set sizes of the paper and all 35,030 jobs. */
struct planted planted_full_size(void);
/* Spreads the families' shifts until accuracy and capped perplexity correlate by `r` over all cells. */
void planted_correlate(struct planted *p, double r);

struct planted_model {
    enum planted_family family;
    const char *family_name, *size;
    double n_params;
    int rank; /* 0: the family's largest */
};
/* Owned by `a`. */
struct planted_model *planted_models(const struct planted *p, struct arena *a, int *n);
struct config *planted_configs(const struct planted *p, struct arena *a, int *n);
struct bits planted_bits(const struct planted *p, const struct planted_model *m,
                         const struct config *c);

/* The truth: accuracy in points, nats per token. */
double planted_accuracy(const struct planted *p, const struct planted_model *m,
                        const struct config *c);
double planted_nll(const struct planted *p, const struct planted_model *m, const struct config *c);

/* The frame that a database without any noise would load as; owned by `a`. */
struct frame planted_frame(const struct planted *p, struct arena *a);

/* Writes a database with one sweep "planted", all jobs done but the missing ones. Errors: those of the store. */
MUST_USE enum err_code planted_write(const struct planted *p, const char *path, struct err *e);

#endif

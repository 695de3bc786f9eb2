/* Error bars: the paired bootstrap over items. Every resample draws the items of a task with replacement, the same draw for all
 * configurations, so that differences between configurations keep what they have in common (paper.md section 2). Accuracies are
 * means over items, cross entropy is total nats over total tokens. The result depends on the seed, never on the threads. */
#ifndef ISOBIT_ANALYSIS_BOOTSTRAP_H
#define ISOBIT_ANALYSIS_BOOTSTRAP_H

#include "analysis/fit.h"
#include "analysis/item_scores.h"
#include "base/cli.h"

struct bootstrap_opts {
    int64_t n_resamples; /* 0: no error bars */
    int64_t seed;
    int64_t n_threads; /* 0: one a core */
};
/* Rows for a command's option table; its struct has a member `struct bootstrap_opts bootstrap`. */
#define BOOTSTRAP_OPTIONS(opts_type)                                                               \
    {.name = "resamples",                                                                          \
     .type = CLI_INT,                                                                              \
     .arg = "N",                                                                                   \
     .help = "bootstrap resamples behind every interval; 0: none",                                 \
     .def = "1000",                                                                                \
     .min = 0,                                                                                     \
     .max = 100000,                                                                                \
     .offset = offsetof(opts_type, bootstrap.n_resamples)},                                        \
        {.name = "seed",                                                                           \
         .type = CLI_INT,                                                                          \
         .arg = "S",                                                                               \
         .help = "of the resamples: the same seed gives the same intervals",                       \
         .def = "1",                                                                               \
         .min = 0,                                                                                 \
         .max = 9e15,                                                                              \
         .offset = offsetof(opts_type, bootstrap.seed)},                                           \
    {                                                                                              \
        .name = "threads", .type = CLI_INT, .arg = "N",                                            \
        .help = "0: one a core; changes no number", .def = "0", .min = 0, .max = 1024,             \
        .offset = offsetof(opts_type, bootstrap.n_threads)                                         \
    }

/* A task's own number for a row. NaN: not measured. */
struct task_estimate {
    double value, stderr_;
};

struct bootstrap {
    int n_rows, n_resamples; /* n_resamples 0: nothing was drawn, the matrices are NULL */
    /* Resample r of row i at [r * n_rows + i], so that group_set_values takes value[m] + r * n_rows. A row whose items are not
     * all stored has its own value in every resample. Cross entropy and perplexity are capped as the frame is. No metric is NaN here that is not NaN in the frame. KL is not stored per
     * item: NULL. */
    double *value[METRIC_COUNT];
    const bool *is_drawn[METRIC_COUNT];  /* per row: it has items */
    const double *stderr_[METRIC_COUNT]; /* per row; NaN where nothing was drawn */
    const struct task_estimate *task
        [TASK_COUNT]
        [SCORE_COUNT]; /* per row; perplexity: SCORE_ACC holds nats per token; SCORE_BYTES is not drawn */
    int n_not_drawn;    /* rows with a metric that stands still in every resample */
    int n_contradicted; /* those of them whose items give another value than the stored one */
    size_t bytes;       /* of the matrices */
};

/* Everything but the matrices is owned by `a`. Caller calls bootstrap_release. Errors: ERR_NOMEM; ERR_IO (threads). */
MUST_USE enum err_code bootstrap_run(const struct frame *f, const struct items *items,
                                     const struct bootstrap_opts *o, struct arena *a,
                                     struct bootstrap *out, struct err *e);
void bootstrap_release(struct bootstrap *b);
/* items_read and bootstrap_run; without resamples the samples are not read. */
MUST_USE enum err_code bootstrap_load(struct store *s, const struct frame *f,
                                      const struct bootstrap_opts *o, struct arena *a,
                                      struct items *items, struct bootstrap *out, struct err *e);

struct interval {
    double low, high; /* NaN: none */
};
/* The middle 95 % of v, interpolated between order statistics (R's type 7). Sorts v. NaN for n < 2. */
struct interval interval_of(double *v, int n);
/* Standard deviation of v (n - 1); NaN for n < 2. */
double spread_of(const double *v, int n);

/* The interval of a linear functional of row values (a gap, an offset). */
struct interval bootstrap_interval(const struct bootstrap *b, enum metric_id m,
                                   const struct linear *l);

/* How often each curve of `g` is best at x = log2(bits): p[i] for curve i, sums to 1 over the curves that cover x. */
void bootstrap_best(const struct bootstrap *b, enum metric_id m, const struct group *g, double x,
                    double *p);

#endif

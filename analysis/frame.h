/* Result rows as columns: the view `scaling`, one row per (sweep, model, configuration), read once into memory and filtered. What a
 * metric is, which way is better and how it is written stands here once, as a table. Pure after loading. */
#ifndef ISOBIT_ANALYSIS_FRAME_H
#define ISOBIT_ANALYSIS_FRAME_H

#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"
#include "schema/job.h"
#include "schema/store.h"

/* X(id, "option", "column of scaling", "axis title", larger is better, printf format) */
#define METRIC_LIST(X)                                                                             \
    X(ZERO_SHOT, "zero-shot", "mean_zero_shot", "Mean zero-shot accuracy", true, "%.4f")           \
    X(ZERO_SHOT_NORM, "zero-shot-norm", "mean_zero_shot_norm",                                     \
      "Mean zero-shot accuracy (length-normalized)", true, "%.4f")                                 \
    X(NLL, "nll", "nll", "Cross entropy (nats per token)", false, "%.4f")                          \
    X(PERPLEXITY, "perplexity", "perplexity", "Perplexity", false, "%.3f")                         \
    X(KL, "kl", "kl_to_16bit", "KL divergence to the 16-bit model (nats)", false, "%.5f")

#define X(id, option, column, title, is_larger_better, format) METRIC_##id,
enum metric_id { METRIC_LIST(X) METRIC_COUNT };
#undef X

struct metric_info {
    const char *option, *column, *title;
    bool is_larger_better;
    const char *format;
};
const struct metric_info *metric_info_of(enum metric_id m);
#define METRIC_CHOICES "zero-shot|zero-shot-norm|nll|perplexity|kl"
enum metric_id metric_of_option(const char *option);

/* Which count of bits is the x axis (quantization spec, section 7). */
enum bits_id { BITS_FULL, BITS_NOMINAL, BITS_LINEAR, BITS_COUNT };
#define BITS_CHOICES "full|nominal|linear"
enum bits_id bits_of_option(const char *option);
const char *bits_title(enum bits_id b);

struct frame_row {
    const char *sweep, *family, *size;
    int k;
    const char *dtype; /* NULL at 16 bit */
    int exponent_bits, subnormal_shift;
    int64_t block; /* 0: whole tensor */
    const char *center;
    double outlier_pct;
    const char *outlier_rule, *compute;
    double n_params, bits_per_param;
    double total_bits[BITS_COUNT];
    double
        metric[METRIC_COUNT]; /* NaN: not measured; cross entropy and perplexity after frame_cap */
    double raw_nll; /* as measured; infinite: measured, and no finite number; NaN: not measured */
    bool is_capped;
    bool quant_head, quant_embed;
    const char *dequant; /* "fp16", "fp32" */
    const char *model;   /* its name in keys: two checkpoints may share family and size */
    int64_t model_id, config_id;
    int64_t job[TASK_COUNT]; /* the finished job of each task; 0: none */
};

struct frame {
    struct frame_row *rows;
    int n;
    double cap;   /* perplexity; 0: none */
    int n_capped; /* rows that were changed by it */
};

struct frame_filter {
    const char *sweep, *family, *compute; /* NULL: any */
};

/* Rows in a fixed order: sweep, family, parameters, k, type, block. Strings are owned by `a`. Errors: those of store_query. */
MUST_USE enum err_code frame_load(struct store *s, const struct frame_filter *filter,
                                  struct arena *a, struct frame *out, struct err *e);

/* Perplexities above `perplexity`, and those that are no finite number, count as this from here on, cross entropies as its
 * logarithm (paper section C.5: 100). 0 leaves finite ones as they are and makes the others NaN. */
void frame_cap(struct frame *f, double perplexity);

/* What is compared along k: everything of a configuration but k. The 16-bit rows belong to every setting of their family. */
struct setting {
    const char *dtype; /* "int", "float", "float E3M*" when not the heuristic's exponent bits */
    int64_t block;
    const char *center;
    double outlier_pct;
    const char *outlier_rule;
    int subnormal_shift;
    const char *compute;
    const char *also; /* ", head quantized", …; "" or NULL for the defaults */
};
/* The setting of a quantized row; the type's label is owned by `a`. */
struct setting setting_of(const struct frame_row *row, struct arena *a);
/* A total order; equal settings give 0. */
int setting_compare(const struct setting *x, const struct setting *y);
bool setting_equal(const struct setting *x, const struct setting *y);
/* The paper's default slice: no centering, no outliers, the heuristic's float without shift, only linear layers. */
bool setting_is_plain(const struct setting *x);
/* "float, block 64", "int, whole tensor, centered (tensor)"; owned by `a`. */
const char *setting_label(const struct setting *x, struct arena *a);
/* "64" or "tensor"; owned by `a`. */
const char *block_label(int64_t block, struct arena *a);

#endif

/* What a sweep will cost, before anything runs: weights to read, floating-point operations, hours at stated rates
 * (models spec, section 4). Shapes come from the catalog, from config.json or from the size of the weight files;
 * tokens from the published data sets' counts or from the data files here. Reads directories and small files,
 * never weights. */
#ifndef ISOBIT_COORDINATOR_ESTIMATE_H
#define ISOBIT_COORDINATOR_ESTIMATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/mem.h"
#include "schema/catalog.h"
#include "schema/sweep.h"

/* X(id, "label"): where a model's numbers come from, best first. */
#define SHAPE_SOURCE_LIST(X)                                                                       \
    X(CATALOG, "catalog")                                                                          \
    X(CONFIG, "config.json")                                                                       \
    X(FILES, "size of the weight files")                                                           \
    X(UNKNOWN, "unknown")
enum shape_source {
#define X(id, label) SHAPE_##id,
    SHAPE_SOURCE_LIST(X)
#undef X
        SHAPE_SOURCE_COUNT
};

struct estimate_model {
    enum shape_source source;
    bool is_here;                      /* the files are on this machine */
    int64_t n_params, n_embed, n_head; /* 0 when unknown; n_head: weights of the last product */
    int64_t weights_bytes;             /* files */
    int n_configs;
    int64_t n_jobs;
    double flops_pass; /* all evaluations of one configuration */
    double flops;      /* of all its jobs */
    double hours_flat, hours_by_size;
};

/* X(id, "label"): where an evaluation's tokens come from. */
#define TOKENS_SOURCE_LIST(X)                                                                      \
    X(SPEC, "max_tokens of the spec")                                                              \
    X(LINES, "lines of the data file at the published tokens an item")                             \
    X(BYTES, "bytes of the data file at 4.3 a token")                                              \
    X(PUBLISHED, "the published data set")
enum tokens_source {
#define X(id, label) TOKENS_##id,
    TOKENS_SOURCE_LIST(X)
#undef X
        TOKENS_SOURCE_COUNT
};

struct estimate_eval {
    enum tokens_source source;
    bool is_here;
    double tokens;        /* as separate requests */
    double shared_tokens; /* contexts that choices share computed once */
    double scored_tokens; /* where the head is needed */
    int64_t n_jobs;
};

/* Models with one family and one number of configurations. */
struct estimate_group {
    const char *family;
    int n_models, n_configs;
    int64_t n_jobs;
    double n_params, weights_bytes, flops_pass, flops, hours_flat, hours_by_size;
};

struct estimate {
    struct estimate_model *models; /* parallel to the sweep's */
    struct estimate_eval *evals;
    struct estimate_group *groups;
    int n_groups;
    int n_cells; /* pairs of model and configuration */
    int n_models_absent, n_models_unknown, n_evals_absent;
    double bytes_per_job_loads, bytes_per_config_loads,
        bytes_once; /* read in total, by what loads the weights */
    double flops,
        flops_shared; /* shared: contexts once, head only where scored: what the engine does */
    double hours_flat, hours_by_size, hours_cpu;
    int cpu_cores;
};

/* Everything in *out is owned by `a`. Nothing here fails: what is not known is counted as unknown. */
void estimate_sweep(const struct sweep *sw, struct arena *a, struct estimate *out);
const char *shape_source_label(enum shape_source s);
const char *tokens_source_label(enum tokens_source s);

/* For people: aligned tables, appended to `out`. And the same as JSON (a new reference; fields in cmd_plan.c). */
void estimate_print(const struct sweep *sw, const struct estimate *est, struct buf *out);
json_t *estimate_to_json(const struct sweep *sw, const struct estimate *est);

#endif

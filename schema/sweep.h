/* A sweep spec in memory and its expansion into jobs. sweep_yaml.c reads the text; expansion is pure: sorted, each cell
 * once, the same for the same spec. Nothing here opens files named in the spec. */
#ifndef ISOBIT_SCHEMA_SWEEP_H
#define ISOBIT_SCHEMA_SWEEP_H

#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "schema/job.h"

struct sweep_mark { /* where in the spec something stands, for errors found later */
    int line, column;
};

struct sweep_model {
    struct model_ref ref;
    struct sweep_mark mark;
};

struct sweep_eval {
    struct eval_spec spec;
    struct sweep_mark mark;
};

/* An expanded sweep: models, configurations and evaluations once each, and the jobs as index triples, ordered by model,
 * configuration, evaluation (the order slices follow; k = 16 first, as the engine wants its baseline). */
struct sweep_job {
    int32_t model, config, eval;
};

struct sweep {
    const char *name;
    const char *path; /* of the spec file, as given */
    const char *text; /* the spec itself: stored with the sweep */
    const char *dir;  /* absolute directory that paths are relative to */
    struct sweep_model *models;
    struct config *configs;
    struct sweep_eval *evals;
    struct sweep_job *jobs;
    int n_models, n_configs, n_evals;
    int64_t n_jobs;
    int64_t job_limit_s; /* `job_limit`: a job that runs longer has failed; 0: none */
};

/* Reads, validates and expands a spec. `path` names it in errors and gives the base of relative paths. Everything in *out
 * is owned by `a`. Errors: ERR_FORMAT with path:line:column for YAML that does not parse, unknown or repeated keys, wrong
 * types, values outside their axis, impossible cells, an evaluation or model named twice with different meaning; a sweep
 * without jobs; more than 10 million jobs. */
MUST_USE enum err_code sweep_parse(struct str text, const char *path, struct arena *a,
                                   struct sweep *out, struct err *e);
MUST_USE enum err_code sweep_load(const char *path, struct arena *a, struct sweep *out,
                                  struct err *e);

#endif

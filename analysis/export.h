/* Results for other programs: CSV, JSON lines, and the result files of lm-evaluation-harness. */
#ifndef ISOBIT_ANALYSIS_EXPORT_H
#define ISOBIT_ANALYSIS_EXPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "schema/store.h"

struct export_what {
    struct store *store;
    const char *db;             /* its path, for errors */
    const char *sweep, *family; /* NULL: any */
    bool has_samples;           /* also what single items say */
};

/* The view `results` with a head line; with samples the items instead: one line an item, with its choices' log-likelihoods. Texts are
 * quoted where they must be, NULL is empty, numbers have all their digits. */
MUST_USE enum err_code export_csv(const struct export_what *w, FILE *out, struct err *e);

/* One object a finished job: its key, its configuration, "metrics": {name: {value, stderr, n}} and, with samples, "samples": one
 * list of log-likelihoods an item. */
MUST_USE enum err_code export_jsonl(const struct export_what *w, FILE *out, struct err *e);

/* DIR/<model>/<configuration>/results.json for every model and configuration, as lm-evaluation-harness 0.4 writes them ("acc,none",
 * "acc_stderr,none", n-samples, …), with samples_<task>.jsonl beside it. *n_files is how many results there are. */
MUST_USE enum err_code export_lm_eval(const struct export_what *w, const char *dir, int *n_files,
                                      struct err *e);

/* The floats of a sample: `width` of them an item. */
struct export_sample {
    float *values;
    size_t n;
    int width;
};
/* A sample's columns `codec` and `blob` of a row, unpacked into memory that the next call reuses (the caller's `room`, freed with
 * xfree). Errors: ERR_FORMAT with the job's number. */
MUST_USE enum err_code export_unpack(const struct export_what *w, const struct store_row *row,
                                     int job_col, int codec_col, struct export_sample *room,
                                     struct err *e);

#endif

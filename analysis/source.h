/* Where an analysis command reads from: the options every command shares, and opening the database with
 * them around what the command does. */
#ifndef ISOBIT_ANALYSIS_SOURCE_H
#define ISOBIT_ANALYSIS_SOURCE_H

#include "analysis/frame.h"
#include "base/cli.h"

struct source_opts {
    const char *db, *sweep, *family, *compute, *metric, *bits;
    double cap;
};

/* Rows of option tables; `at`: offset of the field. */
#define SOURCE_OPT_DB(at)                                                                          \
    {                                                                                              \
        .name = "db", .type = CLI_STRING, .arg = "F.db",                                           \
        .help = "database of the sweep (required)", .offset = (at)                                 \
    }
#define SOURCE_OPT_SWEEP(at)                                                                       \
    {                                                                                              \
        .name = "sweep", .type = CLI_STRING, .arg = "NAME", .help = "one sweep of the database",   \
        .offset = (at)                                                                             \
    }
#define SOURCE_OPT_FAMILY(at)                                                                      \
    {                                                                                              \
        .name = "family", .type = CLI_STRING, .arg = "NAME", .help = "one model family",           \
        .offset = (at)                                                                             \
    }
/* All rows for a command whose struct has a member `struct source_opts source`. */
#define SOURCE_OPTIONS(opts_type, default_metric)                                                  \
    SOURCE_OPTIONS_NAMED(opts_type, default_metric, "bits")
/* With another name for the option that says which count of bits is meant. */
#define SOURCE_OPTIONS_NAMED(opts_type, default_metric, bits_name)                                 \
    SOURCE_OPT_DB(offsetof(opts_type, source.db)),                                                 \
        SOURCE_OPT_SWEEP(offsetof(opts_type, source.sweep)),                                       \
        SOURCE_OPT_FAMILY(offsetof(opts_type, source.family)),                                     \
        {.name = "compute",                                                                        \
         .type = CLI_STRING,                                                                       \
         .arg = "PRECISION",                                                                       \
         .help = "fp32, fp16 or bf16; never mixed on one curve",                                   \
         .offset = offsetof(opts_type, source.compute)},                                           \
        {.name = "metric",                                                                         \
         .type = CLI_CHOICE,                                                                       \
         .arg = "NAME",                                                                            \
         .help = METRIC_CHOICES,                                                                   \
         .def = (default_metric),                                                                  \
         .choices = METRIC_CHOICES,                                                                \
         .offset = offsetof(opts_type, source.metric)},                                            \
        {.name = (bits_name),                                                                      \
         .type = CLI_CHOICE,                                                                       \
         .arg = "COUNT",                                                                           \
         .help = "x axis: full (other parameters at 16 bit), nominal or linear",                   \
         .def = "full",                                                                            \
         .choices = BITS_CHOICES,                                                                  \
         .offset = offsetof(opts_type, source.bits)},                                              \
    {                                                                                              \
        .name = "cap", .type = CLI_NUMBER, .arg = "PERPLEXITY",                                    \
        .help = "perplexities above it, and infinite ones, count as this; 0: as they are",         \
        .def = "100", .min = 0, .max = 1e300, .offset = offsetof(opts_type, source.cap)            \
    }

/* What a command works on. `arena` and everything in it live until the action returns. */
struct source {
    const struct source_opts *opts;
    struct store
        *store; /* one state of the database: a sweep that runs meanwhile changes nothing here */
    struct arena *arena;
    struct frame frame;
    enum metric_id metric;
    enum bits_id bits;
};
typedef enum err_code (*source_fn)(struct source *src, const void *arg, struct err *e);

/* ERR_NOTFOUND with what to do when no job is done: nothing is planned, nothing was run, or all has failed. */
MUST_USE enum err_code source_check_done(struct store *s, const char *db, struct err *e);

/* Opens the database read-only, loads the frame, calls `act` once and releases everything. Errors: ERR_USAGE without --db;
 * ERR_NOTFOUND with what to do when the frame is empty, telling an unknown sweep or family from a sweep without results; those of
 * `act`. */
MUST_USE enum err_code source_run(const struct source_opts *o, source_fn act, const void *arg,
                                  struct err *e);

#endif

/* Where an analysis command reads from: the options every command shares, and opening the database with them. */
#ifndef ISOBIT_ANALYSIS_SOURCE_H
#define ISOBIT_ANALYSIS_SOURCE_H

#include "analysis/frame.h"
#include "base/cli.h"

struct source_opts {
    const char *db, *sweep, *family, *compute, *metric, *bits;
};

/* Rows for a command's option table; its struct has a member `struct source_opts source`. */
#define SOURCE_OPTIONS(opts_type, default_metric)                                                  \
    {.name = "db",                                                                                 \
     .type = CLI_STRING,                                                                           \
     .arg = "F.db",                                                                                \
     .help = "database of the sweep (required)",                                                   \
     .offset = offsetof(opts_type, source.db)},                                                    \
        {.name = "sweep",                                                                          \
         .type = CLI_STRING,                                                                       \
         .arg = "NAME",                                                                            \
         .help = "one sweep of the database",                                                      \
         .offset = offsetof(opts_type, source.sweep)},                                             \
        {.name = "family",                                                                         \
         .type = CLI_STRING,                                                                       \
         .arg = "NAME",                                                                            \
         .help = "one model family",                                                               \
         .offset = offsetof(opts_type, source.family)},                                            \
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
    {                                                                                              \
        .name = "bits", .type = CLI_CHOICE, .arg = "COUNT",                                        \
        .help = "x axis: full (other parameters at 16 bit), nominal or linear", .def = "full",     \
        .choices = BITS_CHOICES, .offset = offsetof(opts_type, source.bits)                        \
    }

/* Opens the database read-only and loads the frame. Errors: ERR_USAGE without --db; ERR_NOTFOUND with what to do when the frame is
 * empty, telling an unknown sweep or family from a sweep without results. */
MUST_USE enum err_code source_load(const struct source_opts *o, struct arena *a,
                                   struct store **store, struct frame *frame, struct err *e);

#endif

/* The commands of isobit-worker, one file cmd_<name>.c each, and what they share. Only these and main.c print. */
#ifndef ISOBIT_WORKER_CMD_H
#define ISOBIT_WORKER_CMD_H

#include "base/cli.h"
#include "base/err.h"
#include "base/mem.h"
#include "schema/job.h"

extern const struct cli_cmd cmd_codebook;
extern const struct cli_cmd cmd_compute;
extern const struct cli_cmd cmd_eval;
extern const struct cli_cmd cmd_inspect;
extern const struct cli_cmd cmd_logits;
extern const struct cli_cmd cmd_probe;
extern const struct cli_cmd cmd_run;
extern const struct cli_cmd cmd_tokenize;

/* Rows of option tables that several commands have; `at`: offset of the field. `what`, `when`: string literals in front
 * of the help. */
#define CMD_OPT_MODEL(what, at)                                                                    \
    {                                                                                              \
        .name = "model", .letter = 'm', .type = CLI_STRING, .arg = "PATH|HUB-ID",                  \
        .help = what ", or org/name[@revision] in the local cache", .offset = (at)                 \
    }
#define CMD_OPT_DEVICE(at)                                                                         \
    {                                                                                              \
        .name = "device", .type = CLI_STRING, .arg = "cpu|cuda:N", .help = "where to compute",     \
        .def = "cpu", .offset = (at)                                                               \
    }
#define CMD_OPT_THREADS(at)                                                                        \
    {                                                                                              \
        .name = "threads", .letter = 'j', .type = CLI_INT, .arg = "N",                             \
        .help = "threads on the CPU; 0: one per core that this process may use", .def = "0",       \
        .min = 0, .max = 4096, .offset = (at)                                                      \
    }
#define CMD_OPT_MEMORY(when, at)                                                                   \
    {                                                                                              \
        .name = "memory", .type = CLI_BYTES, .arg = "SIZE",                                        \
        .help = when "memory budget for weights, e.g. 20GiB; a checkpoint beyond it runs layer "   \
                     "by layer (docs/STREAMING.md); 0: what the device has",                       \
        .def = "0", .min = 0, .max = 1e15, .offset = (at)                                          \
    }
#define CMD_OPT_EXPONENT_BITS(at)                                                                  \
    {                                                                                              \
        .name = "exponent-bits", .type = CLI_STRING, .arg = "N|paper",                             \
        .help = "exponent bits of float (half of k, rounded up, when not given)", .offset = (at)   \
    }

/* What --exponent-bits means at k bits; 0 for NULL. Errors: ERR_USAGE. */
MUST_USE enum err_code cmd_exponent_bits(const char *arg, int k, int *out, struct err *e);

/* What --model means: a directory, else "org/name[@revision]" in the local Hugging Face cache. Strings are owned by
 * `a`. Errors: ERR_NOTFOUND for a path that is no directory; ERR_FORMAT. */
MUST_USE enum err_code cmd_model_ref(const char *arg, struct arena *a, struct model_ref *out,
                                     struct err *e);

#endif

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

/* What --model means: a directory, else "org/name[@revision]" in the local Hugging Face cache. Strings are owned by
 * `a`. Errors: ERR_NOTFOUND for a path that is no directory; ERR_FORMAT. */
MUST_USE enum err_code cmd_model_ref(const char *arg, struct arena *a, struct model_ref *out,
                                     struct err *e);

#endif

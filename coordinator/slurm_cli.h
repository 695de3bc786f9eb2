/* Slurm's own programs, sbatch, squeue, scontrol and scancel, as functions. No libslurm: its interface changes with every
 * version, its programs' do not. Thread: the main one (proc.h). */
#ifndef ISOBIT_COORDINATOR_SLURM_CLI_H
#define ISOBIT_COORDINATOR_SLURM_CLI_H

#include "coordinator/slurm_text.h"

struct slurm_cli {
    char *sbatch, *squeue, *scontrol, *scancel; /* paths */
};

/* Errors: ERR_NOTFOUND when one of them is not in PATH. */
MUST_USE enum err_code slurm_cli_open(struct slurm_cli *c, struct err *e);
void slurm_cli_close(struct slurm_cli *c);

/* The calls below fail with ERR_TIMEOUT when Slurm does not answer, ERR_IO with the program's last word when it refuses, and
 * ERR_FORMAT. */
MUST_USE enum err_code slurm_cli_submit(const struct slurm_cli *c, struct str script, int64_t *id,
                                        struct err *e);
/* All jobs of this user with that name that Slurm still knows. */
MUST_USE enum err_code slurm_cli_queue(const struct slurm_cli *c, const char *name, struct arena *a,
                                       struct slurm_job **out, int *n, struct err *e);
MUST_USE enum err_code slurm_cli_ending(const struct slurm_cli *c, int64_t id,
                                        struct slurm_ending *out, struct err *e);
/* Cancels those of the n jobs that still wait. */
MUST_USE enum err_code slurm_cli_cancel_queued(const struct slurm_cli *c, const int64_t *ids, int n,
                                               struct err *e);

#endif

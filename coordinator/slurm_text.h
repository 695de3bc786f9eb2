/* What is said to Slurm and what it says: the batch script of a worker, and the outputs of sbatch, squeue and scontrol. An
 * output that is not exactly as expected is an error, because a misread one starts jobs without end. Pure. */
#ifndef ISOBIT_COORDINATOR_SLURM_TEXT_H
#define ISOBIT_COORDINATOR_SLURM_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

/* What a Slurm job's state means for us. */
enum slurm_phase {
    SLURM_QUEUED,  /* waits for a node, perhaps again */
    SLURM_RUNNING, /* has its node */
    SLURM_LEAVING, /* over, the node is cleaned */
    SLURM_ENDED,   /* its script ended with status 0 */
    SLURM_TAKEN,   /* ended from outside: time limit, preemption, scancel */
    SLURM_BROKEN   /* its script failed, or its node */
};

/* X(state as Slurm prints it, phase) */
#define SLURM_STATE_LIST(X)                                                                        \
    X(PENDING, QUEUED)                                                                             \
    X(CONFIGURING, QUEUED)                                                                         \
    X(REQUEUED, QUEUED)                                                                            \
    X(REQUEUE_FED, QUEUED)                                                                         \
    X(REQUEUE_HOLD, QUEUED)                                                                        \
    X(RESV_DEL_HOLD, QUEUED)                                                                       \
    X(SPECIAL_EXIT, QUEUED)                                                                        \
    X(RUNNING, RUNNING)                                                                            \
    X(RESIZING, RUNNING)                                                                           \
    X(SIGNALING, RUNNING)                                                                          \
    X(STOPPED, RUNNING)                                                                            \
    X(SUSPENDED, RUNNING)                                                                          \
    X(COMPLETING, LEAVING)                                                                         \
    X(STAGE_OUT, LEAVING)                                                                          \
    X(COMPLETED, ENDED)                                                                            \
    X(CANCELLED, TAKEN)                                                                            \
    X(DEADLINE, TAKEN)                                                                             \
    X(PREEMPTED, TAKEN)                                                                            \
    X(REVOKED, TAKEN)                                                                              \
    X(TIMEOUT, TAKEN)                                                                              \
    X(BOOT_FAIL, BROKEN)                                                                           \
    X(FAILED, BROKEN)                                                                              \
    X(NODE_FAIL, BROKEN)                                                                           \
    X(OUT_OF_MEMORY, BROKEN)

struct slurm_job {
    int64_t id;
    enum slurm_phase phase;
    const char *state; /* static */
    int64_t run_s;     /* since it started last */
    char reason[96];   /* why it waits or how it ended, in Slurm's words */
};

/* The format that squeue is asked for: "12|RUNNING|1-02:03:04|None", one job a line. */
#define SLURM_QUEUE_FORMAT "%i|%T|%M|%r"
/* *out is owned by `a`. Errors: ERR_FORMAT with the line. */
MUST_USE enum err_code slurm_parse_queue(struct str text, struct arena *a, struct slurm_job **out,
                                         int *n, struct err *e);
/* `sbatch --parsable`: "12" or "12;cluster". */
MUST_USE enum err_code slurm_parse_submitted(struct str text, int64_t *id, struct err *e);

struct slurm_ending {
    int64_t status, signal; /* of the batch script */
};
/* `scontrol --oneliner show job N`: its ExitCode. */
MUST_USE enum err_code slurm_parse_ending(struct str text, struct slurm_ending *out, struct err *e);

/* A Slurm job that runs workers. Strings are borrowed. */
struct slurm_script {
    const char *name; /* of the Slurm job */
    const char *db_path;
    const char *worker_program;
    const char *connect;  /* tcp://HOST:PORT */
    const char *keys_dir; /* NULL: none */
    const char *log_dir;
    const char *partition, *account; /* NULL: the cluster's default */
    const char *walltime;            /* as sbatch --time takes it; NULL: the partition's */
    int64_t gpus;                    /* of a job, one worker each; 0: one worker on the CPUs */
    int64_t idle_s, drain_s;         /* drain_s: how long before the end USR1 comes */
    struct cli_list sbatch_args, worker_args;
};
/* Errors: ERR_USAGE for a value that would break out of its line. */
MUST_USE enum err_code slurm_write_script(const struct slurm_script *s, struct buf *out,
                                          struct err *e);

/* "isobit-" and twelve digits that depend on the database's absolute path: workers of one database are found again by it.
 * Writes into out[24]. */
void slurm_job_name(const char *db_path, char out[24]);

#endif

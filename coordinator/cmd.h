/* The commands of isobit, one file each: cmd_<name>.c. */
#ifndef ISOBIT_COORDINATOR_CMD_H
#define ISOBIT_COORDINATOR_CMD_H

#include "base/cli.h"

extern const struct cli_cmd cmd_backup;
extern const struct cli_cmd cmd_cancel;
extern const struct cli_cmd cmd_explain;
extern const struct cli_cmd cmd_hold;
extern const struct cli_cmd cmd_jobs;
extern const struct cli_cmd cmd_keygen;
extern const struct cli_cmd cmd_plan;
extern const struct cli_cmd cmd_priority;
extern const struct cli_cmd cmd_release;
extern const struct cli_cmd cmd_retry;
extern const struct cli_cmd cmd_run;
extern const struct cli_cmd cmd_serve;
extern const struct cli_cmd cmd_slurm;
extern const struct cli_cmd cmd_status;

#endif

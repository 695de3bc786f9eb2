/* The commands of isobit, one file each: cmd_<name>.c. */
#ifndef ISOBIT_COORDINATOR_CMD_H
#define ISOBIT_COORDINATOR_CMD_H

#include "base/cli.h"

extern const struct cli_cmd cmd_plan;
extern const struct cli_cmd cmd_run;
extern const struct cli_cmd cmd_serve;

#endif

/* The subcommands of isobit-analysis, one per cmd_<name>.c; main.c lists them. */
#ifndef ISOBIT_ANALYSIS_CMD_H
#define ISOBIT_ANALYSIS_CMD_H

#include "base/cli.h"

extern const struct cli_cmd cmd_fit;
extern const struct cli_cmd cmd_table;
extern const struct cli_cmd cmd_claims;
extern const struct cli_cmd cmd_plot;
extern const struct cli_cmd cmd_report;
extern const struct cli_cmd cmd_export;
extern const struct cli_cmd cmd_recommend;

#endif

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

/* Rows of option tables that several commands have; `at`: offset of the field. */
#define CMD_OPT_DB(at)                                                                             \
    {                                                                                              \
        .name = "db", .type = CLI_STRING, .arg = "F.db", .help = "the database", .offset = (at)    \
    }
#define CMD_OPT_SPEC_DB(at)                                                                        \
    {                                                                                              \
        .name = "db", .type = CLI_STRING, .arg = "F.db",                                           \
        .help = "database (default: the spec's name with .db, in this directory)", .offset = (at)  \
    }
#define CMD_OPT_HTTP(at)                                                                           \
    {                                                                                              \
        .name = "http", .type = CLI_STRING, .arg = "HOST:PORT",                                    \
        .help = "show a web page, JSON and Prometheus metrics there, e.g. 127.0.0.1:8080 "         \
                "(port 0: a free one)",                                                            \
        .offset = (at)                                                                             \
    }
#define CMD_OPT_HTTP_OPEN(at)                                                                      \
    {                                                                                              \
        .name = "http-open", .type = CLI_FLAG,                                                     \
        .help = "--http may be an address that other machines reach: whoever does can read",       \
        .offset = (at)                                                                             \
    }
#define CMD_OPT_MAX_ATTEMPTS(at)                                                                   \
    {                                                                                              \
        .name = "max-attempts", .type = CLI_INT, .arg = "N",                                       \
        .help = "a job that failed so often is buried", .def = "3", .min = 1, .max = 1000,         \
        .offset = (at)                                                                             \
    }

#endif

/* A coordinator and workers as real processes, for stories that kill them. Aborts (CHECK) when the scaffolding itself fails.
 * Plain C, no framework. */
#ifndef ISOBIT_TESTS_SUPPORT_CLUSTER_H
#define ISOBIT_TESTS_SUPPORT_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Starts bin/PROGRAM with `args` (ends with NULL), output appended to `log`. */
pid_t cluster_start(const char *program, const char *const *args, const char *log);
void cluster_kill(pid_t pid); /* SIGKILL, and waits */
/* Exit status within `seconds`, 128 + n for a signal, -1 when it still runs. */
int cluster_wait(pid_t pid, double seconds);

/* `isobit plan` of a spec of the source tree into db. */
void cluster_plan(const char *spec, const char *db);
/* `isobit serve` on `endpoint` (port 0: any; the real one is written back); returns when it listens. Short heartbeats
 * (0.1 s) and leases (1.5 s); `extra` may be NULL. */
pid_t cluster_serve(const char *db, char endpoint[256], const char *log, const char *const *extra);
pid_t cluster_worker(const char *endpoint, const char *log, const char *const *extra);

/* Where the web page of a coordinator is, by its log; waits for it. */
void cluster_page(const char *log, char url[128]);

/* Resident memory of a process in bytes. */
int64_t cluster_memory(pid_t pid);
void cluster_print_log(const char *log); /* its end, to stderr */
/* An integer from the environment. */
int64_t cluster_env(const char *name, int64_t def);

/* First column of the first row; waits for the database to be readable. */
int64_t cluster_query(const char *db, const char *sql);
/* Results of the worker with this process id that were fenced so far, by the event log. */
int cluster_fenced(const char *db, const char *events, pid_t worker);
/* Until the query gives `value`; false after `seconds`. */
bool cluster_await(const char *db, const char *sql, int64_t value, double seconds);

/* Counts failures; print says what failed and prints `log`'s end. */
#define EXPECT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond))                                                                               \
            cluster_fail(__FILE__, __LINE__, #cond, __VA_ARGS__);                                  \
    } while (0)
void cluster_fail(const char *file, int line, const char *cond, const char *fmt, ...);
int cluster_failures(void);

#endif

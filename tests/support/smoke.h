/* The smoke sweep (50 jobs), planned into a folder of its own, for stories of one coordinator and one worker over it. Plain C,
 * no framework. */
#ifndef ISOBIT_TESTS_SUPPORT_SMOKE_H
#define ISOBIT_TESTS_SUPPORT_SMOKE_H

#include "tests/support/cluster.h"

enum { SMOKE_JOBS = 50 };
#define SMOKE_DONE "SELECT count(*) FROM jobs WHERE state = 'done'"

struct smoke {
    char *dir, *log, *db;
    char endpoint[256];        /* any port, until a coordinator listens */
    pid_t coordinator, worker; /* 0: none */
};

/* Starts no process. */
struct smoke smoke_open(void);
/* Kills what runs; removes everything. */
void smoke_close(struct smoke *s);

void smoke_serve(struct smoke *s, const char *const *extra); /* as cluster_serve */
void smoke_work(struct smoke *s, const char *const *extra);  /* as cluster_worker */

#endif

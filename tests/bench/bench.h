/* What benchmarks share: failing, sorting, children that measure something and tell what it cost, a scratch folder, the
 * line of JSON at the end. */
#ifndef ISOBIT_TESTS_BENCH_H
#define ISOBIT_TESTS_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

static inline void bench_must(enum err_code code, const struct err *e)
{
    if (code != ERR_OK) {
        (void)fprintf(stderr, "benchmark: %s\n", e->text);
        exit(1);
    }
}

/* For qsort. */
static inline int bench_compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Zeroed memory that children write and the parent reads. */
static inline void *bench_shared(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* In a process of its own, so that its memory and time are told apart from everything else's. */
static inline pid_t bench_start(void (*fn)(void *arg), void *arg)
{
    (void)fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        fn(arg);
        (void)fflush(stdout);
        _exit(0);
    }
    return pid;
}

struct bench_cost {
    double cpu_s, peak_mib;
};

static inline struct bench_cost bench_finish(pid_t pid)
{
    struct rusage u;
    int status = 0;
    CHECK(wait4(pid, &status, 0, &u) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        (void)fprintf(stderr, "benchmark: a part of it failed\n");
        exit(1);
    }
    return (struct bench_cost){
        .cpu_s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6,
        .peak_mib = (double)u.ru_maxrss / 1024,
    };
}

struct bench_line {
    const char *name, *unit, *against, *limit; /* limit: "at most" or "at least" */
    double value, against_value, limit_value;
};

static inline void bench_print(const struct bench_line *l)
{
    const char *commit = getenv("ISOBIT_BENCH_COMMIT");
    printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"against\": \"%s\", "
           "\"against_value\": %.6g, \"ratio\": %.4g, \"limit\": \"%s\", \"limit_value\": %.6g, "
           "\"of_limit\": %.4g, \"machine\": \"%ld cores\", \"commit\": \"%s\"}\n",
           l->name, l->value, l->unit, l->against, l->against_value, l->value / l->against_value,
           l->limit, l->limit_value, l->value / l->limit_value, sysconf(_SC_NPROCESSORS_ONLN),
           commit != NULL ? commit : "");
}

#endif

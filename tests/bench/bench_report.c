/* The whole report with its bootstrap over the paper's 35,030 jobs and all items of its data sets, against the same report without
 * resamples; memory, size of the page, and how long the page takes to open. Before that, reports of growing sweeps with fewer items:
 * processor time a job must not grow with the jobs.
 *   bench_report [35k]       35k: only the large one
 * Benchmark: report-35k */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

static const double limit_s = 60;
static const double limit_mib = 1024;
static const double limit_page_mb = 5;
static const double limit_open_ms = 2000;

struct measured {
    double seconds, cpu_s, mib;
};

/* Runs `isobit-analysis report` and waits for it: wall time and the most memory it had. */
static struct measured report(const char *db, const char *out, const char *resamples)
{
    int64_t start_ns = clock_mono_ns();
    fflush(stdout); /* or the child writes it too */
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(freopen("/dev/null", "w", stdout) != NULL);
        execl(TEST_BIN_DIR "/isobit-analysis", "isobit-analysis", "report", "--db", db, "--out",
              out, "--resamples", resamples, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    struct rusage use;
    CHECK(wait4(pid, &status, 0, &use) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "bench_report: the report of %s failed\n", db);
        exit(1);
    }
    double cpu_s = (double)use.ru_utime.tv_sec + 1e-6 * (double)use.ru_utime.tv_usec +
                   (double)use.ru_stime.tv_sec + 1e-6 * (double)use.ru_stime.tv_usec;
    return (struct measured){clock_seconds_since(start_ns), cpu_s, (double)use.ru_maxrss / 1024};
}

/* Writes the database and returns its number of jobs. */
static int write_db(const struct planted *p, const char *db)
{
    struct err e;
    struct arena a = {0};
    int n_models = 0;
    int n_configs = 0;
    if (planted_write(p, db, &e) != ERR_OK) {
        fprintf(stderr, "bench_report: %s\n", e.text);
        exit(1);
    }
    (void)planted_models(p, &a, &n_models);
    (void)planted_configs(p, &a, &n_configs);
    arena_release(&a);
    return n_models * n_configs * PLANTED_TASKS;
}

static void print_growth(const char *dir)
{
    static const struct {
        int max_sizes;
        unsigned grids;
    } sweeps[] = {{2, PLANTED_FULL}, {4, PLANTED_FULL}, {0, PLANTED_FULL | PLANTED_ALL}};
    printf("%10s %10s %10s %12s %10s\n", "jobs", "seconds", "CPU s", "CPU ms a job", "MiB");
    for (size_t i = 0; i < ARRAY_LEN(sweeps); i++) {
        struct planted p = planted_paper();
        p.max_sizes = sweeps[i].max_sizes;
        p.max_params = INFINITY;
        p.grids = sweeps[i].grids;
        char *db = xasprintf("%s/growing%zu.db", dir, i);
        char *out = xasprintf("%s/growing%zu", dir, i);
        int n_jobs = write_db(&p, db);
        struct measured m = report(db, out, "1000");
        printf("%10d %10.1f %10.1f %12.3f %10.0f\n", n_jobs, m.seconds, m.cpu_s,
               1e3 * m.cpu_s / n_jobs, m.mib);
        xfree(out);
        xfree(db);
    }
}

/* Milliseconds until everything in the page is made; -1 without a browser. */
static double open_page(const char *page)
{
    char *command = xasprintf("browse open --offline --timeout 300 --script %s %s",
                              support_source("tests/browser/opening.js"), page);
    struct support_run r = support_shell(command);
    const char *ready = r.out.data != NULL ? strstr(r.out.data, "ready ") : NULL;
    double ms = r.status == 0 && ready != NULL ? strtod(ready + strlen("ready "), NULL) : -1;
    if (ms < 0)
        printf("the page was not opened: %s%s\n", r.out.data, r.err.data);
    support_run_release(&r);
    xfree(command);
    return ms;
}

static void print_json(double value, double against)
{
    const char *commit = getenv("ISOBIT_BENCH_COMMIT");
    printf("{\"name\": \"report-35k\", \"value\": %.2f, \"unit\": \"s\", \"against\": \"the report "
           "without resamples\", \"against_value\": %.2f, \"ratio\": %.3f, \"limit\": \"at most\", "
           "\"limit_value\": %.2f, \"of_limit\": %.3f, \"machine\": \"%ld cores\", \"commit\": "
           "\"%s\"}\n",
           value, against, value / against, limit_s, value / limit_s, sysconf(_SC_NPROCESSORS_ONLN),
           commit != NULL ? commit : "");
}

int main(int argc, char **argv)
{
    char *dir = support_tmpdir();
    char *db = io_join(dir, "full.db");
    char *page = io_join(dir, "index.html");
    bool is_large_only = argc > 1 && strcmp(argv[1], "35k") == 0;
    if (!is_large_only)
        print_growth(dir);
    struct planted p = planted_full_size();
    p.max_params = INFINITY;
    int n_jobs = write_db(&p, db);
    struct measured bare = report(db, dir, "0");
    struct measured full = report(db, dir, "1000");
    double page_mb = (double)io_file_size(page) * 1e-6;
    double open_ms = open_page(page);
    printf("%d jobs, database of %.2f GB\n", n_jobs, (double)io_file_size(db) * 1e-9);
    printf("%-28s %8.1f s     of %.0f s\n", "report", full.seconds, limit_s);
    printf("%-28s %8.1f s\n", "report without resamples", bare.seconds);
    printf("%-28s %8.0f MiB   of %.0f MiB\n", "memory", full.mib, limit_mib);
    printf("%-28s %8.2f MB    of %.0f MB\n", "page", page_mb, limit_page_mb);
    printf("%-28s %8.0f ms    of %.0f ms\n", "page opens, all of it made", open_ms, limit_open_ms);
    print_json(full.seconds, bare.seconds);
    bool is_within = full.seconds <= limit_s && full.mib <= limit_mib && page_mb <= limit_page_mb &&
                     open_ms <= limit_open_ms;
    xfree(page);
    xfree(db);
    support_tmpdir_remove(dir);
    return !is_within;
}

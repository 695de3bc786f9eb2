/* What `isobit status`, --watch and the page read, over a database of a million jobs of which half are done, 1000 leased and
 * 1000 buried, with 16 workers. Against one pass over the jobs, which none of these views may need.
 * Benchmark: views-1m */
#include "tests/bench/million.h"
#include "tests/support/support.h"

enum { REPEATS = 9 };

static enum err_code count_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)row;
    (void)e;
    ++*(int64_t *)arg;
    return ERR_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ms: the median. The connection is new each time, as `status` has it. */
static double measure(const char *db, const char *sql, int repeats)
{
    double ms[REPEATS];
    int64_t n_rows = 0;
    for (int i = 0; i < repeats; i++) {
        struct store *s = NULL;
        struct err e;
        n_rows = 0;
        int64_t start_ns = clock_mono_ns();
        bench_must(store_open(db, STORE_READ, &s, &e), &e);
        bench_must(store_query(s, sql, NULL, 0, count_row, &n_rows, &e), &e);
        ms[i] = clock_seconds_since(start_ns) * 1e3;
        store_close(s);
    }
    qsort(ms, (size_t)repeats, sizeof(ms[0]), compare);
    printf("%9.2f ms %8lld rows  %.90s\n", ms[repeats / 2], (long long)n_rows, sql);
    return ms[repeats / 2];
}

int main(void)
{
    static const char *const views[] = {
        "SELECT state, sum(n) FROM tally GROUP BY state",
        "SELECT * FROM progress",
        "SELECT * FROM workers ORDER BY first_seen",
        "SELECT * FROM refusals",
        "SELECT key, attempt, code, text FROM failures ORDER BY ended_at DESC LIMIT 50",
        "SELECT key, state, error FROM jobs WHERE state = 'buried' LIMIT 50",
        "SELECT key, worker FROM jobs WHERE state = 'leased' LIMIT 50",
    };
    char *dir = support_tmpdir(), *db = xasprintf("%s/million.db", dir);
    double worst = 0;
    bench_finish(bench_start(million_make, db));
    for (size_t i = 0; i < ARRAY_LEN(views); i++) {
        double ms = measure(db, views[i], REPEATS);
        worst = ms > worst ? ms : worst;
    }
    double pass = measure(db, "SELECT sum(attempt) FROM job", 3);
    measure(db, "SELECT * FROM scaling", 1); /* reads every metric: for reports, not for status */
    bench_print(&(struct bench_line){.name = "views-1m",
                                     .unit = "ms",
                                     .against = "one pass over the jobs",
                                     .limit = "at most",
                                     .value = worst,
                                     .against_value = pass,
                                     .limit_value = 50});
    xfree(db);
    support_tmpdir_remove(dir);
    return 0;
}

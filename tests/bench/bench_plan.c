/* Planning: the grid of sweeps/paper.yaml expanded and put into a new database, and once more into the same one; against
 * the time SQLite alone needs for the same rows in the same table. Then a million jobs: seconds and memory.
 * Benchmark: plan-insert */
#include <sqlite3.h>
#include <string.h>

#include "schema/store_work.h"
#include "schema/sweep.h"
#include "tests/bench/bench.h"
#include "tests/support/support.h"

enum {
    REPEATS = 5,
    N_SHARES = 417
}; /* 20 models x 6 bits x 4 types x 417 blocks x 5 evaluations: a million jobs */

static struct times {
    double plan_s, again_s, sqlite_s, million_s;
    int64_t n_jobs, n_million;
} * times;
static char *dir;

/* Expansion and insertion as `isobit plan` does them, less the command line. */
static double plan_into(const char *db, const char *spec, struct str text, int64_t *n_jobs)
{
    struct arena a = {0};
    struct sweep sw;
    struct store *s = NULL;
    struct store_plan_counts counts;
    struct err e;
    int64_t start_ns = clock_mono_ns();
    if (text.n > 0)
        bench_must(sweep_parse(text, spec, &a, &sw, &e), &e);
    else
        bench_must(sweep_load(spec, &a, &sw, &e), &e);
    bench_must(store_open(db, STORE_CREATE, &s, &e), &e);
    bench_must(store_plan(s, &sw, 0, &counts, &e), &e);
    double seconds = clock_seconds_since(start_ns);
    *n_jobs = counts.jobs_total;
    store_close(s);
    arena_release(&a);
    return seconds;
}

static void keep_least(double *least, double v)
{
    *least = *least == 0 || v < *least ? v : *least;
}

static void plan_paper(void *arg)
{
    (void)arg;
    char *db = xasprintf("%s/paper.db", dir);
    const char *spec = support_source("sweeps/paper.yaml");
    for (int i = 0; i < REPEATS; i++) {
        unlink(db);
        keep_least(&times->plan_s, plan_into(db, spec, (struct str){0}, &times->n_jobs));
        keep_least(&times->again_s, plan_into(db, spec, (struct str){0}, &times->n_jobs));
    }
    xfree(db);
}

/* ---- SQLite alone ---- */

static void run_sql(sqlite3 *db, const char *sql)
{
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", sql, why);
        exit(1);
    }
}

/* The planned database's own table of jobs and its indexes, and its rows. */
static void insert_alone(void *arg)
{
    (void)arg;
    for (int i = 0; i < REPEATS; i++) {
        char *path = xasprintf("%s/alone%d.db", dir, i), *attach = NULL;
        sqlite3 *db = NULL;
        sqlite3_stmt *next = NULL, *add = NULL;
        CHECK(sqlite3_open(path, &db) == SQLITE_OK);
        attach = xasprintf("ATTACH '%s/paper.db' AS planned", dir);
        run_sql(db, attach);
        CHECK(sqlite3_prepare_v2(db,
                                 "SELECT sql FROM planned.sqlite_schema WHERE tbl_name = 'job' "
                                 "AND sql IS NOT NULL ORDER BY type DESC",
                                 -1, &next, NULL) == SQLITE_OK);
        run_sql(db, "PRAGMA main.journal_mode=WAL; PRAGMA main.synchronous=FULL");
        while (sqlite3_step(next) == SQLITE_ROW)
            run_sql(db, (const char *)sqlite3_column_text(next, 0));
        sqlite3_finalize(next);
        int64_t start_ns = clock_mono_ns();
        run_sql(db, "BEGIN");
        CHECK(sqlite3_prepare_v2(db,
                                 "SELECT model_id, config_id, eval_id, set_id FROM planned.job "
                                 "ORDER BY id",
                                 -1, &next, NULL) == SQLITE_OK);
        CHECK(sqlite3_prepare_v2(db,
                                 "INSERT INTO main.job (model_id, config_id, eval_id, set_id, "
                                 "state) VALUES (?1, ?2, ?3, ?4, 'pending')",
                                 -1, &add, NULL) == SQLITE_OK);
        while (sqlite3_step(next) == SQLITE_ROW) {
            for (int c = 0; c < 4; c++)
                sqlite3_bind_int64(add, c + 1, sqlite3_column_int64(next, c));
            CHECK(sqlite3_step(add) == SQLITE_DONE);
            sqlite3_reset(add);
        }
        run_sql(db, "COMMIT");
        keep_least(&times->sqlite_s, clock_seconds_since(start_ns));
        sqlite3_finalize(next);
        sqlite3_finalize(add);
        sqlite3_close(db);
        xfree(path);
        xfree(attach);
    }
}

/* ---- a million jobs ---- */

static void plan_million(void *arg)
{
    (void)arg;
    struct buf text = {0};
    buf_adds(&text, "name: million\nmodels:\n  - family: pythia\n    sizes: [");
    for (int i = 0; i < 20; i++)
        buf_printf(&text, "%ss%d", i > 0 ? ", " : "", i);
    buf_adds(&text, "]\n    path: models/pythia-{size}\nconfigurations:\n");
    for (int i = 0; i < N_SHARES; i++) /* an axis takes 64 values at most */
        buf_printf(&text, "%s%.2f%s",
                   i % 60 == 0 ? "  - k: [3, 4, 5, 6, 7, 8]\n    dtype: [int, float, dynamic, "
                                 "quantile]\n    outlier_pct: ["
                               : ", ",
                   0.02 * (i + 1), i % 60 == 59 ? "]\n" : "");
    buf_adds(&text, "]\nevaluations:\n");
    for (int i = 0; i < 5; i++)
        buf_printf(&text, "  - {name: e%d, task: piqa, data: data/e%d.jsonl}\n", i, i);
    char *db = xasprintf("%s/million.db", dir), *spec = xasprintf("%s/million.yaml", dir);
    times->million_s = plan_into(db, spec, (struct str){text.data, text.len}, &times->n_million);
    buf_release(&text);
    xfree(spec);
    xfree(db);
}

int main(void)
{
    dir = support_tmpdir();
    times = bench_shared(sizeof(*times));
    bench_finish(bench_start(plan_paper, NULL));
    bench_finish(bench_start(insert_alone, NULL));
    struct bench_cost million = bench_finish(bench_start(plan_million, NULL));
    printf("%-40s %8.3f s, best of %d\n", "SQLite alone, the same rows", times->sqlite_s, REPEATS);
    printf("%-40s %8.3f s, %lld jobs (at most 2.5 x SQLite: %.3f s)\n",
           "plan and insert paper.yaml", times->plan_s, (long long)times->n_jobs,
           2.5 * times->sqlite_s);
    printf("%-40s %8.3f s (at most 0.3)\n", "the same plan again", times->again_s);
    printf("%-40s %8.3f s (at most 12), %.0f MiB (at most 300), %lld jobs\n", "a million jobs",
           times->million_s, million.peak_mib, (long long)times->n_million);
    bench_print(&(struct bench_line){.name = "plan-insert",
                                     .unit = "s",
                                     .against = "SQLite alone, the same rows",
                                     .limit = "at most",
                                     .value = times->plan_s,
                                     .against_value = times->sqlite_s,
                                     .limit_value = 2.5 * times->sqlite_s});
    support_tmpdir_remove(dir);
    return 0;
}

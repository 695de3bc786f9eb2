/* The analysis on databases that do not have what it wants: nothing planned, nothing done, one size, one width, checkpoints of equal
 * bits, perplexities that are no number, samples that are damaged, a sweep that still writes. Clear words, no crash, no wrong curve. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

/* Planted databases that the rows start from. */
enum world { EMPTY, SMALL, ONE_SIZE, ONE_WIDTH, NO_SAMPLES, WORLDS };
static const char *const world_names[WORLDS] = {"empty", "small", "one-size", "one-width",
                                                "no-samples"};

static bool is_other_width(const char *family, const char *size, const struct config *c,
                           enum task t)
{
    (void)family;
    (void)size;
    (void)t;
    return c->k != 4;
}

static void plant(const char *dir, enum world w)
{
    struct planted p = planted_paper();
    struct err e;
    p.families = 1U << PLANTED_BLOOM;
    p.grids = PLANTED_WIDTHS;
    p.max_sizes = w == ONE_SIZE ? 1 : 3;
    p.has_samples = w != NO_SAMPLES;
    p.is_left_out = w == ONE_WIDTH ? is_other_width : NULL;
    char *path = xasprintf("%s/%s.db", dir, world_names[w]);
    struct store *s = NULL;
    enum err_code rc =
        w != EMPTY ? planted_write(&p, path, &e) : store_open(path, STORE_CREATE, &s, &e);
    CHECK(rc == ERR_OK);
    store_close(s);
    xfree(path);
}

static const struct row {
    const char *what;
    enum world world;
    const char *sql;     /* done to a copy first; "" */
    const char *command; /* after "isobit-analysis"; --db is added */
    int status;
    const char *says;     /* on standard output, or on standard error when it fails */
    const char *says_not; /* NULL: anything */
} rows[] = {
    {"nothing planned", EMPTY, "", "fit", 4, "holds no jobs; plan a sweep", NULL},
    {"nothing done", SMALL, "DELETE FROM job; DELETE FROM run; DELETE FROM metric", "fit", 4,
     "holds no jobs", NULL},
    {"planned and not done", SMALL,
     "UPDATE job SET state = 'pending'; DELETE FROM run; DELETE "
     "FROM metric; DELETE FROM bits; DELETE FROM sample",
     "recommend --bits 1e10", 4, "none is done; run them", NULL},
    {"a family that is not there", SMALL, "", "fit --family llama", 4, "family 'llama'", NULL},
    {"no database", SMALL, "", "fit --db nowhere.db", 4, "nowhere.db does not exist", NULL},
    {"all is well", SMALL, "", "fit --resamples 100", 0, "best bit width by budget", "No two"},
    {"one size", ONE_SIZE, "", "fit --resamples 100", 0, "No two curves share a budget",
     "best bit width"},
    {"one size", ONE_SIZE, "", "recommend --bits 1e13 --resamples 100", 0,
     "at exactly this many bits, along the curves: none", NULL},
    {"one width", ONE_WIDTH, "", "fit --resamples 100", 0, "No two curves share a budget",
     "best bit width"},
    {"checkpoints of equal bits", SMALL,
     "UPDATE bits SET total_full = 5000000000 WHERE model_id IN (1, 2)", "fit --resamples 50", 0,
     "stand for several checkpoints of equal bits", "inf"},
    {"all checkpoints of equal bits", SMALL, "UPDATE bits SET total_full = 5000000000",
     "fit --resamples 50", 0, "No two curves share a budget", "inf"},
    {"perplexities that are no number", SMALL,
     "UPDATE metric SET value = NULL WHERE name IN ('nll', 'perplexity') AND job_id % 3 = 0",
     "fit --resamples 50", 0, "above 100 or infinite count as 100, as in the paper (--cap)", "nan"},
    {"the same without a cap", SMALL,
     "UPDATE metric SET value = NULL WHERE name IN ('nll', 'perplexity') AND job_id % 3 = 0",
     "fit --resamples 50 --cap 0", 0, "without a finite value are left out", "inf"},
    {"nothing measured of the metric", SMALL, "DELETE FROM metric WHERE name = 'acc'",
     "fit --metric zero-shot --resamples 50", 0, "without a finite value are left out", "nan"},
    {"values that are not those of the items", SMALL,
     "UPDATE metric SET value = value + 0.1 WHERE name = 'nll' AND job_id % 3 = 0",
     "fit --resamples 50", 0, "give another value than the stored one", "nan"},
    {"no samples", NO_SAMPLES, "", "fit --resamples 50", 0, "without usable values per item",
     "nan"},
    {"damaged samples", SMALL, "UPDATE sample SET blob = x'00112233' WHERE job_id < 40",
     "fit --resamples 50", 0, "could not be read (job ", "nan"},
    {"no bootstrap", SMALL, "", "fit --resamples 0", 0, "No intervals: the bootstrap was switched",
     "["},
    {"a budget that nothing fits", SMALL, "", "recommend --bits 1000", 4,
     "the smallest configuration has", NULL},
    {"a budget given twice", SMALL, "", "recommend --bits 1e9 --memory 1GiB", 2,
     "--bits 4e9 or as --memory 6GiB", NULL},
    {"no budget", SMALL, "", "recommend", 2, "--bits 4e9 or as --memory 6GiB", NULL},
    {"a negative seed", SMALL, "", "fit --seed -1", 2, "--seed", NULL},
    {"a database of bytes", SMALL, "", "fit --db junk.db", 3, "junk.db", NULL},
};

static bool check_row(const char *dir, const struct row *r)
{
    bool has_db = strstr(r->command, "--db") != NULL;
    char *command = xasprintf(
        "cd %s && rm -f t.db && cp %s.db t.db && head -c 5000 /dev/urandom > junk.db && sqlite3 "
        "t.db \"%s\" && isobit-analysis %s%s",
        dir, world_names[r->world], r->sql, r->command, has_db ? "" : " --db t.db");
    struct support_run run = support_shell(command);
    const char *out = run.out.data != NULL ? run.out.data : "";
    const char *err = run.err.data != NULL ? run.err.data : "";
    const char *told = r->status == 0 ? out : err;
    bool is_ok = run.status == r->status && strstr(told, r->says) != NULL &&
                 (r->says_not == NULL || strstr(told, r->says_not) == NULL);
    printf("%s: %s\n", is_ok ? "ok" : "FAILED", r->what);
    if (!is_ok)
        printf("  %s\n  status %d, expected %d and '%s'\n%.1500s%.1500s\n", command, run.status,
               r->status, r->says, out, err);
    support_run_release(&run);
    xfree(command);
    return is_ok;
}

/* Another process changes the database all the time; every answer must be one of a state that was committed as a whole. */
static bool check_running_sweep(const char *dir)
{
    char *command = xasprintf(
        "cd %s && cp small.db live.db || exit 7\n"
        "for i in $(seq 60); do sqlite3 -cmd '.timeout 5000' live.db \"UPDATE metric SET value = "
        "value + 0.001 WHERE name = 'nll'; UPDATE job SET state = 'pending' WHERE id = $i\" || "
        "exit "
        "6; done &\n"
        "for i in 1 2 3 4 5 6; do isobit-analysis fit --db live.db --resamples 100 --json "
        "> live$i.json || exit 9; python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); "
        "assert d[\"groups\"]' live$i.json || exit 8; done; wait",
        dir);
    struct support_run run = support_shell(command);
    bool is_ok = run.status == 0;
    printf("%s: a database that is being written\n", is_ok ? "ok" : "FAILED");
    if (!is_ok)
        printf("status %d\n%.1000s\n", run.status, run.err.data != NULL ? run.err.data : "");
    support_run_release(&run);
    xfree(command);
    return is_ok;
}

/* The same seed gives the same text whatever the threads. */
static bool check_threads(const char *dir)
{
    char *command = xasprintf(
        "cd %s && for t in 1 2 3; do isobit-analysis fit --db small.db --seed 5 --threads $t "
        "--json > t$t.json; isobit-analysis recommend --db small.db --bits 2e10 --seed 5 "
        "--threads $t --json > r$t.json; done && cmp t1.json t2.json && cmp t1.json t3.json && cmp "
        "r1.json r2.json && cmp r1.json r3.json && isobit-analysis fit --db small.db --seed 6 "
        "--json > t4.json && ! cmp -s t1.json t4.json",
        dir);
    struct support_run run = support_shell(command);
    printf("%s: one seed, 1, 2 and 3 threads\n", run.status == 0 ? "ok" : "FAILED");
    bool is_ok = run.status == 0;
    support_run_release(&run);
    xfree(command);
    return is_ok;
}

int main(void)
{
    char *dir = support_tmpdir();
    int n_failed = 0;
    for (int w = 0; w < WORLDS; w++)
        plant(dir, (enum world)w);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        n_failed += !check_row(dir, &rows[i]);
    n_failed += !check_running_sweep(dir);
    n_failed += !check_threads(dir);
    support_tmpdir_remove(dir);
    printf("%d failed\n", n_failed);
    return n_failed != 0;
}

/* The report and the pictures of planted sweeps, looked at in a browser: what readers do with a page (tests/browser/report.js), and
 * what it says of sweeps that are small, odd or not finished. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

enum { EXIT_SKIPPED = 77, MAX_PAGE_BYTES = 5000000 };

static bool is_not_4_bit(const char *family, const char *size, const struct config *c, enum task t)
{
    (void)family;
    (void)size;
    (void)t;
    return c->k != 4;
}

/* Sweeps that a report must cope with. `change` is SQL run on the database, `says` is what a reader must be told. */
static const struct odd {
    const char *name;
    int max_sizes;
    bool is_4_bit_only;
    const char *change, *says;
} odds[] = {
    {"one size", 1, false, "", "No budget is covered by the curves of two bit widths yet"},
    {"one bit width", 0, true, "", "No budget is covered by the curves of two bit widths yet"},
    {"perplexities that are no number", 3, false,
     "UPDATE metric SET value = NULL WHERE name IN ('nll', 'perplexity') AND job_id % 3 = 0;"
     "UPDATE metric SET value = 1e5 WHERE name = 'perplexity' AND job_id % 3 = 1;"
     "UPDATE metric SET value = 11.5 WHERE name = 'nll' AND job_id % 3 = 1;",
     "they count as 100, as in the paper"},
    {"a sweep that is running", 3, false,
     "UPDATE job SET state = 'pending' WHERE id % 3 = 0; DELETE FROM run WHERE job_id % 3 = 0;"
     "DELETE FROM metric WHERE job_id % 3 = 0; DELETE FROM sample WHERE job_id % 3 = 0;",
     "what follows is a snapshot of a running sweep"},
    {"no samples", 3, false, "DELETE FROM sample;", "have no per-item results"},
    {"hostile names", 3, false,
     "UPDATE model SET family = '</script><b>\"''$x' WHERE family = 'opt';", "</script><b>\"'$x"},
    {"failures", 3, false,
     "UPDATE job SET state = 'buried', attempt = 1 WHERE id <= 150;"
     "DELETE FROM run WHERE job_id <= 150; DELETE FROM metric WHERE job_id <= 150;"
     "DELETE FROM sample WHERE job_id <= 150; INSERT INTO attempt SELECT id, 1, NULL, 1, 2, "
     "'failed', 'NUMERIC', 'reason <' || id || '>' FROM job WHERE id <= 150;",
     "And 50 more reasons"},
};

static struct planted planted_small(int max_sizes)
{
    struct planted p = planted_paper();
    p.families = 1U << PLANTED_OPT | 1U << PLANTED_PYTHIA;
    p.max_sizes = max_sizes;
    p.max_params = 1e12;
    p.has_samples = true;
    for (int t = 0; t < PLANTED_TASKS; t++)
        p.n_items[t] = p.n_items[t] < 64 ? p.n_items[t] : 64;
    return p;
}

/* Exit status of a command; its words are shown when it is not the expected one. */
static int run(const char *command, int expected)
{
    struct support_run r = support_shell(command);
    if (r.status != expected || expected == EXIT_SKIPPED)
        printf("%s\nstatus %d\n%s%s", command, r.status, r.out.data, r.err.data);
    int status = r.status;
    support_run_release(&r);
    return status;
}

static bool is_done(char *command)
{
    bool is_right = run(command, 0) == 0;
    xfree(command);
    return is_right;
}

/* ---- the whole page, used ---- */

static int check_page(const char *dir)
{
    struct planted p = planted_small(4);
    struct err e;
    char *db = io_join(dir, "planted.db");
    char *page = io_join(dir, "report/index.html");
    CHECK(planted_write(&p, db, &e) == ERR_OK);
    int n_failed = !is_done(xasprintf("isobit-analysis report --db %s --out %s/report --resamples "
                                      "200",
                                      db, dir));
    if (io_file_size(page) <= 0 || io_file_size(page) > MAX_PAGE_BYTES) {
        printf("FAILED: the page has %lld bytes\n", (long long)io_file_size(page));
        n_failed++;
    }
    char *command = xasprintf("browse open --offline --timeout 300 --out %s --script %s %s", dir,
                              support_source("tests/browser/report.js"), page);
    int status = run(command, 0);
    xfree(command);
    xfree(page);
    xfree(db);
    return status == EXIT_SKIPPED ? -1 : n_failed + (status != 0);
}

/* ---- pictures ---- */

static bool is_file(const char *dir, const char *name, const char *suffix)
{
    char *path = xasprintf("%s/plots/%s.%s", dir, name, suffix);
    bool is_there = io_file_size(path) > 0;
    if (!is_there)
        printf("FAILED: %s is missing or empty\n", path);
    xfree(path);
    return is_there;
}

static int check_pictures(const char *dir)
{
    static const char *const names[] = {
        "scaling-perplexity",   "scaling-zero-shot",        "widths-perplexity",
        "widths-zero-shot",     "block-size-perplexity",    "block-size-zero-shot",
        "data-type-perplexity", "data-type-zero-shot",      "outliers-perplexity",
        "outliers-zero-shot",   "exponent-bits-perplexity", "exponent-bits-zero-shot",
        "perplexity-zero-shot"};
    static const char *const suffixes[] = {"svg", "png", "pdf", "dat", "gp"};
    int n_failed = !is_done(xasprintf(
        "isobit-analysis plot --db %s/planted.db --out %s/plots --resamples 50", dir, dir));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (size_t j = 0; j < ARRAY_LEN(suffixes); j++)
            n_failed += !is_file(dir, names[i], suffixes[j]);
    return n_failed;
}

/* ---- odd sweeps ---- */

static int check_odd(const char *dir, const struct odd *odd)
{
    struct planted p = planted_small(odd->max_sizes);
    p.grids = PLANTED_WIDTHS;
    p.is_left_out = odd->is_4_bit_only ? is_not_4_bit : NULL;
    struct err e;
    char *db = xasprintf("%s/odd.db", dir);
    char *page = xasprintf("%s/odd/index.html", dir);
    char *script = xasprintf("%s/odd.js", dir);
    char *text = xasprintf("await browser.until(() => document.documentElement.dataset.ready, "
                           "'ready');\ncheck(document.body.textContent.includes(`%s`), 'said');",
                           odd->says);
    char *change = xasprintf("%s/odd.sql", dir);
    remove(db);
    CHECK(planted_write(&p, db, &e) == ERR_OK);
    support_write(script, text, strlen(text));
    support_write(change, odd->change, strlen(odd->change));
    bool is_right =
        is_done(xasprintf("sqlite3 %s <%s", db, change)) &&
        is_done(xasprintf("isobit-analysis report --db %s --out %s/odd --resamples 50", db, dir)) &&
        is_done(xasprintf("browse open --offline --timeout 300 --script %s %s", script, page));
    printf("%s: %s\n", is_right ? "ok" : "FAILED", odd->name);
    xfree(change);
    xfree(text);
    xfree(script);
    xfree(page);
    xfree(db);
    return !is_right;
}

int main(void)
{
    char *dir = support_tmpdir();
    int n_failed = check_page(dir);
    bool is_skipped = n_failed < 0;
    if (!is_skipped) {
        n_failed += check_pictures(dir);
        for (size_t i = 0; i < ARRAY_LEN(odds); i++)
            n_failed += check_odd(dir, &odds[i]);
    }
    support_tmpdir_remove(dir);
    return is_skipped ? EXIT_SKIPPED : n_failed != 0;
}

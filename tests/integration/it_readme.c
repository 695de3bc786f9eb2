/* The queries of README.md and docs/COOKBOOK.md run on a database that a sweep has just filled, and each gives rows. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/store.h"
#include "tests/support/support.h"

static const struct {
    const char *path;
    int n_queries;
} pages[] = {{"README.md", 5}, {"docs/COOKBOOK.md", 10}};

static enum err_code count_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)row;
    (void)e;
    ++*(int *)arg;
    return ERR_OK;
}

/* Runs the text between one ```sql line and the closing ```; false when it fails or gives nothing. */
static bool run_query(struct store *s, const char *sql)
{
    int n_rows = 0;
    struct err e;
    if (store_query(s, sql, NULL, 0, count_row, &n_rows, &e) != ERR_OK) {
        printf("FAILED: %s\n%s\n", e.text, sql);
        return false;
    }
    printf("%s: %d rows from %.60s…\n", n_rows > 0 ? "ok" : "FAILED", n_rows, sql);
    return n_rows > 0;
}

/* Runs every query of a page; returns how many there are. */
static int check_queries(const char *db, const char *page, int *n_failed)
{
    int n_run = 0;
    struct buf text = {0};
    struct store *s = NULL;
    struct err e;
    CHECK(io_read_file(support_source(page), 1 << 20, &text, &e) == ERR_OK);
    CHECK(store_open(db, STORE_READ, &s, &e) == ERR_OK);
    static const char fence[] = "```sql\n";
    for (char *at = strstr(text.data, fence); at != NULL; at = strstr(at, fence)) {
        at += strlen(fence);
        char *end = strstr(at, "```");
        CHECK(end != NULL);
        char *sql = xstrndup(at, (size_t)(end - at));
        *n_failed += !run_query(s, sql);
        n_run++;
        xfree(sql);
        at = end + 3;
    }
    store_close(s);
    buf_release(&text);
    return n_run;
}

int main(void)
{
    char *dir = support_tmpdir();
    char *db = xasprintf("%s/smoke.db", dir);
    char *command = xasprintf("cd %s && isobit run %s --db %s --no-report", dir,
                              support_source("sweeps/smoke.yaml"), db);
    struct support_run r = support_shell(command);
    int n_failed = r.status != 0;
    if (r.status != 0)
        printf("FAILED: %s", r.err.data);
    for (size_t i = 0; r.status == 0 && i < ARRAY_LEN(pages); i++) {
        int n = check_queries(db, pages[i].path, &n_failed);
        if (n != pages[i].n_queries) {
            printf("FAILED: %d queries in %s, expected %d\n", n, pages[i].path, pages[i].n_queries);
            n_failed++;
        }
    }
    support_run_release(&r);
    xfree(command);
    xfree(db);
    support_tmpdir_remove(dir);
    return n_failed != 0;
}

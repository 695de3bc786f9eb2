#include "tests/support/outcome.h"

#include <string.h>

#include "schema/store.h"
#include "tests/support/cluster.h"

static enum err_code add_result(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    buf_printf(arg, "%s|%s=%.17g\n", store_col_text(r, 0), store_col_text(r, 1),
               store_col_num(r, 2));
    return ERR_OK;
}

struct buf outcome_read(const char *db)
{
    struct buf out = {0};
    struct store *s = NULL;
    struct err e;
    CHECK(store_open(db, STORE_READ, &s, &e) == ERR_OK);
    CHECK(store_query(s, "SELECT key, metric, value FROM results ORDER BY 1, 2", NULL, 0,
                      add_result, &out, &e) == ERR_OK);
    store_close(s);
    return out;
}

void outcome_check(const char *db, const struct buf *expected)
{
    static const struct {
        const char *sql, *what;
    } zero[] = {
        {"SELECT count(*) FROM jobs WHERE state <> 'done'", "jobs that are not done"},
        {"SELECT count(*) FROM (SELECT 1 FROM results GROUP BY key, metric HAVING count(*) > 1)",
         "results that stand twice"},
        {"SELECT count(*) FROM jobs WHERE key NOT IN (SELECT key FROM results)",
         "done jobs without a result"},
    };
    for (size_t i = 0; i < ARRAY_LEN(zero); i++) {
        int64_t n = cluster_query(db, zero[i].sql);
        EXPECT(n == 0, "%lld %s", (long long)n, zero[i].what);
    }
    struct buf got = outcome_read(db);
    EXPECT(got.len == expected->len && memcmp(got.data, expected->data, got.len) == 0,
           "results differ from the undisturbed run:\n%s---\n%s", got.data, expected->data);
    buf_release(&got);
}

#include "tests/support/outcome.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "schema/store.h"
#include "tests/support/cluster.h"
#include "tests/support/history.h"

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

static void check_history(const char *db, const char *events)
{
    struct history h;
    int64_t n_jobs = cluster_query(db, "SELECT count(*) FROM job");
    history_read(events, &h);
    EXPECT(h.n_violations == 0, "the event log tells of %lld violations:\n%s",
           (long long)h.n_violations, h.violations.data);
    EXPECT(h.n_done == n_jobs && h.n_open == 0,
           "the event log knows %lld jobs done and %lld open of %lld", (long long)h.n_done,
           (long long)h.n_open, (long long)n_jobs);
    printf(
        "event log: %lld events, %lld starts, %lld torn lines, %lld lost, %lld fenced: every job "
        "once\n",
        (long long)h.n_events, (long long)h.n_starts, (long long)h.n_torn, (long long)h.n_lost,
        (long long)h.n_fenced);
    history_release(&h);
}

void outcome_check(const char *db, const char *events, const struct buf *expected)
{
    static const struct {
        const char *sql, *what;
    } zero[] = {
        {"SELECT count(*) FROM job WHERE state <> 'done'", "jobs that are not done"},
        {"SELECT count(*) FROM (SELECT 1 FROM results GROUP BY job, metric HAVING count(*) > 1)",
         "results that stand twice"},
        {"SELECT count(*) FROM job WHERE id NOT IN (SELECT job_id FROM metric)",
         "done jobs without a result"},
        {"SELECT count(*) FROM (SELECT set_id, state, n FROM tally WHERE n <> 0 EXCEPT "
         "SELECT set_id, state, count(*) FROM job GROUP BY 1, 2)",
         "counts that differ from a recount"},
    };
    for (size_t i = 0; i < ARRAY_LEN(zero); i++) {
        int64_t n = cluster_query(db, zero[i].sql);
        EXPECT(n == 0, "%lld %s", (long long)n, zero[i].what);
    }
    struct buf got = outcome_read(db);
    EXPECT(got.len == expected->len && memcmp(got.data, expected->data, got.len) == 0,
           "results differ from the undisturbed run (%zu and %zu bytes)", got.len, expected->len);
    buf_release(&got);
    if (io_exists(events))
        check_history(db, events);
}

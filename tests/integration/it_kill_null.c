/* Story: the same kills as it_kill over many jobs that compute nothing, so that they fall into leases, commits and
 * acknowledgements instead of into computing. A short sweep by default; ISOBIT_TEST_FULL=1 takes 35,000 jobs and, unless
 * ISOBIT_KILLS says otherwise, 1,000 kills. */
#include <stdlib.h>

#include "base/mem.h"
#include "tests/support/disturb.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static bool is_full;

static void plan_null(const char *db)
{
    struct arena a = {0};
    struct err e;
    struct store *s = NULL;
    struct store_plan_counts counts;
    struct sweep sw = fixture_sweep(&a, "null", 5, is_full ? 1400 : 120, 5);
    CHECK(store_open(db, STORE_CREATE, &s, &e) == ERR_OK);
    CHECK(store_plan(s, &sw, 0, &counts, &e) == ERR_OK);
    store_close(s);
    arena_release(&a);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    is_full = getenv("ISOBIT_TEST_FULL") != NULL;
    int n_kills = is_full ? 1000 : 12;
    struct disturb d = disturb_new(plan_null, &n_kills);
    const char *const args[] = {"--compute-program", fake_compute_path(), NULL};
    d.worker_args = args;
    d.pause_ms = 400;

    disturb_open(&d, "undisturbed");
    EXPECT(disturb_await_end(&d, 600), "the undisturbed sweep did not end");
    disturb_close(&d);
    struct buf expected = outcome_read(d.db);
    outcome_check(d.db, d.events, &expected);

    disturb_sweeps(&d, n_kills, &expected);
    buf_release(&expected);
    disturb_free(&d);
    return cluster_failures() > 0;
}

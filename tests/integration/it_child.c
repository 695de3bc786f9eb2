/* Story: compute processes that die, hang or refuse. A job that kills its process is buried after its attempts with the
 * signal in words; everything else finishes. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/support/fake_compute.h"
#include "tests/support/smoke.h"

struct row {
    const char *variable; /* of fake_compute.h, set to 7: jobs 7, 14, 21, … */
    const char *text;     /* expected in the error */
};

static void bury_every_seventh(const char *self, const struct row *row)
{
    struct smoke s = smoke_open();
    const char *const until_done[] = {"--until-done", NULL};
    const char *const extra[] = {"--compute-program", self, "--job-timeout", "0.3", NULL};
    setenv(row->variable, "7", 1);
    smoke_serve(&s, until_done);
    smoke_work(&s, extra);
    int status = cluster_wait(s.coordinator, 60);
    EXPECT(status == 1, "%s: coordinator ended with %d", row->variable, status);
    int64_t n =
        cluster_query(s.db, "SELECT count(*) FROM jobs WHERE state = 'buried' AND attempts = 3");
    EXPECT(n == 7, "%s: %lld jobs buried after 3 attempts", row->variable, (long long)n);
    n = cluster_query(s.db, SMOKE_DONE);
    EXPECT(n == 43, "%s: %lld jobs done", row->variable, (long long)n);
    char *sql = xasprintf(
        "SELECT count(*) FROM jobs WHERE state = 'buried' AND error LIKE '%%%s%%'", row->text);
    n = cluster_query(s.db, sql);
    EXPECT(n == 7, "%s: %lld errors say \"%s\"", row->variable, (long long)n, row->text);
    xfree(sql);
    EXPECT(cluster_wait(s.worker, 5) == 0, "the worker itself must live on and leave in peace");
    unsetenv(row->variable);
    smoke_close(&s);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    const char *self = fake_compute_path();
    static const struct row rows[] = {
        {"ISOBIT_FAKE_CRASH", "signal 9"},
        {"ISOBIT_FAKE_HANG", "no progress"},
        {"ISOBIT_FAKE_FAIL", "made to fail"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        bury_every_seventh(self, &rows[i]);
    return cluster_failures() > 0;
}

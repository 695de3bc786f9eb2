/* The checker that decides over the kill tests is itself tested: it must see what must not happen. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "tests/support/history.h"
#include "tests/support/support.h"

#define EVENT(name, job, attempt, more)                                                            \
    "{\"time\":\"t\",\"event\":\"" name "\",\"job\":" #job ",\"attempt\":" #attempt more "}\n"
#define AGAIN ",\"again\":true"
#define START "{\"time\":\"t\",\"event\":\"start\"}\n"

static struct history read_log(const char *text)
{
    struct history h;
    char *dir = support_tmpdir(), *path = xasprintf("%s/log", dir);
    support_write(path, text, strlen(text));
    history_read(path, &h);
    xfree(path);
    support_tmpdir_remove(dir);
    return h;
}

Test(history, a_sweep_with_failures_kills_and_late_results_is_fine)
{
    struct history h =
        read_log(START EVENT("leased", 1, 1, "") EVENT("leased", 2, 1, "") EVENT("leased", 3, 1, "")
                     EVENT("failed", 1, 1, "") EVENT("leased", 1, 2, "") EVENT("done", 1, 2, "")
                         EVENT("fenced", 1, 1, "") "{\"time\":\"t\",\"event\":\"do\n" START EVENT(
                             "leased", 2, 1, AGAIN) EVENT("done", 1, 2, AGAIN)
                             EVENT("done", 3, 1, AGAIN) EVENT("done", 2, 1, ""));
    cr_expect_eq(h.n_violations, 0, "%s", h.violations.data);
    cr_expect_eq(h.n_done, 3);
    cr_expect_eq(h.n_open, 0);
    cr_expect_eq(h.n_torn, 1);
    cr_expect_eq(h.n_fenced, 1);
    history_release(&h);
}

Test(history, what_must_not_happen_is_seen)
{
    static const char *const logs[] = {
        EVENT("leased", 1, 1, "") EVENT("done", 1, 1, "") EVENT("done", 1, 1, ""),
        EVENT("leased", 1, 1, "") EVENT("done", 1, 1, "") EVENT("leased", 1, 2, ""),
        EVENT("leased", 1, 1, "") EVENT("leased", 1, 2, ""),
        EVENT("leased", 1, 2, "") EVENT("failed", 1, 2, "") EVENT("leased", 1, 2, ""),
        EVENT("leased", 1, 1, "") EVENT("lost", 1, 1, "") EVENT("done", 1, 1, ""),
        EVENT("leased", 1, 1, "") EVENT("lost", 1, 1, "") EVENT("leased", 1, 2, "")
            EVENT("done", 1, 1, ""),
        EVENT("done", 1, 1, ""),
        START EVENT("leased", 1, 1, "") EVENT("done", 1, 1, "") START EVENT("leased", 1, 2, AGAIN),
        START EVENT("leased", 1, 1, "") EVENT("done", 1, 1, "") START EVENT("done", 1, 2, AGAIN),
        "{\"torn\n" EVENT("leased", 1, 1, "")};
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        struct history h = read_log(logs[i]);
        cr_expect_gt(h.n_violations, 0, "%s", logs[i]);
        history_release(&h);
    }
}

Test(history, a_job_that_nobody_finished_is_open)
{
    struct history h =
        read_log(EVENT("leased", 1, 1, "") EVENT("leased", 2, 1, "") EVENT("done", 2, 1, ""));
    cr_expect_eq(h.n_violations, 0);
    cr_expect_eq(h.n_open, 1);
    cr_expect_eq(h.n_done, 1);
    history_release(&h);
}

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "coordinator/progress.h"

Test(progress, line_says_how_far_how_fast_and_how_long)
{
    static const struct {
        struct dispatch_counts c;
        int width;
        const char *text;
    } rows[] = {
        {{.pending = 300,
          .leased = 33,
          .done = 123,
          .workers = 2,
          .jobs_per_s = 3.42,
          .eta_s = 130},
         0,
         "123/456 jobs 27%  3.42 jobs/s  2 workers  2m 10s left"},
        {{.pending = 2, .done = 1, .buried = 1, .workers = 1, .eta_s = -1},
         8,
         "[####    ] 1/4 jobs 50%  1 worker  1 failed"},
        {{.done = 7, .held = 3, .cancelled = 2}, 4, "[####] 7/7 jobs 100%  0 workers"},
        {{.done = 0}, 0, "0/0 jobs 100%  0 workers"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        progress_format(&rows[i].c, rows[i].width, &out);
        cr_expect_str_eq(out.data, rows[i].text, "row %zu: %s", i, out.data);
        buf_release(&out);
    }
}

Test(progress, without_a_terminal_a_line_comes_every_ten_seconds_at_most)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    struct progress p;
    struct dispatch_counts c = {.pending = 10};
    progress_init(&p, fds[1]);
    for (int64_t t = 1; t <= 100; t++) { /* 25 s in steps of 0.25 s */
        c.done = t;
        progress_show(&p, &c, t * CLOCK_NS_PER_S / 4);
    }
    progress_finish(&p, &c);
    close(fds[1]);
    char text[4096];
    ssize_t n = read(fds[0], text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    int lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    cr_expect_eq(lines, 4, "%s", text);
    cr_expect_null(strchr(text, '\r'));
}

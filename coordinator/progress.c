#include "coordinator/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

static const int64_t bar_ns = CLOCK_NS_PER_S / 4;
static const int64_t line_ns = 10 * CLOCK_NS_PER_S;
enum { BAR_WIDTH = 24 };

void progress_init(struct progress *p, int fd)
{
    *p = (struct progress){.fd = fd, .is_terminal = isatty(fd) != 0};
}

void progress_format(const struct dispatch_counts *c, int bar_width, struct buf *out)
{
    char left[32];
    int64_t all = c->pending + c->leased + c->done + c->buried;
    double share = all > 0 ? (double)(c->done + c->buried) / (double)all : 1.0;
    if (bar_width > 0) {
        int filled = (int)(share * bar_width);
        buf_addc(out, '[');
        for (int i = 0; i < bar_width; i++)
            buf_addc(out, i < filled ? '#' : ' ');
        buf_adds(out, "] ");
    }
    buf_printf(out, "%lld/%lld jobs %.0f%%", (long long)c->done, (long long)all, 100 * share);
    if (c->jobs_per_s > 0)
        buf_printf(out, "  %.3g jobs/s", c->jobs_per_s);
    buf_printf(out, "  %d worker%s", c->workers, c->workers == 1 ? "" : "s");
    if (c->eta_s > 0)
        buf_printf(out, "  %s left", fmt_duration(c->eta_s, left));
    if (c->buried > 0)
        buf_printf(out, "  %lld failed", (long long)c->buried);
}

static int terminal_width(int fd)
{
    struct winsize w = {0};
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

static void show(struct progress *p, const struct dispatch_counts *c, bool is_last)
{
    struct buf line = {0};
    if (p->is_terminal) {
        struct buf text = {0};
        size_t width = (size_t)terminal_width(p->fd) - 1;
        progress_format(c, width >= 70 ? BAR_WIDTH : 0, &text);
        buf_adds(&line, "\r\033[K");
        buf_add(&line, text.data, text.len < width ? text.len : width);
        buf_release(&text);
    } else {
        progress_format(c, 0, &line);
    }
    p->is_line_open = p->is_terminal && !is_last;
    if (!p->is_line_open)
        buf_addc(&line, '\n');
    if (write(p->fd, line.data, line.len) < 0)
        p->is_line_open = false; /* nobody watches any more: the work goes on */
    buf_release(&line);
}

void progress_show(struct progress *p, const struct dispatch_counts *c, int64_t now_ns)
{
    bool is_new = p->is_terminal || p->shown_ns == 0 || c->done != p->shown_done;
    if (!is_new || (p->shown_ns != 0 && now_ns - p->shown_ns < (p->is_terminal ? bar_ns : line_ns)))
        return;
    p->shown_ns = now_ns;
    p->shown_done = c->done;
    show(p, c, false);
}

void progress_finish(struct progress *p, const struct dispatch_counts *c)
{
    show(p, c, true);
}

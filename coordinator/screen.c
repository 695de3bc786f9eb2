#include "coordinator/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

/* xterm's control sequences, which all terminals of today follow. */
static const char enter[] = "\033[?1049h\033[?25l"; /* the other screen, without cursor */
static const char leave[] = "\033[?25h\033[?1049l";
static const char home[] = "\033[H";
static const char clear_line[] = "\033[K";
static const char clear_rest[] = "\033[J";

static void put(const struct screen *s, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t written = write(s->fd, p, n);
        if (written <= 0)
            return; /* nobody watches any more */
        p += written;
        n -= (size_t)written;
    }
}

enum err_code screen_open(struct screen *s, int fd, bool is_plain, struct err *e)
{
    *s = (struct screen){.fd = fd, .is_terminal = !is_plain && isatty(fd) != 0};
    TRY(signals_open(&s->signals, SIGWINCH, e));
    signal(SIGPIPE, SIG_DFL); /* nothing is in hand: who reads no longer ends it */
    if (s->is_terminal)
        put(s, enter, sizeof(enter) - 1);
    return ERR_OK;
}

/* Bytes of the first `columns` characters. */
static size_t cut(struct str line, int columns)
{
    size_t i = 0;
    for (int n = 0; i < line.n; i++) {
        bool is_start = ((unsigned char)line.p[i] & 0xc0) != 0x80;
        if (is_start && n++ == columns)
            break;
    }
    return i;
}

void screen_fit(struct str text, int rows, int columns, struct buf *out)
{
    struct str rest = text, line;
    for (int i = 0; i < rows && str_next_line(&rest, &line); i++) {
        if (i > 0)
            buf_adds(out, "\r\n");
        buf_add(out, line.p, cut(line, columns));
        buf_adds(out, clear_line);
    }
}

void screen_draw(struct screen *s, const struct buf *text)
{
    struct winsize w = {0};
    struct buf out = {0};
    if (!s->is_terminal) {
        put(s, text->data, text->len);
        return;
    }
    bool is_known = ioctl(s->fd, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 && w.ws_col > 0;
    buf_adds(&out, home);
    screen_fit((struct str){text->data, text->len}, is_known ? w.ws_row : 24,
               is_known ? w.ws_col : 80, &out);
    buf_adds(&out, clear_rest);
    put(s, out.data, out.len);
    buf_release(&out);
}

enum screen_event screen_wait(struct screen *s, int64_t wait_ns)
{
    struct pollfd p = {.fd = s->signals.fd, .events = POLLIN};
    enum screen_event event = SCREEN_TIME;
    poll(&p, 1, (int)(wait_ns / CLOCK_NS_PER_MS));
    for (int number; (number = signals_next(&s->signals)) != 0;) {
        if (number != SIGWINCH)
            return SCREEN_LEAVE;
        event = SCREEN_RESIZED;
    }
    return event;
}

void screen_close(struct screen *s, const struct buf *text)
{
    if (s->is_terminal) {
        put(s, leave, sizeof(leave) - 1);
        if (text != NULL)
            put(s, text->data, text->len);
    }
    signals_close(&s->signals);
}

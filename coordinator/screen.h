/* A text that is drawn anew in place on a terminal, as large as fits, until Ctrl-C. The terminal is left as it was: its own
 * screen comes back, with the last text below. Thread: the main one. */
#ifndef ISOBIT_COORDINATOR_SCREEN_H
#define ISOBIT_COORDINATOR_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/signals.h"
#include "base/str.h"

struct screen {
    int fd;
    bool is_terminal; /* else texts are written one after the other */
    struct signals signals;
};

/* Takes over SIGINT, SIGTERM, SIGHUP and SIGWINCH until screen_close. is_plain: no terminal, whatever fd is. */
MUST_USE enum err_code screen_open(struct screen *s, int fd, bool is_plain, struct err *e);
/* Draws; lines and columns that do not fit are left out. */
void screen_draw(struct screen *s, const struct buf *text);
enum screen_event { SCREEN_TIME, SCREEN_RESIZED, SCREEN_LEAVE };
/* Waits so long, or for a new size, or for a signal to leave. */
enum screen_event screen_wait(struct screen *s, int64_t wait_ns);
/* Gives the terminal back and writes the text, whole, where it stays; NULL: nothing. */
void screen_close(struct screen *s, const struct buf *text);

/* What fits into so many rows and columns, each row cleared to its end; columns count characters of UTF-8. Pure. */
void screen_fit(struct str text, int rows, int columns, struct buf *out);

#endif

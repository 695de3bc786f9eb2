/* How far a sweep is, on stderr: a bar that redraws itself on a terminal, a line now and then elsewhere. Pure but for the
 * write. */
#ifndef ISOBIT_COORDINATOR_PROGRESS_H
#define ISOBIT_COORDINATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "coordinator/dispatch.h"

struct progress {
    int fd;
    bool is_terminal;
    int64_t shown_ns; /* 0: never */
    int64_t shown_done;
    bool is_line_open; /* a bar stands there without a line's end */
};

void progress_init(struct progress *p, int fd);
/* Shows the counts when it is time to: the bar 4 times a second, a line every 10 s when something is new. */
void progress_show(struct progress *p, const struct dispatch_counts *c, int64_t now_ns);
/* Shows them now and ends the line. */
void progress_finish(struct progress *p, const struct dispatch_counts *c);

/* "[########            ] 123/456 27%  3.4 jobs/s  2 workers  2m 10s left  1 failed" */
void progress_format(const struct dispatch_counts *c, int bar_width, struct buf *out);

#endif

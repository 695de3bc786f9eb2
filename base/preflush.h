/* Has the system write a file's changed pages to the disk from a thread, so that the fsync that its owner does later finds
 * little left to wait for. Only a hint: nothing depends on whether it works, and what goes wrong in it is left for the owner's
 * own fsync to find, since Linux reports a failed write to every open file description once.
 *
 * Closing any descriptor of a file drops the process's POSIX locks on it, which SQLite's protocol stands on. Such locks belong
 * to a descriptor table, and so the thread opens the file in a table of its own. Thread: one caller. */
#ifndef ISOBIT_BASE_PREFLUSH_H
#define ISOBIT_BASE_PREFLUSH_H

#include <stdbool.h>

struct preflush; /* opaque */

/* NULL: no thread could be started. */
struct preflush *preflush_new(const char *path);
void preflush_free(struct preflush *p);

void preflush_begin(struct preflush *p);
/* What was begun last has ended. */
bool preflush_is_over(struct preflush *p);

#endif

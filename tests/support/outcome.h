/* What a sweep that was disturbed must still give: every job done, nothing twice, the numbers of an undisturbed run. */
#ifndef ISOBIT_TESTS_SUPPORT_OUTCOME_H
#define ISOBIT_TESTS_SUPPORT_OUTCOME_H

#include "base/str.h"

/* "key|metric=value" lines in order: what must not depend on what happened. Caller releases. */
struct buf outcome_read(const char *db);
/* Every job done once, with these results; by the database, and by the event log alone when the file `events` exists. */
void outcome_check(const char *db, const char *events, const struct buf *expected);

#endif

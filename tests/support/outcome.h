/* What a sweep that was disturbed must still give: every job done, nothing twice, the numbers of an undisturbed run. */
#ifndef ISOBIT_TESTS_SUPPORT_OUTCOME_H
#define ISOBIT_TESTS_SUPPORT_OUTCOME_H

#include "base/str.h"

/* "key|metric=value" lines in order: all that must not depend on what happened. The caller releases it. */
struct buf outcome_read(const char *db);
/* EXPECTs (cluster.h) that nothing is lost, nothing is counted twice and the results are `expected`. */
void outcome_check(const char *db, const struct buf *expected);

#endif

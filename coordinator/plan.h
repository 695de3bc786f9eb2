/* Planning a sweep into a database, for `plan` and `run`. */
#ifndef ISOBIT_COORDINATOR_PLAN_H
#define ISOBIT_COORDINATOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/estimate.h"
#include "schema/sweep.h"

/* The database a spec goes to unless --db names one: the spec's file name with .db for its ending, in the
 * current directory. Caller frees with xfree. */
char *plan_default_db(const char *spec_path);

struct plan_counts {
    int64_t jobs_total, jobs_new, jobs_known;
    bool has_other_evals; /* as of store_plan */
};
/* Adds the sweep's jobs to the database, through the coordinator that holds it or directly. Errors: as
 * control_request. */
MUST_USE enum err_code plan_submit(const struct sweep *sw, const char *db_path, int64_t priority,
                                   struct plan_counts *out, struct err *e);

/* One line on stderr for each model and data file that is not on this machine: workers need them, planning does
 * not. */
void plan_warn_absent(const struct sweep *sw, const struct estimate *est);

#endif

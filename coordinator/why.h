/* Why a pending job waits, in sentences for people: nobody serves, no worker can take it and what each lacks, or its turn has not
 * come. Reads the database only. */
#ifndef ISOBIT_COORDINATOR_WHY_H
#define ISOBIT_COORDINATOR_WHY_H

#include "base/json.h"
#include "schema/store.h"

struct why {
    struct store *s;
    const char *db;
    bool is_served;
    json_t *workers;  /* live ones: rows of the view */
    json_t *refusals; /* rows of the view */
    json_t *live;     /* what the coordinator knows of workers beyond that, borrowed; or NULL */
};

/* One more sentence: why_say(array, "format", …). */
#define why_say(sentences, ...) json_array_append_new((sentences), json_sprintf(__VA_ARGS__))

/* `live` may be NULL. */
MUST_USE enum err_code why_open(struct why *x, struct store *s, const char *db, bool is_served,
                                json_t *live, struct err *e);
void why_close(struct why *x); /* all zero is fine */

/* Columns of a pending job that why_pending reads. */
#define WHY_COLUMNS "job, key, priority, attempts, compute, error, model, n_params, evaluation"

/* Gives `job`, which has WHY_COLUMNS, the member `failures`: its rows of that view. */
MUST_USE enum err_code why_add_failures(const struct why *x, json_t *job, struct err *e);

/* Appends to the array `sentences`; `job` has WHY_COLUMNS and its failures. */
MUST_USE enum err_code why_pending(const struct why *x, const json_t *job, json_t *sentences,
                                   struct err *e);

#endif

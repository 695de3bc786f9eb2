/* Rows of a query as JSON, for commands with --json. */
#ifndef ISOBIT_COORDINATOR_ROWS_H
#define ISOBIT_COORDINATOR_ROWS_H

#include "base/json.h"
#include "schema/store.h"

/* One object with the columns' names; NULL is null. Blobs are left out. New reference. */
json_t *rows_object(const struct store_row *row);

/* All rows of a SELECT as an array of objects. *out is a new reference. */
MUST_USE enum err_code rows_query(struct store *s, const char *sql, const char *const *params,
                                  int n_params, json_t **out, struct err *e);

#endif

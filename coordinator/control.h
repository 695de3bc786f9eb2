/* Changes that people ask for: plan, retry, cancel, hold, release, priority, backup, drain. One implementation, two ways in: directly on
 * a store whose lock the command holds, or as REQUEST/REPLY through the control socket of a running `serve`. A request is
 * {"op": "plan"|"retry"|…, …}; a reply {"ok": true, …} or {"ok": false, "code": "FORMAT", "text": "…"}. */
#ifndef ISOBIT_COORDINATOR_CONTROL_H
#define ISOBIT_COORDINATOR_CONTROL_H

#include "base/json.h"
#include "schema/store.h"

/* Carries out a request on an open writable store, in a transaction of its own; the reply is a new reference. Never fails
 * as a call: an error is a reply. Ops:
 *   plan     spec_text, spec_path, priority            -> counts
 *   retry    pattern, [state: "done"], [program: "<V"] -> changed
 *   cancel | hold | release   pattern                  -> changed
 *   backup   out                                       -> bytes
 *   status                                             -> counts per state */
json_t *control_execute(struct store *s, const json_t *request);

/* Whether a request can change jobs; one that only asks or copies leaves the coordinator's board as it is. */
bool control_is_change(const json_t *request);

/* What the commands call: takes the lock and executes, or sends the request to whoever holds it and waits for the reply
 * (at most timeout_s). *reply is a new reference. Errors: those of the reply, ERR_TIMEOUT, ERR_BUSY. */
MUST_USE enum err_code control_request(const char *db_path, const json_t *request, bool may_create,
                                       double timeout_s, json_t **reply, struct err *e);

#endif

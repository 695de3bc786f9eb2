/* What may be asked over the workers' address (PROTOCOL.md section 9): the state of the sweeps, and nothing that changes it. */
#ifndef ISOBIT_COORDINATOR_READER_H
#define ISOBIT_COORDINATOR_READER_H

#include "coordinator/dispatch.h"
#include "coordinator/door.h"

/* The reply to a REQUEST that came from `who`; a new reference. Never fails as a call. */
json_t *reader_answer(struct store *s, const struct dispatch *d, struct door *door, const char *who,
                      const json_t *request, int64_t now_ns);

/* What `isobit status --connect` calls: asks the coordinator at `endpoint`. `keys_dir` NULL: without keys. *reply is a new
 * reference. Errors: those of keys_load and of the reply, ERR_DENIED, ERR_TIMEOUT. */
MUST_USE enum err_code reader_ask(const char *endpoint, const char *keys_dir, const json_t *request,
                                  double timeout_s, json_t **reply, struct err *e);

#endif

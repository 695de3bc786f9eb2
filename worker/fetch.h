/* Data files that this machine lacks, fetched from the coordinator by SHA-256 (PROTOCOL.md, FETCH and DATA) into a cache folder:
 *
 *   CACHE/<first 32 digits of the SHA-256 over the set's hashes>/NAME
 *
 * written under another name, compared with the hash, then renamed. One part is asked for at a time. Knows nothing of
 * connections: it says what to send and takes what came. Thread: the parent's loop. */
#ifndef ISOBIT_WORKER_FETCH_H
#define ISOBIT_WORKER_FETCH_H

#include "base/err.h"
#include "base/json.h"
#include "schema/wire.h"

struct fetch; /* opaque */

/* `dir` NULL: XDG_CACHE_HOME/isobit/data, else ~/.cache/isobit/data. */
struct fetch *fetch_new(const char *dir);
void fetch_free(struct fetch *f);

/* Can a job with this evaluation (the object of its START, changed here to name the fetched file) run now? FETCH_READY also
 * when nothing can be done about a file that is absent: the job itself says so best. */
enum fetch_state { FETCH_READY, FETCH_WAITING };
enum fetch_state fetch_prepare(struct fetch *f, json_t *eval);

/* The body of a FETCH that is due, or NULL; *next_ns: ns until the next one may be. New reference. */
json_t *fetch_request(struct fetch *f, int64_t now_ns, int64_t *next_ns);
/* A DATA that arrived. What does not fit is logged and asked for again. */
void fetch_take(struct fetch *f, const struct wire_msg *m);

#endif

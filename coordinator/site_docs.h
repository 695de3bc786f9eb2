/* The documents of a coordinator's web page: text made from the database and from what the coordinator last told. Each is
 * complete in itself and described in docs/HTTP.md. Pure but for reading. */
#ifndef ISOBIT_COORDINATOR_SITE_DOCS_H
#define ISOBIT_COORDINATOR_SITE_DOCS_H

#include "base/json.h"
#include "coordinator/dispatch.h"
#include "schema/store.h"

/* What the coordinator told last. */
struct site_live {
    const char *db_path;
    char endpoint[256];
    struct dispatch_counts counts;
    bool is_draining;
    bool is_in_trouble; /* the database cannot be written */
    int64_t at_ns;      /* monotonic; 0: nothing yet */
    json_t *workers;    /* array of objects (dispatch_workers_json); owned */
};

typedef enum err_code (*site_doc_fn)(struct store *s, const struct site_live *live, struct buf *out,
                                     struct err *e);

/* Quick ones. */
MUST_USE enum err_code site_doc_status(struct store *s, const struct site_live *live,
                                       struct buf *out, struct err *e);
MUST_USE enum err_code site_doc_workers(struct store *s, const struct site_live *live,
                                        struct buf *out, struct err *e);
MUST_USE enum err_code site_doc_failures(struct store *s, const struct site_live *live,
                                         struct buf *out, struct err *e);
MUST_USE enum err_code site_doc_metrics(struct store *s, const struct site_live *live,
                                        struct buf *out, struct err *e);
/* Those that look at every job: seconds at a million. */
MUST_USE enum err_code site_doc_progress(struct store *s, const struct site_live *live,
                                         struct buf *out, struct err *e);
MUST_USE enum err_code site_doc_scaling(struct store *s, const struct site_live *live,
                                        struct buf *out, struct err *e);

/* Changes whenever a job does. */
MUST_USE enum err_code site_fingerprint(struct store *s, struct buf *out, struct err *e);

/* Now, as UTC text. New reference. */
json_t *site_time(void);

/* What to do about a failed attempt's job, by the job's state now: words, or a command for the shell. */
void site_hint(const char *state, const char *key, const char *db_path, struct buf *out);

#endif

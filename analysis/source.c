#include "analysis/source.h"

static enum err_code explain_empty(struct store *s, const struct source_opts *o, struct err *e)
{
    int64_t n_jobs = 0;
    int64_t n_done = 0;
    TRY(store_query_int(s, "SELECT count(*) FROM jobs", 0, &n_jobs, e));
    TRY(store_query_int(s, "SELECT count(*) FROM jobs WHERE state = 'done'", 0, &n_done, e));
    if (n_jobs == 0)
        return err_set(e, ERR_NOTFOUND,
                       "%s holds no jobs; plan a sweep: isobit plan SPEC.yaml --db %s", o->db,
                       o->db);
    if (n_done == 0)
        return err_set(
            e, ERR_NOTFOUND,
            "%s holds %lld jobs and none is done; run them: isobit run SPEC.yaml --db %s", o->db,
            (long long)n_jobs, o->db);
    return err_set(e, ERR_NOTFOUND,
                   "%s: no results for sweep '%s', family '%s', compute '%s'; see: sqlite3 %s "
                   "'SELECT DISTINCT sweep, family, compute FROM scaling'",
                   o->db, o->sweep != NULL ? o->sweep : "any",
                   o->family != NULL ? o->family : "any", o->compute != NULL ? o->compute : "any",
                   o->db);
}

enum err_code source_load(const struct source_opts *o, struct arena *a, struct store **store,
                          struct frame *frame, struct err *e)
{
    if (o->db == NULL)
        return err_set(e, ERR_USAGE, "--db F.db is required; see 'isobit-analysis --help'");
    struct store *s = NULL;
    TRY(store_open(o->db, STORE_READ, &s, e));
    struct frame_filter filter = {o->sweep, o->family, o->compute};
    enum err_code rc = frame_load(s, &filter, a, frame, e);
    if (rc == ERR_OK && frame->n == 0)
        rc = explain_empty(s, o, e);
    if (rc == ERR_OK)
        *store = s;
    else
        store_close(s);
    return rc;
}

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

static enum err_code load_and_act(struct source *src, source_fn act, const void *arg, struct err *e)
{
    const struct source_opts *o = src->opts;
    struct frame_filter filter = {o->sweep, o->family, o->compute};
    TRY(store_snapshot(src->store, e));
    TRY(frame_load(src->store, &filter, src->arena, &src->frame, e));
    if (src->frame.n == 0)
        return explain_empty(src->store, o, e);
    frame_cap(&src->frame, o->cap);
    return act(src, arg, e);
}

enum err_code source_run(const struct source_opts *o, source_fn act, const void *arg, struct err *e)
{
    if (o->db == NULL)
        return err_set(e, ERR_USAGE, "--db F.db is required; see the command with --help");
    struct arena arena = {0};
    struct source src = {.opts = o,
                         .arena = &arena,
                         .metric = metric_of_option(o->metric),
                         .bits = bits_of_option(o->bits)};
    TRY(store_open(o->db, STORE_READ, &src.store, e));
    enum err_code rc = load_and_act(&src, act, arg, e);
    store_close(src.store);
    arena_release(&arena);
    return rc;
}

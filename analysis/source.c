#include "analysis/source.h"

/* How many jobs there are in which states. */
struct states {
    int64_t all, done, open, buried;
};

static enum err_code count_states(struct store *s, struct states *out, struct err *e)
{
    TRY(store_query_int(s, "SELECT count(*) FROM jobs", 0, &out->all, e));
    TRY(store_query_int(s, "SELECT count(*) FROM jobs WHERE state = 'done'", 0, &out->done, e));
    TRY(store_query_int(s, "SELECT count(*) FROM jobs WHERE state IN ('pending', 'leased')", 0,
                        &out->open, e));
    return store_query_int(s, "SELECT count(*) FROM jobs WHERE state = 'buried'", 0, &out->buried,
                           e);
}

enum err_code source_check_done(struct store *s, const char *db, struct err *e)
{
    struct states n = {0};
    TRY(count_states(s, &n, e));
    if (n.done > 0)
        return ERR_OK;
    if (n.all == 0)
        return err_set(e, ERR_NOTFOUND,
                       "%s holds no jobs; plan a sweep: isobit plan SPEC.yaml --db %s", db, db);
    if (n.open > 0)
        return err_set(
            e, ERR_NOTFOUND,
            "%s holds %lld jobs and none is done; run them: isobit run SPEC.yaml --db %s", db,
            (long long)n.all, db);
    if (n.buried > 0)
        return err_set(e, ERR_NOTFOUND,
                       "%s holds %lld jobs, none is done and %lld failed; list those: isobit jobs "
                       "--db %s --state buried",
                       db, (long long)n.all, (long long)n.buried, db);
    return err_set(e, ERR_NOTFOUND,
                   "%s holds %lld jobs, none is done and all are held or cancelled; make them "
                   "pending: isobit release --db %s '*', isobit retry --db %s '*'",
                   db, (long long)n.all, db, db);
}

static enum err_code explain_empty(struct store *s, const struct source_opts *o, struct err *e)
{
    TRY(source_check_done(s, o->db, e));
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

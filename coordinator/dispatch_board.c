/* The board under dispatch: what the store says, who holds what of it, and how both are brought together again after a
 * change by others or a transaction that was lost. */
#include "base/mem.h"
#include "coordinator/dispatch_impl.h"

void dispatch_revoke(struct dispatch *d, int64_t session, int64_t job)
{
    d->revokes = xrealloc(d->revokes, (size_t)(d->n_revokes + 1) * sizeof(*d->revokes));
    d->revokes[d->n_revokes++] = (struct revoke){session, job};
}

/* All leases in the order in which the sessions took them; caller frees. */
static struct lease *list_leases(const struct dispatch *d, int *n)
{
    *n = 0;
    for (int i = 0; i < d->sessions.n_slots; i++)
        *n += d->sessions.v[i] != NULL ? d->sessions.v[i]->held.n : 0;
    struct lease *v = xcalloc((size_t)*n, sizeof(*v));
    int at = 0;
    for (int i = 0; i < d->sessions.n_slots; i++) {
        const struct session *s = d->sessions.v[i];
        for (int32_t k = 0, j = s != NULL ? s->held.head : -1; s != NULL && k < s->held.n; k++) {
            v[at++] = (struct lease){d->board.jobs[j].id, i, d->board.jobs[j].attempt};
            j = d->board.jobs[j].next;
        }
    }
    return v;
}

/* Leases that stand in the store and that no session has: those of the process before this one. They wait lease_ns for
 * their worker to come back under the same uuid. */
static void adopt_leases(struct dispatch *d, int64_t now_ns)
{
    for (int32_t i = 0; i < d->board.n_jobs; i++) {
        const struct board_job *j = &d->board.jobs[i];
        if (j->worker_id == 0 || j->owner >= 0)
            continue;
        int slot = session_of_worker(&d->sessions, j->worker_id);
        if (slot < 0) {
            struct session *s = session_add(&d->sessions, j->worker_id, &slot);
            s->seen_ns = now_ns;
        }
        board_take(&d->board, i, slot, &d->sessions.v[slot]->held);
    }
}

/* Whoever was turned away for another hash than the pinned one may try again when none is pinned any more. */
static void pardon(const struct dispatch *d, struct session *s)
{
    int n = 0;
    for (int i = 0; i < s->n_refused; i++) {
        const struct session_refusal r = s->refused[i];
        const char *pinned = r.what == WIRE_LACK_CHECKPOINT
                                 ? d->board.parts.models[r.id].weights_sha256
                             : r.what == WIRE_LACK_DATA ? d->board.parts.evals[r.id].data_sha256
                                                        : NULL;
        if (!r.is_denied || pinned != NULL)
            s->refused[n++] = r;
    }
    s->n_refused = n;
}

enum err_code dispatch_refresh(struct dispatch *d, struct err *e)
{
    if (!d->is_stale)
        return ERR_OK;
    int n = 0;
    struct lease *leases = list_leases(d, &n);
    for (int i = 0; i < d->sessions.n_slots; i++)
        if (d->sessions.v[i] != NULL)
            d->sessions.v[i]->held = (struct board_list){0};
    enum err_code rc = board_load(&d->board, d->store, e);
    for (int i = 0; i < n; i++) {
        int32_t job = rc == ERR_OK ? board_find(&d->board, leases[i].job) : -1;
        struct session *s = d->sessions.v[leases[i].slot];
        if (job >= 0 && d->board.jobs[job].worker_id == s->worker_id &&
            d->board.jobs[job].attempt == leases[i].attempt)
            board_take(&d->board, job, leases[i].slot, &s->held);
        else
            dispatch_revoke(d, s->number, leases[i].job);
    }
    if (rc == ERR_OK) {
        for (int i = 0; i < d->sessions.n_slots; i++)
            if (d->sessions.v[i] != NULL)
                pardon(d, d->sessions.v[i]);
        pace_fit(&d->pace, &d->board.parts);
        adopt_leases(d, d->now_ns);
        d->is_stale = false;
    }
    xfree(leases);
    return rc;
}

void dispatch_jobs_changed(struct dispatch *d)
{
    d->is_stale = true;
}

/* A session that the lost transaction began is unknown to the store, its worker's number free for another. */
void dispatch_rolled_back(struct dispatch *d)
{
    int64_t group = store_transactions(d->store);
    d->is_stale = true;
    for (int i = 0; i < d->sessions.n_slots; i++) {
        struct session *s = d->sessions.v[i];
        if (s != NULL && s->begun_group == group)
            session_remove(&d->sessions, i);
        else if (s != NULL && s->mark_group == group)
            s->credit = s->mark_credit;
    }
}

void dispatch_resume(struct dispatch *d, int64_t now_ns)
{
    for (int i = 0; i < d->sessions.n_slots; i++)
        if (d->sessions.v[i] != NULL)
            d->sessions.v[i]->seen_ns = now_ns;
}

void dispatch_set_credit(struct dispatch *d, struct session *s, int credit)
{
    int64_t group = store_transactions(d->store);
    if (s->mark_group != group) {
        s->mark_group = group;
        s->mark_credit = s->credit;
    }
    s->credit = credit < DISPATCH_MAX_CREDIT ? credit : DISPATCH_MAX_CREDIT;
}

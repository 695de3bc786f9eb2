#include "coordinator/session.h"

#include <string.h>

#include "base/mem.h"
#include "coordinator/dispatch.h"

/* number = how many came before, times the table's width, plus the slot: found without a search, never used again. */
enum { MAX_SLOTS = 1 << 16 };

static void session_free(struct session *s)
{
    if (s == NULL)
        return;
    xfree(s->uuid);
    xfree(s->host);
    xfree(s->device);
    xfree(s->program);
    xfree(s->refused);
    json_decref(s->progress);
    xfree(s);
}

void session_table_release(struct session_table *t)
{
    for (int i = 0; i < t->n_slots; i++)
        session_free(t->v[i]);
    xfree(t->v);
    xfree(t->limits);
    *t = (struct session_table){0};
}

struct session *session_add(struct session_table *t, int64_t worker_id, int *slot)
{
    int i = 0;
    while (i < t->n_slots && t->v[i] != NULL)
        i++;
    CHECK(i < MAX_SLOTS);
    if (i == t->n_slots) {
        t->v = xrealloc(t->v, (size_t)(t->n_slots + 1) * sizeof(struct session *));
        t->n_slots++;
    }
    struct session *s = xcalloc(1, sizeof(*s));
    s->number = ++t->n_ever * MAX_SLOTS + i;
    s->worker_id = worker_id;
    s->model = -1;
    s->slowness = 1;
    t->v[i] = s;
    *slot = i;
    return s;
}

void session_remove(struct session_table *t, int slot)
{
    t->n_live -= t->v[slot]->is_live;
    session_free(t->v[slot]);
    t->v[slot] = NULL;
}

int session_find(const struct session_table *t, int64_t number)
{
    int64_t slot = number % MAX_SLOTS;
    bool is_known =
        number > 0 && slot < t->n_slots && t->v[slot] != NULL && t->v[slot]->number == number;
    return is_known ? (int)slot : -1;
}

int session_of_worker(const struct session_table *t, int64_t worker_id)
{
    for (int i = 0; i < t->n_slots; i++)
        if (t->v[i] != NULL && t->v[i]->worker_id == worker_id)
            return i;
    return -1;
}

static void replace(char **field, const char *text)
{
    xfree(*field);
    *field = xstrdup(text != NULL ? text : "");
}

void session_describe(struct session *s, const struct worker_hello *h)
{
    replace(&s->uuid, h->uuid);
    replace(&s->host, h->host);
    replace(&s->device, h->device);
    replace(&s->program, h->program);
    s->computes = h->computes;
    s->memory_bytes = h->memory_bytes;
}

void session_set_live(struct session_table *t, struct session *s)
{
    t->n_live += !s->is_live;
    s->is_live = true;
}

/* Where it stands, or would: a session may refuse thousands of jobs, and is asked of each that waits. */
static int find_refusal(const struct session *s, enum wire_lack what, int64_t id)
{
    int lo = 0, hi = s->n_refused;
    while (lo < hi) {
        const int mid = lo + (hi - lo) / 2;
        const struct session_refusal *r = &s->refused[mid];
        if (r->what < what || (r->what == what && r->id < id))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void session_refuse(struct session *s, const struct session_refusal *r)
{
    if (session_refuses(s, r->what, r->id))
        return;
    const int at = find_refusal(s, r->what, r->id);
    s->refused = xrealloc(s->refused, (size_t)(s->n_refused + 1) * sizeof(*s->refused));
    memmove(s->refused + at + 1, s->refused + at,
            (size_t)(s->n_refused - at) * sizeof(*s->refused));
    s->refused[at] = *r;
    s->n_refused++;
}

bool session_refuses(const struct session *s, enum wire_lack what, int64_t id)
{
    const int at = find_refusal(s, what, id);
    return at < s->n_refused && s->refused[at].what == what && s->refused[at].id == id;
}

void session_limit(struct session_table *t, int32_t model, int64_t bytes)
{
    int i = 0;
    while (i < t->n_limits && t->limits[i].model != model)
        i++;
    if (i == t->n_limits) {
        t->limits = xrealloc(t->limits, (size_t)(i + 1) * sizeof(*t->limits));
        t->limits[t->n_limits++] = (struct session_limit){.model = model};
    }
    t->limits[i].bytes = bytes > t->limits[i].bytes ? bytes : t->limits[i].bytes;
}

bool session_is_too_small(const struct session_table *t, const struct session *s, int32_t model)
{
    for (int i = 0; i < t->n_limits; i++)
        if (t->limits[i].model == model)
            return s->memory_bytes > 0 && s->memory_bytes <= t->limits[i].bytes;
    return false;
}

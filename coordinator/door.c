#include "coordinator/door.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static const double burst = 10, per_second = 2;      /* PROTOCOL.md section 6 */
static const int64_t look_ns = CLOCK_NS_PER_S / 10;  /* a folder that changed just now */
static const int64_t look_again_ns = CLOCK_NS_PER_S; /* for an unknown key */
static const time_t settled_s = 2;

/* ---- the list ---- */

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct door_entry *)a)->key, ((const struct door_entry *)b)->key);
}

static const struct door_entry *find(const struct door *d, const char *who)
{
    struct door_entry wanted = {0};
    strncpy(wanted.key, who, sizeof(wanted.key) - 1);
    return d->n > 0 ? bsearch(&wanted, d->v, (size_t)d->n, sizeof(*d->v), compare) : NULL;
}

struct reading {
    struct door_entry *v;
    int n, cap;
};

static void add_entry(void *arg, enum key_role role, const char *name, const char key[LINK_KEY_HEX])
{
    struct reading *r = arg;
    if (r->n == r->cap) {
        r->cap = r->cap > 0 ? 2 * r->cap : 16;
        r->v = xrealloc(r->v, (size_t)r->cap * sizeof(*r->v));
    }
    struct door_entry *x = &r->v[r->n++];
    *x = (struct door_entry){.role = role == KEY_WORKER ? DOOR_WORKER : DOOR_READER};
    strncpy(x->key, key, sizeof(x->key) - 1);
    strncpy(x->name, name, sizeof(x->name) - 1);
}

static void note_change_times(const struct door *d, struct timespec out[2])
{
    for (int i = 0; i < 2; i++) {
        struct stat st = {0};
        char *path = keys_list_path(d->dir, i == 0 ? KEY_WORKER : KEY_READER);
        out[i] = stat(path, &st) == 0 ? st.st_mtim : (struct timespec){0};
        xfree(path);
    }
}

/* The times are taken first, so that a change while the folders are read is seen next time. */
static enum err_code read_list(struct door *d, int *n_bad, struct err *e)
{
    struct reading r = {0};
    note_change_times(d, d->changed);
    clock_gettime(CLOCK_REALTIME, &d->read_at);
    enum err_code rc = keys_list(d->dir, add_entry, &r, n_bad, e);
    d->is_doubtful = rc != ERR_OK || *n_bad > 0;
    if (rc != ERR_OK) {
        xfree(r.v);
        return rc;
    }
    if (r.n > 0)
        qsort(r.v, (size_t)r.n, sizeof(*r.v), compare);
    bool is_same = r.n == d->n && (r.n == 0 || memcmp(r.v, d->v, (size_t)r.n * sizeof(*r.v)) == 0);
    d->generation += !is_same;
    xfree(d->v);
    d->v = r.v;
    d->n = r.n;
    if (!is_same && d->generation > 1)
        log_event(LOG_INFO, "door", "list", "keys=%d", d->n);
    return ERR_OK;
}

static bool is_power_of_two(int64_t n)
{
    return (n & (n - 1)) == 0;
}

/* A list that cannot be read leaves the one in memory in force: nobody gets in by breaking it. */
static void read_again(struct door *d)
{
    struct err e;
    int n_bad = 0;
    if ((read_list(d, &n_bad, &e) != ERR_OK || n_bad > 0) && is_power_of_two(++d->n_complaints))
        log_event(LOG_ERROR, "door", "bad-list", "count=%lld text=\"%s\"",
                  (long long)d->n_complaints, e.text);
}

/* Its clock ticks slowly, so a folder that changed just before it was read may have changed again since. */
static bool has_changed(const struct door *d, bool *is_fresh)
{
    struct timespec now[2];
    note_change_times(d, now);
    *is_fresh = false;
    for (int i = 0; i < 2; i++) {
        if (now[i].tv_sec != d->changed[i].tv_sec || now[i].tv_nsec != d->changed[i].tv_nsec)
            return true;
        *is_fresh |= d->read_at.tv_sec - now[i].tv_sec < settled_s;
    }
    return false;
}

void door_look(struct door *d, int64_t now_ns)
{
    bool is_fresh = false;
    if (d->dir == NULL)
        return;
    bool is_due = now_ns - d->read_ns > look_ns;
    if (has_changed(d, &is_fresh) || ((is_fresh || d->is_doubtful) && is_due)) {
        d->read_ns = now_ns;
        read_again(d);
    }
}

enum err_code door_open(struct door *d, const char *dir, struct err *e)
{
    int n_bad = 0;
    *d = (struct door){.dir = dir};
    if (dir == NULL)
        return ERR_OK;
    TRY(keys_load(dir, KEY_COORDINATOR, &d->keys, e));
    TRY(read_list(d, &n_bad, e));
    return n_bad > 0 ? e->code : ERR_OK;
}

void door_release(struct door *d)
{
    xfree(d->v);
    *d = (struct door){0};
}

/* ---- knocking ---- */

static bool on_knock(void *arg, const char key[LINK_KEY_HEX], const char *address)
{
    struct door *d = arg;
    int64_t now_ns = clock_mono_ns();
    door_look(d, now_ns);
    /* A file that was overwritten in place leaves its folder unchanged. */
    if (find(d, key) == NULL && now_ns - d->read_ns > look_again_ns) {
        d->read_ns = now_ns;
        read_again(d);
    }
    if (find(d, key) != NULL)
        return true;
    if (is_power_of_two(++d->n_strangers))
        log_event(LOG_WARN, "door", "stranger", "count=%lld address=%s key=%s",
                  (long long)d->n_strangers, address, key);
    return false;
}

static void on_failure(void *arg, bool is_unlisted, const char *text)
{
    struct door *d = arg;
    (void)is_unlisted;
    if (d->dir != NULL && is_power_of_two(++d->n_failures))
        log_event(LOG_WARN, "door", "no-handshake", "count=%lld text=\"%s\"",
                  (long long)d->n_failures, text);
}

struct link_door door_link(struct door *d, int max_connections)
{
    return (struct link_door){d, on_knock, on_failure, max_connections};
}

const struct link_keys *door_keys(const struct door *d)
{
    return d->dir != NULL ? &d->keys : NULL;
}

/* ---- once inside ---- */

enum door_role door_role(const struct door *d, const char *who)
{
    if (d->dir == NULL)
        return DOOR_ANYBODY;
    const struct door_entry *x = find(d, who);
    return x != NULL ? x->role : DOOR_NOBODY;
}

const char *door_name(const struct door *d, const char *who)
{
    const struct door_entry *x = find(d, who);
    return x != NULL ? x->name : "?";
}

bool door_may_ask(struct door *d, const char *who, int64_t now_ns)
{
    size_t hash = 0;
    for (const char *c = who; *c != '\0'; c++)
        hash = hash * 31 + (unsigned char)*c;
    struct door_bucket *b = &d->requests[hash % ARRAY_LEN(d->requests)];
    b->tokens = b->at_ns == 0 ? burst : b->tokens + (double)(now_ns - b->at_ns) * 1e-9 * per_second;
    b->tokens = b->tokens < burst ? b->tokens : burst;
    b->at_ns = now_ns;
    if (b->tokens < 1)
        return false;
    b->tokens--;
    return true;
}

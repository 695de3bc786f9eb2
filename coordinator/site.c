#include "coordinator/site.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/http.h"
#include "coordinator/page.h"
#include "coordinator/site_docs.h"

static const int64_t publish_ns = CLOCK_NS_PER_S;
static const int64_t stale_ns = 15 * CLOCK_NS_PER_S;
/* A document is renewed at most so often, and so that making it takes at most a twentieth of one core. */
static const int64_t renew_min_ns = CLOCK_NS_PER_S;
enum { RENEW_SHARE = 20 };

static const char type_json[] = "application/json";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";

enum site_doc { STATUS, WORKERS, FAILURES, METRICS, PROGRESS, SCALING, N_DOCS };

static const struct {
    const char *path, *type;
    site_doc_fn make;
    bool
        is_slow; /* looks at every job: made by the second keeper, and only when a job has changed */
} doc_kinds[N_DOCS] = {
    [STATUS] = {"/api/status", type_json, site_doc_status, false},
    [WORKERS] = {"/api/workers", type_json, site_doc_workers, false},
    [FAILURES] = {"/api/failures", type_json, site_doc_failures, false},
    [METRICS] = {"/metrics", type_metrics, site_doc_metrics, false},
    [PROGRESS] = {"/api/progress", type_json, site_doc_progress, true},
    [SCALING] = {"/api/scaling", type_json, site_doc_scaling, true},
};

struct site_text {
    struct buf text; /* empty: not made yet */
    int64_t made_ns, due_ns;
    struct buf fingerprint; /* slow ones: of the database they were made from; keeper's own */
};

/* A thread that keeps some of the documents up to date. */
struct site_keeper {
    struct site *site;
    struct store *store;
    pthread_t thread;
    bool is_started, is_slow;
};

struct site {
    struct site_options o;
    struct http *http;
    struct site_keeper keepers[2];
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t ending;
    bool is_over;
    struct site_text docs[N_DOCS];
    struct site_live live;
};

/* ---- keeping documents ---- */

static struct site_live copy_live(struct site *s)
{
    pthread_mutex_lock(&s->mutex);
    struct site_live live = s->live;
    live.workers = json_deep_copy(s->live.workers);
    pthread_mutex_unlock(&s->mutex);
    return live;
}

static void put_text(struct site *s, enum site_doc doc, struct buf *text, int64_t began_ns)
{
    int64_t now_ns = clock_mono_ns();
    int64_t pause_ns = RENEW_SHARE * (now_ns - began_ns);
    struct site_text *t = &s->docs[doc];
    pthread_mutex_lock(&s->mutex);
    struct buf old = t->text;
    t->text = *text;
    t->made_ns = now_ns;
    t->due_ns = now_ns + (pause_ns > renew_min_ns ? pause_ns : renew_min_ns);
    pthread_mutex_unlock(&s->mutex);
    buf_release(&old);
}

/* A slow document of an unchanged database is as good as new. */
static bool is_unchanged(struct site_keeper *k, struct site_text *t)
{
    struct buf now = {0};
    struct err e;
    bool is_same = site_fingerprint(k->store, &now, &e) == ERR_OK && t->fingerprint.data != NULL &&
                   now.len == t->fingerprint.len &&
                   memcmp(now.data, t->fingerprint.data, now.len) == 0;
    buf_release(&t->fingerprint);
    t->fingerprint = now;
    return is_same;
}

static void renew(struct site_keeper *k, enum site_doc doc)
{
    struct site *s = k->site;
    struct site_text *t = &s->docs[doc]; /* due_ns and fingerprint are this keeper's alone */
    struct buf text = {0};
    struct err e;
    int64_t began_ns = clock_mono_ns();
    if (began_ns < t->due_ns)
        return;
    if (k->is_slow && is_unchanged(k, t)) {
        t->due_ns = began_ns + renew_min_ns;
        return;
    }
    struct site_live live = copy_live(s);
    enum err_code rc = doc_kinds[doc].make(k->store, &live, &text, &e);
    json_decref(live.workers);
    if (rc == ERR_OK) {
        put_text(s, doc, &text, began_ns);
        return;
    }
    buf_release(&text);
    buf_release(&t->fingerprint);
    t->due_ns = began_ns + 5 * renew_min_ns;
    log_event(LOG_WARN, "site", "not-renewed", "path=%s text=\"%s\"", doc_kinds[doc].path, e.text);
}

/* Sleeps for a moment; false: the end. */
static bool wait_a_moment(struct site *s)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 200 * CLOCK_NS_PER_MS;
    until.tv_sec += until.tv_nsec / CLOCK_NS_PER_S;
    until.tv_nsec %= CLOCK_NS_PER_S;
    pthread_mutex_lock(&s->mutex);
    if (!s->is_over)
        pthread_cond_timedwait(&s->ending, &s->mutex, &until);
    bool goes_on = !s->is_over;
    pthread_mutex_unlock(&s->mutex);
    return goes_on;
}

static void *keep(void *arg)
{
    struct site_keeper *k = arg;
    do {
        for (int i = 0; i < N_DOCS; i++)
            if (doc_kinds[i].is_slow == k->is_slow)
                renew(k, (enum site_doc)i);
        if (!k->is_slow)
            http_expire(k->site->http, clock_mono_ns());
    } while (wait_a_moment(k->site));
    return NULL;
}

/* ---- answering ---- */

/* Healthy: the coordinator goes round and can write, and the quick documents are fresh. */
static void answer_health(struct site *s, struct http_answer *out)
{
    int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&s->mutex);
    bool is_live = s->live.at_ns != 0 && now_ns - s->live.at_ns < stale_ns;
    bool is_in_trouble = s->live.is_in_trouble;
    bool is_fresh = s->docs[STATUS].made_ns != 0 && now_ns - s->docs[STATUS].made_ns < stale_ns;
    pthread_mutex_unlock(&s->mutex);
    out->status = is_live && is_fresh && !is_in_trouble ? 200 : 503;
    buf_adds(&out->body, !is_live        ? "the coordinator stands still\n"
                         : !is_fresh     ? "the database cannot be read\n"
                         : is_in_trouble ? "the database cannot be written\n"
                                         : "ok\n");
}

static void answer_doc(struct site *s, enum site_doc doc, struct http_answer *out)
{
    pthread_mutex_lock(&s->mutex);
    const struct buf *text = &s->docs[doc].text;
    if (text->data != NULL)
        buf_add(&out->body, text->data, text->len);
    pthread_mutex_unlock(&s->mutex);
    out->type = doc_kinds[doc].type;
    if (out->body.data == NULL) {
        out->status = 503;
        out->type = type_json;
        buf_adds(&out->body, "{\"error\": \"not ready yet\"}\n");
    }
}

static bool answer(void *arg, const char *path, struct http_answer *out)
{
    struct site *s = arg;
    if (strcmp(path, "/healthz") == 0) {
        answer_health(s, out);
        return true;
    }
    for (int i = 0; i < N_DOCS; i++) {
        if (strcmp(path, doc_kinds[i].path) == 0) {
            answer_doc(s, (enum site_doc)i, out);
            return true;
        }
    }
    for (const struct page_file *f = page_files; f->path != NULL; f++) {
        if (strcmp(path, f->path) == 0) {
            out->type = f->type;
            buf_add(&out->body, f->data, f->n);
            return true;
        }
    }
    return false;
}

/* ---- the coordinator's side ---- */

void site_publish(struct site *s, struct serve *from, int64_t now_ns)
{
    if (s->live.at_ns != 0 && now_ns - s->live.at_ns < publish_ns) /* written by this thread only */
        return;
    json_t *workers = serve_workers_json(from, now_ns);
    pthread_mutex_lock(&s->mutex);
    json_t *old = s->live.workers;
    s->live.counts = *serve_counts(from);
    s->live.is_draining = serve_is_draining(from);
    s->live.is_in_trouble = serve_is_in_trouble(from);
    s->live.workers = workers;
    s->live.at_ns = now_ns;
    if (s->live.endpoint[0] == '\0')
        snprintf(s->live.endpoint, sizeof(s->live.endpoint), "%s", serve_endpoint(from));
    pthread_mutex_unlock(&s->mutex);
    json_decref(old);
}

static enum err_code start_keepers(struct site *s, struct err *e)
{
    for (int i = 0; i < 2; i++) {
        struct site_keeper *k = &s->keepers[i];
        k->site = s;
        k->is_slow = i == 1;
        TRY(store_open(s->o.db_path, STORE_READ, &k->store, e));
        if (pthread_create(&k->thread, NULL, keep, k) != 0)
            return err_set(e, ERR_BUSY, "cannot start a thread for the web page");
        k->is_started = true;
    }
    return ERR_OK;
}

enum err_code site_open(const struct site_options *o, struct site **out, struct err *e)
{
    struct site *s = xcalloc(1, sizeof(*s));
    pthread_condattr_t attr;
    s->o = *o;
    s->live.db_path = o->db_path;
    s->live.workers = json_array();
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->ending, &attr);
    pthread_condattr_destroy(&attr);
    const struct http_options ho = {
        .address = o->address, .is_open = o->is_open, .answer = answer, .arg = s};
    enum err_code rc = http_start(&ho, &s->http, e);
    if (rc == ERR_OK)
        rc = start_keepers(s, e);
    if (rc != ERR_OK) {
        site_close(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

void site_close(struct site *s)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->mutex);
    s->is_over = true;
    pthread_cond_broadcast(&s->ending);
    pthread_mutex_unlock(&s->mutex);
    for (int i = 0; i < 2; i++) {
        if (s->keepers[i].is_started)
            pthread_join(s->keepers[i].thread, NULL);
        store_close(s->keepers[i].store);
    }
    http_stop(s->http);
    for (int i = 0; i < N_DOCS; i++) {
        buf_release(&s->docs[i].text);
        buf_release(&s->docs[i].fingerprint);
    }
    json_decref(s->live.workers);
    pthread_cond_destroy(&s->ending);
    pthread_mutex_destroy(&s->mutex);
    xfree(s);
}

const char *site_url(const struct site *s)
{
    return http_url(s->http);
}

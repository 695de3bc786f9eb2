#include "worker/eval/ahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* WAITING ──▶ MAKING ──▶ READY or FAILED;  WAITING and READY ──▶ TAKEN */
enum piece_state { PIECE_WAITING, PIECE_MAKING, PIECE_READY, PIECE_FAILED, PIECE_TAKEN };

struct piece {
    struct eval_spec spec; /* strings in the arena */
    char *key;             /* eval_set_key */
    enum piece_state state;
    struct eval_set set; /* READY */
};

struct eval_ahead {
    struct arena arena;
    const char *dir;
    int64_t context;
    struct piece *pieces;
    int n;
    pthread_t thread;
    pthread_mutex_t mutex; /* over the states of pieces, and the sets of READY ones */
    pthread_cond_t changed;
    atomic_bool is_stopped;
};

/* ---- the thread ---- */

static bool is_stopped(void *arg)
{
    struct eval_ahead *a = arg;
    return atomic_load(&a->is_stopped);
}

static struct piece *begin_next(struct eval_ahead *a)
{
    struct piece *p = NULL;
    pthread_mutex_lock(&a->mutex);
    for (int i = 0; i < a->n && p == NULL; i++)
        if (a->pieces[i].state == PIECE_WAITING)
            p = &a->pieces[i];
    if (p != NULL)
        p->state = PIECE_MAKING;
    pthread_mutex_unlock(&a->mutex);
    return p;
}

static void end(struct eval_ahead *a, struct piece *p, const struct eval_set *set)
{
    pthread_mutex_lock(&a->mutex);
    p->state = set != NULL ? PIECE_READY : PIECE_FAILED;
    if (set != NULL)
        p->set = *set;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->mutex);
}

static void make(struct eval_ahead *a, struct piece *p, struct tok *tok)
{
    struct err e; /* the job that needs the set will tell */
    struct eval_set set;
    const struct eval_source src = {.spec = &p->spec,
                                    .tok = tok,
                                    .context = a->context,
                                    .progress = is_stopped,
                                    .progress_arg = a};
    const bool is_made = tok != NULL && eval_load(&src, &set, &e) == ERR_OK;
    end(a, p, is_made ? &set : NULL);
}

static void *run(void *arg)
{
    struct eval_ahead *a = arg;
    struct tok *tok = NULL;
    struct err e;
    if (tok_open(a->dir, &tok, &e) != ERR_OK)
        tok = NULL;
    for (struct piece *p; !is_stopped(a) && (p = begin_next(a)) != NULL;)
        make(a, p, tok);
    tok_close(tok);
    return NULL;
}

/* ---- for the owner ---- */

static void release(struct eval_ahead *a)
{
    for (int i = 0; i < a->n; i++) {
        if (a->pieces[i].state == PIECE_READY)
            eval_set_release(&a->pieces[i].set);
        xfree(a->pieces[i].key);
    }
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->mutex);
    arena_release(&a->arena);
    xfree(a);
}

struct eval_ahead *eval_ahead_start(const char *dir, int64_t context, const struct eval_spec *evals,
                                    int n)
{
    struct eval_ahead *a = xcalloc(1, sizeof(*a));
    a->dir = arena_strdup(&a->arena, dir);
    a->context = context;
    a->n = n;
    a->pieces = arena_array(&a->arena, (size_t)n, sizeof(*a->pieces));
    memset(a->pieces, 0, (size_t)n * sizeof(*a->pieces));
    for (int i = 0; i < n; i++) {
        a->pieces[i].spec = eval_spec_copy(&evals[i], &a->arena);
        a->pieces[i].key = eval_set_key(&evals[i]);
    }
    CHECK(pthread_mutex_init(&a->mutex, NULL) == 0 && pthread_cond_init(&a->changed, NULL) == 0);
    if (pthread_create(&a->thread, NULL, run, a) != 0) {
        release(a);
        return NULL;
    }
    return a;
}

static struct piece *find(struct eval_ahead *a, const struct eval_spec *ev)
{
    char *key = eval_set_key(ev);
    struct piece *p = NULL;
    for (int i = 0; a != NULL && i < a->n && p == NULL; i++)
        if (strcmp(a->pieces[i].key, key) == 0)
            p = &a->pieces[i];
    xfree(key);
    return p;
}

bool eval_ahead_take(struct eval_ahead *a, const struct eval_spec *ev, struct eval_set *out)
{
    struct piece *p = find(a, ev);
    if (p == NULL)
        return false;
    pthread_mutex_lock(&a->mutex);
    while (p->state == PIECE_MAKING)
        pthread_cond_wait(&a->changed, &a->mutex);
    const bool is_ready = p->state == PIECE_READY;
    if (is_ready)
        *out = p->set;
    p->state = PIECE_TAKEN;
    pthread_mutex_unlock(&a->mutex);
    return is_ready;
}

bool eval_ahead_has(struct eval_ahead *a, const struct eval_spec *ev)
{
    struct piece *p = find(a, ev);
    if (p == NULL)
        return false;
    pthread_mutex_lock(&a->mutex);
    const bool has = p->state < PIECE_FAILED;
    pthread_mutex_unlock(&a->mutex);
    return has;
}

void eval_ahead_stop(struct eval_ahead *a)
{
    if (a == NULL)
        return;
    atomic_store(&a->is_stopped, true);
    CHECK(pthread_join(a->thread, NULL) == 0);
    release(a);
}

#include "worker/model/window_reader.h"

#include <pthread.h>

#include "base/mem.h"

struct window_reader {
    window_read_fn read;
    void *arg;
    int64_t n_steps;
    int n_buffers;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    int64_t n_read, n_released;
    bool is_stopped, is_failed;
    struct err why;
};

static void *read_all(void *arg)
{
    struct window_reader *r = arg;
    pthread_mutex_lock(&r->mutex);
    for (int64_t step = 0; step < r->n_steps; step++) {
        while (!r->is_stopped && step >= r->n_released + r->n_buffers)
            pthread_cond_wait(&r->changed, &r->mutex);
        if (r->is_stopped)
            break;
        pthread_mutex_unlock(&r->mutex);
        struct err why;
        const enum err_code rc = r->read(r->arg, step, &why);
        pthread_mutex_lock(&r->mutex);
        r->n_read += rc == ERR_OK;
        r->is_failed = rc != ERR_OK;
        if (rc != ERR_OK)
            r->why = why;
        pthread_cond_broadcast(&r->changed);
        if (rc != ERR_OK)
            break;
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

enum err_code window_reader_start(window_read_fn read, void *arg, int64_t n_steps, int n_buffers,
                                  struct window_reader **out, struct err *e)
{
    struct window_reader *r = xcalloc(1, sizeof *r);
    r->read = read;
    r->arg = arg;
    r->n_steps = n_steps;
    r->n_buffers = n_buffers;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    const int status = pthread_create(&r->thread, NULL, read_all, r);
    if (status != 0) {
        xfree(r);
        return err_set_errno(e, status, "cannot start a thread that reads weights");
    }
    *out = r;
    return ERR_OK;
}

enum err_code window_reader_wait(struct window_reader *r, int64_t step, struct err *e)
{
    pthread_mutex_lock(&r->mutex);
    while (r->n_read <= step && !r->is_failed)
        pthread_cond_wait(&r->changed, &r->mutex);
    const bool is_there = r->n_read > step;
    if (!is_there)
        *e = r->why;
    pthread_mutex_unlock(&r->mutex);
    return is_there ? ERR_OK : e->code;
}

bool window_reader_has(struct window_reader *r, int64_t step)
{
    pthread_mutex_lock(&r->mutex);
    const bool has = r->n_read > step || r->is_failed;
    pthread_mutex_unlock(&r->mutex);
    return has;
}

void window_reader_release(struct window_reader *r, int64_t n)
{
    pthread_mutex_lock(&r->mutex);
    r->n_released = n;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void window_reader_stop(struct window_reader *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->mutex);
    r->is_stopped = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    xfree(r);
}

/* Reading a step: every tensor of it by several threads, a share of its lines each. One thread copies out of mapped pages at
 * 2 to 3 GB/s, a link to a GPU takes 50. */
#include <pthread.h>

#include "base/proc.h"
#include "worker/model/window.h"

enum { MAX_THREADS = 8, LINES_MIN = 64 };

struct share {
    const struct window *w;
    const struct weight_tensor *t;
    char *dst;
    int64_t first, n; /* lines */
    pthread_t thread;
    bool is_started;
    enum err_code code;
};

static enum err_code read_lines(const struct share *s, struct err *e)
{
    const struct ckpt_tensor part =
        ckpt_part(s->t->src, s->t->is_transposed ? 1 : 0, s->first, s->n);
    char *to = s->dst + s->first * s->t->cols * s->w->plan.stage_bytes;
    return window_read(s->w, &part, s->t->is_transposed, to, e);
}

static void *read_share(void *arg)
{
    struct share *s = arg;
    struct err untold; /* the whole tensor is read again for the words */
    s->code = read_lines(s, &untold);
    return NULL;
}

int window_fill_threads(const struct kern *k)
{
    const int cores = proc_cores();
    if (kern_get_info(k)->is_host || cores < 4)
        return 1; /* the cores compute */
    return cores / 2 < MAX_THREADS ? cores / 2 : MAX_THREADS;
}

enum err_code window_fill(const struct window *w, const struct weight_tensor *t, char *dst,
                          struct err *e)
{
    struct share shares[MAX_THREADS];
    const int n = w->n_fillers;
    bool is_read = true;
    CHECK(n <= MAX_THREADS);
    if (n == 1 || t->rows < (int64_t)n * LINES_MIN || t->src->n_dims != 2)
        return window_read(w, t->src, t->is_transposed, dst, e);
    for (int i = 0; i < n; i++) {
        const int64_t first = t->rows * i / n, end = t->rows * (i + 1) / n;
        struct share *s = &shares[i];
        *s = (struct share){.w = w, .t = t, .dst = dst, .first = first, .n = end - first};
        s->is_started = pthread_create(&s->thread, NULL, read_share, s) == 0;
        if (!s->is_started)
            read_share(s);
    }
    for (int i = 0; i < n; i++) {
        if (shares[i].is_started)
            pthread_join(shares[i].thread, NULL);
        is_read &= shares[i].code == ERR_OK;
    }
    return is_read ? ERR_OK : window_read(w, t->src, t->is_transposed, dst, e);
}

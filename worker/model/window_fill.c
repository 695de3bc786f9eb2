/* Reading a step: every tensor of it by several threads, a share of its lines each. One thread copies out of mapped pages at
 * 2 to 3 GB/s, a link to a GPU takes 50. */
#include "worker/model/window_fill.h"

#include <pthread.h>

#include "base/check.h"
#include "base/proc.h"

enum { MAX_THREADS = 8, LINES_MIN = 64 };

struct share {
    const struct window_fill *f;
    const struct ckpt_tensor *t;
    char *dst;
    int64_t first, n; /* lines */
    pthread_t thread;
    enum err_code code;
    bool is_transposed, is_started;
};

static void *read_share(void *arg)
{
    struct share *s = arg;
    struct err untold; /* the whole tensor is read again for the words */
    const struct ckpt_tensor part = ckpt_part(s->t, s->is_transposed, s->first, s->n);
    s->code = window_fill_part(s->f, &part, s->is_transposed, s->dst, &untold);
    return NULL;
}

int window_fill_threads(const struct kern *k)
{
    const int cores = proc_cores();
    if (kern_get_info(k)->is_host || cores < 4)
        return 1; /* the cores compute */
    return cores / 2 < MAX_THREADS ? cores / 2 : MAX_THREADS;
}

enum err_code window_fill_part(const struct window_fill *f, const struct ckpt_tensor *t,
                               bool is_transposed, void *dst, struct err *e)
{
    return f->stage_bytes == 2 ? ckpt_read_f16(f->ckpt, t, is_transposed, dst, NULL, e)
                               : ckpt_read_f32(f->ckpt, t, is_transposed, dst, e);
}

enum err_code window_fill_tensor(const struct window_fill *f, const struct ckpt_tensor *t,
                                 bool is_transposed, char *dst, struct err *e)
{
    struct share shares[MAX_THREADS];
    const int n = f->n_threads;
    const int64_t lines = t->n_dims == 2 ? t->shape[is_transposed ? 1 : 0] : 0;
    bool is_read = true;
    CHECK(n <= MAX_THREADS);
    if (n == 1 || lines < (int64_t)n * LINES_MIN)
        return window_fill_part(f, t, is_transposed, dst, e);
    for (int i = 0; i < n; i++) {
        const int64_t first = lines * i / n, end = lines * (i + 1) / n;
        struct share *s = &shares[i];
        *s = (struct share){.f = f,
                            .t = t,
                            .is_transposed = is_transposed,
                            .dst = dst + first * t->shape[is_transposed ? 0 : 1] * f->stage_bytes,
                            .first = first,
                            .n = end - first};
        s->is_started = pthread_create(&s->thread, NULL, read_share, s) == 0;
        if (!s->is_started)
            read_share(s);
    }
    for (int i = 0; i < n; i++) {
        if (shares[i].is_started)
            pthread_join(shares[i].thread, NULL);
        is_read &= shares[i].code == ERR_OK;
    }
    return is_read ? ERR_OK : window_fill_part(f, t, is_transposed, dst, e);
}

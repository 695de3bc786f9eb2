/* Answers on their way to the caller's memory: a copy to pinned memory is queued behind the kernels that make them, and
 * spread over the caller's arrays once a mark behind it was reached. So the next batch's kernels are queued while the
 * answers of this one are still being computed. */
#include <string.h>

#include "kernels/cuda/cuda_util.cuh"

static constexpr int OPEN = 32; /* answers that may be on their way; one more waits for all */

/* One answer. The pinned memory stays with its place and grows to the largest so far. */
struct answer {
    void *host;
    size_t bytes;
    struct cuda_answer to;
};

/* Both lists are rings: places behind each other from `first` on, `n` of them. */
struct cuda_answers {
    struct answer answer[OPEN];
    int first, n;
    cudaEvent_t event[KERN_MARKS];
    int64_t answers_before[KERN_MARKS]; /* answers ever queued when the mark was set */
    int64_t n_marks, n_waited;          /* ever */
    int64_t n_queued, n_given;          /* ever */
};

enum err_code cuda_answers_open(struct cuda_kern *c, struct err *e)
{
    c->answers = (struct cuda_answers *)xcalloc(1, sizeof *c->answers);
    for (int i = 0; i < KERN_MARKS; i++)
        CUDA_TRY(cudaEventCreateWithFlags(&c->answers->event[i], cudaEventDisableTiming),
                 "an event of the GPU");
    return ERR_OK;
}

void cuda_answers_close(struct cuda_kern *c)
{
    if (c->answers == NULL)
        return;
    for (int i = 0; i < KERN_MARKS; i++)
        if (c->answers->event[i] != NULL)
            (void)cudaEventDestroy(c->answers->event[i]);
    for (int i = 0; i < OPEN; i++)
        (void)cudaFreeHost(c->answers->answer[i].host);
    xfree(c->answers);
    c->answers = NULL;
}

/* Gives everything up to the answer of this number; the stream is past them. */
static void give_up_to(struct cuda_answers *all, int64_t end)
{
    for (; all->n_given < end; all->n_given++) {
        const struct answer *a = &all->answer[all->n_given % OPEN];
        a->to.give(a->host, &a->to);
    }
}

enum err_code cuda_answers_sync(struct cuda_kern *c, struct err *e)
{
    CUDA_TRY(cudaStreamSynchronize(c->stream), "waiting for the GPU");
    give_up_to(c->answers, c->answers->n_queued);
    c->answers->n_waited = c->answers->n_marks;
    return ERR_OK;
}

enum err_code cuda_answer_later(struct cuda_kern *c, const void *src, size_t bytes,
                                const struct cuda_answer *to, struct err *e)
{
    static const char what[] = "answers from the GPU";
    struct cuda_answers *all = c->answers;
    if (all->n_queued - all->n_given == OPEN)
        TRY(cuda_answers_sync(c, e));
    struct answer *a = &all->answer[all->n_queued % OPEN];
    if (a->bytes < bytes) {
        (void)cudaFreeHost(a->host);
        a->host = NULL;
        a->bytes = 0;
        CUDA_TRY(cudaMallocHost(&a->host, bytes), what);
        a->bytes = bytes;
    }
    CUDA_TRY(cudaMemcpyAsync(a->host, src, bytes, cudaMemcpyDeviceToHost, c->stream), what);
    a->to = *to;
    all->n_queued++;
    return ERR_OK;
}

enum err_code cuda_mark(struct kern *k, int64_t *mark, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct cuda_answers *all = c->answers;
    CHECK(all->n_marks - all->n_waited < KERN_MARKS);
    const int at = (int)(all->n_marks % KERN_MARKS);
    CUDA_TRY(cudaEventRecord(all->event[at], c->stream), "a mark on the GPU's stream");
    all->answers_before[at] = all->n_queued;
    *mark = all->n_marks++;
    return ERR_OK;
}

enum err_code cuda_wait(struct kern *k, int64_t mark, struct err *e)
{
    struct cuda_answers *all = cuda_of(k)->answers;
    CHECK(mark < all->n_marks);
    if (mark < all->n_waited) /* by a sync */
        return ERR_OK;
    const int at = (int)(mark % KERN_MARKS);
    CUDA_TRY(cudaEventSynchronize(all->event[at]), "waiting for the GPU");
    give_up_to(all, all->answers_before[at]);
    all->n_waited = mark + 1;
    return ERR_OK;
}

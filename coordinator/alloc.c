#include "coordinator/alloc.h"

/* A worker that fails later than this has worked: its end says nothing about the next one's start. */
static const int64_t start_s = 60;

void alloc_release(struct alloc *a)
{
    xfree(a->v);
    *a = (struct alloc){0};
}

static bool is_over(enum slurm_phase phase)
{
    return phase == SLURM_ENDED || phase == SLURM_TAKEN || phase == SLURM_BROKEN;
}

static const struct slurm_job *find(const struct slurm_job *v, int n, int64_t id)
{
    for (int i = 0; i < n; i++)
        if (v[i].id == id)
            return &v[i];
    return NULL;
}

static void add(struct alloc *a, const struct slurm_job *job)
{
    if (a->n == a->cap) {
        a->cap = a->cap > 0 ? 2 * a->cap : 16;
        a->v = xrealloc(a->v, (size_t)a->cap * sizeof(*a->v));
    }
    a->v[a->n++] = *job;
}

/* A worker that leaves idle has been without a job for idle_s. If work was waiting all the time that it was there, and nothing
 * got done, it cannot do what is waiting. */
static enum alloc_verdict judge(const struct alloc *a, const struct slurm_job *job)
{
    switch (job->phase) {
    case SLURM_BROKEN:
        return job->run_s < start_s ? ALLOC_FAILED : ALLOC_LEFT;
    case SLURM_TAKEN:
        return ALLOC_TAKEN;
    case SLURM_ENDED:
        return job->run_s >= a->limits.idle_s && a->stuck_s >= job->run_s ? ALLOC_USELESS
                                                                          : ALLOC_LEFT;
    case SLURM_QUEUED:
    case SLURM_RUNNING:
    case SLURM_LEAVING:
        break;
    }
    return ALLOC_LEFT;
}

static void note_end(struct alloc *a, struct alloc_end *end)
{
    end->verdict = judge(a, &end->job);
    if (end->verdict == ALLOC_FAILED || end->verdict == ALLOC_USELESS)
        a->failed_starts++;
    else if (end->verdict == ALLOC_LEFT)
        a->failed_starts = 0;
    if (a->failed_starts >= ALLOC_MAX_FAILED_STARTS)
        a->is_paused = true;
}

void alloc_observe(struct alloc *a, const struct slurm_job *seen, int n_seen,
                   const struct alloc_work *work, struct arena *arena, struct alloc_end **ends,
                   int *n_ends)
{
    int n_kept = 0;
    *ends = arena_array(arena, (size_t)a->n + 1, sizeof(**ends));
    *n_ends = 0;
    bool is_stuck = work->n_pending > 0 && work->n_finished == a->n_finished;
    a->stuck_s = is_stuck ? a->stuck_s + work->passed_s : 0;
    a->n_finished = work->n_finished;
    for (int i = 0; i < a->n; i++) {
        const struct slurm_job *now = find(seen, n_seen, a->v[i].id);
        if (now != NULL && !is_over(now->phase)) {
            a->v[n_kept++] = *now;
            continue;
        }
        /* Slurm forgets an ended job after minutes; one that is gone was not looked at in time, and nobody knows. */
        struct alloc_end *end = &(*ends)[(*n_ends)++];
        end->job = now != NULL ? *now : a->v[i];
        if (now == NULL)
            end->job.phase = SLURM_TAKEN;
        note_end(a, end);
    }
    a->n = n_kept;
    for (int i = 0; i < n_seen; i++) /* those of an earlier process of ours, and requeued ones */
        if (!is_over(seen[i].phase) && find(a->v, n_kept, seen[i].id) == NULL)
            add(a, &seen[i]);
}

int alloc_count(const struct alloc *a, enum slurm_phase phase)
{
    int n = 0;
    for (int i = 0; i < a->n; i++)
        n += a->v[i].phase == phase;
    return n;
}

int alloc_to_submit(const struct alloc *a, int64_t n_pending)
{
    int64_t n_queued = alloc_count(a, SLURM_QUEUED);
    int64_t n_alive = n_queued + alloc_count(a, SLURM_RUNNING);
    int64_t n = a->limits.backlog - n_queued;
    if (a->limits.max - n_alive < n)
        n = a->limits.max - n_alive;
    if (n_pending - n_queued < n) /* no more of them than there are jobs waiting */
        n = n_pending - n_queued;
    return a->is_paused || n < 0 ? 0 : (int)n;
}

bool alloc_is_queue_idle(const struct alloc *a, int64_t n_pending)
{
    return n_pending == 0 && alloc_count(a, SLURM_QUEUED) > 0;
}

void alloc_submitted(struct alloc *a, int64_t id)
{
    a->failed_submits = 0;
    add(a, &(struct slurm_job){.id = id, .phase = SLURM_QUEUED, .state = "PENDING"});
}

void alloc_submit_failed(struct alloc *a)
{
    if (++a->failed_submits >= ALLOC_MAX_FAILED_SUBMITS)
        a->is_paused = true;
}

void alloc_resume(struct alloc *a)
{
    a->is_paused = false;
    a->failed_submits = a->failed_starts = 0;
}

/* How long the GPU has nothing to do while one worker goes through the jobs of a spec on cuda:0: the driver's own record
 * (CUPTI) of when kernels, copies and fills ran, against the time from the end of the first configuration, which reads the
 * checkpoint, to the end of the last. Prints one JSON line; bench_gpu_idle.sh makes the checkpoint and the spec.
 *   bench_cuda_idle SPEC.yaml */
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "schema/sweep.h"
#include "worker/runner.h"

/* Record types that CUDA 12 and 13 both name; later ones only add fields behind these. */
struct span {
    uint64_t start, end; /* ns of CUPTI's clock */
};

/* What CUPTI's thread fills; read when everything was flushed. */
static struct {
    struct span *v;
    size_t n, cap;
} busy;

static void cupti_must(CUptiResult status, const char *what)
{
    const char *text = "";
    if (status == CUPTI_SUCCESS)
        return;
    (void)cuptiGetResultString(status, &text);
    (void)fprintf(stderr, "benchmark: %s: %s\n", what, text);
    exit(1);
}

static void CUPTIAPI buffer_requested(uint8_t **buffer, size_t *size, size_t *max_records)
{
    const size_t bytes = (size_t)8 << 20, alignment = 8;
    *buffer = aligned_alloc(alignment, bytes);
    CHECK(*buffer != NULL);
    *size = bytes;
    *max_records = 0;
}

static void note(uint64_t start, uint64_t end)
{
    if (busy.n == busy.cap) {
        busy.cap = busy.cap > 0 ? 2 * busy.cap : (size_t)1 << 16;
        busy.v = xrealloc(busy.v, busy.cap * sizeof(*busy.v));
    }
    busy.v[busy.n++] = (struct span){start, end};
}

static void CUPTIAPI buffer_completed(CUcontext context, uint32_t stream, uint8_t *buffer,
                                      size_t size, size_t valid)
{
    CUpti_Activity *record = NULL;
    (void)context;
    (void)stream;
    (void)size;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            const CUpti_ActivityKernel9 *k = (const void *)record;
            note(k->start, k->end);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            const CUpti_ActivityMemcpy5 *m = (const void *)record;
            note(m->start, m->end);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset4 *m = (const void *)record;
            note(m->start, m->end);
        }
    }
    free(buffer);
}

static void recording_start(void)
{
    static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                               CUPTI_ACTIVITY_KIND_MEMCPY,
                                               CUPTI_ACTIVITY_KIND_MEMSET};
    cupti_must(cuptiActivityRegisterCallbacks(buffer_requested, buffer_completed), "callbacks");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        cupti_must(cuptiActivityEnable(kinds[i]), "recording");
}

static uint64_t now(void)
{
    uint64_t t = 0;
    cupti_must(cuptiGetTimestamp(&t), "clock");
    return t;
}

static int compare_spans(const void *pa, const void *pb)
{
    const struct span *a = pa, *b = pb;
    return (a->start > b->start) - (a->start < b->start);
}

/* Part of [from, to) in which nothing ran; *longest: the longest such time. */
static double idle_seconds(uint64_t from, uint64_t to, double *longest)
{
    uint64_t idle = 0, most = 0, done = from;
    qsort(busy.v, busy.n, sizeof(*busy.v), compare_spans);
    for (size_t i = 0; i <= busy.n; i++) {
        const struct span s = i < busy.n ? busy.v[i] : (struct span){to, to};
        const uint64_t start = s.start < to ? s.start : to;
        if (start > done) {
            idle += start - done;
            most = start - done > most ? start - done : most;
        }
        done = s.end > done ? s.end : done;
    }
    *longest = (double)most * 1e-9;
    return (double)idle * 1e-9;
}

int main(int argc, char **argv)
{
    struct arena specs = {0};
    struct sweep sw;
    struct runner *r = NULL;
    struct err e;
    uint64_t from = 0, to = 0;
    if (argc != 2) {
        (void)fprintf(stderr, "usage: bench_cuda_idle SPEC.yaml\n");
        return 2;
    }
    bench_must(sweep_load(argv[1], &specs, &sw, &e), &e);
    recording_start();
    bench_must(runner_new(&(struct runner_options){.device = "cuda:0"}, &r, &e), &e);
    for (int64_t i = 0; i < sw.n_jobs; i++) {
        const struct sweep_job *j = &sw.jobs[i];
        const struct job job = {.model = sw.models[j->model].ref,
                                .config = sw.configs[j->config],
                                .eval = sw.evals[j->eval].spec};
        struct arena a = {0};
        struct job_result result = {0};
        if (from == 0 && i > 0 && j->config != sw.jobs[0].config)
            from = now();
        bench_must(runner_run(r, &job, &result, &a, &e), &e);
        arena_release(&a);
    }
    to = now();
    const struct runner_stats stats = *runner_get_stats(r);
    cupti_must(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "flushing");
    double longest;
    const double idle = idle_seconds(from, to, &longest), all = (double)(to - from) * 1e-9;
    printf(
        "{\"name\": \"gpu-idle\", \"value\": %.4f, \"unit\": \"of the time\", \"limit\": \"at "
        "most\", "
        "\"limit_value\": 0.03, \"seconds\": %.2f, \"idle_seconds\": %.3f, \"longest_ms\": %.2f, "
        "\"configurations\": %lld, \"jobs\": %lld, \"checkpoint_loads\": %lld, \"operations\": "
        "%zu}\n",
        idle / all, all, idle, longest * 1e3, (long long)stats.configurations,
        (long long)stats.jobs, (long long)stats.checkpoint_loads, busy.n);
    runner_free(r);
    arena_release(&specs);
    xfree(busy.v);
    return 0;
}

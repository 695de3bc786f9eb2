/* Small jobs of the demo's own evaluations, for tests of the runner. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_DEMO_JOB_H
#define ISOBIT_TESTS_SUPPORT_DEMO_JOB_H

#include "schema/job.h"
#include "tests/support/support.h"

/* The first `limit` items of the demo's data, on the checkpoint in `dir`, which is borrowed. Paths of the data stay in the
 * arena: those of support_source are soon overwritten. */
static inline struct job demo_job(const char *dir, const struct config *c, enum task task,
                                  int64_t limit, struct arena *a)
{
    static const char *const data[TASK_COUNT] = {
        [TASK_perplexity] = "sweeps/demo/corpus.jsonl",
        [TASK_lambada] = "sweeps/demo/tasks/lambada.jsonl",
        [TASK_winogrande] = "sweeps/demo/tasks/winogrande.jsonl",
        [TASK_hellaswag] = "sweeps/demo/tasks/hellaswag.jsonl",
        [TASK_piqa] = "sweeps/demo/tasks/piqa.jsonl",
        [TASK_weight_std] = "sweeps/demo/corpus.jsonl",
    };
    struct job j = {.config = *c,
                    .model = {.family = "f", .size = "s", .name = dir, .path = dir},
                    .eval = {.name = task_label(task),
                             .task = task,
                             .data = data[task],
                             .data_path = arena_strdup(a, support_source(data[task])),
                             .limit = limit,
                             .method = METHOD_ROLLING}};
    config_normalize(&j.config);
    return j;
}

#endif

/* Any bytes as a sweep spec: an error or a sweep whose jobs all have keys, never a crash, a leak or a long wait. */
#include <stdint.h>

#include "base/check.h"
#include "schema/sweep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct sweep sw;
    struct err e;
    if (sweep_parse((struct str){(const char *)data, size}, "spec.yaml", &a, &sw, &e) == ERR_OK) {
        CHECK(sw.n_jobs > 0);
        for (int64_t i = 0; i < sw.n_jobs && i < 50; i++) {
            const struct sweep_job *j = &sw.jobs[i];
            CHECK(config_validate(&sw.configs[j->config], &e) == ERR_OK);
            CHECK(job_key(&sw.models[j->model].ref, &sw.configs[j->config], &sw.evals[j->eval].spec,
                          &a)[0] == 'v');
        }
    } else {
        CHECK(e.code == ERR_FORMAT);
    }
    arena_release(&a);
    return 0;
}

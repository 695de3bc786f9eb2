/* What Slurm's programs print: any bytes are an answer or an error. */
#include "coordinator/slurm_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct arena a = {0};
    struct slurm_job *v = NULL;
    struct slurm_ending ending;
    struct err e;
    int64_t id = 0;
    int n = 0;
    if (slurm_parse_queue(text, &a, &v, &n, &e) == ERR_OK)
        for (int i = 0; i < n; i++)
            CHECK(v[i].id > 0 && v[i].run_s >= 0 && v[i].state != NULL);
    if (slurm_parse_submitted(text, &id, &e) == ERR_OK)
        CHECK(id > 0);
    if (slurm_parse_ending(text, &ending, &e) == ERR_OK)
        CHECK(ending.status >= 0 && ending.status <= 255);
    arena_release(&a);
    return 0;
}

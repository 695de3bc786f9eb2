/* Memory that grows and stays, and the number of a thread. */
#include <omp.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"

enum err_code cpu_scratch_get(struct cpu_scratch *s, size_t bytes, void **out, struct err *e)
{
    if (s->bytes < bytes) {
        cpu_scratch_release(s);
        TRY(big_alloc(bytes, "scratch memory of a kernel", &s->p, e));
        s->bytes = bytes;
    }
    *out = s->p;
    return ERR_OK;
}

void cpu_scratch_release(struct cpu_scratch *s)
{
    big_free(s->p, s->bytes);
    *s = (struct cpu_scratch){0};
}

int cpu_thread(void)
{
    return omp_get_thread_num();
}

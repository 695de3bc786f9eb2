/* Facts that all parts of the runner ask for: its counters, which jobs are alike, the 16-bit
 * configuration. */
#include "worker/runner_impl.h"

#include <string.h>

const struct runner_stats *runner_get_stats(const struct runner *r)
{
    return &r->stats;
}

enum wire_lack runner_lacks(const struct runner *r)
{
    return r->lacks;
}

bool runner_tell_progress(void *arg)
{
    struct runner *r = arg;
    r->counter++;
    return r->options.progress != NULL && r->options.progress(r->options.progress_arg, r->counter);
}

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

char *runner_model_key(const struct model_ref *m)
{
    return xasprintf("%s|%s|%s", or_empty(m->path), or_empty(m->hub), or_empty(m->revision));
}

bool runner_is_like(const struct job *a, const struct job *b)
{
    return strcmp(or_empty(a->model.path), or_empty(b->model.path)) == 0 &&
           strcmp(or_empty(a->model.hub), or_empty(b->model.hub)) == 0 &&
           strcmp(or_empty(a->model.revision), or_empty(b->model.revision)) == 0 &&
           a->config.compute == b->config.compute;
}

struct config runner_baseline(const struct runner *r)
{
    struct config c = config_default();
    c.k = 16;
    c.compute = r->compute;
    config_normalize(&c);
    return c;
}

bool runner_is_compared(const struct config *c, enum task t)
{
    return t == TASK_perplexity && c->k <= 8 && !c->quant_head && !c->quant_embed;
}

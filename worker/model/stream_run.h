/* One pass on its way, shared by stream_pass.c and stream_answers.c. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_RUN_H
#define ISOBIT_WORKER_MODEL_STREAM_RUN_H

#include "worker/model/model_forward.h"
#include "worker/model/model_stream.h"
#include "worker/model/stream_config.h"
#include "worker/model/stream_impl.h"

/* Where a unit's activations are between two steps: in the work space for the first one, else in memory of its own. */
struct stream_place {
    struct workspace ws;
    int64_t first; /* the first unit with the same sequences; it holds the list */
    struct kern_seq *seqs;
    struct model_rows rows;
};

/* One pass on its way. */
struct stream_run {
    struct model *m;
    struct stream *s;
    const struct stream_pass *p;
    struct workspace base;       /* the model's own */
    struct stream_place *places; /* [n_units] */
    bool has_outliers;
};

/* Puts the unit's configuration in force for the projections around the layers; *config: the one that is, -1 at first. */
static inline enum err_code stream_small_for(const struct stream_run *r, int64_t unit, int *config,
                                             struct err *e)
{
    const int wanted = r->p->units[unit].config;
    if (*config != wanted)
        TRY(stream_apply_small(r->m, &r->p->configs[wanted], e));
    *config = wanted;
    return ERR_OK;
}

/* To be called when a piece of work is done. Errors: ERR_STOPPED. */
static inline enum err_code stream_step_done(const struct stream_run *r, struct err *e)
{
    if (r->p->progress != NULL && r->p->progress(r->p->arg))
        return err_set(e, ERR_STOPPED, "stopped during a pass over the layers");
    return ERR_OK;
}

#endif

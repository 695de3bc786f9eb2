/* What is known of a pass before it runs: its tokens, its bytes, and what its configurations are. */
#include "worker/model/model_stream.h"

#include "worker/model/stream_config.h"

int64_t model_stream_tokens(const struct model *m, int64_t n_tokens)
{
    return model_step_rows(m, n_tokens);
}

int64_t model_stream_bytes(const struct model *m, int64_t n_passes, bool has_outliers)
{
    int64_t bytes = 0, columns = 0;
    for (int i = 0; i < m->weights.n_tensors; i++) {
        bytes += n_passes * ckpt_stored_bytes(m->weights.tensors[i].src);
        if (m->weights.tensors[i].role == ROLE_EMBED && !m->wiring.has_projection)
            columns = ckpt_stored_bytes(m->weights.tensors[i].src);
    }
    return has_outliers && !m->stream->keys.has_embed ? bytes + columns : bytes;
}

enum err_code model_stream_check(const struct model *m, const struct config *c, struct bits *bits,
                                 struct err *e)
{
    char whole[32];
    if (c->k <= 8 && (c->quant_head || c->quant_embed))
        return err_set(
            e, ERR_NOMEM,
            "%s: %s needs the whole checkpoint on the device, %s; it was to be run layer "
            "by layer: raise --memory",
            ckpt_dir(m->ckpt), c->quant_head ? "quant_head" : "quant_embed",
            fmt_bytes((double)m->plan.resident_bytes, whole));
    if (c->k == 32 && m->plan_stored.stage_bytes != 4)
        return err_set(e, ERR_NOMEM,
                       "%s: weights as stored (k 32) need more than the %s of the budget; raise "
                       "--memory",
                       ckpt_dir(m->ckpt), fmt_bytes((double)m->plan.budget, whole));
    stream_bits(m, c, bits);
    return ERR_OK;
}

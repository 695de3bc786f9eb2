/* Configurations in a window: what puts one in force for the step in it, ranks of outliers, and its
 * bits. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_CONFIG_H
#define ISOBIT_WORKER_MODEL_STREAM_CONFIG_H

#include "worker/model/stream_impl.h"

/* Puts a configuration in force for the step in the window, or for the projections around the layers. *is_cast: the compute
 * copy's vectors are at their values already. */
MUST_USE enum err_code stream_apply(struct model *m, const struct config *c,
                                    struct quant_cache *cache, bool *is_cast, struct err *e);
MUST_USE enum err_code stream_apply_small(struct model *m, const struct config *c, struct err *e);
struct quant_cache *stream_cache_new(const struct model *m); /* of the step in the window */
/* Keys of the lines of the step in the window; of the embedding, in front of the first pass that asks. */
MUST_USE enum err_code stream_keep_keys(struct model *m, struct err *e);
MUST_USE enum err_code stream_embed_keys(struct model *m, struct err *e);

/* Quantizes the linear layers of the step in the window, into its compute copy or the whole model's. */
MUST_USE enum err_code stream_quantize_step(struct model *m, const struct config *c,
                                            struct quant_cache *cache, struct err *e);

/* Bits of a configuration, by the rules alone. */
void stream_bits(const struct model *m, const struct config *c, struct bits *bits);

#endif

/* State of a model that runs in passes, shared by the files that make it up: model_stream.c (a pass from front to end),
 * stream_config.c (configurations in the window, ranks), stream_tables.c (rows of embeddings, the head),
 * stream_answers.c (from the last layer to answers). Private. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_IMPL_H
#define ISOBIT_WORKER_MODEL_STREAM_IMPL_H

#include "worker/model/model_impl.h"
#include "worker/model/model_stream.h"
#include "worker/model/window.h"

/* Rank keys of lines whose tensors have passed (quantization spec, section 6): those of the roles that rank others. Of FFN-2
 * both parities of layers are kept, since the layer behind asks for those of the one before. */
struct rank_keys {
    unsigned __int128 *embed, *qkv, *out, *ffn1, *ffn2[2];
    bool has_embed;
};

struct stream {
    struct window window;
    struct weight_view view;
    struct rank_keys keys;
    void *kept; /* activations of units, device */
    int64_t kept_bytes;
    void *picked; /* rows of embeddings on their way, host */
    size_t picked_bytes;
    int64_t bytes_read; /* beside the window's */
};

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

void stream_release(struct model *m);
MUST_USE enum err_code stream_step_done(struct stream_run *r, struct err *e);
/* Head and answers of all units, behind the last layer (stream_answers.c). */
MUST_USE enum err_code stream_answers(struct stream_run *r, struct err *e);

/* Puts a configuration in force for the step in the window, or for the projections around the layers. *is_cast: the compute
 * copy's vectors are at their values already. */
MUST_USE enum err_code stream_apply(struct model *m, const struct config *c,
                                    struct quant_cache *cache, bool *is_cast, struct err *e);
MUST_USE enum err_code stream_apply_small(struct model *m, const struct config *c, struct err *e);
struct quant_cache *stream_cache_new(const struct model *m); /* of the step in the window */
/* Keys of the lines of the step in the window; of the embedding, in front of the first pass that asks. */
MUST_USE enum err_code stream_keep_keys(struct model *m, struct err *e);
MUST_USE enum err_code stream_embed_keys(struct model *m, struct err *e);

/* Rows of embeddings and positions that lists.ids and positions name go to the work space, and the lists then count them
 * through. `rows` of them. */
MUST_USE enum err_code stream_pick(struct model *m, int64_t T, struct err *e);
/* Rows [first, first + n) of the head, in the window's block. */
MUST_USE enum err_code stream_head(struct model *m, int64_t first, int64_t n, struct err *e);

/* Quantizes the linear layers of the step in the window, into its compute copy or the whole model's. */
MUST_USE enum err_code stream_quantize_step(struct model *m, const struct config *c,
                                            struct quant_cache *cache, struct err *e);

/* Bits of a configuration, by the rules alone. */
void stream_bits(const struct model *m, const struct config *c, struct bits *bits);

/* Host-master (model_hosted.c): opening, a configuration, spreads of units. */
bool model_is_hosted(const struct model *m);
MUST_USE enum err_code hosted_load(struct model *m, struct err *e);
MUST_USE enum err_code hosted_apply(struct model *m, const struct config *c, struct err *e);
MUST_USE enum err_code hosted_spreads(struct model *m, struct model_magnitudes *g, struct err *e);

#endif

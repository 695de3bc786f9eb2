/* struct stream: what a model has besides when its weights pass through a window, be it in passes
 * over the layers or under each configuration. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_IMPL_H
#define ISOBIT_WORKER_MODEL_STREAM_IMPL_H

#include "worker/model/model_impl.h"
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

#endif

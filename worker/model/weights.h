/* The weights of one checkpoint on a device: every tensor once as fp16 (the master, read-only after loading) and
 * once in the compute type (rewritten per configuration), at the same element offsets of two allocations. Knows
 * tensors and shapes, not what they are for. Private to worker/model. Thread: one at a time. */
#ifndef ISOBIT_WORKER_MODEL_WEIGHTS_H
#define ISOBIT_WORKER_MODEL_WEIGHTS_H

#include "worker/ckpt/ckpt.h"
#include "worker/model/family.h"

/* One tensor of the files, in canonical orientation. */
struct weight_tensor {
    const struct ckpt_tensor *src;
    enum role role;
    int layer; /* 0 for global roles */
    int64_t rows, cols;
    int64_t at; /* element offset in both allocations */
    bool is_transposed;
};

/* A role's buffer: one or several tensors behind each other. rows 0: the checkpoint has none. */
struct weight_slot {
    int64_t at, rows, cols;
};

/* Where the weights are that are on the device now, when not all of them are (window.h). */
struct weight_view {
    const uint16_t *master[ROLE_COUNT];
    void *compute[ROLE_COUNT];
};

struct weights {
    struct kern *k;    /* kept */
    struct ckpt *ckpt; /* kept */
    struct weight_tensor
        *tensors; /* global ones first, then layer by layer in the family's order */
    int n_tensors;
    struct weight_slot *slots; /* [ROLES_GLOBAL + n_layers * ROLES_PER_LAYER] */
    int64_t n_elements;        /* of each allocation, with padding */
    int64_t n_params;
    int64_t flushed;  /* became 0 in fp16 */
    uint16_t *master; /* NULL until weights_load */
    void *compute;
    struct weight_view *view; /* NULL, or what stands in for master and compute; kept */
    int act_bytes;
};

/* Matches names and shapes with the family's table; reads nothing but a head that config.json calls tied: is_tied becomes
 * false when its values are others than the embedding's. `w` is released by the caller in any case. Errors: ERR_FORMAT
 * naming tensor, found and expected. */
MUST_USE enum err_code weights_plan(const struct family_ops *ops, struct wiring *wiring,
                                    struct ckpt *ckpt, struct kern *k, struct weights *w,
                                    struct err *e);
/* Reads every tensor into the master. Errors: ERR_NUMERIC; ERR_NOMEM. */
MUST_USE enum err_code weights_load(struct weights *w, struct err *e);
void weights_release(struct weights *w);

/* Compute type from the master, everything. */
MUST_USE enum err_code weights_cast_all(struct weights *w, struct err *e);
/* Everything as stored in the files, which are read again. */
MUST_USE enum err_code weights_read_stored(struct weights *w, struct err *e);

const struct weight_slot *weights_slot(const struct weights *w, enum role role, int layer);
bool weights_is_per_layer(enum role role);
/* Of a layer's products or the projections: what a sweep quantizes. */
bool weights_is_linear(enum role role);
/* The first one of the role; NULL: the checkpoint has none. */
const struct weight_tensor *weights_tensor(const struct weights *w, enum role role);
/* Pointers into the allocations, or of the view; NULL for an empty slot. */
const void *weights_compute(const struct weights *w, enum role role, int layer);
const uint16_t *weights_master(const struct weights *w, enum role role, int layer);
void *weights_compute_at(const struct weights *w, int64_t at);

#endif

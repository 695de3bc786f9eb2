/* How a checkpoint runs within a memory budget: resident; with its master in host memory and one compute copy on the device; or
 * layer by layer in passes (docs/STREAMING.md). And what that costs. A pure function of shapes, device and budget; a run in streaming mode announces what is planned here and then
 * counts. */
#ifndef ISOBIT_WORKER_MODEL_PLAN_H
#define ISOBIT_WORKER_MODEL_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* X(id, "label") */
#define PLAN_MODE_LIST(X)                                                                          \
    X(RESIDENT, "resident") X(HOST_MASTER, "host-master") X(STREAMING, "streaming")
#define X(id, label) PLAN_##id,
enum plan_mode { PLAN_MODE_LIST(X) PLAN_MODES };
#undef X
const char *plan_mode_label(enum plan_mode m);

enum { PLAN_PARTS = 4 }; /* of a layer: its matrices with what goes with them */

/* A checkpoint's sizes; weights are counted in elements, buffers padded as they lie in memory. */
struct plan_shape {
    int n_layers;
    int64_t part[PLAN_PARTS];
    int64_t total;                /* of all buffers */
    int64_t small;                /* norms and projections in front of and behind the layers */
    int64_t head_rows, head_cols; /* vocabulary x width */
    int64_t stored_bytes;         /* of all tensors in the files */
    int64_t batch_tokens;
    int64_t row_between, row_within; /* bytes a token keeps between two layers, between two parts */
    int64_t work_bytes;              /* what a batch works in; not counted against a budget */
    double n_params, n_products;     /* weights of a token's products; the head's come on top */
};

struct plan_device {
    int64_t budget; /* --memory; 0: memory_bytes less what a batch works in and `reserve` */
    int64_t memory_bytes, reserve;
    int64_t host_bytes; /* of the host for masters; 0: the device is the host */
    int act_bytes;
    int64_t head_step;      /* of kern_info */
    int64_t head_row_bytes; /* kept for a row and a target between parts of a head */
    int64_t head_chunk;     /* rows of a head on their way at a time */
    double flops_per_s, read_per_s, link_per_s;
};

struct plan {
    enum plan_mode mode;
    int64_t budget;         /* that was in force */
    int64_t resident_bytes; /* what the whole checkpoint takes */
    int64_t master_bytes;   /* host-master: on the host */
    /* Host-master and streaming: */
    int n_masters;       /* 2: reading and computing overlap */
    bool is_cut_within;  /* a step is a part of a layer */
    int stage_bytes;     /* of an element of a master: 2, or 4 for weights as stored */
    int64_t head_rows;   /* of the head at a time; all of them when it fits */
    int64_t head_chunk;  /* of these on their way at a time */
    int64_t block_bytes; /* masters and compute copy of a step; at the end of a pass the head */
    int64_t small_bytes;
    int64_t kept_bytes; /* left for activations of units; one more unit lives where a batch works */
    int64_t row_bytes;  /* that a token of a unit keeps */
    int64_t pass_bytes; /* read from the files */
};

/* Errors: ERR_NOMEM with the least budget that would do, `what` in front. `stage_bytes`: 2, or 4 to stream weights as
 * stored. */
MUST_USE enum err_code plan_make(const struct plan_shape *s, const struct plan_device *d,
                                 int stage_bytes, const char *what, struct plan *out,
                                 struct err *e);

/* Units of a pass: the longest front of units[n] (tokens of each, padded) that fits beside `taken` bytes and does not
 * exceed `tokens_max` (0: no limit) after its first. At least 1 for n > 0. */
int64_t plan_take(const struct plan *p, const int64_t *tokens, int64_t n, int64_t taken,
                  int64_t tokens_max);

/* Configurations with evaluations of so many tokens each. */
struct plan_work {
    int64_t n_configs;
    double tokens, scored;
};
struct plan_cost {
    int64_t passes;
    double configs_per_pass;
    double bytes; /* read from the files */
    double compute_s, read_s, seconds;
};
struct plan_cost plan_cost_of(const struct plan *p, const struct plan_shape *s,
                              const struct plan_device *d, const struct plan_work *w);

#endif

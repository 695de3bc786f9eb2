/* A checkpoint on a device: fp16 master once, compute weights rewritten per configuration, forward pass built from
 * kern_* operations. Families differ by a table of wiring, not by code paths here (family_<id>.c). Callers see no
 * tensors. Thread: one at a time. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_H
#define ISOBIT_WORKER_MODEL_MODEL_H

#include <stdint.h>

#include "kernels/kernels.h"
#include "schema/job.h"
#include "worker/ckpt/ckpt.h"
#include "worker/model/plan.h"

struct model; /* opaque */

struct model_info {
    const char *family; /* label of family.def */
    int n_layers, d, n_heads, head_dim, ffn;
    int64_t vocab, context;
    int64_t n_params, n_params_linear; /* tied tensors once; linear: what a sweep quantizes */
    int64_t flushed;                   /* weights that became 0 in fp16 */
};

/* Reads every tensor once into the fp16 master on the device (plus compute copies of embeddings, norms, biases and
 * head) and checks names and shapes against config.json. `ckpt` and `k` are kept. Errors: ERR_FORMAT naming file,
 * tensor, found and expected shape; ERR_NUMERIC; ERR_NOMEM; ERR_UNSUPPORTED for an unknown model_type. */
MUST_USE enum err_code model_open(struct ckpt *ckpt, struct kern *k, struct model **out,
                                  struct err *e);
/* The same within a memory budget (plan.h; 0: what the device has), which may turn out too small for the whole checkpoint:
 * then no weights are read, and the model takes model_stream_run instead of model_set_config and model_run. Errors also:
 * ERR_NOMEM when the budget is too small for that too. */
MUST_USE enum err_code model_open_within(struct ckpt *ckpt, struct kern *k, int64_t memory_bytes,
                                         struct model **out, struct err *e);
void model_close(struct model *m);
/* How the model runs, how weights as stored would, and what both follow from. */
struct model_plan {
    struct plan plan, stored;
    struct plan_shape shape;
    struct plan_device device;
};
void model_get_plan(const struct model *m, struct model_plan *out);
/* The plan alone: nothing is read or allocated for it. */
MUST_USE enum err_code model_plan_only(struct ckpt *ckpt, struct kern *k, int64_t memory_bytes,
                                       struct model_plan *out, struct err *e);
bool model_is_streamed(const struct model *m);
const struct model_info *model_get_info(const struct model *m);

/* Puts configuration c in force: k <= 8 quantizes, 16 rounds to fp16, 32 takes the weights as stored (reads the
 * files again). Nothing is allocated after the first call. A repeated call with an equal configuration does
 * nothing. On an error no configuration is in force. */
MUST_USE enum err_code model_set_config(struct model *m, const struct config *c, struct bits *bits,
                                        struct err *e);

/* Tokens of one sequence. With parent >= 0 (an earlier sequence of the batch without a parent of its own) it
 * continues that sequence: positions start at the parent's length and it attends to all of it. */
struct model_seq {
    const int32_t *tokens;
    int32_t n;
    int32_t parent; /* -1: none */
};

/* Asks for log p(token | everything up to and including tokens[pos] of sequence seq). Several targets may ask at
 * one position. `ref` >= 0: a row of the batch's reference (below). */
struct model_target {
    int32_t seq, pos, token;
    int32_t ref;
};

struct model_answer {
    float logprob; /* nats */
    bool is_top;   /* token is the arg max; ties: smallest id */
};

/* Final hidden states of the 16-bit run at sampled positions: enough for exact KL, since the head is not
 * quantized. Rows are written by a batch with `record` and read by one with `compare`. */
struct model_ref_rows; /* opaque, device memory [n, d_embed] */
MUST_USE enum err_code model_ref_new(struct model *m, int64_t n, struct model_ref_rows **out,
                                     struct err *e);
int64_t model_ref_bytes(const struct model *m, int64_t n);
void model_ref_free(struct model *m, struct model_ref_rows *r);

struct model_magnitudes; /* model_magnitude.h */

struct model_batch {
    const struct model_seq *seqs;
    int n_seqs;
    const struct model_target *targets; /* any order */
    int64_t n_targets;
    struct model_ref_rows
        *record; /* NULL, or: row targets[i].ref = hidden state at that position */
    const struct model_ref_rows *compare; /* NULL, or: kl[ref] and same_top[ref] against it */
    double *kl;                           /* host, indexed by ref */
    uint8_t *same_top;
    struct model_magnitudes *magnitudes; /* NULL, or where sizes of activations are added */
};

/* Queues the batch in the configuration in force. Its answers (and kl, same_top) are there after model_wait; until then
 * everything it points to stays. At most MODEL_IN_FLIGHT batches are under way, so that the device has work while the
 * host collects answers and packs the next batch. At most model_max_tokens() tokens in all; answers[n_targets]. Errors:
 * ERR_FORMAT for a token id outside the vocabulary or a sequence beyond the context; ERR_DEVICE. Then the batch is not
 * under way; those before it are. */
enum { MODEL_IN_FLIGHT = 2 };
MUST_USE enum err_code model_start(struct model *m, const struct model_batch *b,
                                   struct model_answer *answers, struct err *e);
/* Waits for the oldest batch under way. */
MUST_USE enum err_code model_wait(struct model *m, struct err *e);
/* Gives up what is under way, after an error; waits until the device has left it alone. */
void model_abandon(struct model *m);
/* Both for a single batch. */
MUST_USE enum err_code model_run(struct model *m, const struct model_batch *b,
                                 struct model_answer *answers, struct err *e);
/* Most tokens of one batch: a pure function of (checkpoint, device plan); the packing of an evaluation follows
 * from it, so that a resumed sweep gives the same numbers. */
int64_t model_max_tokens(const struct model *m);

/* logits[n, vocab] (host) of one sequence. */
MUST_USE enum err_code model_logits(struct model *m, const int32_t *tokens, int32_t n,
                                    float *logits, struct err *e);

#endif

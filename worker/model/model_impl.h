/* struct model, shared by the files that make it up: model.c (life cycle), model_config.c (configurations),
 * model_forward.c (hidden states of a batch), model_run.c (answers from hidden states). Private. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_IMPL_H
#define ISOBIT_WORKER_MODEL_MODEL_IMPL_H

#include "worker/model/model.h"
#include "worker/model/plan.h"
#include "worker/model/weights.h"
#include "worker/quant/quant.h"

/* What a configuration quantizes: the linear layers, and as options the untied head and the embedding. Each group
 * has a cache of its own, so that an entry means the same tensor under every configuration. */
enum quant_group_id { QUANT_LINEAR, QUANT_HEAD, QUANT_EMBED, QUANT_GROUPS };
struct quant_group {
    struct quant_tensor *tensors;
    int64_t *n_keep;
    int n;
    struct quant_cache *cache;
};

/* A head in parts: the same part of it to likelihoods and to divergences, each with a state of its own. */
struct model_head_part {
    struct kern_head_part score, kl;
};

/* Device buffers for model_max_tokens() tokens, allocated once. */
struct workspace {
    void *x;     /* [T, d] the residual stream */
    void *h;     /* [T, d] its normalized form; at the end the rows that are asked for */
    void *wide;  /* [T, wide]: q, k, v, then the MLP's inner layer */
    void *mixed; /* [T, d] attention output */
    void *embed; /* [T, d_embed], only with projections */
    int64_t wide_cols;
};

/* Host arrays of one batch; those per target grow to the largest number so far. */
struct batch_lists {
    int32_t *ids, *positions; /* [T] */
    struct kern_seq *seqs;    /* [T] */
    int32_t *rows;            /* [T] rows of x that are asked for, ascending */
    int64_t *first; /* [T + 1] targets in the order of their rows: where those of a row start */
    int32_t *row, *token; /* [targets], by row: index into rows */
    int64_t *order;       /* [targets]: which target it is */
    float *logprob;
    uint8_t *is_top;
    int32_t *ref_row,
        *ref_at; /* [targets] with a reference: index into rows, row of the reference */
    double *kl;
    uint8_t *same_top;
    int64_t n_targets_max;
};

/* A batch under way. */
struct flight {
    struct batch_lists lists;
    struct model_batch batch; /* what it points to is the caller's */
    struct model_answer *answers;
    int64_t n_refs; /* rows compared */
    int64_t mark;   /* behind its last operation; -1: it asks for nothing */
};

struct model {
    struct ckpt *ckpt; /* kept */
    struct kern *k;    /* kept */
    struct model_info info;
    struct wiring wiring;
    struct weights weights;
    struct workspace ws;
    struct flight flights[MODEL_IN_FLIGHT];
    int64_t n_started, n_finished; /* batches; the difference is under way */
    struct batch_lists *lists;     /* of the batch that is being queued */
    int64_t max_tokens;
    float *alibi_slopes; /* [n_heads], or NULL */
    /* Outlier maps of quantization spec section 6. */
    int32_t *rank_same; /* [max(d, ffn)]: i */
    int32_t *rank_v;    /* [d]: row of the fused QKV that makes input i of the attention output */
    struct quant_group groups[QUANT_GROUPS];
    bool is_rest_cast;             /* compute weights outside the linear layers are the master's */
    bool has_run_stored;           /* weights as stored were in force since they were last */
    struct plan plan, plan_stored; /* for 16-bit masters, and for weights as stored */
    struct stream *stream;         /* NULL: the weights are on the device */
    struct model_head_part *part;  /* NULL: answers see the whole head */
    bool has_config;
    struct config config; /* in force when has_config */
    struct bits bits;
};

struct model_ref_rows {
    void *rows; /* device, compute type, [n, d_embed] */
    int64_t n;
};

/* n, or the next number of rows that the device likes: operations on whole rows run over that many, so that their shapes
 * are few. Rows behind the n hold any finite numbers, and nothing reads what comes of them. */
int64_t model_step_rows(const struct model *m, int64_t n);

/* Lists of tensors and rank maps; after the weights are there. */
void model_quant_init(struct model *m);
void model_quant_release(struct model *m);

/* How a batch lies in the rows of the work space. */
struct model_rows {
    const struct kern_seq *seqs;
    int n_seqs;
    int64_t T;
};

/* A layer is four products and what goes with them. Between two of them a batch lives in the whole work space, between two
 * layers in ws.x alone. */
enum model_part { MODEL_PART_QKV, MODEL_PART_OUT, MODEL_PART_FFN1, MODEL_PART_FFN2, MODEL_PARTS };
/* The part that reads a layer's buffer. */
enum model_part model_part_of(const struct wiring *w, enum role role);
/* Spreads of the units that a part's matrix makes; its master is on the device. */
MUST_USE enum err_code model_magnitudes_spread_of(struct model *m, struct model_magnitudes *g,
                                                  enum model_part part, int layer, struct err *e);
/* lists.ids and positions to ws.x. */
MUST_USE enum err_code model_embed(struct model *m, int64_t T, struct err *e);
MUST_USE enum err_code model_part_run(struct model *m, int layer, enum model_part part,
                                      const struct model_rows *b, struct model_magnitudes *watch,
                                      struct err *e);
/* Runs all layers; ws.x then holds the residual stream of T tokens. The lists ids, positions and seqs are filled. `watch`
 * is NULL or where sizes of activations are added. */
MUST_USE enum err_code model_forward(struct model *m, int n_seqs, int64_t T,
                                     struct model_magnitudes *watch, struct err *e);
/* Final norm and projection of x's rows[n], which has room for model_step_rows; *out is [n, d_embed] and stays until the
 * next batch. */
MUST_USE enum err_code model_hidden(struct model *m, int32_t *rows, int64_t n, int64_t T,
                                    const void **out, struct err *e);
const void *model_head(const struct model *m);

/* Stages of model_run. Checks a batch, packs its sequences behind each other into lists.ids, positions and seqs; *T tokens. */
MUST_USE enum err_code model_lay_out(struct model *m, const struct model_batch *b, int64_t *T,
                                     struct err *e);
/* Targets in the order of their rows into lists; *n_rows distinct rows are asked for. */
MUST_USE enum err_code model_sort_targets(struct model *m, const struct model_batch *b, int64_t T,
                                          int64_t *n_rows, struct err *e);
/* Queues the answers from the hidden states of the rows that are asked for; they come into the lists. *n_refs rows are
 * compared. */
MUST_USE enum err_code model_answer(struct model *m, const struct model_batch *b,
                                    const void *hidden, int64_t n_rows, int64_t *n_refs,
                                    struct err *e);
/* From the lists to the caller, once the answers are there. */
void model_deliver(const struct batch_lists *l, const struct model_batch *b, int64_t n_refs,
                   struct model_answer *answers);

/* Whose lines rank the inputs of a linear layer under a configuration (quantization spec, section 6). */
struct rank_source {
    bool is_ranked; /* false: the layer stays untreated */
    enum role role;
    int layer;
    bool by_rows;
    const int32_t *map; /* line of each input */
};
struct rank_source model_rank_source(const struct model *m, const struct config *c,
                                     const struct weight_tensor *t);
bool model_is_linear(enum role role);

/* Opens as planned; for tests, which have no device whose memory is apart from the host's. */
MUST_USE enum err_code model_open_planned(struct ckpt *ckpt, struct kern *k,
                                          const struct plan *plan, const struct plan *stored,
                                          struct model **out, struct err *e);

#endif

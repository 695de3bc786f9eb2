/* struct model, shared by the files that make it up, and the facts about it that they ask for
 * (model.c). Private. From the top down: model_open.c (life), model_config.c (configurations) and
 * model_run.c (batches under way), model_answer.c (answers from hidden states), model_forward.c
 * (hidden states of a batch), model_quant.c (what is quantized). */
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
/* Of workspace.wide. */
int64_t model_wide_cols(const struct wiring *w);
/* Elements that a row of a batch has in the work space within a layer: x, h, mixed and wide. */
int64_t model_row_cols(const struct wiring *w);
/* The master stays on the host (model_hosted.h). */
bool model_is_hosted(const struct model *m);

/* A layer is four products and what goes with them. Between two of them a batch lives in the whole work space, between two
 * layers in ws.x alone. */
enum model_part { MODEL_PART_QKV, MODEL_PART_OUT, MODEL_PART_FFN1, MODEL_PART_FFN2, MODEL_PARTS };
/* The part that reads a layer's buffer. */
enum model_part model_part_of(const struct wiring *w, enum role role);

#endif

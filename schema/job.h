/* What a job is. A job = (checkpoint, configuration, evaluation) is what users see, count, retry and query;
 * a slice is what a worker leases: all evaluations of some configurations of one checkpoint. This header
 * holds the axes, their labels and defaults, the canonical key, job states and the result record that a
 * worker sends. Pure; no I/O. Labels, never enum numbers, are stored and sent. */
#ifndef ISOBIT_SCHEMA_JOB_H
#define ISOBIT_SCHEMA_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

enum dtype {
#define X(id, label, k_min, k_max) DTYPE_##id,
#include "schema/dtype.def"
#undef X
    DTYPE_COUNT
};

enum task {
#define X(id, label, choices, is_zero_shot, requests, tokens, shared_tokens, scored) TASK_##id,
#include "schema/task.def"
#undef X
    TASK_COUNT
};

/* X(id, "label") lists of the smaller axes. */
#define COMPUTE_LIST(X)      X(FP32, "fp32") X(FP16, "fp16") X(BF16, "bf16")
#define CENTER_LIST(X)       X(NONE, "none") X(TENSOR, "tensor") X(BLOCK, "block")
#define OUTLIER_RULE_LIST(X) X(PREVIOUS, "previous") X(PREVIOUS_RESID, "previous-resid")
#define METHOD_LIST(X)       X(STRIDED, "strided") X(ROLLING, "rolling")
#define JOIN_LIST(X)         X(H26, "h26") X(H22, "h22")
#define DEQUANT_LIST(X)      X(FP16, "fp16") X(FP32, "fp32")
/* held waits for `release`, cancelled for `retry`; buried used up its attempts. */
#define JOB_STATE_LIST(X)                                                                          \
    X(PENDING, "pending")                                                                          \
    X(LEASED, "leased")                                                                            \
    X(DONE, "done") X(BURIED, "buried") X(HELD, "held") X(CANCELLED, "cancelled")

#define X(id, label) COMPUTE_##id,
enum compute { COMPUTE_LIST(X) COMPUTE_COUNT };
#undef X
#define X(id, label) CENTER_##id,
enum center { CENTER_LIST(X) CENTER_COUNT };
#undef X
#define X(id, label) OUTLIER_RULE_##id,
enum outlier_rule { OUTLIER_RULE_LIST(X) OUTLIER_RULE_COUNT };
#undef X
#define X(id, label) METHOD_##id,
enum method { METHOD_LIST(X) METHOD_COUNT };
#undef X
#define X(id, label) JOIN_##id,
enum join { JOIN_LIST(X) JOIN_COUNT };
#undef X
#define X(id, label) DEQUANT_##id,
enum dequant { DEQUANT_LIST(X) DEQUANT_COUNT };
#undef X
#define X(id, label) JOB_##id,
enum job_state { JOB_STATE_LIST(X) JOB_STATE_COUNT };
#undef X

/* label of a value, and value of a label (-1 when there is none). */
const char *dtype_label(enum dtype v);
const char *task_label(enum task v);
const char *compute_label(enum compute v);
const char *center_label(enum center v);
const char *outlier_rule_label(enum outlier_rule v);
const char *method_label(enum method v);
const char *join_label(enum join v);
const char *dequant_label(enum dequant v);
const char *job_state_label(enum job_state v);
int dtype_of(struct str label);
int task_of(struct str label);
int compute_of(struct str label);
int center_of(struct str label);
int outlier_rule_of(struct str label);
int method_of(struct str label);
int join_of(struct str label);
int dequant_of(struct str label);
int job_state_of(struct str label);
int task_choices(enum task v);
bool task_is_zero_shot(enum task v);

/* A quantization configuration. All zero is no valid configuration; start from config_default(). Fields
 * that mean nothing for the others hold their default, so equal cells compare equal (config_normalize). */
struct config {
    int k;               /* 2..8 bits; 16: weights rounded to fp16 (baseline); 32: as stored */
    enum dtype dtype;    /* k <= 8 */
    int exponent_bits;   /* float: 1..k-1; else 0 */
    int subnormal_shift; /* float: 0, 2 or 4 (quantization spec 2.2); else 0 */
    int64_t block;       /* elements per absmax constant; 0: the whole tensor */
    enum center center;  /* what mean is subtracted first */
    double outlier_pct;  /* per cent of input dimensions kept at 16 bit; 0: none */
    enum outlier_rule outlier_rule;
    bool quant_head; /* sensitivity runs; the head is 16 bit otherwise */
    bool quant_embed;
    enum dequant dequant; /* fp16: dequantized weights are rounded to fp16 */
    enum compute compute; /* arithmetic of the forward pass */
};

struct config config_default(void); /* k 16, int, block 64, fp32 */
/* The exponent bits `float` takes when none are given: ceil(k/2) (paper App. C.4). */
int config_heuristic_exponent_bits(int k);
/* What `exponent_bits: paper` means: 2 at k=3, else 3 (paper App. A). */
int config_paper_exponent_bits(int k);
/* Puts fields without meaning at their defaults (k >= 16: everything but compute) and resolves
 * exponent_bits 0 of a float to the heuristic. */
void config_normalize(struct config *c);
/* Errors: ERR_FORMAT for impossible cells, naming the axis, the value and what is allowed. */
MUST_USE enum err_code config_validate(const struct config *c, struct err *e);
bool config_equal(const struct config *a, const struct config *b);

/* A checkpoint as a sweep names it. Strings are owned by whoever owns the struct. */
struct model_ref {
    const char *family; /* the user's label for grouping: "pythia" */
    const char *size;   /* "s0", "410m" */
    const char *name;   /* identity in keys: the declared path, or hub id with optional @revision */
    const char *path;   /* absolute directory; NULL for a hub model */
    const char *hub;    /* "org/name"; NULL for a path */
    const char *revision; /* NULL: the default one */
};

/* An evaluation with everything that can change its number. */
struct eval_spec {
    const char *name;      /* label in results; default: the task's label */
    const char *data;      /* the declared file name: part of the key */
    const char *data_path; /* absolute */
    const char *subset;    /* NULL; else documents whose meta.pile_set_name is this */
    int64_t limit;         /* first items only; 0: all */
    int64_t window;        /* perplexity: tokens; 0: the model's context */
    int64_t max_tokens;    /* perplexity; 0: all */
    enum task task;
    enum method method; /* perplexity: by the file's kind unless given */
    enum join join;
    bool bos; /* prepend the tokenizer's default prefix */
};
/* With strings of their own, owned by `a`. */
struct model_ref model_ref_copy(const struct model_ref *m, struct arena *a);
struct eval_spec eval_spec_copy(const struct eval_spec *ev, struct arena *a);

/* "dir/piqa.jsonl" -> "dir/piqa-labels.lst"; caller frees with xfree. */
char *eval_labels_path(const char *path);
/* strided for plain text, rolling for .jsonl and .jsonl.zst. */
enum method eval_default_method(const char *data);

/* The canonical key is `v1|` and `name=value` sorted by name, defaults omitted:
 *   v1|block=128|dtype=float|exponent_bits=2|k=4|model=demo/models/pythia-s0|task=lambada|task.data=…|task.limit=120
 * Names are chosen so that sorting leaves each part together; a key is put together from parts that are
 * stored once: config head | model | config tail | evaluation. `|`, `%` and control characters in values
 * are written as %XX. Frozen defaults: block 64, center none, compute fp32, dequant fp16, dtype int,
 * exponent_bits: always written for float, outlier_pct 0, outlier_rule previous, quant_* false,
 * subnormal_shift 0, task.join h26, task.bos false, task.limit/max_tokens/window 0; k and the method of a
 * perplexity are always written; an evaluation's name never is. */
struct key_parts {
    char *config_head; /* "v1|…|k=4" : names below "model" */
    char *config_tail; /* "|outlier_pct=2" or "" : names above it */
    char *model;       /* "|model=…" */
    char *eval;        /* "|task=…" */
};
/* All four strings are owned by `a`. */
void key_of_config(const struct config *c, struct arena *a, char **head, char **tail);
char *key_of_model(const struct model_ref *m, struct arena *a);
char *key_of_eval(const struct eval_spec *ev, struct arena *a);
/* Names the items that an evaluation makes of a file under a tokenizer: two evaluations have the same name when item i of one
 * is item i of the other. `window`: what is used when the evaluation names none. The limit is no part of it. */
void items_identity(const struct eval_spec *ev, int64_t window, const char *data_sha256,
                    const char *tokenizer_sha256, char out[65]);
/* The whole text; owned by `a`. */
char *job_key(const struct model_ref *m, const struct config *c, const struct eval_spec *ev,
              struct arena *a);

/* What a worker runs and reports on. `id` and `attempt` fence the result. */
struct job {
    int64_t id;
    int attempt;
    struct model_ref model;
    struct config config;
    struct eval_spec eval;
};

/* Bits of a checkpoint under a configuration (quantization spec, section 7). Exact sums. */
struct bits {
    double per_param; /* T_linear / N_linear */
    int64_t
        total_full; /* quantized bits + 16 * all other parameters, tied tensors once (default axis) */
    double total_nominal; /* bits per parameter, nominal, times all parameters */
    int64_t total_linear; /* quantized tensors only */
    int64_t uncharged;    /* quantile tables and outlier index lists, charged by nobody */
};

struct metric {
    const char *name; /* "acc"; static or owned with the result */
    double value;     /* not finite: stored as NULL */
    double stderr_;   /* NaN: none */
    int64_t n;        /* items or tokens behind it */
};

/* Facts about one item of an evaluation under one tokenizer; arrays have task_choices entries. */
struct item {
    int gold; /* -1: none */
    int n_choices;
    const int32_t *chars;  /* code points of each choice (document, window, target) */
    const int32_t *bytes;  /* UTF-8 bytes */
    const int32_t *tokens; /* scored tokens */
};

struct item_list {
    const struct item *items;
    int64_t n;
    char tokenizer_sha256[65];
    char items_sha256[65]; /* items_identity */
};

/* Result of one job. Strings and arrays are owned by the arena that the producer names. */
struct job_result {
    const struct metric *metrics;
    int n_metrics;
    int64_t n;      /* items or documents evaluated */
    int64_t tokens; /* tokens run through the model */
    double
        seconds; /* this job's share: its evaluation, and quantizing for the first of a configuration */
    struct bits bits;
    int64_t n_params, n_params_linear;
    int64_t
        weights_read; /* bytes of weight files read for this job; 0: the checkpoint was resident */
    char weights_sha256[65], data_sha256[65], tokenizer_sha256[65];
    const char *device;  /* "cpu: AMD EPYC … x2" */
    const char *program; /* cli_version */
    /* Per-item log-likelihoods in file order, n_items * per_item floats: ll of each choice; LAMBADA: ll and
     * greedy flag; perplexity: summed ll of each document or window. */
    const float *samples;
    int64_t n_items;
    int per_item;
    const struct item_list *items;
    char items_sha256[65]; /* items_identity; "": none */
};

#endif

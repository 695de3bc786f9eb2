/* Evaluations (evaluation spec, sections 1, 2 and 6): from a data file to token sequences, and from their
 * log-likelihoods to metrics. Three steps, so that one tokenization serves every configuration of a checkpoint:
 *
 *   eval_load   file + tokenizer -> struct eval_set (requests, items)          once per (evaluation, tokenizer)
 *   eval_run    eval_set + packing + model -> struct eval_scores               once per configuration
 *   eval_score  eval_set + eval_scores -> metrics, samples                     pure
 *
 * A task is a row of schema/task.def and one file task_<id>.c. Thread: one at a time. */
#ifndef ISOBIT_WORKER_EVAL_EVAL_H
#define ISOBIT_WORKER_EVAL_EVAL_H

#include <stdint.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "schema/job.h"
#include "worker/model/model.h"
#include "worker/tok/tok.h"

enum { EVAL_MAX_CHOICES = 4 };

/* Everything a log-likelihood is asked for has one form: a token sequence whose last n_scored tokens are scored, each
 * given all tokens before it. The model reads n - 1 tokens; the last one is only a target. */
struct eval_request {
    size_t at;        /* first token, in eval_set.tokens */
    int32_t n;        /* 2..context + 1 */
    int32_t n_scored; /* 1..n - 1 */
    int64_t same_as;  /* the first equal request; its own index when there is none before it */
};

/* An evaluation as token sequences. Item i owns requests [first[i], first[i + 1]): one per choice, or the windows of a
 * document. The lists hold int32 values; those of choices are flat, [n_items, n_choices]. All zero is empty. */
struct eval_set {
    enum task task;
    int n_choices;
    struct tok_ids tokens;
    struct eval_request *requests;
    int64_t n_requests, cap_requests;
    int64_t n_items, cap_items;
    int64_t *first;                        /* [n_items + 1] once closed */
    struct tok_ids gold;                   /* [n_items], -1: none */
    struct tok_ids chars, bytes, n_scored; /* [n_items, n_choices] */
    char data_sha256[SHA256_HEX], tokenizer_sha256[SHA256_HEX];
    char items_sha256[SHA256_HEX]; /* items_identity */
};
void eval_set_release(struct eval_set *s);
/* Names the set of an evaluation within one tokenizer and context: its key, and the file that it is read from here. Caller
 * frees with xfree. */
char *eval_set_key(const struct eval_spec *ev);

/* What an evaluation is made from. Everything is borrowed. */
struct eval_source {
    const struct eval_spec *spec;
    struct tok *tok;
    int64_t context;             /* the model's: most tokens of one forward pass */
    bool (*progress)(void *arg); /* called now and then; true asks to stop. May be NULL */
    void *progress_arg;
};

/* Reads and tokenizes. Errors: ERR_NOTFOUND, ERR_FORMAT with FILE:LINE, ERR_UNSUPPORTED, ERR_STOPPED; then `out` is
 * empty. Caller frees with eval_set_release. */
MUST_USE enum err_code eval_load(const struct eval_source *src, struct eval_set *out,
                                 struct err *e);

/* Log-likelihoods of all requests, [n_requests] each; equal requests have equal entries. */
struct eval_scores {
    double *ll;         /* nats */
    uint8_t *is_greedy; /* every scored token was the arg max */
    int64_t n_tokens;   /* run through the model */
    /* Against the 16-bit run at sampled positions; n_kl 0: not compared. */
    double *kl;
    uint8_t *same_top;
    int64_t n_kl;
    struct model_magnitudes *magnitudes; /* NULL unless the task needs them */
};
void eval_scores_release(struct eval_scores *s);

struct eval_pack; /* pack.h */

/* Rows of the 16-bit run's hidden states that an evaluation keeps: 4096 evenly spread scored positions, or all. */
enum { EVAL_MAX_SAMPLE = 4096 };
int64_t eval_n_sample(const struct eval_pack *pack);

struct eval_run_args {
    struct model *model;
    const struct eval_set *set;
    const struct eval_pack *pack;
    struct model_ref_rows *record;        /* NULL, or where the 16-bit run's hidden states go */
    const struct model_ref_rows *compare; /* NULL, or what to compare with */
    /* Record only: run the same batches, but ask for the sampled positions alone. */
    bool is_record_only;
    bool (*progress)(void *arg); /* after every batch; true asks to stop. May be NULL */
    void *progress_arg;
};
/* Errors: those of model_run; ERR_NUMERIC for a NaN log-likelihood, naming the item; ERR_STOPPED. Caller releases
 * `out`, which is empty on an error. */
MUST_USE enum err_code eval_run(const struct eval_run_args *args, struct eval_scores *out,
                                struct err *e);

/* What eval_run is made of, for runs that take their batches in another order: scores before the first batch, a batch's
 * answers, and after the last one. Reference rows: args->record and compare; *n_sample of them. */
void eval_begin(const struct eval_run_args *args, struct eval_scores *out, int64_t *n_sample);
struct pack_arrays;
MUST_USE enum err_code eval_collect(const struct eval_set *set, const struct pack_arrays *b,
                                    struct eval_scores *out, struct err *e);
void eval_end(const struct eval_set *set, struct eval_scores *out);

/* Fills metrics, samples, items, n, and the data and tokenizer identities of `out`; owned by `a`. */
void eval_score(const struct eval_set *set, const struct eval_scores *scores,
                struct job_result *out, struct arena *a);

/* ---- what task_<id>.c implements ---- */

/* The texts of one record. Strings are owned by the arena that parse was given. */
struct task_item {
    struct str context[EVAL_MAX_CHOICES], continuation[EVAL_MAX_CHOICES];
    int n_choices;
    int gold; /* -1: none here (it may come from a labels file) */
};

struct task_ops {
    /* Gold answers stand in FILE-labels.lst beside FILE.jsonl, line by line. */
    bool has_labels_file;
    bool needs_magnitudes; /* eval_scores.magnitudes */
    /* Texts of one JSON record of a task with choices or a target; `where` is "FILE:LINE". */
    enum err_code (*parse)(const json_t *record, const char *where, struct arena *a,
                           struct task_item *out, struct err *e);
    /* Instead of parse: the whole way from the file to requests. */
    enum err_code (*load)(const struct eval_source *src, struct eval_set *set, struct err *e);
    /* Metrics and samples. */
    void (*score)(const struct eval_set *set, const struct eval_scores *scores,
                  struct job_result *out, struct arena *a);
};
#define X(id, ...) extern const struct task_ops task_ops_##id;
#include "schema/task.def"
#undef X
const struct task_ops *task_ops_of(enum task t);

#endif

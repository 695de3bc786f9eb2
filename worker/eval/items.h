/* What the zero-shot tasks have in common: reading records into items, and the metrics of multiple choice. */
#ifndef ISOBIT_WORKER_EVAL_ITEMS_H
#define ISOBIT_WORKER_EVAL_ITEMS_H

#include "worker/eval/eval.h"

/* Reads the evaluation's records through ops->parse into `set`, at most spec->limit of them. */
MUST_USE enum err_code items_load(const struct eval_source *src, const struct task_ops *ops,
                                  struct eval_set *set, struct err *e);

/* A member that must be a string, as a view into the record. Errors: ERR_FORMAT. */
MUST_USE enum err_code items_need_text(const json_t *record, const char *key, const char *where,
                                       struct str *out, struct err *e);
/* A choice's number 0..n_choices-1, written as an integer or as a string of digits, counted from `base`. */
MUST_USE enum err_code items_need_gold(const json_t *record, const char *key, const char *where,
                                       int base, int n_choices, int *out, struct err *e);
/* Copies into the arena: "<a><b>". */
struct str items_concat(struct arena *a, struct str first, struct str second);

/* Appends a metric and, when it has one, its standard error. */
struct estimate;
void items_add_metric(struct job_result *out, struct arena *a, const char *name, struct estimate v,
                      int64_t n);
/* Samples: ll of each choice, in file order. */
void items_add_samples(const struct eval_set *set, const struct eval_scores *s,
                       struct job_result *out, struct arena *a);
/* acc of multiple choice; the second also acc_norm and acc_bytes (evaluation spec, section 2). */
void items_score_choice(const struct eval_set *set, const struct eval_scores *s,
                        struct job_result *out, struct arena *a);
void items_score_normed_choice(const struct eval_set *set, const struct eval_scores *s,
                               struct job_result *out, struct arena *a);

#endif

/* Evaluations tokenized ahead of their jobs, on a thread of its own with a tokenizer of its own, while the device computes.
 * What is not ready, or failed, its job makes itself, and so meets the error. Thread: all functions from one thread. */
#ifndef ISOBIT_WORKER_EVAL_AHEAD_H
#define ISOBIT_WORKER_EVAL_AHEAD_H

#include "worker/eval/eval.h"

struct eval_ahead; /* opaque */

/* Starts to make the sets of evals[n], in this order, for the tokenizer in directory `dir` and sequences of at most
 * `context` tokens. Everything is copied. NULL when no thread can be had; the functions below take it. */
struct eval_ahead *eval_ahead_start(const char *dir, int64_t context, const struct eval_spec *evals,
                                    int n);
/* True: the evaluation was among them and *out is its set, the caller's now; waits while it is being made. False: make it
 * yourself; it will not be made here any more. */
bool eval_ahead_take(struct eval_ahead *a, const struct eval_spec *ev, struct eval_set *out);
/* Whether it is among those that can still be taken. */
bool eval_ahead_has(struct eval_ahead *a, const struct eval_spec *ev);
/* Ends the thread, within the time of some items, and drops what was not taken. */
void eval_ahead_stop(struct eval_ahead *a);

#endif

/* The thread that reads steps of a checkpoint into host buffers, in order and as many ahead as there are buffers. The
 * owner takes them in the same order and gives buffers back. */
#ifndef ISOBIT_WORKER_MODEL_WINDOW_READER_H
#define ISOBIT_WORKER_MODEL_WINDOW_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Fills buffer step % n_buffers with a step; called from the thread, and nothing else touches that buffer meanwhile. */
typedef enum err_code (*window_read_fn)(void *arg, int64_t step, struct err *e);

struct window_reader;
MUST_USE enum err_code window_reader_start(window_read_fn read, void *arg, int64_t n_steps,
                                           int n_buffers, struct window_reader **out,
                                           struct err *e);
/* Waits until `step` was read, or says at once whether it was. Errors: the reader's. */
MUST_USE enum err_code window_reader_wait(struct window_reader *r, int64_t step, struct err *e);
bool window_reader_has(struct window_reader *r, int64_t step);
/* The first n steps' buffers are free again. */
void window_reader_release(struct window_reader *r, int64_t n);
/* Ends the thread wherever it is in the order. NULL is fine. */
void window_reader_stop(struct window_reader *r);

#endif

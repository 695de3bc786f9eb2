/* Embeddings and head of a model that runs in passes. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_TABLES_H
#define ISOBIT_WORKER_MODEL_STREAM_TABLES_H

#include "worker/model/model_impl.h"

/* Rows of embeddings and positions that lists.ids and positions name go to the work space, and the lists then count them
 * through. `rows` of them. */
MUST_USE enum err_code stream_pick(struct model *m, int64_t T, struct err *e);
/* Rows [first, first + n) of the head, in the window's block. */
MUST_USE enum err_code stream_head(struct model *m, int64_t first, int64_t n, struct err *e);

#endif

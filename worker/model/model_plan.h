/* The plans of a model (plan.h) within a budget. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_PLAN_H
#define ISOBIT_WORKER_MODEL_MODEL_PLAN_H

#include "worker/model/model_impl.h"

/* For a model that has its shapes, but no memory yet. memory_bytes 0: what the device has. Errors:
 * ERR_NOMEM when the budget is too small; ERR_UNSUPPORTED. */
MUST_USE enum err_code model_make_plans(struct model *m, int64_t memory_bytes,
                                        struct model_plan *out, struct err *e);

#endif

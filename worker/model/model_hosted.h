/* A model whose fp16 master stays in host memory (docs/STREAMING.md). Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_HOSTED_H
#define ISOBIT_WORKER_MODEL_MODEL_HOSTED_H

#include "worker/model/model_impl.h"

/* Opening: tables and the compute copy to the device, room for the master on the host. */
MUST_USE enum err_code hosted_load(struct model *m, struct err *e);
/* Puts a configuration in force, layer by layer. */
MUST_USE enum err_code hosted_apply(struct model *m, const struct config *c, struct err *e);
/* Takes all steps through the window; `visit` is called with each one in it. */
typedef enum err_code hosted_visit(struct model *m, void *arg, struct err *e);
MUST_USE enum err_code hosted_walk(struct model *m, hosted_visit *visit, void *arg, struct err *e);

#endif

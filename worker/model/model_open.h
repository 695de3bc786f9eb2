/* Opening a model by a plan that somebody else made. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_OPEN_H
#define ISOBIT_WORKER_MODEL_MODEL_OPEN_H

#include "worker/model/model_impl.h"

/* Opens as planned; for tests, which have no device whose memory is apart from the host's. */
MUST_USE enum err_code model_open_planned(struct ckpt *ckpt, struct kern *k,
                                          const struct plan *plan, const struct plan *stored,
                                          struct model **out, struct err *e);

#endif

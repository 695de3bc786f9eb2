/* Spreads of single units (model_magnitude.h), step by step as masters come by. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_SPREAD_H
#define ISOBIT_WORKER_MODEL_MODEL_SPREAD_H

#include "worker/model/model_impl.h"
#include "worker/model/model_magnitude.h"

/* Fills the spreads of the step that the window holds. */
MUST_USE enum err_code model_spreads_of_step(struct model *m, struct model_magnitudes *g,
                                             struct err *e);

#endif

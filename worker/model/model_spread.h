/* Spreads of single units (model_magnitude.h), part by part as masters come by. Private to
 * worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_SPREAD_H
#define ISOBIT_WORKER_MODEL_MODEL_SPREAD_H

#include "worker/model/model_impl.h"
#include "worker/model/model_magnitude.h"

/* Spreads of the units that a part's matrix makes; its master is on the device. */
MUST_USE enum err_code model_magnitudes_spread_of(struct model *m, struct model_magnitudes *g,
                                                  enum model_part part, int layer, struct err *e);

#endif

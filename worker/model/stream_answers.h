/* The end of a pass: from the last layer to answers. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_STREAM_ANSWERS_H
#define ISOBIT_WORKER_MODEL_STREAM_ANSWERS_H

#include "worker/model/stream_run.h"

/* Head and answers of all units, behind the last layer. */
MUST_USE enum err_code stream_answers(struct stream_run *r, struct err *e);

#endif

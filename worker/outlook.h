/* How a checkpoint would run on a device within a memory budget, and what time is expected: the plan of plan.h for a
 * number of configurations with five evaluations of the published data's size. For `inspect`. */
#ifndef ISOBIT_WORKER_OUTLOOK_H
#define ISOBIT_WORKER_OUTLOOK_H

#include "base/json.h"
#include "worker/model/model.h"

struct outlook_options {
    const char *device;
    const char *compute; /* label; NULL: what the kind of device is used with */
    int64_t memory;
    int64_t n_configs;
};

struct outlook {
    char device[128];
    const char *compute;
    struct model_plan p;
    struct plan_work work;
    struct plan_cost cost;
};

/* Opens the device for a moment. Errors: those of kern_open and model_plan_only. */
MUST_USE enum err_code outlook_make(struct ckpt *c, const struct outlook_options *o,
                                    struct outlook *out, struct err *e);
void outlook_print(const struct outlook *o);
json_t *outlook_to_json(const struct outlook *o); /* new reference */

#endif

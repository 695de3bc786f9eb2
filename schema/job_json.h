/* JSON forms of configurations, evaluations, jobs and results: what travels in messages, what `--json` prints. Decoding
 * trusts nothing. Field names are those of schema/PROTOCOL.md; fields at their default may be absent on input and are always
 * written on output. */
#ifndef ISOBIT_SCHEMA_JOB_JSON_H
#define ISOBIT_SCHEMA_JOB_JSON_H

#include "base/json.h"
#include "base/json_text.h"
#include "schema/job.h"

/* New references. */
json_t *config_to_json(const struct config *c);
json_t *model_ref_to_json(const struct model_ref *m);
json_t *eval_spec_to_json(const struct eval_spec *ev);
/* metrics{…}, n, tokens, seconds, bits{…}, n_params, device, identity{…}; not the samples, which travel as a blob. */
json_t *job_result_to_json(const struct job_result *r);
json_t *item_list_to_json(const struct item_list *l);

/* Strings are owned by `a`. Errors: ERR_FORMAT with `what` in front. */
MUST_USE enum err_code config_from_json(const json_t *j, const char *what, struct config *out,
                                        struct err *e);
MUST_USE enum err_code model_ref_from_json(const json_t *j, const char *what, struct arena *a,
                                           struct model_ref *out, struct err *e);
MUST_USE enum err_code eval_spec_from_json(const json_t *j, const char *what, struct arena *a,
                                           struct eval_spec *out, struct err *e);
/* From the text of a message, whose member `result` (a token's index, -1: absent) it is; errors begin with the text's name. */
MUST_USE enum err_code job_result_from_text(const struct json_text *t, int result, struct arena *a,
                                            struct job_result *out, struct err *e);
MUST_USE enum err_code item_list_from_json(const json_t *j, const char *what, struct arena *a,
                                           struct item_list *out, struct err *e);

#endif

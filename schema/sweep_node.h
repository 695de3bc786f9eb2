/* Typed access to the tree of a sweep spec; every error says where, what was expected and what to do.
 * Shared by the files that read a spec (sweep_read.c, sweep_eval.c); nobody else includes this. */
#ifndef ISOBIT_SCHEMA_SWEEP_NODE_H
#define ISOBIT_SCHEMA_SWEEP_NODE_H

#include "schema/sweep_spec.h"

/* The member of a map, or NULL. */
const struct node *node_find(const struct node *map, const char *key);
/* `map` is a map and has no keys but these; `what` names it: "a grid". */
MUST_USE enum err_code node_check_keys(const struct spec_source *src, const struct node *map,
                                       const char *what, const char *const *keys, size_t n_keys,
                                       struct err *e);
MUST_USE enum err_code node_need_scalar(const struct spec_source *src, const struct node *n,
                                        const char *key, struct err *e);
/* A member that is there and is text, not empty. */
MUST_USE enum err_code node_need_text(const struct spec_source *src, const struct node *map,
                                      const char *key, const struct node **out, struct err *e);
/* A member that is there and is a list, not empty. */
MUST_USE enum err_code node_need_list(const struct spec_source *src, const struct node *map,
                                      const char *key, const struct node **out, struct err *e);
/* An integer from min up; *out stays when the member is absent. */
MUST_USE enum err_code node_opt_int(const struct spec_source *src, const struct node *map,
                                    const char *key, int64_t min, int64_t *out, struct err *e);
MUST_USE enum err_code node_opt_bool(const struct spec_source *src, const struct node *map,
                                     const char *key, bool *out, struct err *e);

/* The evaluations of a spec: into out->evals. */
MUST_USE enum err_code sweep_spec_read_evals(const struct spec_source *src, const struct node *root,
                                             const char *dir, struct sweep_spec *out,
                                             struct err *e);

#endif

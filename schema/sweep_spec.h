/* Between the text of a sweep spec and its expansion: the tree that sweep_yaml.c makes of YAML, and
 * what sweep_read.c makes of the tree: models, evaluations, grids and excludes with
 * every value checked, not yet multiplied out. Only the sweep_*.c files include this. Pure. */
#ifndef ISOBIT_SCHEMA_SWEEP_SPEC_H
#define ISOBIT_SCHEMA_SWEEP_SPEC_H

#include <stdbool.h>

#include "schema/sweep.h"
#include "schema/sweep_axis.h"

/* ---- the tree ---- */

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

/* One value of the text. Members of a list or map hang on `first`, linked by `next` in the text's order;
 * a map's member carries its key. Keys of one map are different. */
struct node {
    enum node_kind kind;
    struct sweep_mark mark;
    const char *text; /* scalar: the value, quoted or not */
    const char *key;  /* member of a map; else NULL */
    struct sweep_mark key_mark;
    struct node *first, *next;
    int n; /* members */
};

/* Where errors and allocations of one spec go. */
struct spec_source {
    const char *path;
    struct arena *arena;
};

/* ERR_FORMAT "path:line:column: …". */
enum err_code spec_error(const struct spec_source *src, struct sweep_mark mark, struct err *e,
                         const char *fmt, ...) PRINTF_LIKE(4, 5);

/* One YAML document as a tree. Refused, each with its place: text that is not UTF-8, tabs, repeated keys,
 * anchors, aliases, tags, a second document, nesting or size beyond what a spec needs. */
MUST_USE enum err_code sweep_yaml_parse(const struct spec_source *src, struct str text,
                                        struct node **root, struct err *e);

/* ---- values ---- */

/* One value of an axis, as a number. */
MUST_USE enum err_code axis_parse(const struct spec_source *src, enum axis x, const struct node *v,
                                  double *out, struct err *e);
/* ": did you mean …?" for the nearest of n words, or "" when none is near. */
const char *spec_suggest(const char *word, const char *const *words, int n, struct arena *a);

/* ---- the spec ---- */

struct spec_values { /* n == 0: the axis is not named */
    double *v;
    int n;
};

struct spec_names {
    const char **v;
    int n;
};

/* A grid, or an exclude with the same keys: it means a set of cells of certain models. */
struct spec_grid {
    struct spec_values axis[AXIS_COUNT];
    struct spec_names family, size;
    struct spec_names evaluation; /* excludes only */
    struct sweep_mark mark;
};

struct sweep_spec {
    const char *name;
    int64_t job_limit_s; /* 0: none */
    struct sweep_model *models;
    struct sweep_eval *evals;
    struct spec_grid *grids, *excludes;
    int n_models, n_evals, n_grids, n_excludes;
};

enum { SPEC_EVALS_MAX = 64, SPEC_MODELS_MAX = 5000, SPEC_GRIDS_MAX = 1000 };

/* `dir`: absolute; relative paths of the spec start there. */
MUST_USE enum err_code sweep_spec_read(const struct spec_source *src, const struct node *root,
                                       const char *dir, struct sweep_spec *out, struct err *e);

#endif

/* Between the text of a sweep spec and its expansion: the tree that sweep_yaml.c makes of YAML, the axes
 * (sweep_axis.c), and what sweep_read.c makes of the tree: models, evaluations, grids and excludes with
 * every value checked, not yet multiplied out. Only the sweep_*.c files include this. Pure. */
#ifndef ISOBIT_SCHEMA_SWEEP_SPEC_H
#define ISOBIT_SCHEMA_SWEEP_SPEC_H

#include <stdbool.h>

#include "schema/sweep.h"

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
#define spec_error(src, mark, e, ...) spec_error_at((src), (mark), (e), __VA_ARGS__)
enum err_code spec_error_at(const struct spec_source *src, struct sweep_mark mark, struct err *e,
                            const char *fmt, ...) PRINTF_LIKE(4, 5);

/* One YAML document as a tree. Refused, each with its place: text that is not UTF-8, tabs, repeated keys,
 * anchors, aliases, tags, a second document, nesting or size beyond what a spec needs. */
MUST_USE enum err_code sweep_yaml_parse(const struct spec_source *src, struct str text,
                                        struct node **root, struct err *e);

/* ---- axes of a configuration ---- */

/* X(id, "key of a spec", what a value must be). Order is that of products and of printed cells. */
#define AXIS_LIST(X)                                                                               \
    X(K, "k", "2 to 8 bits, 16 or 32")                                                             \
    X(DTYPE, "dtype", "a data type")                                                               \
    X(EXPONENT_BITS, "exponent_bits", "1 to 7 bits, or paper")                                     \
    X(SUBNORMAL_SHIFT, "subnormal_shift", "0, 2 or 4")                                             \
    X(BLOCK, "block", "a power of two from 32 to 4096 elements, or tensor")                        \
    X(CENTER, "center", "what mean is subtracted")                                                 \
    X(OUTLIER_PCT, "outlier_pct", "0 to 50 per cent")                                              \
    X(OUTLIER_RULE, "outlier_rule", "a rule")                                                      \
    X(QUANT_HEAD, "quant_head", "true or false")                                                   \
    X(QUANT_EMBED, "quant_embed", "true or false")                                                 \
    X(DEQUANT, "dequant", "a precision")                                                           \
    X(COMPUTE, "compute", "a precision")

enum axis {
#define X(id, key, expected) AXIS_##id,
    AXIS_LIST(X)
#undef X
        AXIS_COUNT
};

/* Stands for the number that the paper uses at each k until k is known. */
enum { EXPONENT_BITS_PAPER = -1 };

const char *axis_key(enum axis x);
/* One value as a number: bits, elements (0: tensor), per cent, the enum's value, 0 or 1. */
MUST_USE enum err_code axis_parse(const struct spec_source *src, enum axis x, const struct node *v,
                                  double *out, struct err *e);
/* How a value of an axis is spelled in a spec. */
const char *axis_spell(enum axis x, double v, struct arena *a);
void axis_set(struct config *c, enum axis x, double v);
double axis_get(const struct config *c, enum axis x);
/* Whether the axis means anything for this cell: only compute does at k >= 16, exponent_bits only for
 * float, outlier_rule only where there are outliers. */
bool axis_applies(const struct config *c, enum axis x);
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

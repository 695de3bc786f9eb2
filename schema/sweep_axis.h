/* Axes of a configuration as data: their keys in a spec, their values as numbers, what they mean for a cell. For those
 * that go through all axes alike: reading specs, expanding them, counting jobs by axis. Pure. */
#ifndef ISOBIT_SCHEMA_SWEEP_AXIS_H
#define ISOBIT_SCHEMA_SWEEP_AXIS_H

#include <stdbool.h>

#include "base/mem.h"
#include "schema/job.h"

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
/* A value as a number: bits, elements (0: tensor), per cent, the enum's value, 0 or 1. */
void axis_set(struct config *c, enum axis x, double v);
double axis_get(const struct config *c, enum axis x);
/* How a value of an axis is spelled in a spec. */
const char *axis_spell(enum axis x, double v, struct arena *a);
/* Whether the axis means anything for this cell: only compute does at k >= 16, exponent_bits only for
 * float, outlier_rule only where there are outliers. */
bool axis_applies(const struct config *c, enum axis x);

#endif

/* A frame turned into a table: one row per (sweep, model, setting), one column per bit width. Pure. */
#ifndef ISOBIT_ANALYSIS_PIVOT_H
#define ISOBIT_ANALYSIS_PIVOT_H

#include "analysis/frame.h"

enum { PIVOT_MAX_K = 16 };

struct pivot_row {
    const char *sweep, *family, *size;
    double n_params;
    struct setting setting;
    double value[PIVOT_MAX_K]; /* by column; NaN: not measured */
    double bits_per_param[PIVOT_MAX_K];
};

struct pivot {
    int k[PIVOT_MAX_K]; /* ascending */
    int n_k;
    struct pivot_row *rows;
    int n_rows;
};

/* A model with a baseline only gets a row of its own. Rows keep the frame's order; owned by `a`. */
struct pivot pivot_build(const struct frame *f, enum metric_id m, struct arena *a);

#endif

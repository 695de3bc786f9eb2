/* Pictures as data: panels of lines with their intervals. figures_build() decides what the pictures of a sweep are; gnuplot.c draws
 * them into files, html_data.c hands them to the page. A bit width has one colour in every picture (Okabe and Ito's set); data types
 * and block sizes have others, so that nobody takes one for the other. Pure. */
#ifndef ISOBIT_ANALYSIS_FIGURE_H
#define ISOBIT_ANALYSIS_FIGURE_H

#include "analysis/fit.h"

struct series {
    const char *label, *color; /* "#rrggbb" */
    bool is_dashed;
    double *x, *y;
    double *low, *high; /* 95 % interval of y; NULL: none */
    const char **names; /* of the points: the model's size */
    int n;
};

struct panel {
    const char *title;
    struct series *series;
    int n_series;
};

enum figure_axis { AXIS_LINEAR, AXIS_LOG, AXIS_WHOLE /* whole numbers, each with a tick */ };

/* Where a line's name stands: at its first point, on the side away from the other lines (lines that begin in different places, as
 * those of the bit widths do), or right of its last one. */
enum figure_labels { LABELS_AT_START, LABELS_AT_END };

struct figure {
    const char *name; /* file name without suffix */
    const char *title, *caption;
    const char *metric; /* what a page groups pictures by: "perplexity", "zero-shot"; NULL: both */
    const char *x_title, *y_title;
    enum figure_axis x_axis, y_axis;
    enum figure_labels labels;
    bool is_scatter; /* points without lines */
    bool is_bits;    /* x counts bits */
    struct panel *panels;
    int n_panels;
};

/* 95 % intervals of the frame's rows, one number a row; NULL: none. */
struct figure_intervals {
    double *low[METRIC_COUNT], *high[METRIC_COUNT];
};

const char *figure_color_of_k(int k); /* "#rrggbb" */

/* The setting a sweep's main curves are drawn in: plain, with the most points; float and block 64 win ties. NULL without groups. */
const struct group *main_group(const struct group *groups, int n_groups, const char *family);

/* The pictures that the frame has data for. `intervals` may be NULL. All owned by `a`. */
struct figure *figures_build(const struct frame *f, enum bits_id b,
                             const struct figure_intervals *intervals, struct arena *a,
                             int *n_figures);

#endif

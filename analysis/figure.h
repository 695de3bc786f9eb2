/* Pictures as data: panels of series with titles and colours. figures_build() decides what a sweep's pictures are, gnuplot.c draws
 * them. Colours are Okabe and Ito's colour-blind safe set, the same for a bit width in every picture. Pure. */
#ifndef ISOBIT_ANALYSIS_FIGURE_H
#define ISOBIT_ANALYSIS_FIGURE_H

#include "analysis/fit.h"

struct series {
    const char *label;
    const char *color; /* "#rrggbb" */
    double *x, *y;
    int n;
};

struct panel {
    const char *title;
    struct series *series;
    int n_series;
};

struct figure {
    const char *name; /* file name without suffix */
    const char *title, *caption;
    const char *x_title, *y_title;
    bool is_y_log;
    bool
        is_keyed; /* lines end in different places: a key in the corner they leave free; else labels at their ends */
    struct panel *panels;
    int n_panels;
};

/* The setting a sweep's main curves are drawn in: plain, with the most points; float and block 64 win ties. NULL without groups. */
const struct group *main_group(const struct group *groups, int n_groups, const char *family);

/* The pictures that the frame has data for: scaling curves of `nll` as perplexity and of the mean zero-shot accuracy per family, one
 * line a bit width; block sizes and data types at k = 4 and k = 3 where the sweep varies them. All owned by `a`. */
struct figure *figures_build(const struct frame *f, enum bits_id b, struct arena *a,
                             int *n_figures);

#endif

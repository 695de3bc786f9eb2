/* A picture as text for gnuplot: the script and its data. Pure. Every text goes into the script in single quotes, where gnuplot runs
 * nothing: names come from a database. */
#ifndef ISOBIT_ANALYSIS_GNUPLOT_SCRIPT_H
#define ISOBIT_ANALYSIS_GNUPLOT_SCRIPT_H

#include "analysis/figure.h"
#include "base/str.h"

/* One block a line of the picture, in order: "x y low high name"; low and high are y where there is no interval. */
void gnuplot_add_data(struct buf *s, const struct figure *fig);
/* Draws NAME.dat into NAME.svg, NAME.png and NAME.pdf. */
void gnuplot_add_script(struct buf *s, const struct figure *fig);

#endif

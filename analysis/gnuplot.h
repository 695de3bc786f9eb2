/* Draws figures with gnuplot: NAME.dat and NAME.gp are written into a folder and kept beside NAME.svg, NAME.png and NAME.pdf, so that
 * a picture can be changed by hand. */
#ifndef ISOBIT_ANALYSIS_GNUPLOT_H
#define ISOBIT_ANALYSIS_GNUPLOT_H

#include "analysis/figure.h"

/* Errors: ERR_NOTFOUND when gnuplot is not installed (with the package's name), ERR_IO with gnuplot's own words. */
MUST_USE enum err_code gnuplot_draw(const struct figure *fig, const char *dir, struct err *e);

#endif

/* Intervals of every row of a frame, from the bootstrap's resamples: the bands of pictures and the ranges in tables. */
#ifndef ISOBIT_ANALYSIS_BANDS_H
#define ISOBIT_ANALYSIS_BANDS_H

#include "analysis/bootstrap.h"
#include "analysis/figure.h"
#include "analysis/source.h"

/* 95 % intervals of each row's own value. Rows without items have none (NaN); metrics that were not drawn stay NULL. Owned by `a`. */
struct figure_intervals bands_plain(const struct bootstrap *b, struct arena *a);

/* The same for what sets a row apart from the mean of its family (within a sweep and precision), around the row's value. Which items
 * a resample holds moves all rows together and says nothing about which line is above which: this takes it out, as a paired
 * comparison does, so that bands which do not overlap mean a difference. */
struct figure_intervals bands_paired(const struct bootstrap *b, const struct frame *f,
                                     struct arena *a);

/* Loads the items of the source's frame (owned by its arena) and draws resamples of them. Caller calls bootstrap_release. */
MUST_USE enum err_code bands_bootstrap(struct source *src, const struct bootstrap_opts *o,
                                       struct items *items, struct bootstrap *out, struct err *e);

#endif

/* How numbers with intervals and the limits of an analysis are put into words, the same in every command. */
#ifndef ISOBIT_ANALYSIS_TELL_H
#define ISOBIT_ANALYSIS_TELL_H

#include "analysis/bootstrap.h"
#include "base/json.h"

enum { TELL_MAX_NOTES = 8 };

/* What a reader must know about the numbers: capped values, cells left out, checkpoints averaged, rows without error bars. One sentence
 * each. */
struct notes {
    const char *v[TELL_MAX_NOTES];
    int n;
};
/* `b` NULL: no intervals are shown. Owned by `a`. */
struct notes tell_notes(const struct frame *f, enum metric_id m, const struct group *groups,
                        int n_groups, int n_dropped, const struct items *items,
                        const struct bootstrap *b, struct arena *a);
json_t *tell_notes_json(const struct notes *n);

/* "[3.512, 3.602]" in the metric's format, with signs for differences; "" for no interval. Owned by `a`. */
const char *tell_interval(struct interval i, enum metric_id m, bool is_difference, struct arena *a);
/* "3.552"; "-" for NaN. */
const char *tell_value(double v, enum metric_id m, bool is_difference, struct arena *a);
/* [low, high], or null. New reference. */
json_t *tell_interval_json(struct interval i);

#endif

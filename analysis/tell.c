#include "analysis/tell.h"

#include <math.h>

static void add_note(struct notes *n, const char *text)
{
    CHECK(n->n < TELL_MAX_NOTES);
    n->v[n->n++] = text;
}

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

static void note_data(struct notes *n, const struct frame *f, enum metric_id m, int n_merged,
                      int n_dropped, struct arena *a)
{
    bool is_perplexity = m == METRIC_NLL || m == METRIC_PERPLEXITY;
    if (is_perplexity && f->n_capped > 0)
        add_note(n, arena_printf(a,
                                 "%d perplexit%s above %g or infinite count as %g, as in the paper "
                                 "(--cap).",
                                 f->n_capped, f->n_capped == 1 ? "y" : "ies", f->cap, f->cap));
    if (n_dropped > 0)
        add_note(n, arena_printf(a, "%d cell%s without a finite value %s left out.", n_dropped,
                                 plural(n_dropped), n_dropped == 1 ? "is" : "are"));
    if (n_merged > 0)
        add_note(n,
                 arena_printf(a,
                              "%d point%s of the curves stand%s for several checkpoints of equal "
                              "bits, as their mean.",
                              n_merged, plural(n_merged), n_merged == 1 ? "s" : ""));
}

static void note_resamples(struct notes *n, enum metric_id m, const struct items *items,
                           const struct bootstrap *b, struct arena *a)
{
    if (b == NULL || b->n_resamples == 0) {
        add_note(n, "No intervals: the bootstrap was switched off (--resamples 0).");
        return;
    }
    if (b->value[m] == NULL) {
        add_note(n, "No intervals: this metric is not stored per item.");
        return;
    }
    int n_fixed = 0;
    for (int i = 0; i < b->n_rows; i++)
        n_fixed += !b->is_drawn[m][i] && !isnan(b->value[m][i]);
    if (n_fixed > 0)
        add_note(n,
                 arena_printf(a,
                              "%d configuration%s without usable values per item: taken as exact, "
                              "intervals are too narrow there.",
                              n_fixed, plural(n_fixed)));
    if (b->n_contradicted > 0)
        add_note(n, arena_printf(a,
                                 "The items of %d configuration%s give another value than the "
                                 "stored one: taken as exact.",
                                 b->n_contradicted, plural(b->n_contradicted)));
    if (items->n_unreadable > 0)
        add_note(n,
                 arena_printf(a, "The items of %d job%s could not be read (%s).",
                              items->n_unreadable, plural(items->n_unreadable), items->unreadable));
}

struct notes tell_notes(const struct frame *f, enum metric_id m, const struct group *groups,
                        int n_groups, int n_dropped, const struct items *items,
                        const struct bootstrap *b, struct arena *a)
{
    struct notes n = {0};
    int n_merged = 0;
    bool has_pair = n_groups == 0;
    for (int i = 0; i < n_groups; i++) {
        n_merged += groups[i].n_merged;
        double at[1];
        has_pair = has_pair || budgets_of(&groups[i], 1, at);
    }
    note_data(&n, f, m, n_merged, n_dropped, a);
    if (!has_pair)
        add_note(&n, "No two curves share a budget: bit widths cannot be compared before more "
                     "sizes of a family, or more widths, are measured.");
    note_resamples(&n, m, items, b, a);
    return n;
}

json_t *tell_notes_json(const struct notes *n)
{
    json_t *list = json_array();
    for (int i = 0; i < n->n; i++)
        json_array_append_new(list, json_string(n->v[i]));
    return list;
}

const char *tell_value(double v, enum metric_id m, bool is_difference, struct arena *a)
{
    if (isnan(v))
        return "-";
    int digits = m == METRIC_PERPLEXITY ? 3 : m == METRIC_KL ? 5 : 4;
    return is_difference ? arena_printf(a, "%+.*f", digits, v) : arena_printf(a, "%.*f", digits, v);
}

const char *tell_interval(struct interval i, enum metric_id m, bool is_difference, struct arena *a)
{
    if (isnan(i.low) || isnan(i.high))
        return "";
    return arena_printf(a, "[%s, %s]", tell_value(i.low, m, is_difference, a),
                        tell_value(i.high, m, is_difference, a));
}

json_t *tell_interval_json(struct interval i)
{
    return isfinite(i.low) && isfinite(i.high) ? json_pack("[f,f]", i.low, i.high) : json_null();
}

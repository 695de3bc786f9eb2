#include "analysis/bands.h"

#include <math.h>
#include <string.h>

/* Neighbours in the frame whose bands leave out what they have in common. */
struct kin {
    int from, to; /* rows [from, to) */
};

static bool is_kin(const struct frame_row *x, const struct frame_row *y)
{
    return strcmp(x->sweep, y->sweep) == 0 && strcmp(x->family, y->family) == 0;
}

/* Subtracts from every row, in each resample, by how much the mean of its kin's drawn rows is off its mean over all resamples.
 * common[r]: that mean in resample r. */
static void find_common(const struct bootstrap *b, enum metric_id m, struct kin kin, double *common)
{
    double sum = 0;
    for (int r = 0; r < b->n_resamples; r++) {
        const double *v = &b->value[m][(size_t)r * (size_t)b->n_rows];
        double total = 0;
        int n = 0;
        for (int i = kin.from; i < kin.to; i++)
            if (b->is_drawn[m][i]) {
                total += v[i];
                n++;
            }
        common[r] = n > 0 ? total / n : 0;
        sum += common[r];
    }
    for (int r = 0; r < b->n_resamples; r++)
        common[r] -= sum / b->n_resamples;
}

/* common: what is taken out of each resample; NULL: nothing. */
static void fill_rows(const struct bootstrap *b, enum metric_id m, struct kin kin,
                      const double *common, double *drawn, struct figure_intervals *out)
{
    for (int i = kin.from; i < kin.to; i++) {
        struct interval range = {NAN, NAN};
        if (b->is_drawn[m][i]) {
            for (int r = 0; r < b->n_resamples; r++)
                drawn[r] = b->value[m][(size_t)r * (size_t)b->n_rows + (size_t)i] -
                           (common != NULL ? common[r] : 0);
            range = interval_of(drawn, b->n_resamples);
        }
        out->low[m][i] = range.low;
        out->high[m][i] = range.high;
    }
}

static const enum metric_id drawn_metrics[] = {METRIC_NLL, METRIC_ZERO_SHOT};

/* Room for the intervals of the metrics that were drawn. */
static struct figure_intervals intervals_new(const struct bootstrap *b, struct arena *a)
{
    struct figure_intervals out = {0};
    for (size_t j = 0; b->n_resamples > 1 && j < ARRAY_LEN(drawn_metrics); j++) {
        enum metric_id m = drawn_metrics[j];
        if (b->value[m] == NULL)
            continue;
        out.low[m] = arena_array(a, (size_t)b->n_rows + 1, sizeof(double));
        out.high[m] = arena_array(a, (size_t)b->n_rows + 1, sizeof(double));
    }
    return out;
}

struct figure_intervals bands_plain(const struct bootstrap *b, struct arena *a)
{
    struct figure_intervals out = intervals_new(b, a);
    double *drawn = arena_array(a, (size_t)b->n_resamples + 1, sizeof(double));
    for (size_t j = 0; j < ARRAY_LEN(drawn_metrics); j++)
        if (out.low[drawn_metrics[j]] != NULL)
            fill_rows(b, drawn_metrics[j], (struct kin){0, b->n_rows}, NULL, drawn, &out);
    return out;
}

struct figure_intervals bands_paired(const struct bootstrap *b, const struct frame *f,
                                     struct arena *a)
{
    struct figure_intervals out = intervals_new(b, a);
    double *drawn = arena_array(a, (size_t)b->n_resamples + 1, sizeof(double));
    double *common = arena_array(a, (size_t)b->n_resamples + 1, sizeof(double));
    for (size_t j = 0; j < ARRAY_LEN(drawn_metrics); j++) {
        enum metric_id m = drawn_metrics[j];
        for (struct kin kin = {0, 0}; out.low[m] != NULL && kin.from < f->n; kin.from = kin.to) {
            while (kin.to < f->n && is_kin(&f->rows[kin.from], &f->rows[kin.to]))
                kin.to++;
            find_common(b, m, kin, common);
            fill_rows(b, m, kin, common, drawn, &out);
        }
    }
    return out;
}

enum err_code bands_bootstrap(struct source *src, const struct bootstrap_opts *o,
                              struct items *items, struct bootstrap *out, struct err *e)
{
    *items = (struct items){0};
    if (o->n_resamples > 0)
        TRY(items_read(src->store, &src->frame, src->arena, items, e));
    return bootstrap_run(&src->frame, items, o, src->arena, out, e);
}

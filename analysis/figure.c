#include "analysis/figure.h"

#include <math.h>
#include <string.h>

#include "analysis/stat.h"

enum { MAX_FAMILIES = 32, MAX_SERIES = 16, MAX_FIGURES = 16, MAX_EXPONENT = 8 };

/* What the pictures of one metric are made from. */
struct drawing {
    const struct frame *frame;
    enum metric_id metric;
    bool
        is_exp; /* drawn as its exponential: perplexity from cross entropy, whose lines are straight on a logarithmic axis */
    const struct figure_intervals *intervals; /* NULL: none */
    const struct group *groups;
    int n_groups;
    const char *families[MAX_FAMILIES];
    int n_families;
    struct arena *arena;
};

const char *figure_color_of_k(int k)
{
    static const char *const colors[] = {
        [2] = "#8c6d00", [3] = "#d55e00", [4] = "#0072b2", [5] = "#009e73",
        [6] = "#cc79a7", [7] = "#e69f00", [8] = "#56b4e9", [16] = "#222222"};
    return k >= 0 && k < (int)ARRAY_LEN(colors) && colors[k] != NULL ? colors[k] : "#999999";
}

/* Categories; the first ones are the most different (Tol's muted set). */
static const char *const category_colors[] = {"#332288", "#cc6677", "#117733", "#aa8800",
                                              "#882255", "#44aa99", "#777777", "#aa4499"};

static int n_points(const struct group *g)
{
    int n = 0;
    for (int i = 0; i < g->n_curves; i++)
        n += g->curves[i].k < 16 ? g->curves[i].n : 0;
    return n;
}

static int preference(const struct group *g)
{
    return (strcmp(g->setting.dtype, "float") == 0 ? 2 : 0) + (g->setting.block == 64 ? 1 : 0);
}

const struct group *main_group(const struct group *groups, int n_groups, const char *family)
{
    const struct group *best = NULL;
    for (int i = 0; i < n_groups; i++) {
        const struct group *g = &groups[i];
        if (strcmp(g->family, family) != 0 || !setting_is_plain(&g->setting))
            continue;
        int more = best == NULL ? 1 : n_points(g) - n_points(best);
        if (more > 0 || (more == 0 && preference(g) > preference(best)))
            best = g;
    }
    return best;
}

static void find_families(struct drawing *d)
{
    for (int i = 0; i < d->n_groups && d->n_families < MAX_FAMILIES; i++) {
        bool is_known = false;
        for (int j = 0; j < d->n_families; j++)
            is_known = is_known || strcmp(d->families[j], d->groups[i].family) == 0;
        if (!is_known)
            d->families[d->n_families++] = d->groups[i].family;
    }
}

static double shown(const struct drawing *d, double value)
{
    return d->is_exp ? exp(value) : value;
}

/* The interval of a point: its row's, or the mean of its rows' where checkpoints have equal bits. false: none. */
static bool point_interval(const struct drawing *d, const struct curve_point *p, double *low,
                           double *high)
{
    const double *lows = d->intervals != NULL ? d->intervals->low[d->metric] : NULL;
    if (lows == NULL || p->n_rows == 0)
        return false;
    double sum_low = 0;
    double sum_high = 0;
    for (int i = 0; i < p->n_rows; i++) {
        sum_low += lows[p->rows[i]];
        sum_high += d->intervals->high[d->metric][p->rows[i]];
    }
    *low = shown(d, sum_low / p->n_rows);
    *high = shown(d, sum_high / p->n_rows);
    return isfinite(*low) && isfinite(*high);
}

static struct series series_new(const char *label, const char *color, int capacity, struct arena *a)
{
    return (struct series){.label = label,
                           .color = color,
                           .x = arena_array(a, (size_t)capacity + 1, sizeof(double)),
                           .y = arena_array(a, (size_t)capacity + 1, sizeof(double)),
                           .names = arena_array(a, (size_t)capacity + 1, sizeof(char *))};
}

static struct series series_of(const struct drawing *d, const struct curve *c, const char *label,
                               const char *color)
{
    struct series s = series_new(label, color, c->n, d->arena);
    double *low = arena_array(d->arena, (size_t)c->n + 1, sizeof(double));
    double *high = arena_array(d->arena, (size_t)c->n + 1, sizeof(double));
    bool has_band = c->n > 0;
    for (int i = 0; i < c->n; i++) {
        s.x[i] = exp2(c->points[i].log2_bits);
        s.y[i] = shown(d, c->points[i].value);
        s.names[i] = c->points[i].size;
        has_band = has_band && point_interval(d, &c->points[i], &low[i], &high[i]);
    }
    s.n = c->n;
    s.low = has_band ? low : NULL;
    s.high = has_band ? high : NULL;
    return s;
}

static struct figure figure_new(const struct drawing *d, int max_panels)
{
    return (struct figure){.panels =
                               arena_array(d->arena, (size_t)max_panels + 1, sizeof(struct panel))};
}

static struct panel *panel_add(struct figure *fig, const char *title, int max_series,
                               struct arena *a)
{
    struct panel *p = &fig->panels[fig->n_panels++];
    *p = (struct panel){.title = title,
                        .series = arena_array(a, (size_t)max_series + 1, sizeof(struct series))};
    return p;
}

/* ---- one line a bit width, a panel a family ---- */

static bool is_main_width(int k)
{
    return k == 3 || k == 4 || k == 8 || k == 16;
}

static int n_widths(const struct group *g, bool is_all)
{
    int n = 0;
    for (int i = 0; i < g->n_curves; i++)
        n += g->curves[i].n > 0 && (is_all || is_main_width(g->curves[i].k));
    return n;
}

/* The widths that the paper's main figure has, or all of them; few widths that are none of these are shown as they are. */
static struct figure scaling_figure(const struct drawing *d, bool is_all)
{
    struct figure fig = figure_new(d, d->n_families);
    for (int i = 0; i < d->n_families; i++) {
        const struct group *g = main_group(d->groups, d->n_groups, d->families[i]);
        if (g == NULL || n_widths(g, true) == 0)
            continue;
        bool is_few = n_widths(g, false) < 2;
        if (is_all && (is_few || n_widths(g, true) == n_widths(g, false)))
            continue; /* the main picture shows the same */
        struct panel *p = panel_add(
            &fig,
            arena_printf(d->arena, "%s (%s)", g->family, setting_label(&g->setting, d->arena)),
            g->n_curves, d->arena);
        for (int c = 0; c < g->n_curves; c++)
            if (g->curves[c].n > 0 && (is_all || is_few || is_main_width(g->curves[c].k)))
                p->series[p->n_series++] =
                    series_of(d, &g->curves[c], arena_printf(d->arena, "%d bit", g->curves[c].k),
                              figure_color_of_k(g->curves[c].k));
    }
    fig.labels = LABELS_AT_START;
    return fig;
}

/* ---- what varies at one bit width, everything else as in the family's main setting ---- */

enum compare_by { BY_BLOCK, BY_DTYPE };

static bool is_same_place(const struct group *g, const struct group *main)
{
    return strcmp(g->family, main->family) == 0 && strcmp(g->sweep, main->sweep) == 0 &&
           strcmp(g->setting.compute, main->setting.compute) == 0;
}

static bool is_comparable(const struct group *g, const struct group *main, enum compare_by by)
{
    if (!is_same_place(g, main) || !setting_is_plain(&g->setting))
        return false;
    return by == BY_BLOCK ? strcmp(g->setting.dtype, main->setting.dtype) == 0
                          : g->setting.block == main->setting.block;
}

static void add_comparison(struct figure *fig, const struct drawing *d, const struct group *main,
                           int k, enum compare_by by)
{
    const char *fixed = by == BY_DTYPE ? arena_printf(d->arena, "block %s",
                                                      block_label(main->setting.block, d->arena))
                                       : main->setting.dtype;
    struct panel *p =
        panel_add(fig, arena_printf(d->arena, "%s, %d bit (%s)", main->family, k, fixed),
                  MAX_SERIES, d->arena);
    for (int i = 0; i < d->n_groups && p->n_series < MAX_SERIES; i++) {
        const struct group *g = &d->groups[i];
        const struct curve *c = group_curve(g, k);
        if (c == NULL || c->n == 0 || !is_comparable(g, main, by))
            continue;
        const char *label =
            by == BY_DTYPE ? g->setting.dtype : block_label(g->setting.block, d->arena);
        const char *color = category_colors[p->n_series % (int)ARRAY_LEN(category_colors)];
        p->series[p->n_series++] = series_of(d, c, label, color);
    }
    if (p->n_series < 2)
        fig->n_panels--;
}

static struct figure comparison_figure(const struct drawing *d, enum compare_by by)
{
    static const int widths[] = {4, 3};
    struct figure fig = figure_new(d, (int)ARRAY_LEN(widths) * d->n_families);
    for (int i = 0; i < d->n_families; i++) {
        const struct group *main = main_group(d->groups, d->n_groups, d->families[i]);
        for (size_t w = 0; main != NULL && w < ARRAY_LEN(widths); w++)
            add_comparison(&fig, d, main, widths[w], by);
    }
    fig.labels = LABELS_AT_END;
    return fig;
}

/* ---- 3 and 4 bit, with and without columns kept in 16 bit ---- */

static bool differs_in_outliers_only(const struct setting *x, const struct setting *y)
{
    struct setting plain = *x;
    plain.outlier_pct = y->outlier_pct;
    plain.outlier_rule = y->outlier_rule;
    return setting_equal(&plain, y);
}

static void add_outliers(struct figure *fig, const struct drawing *d, const struct group *main)
{
    struct panel *p = panel_add(
        fig,
        arena_printf(d->arena, "%s (%s)", main->family, setting_label(&main->setting, d->arena)),
        MAX_SERIES, d->arena);
    int n_with = 0;
    for (int i = 0; i < d->n_groups; i++) {
        const struct group *g = &d->groups[i];
        if (!is_same_place(g, main) || !differs_in_outliers_only(&g->setting, &main->setting))
            continue;
        for (int k = 3; k <= 4 && p->n_series < MAX_SERIES; k++) {
            const struct curve *c = group_curve(g, k);
            if (c == NULL || c->n == 0)
                continue;
            bool is_with = g->setting.outlier_pct > 0;
            const char *label =
                is_with ? arena_printf(d->arena, "%d bit + %g %%", k, g->setting.outlier_pct)
                        : arena_printf(d->arena, "%d bit", k);
            p->series[p->n_series] = series_of(d, c, label, figure_color_of_k(k));
            p->series[p->n_series++].is_dashed = is_with;
            n_with += is_with;
        }
    }
    if (n_with == 0)
        fig->n_panels--;
}

static struct figure outlier_figure(const struct drawing *d)
{
    struct figure fig = figure_new(d, d->n_families);
    for (int i = 0; i < d->n_families; i++) {
        const struct group *main = main_group(d->groups, d->n_groups, d->families[i]);
        if (main != NULL)
            add_outliers(&fig, d, main);
    }
    fig.labels = LABELS_AT_END;
    return fig;
}

/* ---- the mean over sizes against the exponent bits of the float type, one line a bit width ---- */

static bool is_float_row(const struct frame_row *r, const struct group *main, int k)
{
    return r->k == k && r->dtype != NULL && strcmp(r->dtype, "float") == 0 &&
           strcmp(r->family, main->family) == 0 && strcmp(r->sweep, main->sweep) == 0 &&
           strcmp(r->compute, main->setting.compute) == 0 && r->block == main->setting.block &&
           r->outlier_pct == 0 && r->subnormal_shift == 0 && r->exponent_bits > 0 &&
           r->exponent_bits < MAX_EXPONENT && strcmp(r->center, "none") == 0;
}

/* Sizes must not come and go along a line: only those that have every exponent of this width count. */
static struct series exponent_series(const struct drawing *d, const struct group *main, int k)
{
    const struct frame *f = d->frame;
    double sum[MAX_EXPONENT] = {0};
    int n[MAX_EXPONENT] = {0};
    int most = 0;
    for (int i = 0; i < f->n; i++)
        if (is_float_row(&f->rows[i], main, k) && isfinite(f->rows[i].metric[d->metric])) {
            sum[f->rows[i].exponent_bits] += f->rows[i].metric[d->metric];
            most = n[f->rows[i].exponent_bits]++ >= most ? n[f->rows[i].exponent_bits] : most;
        }
    struct series s = series_new(arena_printf(d->arena, "%d bit", k), figure_color_of_k(k),
                                 MAX_EXPONENT, d->arena);
    for (int e = 1; e < MAX_EXPONENT; e++)
        if (n[e] == most && most > 0) {
            s.x[s.n] = e;
            s.y[s.n] = shown(d, sum[e] / n[e]);
            s.names[s.n++] = arena_printf(d->arena, "E%dM%d, mean of %d sizes", e, k - 1 - e, n[e]);
        }
    return s;
}

static struct figure exponent_figure(const struct drawing *d)
{
    struct figure fig = figure_new(d, d->n_families);
    for (int i = 0; i < d->n_families; i++) {
        const struct group *main = main_group(d->groups, d->n_groups, d->families[i]);
        if (main == NULL)
            continue;
        struct panel *p = panel_add(&fig,
                                    arena_printf(d->arena, "%s (float, block %s)", main->family,
                                                 block_label(main->setting.block, d->arena)),
                                    MAX_SERIES, d->arena);
        for (int k = 3; k <= 8; k++) {
            struct series s = exponent_series(d, main, k);
            if (s.n >= 2)
                p->series[p->n_series++] = s;
        }
        if (p->n_series == 0)
            fig.n_panels--;
    }
    fig.labels = LABELS_AT_END;
    return fig;
}

/* ---- perplexity against mean zero-shot accuracy ---- */

static bool is_in_cloud(const struct frame_row *r)
{
    return isfinite(r->metric[METRIC_PERPLEXITY]) && isfinite(r->metric[METRIC_ZERO_SHOT]);
}

/* Pearson's r over a family's rows (all of them: family NULL), of perplexity or its logarithm. */
static double cloud_r(const struct frame *f, const char *family, enum metric_id m, int *n,
                      struct arena *a)
{
    double *x = arena_array(a, (size_t)f->n + 1, sizeof(double));
    double *y = arena_array(a, (size_t)f->n + 1, sizeof(double));
    *n = 0;
    for (int i = 0; i < f->n; i++)
        if (is_in_cloud(&f->rows[i]) &&
            (family == NULL || strcmp(f->rows[i].family, family) == 0)) {
            x[*n] = f->rows[i].metric[m];
            y[(*n)++] = f->rows[i].metric[METRIC_ZERO_SHOT];
        }
    return *n > 2 ? stat_pearson(x, y, *n) : NAN;
}

static void add_cloud(struct panel *p, const struct frame *f, const char *family, struct arena *a)
{
    for (int k = 2; k <= 16; k++) {
        struct series s = series_new(arena_printf(a, "%d bit", k), figure_color_of_k(k), f->n, a);
        for (int i = 0; i < f->n; i++) {
            const struct frame_row *r = &f->rows[i];
            if (r->k != k || strcmp(r->family, family) != 0 || !is_in_cloud(r))
                continue;
            s.x[s.n] = r->metric[METRIC_PERPLEXITY];
            s.y[s.n] = r->metric[METRIC_ZERO_SHOT];
            struct setting setting = setting_of(r, a);
            s.names[s.n++] =
                k < 16 ? arena_printf(a, "%s %s, %s", family, r->size, setting_label(&setting, a))
                       : arena_printf(a, "%s %s", family, r->size);
        }
        if (s.n > 0 && p->n_series < MAX_SERIES)
            p->series[p->n_series++] = s;
    }
}

static struct figure cloud_figure(const struct drawing *d)
{
    struct figure fig = figure_new(d, d->n_families);
    int n = 0;
    for (int i = 0; i < d->n_families; i++) {
        const char *family = d->families[i];
        double r = cloud_r(d->frame, family, METRIC_PERPLEXITY, &n, d->arena);
        if (isfinite(r))
            add_cloud(panel_add(&fig, arena_printf(d->arena, "%s: r = %.2f, n = %d", family, r, n),
                                MAX_SERIES, d->arena),
                      d->frame, family, d->arena);
    }
    double r = cloud_r(d->frame, NULL, METRIC_PERPLEXITY, &n, d->arena);
    double r_log = cloud_r(d->frame, NULL, METRIC_NLL, &n, d->arena);
    fig.caption = arena_printf(
        d->arena,
        "Each point is a configuration of a model. Over all %d of them Pearson's r is %.3f, with "
        "the logarithm of the perplexity %.3f%s. The paper finds -0.94.",
        n, r, r_log,
        d->n_families > 1 ? " (families with different tokenizers have perplexities of their own)"
                          : "");
    fig.is_scatter = true;
    return fig;
}

/* ---- all of them ---- */

/* Keeps a picture that has something to show. */
static void figure_keep(struct figure *figures, int *n, const struct figure *content,
                        struct figure words)
{
    if (content->n_panels == 0 || *n == MAX_FIGURES)
        return;
    words.panels = content->panels;
    words.n_panels = content->n_panels;
    words.labels = content->labels;
    words.is_scatter = content->is_scatter;
    words.caption = content->caption != NULL ? content->caption : words.caption;
    figures[(*n)++] = words;
}

static void add_pictures(struct figure *figures, int *n, const struct drawing *d, enum bits_id b)
{
    const char *metric = d->is_exp ? "perplexity" : metric_info_of(d->metric)->option;
    const char *better = metric_info_of(d->metric)->is_larger_better ? "higher" : "lower";
    const struct figure scaling = scaling_figure(d, false);
    const struct figure widths = scaling_figure(d, true);
    const struct figure blocks = comparison_figure(d, BY_BLOCK);
    const struct figure types = comparison_figure(d, BY_DTYPE);
    const struct figure outliers = outlier_figure(d);
    const struct figure exponents = exponent_figure(d);
    struct figure words = {.metric = metric,
                           .x_title = bits_title(b),
                           .y_title = d->is_exp ? "Perplexity" : "Mean zero-shot accuracy",
                           .x_axis = AXIS_LOG,
                           .y_axis = d->is_exp ? AXIS_LOG : AXIS_LINEAR,
                           .is_bits = true};
    const struct {
        const struct figure *content;
        const char *name, *title, *caption;
    } pictures[] = {
        {&scaling, "scaling", "Scaling curves",
         "Each line is one bit width, each point a model size. At an equal number of bits the %s "
         "line wins."},
        {&widths, "widths", "Every bit width",
         "As above, with all widths that were measured; the %s line wins."},
        {&blocks, "block-size", "Block size at equal bits",
         "A block of B weights costs 16/B bits a weight for its constant and must earn them: the "
         "%s line wins."},
        {&types, "data-type", "Data type at equal bits",
         "All types cost the same bits; the %s line wins."},
        {&outliers, "outliers", "Keeping outlier columns in 16 bit",
         "Dashed lines keep a share of the input columns in 16 bit, which costs bits; the %s line "
         "wins."},
        {&exponents, "exponent-bits", "Exponent bits of the float type",
         "Mean over the model sizes that have every point of a line; %s is better."},
    };
    for (size_t i = 0; i < ARRAY_LEN(pictures); i++) {
        words.name = arena_printf(d->arena, "%s-%s", pictures[i].name, metric);
        words.title = pictures[i].title;
        // NOLINTNEXTLINE(clang-diagnostic-format-nonliteral): from the table above
        words.caption = arena_printf(d->arena, pictures[i].caption, better);
        if (pictures[i].content == &exponents) {
            words.is_bits = false;
            words.x_axis = AXIS_WHOLE;
            words.x_title = "Exponent bits";
        }
        figure_keep(figures, n, pictures[i].content, words);
    }
}

static struct drawing drawing_of(const struct frame *f, enum metric_id m, enum bits_id b,
                                 const struct figure_intervals *intervals, struct arena *a)
{
    struct drawing d = {
        .frame = f, .metric = m, .is_exp = m == METRIC_NLL, .intervals = intervals, .arena = a};
    int n_dropped = 0;
    d.groups = groups_build(f, m, b, a, &d.n_groups, &n_dropped);
    find_families(&d);
    return d;
}

struct figure *figures_build(const struct frame *f, enum bits_id b,
                             const struct figure_intervals *intervals, struct arena *a,
                             int *n_figures)
{
    struct figure *figures = arena_array(a, MAX_FIGURES, sizeof(*figures));
    int n = 0;
    struct drawing nll = drawing_of(f, METRIC_NLL, b, intervals, a);
    struct drawing acc = drawing_of(f, METRIC_ZERO_SHOT, b, intervals, a);
    add_pictures(figures, &n, &nll, b);
    add_pictures(figures, &n, &acc, b);
    struct figure cloud = cloud_figure(&nll);
    figure_keep(figures, &n, &cloud,
                (struct figure){.name = "perplexity-zero-shot",
                                .title = "Perplexity against mean zero-shot accuracy",
                                .x_title = "Perplexity",
                                .y_title = "Mean zero-shot accuracy",
                                .x_axis = AXIS_LOG,
                                .y_axis = AXIS_LINEAR});
    *n_figures = n;
    return figures;
}

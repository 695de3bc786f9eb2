#include "analysis/figure.h"

#include <math.h>
#include <string.h>

enum { MAX_FAMILIES = 32, MAX_SERIES = 16, MAX_FIGURES = 8 };

static const char *color_of_k(int k)
{
    switch (k) {
    case 3:
        return "#d55e00";
    case 4:
        return "#0072b2";
    case 5:
        return "#009e73";
    case 6:
        return "#cc79a7";
    case 7:
        return "#e69f00";
    case 8:
        return "#56b4e9";
    default:
        return "#222222";
    }
}

static const char *const category_colors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#222222", "#999999"};

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

static int families_of(const struct group *groups, int n, const char *out[MAX_FAMILIES])
{
    int m = 0;
    for (int i = 0; i < n && m < MAX_FAMILIES; i++) {
        bool is_known = false;
        for (int j = 0; j < m; j++)
            is_known = is_known || strcmp(out[j], groups[i].family) == 0;
        if (!is_known)
            out[m++] = groups[i].family;
    }
    return m;
}

static struct series series_of(const struct curve *c, const char *label, const char *color,
                               bool is_exp, struct arena *a)
{
    struct series s = {.label = label,
                       .color = color,
                       .x = arena_array(a, (size_t)c->n, sizeof(double)),
                       .y = arena_array(a, (size_t)c->n, sizeof(double)),
                       .n = c->n};
    for (int i = 0; i < c->n; i++) {
        s.x[i] = exp2(c->points[i].log2_bits);
        s.y[i] = is_exp ? exp(c->points[i].value) : c->points[i].value;
    }
    return s;
}

/* One line a bit width, a panel a family. */
static struct figure scaling_figure(const struct group *groups, int n, bool is_exp, struct arena *a)
{
    const char *families[MAX_FAMILIES];
    int n_families = families_of(groups, n, families);
    struct figure fig = {.panels = arena_array(a, (size_t)n_families + 1, sizeof(struct panel)),
                         .is_keyed = true};
    for (int i = 0; i < n_families; i++) {
        const struct group *g = main_group(groups, n, families[i]);
        if (g == NULL || g->n_curves == 0)
            continue;
        struct panel *p = &fig.panels[fig.n_panels++];
        p->title = arena_printf(a, "%s (%s)", g->family, setting_label(&g->setting, a));
        p->series = arena_array(a, (size_t)g->n_curves, sizeof(struct series));
        for (int c = 0; c < g->n_curves; c++)
            p->series[p->n_series++] =
                series_of(&g->curves[c], arena_printf(a, "%d bit", g->curves[c].k),
                          color_of_k(g->curves[c].k), is_exp, a);
    }
    return fig;
}

/* What varies in a comparison at one bit width, everything else as in the family's main setting. */
enum compare_by { BY_BLOCK, BY_DTYPE };

static bool is_comparable(const struct group *g, const struct group *main, enum compare_by by)
{
    if (strcmp(g->family, main->family) != 0 || !setting_is_plain(&g->setting) ||
        strcmp(g->setting.compute, main->setting.compute) != 0 ||
        strcmp(g->sweep, main->sweep) != 0)
        return false;
    return by == BY_BLOCK ? strcmp(g->setting.dtype, main->setting.dtype) == 0
                          : g->setting.block == main->setting.block;
}

static void add_comparison(struct figure *fig, const struct group *groups, int n,
                           const struct group *main, int k, enum compare_by by, struct arena *a)
{
    struct panel p = {.series = arena_array(a, MAX_SERIES, sizeof(struct series))};
    for (int i = 0; i < n && p.n_series < MAX_SERIES; i++) {
        const struct curve *c = group_curve(&groups[i], k);
        if (c == NULL || !is_comparable(&groups[i], main, by))
            continue;
        const char *label =
            by == BY_DTYPE ? groups[i].setting.dtype : block_label(groups[i].setting.block, a);
        const char *color = category_colors[p.n_series % (int)ARRAY_LEN(category_colors)];
        p.series[p.n_series++] = series_of(c, label, color, true, a);
    }
    if (p.n_series < 2)
        return;
    const char *fixed = by == BY_DTYPE
                            ? arena_printf(a, "block %s", block_label(main->setting.block, a))
                            : main->setting.dtype;
    p.title = arena_printf(a, "%s, %d bit (%s)", main->family, k, fixed);
    fig->panels[fig->n_panels++] = p;
}

static struct figure comparison_figure(const struct group *groups, int n, enum compare_by by,
                                       struct arena *a)
{
    static const int widths[] = {4, 3};
    const char *families[MAX_FAMILIES];
    int n_families = families_of(groups, n, families);
    struct figure fig = {.panels =
                             arena_array(a, 2 * (size_t)n_families + 1, sizeof(struct panel))};
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (int i = 0; i < n_families; i++) {
            const struct group *main = main_group(groups, n, families[i]);
            if (main != NULL)
                add_comparison(&fig, groups, n, main, widths[w], by, a);
        }
    return fig;
}

/* Keeps a picture that has something to show. */
static void add_figure(struct figure *figures, int *n, const struct figure *content,
                       struct figure words)
{
    if (content->n_panels == 0)
        return;
    words.panels = content->panels;
    words.n_panels = content->n_panels;
    words.is_keyed = content->is_keyed;
    figures[(*n)++] = words;
}

struct figure *figures_build(const struct frame *f, enum bits_id b, struct arena *a, int *n_figures)
{
    struct figure *figures = arena_array(a, MAX_FIGURES, sizeof(*figures));
    int n = 0;
    int n_nll = 0;
    int n_acc = 0;
    int n_dropped = 0;
    const char *x = bits_title(b);
    struct group *nll = groups_build(f, METRIC_NLL, b, a, &n_nll, &n_dropped);
    struct group *acc = groups_build(f, METRIC_ZERO_SHOT, b, a, &n_acc, &n_dropped);
    struct figure by_ppl = scaling_figure(nll, n_nll, true, a);
    struct figure by_acc = scaling_figure(acc, n_acc, false, a);
    struct figure by_block = comparison_figure(nll, n_nll, BY_BLOCK, a);
    struct figure by_dtype = comparison_figure(nll, n_nll, BY_DTYPE, a);
    add_figure(figures, &n, &by_ppl,
               (struct figure){.name = "scaling-perplexity",
                               .title = "Perplexity against total bits",
                               .caption =
                                   "Each line is one bit width, each point a model size. At an "
                                   "equal number of bits the lower line wins.",
                               .x_title = x,
                               .y_title = "Perplexity",
                               .is_y_log = true});
    add_figure(figures, &n, &by_acc,
               (struct figure){.name = "scaling-zero-shot",
                               .title = "Mean zero-shot accuracy against total bits",
                               .caption =
                                   "Mean of LAMBADA, WinoGrande, HellaSwag and PIQA accuracy. The "
                                   "higher line wins.",
                               .x_title = x,
                               .y_title = "Mean accuracy"});
    add_figure(figures, &n, &by_block,
               (struct figure){.name = "block-size",
                               .title = "Block size at equal bits",
                               .caption =
                                   "Smaller blocks cost 16/B bits a weight for their constants "
                                   "and must earn them.",
                               .x_title = x,
                               .y_title = "Perplexity",
                               .is_y_log = true});
    add_figure(figures, &n, &by_dtype,
               (struct figure){.name = "data-type",
                               .title = "Data type at equal bits",
                               .caption = "All types cost the same bits; the lower line wins.",
                               .x_title = x,
                               .y_title = "Perplexity",
                               .is_y_log = true});
    *n_figures = n;
    return figures;
}

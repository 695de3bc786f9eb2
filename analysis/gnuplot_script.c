#include "analysis/gnuplot_script.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sizes in pixels at which a panel is read on a page, and of its inside. */
enum {
    PANEL_WIDTH = 520,
    PANEL_HEIGHT = 400,
    TITLE_HEIGHT = 46,
    INSIDE_WIDTH = 420,
    INSIDE_HEIGHT = 300,
    LETTER_WIDTH = 7,
    LINE_HEIGHT = 17,
    MAX_COLUMNS = 2,
    MAX_LABELS = 16,
    DOTS_PER_SEGMENT = 10
};

/* An axis: numbers from..to, straight where lines are straight. */
struct axis {
    enum figure_axis kind;
    double from, to;
};

static void add_quoted(struct buf *s, const char *text)
{
    buf_addc(s, '\'');
    for (const char *c = text; *c != '\0'; c++)
        if (*c == '\'')
            buf_adds(s, "''");
        else
            buf_addc(s, (unsigned char)*c < ' ' ? ' ' : *c);
    buf_addc(s, '\'');
}

static void add_setting(struct buf *s, const char *what, const char *text)
{
    buf_printf(s, "set %s ", what);
    add_quoted(s, text);
    buf_addc(s, '\n');
}

static void include(struct axis *r, const double *v, int n)
{
    for (int i = 0; v != NULL && i < n; i++) {
        r->from = fmin(r->from, v[i]);
        r->to = fmax(r->to, v[i]);
    }
}

/* Widens by shares of the length, so that points do not lie on the frame. */
static struct axis widened(struct axis r, double below, double above)
{
    if (r.kind == AXIS_LOG) {
        double length = fmax(log(r.to / r.from), 0.05);
        return (struct axis){r.kind, r.from * exp(-below * length), r.to * exp(above * length)};
    }
    double length = fmax(r.to - r.from, r.kind == AXIS_WHOLE ? 1 : 1e-3);
    return (struct axis){r.kind, r.from - below * length, r.to + above * length};
}

static struct axis x_axis_of(const struct figure *fig, const struct panel *p)
{
    struct axis r = {fig->x_axis, INFINITY, -INFINITY};
    for (int i = 0; i < p->n_series; i++)
        include(&r, p->series[i].x, p->series[i].n);
    return widened(r, 0.06, fig->is_scatter || fig->labels == LABELS_AT_START ? 0.06 : 0.24);
}

static struct axis y_axis_of(const struct figure *fig, const struct panel *p)
{
    struct axis r = {fig->y_axis, INFINITY, -INFINITY};
    for (int i = 0; i < p->n_series; i++) {
        include(&r, p->series[i].y, p->series[i].n);
        include(&r, p->series[i].low, p->series[i].n);
        include(&r, p->series[i].high, p->series[i].n);
    }
    return widened(r, 0.10, 0.14);
}

/* 0 at the start of the axis, 1 at its end. */
static double place_on(struct axis r, double v)
{
    return r.kind == AXIS_LOG ? log(v / r.from) / log(r.to / r.from)
                              : (v - r.from) / (r.to - r.from);
}

/* ---- ticks ---- */

/* 1, 2 or 5 times a power of ten, near `rough`. */
static double nice_step(double rough)
{
    double power = pow(10, floor(log10(rough)));
    double m = rough / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

/* "10 M": as fmt_si, without digits that say nothing. */
static void add_tick(struct buf *s, double v, const char *comma)
{
    static const char *const prefix[] = {"", " k", " M", " G", " T", " P"};
    size_t i = 0;
    double shown = v;
    while (shown >= 1000 && i + 1 < ARRAY_LEN(prefix)) {
        shown /= 1000;
        i++;
    }
    buf_printf(s, "%s\"%g%s\" %.10g", comma, shown, prefix[i], v);
}

/* Decades in steps of 1-2-5, thinner when there are many; evenly spaced values within less than a decade. */
static void add_ticks(struct buf *s, const char *name, struct axis r)
{
    static const double steps[] = {1, 2, 5};
    const char *comma = "";
    buf_printf(s, "set %stics (", name);
    if (r.kind != AXIS_LOG || r.to / r.from < 4) {
        double step = r.kind == AXIS_WHOLE ? 1 : nice_step((r.to - r.from) / 5);
        int first = (int)ceil(r.from / step);
        int last = (int)floor(r.to / step);
        for (int n = first; n <= last; n++, comma = ", ")
            add_tick(s, n * step, comma);
    } else {
        size_t n_steps = r.to / r.from > 300 ? 1 : ARRAY_LEN(steps);
        for (int p = (int)floor(log10(r.from)); p <= (int)ceil(log10(r.to)); p++)
            for (size_t i = 0; i < n_steps; i++) {
                double v = steps[i] * pow(10, p);
                if (v < r.from || v > r.to)
                    continue;
                add_tick(s, v, comma);
                comma = ", ";
            }
    }
    buf_adds(s, ")\n");
}

/* ---- names of lines ---- */

struct label {
    const struct series *series;
    double x, y,
        width; /* pixels inside the panel, from its lower left corner; x is the left edge */
};

static int compare_y(const void *a, const void *b)
{
    double x = ((const struct label *)a)->y;
    double y = ((const struct label *)b)->y;
    return (x > y) - (x < y);
}

static bool covers(const struct label *a, const struct label *b)
{
    return a->x < b->x + b->width + 4 && b->x < a->x + a->width + 4 &&
           fabs(a->y - b->y) < LINE_HEIGHT;
}

/* Names at the ends of lines keep their order and move up until they are free. */
static void spread(struct label *labels, int n)
{
    qsort(labels, (size_t)n, sizeof(*labels), compare_y);
    for (int i = 1; i < n; i++)
        for (int j = 0; j < i; j++)
            if (covers(&labels[i], &labels[j])) {
                labels[i].y += 2;
                j = -1; /* look at all of them again */
            }
}

/* What is drawn, as dots: every DOTS_PER_SEGMENT-th is a point, the others lie on the lines between. */
struct dots {
    double *x, *y; /* pixels */
    int n;
};

static struct dots dots_of(const struct panel *p, struct axis x, struct axis y, struct arena *a)
{
    size_t room = 0;
    for (int i = 0; i < p->n_series; i++)
        room += (size_t)p->series[i].n * DOTS_PER_SEGMENT;
    struct dots d = {arena_array(a, room + 1, sizeof(double)),
                     arena_array(a, room + 1, sizeof(double)), 0};
    for (int i = 0; i < p->n_series; i++)
        for (int j = 0; j < p->series[i].n; j++) {
            const struct series *line = &p->series[i];
            int next = j + 1 < line->n ? j + 1 : j;
            for (int k = 0; k < DOTS_PER_SEGMENT; k++) {
                double t = (double)k / DOTS_PER_SEGMENT;
                d.x[d.n] = INSIDE_WIDTH *
                           ((1 - t) * place_on(x, line->x[j]) + t * place_on(x, line->x[next]));
                d.y[d.n++] = INSIDE_HEIGHT *
                             ((1 - t) * place_on(y, line->y[j]) + t * place_on(y, line->y[next]));
            }
        }
    return d;
}

/* How bad it is to write there: over another name, over lines, outside. */
static double badness(const struct label *at, const struct label *placed, int n_placed,
                      const struct dots *d)
{
    double sum = at->x < -4 ? 60 : 0; /* over the axis' numbers */
    for (int i = 0; i < n_placed; i++)
        sum += covers(at, &placed[i]) ? 200 : 0;
    for (int i = 0; i < d->n; i++)
        if (d->x[i] > at->x - 4 && d->x[i] < at->x + at->width + 4 &&
            fabs(d->y[i] - at->y) < 0.6 * LINE_HEIGHT)
            sum += i % DOTS_PER_SEGMENT == 0 ? 40 : 6;
    return sum;
}

/* Names at the starts of lines take the best of some places around the first point, most of them on the side `away` from it. */
static void place_at_starts(struct label *labels, int n, double away, const struct dots *d)
{
    for (int i = 0; i < n; i++) {
        struct label best = labels[i];
        double least = INFINITY;
        for (int up = -1; up <= 6; up++)
            for (int side = -4; side <= 4; side++) {
                struct label at = labels[i];
                at.x += side * (at.width / 2 + 4) / 2 - at.width / 2;
                at.y += away * (up + (side == 0 || up != 0)) * LINE_HEIGHT * 0.8;
                double far = 12.0 * abs(up) + 7.0 * abs(side) + (up < 0 ? 20 : 0);
                double bad = far + badness(&at, labels, i, d);
                if ((up != 0 || side != 0) && bad < least) {
                    least = bad;
                    best = at;
                }
            }
        labels[i] = best;
    }
}

/* Falling curves leave the place above their first points free, rising ones the place below. */
static bool is_falling(const struct panel *p)
{
    double rise = 0;
    for (int i = 0; i < p->n_series; i++)
        rise += p->series[i].n > 0 ? p->series[i].y[p->series[i].n - 1] - p->series[i].y[0] : 0;
    return rise < 0;
}

/* "3 bit" becomes "3" where many lines begin close together. */
static bool is_short(const struct figure *fig, const struct panel *p)
{
    return fig->labels == LABELS_AT_START && !fig->is_scatter && p->n_series > 4;
}

static int place_labels(const struct figure *fig, const struct panel *p, struct axis x,
                        struct axis y, struct label *labels)
{
    int n = 0;
    for (int i = 0; i < p->n_series && n < MAX_LABELS; i++) {
        const struct series *line = &p->series[i];
        if (line->n == 0)
            continue;
        int at = fig->labels == LABELS_AT_START ? 0 : line->n - 1;
        size_t letters = strlen(line->label) - (is_short(fig, p) ? strlen(" bit") : 0);
        double right = fig->labels == LABELS_AT_START ? 0 : 9;
        labels[n++] = (struct label){line, INSIDE_WIDTH * place_on(x, line->x[at]) + right,
                                     INSIDE_HEIGHT * place_on(y, line->y[at]),
                                     LETTER_WIDTH * (double)letters};
    }
    struct arena a = {0};
    if (fig->is_scatter) {
        for (int i = 0; i < n; i++) {
            labels[i].x = INSIDE_WIDTH - 50;
            labels[i].y = INSIDE_HEIGHT - LINE_HEIGHT * (0.5 + i);
        }
    } else if (fig->labels == LABELS_AT_START) {
        struct dots d = dots_of(p, x, y, &a);
        place_at_starts(labels, n, is_falling(p) ? 1 : -1, &d);
    } else {
        spread(labels, n);
    }
    arena_release(&a);
    return n;
}

static void add_labels(struct buf *s, const struct figure *fig, const struct panel *p,
                       struct axis x, struct axis y)
{
    struct arena a = {0};
    struct label labels[MAX_LABELS];
    int n = place_labels(fig, p, x, y, labels);
    for (int i = 0; i < n; i++) {
        buf_printf(s, "set label %d ", i + 1);
        const char *name = labels[i].series->label;
        size_t n_letters = strlen(name) - (is_short(fig, p) ? strlen(" bit") : 0);
        add_quoted(s, arena_strndup(&a, name, n_letters));
        buf_printf(s, " at graph %.4f, graph %.4f left front textcolor rgb \"%s\"\n",
                   labels[i].x / INSIDE_WIDTH, labels[i].y / INSIDE_HEIGHT,
                   labels[i].series->color);
    }
    arena_release(&a);
}

/* ---- panels ---- */

static void add_bands(struct buf *s, const struct panel *p, int first_index)
{
    for (int i = 0; i < p->n_series; i++)
        if (p->series[i].low != NULL)
            buf_printf(s,
                       "data index %d using 1:3:4 with filledcurves fillcolor rgb \"%s\" fillstyle "
                       "transparent solid 0.16 noborder notitle, \\\n  ",
                       first_index + i, p->series[i].color);
}

/* Lines differ in the form of their points too: colours do not survive every printer and every eye. */
static void add_lines(struct buf *s, const struct figure *fig, const struct panel *p,
                      int first_index)
{
    static const int forms[] = {7, 5, 9, 11, 13, 7, 5};
    static const int open_forms[] = {6, 4, 8, 10, 12, 6, 4};
    for (int i = 0; i < p->n_series; i++) {
        const struct series *line = &p->series[i];
        int form = i % (int)ARRAY_LEN(forms);
        buf_printf(s, "%sdata index %d using 1:2 with ", i > 0 ? ", \\\n  " : "", first_index + i);
        if (fig->is_scatter)
            buf_adds(s, "points pointtype 7 pointsize 0.4");
        else
            buf_printf(s, "linespoints linewidth 2 dashtype %d pointtype %d pointsize 0.8",
                       line->is_dashed ? 2 : 1, line->is_dashed ? open_forms[form] : forms[form]);
        buf_printf(s, " linecolor rgb \"%s\" notitle", line->color);
    }
    buf_adds(s, "\n");
}

static void add_panel(struct buf *s, const struct figure *fig, const struct panel *p,
                      int first_index)
{
    struct axis x = x_axis_of(fig, p);
    struct axis y = y_axis_of(fig, p);
    buf_adds(s, "\nunset label\n");
    add_setting(s, "title", p->title);
    add_setting(s, "xlabel", fig->x_title);
    add_setting(s, "ylabel", fig->y_title);
    buf_printf(s, "set xrange [%.10g:%.10g]\nset yrange [%.10g:%.10g]\n", x.from, x.to, y.from,
               y.to);
    add_ticks(s, "x", x);
    add_ticks(s, "y", y);
    add_labels(s, fig, p, x, y);
    buf_adds(s, "plot ");
    add_bands(s, p, first_index);
    add_lines(s, fig, p, first_index);
}

/* Each picture is drawn three times from one script. Ids inside an SVG carry the picture's name, so that several can stand in one
 * page; gnuplot takes letters, digits and _ only. The background is white in all of them: they are read on dark pages too. */
static void add_terminals(struct buf *s, const char *name, int width, int height)
{
    char id[64];
    snprintf(id, sizeof(id), "%s", name);
    for (char *c = id; *c != '\0'; c++)
        *c = *c == '-' ? '_' : *c;
    buf_adds(s, "array suffix[3] = [\"svg\", \"png\", \"pdf\"]\ndo for [i=1:3] {\n");
    buf_printf(s, "if (i == 1) { set terminal svg size %d,%d font \"DejaVu Sans,12\"", width,
               height);
    buf_printf(s, " background \"#ffffff\" name \"%s\" noenhanced }\n", id);
    buf_printf(s, "if (i == 2) { set terminal pngcairo size %d,%d", width, height);
    buf_adds(s, " font \"DejaVu Sans,11\" background \"#ffffff\" noenhanced }\n");
    buf_printf(s, "if (i == 3) { set terminal pdfcairo size %.2fin,%.2fin", width / 96.0,
               height / 96.0);
    buf_printf(s,
               " font \"DejaVu Sans,10\" background \"#ffffff\" noenhanced }\n"
               "set output \"%s.\".suffix[i]\n",
               name);
}

void gnuplot_add_script(struct buf *s, const struct figure *fig)
{
    int columns = fig->n_panels < MAX_COLUMNS ? fig->n_panels : MAX_COLUMNS;
    int rows = (fig->n_panels + columns - 1) / columns;
    buf_printf(s, "# %s. Draw again with: gnuplot %s.gp\ndata = \"%s.dat\"\n", fig->title,
               fig->name, fig->name);
    add_terminals(s, fig->name, columns * PANEL_WIDTH, rows * PANEL_HEIGHT + TITLE_HEIGHT);
    buf_printf(s, "set multiplot layout %d,%d title ", rows, columns);
    add_quoted(s, fig->title);
    buf_adds(s, " font \"DejaVu Sans,15\"\n"
                "set border 3 linecolor rgb \"#888888\"\n"
                "set tics nomirror textcolor rgb \"#444444\"\n"
                "set grid ytics linecolor rgb \"#e4e4e4\" linetype 1\n"
                "set lmargin 9\nset rmargin 3\n");
    buf_adds(s, fig->x_axis == AXIS_LOG ? "set logscale x 10\n" : "");
    buf_adds(s, fig->y_axis == AXIS_LOG ? "set logscale y 10\n" : "");
    int index = 0;
    for (int i = 0; i < fig->n_panels; i++) {
        add_panel(s, fig, &fig->panels[i], index);
        index += fig->panels[i].n_series;
    }
    buf_adds(s, "unset multiplot\nunset output\n}\n");
}

static void add_line_of_data(struct buf *s, const struct series *line, int i)
{
    double low = line->low != NULL ? line->low[i] : line->y[i];
    double high = line->high != NULL ? line->high[i] : line->y[i];
    buf_printf(s, "%.10g %.10g %.10g %.10g \"", line->x[i], line->y[i], low, high);
    for (const char *c = line->names[i]; *c != '\0'; c++)
        buf_addc(s, *c == '"' || (unsigned char)*c < ' ' ? ' ' : *c);
    buf_adds(s, "\"\n");
}

void gnuplot_add_data(struct buf *s, const struct figure *fig)
{
    buf_adds(s, "# x y low high name; low and high are the ends of the 95 % interval\n");
    for (int i = 0; i < fig->n_panels; i++)
        for (int j = 0; j < fig->panels[i].n_series; j++) {
            const struct series *line = &fig->panels[i].series[j];
            buf_printf(s, "# %s: %s\n", fig->panels[i].title, line->label);
            for (int m = 0; m < line->n; m++)
                add_line_of_data(s, line, m);
            buf_adds(s, "\n\n");
        }
}

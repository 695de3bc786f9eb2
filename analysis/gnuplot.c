#include "analysis/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

extern char **environ;

/* Sizes in pixels at which a panel is read on a page. */
enum { PANEL_WIDTH = 520, PANEL_HEIGHT = 400, TITLE_HEIGHT = 46, MAX_COLUMNS = 2, MAX_LABELS = 16 };

/* Line-end labels stay this share of the axis apart, so that they do not cover each other. */
static const double label_spacing = 0.062;

struct range {
    double from, to;
};

static struct range range_of(const struct panel *p, bool is_x)
{
    struct range r = {INFINITY, -INFINITY};
    for (int i = 0; i < p->n_series; i++)
        for (int j = 0; j < p->series[i].n; j++) {
            double v = is_x ? p->series[i].x[j] : p->series[i].y[j];
            r.from = fmin(r.from, v);
            r.to = fmax(r.to, v);
        }
    return r;
}

/* Widens by shares of the length, in log space where the axis is logarithmic. */
static struct range widened(struct range r, bool is_log, double below, double above)
{
    if (is_log) {
        double length = fmax(log(r.to / r.from), 0.05);
        return (struct range){r.from * exp(-below * length), r.to * exp(above * length)};
    }
    double length = fmax(r.to - r.from, 1e-3);
    return (struct range){r.from - below * length, r.to + above * length};
}

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

/* Ticks of a logarithmic axis: 1-2-5 over decades, evenly spaced values within one. */
static void add_log_ticks(struct buf *s, const char *axis, struct range r)
{
    static const double steps[] = {1, 2, 5};
    const char *comma = "";
    buf_printf(s, "set %stics (", axis);
    if (r.to / r.from < 4) {
        double step = nice_step((r.to - r.from) / 5);
        int first = (int)ceil(r.from / step);
        int last = (int)floor(r.to / step);
        for (int n = first; n <= last; n++, comma = ", ")
            add_tick(s, n * step, comma);
    } else {
        for (int p = (int)floor(log10(r.from)); p <= (int)ceil(log10(r.to)); p++)
            for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
                double v = steps[i] * pow(10, p);
                if (v < r.from || v > r.to)
                    continue;
                add_tick(s, v, comma);
                comma = ", ";
            }
    }
    buf_adds(s, ")\n");
}

struct line_end {
    const struct series *series;
    double at; /* place of the label along y, 0..1 */
};

static int compare_line_end(const void *a, const void *b)
{
    double x = ((const struct line_end *)a)->at;
    double y = ((const struct line_end *)b)->at;
    return (x > y) - (x < y);
}

static double place_on(struct range r, bool is_log, double v)
{
    return is_log ? log(v / r.from) / log(r.to / r.from) : (v - r.from) / (r.to - r.from);
}

static double value_on(struct range r, bool is_log, double place)
{
    return is_log ? r.from * pow(r.to / r.from, place) : r.from + place * (r.to - r.from);
}

/* Pushes labels apart upwards, then back down from the top. */
static void spread(struct line_end *ends, int n)
{
    qsort(ends, (size_t)n, sizeof(*ends), compare_line_end);
    for (int i = 1; i < n; i++)
        ends[i].at = fmax(ends[i].at, ends[i - 1].at + label_spacing);
    for (int i = n - 1; i >= 0; i--) {
        double ceiling = i == n - 1 ? 0.98 : ends[i + 1].at - label_spacing;
        ends[i].at = fmin(ends[i].at, ceiling);
    }
}

static void add_labels(struct buf *s, const struct panel *p, struct range y, bool is_y_log)
{
    struct line_end ends[MAX_LABELS];
    int n = 0;
    for (int i = 0; i < p->n_series && n < MAX_LABELS; i++)
        if (p->series[i].n > 0)
            ends[n++] = (struct line_end){
                &p->series[i], place_on(y, is_y_log, p->series[i].y[p->series[i].n - 1])};
    spread(ends, n);
    for (int i = 0; i < n; i++) {
        const struct series *line = ends[i].series;
        buf_printf(s,
                   "set label %d \"%s\" at %.10g, %.10g left offset 0.8,0 textcolor rgb \"%s\"\n",
                   i + 1, line->label, line->x[line->n - 1], value_on(y, is_y_log, ends[i].at),
                   line->color);
    }
}

/* Falling lines leave the upper right corner free, rising ones the lower right. */
static bool is_falling(const struct panel *p)
{
    const struct series *line = &p->series[p->n_series - 1];
    return line->n == 0 || line->y[line->n - 1] < line->y[0];
}

static void add_panel(struct buf *s, const struct figure *fig, const struct panel *p,
                      int first_index)
{
    struct range x = widened(range_of(p, true), true, 0.06, fig->is_keyed ? 0.06 : 0.22);
    struct range y = widened(range_of(p, false), fig->is_y_log, 0.08, 0.12);
    buf_printf(s, "\nunset label\nset title \"%s\"\nset xlabel \"%s\"\nset ylabel \"%s\"\n",
               p->title, fig->x_title, fig->y_title);
    buf_printf(s, "set xrange [%.10g:%.10g]\nset yrange [%.10g:%.10g]\n", x.from, x.to, y.from,
               y.to);
    add_log_ticks(s, "x", x);
    if (fig->is_y_log)
        add_log_ticks(s, "y", (struct range){y.from, y.to});
    else
        buf_adds(s, "set ytics auto\nset format y \"%.2f\"\n");
    if (fig->is_keyed)
        buf_printf(s, "set key %s right Left reverse samplen 1.4 spacing 1.15 textcolor variable\n",
                   is_falling(p) ? "top" : "bottom");
    else
        add_labels(s, p, y, fig->is_y_log);
    buf_adds(s, "plot ");
    for (int i = 0; i < p->n_series; i++) {
        buf_printf(s, "%sdata index %d using 1:2 with linespoints", i > 0 ? ", \\\n  " : "",
                   first_index + i);
        buf_adds(s, " linewidth 2 pointtype 7 pointsize 0.7");
        buf_printf(s, " linecolor rgb \"%s\" title \"%s\"", p->series[i].color,
                   fig->is_keyed ? p->series[i].label : "");
    }
    buf_adds(s, "\n");
}

/* Each picture is drawn three times from one script. Ids inside an SVG carry the picture's name, because several of them stand in one
 * page; gnuplot takes letters, digits and _ only. */
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
    buf_printf(s, " font \"DejaVu Sans,10\" noenhanced }\nset output \"%s.\".suffix[i]\n", name);
}

static void add_script(struct buf *s, const struct figure *fig)
{
    int columns = fig->n_panels < MAX_COLUMNS ? fig->n_panels : MAX_COLUMNS;
    int rows = (fig->n_panels + columns - 1) / columns;
    buf_printf(s, "# %s. Draw again with: gnuplot %s.gp\ndata = \"%s.dat\"\n", fig->title,
               fig->name, fig->name);
    add_terminals(s, fig->name, columns * PANEL_WIDTH, rows * PANEL_HEIGHT + TITLE_HEIGHT);
    buf_printf(s, "set multiplot layout %d,%d title \"%s\" font \"DejaVu Sans,15\"\n", rows,
               columns, fig->title);
    buf_adds(s, "set border 3 linecolor rgb \"#888888\"\n"
                "set tics nomirror textcolor rgb \"#444444\"\n"
                "set grid ytics linecolor rgb \"#e4e4e4\" linetype 1\n"
                "set lmargin 9\nset rmargin 3\nset logscale x 10\n");
    buf_adds(s, fig->is_y_log ? "set logscale y 10\n" : "");
    int index = 0;
    for (int i = 0; i < fig->n_panels; i++) {
        add_panel(s, fig, &fig->panels[i], index);
        index += fig->panels[i].n_series;
    }
    buf_adds(s, "unset multiplot\nunset output\n}\n");
}

static void add_data(struct buf *s, const struct figure *fig)
{
    for (int i = 0; i < fig->n_panels; i++)
        for (int j = 0; j < fig->panels[i].n_series; j++) {
            const struct series *line = &fig->panels[i].series[j];
            buf_printf(s, "# %s: %s\n", fig->panels[i].title, line->label);
            for (int m = 0; m < line->n; m++)
                buf_printf(s, "%.10g %.10g\n", line->x[m], line->y[m]);
            buf_adds(s, "\n\n");
        }
}

static enum err_code write_part(const char *dir, const char *name, const char *suffix,
                                const struct buf *text, struct err *e)
{
    struct arena a = {0};
    enum err_code rc =
        io_write_file(arena_printf(&a, "%s/%s.%s", dir, name, suffix), text->data, text->len, e);
    arena_release(&a);
    return rc;
}

/* Runs gnuplot inside `dir`; its complaints go to NAME.log, which is kept only when there are any. */
static enum err_code run_gnuplot(const char *name, const char *dir, struct err *e)
{
    struct arena a = {0};
    char *script = arena_printf(&a, "%s.gp", name);
    char *log_path = arena_printf(&a, "%s/%s.log", dir, name);
    char *const argv[] = {(char *)"gnuplot", script, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_path,
                                     O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    pid_t pid = 0;
    int rc = posix_spawnp(&pid, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    enum err_code code = ERR_OK;
    int status = 0;
    if (rc != 0) {
        code =
            err_set(e, ERR_NOTFOUND, "gnuplot does not start (%s); install the package gnuplot-nox",
                    strerror(rc));
    } else if (waitpid(pid, &status, 0) != pid || status != 0) {
        struct buf log = {0};
        ERR_IGNORE(io_read_file(log_path, 1 << 20, &log, e));
        code = err_set(e, ERR_IO, "gnuplot failed on %s/%s: %s", dir, script,
                       log.data != NULL ? log.data : "");
        buf_release(&log);
    }
    if (code == ERR_OK || rc != 0)
        unlink(log_path);
    arena_release(&a);
    return code;
}

enum err_code gnuplot_draw(const struct figure *fig, const char *dir, struct err *e)
{
    TRY(io_make_dirs(dir, e));
    struct buf data = {0};
    struct buf script = {0};
    add_data(&data, fig);
    add_script(&script, fig);
    enum err_code rc = write_part(dir, fig->name, "dat", &data, e);
    if (rc == ERR_OK)
        rc = write_part(dir, fig->name, "gp", &script, e);
    if (rc == ERR_OK)
        rc = run_gnuplot(fig->name, dir, e);
    buf_release(&data);
    buf_release(&script);
    return rc;
}

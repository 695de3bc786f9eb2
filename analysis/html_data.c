/* The curves, the table of results and the claims as the page's script reads them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/html.h"
#include "analysis/html_json.h"

enum { DIGITS = 6, DIGITS_OF_BITS = 7, MAX_WORDS = 4096 };

/* ---- figures ---- */

/* How a metric's numbers are written: names of format.js. */
static const char *format_of(const char *metric)
{
    return strcmp(metric, "perplexity") == 0 ? "perplexity" : "share";
}

static void add_metrics(struct buf *out)
{
    static const struct {
        const char *name, *title;
    } metrics[] = {{"perplexity", "Perplexity"}, {"zero-shot", "Zero-shot accuracy"}};
    hj_name(out, "metrics");
    hj_open(out, '[');
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        hj_open(out, '{');
        hj_put_text(out, "name", metrics[i].name);
        hj_put_text(out, "title", metrics[i].title);
        hj_put_text(out, "format", format_of(metrics[i].name));
        hj_close(out, '}');
    }
    hj_close(out, ']');
}

static void add_colors(struct buf *out)
{
    hj_name(out, "colors");
    hj_open(out, '{');
    for (int k = 2; k <= 16; k++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", k);
        hj_put_text(out, name, figure_color_of_k(k));
    }
    hj_close(out, '}');
}

static void add_series(struct buf *out, const struct series *s)
{
    hj_open(out, '{');
    hj_put_text(out, "label", s->label);
    hj_put_text(out, "color", s->color);
    if (s->is_dashed)
        hj_put_bool(out, "dashed", true);
    hj_put_numbers(out, "x", s->x, s->n, DIGITS_OF_BITS);
    hj_put_numbers(out, "y", s->y, s->n, DIGITS);
    if (s->low != NULL) {
        hj_put_numbers(out, "low", s->low, s->n, DIGITS);
        hj_put_numbers(out, "high", s->high, s->n, DIGITS);
    }
    hj_name(out, "names");
    hj_open(out, '[');
    for (int i = 0; i < s->n; i++)
        hj_text(out, s->names[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

static void add_panel(struct buf *out, const struct panel *p)
{
    hj_open(out, '{');
    hj_put_text(out, "title", p->title);
    hj_name(out, "series");
    hj_open(out, '[');
    for (int i = 0; i < p->n_series; i++)
        add_series(out, &p->series[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

static void add_figure(struct buf *out, const struct figure *f)
{
    static const char *const kinds[] = {
        [AXIS_LINEAR] = "linear", [AXIS_LOG] = "log", [AXIS_WHOLE] = "whole"};
    bool is_perplexity = f->metric != NULL && strcmp(f->metric, "perplexity") == 0;
    hj_open(out, '{');
    hj_put_text(out, "name", f->name);
    hj_put_text(out, "title", f->title);
    hj_put_text(out, "caption", f->caption);
    hj_put_text(out, "metric", f->metric);
    hj_put_text(out, "format", is_perplexity ? "perplexity" : "share");
    hj_put_text(out, "xTitle", f->x_title);
    hj_put_text(out, "yTitle", f->y_title);
    hj_put_text(out, "xAxis", kinds[f->x_axis]);
    hj_put_text(out, "yAxis", kinds[f->y_axis]);
    hj_put_text(out, "labels", f->labels == LABELS_AT_START ? "start" : "end");
    hj_put_bool(out, "bits", f->is_bits);
    hj_put_bool(out, "scatter", f->is_scatter);
    hj_put_bool(out, "largerIsBetter", !is_perplexity);
    hj_name(out, "panels");
    hj_open(out, '[');
    for (int i = 0; i < f->n_panels; i++)
        add_panel(out, &f->panels[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

void html_add_figures(struct buf *out, const struct report *r)
{
    add_metrics(out);
    add_colors(out);
    hj_name(out, "figures");
    hj_open(out, '[');
    for (int i = 0; i < r->n_figures; i++)
        add_figure(out, &r->figures[i]);
    hj_close(out, ']');
}

/* ---- results, by columns ---- */

static void open_column(struct buf *out, const char *name, const char *title, const char *format,
                        bool has_filter)
{
    hj_open(out, '{');
    hj_put_text(out, "name", name);
    hj_put_text(out, "title", title);
    if (format != NULL)
        hj_put_text(out, "format", format);
    if (has_filter)
        hj_put_bool(out, "filter", true);
}

/* Few different words, each written once and then counted by its place. */
struct words {
    const char *v[MAX_WORDS];
    int n;
};

static int word_index(struct words *w, const char *text)
{
    for (int i = w->n - 1; i >= 0; i--)
        if (strcmp(w->v[i], text) == 0)
            return i;
    if (w->n == MAX_WORDS)
        return -1;
    w->v[w->n] = text;
    return w->n++;
}

typedef const char *(*text_of_row_fn)(const struct frame_row *row, struct arena *a);

static void add_text_column(struct buf *out, const struct report *r, const char *name,
                            const char *title, text_of_row_fn text_of)
{
    struct arena *a = r->source->arena;
    const struct frame *f = &r->source->frame;
    struct words *words = arena_alloc(a, sizeof(*words));
    open_column(out, name, title, NULL, true);
    hj_name(out, "values");
    hj_open(out, '[');
    for (int i = 0; i < f->n; i++) {
        const char *text = text_of(&f->rows[i], a);
        int index = text != NULL ? word_index(words, text) : -1;
        if (index >= 0)
            hj_int(out, index);
        else
            hj_text(out, NULL);
    }
    hj_close(out, ']');
    hj_name(out, "words");
    hj_open(out, '[');
    for (int i = 0; i < words->n; i++)
        hj_text(out, words->v[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

static const char *text_sweep(const struct frame_row *row, struct arena *a)
{
    (void)a;
    return row->sweep;
}

static const char *text_family(const struct frame_row *row, struct arena *a)
{
    (void)a;
    return row->family;
}

static const char *text_size(const struct frame_row *row, struct arena *a)
{
    (void)a;
    return row->size;
}

static const char *text_type(const struct frame_row *row, struct arena *a)
{
    if (row->k >= 16)
        return "not quantized";
    if (row->exponent_bits > 0)
        return arena_printf(a, "%s E%dM%d", row->dtype, row->exponent_bits,
                            row->k - 1 - row->exponent_bits);
    return row->dtype;
}

static const char *text_block(const struct frame_row *row, struct arena *a)
{
    return row->k < 16 ? block_label(row->block, a) : NULL;
}

/* What is not said by type and block. */
static const char *text_else(const struct frame_row *row, struct arena *a)
{
    struct setting s = setting_of(row, a);
    const char *label = setting_label(&s, a);
    const char *comma = strchr(label, ',');
    const char *second = comma != NULL ? strchr(comma + 1, ',') : NULL;
    return row->k < 16 && second != NULL ? second + 2 : NULL;
}

static const char *text_compute(const struct frame_row *row, struct arena *a)
{
    (void)a;
    return row->compute;
}

/* One column of numbers at a fixed distance within a row. */
static void add_number_column(struct buf *out, const struct report *r, const char *name,
                              const char *title, const char *format, size_t offset)
{
    const struct frame *f = &r->source->frame;
    open_column(out, name, title, format, false);
    hj_name(out, "values");
    hj_open(out, '[');
    for (int i = 0; i < f->n; i++)
        hj_number(out, *(const double *)((const char *)&f->rows[i] + offset), DIGITS);
    hj_close(out, ']');
    hj_close(out, '}');
}

/* Half the 95 % interval: what a reader sets beside a value. */
static void add_margin_column(struct buf *out, const struct report *r, const char *name,
                              const char *title, const char *format, enum metric_id m)
{
    const struct figure_intervals *v = r->intervals;
    if (v == NULL || v->low[m] == NULL)
        return;
    open_column(out, name, title, format, false);
    hj_name(out, "values");
    hj_open(out, '[');
    for (int i = 0; i < r->source->frame.n; i++)
        hj_number(out, (v->high[m][i] - v->low[m][i]) / 2, 3);
    hj_close(out, ']');
    hj_close(out, '}');
}

static void add_width_column(struct buf *out, const struct report *r)
{
    const struct frame *f = &r->source->frame;
    open_column(out, "k", "k", "short", true);
    hj_name(out, "values");
    hj_open(out, '[');
    for (int i = 0; i < f->n; i++)
        hj_int(out, f->rows[i].k);
    hj_close(out, ']');
    hj_close(out, '}');
}

static bool is_any_measured(const struct frame *f, enum metric_id m)
{
    for (int i = 0; i < f->n; i++)
        if (isfinite(f->rows[i].metric[m]))
            return true;
    return false;
}

void html_add_results(struct buf *out, const struct report *r)
{
    static const struct {
        const char *name, *title, *format;
        enum metric_id metric;
        const char *margin; /* of the column with its interval; NULL: none */
    } metrics[] = {
        {"perplexity", "perplexity", "perplexity", METRIC_PERPLEXITY, NULL},
        {"nll", "cross entropy", "nats", METRIC_NLL, "nll_interval"},
        {"zero_shot", "zero-shot", "share", METRIC_ZERO_SHOT, "zero_shot_interval"},
        {"zero_shot_norm", "zero-shot, normalized", "share", METRIC_ZERO_SHOT_NORM, NULL},
        {"kl", "KL to 16 bit", "nats", METRIC_KL, NULL},
    };
    const struct frame *f = &r->source->frame;
    hj_name(out, "results");
    hj_open(out, '{');
    hj_put_int(out, "rows", f->n);
    hj_name(out, "columns");
    hj_open(out, '[');
    add_text_column(out, r, "sweep", "sweep", text_sweep);
    add_text_column(out, r, "family", "family", text_family);
    add_text_column(out, r, "size", "size", text_size);
    add_number_column(out, r, "n_params", "parameters", "si", offsetof(struct frame_row, n_params));
    add_width_column(out, r);
    add_text_column(out, r, "type", "type", text_type);
    add_text_column(out, r, "block", "block", text_block);
    add_text_column(out, r, "else", "besides", text_else);
    add_text_column(out, r, "compute", "compute", text_compute);
    add_number_column(out, r, "bits_per_param", "bits a weight", "short",
                      offsetof(struct frame_row, bits_per_param));
    add_number_column(out, r, "total_bits", "total bits", "bits",
                      offsetof(struct frame_row, total_bits) +
                          (size_t)r->source->bits * sizeof(double));
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        enum metric_id m = metrics[i].metric;
        if (!is_any_measured(f, m))
            continue;
        add_number_column(out, r, metrics[i].name, metrics[i].title, metrics[i].format,
                          offsetof(struct frame_row, metric) + (size_t)m * sizeof(double));
        if (metrics[i].margin != NULL)
            add_margin_column(out, r, metrics[i].margin, "±", metrics[i].format, m);
    }
    hj_close(out, ']');
    hj_close(out, '}');
}

/* ---- claims ---- */

static void add_claim_part(struct buf *out, const struct claim_part *p)
{
    hj_put_number(out, "value", p->value, DIGITS);
    hj_put_number(out, "low", p->low, DIGITS);
    hj_put_number(out, "high", p->high, DIGITS);
    hj_put_text(out, "needs", p->needs);
}

static void add_claim_variant(struct buf *out, const struct claim_variant *v)
{
    static const char *const bits[BITS_COUNT] = {"full", "nominal", "linear"};
    hj_open(out, '{');
    hj_put_text(out, "metric", metric_info_of(v->metric)->title);
    hj_put_text(out, "bits", bits[v->bits]);
    hj_name(out, "parts");
    hj_open(out, '[');
    for (int i = 0; i < v->n_parts; i++) {
        hj_open(out, '{');
        hj_put_text(out, "label", v->parts[i].label);
        hj_put_text(out, "verdict", verdict_label(v->parts[i].verdict));
        add_claim_part(out, &v->parts[i]);
        hj_close(out, '}');
    }
    hj_close(out, ']');
    hj_close(out, '}');
}

static void add_claim(struct buf *out, const struct claim *c)
{
    static const struct claim_part nothing = {.value = NAN, .low = NAN, .high = NAN, .needs = ""};
    const struct claim_part *part = claim_shown_part(c);
    hj_open(out, '{');
    hj_put_text(out, "id", c->id);
    hj_put_text(out, "sentence", c->sentence);
    hj_put_text(out, "test", c->test);
    hj_put_text(out, "note", c->note);
    hj_put_text(out, "verdict", verdict_label(c->verdict));
    add_claim_part(out, part != NULL ? part : &nothing);
    hj_name(out, "variants");
    hj_open(out, '[');
    for (int i = 0; i < c->n_variants; i++)
        add_claim_variant(out, &c->variants[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

void html_add_claims(struct buf *out, const struct report *r)
{
    hj_name(out, "claims");
    if (r->claims == NULL) {
        hj_text(out, NULL);
        return;
    }
    hj_open(out, '{');
    hj_put_text(out, "remark", r->claims->remark);
    hj_name(out, "counts");
    hj_open(out, '[');
    for (int v = 0; v < VERDICT_COUNT; v++) {
        hj_open(out, '[');
        hj_text(out, verdict_label((enum verdict)v));
        hj_int(out, r->claims->n_of[v]);
        hj_close(out, ']');
    }
    hj_close(out, ']');
    hj_name(out, "list");
    hj_open(out, '[');
    for (int i = 0; i < r->claims->n; i++)
        add_claim(out, &r->claims->v[i]);
    hj_close(out, ']');
    hj_close(out, '}');
}

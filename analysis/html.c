#include "analysis/html.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/pivot.h"

enum { ANSWER_BUDGETS = 6 };

void html_escape(struct buf *out, const char *text)
{
    for (const char *p = text != NULL ? text : ""; *p != '\0'; p++)
        switch (*p) {
        case '&':
            buf_adds(out, "&amp;");
            break;
        case '<':
            buf_adds(out, "&lt;");
            break;
        case '>':
            buf_adds(out, "&gt;");
            break;
        case '"':
            buf_adds(out, "&quot;");
            break;
        default:
            buf_addc(out, *p);
        }
}

static const char style[] =
    "<style>\n"
    ":root{--ink:#1c1c1c;--soft:#5b5b5b;--line:#dcdcdc;--page:#fafafa;--card:#fff;--mark:#0072b2}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#ececec;--soft:#a8a8a8;--line:#3a3a3a;--page:#"
    "161616;"
    "--card:#1f1f1f;--mark:#7cc4f0}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 "
    "system-ui,"
    "-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\n"
    "main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}h1{font-size:1.7rem;margin:.2em "
    "0}\n"
    "h2{font-size:1.25rem;margin:2.2em 0 .5em}p.lead,figcaption,.soft{color:var(--soft)}\n"
    "figure{margin:1.5em 0;padding:12px;background:#fff;border:1px solid "
    "var(--line);border-radius:8px;"
    "overflow-x:auto}figure svg{max-width:100%;height:auto;display:block}\n"
    "figcaption{padding:6px 4px 0;font-size:.92rem;color:#5b5b5b}\n"
    "table{border-collapse:collapse;background:var(--card);font-size:.92rem}\n"
    "th,td{padding:5px 12px;border-bottom:1px solid "
    "var(--line);text-align:right;white-space:nowrap}\n"
    "th{border-bottom:2px solid var(--line);color:var(--soft);font-weight:600}\n"
    "td.t,th.t{text-align:left}td.best{color:var(--mark);font-weight:700}.scroll{overflow-x:auto}\n"
    "@media print{figure{break-inside:avoid}details{display:block}}\n"
    "</style>\n";

static void add_number(struct buf *out, double v, const char *format)
{
    char text[40];
    if (isnan(v))
        snprintf(text, sizeof(text), "–");
    else
        snprintf(text, sizeof(text), format,
                 v); // NOLINT(clang-diagnostic-format-nonliteral): from METRIC_LIST
    buf_adds(out, text);
}

static void add_head(struct buf *out, const struct report_facts *facts)
{
    buf_adds(out,
             "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>");
    html_escape(out, facts->title);
    buf_adds(out, "</title>\n");
    buf_adds(out, style);
    buf_adds(out, "</head>\n<body>\n<main>\n<h1>");
    html_escape(out, facts->title);
    buf_printf(out, "</h1>\n<p class=\"lead\">%lld of %lld jobs done", (long long)facts->n_done,
               (long long)facts->n_jobs);
    if (facts->n_buried > 0)
        buf_printf(out, ", <strong>%lld buried</strong>", (long long)facts->n_buried);
    if (facts->last_finished != NULL) {
        buf_adds(out, ". Results from ");
        html_escape(out, facts->first_finished);
        buf_adds(out, " to ");
        html_escape(out, facts->last_finished);
        buf_adds(out, " UTC");
    }
    buf_adds(out, ". Database: <code>");
    html_escape(out, facts->db_name);
    buf_adds(out, "</code></p>\n");
}

/* Best k at a few budgets, a row a budget. */
static void add_answer(struct buf *out, const struct group *g, const struct metric_info *info,
                       struct arena *a)
{
    double budgets[ANSWER_BUDGETS];
    buf_adds(out, "<h3>");
    html_escape(out, arena_printf(a, "%s: %s", g->family, setting_label(&g->setting, a)));
    buf_adds(out, "</h3>\n");
    if (!budgets_of(g, ANSWER_BUDGETS, budgets)) {
        buf_adds(out,
                 "<p>No budget is covered by two bit widths yet: more sizes are needed.</p>\n");
        return;
    }
    buf_printf(out, "<div class=\"scroll\"><table><tr><th>total bits</th><th>best k</th>");
    for (int c = 0; c < g->n_curves; c++)
        buf_printf(out, "<th>%d bit</th>", g->curves[c].k);
    buf_adds(out, "</tr>\n");
    for (int i = 0; i < ANSWER_BUDGETS; i++) {
        struct best best = best_at(g, budgets[i], info->is_larger_better);
        char bits[32];
        buf_printf(out, "<tr><td>%sbit</td><td class=\"best\">%d</td>",
                   fmt_si(exp2(budgets[i]), bits), best.k);
        for (int c = 0; c < g->n_curves; c++) {
            buf_printf(out, "<td%s>", g->curves[c].k == best.k ? " class=\"best\"" : "");
            add_number(out, curve_at(&g->curves[c], budgets[i]), info->format);
            buf_adds(out, "</td>");
        }
        buf_adds(out, "</tr>\n");
    }
    buf_adds(out, "</table></div>\n");
}

static void add_answers(struct buf *out, const struct report *r, enum metric_id m, struct arena *a)
{
    int n = 0;
    int n_dropped = 0;
    struct group *groups = groups_build(r->frame, m, r->bits, a, &n, &n_dropped);
    const struct metric_info *info = metric_info_of(m);
    buf_printf(out,
               "<h2>Best bit width per budget: %s</h2>\n<p class=\"soft\">%s is better. Values are "
               "interpolated linearly "
               "over log2 of the total bits between model sizes; “–” lies outside a curve. "
               "Standard errors are in "
               "the view <code>results</code>.</p>\n",
               info->title, info->is_larger_better ? "Larger" : "Smaller");
    const char *last = "";
    for (int i = 0; i < n; i++) {
        const struct group *g = main_group(groups, n, groups[i].family);
        if (g == NULL || strcmp(g->family, last) == 0)
            continue;
        add_answer(out, g, info, a);
        last = g->family;
    }
}

static void add_figures(struct buf *out, const struct report *r)
{
    for (int i = 0; i < r->n_figures; i++) {
        buf_adds(out, "<figure>\n");
        buf_add(out, r->svgs[i].data, r->svgs[i].len);
        buf_adds(out, "<figcaption>");
        html_escape(out, r->figures[i].caption);
        buf_adds(out, "</figcaption></figure>\n");
    }
}

static void add_table(struct buf *out, const struct report *r, enum metric_id m, struct arena *a)
{
    struct pivot p = pivot_build(r->frame, m, a);
    const struct metric_info *info = metric_info_of(m);
    buf_printf(
        out,
        "<details><summary>%s, every configuration</summary>\n<div class=\"scroll\"><table><tr>"
        "<th class=\"t\">family</th><th class=\"t\">size</th><th>parameters</th><th "
        "class=\"t\">setting</th>",
        info->title);
    for (int c = 0; c < p.n_k; c++)
        buf_printf(out, "<th>k=%d</th>", p.k[c]);
    buf_adds(out, "</tr>\n");
    for (int i = 0; i < p.n_rows; i++) {
        const struct pivot_row *row = &p.rows[i];
        char params[32];
        buf_adds(out, "<tr><td class=\"t\">");
        html_escape(out, row->family);
        buf_adds(out, "</td><td class=\"t\">");
        html_escape(out, row->size);
        buf_printf(out, "</td><td>%s</td><td class=\"t\">", fmt_si(row->n_params, params));
        html_escape(out, setting_label(&row->setting, a));
        buf_adds(out, "</td>");
        for (int c = 0; c < p.n_k; c++) {
            buf_adds(out, "<td>");
            add_number(out, row->value[c], info->format);
            buf_adds(out, "</td>");
        }
        buf_adds(out, "</tr>\n");
    }
    buf_adds(out, "</table></div></details>\n");
}

static void add_pairs(struct buf *out, const char *left, const char *right)
{
    buf_adds(out, "<tr><td class=\"t\">");
    html_escape(out, left);
    buf_adds(out, "</td><td class=\"t\">");
    html_escape(out, right);
    buf_adds(out, "</td></tr>\n");
}

static void add_foot(struct buf *out, const struct report_facts *facts)
{
    if (facts->n_failures > 0) {
        buf_adds(out, "<h2>Failures</h2>\n<div class=\"scroll\"><table>");
        for (int i = 0; i < facts->n_failures; i++)
            add_pairs(out, facts->failures[i].key, facts->failures[i].error);
        buf_adds(out, "</table></div>\n");
    }
    buf_adds(out, "<h2>Provenance</h2>\n<div class=\"scroll\"><table>");
    for (int i = 0; i < facts->n_provenance; i++)
        add_pairs(out, facts->provenance[i].name, facts->provenance[i].value);
    buf_adds(out, "</table></div>\n</main>\n</body>\n</html>\n");
}

void html_report(struct buf *out, const struct report *r, struct arena *a)
{
    add_head(out, r->facts);
    add_answers(out, r, METRIC_PERPLEXITY, a);
    add_answers(out, r, METRIC_ZERO_SHOT, a);
    buf_adds(out, "<h2>Scaling curves</h2>\n");
    add_figures(out, r);
    buf_adds(out, "<h2>Tables</h2>\n");
    for (int m = 0; m < METRIC_COUNT; m++)
        add_table(out, r, (enum metric_id)m, a);
    add_foot(out, r->facts);
}

#include "analysis/html.h"

#include <string.h>

#include "analysis/html_json.h"

/* The files of analysis/page/. */
extern const char embed_report_html[], embed_report_css[], embed_format_js[], embed_chart_js[],
    embed_table_js[], embed_report_js[];

static void add_escaped(struct buf *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        if (*c == '&')
            buf_adds(out, "&amp;");
        else if (*c == '<')
            buf_adds(out, "&lt;");
        else
            buf_addc(out, *c);
}

static enum err_code add_data(struct buf *out, const struct report *r, struct err *e)
{
    hj_open(out, '{');
    hj_put_text(out, "title", r->title);
    hj_put_text(out, "bitsTitle", bits_title(r->source->bits));
    hj_put_text(out, "made", arena_printf(r->source->arena, "Made by %s.", cli_version));
    hj_put_int(out, "resamples", r->bootstrap->n_resamples);
    hj_name(out, "remarks");
    hj_open(out, '[');
    for (int i = 0; i < r->n_remarks; i++)
        hj_text(out, r->remarks[i]);
    hj_close(out, ']');
    html_add_answers(out, r);
    html_add_figures(out, r);
    html_add_results(out, r);
    html_add_claims(out, r);
    TRY(html_add_facts(out, r, e));
    hj_close(out, '}');
    return ERR_OK;
}

static enum err_code add_part(struct buf *out, struct str name, const struct report *r,
                              struct err *e)
{
    if (str_eqz(name, "title")) {
        add_escaped(out, r->title);
    } else if (str_eqz(name, "style")) {
        buf_adds(out, embed_report_css);
    } else if (str_eqz(name, "script")) {
        buf_adds(out, embed_format_js);
        buf_adds(out, embed_chart_js);
        buf_adds(out, embed_table_js);
        buf_adds(out, embed_report_js);
    } else {
        CHECK(str_eqz(name, "data"));
        struct buf data = {0}; /* of its own: commas look at what stands before them */
        enum err_code rc = add_data(&data, r, e);
        buf_add(out, data.data, data.len);
        buf_release(&data);
        return rc;
    }
    return ERR_OK;
}

/* The template names the parts that it wants: {{name}}. */
enum err_code html_report(struct buf *out, const struct report *r, struct err *e)
{
    const char *rest = embed_report_html;
    for (const char *at = strstr(rest, "{{"); at != NULL; at = strstr(rest, "{{")) {
        buf_add(out, rest, (size_t)(at - rest));
        const char *name = at + 2;
        const char *end = strstr(name, "}}");
        CHECK(end != NULL);
        TRY(add_part(out, (struct str){name, (size_t)(end - name)}, r, e));
        rest = end + 2;
    }
    buf_adds(out, rest);
    return ERR_OK;
}

/* The report of a sweep: one HTML file that needs no network. Its form lies in analysis/page/ (embedded at build time); the numbers
 * are JSON inside the page, from which its script makes pictures and tables when they are looked at. What the script expects is
 * written member by member in html_data.c (results, curves, claims), html_answer.c and html_facts.c. */
#ifndef ISOBIT_ANALYSIS_HTML_H
#define ISOBIT_ANALYSIS_HTML_H

#include "analysis/bootstrap.h"
#include "analysis/claims.h"
#include "analysis/figure.h"
#include "analysis/source.h"
#include "base/str.h"

struct report {
    struct source *source;
    const char *title;
    const struct bootstrap *bootstrap;
    const struct figure_intervals *intervals;
    const struct figure *figures;
    int n_figures;
    const struct claims *claims; /* NULL: not tested */
    const char *const
        *remarks; /* what a reader must know before the numbers: capped values, samples left out */
    int n_remarks;
};

/* The whole page. Errors: those of store_query. */
MUST_USE enum err_code html_report(struct buf *out, const struct report *r, struct err *e);

/* ---- parts of its data: each appends members "name": value ---- */

/* "answers": the recommended configurations per family and budget, one entry a metric. */
void html_add_answers(struct buf *out, const struct report *r);
/* "metrics", "colors", "figures". */
void html_add_figures(struct buf *out, const struct report *r);
/* "results": the frame by columns. */
void html_add_results(struct buf *out, const struct report *r);
/* "claims". */
void html_add_claims(struct buf *out, const struct report *r);
/* "state", "coverage", "failures", "provenance", "specs". */
MUST_USE enum err_code html_add_facts(struct buf *out, const struct report *r, struct err *e);

#endif

/* The self-contained HTML report of a sweep: answer, pictures, tables, provenance. Pure text making; the caller reads the data and writes
 * the file. */
#ifndef ISOBIT_ANALYSIS_HTML_H
#define ISOBIT_ANALYSIS_HTML_H

#include "analysis/figure.h"
#include "base/str.h"

/* Appends `text` with & < > " escaped. */
void html_escape(struct buf *out, const char *text);

/* Facts of the sweep for the head of the page. All owned by the caller. */
struct report_facts {
    const char *title, *db_name;
    int64_t n_jobs, n_done, n_buried;
    const char *first_finished, *last_finished; /* UTC; NULL: nothing is done */
    struct {
        const char *name, *value;
    } provenance[64];
    int n_provenance;
    struct {
        const char *key, *error;
    } failures[50];
    int n_failures;
};

struct report {
    const struct report_facts *facts;
    const struct frame *frame;
    enum bits_id bits;
    const struct figure *figures;
    const struct buf *svgs; /* one per figure */
    int n_figures;
};

void html_report(struct buf *out, const struct report *r, struct arena *a);

#endif

/* Compact JSON for the inside of a page. base/json.h writes every number with 17 digits, which makes a page of 35,000 jobs several
 * times as large; here a number says how many it has. Texts are safe inside <script>: no "<" is written. Commas come by themselves
 * between values and after names. Pure. */
#ifndef ISOBIT_ANALYSIS_HTML_JSON_H
#define ISOBIT_ANALYSIS_HTML_JSON_H

#include "base/str.h"

void hj_open(struct buf *out, char bracket); /* '{' or '[' */
void hj_close(struct buf *out, char bracket);
void hj_name(struct buf *out, const char *name);       /* of the member that follows */
void hj_text(struct buf *out, const char *text);       /* NULL: null */
void hj_number(struct buf *out, double v, int digits); /* null where it is not finite */
void hj_int(struct buf *out, int64_t v);

/* A name and its value. */
void hj_put_text(struct buf *out, const char *name, const char *text);
void hj_put_number(struct buf *out, const char *name, double v, int digits);
void hj_put_int(struct buf *out, const char *name, int64_t v);
void hj_put_bool(struct buf *out, const char *name, bool v);
void hj_put_numbers(struct buf *out, const char *name, const double *v, int n, int digits);

#endif

#include <math.h>

#include "analysis/claims.h"

static json_t *part_json(const struct claim_part *p)
{
    return json_pack("{s:s,s:o,s:o,s:o,s:s,s:s}", "label", p->label, "value",
                     json_number_or_null(p->value), "low", json_number_or_null(p->low), "high",
                     json_number_or_null(p->high), "needs", p->needs, "verdict",
                     verdict_label(p->verdict));
}

static json_t *variant_json(const struct claim_variant *v)
{
    json_t *parts = json_array();
    for (int i = 0; i < v->n_parts; i++)
        json_array_append_new(parts, part_json(&v->parts[i]));
    json_t *rows = json_array();
    for (int i = 0; i < v->n_rows; i++)
        json_array_append_new(rows, json_integer(v->rows[i]));
    json_t *out = json_pack("{s:s,s:s,s:s,s:o,s:o}", "metric", metric_info_of(v->metric)->option,
                            "bits", v->bits == BITS_FULL ? "full" : "nominal", "verdict",
                            verdict_label(v->verdict), "parts", parts, "rows", rows);
    if (v->reason != NULL)
        json_object_set_new(out, "reason", json_string(v->reason));
    return out;
}

static json_t *claim_json(const struct claim *c)
{
    const struct claim_part *p = claim_shown_part(c);
    const struct claim_variant *shown = claim_shown(c);
    json_t *variants = json_array();
    for (int i = 0; i < c->n_variants; i++)
        json_array_append_new(variants, variant_json(&c->variants[i]));
    json_t *out = json_pack("{s:s,s:s,s:s,s:s,s:s}", "id", c->id, "claim", c->sentence, "test",
                            c->test, "unit", c->unit, "verdict", verdict_label(c->verdict));
    json_object_set_new(out, "statistic", p != NULL ? json_string(p->label) : json_null());
    json_object_set_new(out, "value", json_number_or_null(p != NULL ? p->value : NAN));
    json_object_set_new(out, "low", json_number_or_null(p != NULL ? p->low : NAN));
    json_object_set_new(out, "high", json_number_or_null(p != NULL ? p->high : NAN));
    json_object_set_new(out, "threshold", p != NULL ? json_string(p->needs) : json_null());
    json_object_set_new(out, "n_rows", json_integer(shown != NULL ? shown->n_rows : 0));
    json_object_set_new(out, "note", c->note != NULL ? json_string(c->note) : json_null());
    json_object_set_new(out, "variants", variants);
    return out;
}

/* A row of the frame as the axes that tell it from the others. */
static json_t *row_json(const struct frame_row *r)
{
    json_t *out = json_pack("{s:s,s:s,s:s,s:i}", "sweep", r->sweep, "family", r->family, "size",
                            r->size, "k", r->k);
    if (r->k < 16) {
        json_object_set_new(out, "dtype", json_string(r->dtype));
        json_object_set_new(out, "exponent_bits", json_integer(r->exponent_bits));
        json_object_set_new(out, "block", json_integer(r->block));
        json_object_set_new(out, "center", json_string(r->center));
        json_object_set_new(out, "outlier_pct", json_real(r->outlier_pct));
    }
    return out;
}

json_t *claims_json(const struct claims *c, const struct frame *f)
{
    json_t *claims = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(claims, claim_json(&c->v[i]));
    json_t *rows = json_array();
    for (int i = 0; i < f->n; i++)
        json_array_append_new(rows, row_json(&f->rows[i]));
    json_t *counts = json_object();
    for (int v = 0; v < VERDICT_COUNT; v++)
        json_object_set_new(counts, verdict_label((enum verdict)v), json_integer(c->n_of[v]));
    return json_pack("{s:s,s:s,s:o,s:o,s:o}", "compute", c->compute != NULL ? c->compute : "",
                     "remark", c->remark, "counts", counts, "claims", claims, "rows", rows);
}

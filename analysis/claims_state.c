/* How a claim states what it found. Every pass over a claim states the same things in the same order; the first one names them. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "analysis/claims_impl.h"

void claim_set(struct claim_ctx *c, double share)
{
    c->set++;
    c->share = share;
}

static struct statement *add_statement(struct claim_ctx *c, struct bound b, double value)
{
    CHECK(c->n < CLAIM_MAX_STATEMENTS);
    c->values[c->n] = value;
    struct statement *s = &c->statements[c->n++];
    if (!c->is_first) {
        CHECK(s->bound.kind == b.kind && s->set == c->set); /* every pass says the same things */
        return NULL;
    }
    *s = (struct statement){.bound = b, .set = c->set, .share = c->share};
    return s;
}

void claim_state(struct claim_ctx *c, struct bound b, double value, const char *fmt, ...)
{
    struct statement *s = add_statement(c, b, value);
    if (s == NULL)
        return;
    char text[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    s->label = arena_strdup(c->arena, text);
}

void claim_range(struct claim_ctx *c, double least, double most)
{
    c->statements[c->n - 1].least = least;
    c->statements[c->n - 1].most = most;
}

void claim_state_exact(struct claim_ctx *c, struct bound b, double value, const char *label)
{
    struct statement *s = add_statement(c, b, value);
    if (s == NULL)
        return;
    s->label = label;
    s->is_exact = true;
    s->low = s->high = value;
}

void claim_state_mean(struct claim_ctx *c, struct bound b, const double *v, int n,
                      const char *label)
{
    static const double normal_975 = 1.959963984540054;
    struct mean m = {0};
    struct mean square = {0};
    for (int i = 0; i < n; i++)
        mean_add(&m, v[i]);
    for (int i = 0; i < n; i++)
        mean_add(&square, (v[i] - mean_of(&m)) * (v[i] - mean_of(&m)));
    struct statement *s = add_statement(c, b, mean_of(&m));
    if (s == NULL)
        return;
    double half = m.n > 1 ? normal_975 * sqrt(square.sum / (m.n - 1) / m.n) : NAN;
    s->label = label;
    s->is_exact = true;
    s->low = mean_of(&m) - half;
    s->high = mean_of(&m) + half;
}

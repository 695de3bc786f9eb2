#include "tests/support/head_parts.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum { TARGETS_MOST = 46 };

/* ---- operands ---- */

static float *normal(struct rng *r, int64_t n, double deviation)
{
    float *v = xcalloc((size_t)n, sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(deviation * rng_normal(r));
    return v;
}

static void row_set(float *head, int64_t d, int64_t row, float value)
{
    for (int64_t i = 0; i < d; i++)
        head[row * d + i] = value;
}

/* Rows of x whose numbers are all positive have their largest logits, three equal ones, where the head is constant; those
 * whose numbers are all negative have one where it is the negative constant. Eighths times a power of two: these logits are
 * exact however they are summed. */
static void plant(struct head_operands *o)
{
    const float value = exp2f(ceilf(log2f(12.0F / (float)o->d)));
    row_set(o->head, o->d, o->V / 5, value);
    row_set(o->head, o->d, o->V / 2, value);
    row_set(o->head, o->d, o->V - 1, value);
    row_set(o->head, o->d, o->V / 3, -value);
    for (int64_t r = 0; r < o->R; r++)
        for (int64_t i = 0; i < o->d && r % 4 != 3; i++) {
            const float size = 1 + fminf(floorf(8 * fabsf(o->x[r * o->d + i])), 15) / 8;
            o->x[r * o->d + i] = r % 2 == 0 ? size : -size;
        }
}

int64_t head_operands_top(const struct head_operands *o, int64_t row)
{
    return row % 4 == 3 ? -1 : row % 2 == 0 ? o->V / 5 : o->V / 3;
}

static void add_target(struct head_operands *o, int64_t row, int64_t token)
{
    if (token >= o->V)
        return;
    o->row[o->n] = (int32_t)row;
    o->token[o->n++] = (int32_t)token;
}

static void list_targets(struct head_operands *o, int64_t step, struct rng *rng)
{
    const int64_t fixed[] = {o->V - 1, o->V / 5, o->V / 3, o->V / 2, step, step - 1, 0};
    for (int64_t r = 0; r < o->R; r++) {
        if (r % 7 == 6)
            continue;
        for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
            add_target(o, r, fixed[i]);
        for (int64_t i = (int64_t)ARRAY_LEN(fixed); i < TARGETS_MOST - r % 40; i++)
            add_target(o, r, (int64_t)rng_below(rng, (uint64_t)o->V));
    }
}

struct head_operands head_operands_new(int64_t R, int64_t d, int64_t V, int64_t step, uint64_t seed)
{
    struct rng rng = {seed};
    struct head_operands o = {.R = R, .d = d, .V = V};
    o.x = normal(&rng, R * d, 1);
    o.ref = normal(&rng, R * d, 1);
    o.head = normal(&rng, V * d, 1 / sqrt((double)d));
    o.row = xcalloc((size_t)(R * TARGETS_MOST), sizeof *o.row);
    o.token = xcalloc((size_t)(R * TARGETS_MOST), sizeof *o.token);
    plant(&o);
    list_targets(&o, step, &rng);
    return o;
}

void head_operands_free(struct head_operands *o)
{
    void *all[] = {o->x, o->ref, o->head, o->row, o->token};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
    *o = (struct head_operands){0};
}

/* ---- runs ---- */

/* Calls to come; the host's arrays for answers are there for the last one alone. */
struct run {
    struct kern *k;
    const struct head_operands *o;
    const struct head_answers *out;
    struct kern_score_args score;
    struct kern_kl_args kl;
    struct kern_head_part score_part, kl_part;
};

static enum err_code run_calls(struct run *r, const void *head, bool is_last, struct err *e)
{
    r->score.head = r->kl.head = head;
    r->score.logprob = is_last ? r->out->logprob : NULL;
    r->score.is_top = is_last ? r->out->is_top : NULL;
    r->kl.kl = is_last ? r->out->kl : NULL;
    r->kl.same_top = is_last ? r->out->same_top : NULL;
    TRY(kern_score(r->k, &r->score, e));
    return kern_kl(r->k, &r->kl, e);
}

/* Behind the last part, `room` still holds rows of the part before it. */
static enum err_code run_parts(struct run *r, const char *head, int64_t part, void *room,
                               struct err *e)
{
    const struct head_operands *o = r->o;
    r->score.part = &r->score_part;
    r->kl.part = &r->kl_part;
    for (int64_t first = 0; first < o->V; first += part) {
        const int64_t n = o->V - first < part ? o->V - first : part;
        const char *from = head + first * o->d * kern_get_info(r->k)->act_bytes;
        const struct kern_rows_args copy = {.y = room, .x = from, .n = n, .d = o->d};
        TRY(kern_copy_rows(r->k, &copy, e));
        r->score_part.first = r->kl_part.first = first;
        r->score_part.n = r->kl_part.n = n;
        TRY(run_calls(r, room, first + n == o->V, e));
    }
    return kern_sync(r->k, e);
}

static enum err_code run_with_memory(struct run *r, const char *head, int64_t part, struct err *e)
{
    const struct head_operands *o = r->o;
    const size_t bytes[] = {(size_t)(part * o->d * kern_get_info(r->k)->act_bytes),
                            (size_t)kern_head_bytes(r->k, o->V, o->R, o->n),
                            (size_t)kern_head_bytes(r->k, o->V, o->R, 0)};
    void *p[ARRAY_LEN(bytes)] = {0};
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(bytes) && rc == ERR_OK; i++)
        rc = kern_alloc(r->k, bytes[i], "a part of a head", &p[i], e);
    r->score_part.state = p[1];
    r->kl_part.state = p[2];
    if (rc == ERR_OK)
        rc = run_parts(r, head, part, p[0], e);
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        kern_free(r->k, p[i]);
    return rc;
}

enum err_code head_answers_get(struct kern *k, const struct head_operands *o,
                               const struct head_device *at, int64_t part, struct head_answers *out,
                               struct err *e)
{
    *out = (struct head_answers){.logprob = xcalloc((size_t)o->n, sizeof *out->logprob),
                                 .is_top = xcalloc((size_t)o->n, 1),
                                 .kl = xcalloc((size_t)o->R, sizeof *out->kl),
                                 .same_top = xcalloc((size_t)o->R, 1)};
    struct run r = {
        .k = k,
        .o = o,
        .out = out,
        .score = {.x = at->x,
                  .R = o->R,
                  .d = o->d,
                  .V = o->V,
                  .row = o->row,
                  .token = o->token,
                  .n = o->n},
        .kl = {.x = at->x, .ref = at->ref, .R = o->R, .d = o->d, .V = o->V},
    };
    if (part > 0)
        return run_with_memory(&r, at->head, part, e);
    TRY(run_calls(&r, at->head, true, e));
    return kern_sync(k, e);
}

void head_answers_release(struct head_answers *a)
{
    xfree(a->logprob);
    xfree(a->is_top);
    xfree(a->kl);
    xfree(a->same_top);
    *a = (struct head_answers){0};
}

int64_t head_answers_differ(const struct head_operands *o, const struct head_answers *a,
                            const struct head_answers *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < o->n; i++)
        n += memcmp(&a->logprob[i], &b->logprob[i], sizeof *a->logprob) != 0 ||
             a->is_top[i] != b->is_top[i];
    for (int64_t r = 0; r < o->R; r++)
        n += memcmp(&a->kl[r], &b->kl[r], sizeof *a->kl) != 0 || a->same_top[r] != b->same_top[r];
    return n;
}

int64_t head_answers_wrong(const struct head_operands *o, const struct head_answers *a)
{
    int64_t n = 0;
    for (int64_t i = 0; i < o->n; i++) {
        const int64_t top = head_operands_top(o, o->row[i]);
        n += top >= 0 && a->is_top[i] != (o->token[i] == top);
    }
    return n;
}

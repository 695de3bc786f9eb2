#include "worker/eval/passes.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/model/model_stream.h"

/* A batch of an item. */
struct unit {
    int item;
    int64_t batch;
};

struct passes {
    struct model *m;
    struct pass_item *items;
    int n_items;
    const struct passes_options *o;
    int64_t *n_sample; /* [n_items] */
    struct unit *units;
    int64_t n_units;
    int64_t first; /* of the pass on its way */
    int n_done;    /* items; they end in their order */
    struct pack_arrays arrays;
    const struct eval_pack *arrays_of;
};

static const struct pack_batch *batch_of(const struct passes *p, int64_t unit)
{
    const struct unit *u = &p->units[unit];
    return &p->items[u->item].args.pack->batches[u->batch];
}

static void list_units(struct passes *p)
{
    int64_t n = 0;
    for (int i = 0; i < p->n_items; i++)
        n += p->items[i].args.pack->n_batches;
    p->units = xcalloc((size_t)n, sizeof(*p->units));
    for (int i = 0; i < p->n_items; i++)
        for (int64_t b = 0; b < p->items[i].args.pack->n_batches; b++)
            p->units[p->n_units++] = (struct unit){i, b};
}

/* ---- what model_stream_run asks for ---- */

static void build(void *arg, int64_t unit, struct model_batch *out, struct model_answer **answers)
{
    struct passes *p = arg;
    const struct unit *u = &p->units[p->first + unit];
    struct pass_item *item = &p->items[u->item];
    const struct eval_run_args *a = &item->args;
    if (p->arrays_of != a->pack) {
        pack_arrays_release(&p->arrays);
        pack_arrays_init(a->pack, &p->arrays);
        p->arrays_of = a->pack;
    }
    pack_build(a->set, a->pack, u->batch, p->n_sample[u->item], a->is_record_only, &p->arrays);
    *out = (struct model_batch){.seqs = p->arrays.seqs,
                                .n_seqs = p->arrays.n_seqs,
                                .targets = p->arrays.targets,
                                .n_targets = p->arrays.n_targets,
                                .record = a->record,
                                .compare = a->compare,
                                .kl = item->scores.kl,
                                .same_top = item->scores.same_top};
    *answers = p->arrays.answers;
}

/* A NaN is the item's own trouble: the rest of the pass is not lost with it. */
static enum err_code take(void *arg, int64_t unit, struct err *e)
{
    struct passes *p = arg;
    (void)e;
    struct pass_item *item = &p->items[p->units[p->first + unit].item];
    if (item->code == ERR_OK)
        item->code = eval_collect(item->args.set, &p->arrays, &item->scores, &item->why);
    item->scores.n_tokens += batch_of(p, p->first + unit)->n_tokens;
    return ERR_OK;
}

static bool tell_progress(void *arg)
{
    const struct passes *p = arg;
    return p->o->progress != NULL && p->o->progress(p->o->progress_arg);
}

/* ---- cutting ---- */

/* Tokens that a pass may hold when it should end in time; at least one. */
static int64_t tokens_within(const struct model *m, double minutes)
{
    struct model_plan plan;
    model_get_plan(m, &plan);
    if (minutes <= 0)
        return 0;
    const double flops = 2 * plan.shape.n_products;
    const double tokens = minutes * 60 * plan.device.flops_per_s / flops;
    return tokens < 1 ? 1 : tokens > 1e15 ? (int64_t)1e15 : (int64_t)tokens;
}

struct cut {
    struct plan plan;
    int64_t *tokens; /* [n_units] as they are kept */
    int64_t tokens_max;
};

static void cut_init(struct cut *c, const struct passes *p)
{
    struct model_plan plan;
    model_get_plan(p->m, &plan);
    c->plan = p->items[0].config.k == 32 ? plan.stored : plan.plan;
    c->tokens_max = tokens_within(p->m, p->o->minutes);
    c->tokens = xcalloc((size_t)p->n_units, sizeof(*c->tokens));
    for (int64_t i = 0; i < p->n_units; i++)
        c->tokens[i] = model_stream_tokens(p->m, batch_of(p, i)->n_tokens);
}

static int64_t cut_next(const struct cut *c, const struct passes *p, int64_t first)
{
    return plan_take(&c->plan, c->tokens + first, p->n_units - first, p->o->taken_bytes,
                     c->tokens_max);
}

static void announce(const struct cut *c, const struct passes *p, struct passes_stats *s)
{
    bool has_outliers = false;
    for (int i = 0; i < p->n_items; i++)
        has_outliers |= p->items[i].config.k <= 8 && p->items[i].config.outlier_pct > 0;
    for (int64_t at = 0; at < p->n_units; at += cut_next(c, p, at))
        s->n_planned++;
    s->planned_bytes = model_stream_bytes(p->m, s->n_planned, has_outliers);
    log_event(LOG_INFO, "stream", "plan",
              "passes=%lld bytes=%lld items=%d batches=%lld masters=%d cut=%s head_rows=%lld",
              (long long)s->n_planned, (long long)s->planned_bytes, p->n_items,
              (long long)p->n_units, c->plan.n_masters,
              c->plan.is_cut_within ? "within-layers" : "between-layers",
              (long long)c->plan.head_rows);
}

/* ---- one pass ---- */

/* Batches are the same where items share a packing. */
static int64_t batch_number(const struct passes *p, const struct unit *u)
{
    int first = 0;
    while (p->items[first].args.pack != p->items[u->item].args.pack)
        first++;
    return ((int64_t)first << 32) + u->batch;
}

static void share_seconds(struct passes *p, int64_t n, double seconds)
{
    double tokens = 0;
    for (int64_t i = 0; i < n; i++)
        tokens += (double)batch_of(p, p->first + i)->n_tokens;
    for (int64_t i = 0; i < n; i++)
        p->items[p->units[p->first + i].item].seconds +=
            seconds * (double)batch_of(p, p->first + i)->n_tokens / tokens;
}

static enum err_code run_pass(struct passes *p, int64_t n, struct passes_stats *s, struct err *e)
{
    struct stream_unit *units = xcalloc((size_t)n, sizeof(*units));
    struct config *configs = xcalloc((size_t)n, sizeof(*configs));
    struct stream_pass pass = {.configs = configs,
                               .units = units,
                               .n_units = n,
                               .build = build,
                               .take = take,
                               .progress = tell_progress,
                               .arg = p};
    for (int64_t i = 0; i < n; i++) {
        const struct unit *u = &p->units[p->first + i];
        const struct pass_item *item = &p->items[u->item];
        if (i == 0 || !config_equal(&configs[pass.n_configs - 1], &item->config))
            configs[pass.n_configs++] = item->config;
        units[i] = (struct stream_unit){.config = pass.n_configs - 1,
                                        .batch = batch_number(p, u),
                                        .n_tokens = batch_of(p, p->first + i)->n_tokens,
                                        .magnitudes = item->scores.magnitudes};
    }
    int64_t bytes = 0;
    const int64_t start = clock_mono_ns();
    enum err_code rc = model_stream_run(p->m, &pass, &bytes, e);
    share_seconds(p, n, clock_seconds_since(start));
    s->n_run++;
    s->bytes += bytes;
    xfree(units);
    xfree(configs);
    return rc;
}

/* Items whose last batch is behind the first `end` ones. */
static void finish_items(struct passes *p, int64_t end)
{
    for (; p->n_done < p->n_items; p->n_done++) {
        struct pass_item *item = &p->items[p->n_done];
        if (end < p->n_units && p->units[end].item <= p->n_done)
            break;
        if (item->code == ERR_OK)
            eval_end(item->args.set, &item->scores);
        else
            eval_scores_release(&item->scores);
        p->o->done(p->o->done_arg, p->n_done);
    }
}

static enum err_code run_all(struct passes *p, struct passes_stats *s, struct err *e)
{
    struct cut c;
    enum err_code rc = ERR_OK;
    cut_init(&c, p);
    announce(&c, p, s);
    while (rc == ERR_OK && p->first < p->n_units) {
        const int64_t n = cut_next(&c, p, p->first);
        rc = run_pass(p, n, s, e);
        p->first += n;
        if (rc == ERR_OK)
            finish_items(p, p->first);
    }
    log_event(LOG_INFO, "stream", "done", "passes=%lld bytes=%lld", (long long)s->n_run,
              (long long)s->bytes);
    xfree(c.tokens);
    return rc;
}

enum err_code passes_run(struct model *m, struct pass_item *items, int n,
                         const struct passes_options *o, struct passes_stats *stats, struct err *e)
{
    struct passes p = {.m = m,
                       .items = items,
                       .n_items = n,
                       .o = o,
                       .n_sample = xcalloc((size_t)n, sizeof(*p.n_sample))};
    *stats = (struct passes_stats){0};
    for (int i = 0; i < n; i++) {
        items[i].args.model = m;
        items[i].code = ERR_OK;
        items[i].seconds = 0;
        eval_begin(&items[i].args, &items[i].scores, &p.n_sample[i]);
    }
    list_units(&p);
    enum err_code rc = run_all(&p, stats, e);
    for (int i = p.n_done; i < n; i++)
        eval_scores_release(&items[i].scores);
    pack_arrays_release(&p.arrays);
    xfree(p.units);
    xfree(p.n_sample);
    return rc;
}

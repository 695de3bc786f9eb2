/* Jobs on a checkpoint that runs layer by layer: a group of them becomes the items of passes, with a 16-bit run in front
 * where results are compared with it. */
#include "worker/runner_impl.h"

#include <string.h>

#include "base/log.h"
#include "worker/eval/passes.h"
#include "worker/model/model_stream.h"

/* A group may name so many evaluations; their sets must stay while it runs. */
enum { MAX_GROUP_EVALS = MAX_PREPARED / 2 };

struct group {
    struct runner *r;
    const struct job *jobs;
    bool *done;
    const struct runner_report *report;
    /* Items of passes and whose they are; job -1: a 16-bit run that no job asked for. */
    struct pass_item *items;
    int *job;
    struct prepared **prepared;
    struct bits *bits;
    int n;
    struct passes_stats stats;
    int64_t reported_bytes; /* of stats.bytes */
};

static void report_failure(struct group *g, int job, const struct err *why)
{
    g->done[job] = true;
    g->report->done(g->report->arg, job, NULL, why);
}

static void add_item(struct group *g, int job, const struct config *c, struct prepared *p)
{
    g->items[g->n] = (struct pass_item){.config = *c, .args = {.set = &p->set, .pack = &p->pack}};
    g->prepared[g->n] = p;
    g->job[g->n++] = job;
}

/* The next job of the group; *is_full when its evaluation would be one too many. */
static enum err_code take_job(struct group *g, int i, bool *is_full, struct err *e)
{
    struct runner *r = g->r;
    struct config c = g->jobs[i].config;
    struct prepared *p = NULL;
    r->lacks = WIRE_LACK_CONFIGURATION;
    TRY(config_validate(&c, e));
    config_normalize(&c);
    TRY(model_stream_check(r->model, &c, &g->bits[g->n], e));
    if (r->n_prepared >= MAX_PREPARED - 1) {
        *is_full = true;
        return ERR_OK;
    }
    if (c.k == 32 && g->jobs[i].eval.task == TASK_weight_std)
        return err_set(e, ERR_NOMEM,
                       "deviations are those of 16-bit weights, which a run of weights as stored "
                       "(k 32) has not beside it; use k 16 or raise --memory");
    TRY(runner_prepare(r, &g->jobs[i].eval, &p, e));
    add_item(g, i, &c, p);
    return ERR_OK;
}

/* Weights as stored take passes of their own: the first job says which kind this group is of. */
static bool is_of_group(const struct group *g, int i)
{
    return g->n == 0 || (g->jobs[i].config.k == 32) == (g->items[0].config.k == 32);
}

static void take_jobs(struct group *g, int n)
{
    bool is_full = false;
    for (int i = 0; i < n && !is_full; i++) {
        struct err e;
        if (g->done[i] || !is_of_group(g, i) || take_job(g, i, &is_full, &e) == ERR_OK)
            continue;
        ERR_IGNORE(err_wrap(&e, "%s, %s", g->jobs[i].model.name, g->jobs[i].eval.name));
        report_failure(g, i, &e);
    }
}

/* ---- the 16-bit run ---- */

static int find_baseline(const struct group *g, const struct prepared *p)
{
    for (int i = 0; i < g->n; i++)
        if (g->prepared[i] == p && g->items[i].config.k == 16)
            return i;
    return -1;
}

/* Whoever is compared gets reference rows; the first to ask has the 16-bit run record them. */
static enum err_code add_baselines(struct group *g, struct err *e)
{
    const struct config baseline = runner_baseline(g->r);
    const int n_jobs = g->n;
    for (int i = 0; i < n_jobs; i++) {
        struct prepared *p = g->prepared[i];
        const bool wants = runner_is_compared(&g->items[i].config, p->set.task);
        const bool is_own = g->items[i].config.k == 16 && p->set.task == TASK_perplexity;
        if (p->ref != NULL || (!wants && !is_own))
            continue;
        int at = find_baseline(g, p);
        if (at < 0) {
            at = g->n;
            add_item(g, -1, &baseline, p);
            g->items[at].args.is_record_only = true;
        }
        TRY(model_ref_new(g->r->model, eval_n_sample(&p->pack), &p->ref, e));
        g->items[at].args.record = p->ref;
    }
    for (int i = 0; i < n_jobs; i++)
        if (runner_is_compared(&g->items[i].config, g->prepared[i]->set.task))
            g->items[i].args.compare = g->prepared[i]->ref;
    return ERR_OK;
}

/* Rows that were not written for a whole evaluation are not kept. */
static void drop_unwritten(struct group *g, bool is_all)
{
    for (int i = 0; i < g->n; i++)
        if (g->items[i].args.record != NULL && (is_all || g->items[i].code != ERR_OK)) {
            model_ref_free(g->r->model, g->prepared[i]->ref);
            g->prepared[i]->ref = NULL;
        }
}

/* ---- order ---- */

static void swap_items(struct group *g, int i, int j)
{
    const struct pass_item item = g->items[i];
    const int job = g->job[i];
    struct prepared *p = g->prepared[i];
    const struct bits bits = g->bits[i];
    g->items[i] = g->items[j];
    g->job[i] = g->job[j];
    g->prepared[i] = g->prepared[j];
    g->bits[i] = g->bits[j];
    g->items[j] = item;
    g->job[j] = job;
    g->prepared[j] = p;
    g->bits[j] = bits;
}

/* Moves item `from` to place `to`, the ones between one place up. */
static void move_item(struct group *g, int from, int to)
{
    for (int i = from; i > to; i--)
        swap_items(g, i, i - 1);
}

/* 16-bit runs first; then equal configurations stand together, in the order in which they came. */
static void sort_items(struct group *g)
{
    int end = 0;
    for (int i = 0; i < g->n; i++)
        if (g->items[i].config.k == 16)
            move_item(g, i, end++);
    while (end < g->n) {
        const int first = end++;
        for (int i = end; i < g->n; i++)
            if (config_equal(&g->items[i].config, &g->items[first].config))
                move_item(g, i, end++);
    }
}

/* ---- running ---- */

/* The item is done; its 16-bit rows, if it made them, are complete. */
static void report_item(void *arg, int i)
{
    struct group *g = arg;
    struct runner *r = g->r;
    struct pass_item *item = &g->items[i];
    struct job_result out = {.seconds = item->seconds};
    r->stats.tokens += item->scores.n_tokens;
    r->unreported_bytes += g->stats.bytes - g->reported_bytes;
    g->reported_bytes = g->stats.bytes;
    if (item->code == ERR_OK && g->job[i] >= 0) {
        eval_score(&g->prepared[i]->set, &item->scores, &out, g->report->a);
        runner_describe(r, &g->bits[i], &out, g->report->a);
        g->done[g->job[i]] = true;
        g->report->done(g->report->arg, g->job[i], &out, NULL);
    } else if (g->job[i] >= 0) {
        report_failure(g, g->job[i], &item->why);
    }
    eval_scores_release(&item->scores);
}

static void count_configs(struct group *g)
{
    for (int i = 0; i < g->n; i++)
        g->r->stats.configurations +=
            i == 0 || !config_equal(&g->items[i].config, &g->items[i - 1].config);
}

static int64_t ref_bytes(const struct runner *r)
{
    int64_t bytes = 0;
    for (int i = 0; i < r->n_prepared; i++)
        if (r->prepared[i].ref != NULL)
            bytes += model_ref_bytes(r->model, eval_n_sample(&r->prepared[i].pack));
    return bytes;
}

static enum err_code run_items(struct group *g, struct err *e)
{
    struct runner *r = g->r;
    struct passes_stats *s = &g->stats;
    TRY(add_baselines(g, e));
    sort_items(g);
    const struct passes_options o = {.taken_bytes = ref_bytes(r),
                                     .minutes = r->options.pass_minutes,
                                     .progress = runner_tell_progress,
                                     .progress_arg = r,
                                     .done = report_item,
                                     .done_arg = g};
    enum err_code rc = passes_run(r->model, g->items, g->n, &o, s, e);
    r->stats.passes += s->n_run;
    r->stats.passes_planned += s->n_planned;
    r->stats.pass_bytes += s->bytes;
    r->stats.pass_bytes_planned += s->planned_bytes;
    return rc;
}

static void run_group(struct group *g)
{
    struct err e;
    g->r->lacks = WIRE_LACK_CONFIGURATION;
    enum err_code rc = run_items(g, &e);
    drop_unwritten(g, rc != ERR_OK);
    if (rc == ERR_OK)
        count_configs(g);
    for (int i = 0; i < g->n && rc != ERR_OK; i++)
        if (g->job[i] >= 0 && !g->done[g->job[i]])
            report_failure(g, g->job[i], &e);
}

void runner_run_passes(struct runner *r, const struct job *jobs, int n, bool *done,
                       const struct runner_report *report)
{
    const size_t room = 2 * (size_t)n; /* every job may bring a 16-bit run along */
    struct group g = {.r = r,
                      .jobs = jobs,
                      .done = done,
                      .report = report,
                      .items = xcalloc(room, sizeof(*g.items)),
                      .job = xcalloc(room, sizeof(*g.job)),
                      .prepared = xcalloc(room, sizeof(struct prepared *)),
                      .bits = xcalloc(room, sizeof(*g.bits))};
    if (r->n_prepared > MAX_GROUP_EVALS)
        runner_drop_prepared(r);
    take_jobs(&g, n);
    if (g.n > 0)
        run_group(&g);
    xfree(g.items);
    xfree(g.job);
    xfree(g.prepared);
    xfree(g.bits);
}

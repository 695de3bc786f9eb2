/* Life of a runner, and its jobs, one or many: those on a checkpoint that is on the device run here,
 * those on one that runs layer by layer in runner_passes.c. */
#include "base/clock.h"
#include "worker/runner_impl.h"

enum err_code runner_new(const struct runner_options *o, struct runner **out, struct err *e)
{
    if (o->device == NULL || o->device[0] == '\0')
        return err_set(e, ERR_USAGE, "no device given; use \"cpu\" or \"cuda:0\"");
    struct runner *r = xcalloc(1, sizeof(*r));
    r->device = xstrdup(o->device);
    r->options = *o;
    r->options.device = r->device;
    *out = r;
    return ERR_OK;
}

void runner_free(struct runner *r)
{
    if (r == NULL)
        return;
    runner_ahead_stop(r);
    runner_drop_prepared(r);
    runner_unload(r);
    kern_close(r->kern);
    xfree(r->device);
    xfree(r);
}

static enum err_code set_config(struct runner *r, const struct config *c, struct err *e)
{
    if (r->has_config && config_equal(&r->config, c))
        return ERR_OK;
    r->has_config = false;
    TRY(model_set_config(r->model, c, &r->bits, e));
    if (c->k > 16) /* weights as stored come from the files again */
        r->unreported_bytes += ckpt_bytes(r->ckpt);
    r->has_config = true;
    r->config = *c;
    r->stats.configurations++;
    return ERR_OK;
}

static struct eval_run_args run_args(struct runner *r, const struct prepared *p)
{
    return (struct eval_run_args){.model = r->model,
                                  .set = &p->set,
                                  .pack = &p->pack,
                                  .progress = runner_tell_progress,
                                  .progress_arg = r};
}

/* Runs the evaluation while the 16-bit weights are in force and keeps the sampled hidden states in p->ref. */
static enum err_code run_recording(struct runner *r, struct prepared *p, bool is_record_only,
                                   struct eval_scores *out, struct err *e)
{
    TRY(model_ref_new(r->model, eval_n_sample(&p->pack), &p->ref, e));
    struct eval_run_args args = run_args(r, p);
    args.record = p->ref;
    args.is_record_only = is_record_only;
    enum err_code rc = eval_run(&args, out, e);
    if (rc != ERR_OK) {
        model_ref_free(r->model, p->ref);
        p->ref = NULL;
    }
    return rc;
}

/* The 16-bit run beside a configuration (decisions: the engine, 6). It runs the batches of a whole evaluation, so that
 * the rows are the same bits whether the baseline's own job came first or not. */
static enum err_code ensure_baseline(struct runner *r, struct prepared *p, struct err *e)
{
    if (p->ref != NULL)
        return ERR_OK;
    const struct config c = runner_baseline(r);
    struct eval_scores unused = {0};
    if (set_config(r, &c, e) != ERR_OK || run_recording(r, p, true, &unused, e) != ERR_OK)
        return err_wrap(e, "16-bit run to compare with");
    r->stats.tokens += unused.n_tokens;
    eval_scores_release(&unused);
    return ERR_OK;
}

static enum err_code run_config(struct runner *r, const struct config *c, struct prepared *p,
                                enum task task, struct eval_scores *scores, struct err *e)
{
    TRY(set_config(r, c, e));
    if (task == TASK_perplexity && c->k == 16 && p->ref == NULL)
        return run_recording(r, p, false, scores, e);
    struct eval_run_args args = run_args(r, p);
    args.compare = runner_is_compared(c, task) ? p->ref : NULL;
    return eval_run(&args, scores, e);
}

/* On a checkpoint that is on the device. */
static enum err_code run_resident(struct runner *r, const struct job *job, const struct config *c,
                                  struct job_result *out, struct arena *a, struct err *e)
{
    struct prepared *p = NULL;
    struct eval_scores scores = {0};
    TRY(runner_prepare(r, &job->eval, &p, e));
    if (runner_is_compared(c, job->eval.task))
        TRY(ensure_baseline(r, p, e));
    int64_t start = clock_mono_ns();
    enum err_code rc = run_config(r, c, p, job->eval.task, &scores, e);
    if (rc != ERR_OK)
        return err_wrap(e, "%s, %s", job->model.name, job->eval.name);
    *out = (struct job_result){.seconds = clock_seconds_since(start)};
    eval_score(&p->set, &scores, out, a);
    runner_describe(r, &r->bits, out, a);
    r->stats.tokens += scores.n_tokens;
    eval_scores_release(&scores);
    return ERR_OK;
}

static enum err_code open_for(struct runner *r, const struct job *job, struct config *c,
                              struct err *e)
{
    *c = job->config;
    TRY(config_validate(c, e));
    config_normalize(c);
    r->lacks = WIRE_LACK_CHECKPOINT;
    TRY(runner_ensure_model(r, &job->model, c->compute, e));
    r->lacks = WIRE_LACK_CONFIGURATION;
    return ERR_OK;
}

enum err_code runner_opens(struct runner *r, const struct job *job, bool *is_streamed,
                           struct err *e)
{
    struct config unused;
    TRY(open_for(r, job, &unused, e));
    *is_streamed = model_is_streamed(r->model);
    return ERR_OK;
}

/* Where the one result of runner_run goes. */
struct one_report {
    struct job_result *out;
    struct arena *a;
    struct err *e;
};

static void take_one(void *arg, int i, const struct job_result *result, const struct err *why)
{
    (void)i;
    struct one_report *one = arg;
    if (result != NULL)
        *one->out = *result;
    else
        *one->e = *why;
}

enum err_code runner_run(struct runner *r, const struct job *job, struct job_result *out,
                         struct arena *a, struct err *e)
{
    struct config c;
    TRY(open_for(r, job, &c, e));
    if (!model_is_streamed(r->model))
        return run_resident(r, job, &c, out, a, e);
    bool is_done = false;
    struct err why = {.code = ERR_OK};
    struct one_report one = {out, a, &why};
    runner_run_passes(r, job, 1, &is_done, &(struct runner_report){take_one, &one, a});
    if (why.code != ERR_OK)
        *e = why;
    return why.code;
}

/* Reports jobs[first], and on a streamed checkpoint all that can share its passes. */
static void run_from(struct runner *r, const struct job *jobs, int n, int first, bool *done,
                     const struct runner_report *report)
{
    struct err e = {.code = ERR_OK};
    struct job_result out = {0};
    bool is_streamed = false;
    if (runner_opens(r, &jobs[first], &is_streamed, &e) == ERR_OK && is_streamed) {
        bool *rest = xcalloc((size_t)n, sizeof(*rest));
        for (int i = 0; i < n; i++)
            rest[i] = done[i] || !runner_is_like(&jobs[i], &jobs[first]);
        runner_run_passes(r, jobs, n, rest, report);
        for (int i = 0; i < n; i++)
            done[i] |= rest[i] && runner_is_like(&jobs[i], &jobs[first]);
        xfree(rest);
        return;
    }
    if (e.code == ERR_OK && runner_run(r, &jobs[first], &out, report->a, &e) == ERR_OK)
        report->done(report->arg, first, &out, NULL);
    else
        report->done(report->arg, first, NULL, &e);
    done[first] = true;
}

void runner_run_many(struct runner *r, const struct job *jobs, int n,
                     const struct runner_report *report)
{
    bool *done = xcalloc((size_t)n, sizeof(*done));
    for (int i = 0; i < n; i++)
        while (!done[i])
            run_from(r, jobs, n, i, done, report);
    xfree(done);
}

#include "worker/runner.h"

#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
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

/* What depends on the model, of one evaluation. */
static void unpack(struct runner *r, struct prepared *p)
{
    model_ref_free(r->model, p->ref);
    p->ref = NULL;
    pack_release(&p->pack);
    p->is_packed = false;
}

static void drop(struct runner *r, struct prepared *p)
{
    unpack(r, p);
    eval_set_release(&p->set);
    xfree(p->key);
}

void runner_drop_prepared(struct runner *r)
{
    for (int i = 0; i < r->n_prepared; i++)
        drop(r, &r->prepared[i]);
    r->n_prepared = 0;
    runner_ahead_drop_sets(r);
}

static void unload(struct runner *r)
{
    for (int i = 0; i < r->n_prepared; i++)
        unpack(r, &r->prepared[i]);
    model_close(r->model);
    tok_close(r->tok);
    ckpt_close(r->ckpt);
    xfree(r->model_key);
    r->model = NULL;
    r->tok = NULL;
    r->ckpt = NULL;
    r->model_key = NULL;
    r->has_config = false;
}

void runner_free(struct runner *r)
{
    if (r == NULL)
        return;
    runner_ahead_stop(r);
    runner_drop_prepared(r);
    unload(r);
    kern_close(r->kern);
    xfree(r->device);
    xfree(r);
}

const struct runner_stats *runner_get_stats(const struct runner *r)
{
    return &r->stats;
}

bool runner_tell_progress(void *arg)
{
    struct runner *r = arg;
    r->counter++;
    return r->options.progress != NULL && r->options.progress(r->options.progress_arg, r->counter);
}

static enum kern_compute kern_compute_of(enum compute c)
{
    static const enum kern_compute all[COMPUTE_COUNT] = {
        [COMPUTE_FP32] = KERN_FP32, [COMPUTE_FP16] = KERN_FP16, [COMPUTE_BF16] = KERN_BF16};
    return all[c];
}

/* ---- the checkpoint in force ---- */

static enum err_code ensure_kern(struct runner *r, enum compute compute, struct err *e)
{
    if (r->kern != NULL && r->compute == compute)
        return ERR_OK;
    unload(r);
    kern_close(r->kern);
    r->kern = NULL;
    struct kern_options o = {
        .device = r->device, .compute = kern_compute_of(compute), .threads = r->options.threads};
    TRY(kern_open(&o, &r->kern, e));
    r->compute = compute;
    return ERR_OK;
}

static enum err_code load(struct runner *r, const struct model_ref *m, const char *key,
                          struct err *e)
{
    int64_t start = clock_mono_ns();
    r->ckpt = runner_ahead_take(r, key);
    if (r->ckpt == NULL)
        TRY(ckpt_open(m, &r->ckpt, e));
    ckpt_identity_start(r->ckpt);
    TRY(tok_open(ckpt_dir(r->ckpt), &r->tok, e));
    TRY(model_open_within(r->ckpt, r->kern, r->options.memory_bytes, &r->model, e));
    if (!model_is_streamed(r->model)) {
        r->stats.checkpoint_loads++;
        r->unreported_bytes += ckpt_bytes(r->ckpt);
    }
    const struct model_info *info = model_get_info(r->model);
    if (tok_vocab_size(r->tok) > info->vocab)
        return err_set(
            e, ERR_FORMAT,
            "%s: the tokenizer has %d entries, the embedding only %lld rows; they are not "
            "of one model",
            ckpt_dir(r->ckpt), tok_vocab_size(r->tok), (long long)info->vocab);
    log_event(LOG_DEBUG, "runner", "loaded", "model=\"%s\" params=%lld flushed=%lld seconds=%.2f",
              m->name, (long long)info->n_params, (long long)info->flushed,
              clock_seconds_since(start));
    return ERR_OK;
}

/* Sets made with another tokenizer or cut to another context do not fit the new model. */
static void keep_fitting_sets(struct runner *r)
{
    const char *tokenizer = tok_sha256(r->tok);
    int64_t context = model_get_info(r->model)->context;
    if (strcmp(r->set_tokenizer, tokenizer) == 0 && r->set_context == context)
        return;
    runner_drop_prepared(r);
    memcpy(r->set_tokenizer, tokenizer, SHA256_HEX);
    r->set_context = context;
}

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

char *runner_model_key(const struct model_ref *m)
{
    return xasprintf("%s|%s|%s", or_empty(m->path), or_empty(m->hub), or_empty(m->revision));
}

enum err_code runner_ensure_model(struct runner *r, const struct model_ref *m, enum compute compute,
                                  struct err *e)
{
    TRY(ensure_kern(r, compute, e));
    char *key = runner_model_key(m);
    if (r->model_key != NULL && strcmp(key, r->model_key) == 0) {
        xfree(key);
        runner_ahead_begin(r);
        return ERR_OK;
    }
    unload(r);
    enum err_code rc = load(r, m, key, e);
    if (rc != ERR_OK) {
        unload(r);
        xfree(key);
        return rc;
    }
    r->model_key = key;
    keep_fitting_sets(r);
    runner_ahead_begin(r);
    return ERR_OK;
}

/* ---- evaluations ---- */

/* Room for one more prepared evaluation; the oldest makes place. */
static struct prepared *new_prepared(struct runner *r)
{
    if (r->n_prepared == MAX_PREPARED) {
        drop(r, &r->prepared[0]);
        r->n_prepared--;
        memmove(r->prepared, r->prepared + 1, (size_t)r->n_prepared * sizeof(*r->prepared));
    }
    struct prepared *p = &r->prepared[r->n_prepared];
    *p = (struct prepared){0};
    return p;
}

struct prepared *runner_find_prepared(struct runner *r, const struct eval_spec *ev)
{
    char *key = eval_set_key(ev);
    struct prepared *found = NULL;
    for (int i = 0; i < r->n_prepared && found == NULL; i++)
        if (strcmp(r->prepared[i].key, key) == 0)
            found = &r->prepared[i];
    xfree(key);
    return found;
}

static enum err_code find_or_load(struct runner *r, const struct eval_spec *ev,
                                  struct prepared **out, struct err *e)
{
    *out = runner_find_prepared(r, ev);
    if (*out != NULL)
        return ERR_OK;
    struct prepared *p = new_prepared(r);
    struct eval_source src = {.spec = ev,
                              .tok = r->tok,
                              .context = r->set_context,
                              .progress = runner_tell_progress,
                              .progress_arg = r};
    if (!eval_ahead_take(r->ahead.sets, ev, &p->set))
        TRY(eval_load(&src, &p->set, e));
    p->key = eval_set_key(ev);
    r->n_prepared++;
    *out = p;
    return ERR_OK;
}

enum err_code runner_prepare(struct runner *r, const struct eval_spec *ev, struct prepared **out,
                             struct err *e)
{
    TRY(find_or_load(r, ev, out, e));
    struct prepared *p = *out;
    if (p->is_packed)
        return ERR_OK;
    TRY(pack_make(&p->set, model_max_tokens(r->model), &p->pack, e));
    p->is_packed = true;
    return ERR_OK;
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

struct config runner_baseline(const struct runner *r)
{
    struct config c = config_default();
    c.k = 16;
    c.compute = r->compute;
    config_normalize(&c);
    return c;
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

bool runner_is_compared(const struct config *c, enum task t)
{
    return t == TASK_perplexity && c->k <= 8 && !c->quant_head && !c->quant_embed;
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

void runner_describe(struct runner *r, const struct bits *bits, struct job_result *out,
                     struct arena *a)
{
    const struct model_info *info = model_get_info(r->model);
    out->bits = *bits;
    out->n_params = info->n_params;
    out->n_params_linear = info->n_params_linear;
    out->weights_read = r->unreported_bytes;
    ckpt_identity(r->ckpt, out->weights_sha256);
    out->device = arena_strdup(a, kern_get_info(r->kern)->device);
    out->program = cli_version;
    r->unreported_bytes = 0;
    r->stats.jobs++;
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
    return runner_ensure_model(r, &job->model, c->compute, e);
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

static bool is_like(const struct job *a, const struct job *b)
{
    return strcmp(or_empty(a->model.path), or_empty(b->model.path)) == 0 &&
           strcmp(or_empty(a->model.hub), or_empty(b->model.hub)) == 0 &&
           strcmp(or_empty(a->model.revision), or_empty(b->model.revision)) == 0 &&
           a->config.compute == b->config.compute;
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
            rest[i] = done[i] || !is_like(&jobs[i], &jobs[first]);
        runner_run_passes(r, jobs, n, rest, report);
        for (int i = 0; i < n; i++)
            done[i] |= rest[i] && is_like(&jobs[i], &jobs[first]);
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

#include "worker/runner.h"

#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/eval/eval.h"
#include "worker/eval/pack.h"

/* An evaluation ready to run on the checkpoint in force. The set outlives the checkpoint as long as tokenizer and
 * context stay the same; packing and reference rows belong to the model. */
struct prepared {
    char *key;
    struct eval_set set;
    bool is_packed;
    struct eval_pack pack;
    struct model_ref_rows *ref; /* NULL until the 16-bit run was made */
};

enum { MAX_PREPARED = 64 };

struct runner {
    char *device;
    struct runner_options options;
    struct kern *kern;
    enum compute compute; /* of kern */
    /* The checkpoint in force; all NULL when there is none. */
    char *model_key;
    struct ckpt *ckpt;
    struct model *model;
    struct tok *tok;
    char weights_sha256[SHA256_HEX];
    /* The configuration in force. */
    bool has_config;
    struct config config;
    struct bits bits;
    struct prepared prepared[MAX_PREPARED];
    int n_prepared;
    char set_tokenizer[SHA256_HEX]; /* what the prepared sets were made with */
    int64_t set_context;
    int64_t counter;
    struct runner_stats stats;
    int64_t unreported_bytes; /* of weight files read since the last result */
};

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

static void drop_prepared(struct runner *r)
{
    for (int i = 0; i < r->n_prepared; i++)
        drop(r, &r->prepared[i]);
    r->n_prepared = 0;
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
    drop_prepared(r);
    unload(r);
    kern_close(r->kern);
    xfree(r->device);
    xfree(r);
}

const struct runner_stats *runner_get_stats(const struct runner *r)
{
    return &r->stats;
}

static bool tell_progress(void *arg)
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

/* The fp16 master and the compute weights of all tensors: refused before anything large is allocated. */
static enum err_code check_memory(const struct runner *r, struct err *e)
{
    int64_t per_weight = 2 + kern_get_info(r->kern)->act_bytes, count = 0;
    for (int i = 0; i < ckpt_n_tensors(r->ckpt); i++)
        count += ckpt_tensor_at(r->ckpt, i)->count;
    if (r->options.memory_bytes == 0 || count <= r->options.memory_bytes / per_weight)
        return ERR_OK;
    char need[32], have[32];
    return err_set(e, ERR_NOMEM, "%s needs at least %s, the budget is %s; raise --memory",
                   ckpt_dir(r->ckpt), fmt_bytes((double)count * (double)per_weight, need),
                   fmt_bytes((double)r->options.memory_bytes, have));
}

static enum err_code load(struct runner *r, const struct model_ref *m, struct err *e)
{
    int64_t start = clock_mono_ns();
    TRY(ckpt_open(m, &r->ckpt, e));
    TRY(check_memory(r, e));
    TRY(tok_open(ckpt_dir(r->ckpt), &r->tok, e));
    r->stats.checkpoint_loads++;
    r->unreported_bytes += ckpt_bytes(r->ckpt);
    TRY(model_open(r->ckpt, r->kern, &r->model, e));
    ckpt_identity(r->ckpt, r->weights_sha256);
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
    drop_prepared(r);
    memcpy(r->set_tokenizer, tokenizer, SHA256_HEX);
    r->set_context = context;
}

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

static enum err_code ensure_model(struct runner *r, const struct model_ref *m, enum compute compute,
                                  struct err *e)
{
    TRY(ensure_kern(r, compute, e));
    char *key = xasprintf("%s|%s|%s", or_empty(m->path), or_empty(m->hub), or_empty(m->revision));
    if (r->model_key != NULL && strcmp(key, r->model_key) == 0) {
        xfree(key);
        return ERR_OK;
    }
    unload(r);
    enum err_code rc = load(r, m, e);
    if (rc != ERR_OK) {
        unload(r);
        xfree(key);
        return rc;
    }
    r->model_key = key;
    keep_fitting_sets(r);
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

static enum err_code find_or_load(struct runner *r, const struct eval_spec *ev,
                                  struct prepared **out, struct err *e)
{
    struct arena a = {0};
    char *key = xasprintf("%s|%s", key_of_eval(ev, &a), ev->data_path);
    arena_release(&a);
    for (int i = 0; i < r->n_prepared; i++) {
        if (strcmp(r->prepared[i].key, key) == 0) {
            xfree(key);
            *out = &r->prepared[i];
            return ERR_OK;
        }
    }
    struct prepared *p = new_prepared(r);
    struct eval_source src = {.spec = ev,
                              .tok = r->tok,
                              .context = r->set_context,
                              .progress = tell_progress,
                              .progress_arg = r};
    enum err_code rc = eval_load(&src, &p->set, e);
    if (rc != ERR_OK) {
        xfree(key);
        return rc;
    }
    p->key = key;
    r->n_prepared++;
    *out = p;
    return ERR_OK;
}

static enum err_code prepare(struct runner *r, const struct eval_spec *ev, struct prepared **out,
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
                                  .progress = tell_progress,
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
    struct config c = config_default();
    c.k = 16;
    c.compute = r->compute;
    config_normalize(&c);
    struct eval_scores unused = {0};
    if (set_config(r, &c, e) != ERR_OK || run_recording(r, p, true, &unused, e) != ERR_OK)
        return err_wrap(e, "16-bit run to compare with");
    r->stats.tokens += unused.n_tokens;
    eval_scores_release(&unused);
    return ERR_OK;
}

/* KL needs a head and embeddings that are the baseline's own. */
static bool is_compared(const struct config *c, enum task t)
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
    args.compare = is_compared(c, task) ? p->ref : NULL;
    return eval_run(&args, scores, e);
}

static void describe(const struct runner *r, struct job_result *out, struct arena *a)
{
    const struct model_info *info = model_get_info(r->model);
    out->bits = r->bits;
    out->n_params = info->n_params;
    out->n_params_linear = info->n_params_linear;
    out->weights_read = r->unreported_bytes;
    memcpy(out->weights_sha256, r->weights_sha256, SHA256_HEX);
    out->device = arena_strdup(a, kern_get_info(r->kern)->device);
    out->program = cli_version;
}

enum err_code runner_run(struct runner *r, const struct job *job, struct job_result *out,
                         struct arena *a, struct err *e)
{
    struct config c = job->config;
    struct prepared *p = NULL;
    struct eval_scores scores = {0};
    TRY(config_validate(&c, e));
    config_normalize(&c);
    TRY(ensure_model(r, &job->model, c.compute, e));
    TRY(prepare(r, &job->eval, &p, e));
    if (is_compared(&c, job->eval.task))
        TRY(ensure_baseline(r, p, e));
    int64_t start = clock_mono_ns();
    enum err_code rc = run_config(r, &c, p, job->eval.task, &scores, e);
    if (rc != ERR_OK)
        return err_wrap(e, "%s, %s", job->model.name, job->eval.name);
    *out = (struct job_result){.seconds = clock_seconds_since(start)};
    eval_score(&p->set, &scores, out, a);
    describe(r, out, a);
    r->unreported_bytes = 0;
    r->stats.tokens += scores.n_tokens;
    r->stats.jobs++;
    eval_scores_release(&scores);
    return ERR_OK;
}

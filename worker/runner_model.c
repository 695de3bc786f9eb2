/* The checkpoint in force, with the device that it is on, and what results say of both. */
#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/runner_impl.h"

void runner_unload(struct runner *r)
{
    runner_unpack(r);
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

static enum kern_compute kern_compute_of(enum compute c)
{
    static const enum kern_compute all[COMPUTE_COUNT] = {
        [COMPUTE_FP32] = KERN_FP32, [COMPUTE_FP16] = KERN_FP16, [COMPUTE_BF16] = KERN_BF16};
    return all[c];
}

static enum err_code ensure_kern(struct runner *r, enum compute compute, struct err *e)
{
    if (r->kern != NULL && r->compute == compute)
        return ERR_OK;
    runner_unload(r);
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
    if (info->flushed > 0)
        log_event(LOG_INFO, "runner", "flushed",
                  "model=\"%s\" weights=%lld text=\"too small for fp16, now 0\"", m->name,
                  (long long)info->flushed);
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
    runner_unload(r);
    enum err_code rc = load(r, m, key, e);
    if (rc != ERR_OK) {
        runner_unload(r);
        xfree(key);
        return rc;
    }
    r->model_key = key;
    keep_fitting_sets(r);
    runner_ahead_begin(r);
    return ERR_OK;
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

#include "worker/eval/eval.h"

#include <math.h>
#include <string.h>

#include "worker/eval/items.h"
#include "worker/eval/pack.h"
#include "worker/eval/requests.h"
#include "worker/model/model_magnitude.h"

const struct task_ops *task_ops_of(enum task t)
{
    static const struct task_ops *const all[] = {
#define X(id, ...) [TASK_##id] = &task_ops_##id,
#include "schema/task.def"
#undef X
    };
    return all[t];
}

void eval_set_release(struct eval_set *s)
{
    tok_ids_release(&s->tokens);
    tok_ids_release(&s->gold);
    tok_ids_release(&s->chars);
    tok_ids_release(&s->bytes);
    tok_ids_release(&s->n_scored);
    xfree(s->requests);
    xfree(s->first);
    *s = (struct eval_set){0};
}

char *eval_set_key(const struct eval_spec *ev)
{
    struct arena a = {0};
    char *key = xasprintf("%s|%s", key_of_eval(ev, &a), ev->data_path);
    arena_release(&a);
    return key;
}

enum err_code eval_load(const struct eval_source *src, struct eval_set *out, struct err *e)
{
    const struct task_ops *ops = task_ops_of(src->spec->task);
    *out = (struct eval_set){.task = src->spec->task, .n_choices = task_choices(src->spec->task)};
    enum err_code rc = ops->parse != NULL ? items_load(src, ops, out, e) : ops->load(src, out, e);
    if (rc != ERR_OK) {
        eval_set_release(out);
        return rc;
    }
    requests_close(out);
    memcpy(out->tokenizer_sha256, tok_sha256(src->tok), SHA256_HEX);
    items_identity(src->spec, src->context, out->data_sha256, out->tokenizer_sha256,
                   out->items_sha256);
    return ERR_OK;
}

void eval_scores_release(struct eval_scores *s)
{
    xfree(s->ll);
    xfree(s->is_greedy);
    xfree(s->kl);
    xfree(s->same_top);
    model_magnitudes_free(s->magnitudes);
    *s = (struct eval_scores){0};
}

/* Item of a request; first[] ascends. */
static int64_t item_of(const struct eval_set *s, int64_t request)
{
    int64_t low = 0, high = s->n_items;
    while (high - low > 1) {
        int64_t mid = (low + high) / 2;
        if (s->first[mid] <= request)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* Adds the batch's answers to the requests they belong to. */
enum err_code eval_collect(const struct eval_set *set, const struct pack_arrays *b,
                           struct eval_scores *out, struct err *e)
{
    for (int64_t i = 0; i < b->n_targets; i++) {
        int64_t r = b->request[i];
        if (isnan(b->answers[i].logprob))
            return err_set(
                e, ERR_NUMERIC,
                "%s: item %lld: the model gives NaN; its weights or this compute precision "
                "do not work for it",
                task_label(set->task), (long long)item_of(set, r) + 1);
        out->ll[r] += (double)b->answers[i].logprob;
        out->is_greedy[r] &= b->answers[i].is_top;
    }
    return ERR_OK;
}

static enum err_code start_batch(const struct eval_run_args *args, struct pack_arrays *b,
                                 const struct eval_scores *out, struct err *e)
{
    struct model_batch batch = {
        .seqs = b->seqs,
        .n_seqs = b->n_seqs,
        .targets = b->targets,
        .n_targets = b->n_targets,
        .record = args->record,
        .compare = args->compare,
        .kl = out->kl,
        .same_top = out->same_top,
        .magnitudes = out->magnitudes,
    };
    return model_start(args->model, &batch, b->answers, e);
}

static enum err_code finish_batch(const struct eval_run_args *args, const struct pack_arrays *b,
                                  struct eval_scores *out, struct err *e)
{
    TRY(model_wait(args->model, e));
    TRY(eval_collect(args->set, b, out, e));
    if (args->progress != NULL && args->progress(args->progress_arg))
        return err_set(e, ERR_STOPPED, "stopped during %s", task_label(args->set->task));
    return ERR_OK;
}

/* All batches; while one runs, the answers of the one before are collected and the next is packed. */
static enum err_code run_batches(const struct eval_run_args *args, int64_t n_sample,
                                 struct pack_arrays arrays[MODEL_IN_FLIGHT],
                                 struct eval_scores *out, struct err *e)
{
    const struct eval_pack *pack = args->pack;
    for (int64_t i = 0; i < pack->n_batches; i++) {
        struct pack_arrays *b = &arrays[i % MODEL_IN_FLIGHT];
        pack_build(args->set, pack, i, n_sample, args->is_record_only, b);
        TRY(start_batch(args, b, out, e));
        out->n_tokens += pack->batches[i].n_tokens;
        if (i > 0)
            TRY(finish_batch(args, &arrays[(i - 1) % MODEL_IN_FLIGHT], out, e));
    }
    if (pack->n_batches > 0)
        TRY(finish_batch(args, &arrays[(pack->n_batches - 1) % MODEL_IN_FLIGHT], out, e));
    return ERR_OK;
}

/* Requests that were not run take the answer of the equal one that was. */
void eval_end(const struct eval_set *set, struct eval_scores *out)
{
    for (int64_t i = 0; i < set->n_requests; i++) {
        out->ll[i] = out->ll[set->requests[i].same_as];
        out->is_greedy[i] = out->is_greedy[set->requests[i].same_as];
    }
}

int64_t eval_n_sample(const struct eval_pack *pack)
{
    return pack->n_scored < EVAL_MAX_SAMPLE ? pack->n_scored : EVAL_MAX_SAMPLE;
}

void eval_begin(const struct eval_run_args *args, struct eval_scores *out, int64_t *n_sample)
{
    const size_t n = (size_t)args->set->n_requests;
    const bool is_sampled = args->record != NULL || args->compare != NULL;
    *n_sample = is_sampled ? eval_n_sample(args->pack) : 0;
    *out = (struct eval_scores){.ll = xcalloc(n, sizeof(*out->ll)),
                                .is_greedy = xmalloc(n),
                                .n_kl = args->compare != NULL ? *n_sample : 0};
    memset(out->is_greedy, 1, n);
    if (args->compare != NULL) {
        out->kl = xcalloc((size_t)*n_sample, sizeof(*out->kl));
        out->same_top = xcalloc((size_t)*n_sample, sizeof(*out->same_top));
    }
    if (task_ops_of(args->set->task)->needs_magnitudes)
        out->magnitudes = model_magnitudes_new(args->model);
}

enum err_code eval_run(const struct eval_run_args *args, struct eval_scores *out, struct err *e)
{
    const struct eval_pack *pack = args->pack;
    int64_t n_sample;
    eval_begin(args, out, &n_sample);
    struct pack_arrays arrays[MODEL_IN_FLIGHT] = {0};
    for (int i = 0; i < MODEL_IN_FLIGHT; i++)
        pack_arrays_init(pack, &arrays[i]);
    enum err_code rc = ERR_OK;
    if (out->magnitudes != NULL)
        rc = model_magnitudes_spreads(args->model, out->magnitudes, e);
    if (rc == ERR_OK)
        rc = run_batches(args, n_sample, arrays, out, e);
    if (rc != ERR_OK)
        model_abandon(args->model);
    for (int i = 0; i < MODEL_IN_FLIGHT; i++)
        pack_arrays_release(&arrays[i]);
    if (rc != ERR_OK)
        eval_scores_release(out);
    else
        eval_end(args->set, out);
    return rc;
}

/* The item list of a result: facts that bootstraps over items need. */
static struct item_list *list_items(const struct eval_set *set, struct arena *a)
{
    struct item_list *list = arena_alloc(a, sizeof(*list));
    size_t n = (size_t)set->n_items, n_choices = (size_t)set->n_choices;
    size_t n_flat = n * n_choices;
    struct item *items = arena_array(a, n, sizeof(*items));
    int32_t *facts = arena_array(a, n_flat, 3 * sizeof(*facts));
    const struct tok_ids *sources[] = {&set->chars, &set->bytes, &set->n_scored};
    for (size_t i = 0; i < ARRAY_LEN(sources); i++)
        memcpy(facts + i * n_flat, sources[i]->v, n_flat * sizeof(*facts));
    for (size_t i = 0; i < n; i++)
        items[i] = (struct item){.gold = set->gold.v[i],
                                 .n_choices = set->n_choices,
                                 .chars = facts + i * n_choices,
                                 .bytes = facts + n_flat + i * n_choices,
                                 .tokens = facts + 2 * n_flat + i * n_choices};
    *list = (struct item_list){.items = items, .n = set->n_items};
    memcpy(list->tokenizer_sha256, set->tokenizer_sha256, SHA256_HEX);
    memcpy(list->items_sha256, set->items_sha256, SHA256_HEX);
    return list;
}

void eval_score(const struct eval_set *set, const struct eval_scores *scores,
                struct job_result *out, struct arena *a)
{
    task_ops_of(set->task)->score(set, scores, out, a);
    out->n = set->n_items;
    out->tokens = scores->n_tokens;
    out->items = list_items(set, a);
    memcpy(out->data_sha256, set->data_sha256, SHA256_HEX);
    memcpy(out->tokenizer_sha256, set->tokenizer_sha256, SHA256_HEX);
    memcpy(out->items_sha256, set->items_sha256, SHA256_HEX);
}

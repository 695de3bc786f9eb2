#include "worker/outlook.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "schema/job.h"

/* The five evaluations of the published sweep (models spec, section 4). */
static struct plan_work published_work(int64_t n_configs)
{
    static const struct {
        bool is_counted;
        double tokens, scored;
    } tasks[] = {
#define X(id, label, choices, is_zero_shot, requests, tokens, shared_tokens, scored)               \
    {TASK_##id != TASK_weight_std, shared_tokens, scored},
#include "schema/task.def"
#undef X
    };
    struct plan_work w = {.n_configs = n_configs};
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        w.tokens += tasks[i].is_counted ? tasks[i].tokens : 0;
        w.scored += tasks[i].is_counted ? tasks[i].scored : 0;
    }
    return w;
}

static enum err_code choose_compute(const struct outlook_options *o, enum kern_compute *kern,
                                    enum compute *out, struct err *e)
{
    static const enum kern_compute all[COMPUTE_COUNT] = {
        [COMPUTE_FP32] = KERN_FP32, [COMPUTE_FP16] = KERN_FP16, [COMPUTE_BF16] = KERN_BF16};
    const char *text = o->compute;
    if (text == NULL)
        text = compute_label(strcmp(o->device, "cpu") == 0 ? COMPUTE_FP32 : COMPUTE_FP16);
    const int c = compute_of(str_of(text));
    if (c < 0)
        return err_set(e, ERR_USAGE,
                       "--compute: unknown value '%s'; see 'isobit-worker inspect --help'", text);
    *out = (enum compute)c;
    *kern = all[c];
    return ERR_OK;
}

enum err_code outlook_make(struct ckpt *c, const struct outlook_options *o, struct outlook *out,
                           struct err *e)
{
    struct kern *k = NULL;
    struct kern_options ko = {.device = o->device};
    enum compute compute;
    TRY(choose_compute(o, &ko.compute, &compute, e));
    TRY(kern_open(&ko, &k, e));
    *out =
        (struct outlook){.compute = compute_label(compute), .work = published_work(o->n_configs)};
    snprintf(out->device, sizeof(out->device), "%s", kern_get_info(k)->device);
    enum err_code rc = model_plan_only(c, k, o->memory, &out->p, e);
    if (rc == ERR_OK)
        out->cost = plan_cost_of(&out->p.plan, &out->p.shape, &out->p.device, &out->work);
    kern_close(k);
    return rc;
}

/* ---- for people ---- */

static void print_bytes(const char *what, double bytes, const char *note)
{
    char text[32];
    printf("%-15s %s%s\n", what, fmt_bytes(bytes, text), note);
}

static void print_streaming(const struct outlook *o)
{
    const struct plan *p = &o->p.plan;
    char a[32], b[32];
    printf("step            %s, %d master%s%s\n",
           p->is_cut_within ? "a matrix of a layer" : "a layer", p->n_masters,
           p->n_masters == 1 ? "" : "s",
           p->n_masters == 1 ? ": reading and computing take turns" : "");
    if (p->head_rows < o->p.shape.head_rows)
        printf("head            in parts of %" PRId64 " of %" PRId64 " entries\n", p->head_rows,
               o->p.shape.head_rows);
    print_bytes("window", (double)(p->block_bytes + p->small_bytes), "");
    printf("activations     %s: %" PRId64 " tokens and a batch of %" PRId64 "\n",
           fmt_bytes((double)p->kept_bytes, a), p->kept_bytes / p->row_bytes,
           o->p.shape.batch_tokens);
    const double a_pass = o->cost.configs_per_pass;
    char share[64];
    if (a_pass >= 1)
        snprintf(share, sizeof(share), "%.3g in a pass", a_pass);
    else
        snprintf(share, sizeof(share), "%.0f passes each", ceil(1 / a_pass));
    printf("passes          %" PRId64 " for %" PRId64 " configurations (%s), %s a pass\n",
           o->cost.passes, o->work.n_configs, share, fmt_bytes((double)p->pass_bytes, b));
}

void outlook_print(const struct outlook *o)
{
    const struct plan *p = &o->p.plan;
    char a[32], b[32], c[32];
    printf("device          %s, %s\n", o->device, o->compute);
    printf("runs            %s\n", plan_mode_label(p->mode));
    print_bytes("budget", (double)p->budget, "");
    print_bytes("whole", (double)p->resident_bytes, " of weights");
    print_bytes("work space", (double)o->p.shape.work_bytes, " beside the budget");
    if (p->mode == PLAN_STREAMING)
        print_streaming(o);
    if (p->mode == PLAN_HOST_MASTER)
        print_bytes("master", (double)p->master_bytes, " pinned on the host");
    print_bytes("reads", o->cost.bytes, "");
    printf("expected        %s for %" PRId64 " configurations of %.3g M tokens: compute %s, read "
           "%s\n",
           fmt_duration(o->cost.seconds, a), o->work.n_configs, o->work.tokens / 1e6,
           fmt_duration(o->cost.compute_s, b), fmt_duration(o->cost.read_s, c));
}

/* ---- for programs ---- */

static int64_t tokens_a_pass(const struct outlook *o)
{
    const struct plan *p = &o->p.plan;
    return p->row_bytes > 0 ? p->kept_bytes / p->row_bytes + o->p.shape.batch_tokens : 0;
}

json_t *outlook_to_json(const struct outlook *o)
{
    const struct plan *p = &o->p.plan;
    const int64_t window = p->block_bytes + p->small_bytes;
    json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "device", o->device, "compute",
                          o->compute, "mode", plan_mode_label(p->mode), "budget_bytes",
                          (json_int_t)p->budget, "resident_bytes", (json_int_t)p->resident_bytes,
                          "work_bytes", (json_int_t)o->p.shape.work_bytes, "batch_tokens",
                          (json_int_t)o->p.shape.batch_tokens);
    json_t *streaming =
        json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "masters", p->n_masters, "step",
                  p->is_cut_within ? "matrix" : "layer", "head_rows", (json_int_t)p->head_rows,
                  "window_bytes", (json_int_t)window, "activation_bytes", (json_int_t)p->kept_bytes,
                  "tokens_per_pass", (json_int_t)tokens_a_pass(o), "bytes_per_pass",
                  (json_int_t)p->pass_bytes, "passes", (json_int_t)o->cost.passes);
    json_t *expected = json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "configurations",
                                 (json_int_t)o->work.n_configs, "tokens", o->work.tokens, "bytes",
                                 o->cost.bytes, "compute_s", o->cost.compute_s, "read_s",
                                 o->cost.read_s, "seconds", o->cost.seconds, "flops_per_s",
                                 o->p.device.flops_per_s, "read_per_s", o->p.device.read_per_s);
    CHECK(j != NULL && streaming != NULL && expected != NULL);
    if (p->mode == PLAN_HOST_MASTER)
        CHECK(json_object_set_new(j, "master_bytes", json_integer(p->master_bytes)) == 0);
    if (p->mode == PLAN_STREAMING)
        CHECK(json_object_set(j, "streaming", streaming) == 0);
    CHECK(json_object_set_new(j, "expected", expected) == 0);
    json_decref(streaming);
    return j;
}

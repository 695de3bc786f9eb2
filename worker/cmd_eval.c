/* isobit-worker eval: one job by hand, the same runner that serves a coordinator. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "schema/job_json.h"
#include "worker/cmd.h"
#include "worker/runner.h"

/* Options of axes are NULL or zero when they were not given, so that one that means nothing here can be refused instead
 * of being passed over. */
struct eval_opts {
    const char *model, *task, *data;
    int64_t k, threads, limit, max_tokens;
    const char *dtype, *block, *exponent_bits, *subnormal_shift, *center, *outlier_rule, *dequant;
    double outlier_pct;
    bool quant_head, quant_embed, bos, json;
    const char *window, *method, *join, *subset, *device, *compute;
    int64_t memory;
};

#define AT(field) offsetof(struct eval_opts, field)
static const struct cli_opt eval_opts[] = {
    CMD_OPT_MODEL("checkpoint directory", AT(model)),
    {.name = "task",
     .letter = 't',
     .type = CLI_STRING,
     .arg = "TASK",
     .help = "perplexity, lambada, winogrande, hellaswag, piqa or weight-std",
     .offset = AT(task)},
    {.name = "data",
     .letter = 'd',
     .type = CLI_STRING,
     .arg = "FILE",
     .help = "data file: .txt, .jsonl or .jsonl.zst",
     .offset = AT(data)},
    {.name = "k",
     .letter = 'k',
     .type = CLI_INT,
     .arg = "BITS",
     .help = "bits per weight, 2 to 8; 16: fp16 baseline; 32: weights as stored",
     .def = "16",
     .min = 2,
     .max = 32,
     .offset = AT(k)},
    {.name = "dtype",
     .type = CLI_STRING,
     .arg = "TYPE",
     .help = "int, float, dynamic, quantile or nf (int when not given)",
     .offset = AT(dtype)},
    {.name = "block",
     .letter = 'b',
     .type = CLI_STRING,
     .arg = "N|tensor",
     .help = "weights per absmax constant (64 when not given)",
     .offset = AT(block)},
    CMD_OPT_EXPONENT_BITS(AT(exponent_bits)),
    {.name = "subnormal-shift",
     .type = CLI_STRING,
     .arg = "N",
     .help = "0, 2 or 4: rule for the subnormal numbers of float (0 when not given)",
     .offset = AT(subnormal_shift)},
    {.name = "center",
     .type = CLI_STRING,
     .arg = "none|tensor|block",
     .help = "mean subtracted before quantizing (none when not given)",
     .offset = AT(center)},
    {.name = "outlier-pct",
     .type = CLI_NUMBER,
     .arg = "PERCENT",
     .help = "input dimensions kept at 16 bit, per cent",
     .min = 0,
     .max = 50,
     .offset = AT(outlier_pct)},
    {.name = "outlier-rule",
     .type = CLI_STRING,
     .arg = "RULE",
     .help = "previous or previous-resid (previous when not given)",
     .offset = AT(outlier_rule)},
    {.name = "quant-head",
     .type = CLI_FLAG,
     .help = "quantize the output head too",
     .offset = AT(quant_head)},
    {.name = "quant-embed",
     .type = CLI_FLAG,
     .help = "quantize the embeddings too",
     .offset = AT(quant_embed)},
    {.name = "dequant",
     .type = CLI_STRING,
     .arg = "fp16|fp32",
     .help = "rounding of dequantized weights (fp16 when not given)",
     .offset = AT(dequant)},
    {.name = "window",
     .letter = 'w',
     .type = CLI_STRING,
     .arg = "TOKENS|context",
     .help = "perplexity: tokens per window (context when not given)",
     .offset = AT(window)},
    {.name = "max-tokens",
     .type = CLI_INT,
     .arg = "TOKENS",
     .help = "perplexity: first tokens of the text, or first documents that fit",
     .min = 2,
     .max = 1e15,
     .offset = AT(max_tokens)},
    {.name = "method",
     .type = CLI_STRING,
     .arg = "METHOD",
     .help = "perplexity: strided (default for text) or rolling (default for .jsonl)",
     .offset = AT(method)},
    {.name = "subset",
     .type = CLI_STRING,
     .arg = "NAME",
     .help = "perplexity: documents whose meta.pile_set_name is NAME",
     .offset = AT(subset)},
    {.name = "limit",
     .letter = 'n',
     .type = CLI_INT,
     .arg = "ITEMS",
     .help = "first items only",
     .min = 1,
     .max = 1e15,
     .offset = AT(limit)},
    {.name = "join",
     .type = CLI_STRING,
     .arg = "h26|h22",
     .help = "how context and continuation become tokens (h26 when not given)",
     .offset = AT(join)},
    {.name = "bos",
     .type = CLI_FLAG,
     .help = "put the tokenizer's beginning-of-sequence token in front",
     .offset = AT(bos)},
    CMD_OPT_DEVICE(AT(device)),
    {.name = "compute",
     .type = CLI_STRING,
     .arg = "fp32|fp16|bf16",
     .help = "arithmetic of the forward pass",
     .def = "fp32",
     .offset = AT(compute)},
    CMD_OPT_MEMORY("", AT(memory)),
    CMD_OPT_THREADS(AT(threads)),
    CLI_OPT_JSON(AT(json)),
};
#undef AT

/* Value of a label; -1 turns into a usage error that names the option. */
static enum err_code need_label(const char *option, const char *text, int (*of)(struct str),
                                int def, int *out, struct err *e)
{
    *out = text != NULL ? of(str_of(text)) : def;
    if (*out < 0)
        return err_set(e, ERR_USAGE, "--%s: unknown value '%s'; see 'isobit-worker eval --help'",
                       option, text);
    return ERR_OK;
}

static enum err_code need_number(const char *option, const char *text, int64_t *out, struct err *e)
{
    if (!parse_i64(str_of(text), out) || *out < 0 || *out > INT32_MAX)
        return err_set(e, ERR_USAGE, "--%s: expected a whole number, found '%s'", option, text);
    return ERR_OK;
}

/* Refuses the first option of a list that was given although it means nothing. */
struct given {
    const char *option;
    bool is_given;
};
static enum err_code refuse_given(const struct given *list, size_t n, const char *because,
                                  struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].is_given)
            return err_set(e, ERR_USAGE, "--%s means nothing %s; leave it out", list[i].option,
                           because);
    return ERR_OK;
}

static enum err_code check_quantizer_options(const struct eval_opts *o, struct err *e)
{
    const struct given quantizer[] = {
        {"dtype", o->dtype != NULL},
        {"block", o->block != NULL},
        {"exponent-bits", o->exponent_bits != NULL},
        {"subnormal-shift", o->subnormal_shift != NULL},
        {"center", o->center != NULL},
        {"outlier-pct", o->outlier_pct != 0},
        {"outlier-rule", o->outlier_rule != NULL},
        {"quant-head", o->quant_head},
        {"quant-embed", o->quant_embed},
        {"dequant", o->dequant != NULL},
    };
    const struct given rule[] = {{"outlier-rule", o->outlier_rule != NULL}};
    if (o->k > 8)
        return refuse_given(quantizer, ARRAY_LEN(quantizer), "with --k 16 and --k 32", e);
    return o->outlier_pct == 0 ? refuse_given(rule, 1, "without --outlier-pct", e) : ERR_OK;
}

static enum err_code read_float_options(const struct eval_opts *o, struct config *c, struct err *e)
{
    int64_t n = 0;
    TRY(cmd_exponent_bits(o->exponent_bits, c->k, &c->exponent_bits, e));
    if (o->subnormal_shift != NULL) {
        TRY(need_number("subnormal-shift", o->subnormal_shift, &n, e));
        c->subnormal_shift = (int)n;
    }
    return ERR_OK;
}

static enum err_code read_config(const struct eval_opts *o, struct config *c, struct err *e)
{
    int dtype = 0, center = 0, rule = 0, dequant = 0, compute = 0;
    *c = config_default();
    TRY(check_quantizer_options(o, e));
    TRY(need_label("dtype", o->dtype, dtype_of, DTYPE_int, &dtype, e));
    TRY(need_label("center", o->center, center_of, CENTER_NONE, &center, e));
    TRY(need_label("outlier-rule", o->outlier_rule, outlier_rule_of, OUTLIER_RULE_PREVIOUS, &rule,
                   e));
    TRY(need_label("dequant", o->dequant, dequant_of, DEQUANT_FP16, &dequant, e));
    TRY(need_label("compute", o->compute, compute_of, COMPUTE_FP32, &compute, e));
    c->k = (int)o->k;
    c->dtype = (enum dtype)dtype;
    c->center = (enum center)center;
    c->outlier_pct = o->outlier_pct;
    c->outlier_rule = (enum outlier_rule)rule;
    c->dequant = (enum dequant)dequant;
    c->compute = (enum compute)compute;
    c->quant_head = o->quant_head;
    c->quant_embed = o->quant_embed;
    if (o->block != NULL && strcmp(o->block, "tensor") == 0)
        c->block = 0;
    else if (o->block != NULL)
        TRY(need_number("block", o->block, &c->block, e));
    TRY(read_float_options(o, c, e));
    TRY(config_validate(c, e));
    config_normalize(c);
    return ERR_OK;
}

static enum err_code read_eval(const struct eval_opts *o, struct arena *a, struct eval_spec *out,
                               struct err *e)
{
    const struct given perplexity[] = {
        {"window", o->window != NULL},
        {"max-tokens", o->max_tokens != 0},
        {"method", o->method != NULL},
        {"subset", o->subset != NULL},
    };
    int task = 0, method = 0, join = 0;
    TRY(need_label("task", o->task, task_of, -1, &task, e));
    TRY(need_label("method", o->method, method_of, (int)eval_default_method(o->data), &method, e));
    TRY(need_label("join", o->join, join_of, JOIN_H26, &join, e));
    if (o->join != NULL && (method == METHOD_STRIDED || task == TASK_weight_std))
        return err_set(e, ERR_USAGE, "--join has no effect on %s, which joins nothing",
                       method == METHOD_STRIDED ? "the strided method" : "weight-std");
    if (task != TASK_perplexity)
        TRY(refuse_given(perplexity, ARRAY_LEN(perplexity), "for this task", e));
    char *path = io_absolute(o->data);
    *out = (struct eval_spec){
        .name = task_label((enum task)task),
        .task = (enum task)task,
        .data = o->data,
        .data_path = arena_strdup(a, path),
        .subset = o->subset,
        .limit = o->limit,
        .max_tokens = o->max_tokens,
        .method = (enum method)method,
        .join = (enum join)join,
        .bos = o->bos,
    };
    xfree(path);
    if (o->window != NULL && strcmp(o->window, "context") != 0)
        TRY(need_number("window", o->window, &out->window, e));
    return ERR_OK;
}

static enum err_code read_job(const struct eval_opts *o, struct arena *a, struct job *out,
                              struct err *e)
{
    if (o->model == NULL || o->task == NULL || o->data == NULL)
        return err_set(e, ERR_USAGE,
                       "eval needs --model, --task and --data; see 'isobit-worker eval --help'");
    TRY(read_config(o, &out->config, e));
    TRY(read_eval(o, a, &out->eval, e));
    return cmd_model_ref(o->model, a, &out->model, e);
}

static void print_json(const struct job *job, const struct job_result *r)
{
    json_t *o = json_object(), *result = job_result_to_json(r);
    CHECK(json_object_set_new(o, "model", json_string(job->model.name)) == 0);
    CHECK(json_object_set_new(o, "config", config_to_json(&job->config)) == 0);
    CHECK(json_object_set_new(o, "task", json_string(task_label(job->eval.task))) == 0);
    CHECK(json_object_set_new(o, "compute", json_string(compute_label(job->config.compute))) == 0);
    CHECK(json_object_update(o, result) == 0);
    cli_print_json(o, true);
    json_decref(result);
    json_decref(o);
}

static void print_text(const struct job *job, const struct job_result *r)
{
    char duration[32];
    struct arena a = {0};
    printf("%s on %s: %lld items, %.4f bits per parameter, %s on %s\n", job->model.name,
           job->eval.data, (long long)r->n, r->bits.per_param, fmt_duration(r->seconds, duration),
           r->device);
    for (int i = 0; i < r->n_metrics; i++) {
        const struct metric *m = &r->metrics[i];
        const char *margin = isfinite(m->stderr_) ? arena_printf(&a, "  +- %.6g", m->stderr_) : "";
        printf("  %-14s %.8g%s\n", m->name, m->value, margin);
    }
    arena_release(&a);
}

/* One changing line on a terminal; a file or a pipe gets none of it. */
static bool show_progress(void *arg, int64_t counter)
{
    (void)arg;
    fprintf(stderr, "\r%lld steps", (long long)counter);
    return false;
}

static enum err_code run_job(const struct eval_opts *o, const struct job *job, struct arena *a,
                             struct job_result *out, struct err *e)
{
    bool is_terminal = isatty(STDERR_FILENO);
    struct runner *runner = NULL;
    struct runner_options options = {.device = o->device,
                                     .threads = (int)o->threads,
                                     .memory_bytes = o->memory,
                                     .progress = is_terminal ? show_progress : NULL};
    TRY(runner_new(&options, &runner, e));
    enum err_code rc = runner_run(runner, job, out, a, e);
    if (is_terminal)
        fputs("\r                    \r", stderr);
    runner_free(runner);
    return rc;
}

static int eval_run_command(const void *opts, int n_args, char **args)
{
    const struct eval_opts *o = opts;
    struct arena a = {0};
    struct job job = {0};
    struct job_result result = {0};
    struct err e = {0};
    (void)n_args;
    (void)args;
    int status = 0;
    if (read_job(o, &a, &job, &e) != ERR_OK || run_job(o, &job, &a, &result, &e) != ERR_OK)
        status = cli_fail(&e);
    else
        (o->json ? print_json : print_text)(&job, &result);
    arena_release(&a);
    return status;
}

const struct cli_cmd cmd_eval = {
    .name = "eval",
    .args = "",
    .summary = "quantize a checkpoint and evaluate it once",
    .doc = "Quantizes a checkpoint and runs one evaluation on it. Perplexity of a text file is "
           "that of windows which "
           "do not overlap; a .jsonl file is scored document by document.\n\n"
           "  isobit-worker eval --model models/pythia-s1 --k 4 --dtype float --block 64 --task "
           "lambada --data "
           "lambada.jsonl --json",
    .opts = eval_opts,
    .n_opts = ARRAY_LEN(eval_opts),
    .opt_size = sizeof(struct eval_opts),
    .run = eval_run_command,
};

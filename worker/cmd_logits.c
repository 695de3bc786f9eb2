/* isobit-worker logits: what the model predicts behind each token, with the weights as stored, for comparison with
 * other software. */
#include <stdio.h>

#include "base/json.h"
#include "base/str.h"
#include "worker/cmd.h"
#include "worker/model/model.h"

struct logits_opts {
    const char *model, *tokens, *device;
    int64_t threads;
    bool json;
};

#define AT(field) offsetof(struct logits_opts, field)
static const struct cli_opt logits_opts[] = {
    CMD_OPT_MODEL("checkpoint directory", AT(model)),
    {.name = "tokens",
     .letter = 't',
     .type = CLI_STRING,
     .arg = "1,2,3",
     .help = "token ids of one sequence",
     .offset = AT(tokens)},
    CMD_OPT_DEVICE(AT(device)),
    CMD_OPT_THREADS(AT(threads)),
    CLI_OPT_JSON(AT(json)),
};

static enum err_code parse_tokens(const char *text, struct arena *a, int32_t **out, int32_t *n,
                                  struct err *e)
{
    struct str rest = str_of(text), field;
    size_t most = 1;
    for (size_t i = 0; i < rest.n; i++)
        most += rest.p[i] == ',';
    *out = arena_array(a, most, sizeof **out);
    *n = 0;
    while (str_next_field(&rest, ',', &field)) {
        int64_t id;
        if (!parse_i64(str_trim(field), &id) || id < 0 || id > INT32_MAX)
            return err_set(e, ERR_USAGE, "--tokens: '%.*s' is not a token id", (int)field.n,
                           field.p);
        (*out)[(*n)++] = (int32_t)id;
    }
    return ERR_OK;
}

static void print_text(const float *logits, int32_t n, int64_t vocab)
{
    for (int32_t t = 0; t < n; t++)
        for (int64_t v = 0; v < vocab; v++)
            printf("%.9g%c", (double)logits[t * vocab + v], v + 1 < vocab ? ' ' : '\n');
}

static void print_json(const struct logits_opts *o, const int32_t *tokens, const float *logits,
                       int32_t n, int64_t vocab)
{
    json_t *ids = json_array(), *rows = json_array();
    for (int32_t t = 0; t < n; t++) {
        json_t *row = json_array();
        for (int64_t v = 0; v < vocab; v++)
            json_array_append_new(row, json_number_or_null((double)logits[t * vocab + v]));
        json_array_append_new(ids, json_integer(tokens[t]));
        json_array_append_new(rows, row);
    }
    json_t *doc = json_pack("{s:s, s:o, s:I, s:o}", "model", o->model, "tokens", ids, "vocab",
                            (json_int_t)vocab, "logits", rows);
    cli_print_json(doc, false);
    json_decref(doc);
}

static enum err_code compute(const struct logits_opts *o, struct ckpt *ckpt, struct kern *k,
                             const int32_t *tokens, int32_t n, struct err *e)
{
    struct model *m = NULL;
    void *logits = NULL;
    size_t bytes = 0;
    struct bits bits;
    struct config c = config_default();
    c.k = 32;
    config_normalize(&c);
    enum err_code code = model_open(ckpt, k, &m, e);
    if (code == ERR_OK)
        code = model_set_config(m, &c, &bits, e);
    if (code == ERR_OK) {
        bytes = (size_t)n * (size_t)model_get_info(m)->vocab * sizeof(float);
        code = big_alloc(bytes, "logits", &logits, e);
    }
    if (code == ERR_OK)
        code = model_logits(m, tokens, n, logits, e);
    if (code == ERR_OK && o->json)
        print_json(o, tokens, logits, n, model_get_info(m)->vocab);
    else if (code == ERR_OK)
        print_text(logits, n, model_get_info(m)->vocab);
    big_free(logits, bytes);
    model_close(m);
    return code;
}

static enum err_code logits(const struct logits_opts *o, struct arena *a, struct err *e)
{
    int32_t *tokens, n;
    struct model_ref ref;
    struct ckpt *ckpt = NULL;
    struct kern *k = NULL;
    if (o->model == NULL || o->tokens == NULL)
        return err_set(e, ERR_USAGE,
                       "logits needs --model and --tokens; see 'isobit-worker logits --help'");
    TRY(parse_tokens(o->tokens, a, &tokens, &n, e));
    TRY(cmd_model_ref(o->model, a, &ref, e));
    enum err_code code = ckpt_open(&ref, &ckpt, e);
    if (code == ERR_OK)
        code = kern_open(&(struct kern_options){.device = o->device, .threads = (int)o->threads},
                         &k, e);
    if (code == ERR_OK)
        code = compute(o, ckpt, k, tokens, n, e);
    kern_close(k);
    ckpt_close(ckpt);
    return code;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    struct err e = {0};
    struct arena a = {0};
    enum err_code code = logits(opts, &a, &e);
    arena_release(&a);
    return code == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_logits = {
    .name = "logits",
    .args = "",
    .summary = "Print the logits behind each token of a sequence.",
    .doc = "The weights are used as stored. One line per token, one number per vocabulary entry; "
           "with --json one "
           "object {model, tokens, vocab, logits}.\n\n"
           "  isobit-worker logits --model models/pythia-s0 --tokens 12,345,6 --json",
    .opts = logits_opts,
    .n_opts = ARRAY_LEN(logits_opts),
    .opt_size = sizeof(struct logits_opts),
    .run = run,
};

/* isobit-worker inspect: what a checkpoint holds and how it would run on a device, without loading it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "schema/catalog.h"
#include "worker/ckpt/ckpt.h"
#include "worker/cmd.h"
#include "worker/outlook.h"

struct inspect_opts {
    const char *model, *device, *compute;
    int64_t memory, configs;
    bool json;
};

#define AT(field) offsetof(struct inspect_opts, field)
static const struct cli_opt inspect_opts[] = {
    CMD_OPT_MODEL("checkpoint directory", AT(model)),
    {.name = "device",
     .letter = 'd',
     .type = CLI_STRING,
     .arg = "DEVICE",
     .help = "cpu or cuda:N: show how the checkpoint would run there",
     .offset = AT(device)},
    CMD_OPT_MEMORY("with --device: ", AT(memory)),
    {.name = "compute",
     .type = CLI_STRING,
     .arg = "fp32|fp16|bf16",
     .help =
         "with --device: arithmetic of the forward pass (fp32 on the CPU, fp16 on a GPU when not "
         "given)",
     .offset = AT(compute)},
    {.name = "configs",
     .type = CLI_INT,
     .arg = "N",
     .help = "with --device: configurations whose passes and time are expected",
     .def = "10",
     .min = 1,
     .max = 1000000,
     .offset = AT(configs)},
    CLI_OPT_JSON(AT(json)),
};
#undef AT

struct summary {
    const char *model_type; /* of config.json; "" when it has none */
    const char *family;     /* label of family.def; NULL when this program cannot run the model */
    struct err why_not;     /* then */
    int64_t params;         /* elements of floating-point tensors; shared bytes once */
    char identity[SHA256_HEX];
};

static int by_place(const void *pa, const void *pb)
{
    const struct ckpt_tensor *a = *(const struct ckpt_tensor *const *)pa;
    const struct ckpt_tensor *b = *(const struct ckpt_tensor *const *)pb;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Tied weights are two names for the same bytes. */
static int64_t count_params(const struct ckpt *c)
{
    int n = 0;
    int64_t sum = 0;
    const struct ckpt_tensor **t =
        xcalloc((size_t)ckpt_n_tensors(c), sizeof(const struct ckpt_tensor *));
    for (int i = 0; i < ckpt_n_tensors(c); i++)
        if (ckpt_tensor_at(c, i)->dtype != CKPT_OTHER && ckpt_tensor_at(c, i)->count > 0)
            t[n++] = ckpt_tensor_at(c, i);
    qsort(t, (size_t)n, sizeof(const struct ckpt_tensor *), by_place);
    for (int i = 0; i < n; i++)
        if (i == 0 || by_place(&t[i - 1], &t[i]) != 0)
            sum += t[i]->count;
    xfree(t);
    return sum;
}

static void summarize(struct ckpt *c, struct summary *out)
{
    out->model_type = json_opt_str(ckpt_config(c), "model_type", "");
    struct model_shape shape = {0};
    if (catalog_from_config(ckpt_config(c), "config.json", &shape, &out->why_not) == ERR_OK)
        out->family = arch_label(shape.arch);
    out->params = count_params(c);
    ckpt_identity(c, out->identity);
}

static json_t *files_to_json(const struct ckpt *c)
{
    json_t *list = json_array();
    for (int i = 0; i < ckpt_n_files(c); i++)
        CHECK(json_array_append_new(list, json_pack("{s:s, s:I}", "name", ckpt_file_name(c, i),
                                                    "bytes", (json_int_t)ckpt_file_bytes(c, i))) ==
              0);
    return list;
}

static json_t *tensors_to_json(const struct ckpt *c)
{
    json_t *list = json_array();
    for (int i = 0; i < ckpt_n_tensors(c); i++) {
        const struct ckpt_tensor *t = ckpt_tensor_at(c, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            CHECK(json_array_append_new(shape, json_integer(t->shape[d])) == 0);
        json_t *o =
            json_pack("{s:s, s:s, s:o, s:s, s:I}", "name", t->name, "dtype", t->stored_as, "shape",
                      shape, "file", ckpt_file_name(c, t->file), "offset", (json_int_t)t->offset);
        CHECK(json_array_append_new(list, o) == 0);
    }
    return list;
}

static void print_json(const struct ckpt *c, const struct summary *s, const struct outlook *plan)
{
    json_t *o =
        json_pack("{s:s, s:s?, s:s, s:s, s:I, s:I, s:o, s:o}", "directory", ckpt_dir(c), "family",
                  s->family, "model_type", s->model_type, "weights_sha256", s->identity, "bytes",
                  (json_int_t)ckpt_bytes(c), "params", (json_int_t)s->params, "files",
                  files_to_json(c), "tensors", tensors_to_json(c));
    CHECK(o != NULL);
    if (plan != NULL)
        CHECK(json_object_set_new(o, "plan", outlook_to_json(plan)) == 0);
    cli_print_json(o, true);
    json_decref(o);
}

static void print_text(const struct ckpt *c, const struct summary *s, const struct outlook *plan)
{
    char size[32];
    printf("directory       %s\n", ckpt_dir(c));
    if (s->family != NULL)
        printf("family          %s (model_type %s)\n", s->family, s->model_type);
    else
        printf("family          none that this program runs: %s\n", s->why_not.text);
    printf("weights sha256  %s\n", s->identity);
    for (int i = 0; i < ckpt_n_files(c); i++)
        printf("file            %s  %s\n", ckpt_file_name(c, i),
               fmt_bytes((double)ckpt_file_bytes(c, i), size));
    printf("parameters      %" PRId64 "\n", s->params);
    if (plan != NULL)
        outlook_print(plan);
    for (int i = 0; i < ckpt_n_tensors(c); i++) {
        const struct ckpt_tensor *t = ckpt_tensor_at(c, i);
        printf("tensor          %s  %s  [", t->name, t->stored_as);
        for (int d = 0; d < t->n_dims; d++)
            printf("%s%" PRId64, d > 0 ? ", " : "", t->shape[d]);
        puts("]");
    }
}

static enum err_code inspect(const struct inspect_opts *o, struct arena *a, struct err *e)
{
    struct model_ref model = {0};
    struct ckpt *c = NULL;
    struct summary s = {0};
    if (o->model == NULL)
        return err_set(e, ERR_USAGE, "inspect needs --model; see 'isobit-worker inspect --help'");
    if (o->device == NULL && (o->memory != 0 || o->compute != NULL))
        return err_set(e, ERR_USAGE, "--%s means nothing without --device",
                       o->memory != 0 ? "memory" : "compute");
    TRY(cmd_model_ref(o->model, a, &model, e));
    TRY(ckpt_open(&model, &c, e));
    struct outlook plan;
    const struct outlook_options wanted = {o->device, o->compute, o->memory, o->configs};
    enum err_code rc = ERR_OK;
    summarize(c, &s);
    if (o->device != NULL)
        rc = outlook_make(c, &wanted, &plan, e);
    if (rc == ERR_OK)
        (o->json ? print_json : print_text)(c, &s, o->device != NULL ? &plan : NULL);
    ckpt_close(c);
    return rc;
}

static int inspect_run_command(const void *opts, int n_args, char **args)
{
    struct arena a = {0};
    struct err e = {0};
    (void)n_args;
    (void)args;
    int status = inspect(opts, &a, &e) == ERR_OK ? 0 : cli_fail(&e);
    arena_release(&a);
    return status;
}

const struct cli_cmd cmd_inspect = {
    .name = "inspect",
    .args = "",
    .summary = "show what a checkpoint holds and how it would run",
    .doc =
        "Shows directory, family, files, SHA-256 identity, number of parameters and all tensors "
        "of a checkpoint. Tensors that share their bytes (tied weights) count once. With --device "
        "also how it would run there within a memory budget: resident, or layer by layer in "
        "passes "
        "(docs/STREAMING.md), the bytes that are read and the time expected for five "
        "evaluations "
        "of the published data's size.\n\n"
        "  isobit-worker inspect --model models/opt-s3 --json\n"
        "  isobit-worker inspect --model facebook/opt-30b --device cuda:0 --memory 40GiB",
    .opts = inspect_opts,
    .n_opts = ARRAY_LEN(inspect_opts),
    .opt_size = sizeof(struct inspect_opts),
    .run = inspect_run_command,
};

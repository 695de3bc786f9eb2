/* isobit-worker codebook: the values of a data type, to look at and to compare with other software. */
#include <errno.h>
#include <stdio.h>

#include "worker/ckpt/ckpt.h"
#include "worker/cmd.h"
#include "worker/quant/quant.h"

struct codebook_opts {
    const char *dtype, *exponent_bits, *model, *tensor;
    int64_t k, subnormal_shift;
};

#define AT(field) offsetof(struct codebook_opts, field)
static const struct cli_opt codebook_opts[] = {
    {.name = "dtype",
     .type = CLI_CHOICE,
     .arg = "TYPE",
     .help = "int, float, dynamic, quantile or nf",
     .def = "int",
     .choices = "int|float|dynamic|quantile|nf",
     .offset = AT(dtype)},
    {.name = "k",
     .letter = 'k',
     .type = CLI_INT,
     .arg = "BITS",
     .help = "bits per weight, 2 to 8",
     .def = "4",
     .min = 2,
     .max = 8,
     .offset = AT(k)},
    CMD_OPT_EXPONENT_BITS(AT(exponent_bits)),
    {.name = "subnormal-shift",
     .type = CLI_INT,
     .arg = "N",
     .help = "0, 2 or 4: rule for the subnormal numbers of float",
     .def = "0",
     .min = 0,
     .max = 4,
     .offset = AT(subnormal_shift)},
    CMD_OPT_MODEL("quantile: checkpoint directory", AT(model)),
    {.name = "tensor",
     .type = CLI_STRING,
     .arg = "NAME",
     .help = "quantile: tensor whose weights are counted",
     .offset = AT(tensor)},
};
#undef AT

static enum err_code read_config(const struct codebook_opts *o, struct config *c, struct err *e)
{
    *c = config_default();
    c->k = (int)o->k;
    c->dtype = (enum dtype)dtype_of(str_of(o->dtype));
    c->subnormal_shift = (int)o->subnormal_shift;
    TRY(cmd_exponent_bits(o->exponent_bits, c->k, &c->exponent_bits, e));
    TRY(config_validate(c, e));
    config_normalize(c);
    return ERR_OK;
}

/* On the cpu, whatever device a worker would take. Quantiles do not depend on the order of the weights, so a tensor is one
 * row, and one that is stored transposed is taken as it is. */
static enum err_code fill_from_weights(const struct config *c, const uint16_t *w16, int64_t n,
                                       struct codebook *out, struct err *e)
{
    struct kern *k = NULL;
    const struct kern_quant_args args = {.w16 = w16, .rows = 1, .cols = n};
    TRY(kern_open(&(struct kern_options){.device = "cpu"}, &k, e));
    enum err_code code = codebook_of_weights(k, c, &args, out, e);
    kern_close(k);
    return code;
}

static enum err_code fill_from_tensor(const struct config *c, const struct ckpt *ckpt,
                                      const char *name, struct codebook *out, struct err *e)
{
    const struct ckpt_tensor *t = ckpt_find(ckpt, name);
    if (t == NULL)
        return err_set(e, ERR_NOTFOUND,
                       "%s: has no tensor '%s'; `isobit-worker inspect` lists those it has",
                       ckpt_dir(ckpt), name);
    size_t bytes = (size_t)t->count * sizeof(uint16_t);
    void *w16 = NULL;
    TRY(big_alloc(bytes, name, &w16, e));
    enum err_code code = ckpt_read_f16(ckpt, t, false, w16, NULL, e);
    if (code == ERR_OK)
        code = fill_from_weights(c, w16, t->count, out, e);
    big_free(w16, bytes);
    return code;
}

static enum err_code fill_from_model(const struct config *c, const struct codebook_opts *o,
                                     struct codebook *out, struct err *e)
{
    struct arena a = {0};
    struct ckpt *ckpt = NULL;
    struct model_ref model;
    enum err_code code = cmd_model_ref(o->model, &a, &model, e);
    if (code == ERR_OK)
        code = ckpt_open(&model, &ckpt, e);
    if (code == ERR_OK)
        code = fill_from_tensor(c, ckpt, o->tensor, out, e);
    ckpt_close(ckpt);
    arena_release(&a);
    return code;
}

static enum err_code fill(const struct codebook_opts *o, struct codebook *out, struct err *e)
{
    struct config c;
    TRY(read_config(o, &c, e));
    bool is_given = o->model != NULL && o->tensor != NULL;
    if (!dtype_is_data_dependent(c.dtype)) {
        if (o->model != NULL || o->tensor != NULL)
            return err_set(e, ERR_USAGE,
                           "--model and --tensor mean nothing with --dtype %s; leave them out",
                           o->dtype);
        return codebook_fill(&c, NULL, out, e);
    }
    if (!is_given)
        return err_set(e, ERR_USAGE,
                       "--dtype %s depends on the weights: name them with --model and --tensor",
                       o->dtype);
    return fill_from_model(&c, o, out, e);
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    struct codebook b = {0};
    struct err e;
    if (fill(opts, &b, &e) != ERR_OK)
        return cli_fail(&e);
    for (int i = 0; i < b.n; i++)
        printf("%.9g\n", (double)b.v[i]);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        err_set_errno(&e, errno, "cannot write the values");
        return cli_fail(&e);
    }
    return 0;
}

const struct cli_cmd cmd_codebook = {
    .name = "codebook",
    .summary = "print the values of a data type, one a line",
    .doc = "Prints, ascending, the fp32 numbers to which weights are rounded after their\n"
           "division by the largest magnitude of their block.\n\n"
           "  isobit-worker codebook --dtype float --k 4 --exponent-bits 3\n"
           "  isobit-worker codebook --dtype quantile --k 4 --model demo/models/pythia-s0 \\\n"
           "    --tensor gpt_neox.layers.0.attention.dense.weight",
    .opts = codebook_opts,
    .n_opts = ARRAY_LEN(codebook_opts),
    .opt_size = sizeof(struct codebook_opts),
    .run = run,
};

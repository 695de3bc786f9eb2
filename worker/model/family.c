#include "worker/model/family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define X(id, label, model_type) extern const struct family_ops family_ops_##id;
#include "schema/family.def"
#undef X

static const struct {
    const char *label, *model_type;
    const struct family_ops *ops;
} families[] = {
#define X(id, label, model_type) {label, model_type, &family_ops_##id},
#include "schema/family.def"
#undef X
};

enum err_code family_find(const json_t *config, const char *what, const char **label,
                          const struct family_ops **out, struct err *e)
{
    const char *type;
    TRY(json_need_str(config, "model_type", what, &type, e));
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (strcmp(families[i].model_type, type) == 0) {
            *label = families[i].label;
            *out = families[i].ops;
            return ERR_OK;
        }
    struct buf known = {0};
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        buf_printf(&known, "%s%s", i > 0 ? ", " : "", families[i].model_type);
    enum err_code code =
        err_set(e, ERR_UNSUPPORTED, "%s: model_type \"%s\" is not one this program knows (%s)",
                what, type, known.data);
    buf_release(&known);
    return code;
}

bool family_is_needed(const struct wiring *w, enum need need)
{
    switch (need) {
    case NEED_ALWAYS:
        return true;
    case NEED_NORM:
        return w->has_norm_weights;
    case NEED_FINAL_NORM:
        return w->has_norm_weights && w->has_final_norm;
    case NEED_ATTENTION_BIAS:
        return w->has_attention_bias;
    case NEED_FFN_BIAS:
        return w->has_ffn_bias;
    case NEED_PROJECTION:
        return w->has_projection;
    case NEED_HEAD:
        return !w->is_tied;
    }
    return false;
}

int64_t family_dim(const struct wiring *w, enum dim dim)
{
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_D:
        return w->d;
    case DIM_3D:
        return (int64_t)3 * w->d;
    case DIM_FFN:
        return w->ffn;
    case DIM_VOCAB:
        return w->vocab;
    case DIM_POSITIONS:
        return w->n_positions;
    case DIM_EMBED:
        return w->d_embed;
    }
    return 0;
}

/* Value of the first of the keys "a|b" that is there and not null; *name is set to its name. */
static const json_t *find_key(const json_t *o, const char *key, char *name, size_t size)
{
    struct str rest = str_of(key), part;
    const json_t *v = NULL;
    while (v == NULL && str_next_field(&rest, '|', &part)) {
        snprintf(name, size, "%.*s", (int)part.n, part.p);
        v = json_object_get(o, name);
        if (json_is_null(v))
            v = NULL;
    }
    return v;
}

static enum err_code wrong_type(const char *what, const char *name, const char *expected,
                                struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: \"%s\" must be %s", what, name, expected);
}

enum err_code family_int(const json_t *o, const char *key, const char *what, int64_t def, int *out,
                         struct err *e)
{
    char name[64];
    const json_t *v = find_key(o, key, name, sizeof name);
    if (v == NULL && def == FAMILY_REQUIRED)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" is missing", what, key);
    if (v != NULL && !json_is_integer(v))
        return wrong_type(what, name, "an integer", e);
    int64_t n = v != NULL ? json_integer_value(v) : def;
    if (n < 1 || n > INT32_MAX)
        return wrong_type(what, v != NULL ? name : key, "between 1 and 2147483647", e);
    *out = (int)n;
    return ERR_OK;
}

enum err_code family_double(const json_t *o, const char *key, const char *what, double def,
                            double *out, struct err *e)
{
    char name[64];
    const json_t *v = find_key(o, key, name, sizeof name);
    if (v != NULL && !json_is_number(v))
        return wrong_type(what, name, "a number", e);
    double n = v != NULL ? json_number_value(v) : def;
    if (!(n > 0.0) || n > 1e30)
        return wrong_type(what, v != NULL ? name : key, "a positive number", e);
    *out = n;
    return ERR_OK;
}

enum err_code family_number(const json_t *o, const char *key, const char *what, double def,
                            float *out, struct err *e)
{
    double n;
    TRY(family_double(o, key, what, def, &n, e));
    *out = (float)n;
    return ERR_OK;
}

enum err_code family_bool(const json_t *o, const char *key, const char *what, bool def, bool *out,
                          struct err *e)
{
    char name[64];
    const json_t *v = find_key(o, key, name, sizeof name);
    if (v != NULL && !json_is_boolean(v))
        return wrong_type(what, name, "true or false", e);
    *out = v != NULL ? json_is_true(v) : def;
    return ERR_OK;
}

enum err_code family_refuse(const json_t *o, const char *key, const char *what, struct err *e)
{
    bool is_on = false;
    TRY(family_bool(o, key, what, false, &is_on, e));
    if (is_on)
        return err_set(e, ERR_UNSUPPORTED, "%s: \"%s\": true is not supported", what, key);
    return ERR_OK;
}

/* transformers' names of activations; its spellings of the tanh form differ in the order of operations only. */
enum err_code family_act(const json_t *o, const char *key, const char *what, const char *def,
                         enum kern_act *out, struct err *e)
{
    static const struct {
        const char *name;
        enum kern_act act;
    } acts[] = {
        {"relu", KERN_ACT_RELU},
        {"gelu", KERN_ACT_GELU_ERF},
        {"gelu_python", KERN_ACT_GELU_ERF},
        {"gelu_new", KERN_ACT_GELU_TANH},
        {"gelu_fast", KERN_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", KERN_ACT_GELU_TANH},
        {"gelu_python_tanh", KERN_ACT_GELU_TANH},
    };
    char name[64];
    const json_t *v = find_key(o, key, name, sizeof name);
    if (v != NULL && !json_is_string(v))
        return wrong_type(what, name, "a string", e);
    const char *act = v != NULL ? json_string_value(v) : def;
    for (size_t i = 0; i < ARRAY_LEN(acts); i++)
        if (strcmp(acts[i].name, act) == 0) {
            *out = acts[i].act;
            return ERR_OK;
        }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: activation \"%s\" is not supported; relu, gelu and its tanh forms are",
                   what, act);
}

enum err_code family_wire(const struct family_ops *ops, const json_t *config, const char *what,
                          struct wiring *w, struct err *e)
{
    *w = (struct wiring){.has_attention_bias = true,
                         .has_ffn_bias = true,
                         .has_norm_weights = true,
                         .has_final_norm = true};
    TRY(ops->read_config(config, what, w, e));
    if (w->d % w->n_heads != 0)
        return err_set(e, ERR_FORMAT, "%s: width %d is not divisible by %d heads", what, w->d,
                       w->n_heads);
    w->head_dim = w->d / w->n_heads;
    if (w->score_scale == 0.0F)
        w->score_scale = (float)(1.0 / sqrt((double)w->head_dim));
    if (w->d_embed == 0)
        w->d_embed = w->d;
    w->has_projection = w->d_embed != w->d;
    return ERR_OK;
}

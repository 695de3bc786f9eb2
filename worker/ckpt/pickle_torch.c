/* What the globals on the list stand for. A tensor reaches the file as
 *
 *   torch._utils._rebuild_tensor_v2(storage, first element, shape, stride, requires_grad, hooks[, metadata])
 *
 * with `storage` a persistent id ("storage", torch.HalfStorage, key, device, elements). */
#include <string.h>

#include "worker/ckpt/pickle_value.h"

static const struct pickle_global globals[] = {
    {"collections", "OrderedDict", PICKLE_ORDERED_DICT, NULL},
    {"torch._utils", "_rebuild_tensor_v2", PICKLE_REBUILD_TENSOR, NULL},
    {"torch._utils", "_rebuild_parameter", PICKLE_REBUILD_PARAMETER, NULL},
    {"torch", "HalfStorage", PICKLE_STORAGE_TYPE, "F16"},
    {"torch", "BFloat16Storage", PICKLE_STORAGE_TYPE, "BF16"},
    {"torch", "FloatStorage", PICKLE_STORAGE_TYPE, "F32"},
    {"torch", "DoubleStorage", PICKLE_STORAGE_TYPE, "F64"},
    {"torch", "ByteStorage", PICKLE_STORAGE_TYPE, "U8"},
    {"torch", "CharStorage", PICKLE_STORAGE_TYPE, "I8"},
    {"torch", "BoolStorage", PICKLE_STORAGE_TYPE, "BOOL"},
    {"torch", "ShortStorage", PICKLE_STORAGE_TYPE, "I16"},
    {"torch", "IntStorage", PICKLE_STORAGE_TYPE, "I32"},
    {"torch", "LongStorage", PICKLE_STORAGE_TYPE, "I64"},
};

const char *pickle_kind_words(enum pickle_kind kind)
{
    static const char *const words[] = {
#define X(id, words) words,
        PICKLE_KIND_LIST(X)
#undef X
    };
    return words[kind];
}

/* Copies what is printable of text from the file into out[64], for an error. */
static const char *printable(struct str s, char out[64])
{
    size_t n = s.n < 63 ? s.n : 63;
    for (size_t i = 0; i < n; i++)
        out[i] = s.p[i];
    for (size_t i = 0; i < n; i++)
        if (out[i] < ' ' || out[i] > '~')
            out[i] = '?';
    out[n] = '\0';
    return out;
}

enum err_code pickle_find_global(struct str module, struct str name,
                                 const struct pickle_global **out, struct err *e)
{
    char m[64];
    char n[64];
    for (size_t i = 0; i < ARRAY_LEN(globals); i++) {
        if (str_eqz(module, globals[i].module) && str_eqz(name, globals[i].name)) {
            *out = &globals[i];
            return ERR_OK;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "global %s.%s is not one that a plain state dict needs, so it is refused; use a "
                   "safetensors "
                   "version of this checkpoint",
                   printable(module, m), printable(name, n));
}

static enum err_code expect(const struct pickle_value *v, enum pickle_kind kind, const char *what,
                            struct err *e)
{
    if (v->kind != kind)
        return err_set(e, ERR_FORMAT, "%s is %s, expected %s", what, pickle_kind_words(v->kind),
                       pickle_kind_words(kind));
    return ERR_OK;
}

enum err_code pickle_make_storage(const struct pickle_value *id, struct pickle_value *out,
                                  struct err *e)
{
    TRY(expect(id, PICKLE_TUPLE, "the persistent id", e));
    if (id->items.n != 5)
        return err_set(e, ERR_FORMAT, "a persistent id of %zu parts, expected 5", id->items.n);
    struct pickle_value **part = id->items.v;
    TRY(expect(part[0], PICKLE_TEXT, "the persistent id's kind", e));
    TRY(expect(part[1], PICKLE_GLOBAL, "the storage type", e));
    TRY(expect(part[2], PICKLE_TEXT, "the storage key", e));
    TRY(expect(part[4], PICKLE_INT, "the storage's number of elements", e));
    if (!str_eqz(part[0]->text, "storage") || part[1]->global->role != PICKLE_STORAGE_TYPE)
        return err_set(e, ERR_FORMAT, "the persistent id is not that of a storage");
    if (part[4]->number < 0)
        return err_set(e, ERR_FORMAT, "a storage of %lld elements, expected 0 or more",
                       (long long)part[4]->number);
    if (tensor_check_name(part[2]->text, e) != ERR_OK)
        return err_wrap(e, "the storage key");
    *out = (struct pickle_value){.kind = PICKLE_STORAGE};
    out->storage.type = tensor_type_find(part[1]->global->type);
    out->storage.key = part[2]->text;
    out->storage.count = part[4]->number;
    return ERR_OK;
}

static enum err_code read_dims(const struct pickle_value *tuple, const char *what,
                               int64_t v[CKPT_MAX_DIMS], struct err *e)
{
    TRY(expect(tuple, PICKLE_TUPLE, what, e));
    for (size_t i = 0; i < tuple->items.n && i < CKPT_MAX_DIMS; i++) {
        TRY(expect(tuple->items.v[i], PICKLE_INT, what, e));
        v[i] = tuple->items.v[i]->number;
    }
    return ERR_OK;
}

/* The last argument carries flags that would change the values (conjugate, negative): only its absence is known. */
static bool is_nothing(const struct pickle_value *v)
{
    return v->kind == PICKLE_NONE || (v->kind == PICKLE_DICT && v->items.n == 0);
}

static enum err_code rebuild_tensor(const struct pickle_value *args, struct arena *a,
                                    struct pickle_value *out, struct err *e)
{
    struct pickle_value **arg = args->items.v;
    int64_t shape[CKPT_MAX_DIMS] = {0};
    int64_t stride[CKPT_MAX_DIMS] = {0};
    if (args->items.n < 6 || args->items.n > 7)
        return err_set(e, ERR_FORMAT, "_rebuild_tensor_v2 with %zu arguments, expected 6 or 7",
                       args->items.n);
    TRY(expect(arg[0], PICKLE_STORAGE, "the tensor's storage", e));
    TRY(expect(arg[1], PICKLE_INT, "the tensor's storage offset", e));
    TRY(read_dims(arg[2], "the tensor's shape", shape, e));
    TRY(read_dims(arg[3], "the tensor's stride", stride, e));
    if (arg[2]->items.n != arg[3]->items.n)
        return err_set(e, ERR_FORMAT, "a shape of %zu dimensions with %zu strides", arg[2]->items.n,
                       arg[3]->items.n);
    if (args->items.n == 7 && !is_nothing(arg[6]))
        return err_set(e, ERR_UNSUPPORTED, "the tensor carries metadata, which is not supported");
    struct pickle_tensor *pt = arena_alloc(a, sizeof(*pt));
    TRY(tensor_set_shape(&pt->t, shape, arg[2]->items.n, e));
    memcpy(pt->t.stride, stride, sizeof(stride));
    pt->type = arg[0]->storage.type;
    pt->t.dtype = pt->type->dtype;
    pt->t.stored_as = pt->type->name;
    pt->storage = arena_strndup(a, arg[0]->storage.key.p, arg[0]->storage.key.n);
    pt->storage_count = arg[0]->storage.count;
    pt->first = arg[1]->number;
    *out = (struct pickle_value){.kind = PICKLE_TENSOR, .tensor = pt};
    return ERR_OK;
}

enum err_code pickle_call(const struct pickle_global *global, const struct pickle_value *args,
                          struct arena *a, struct pickle_value *out, struct err *e)
{
    switch (global->role) {
    case PICKLE_ORDERED_DICT:
        if (args->items.n != 0)
            return err_set(e, ERR_UNSUPPORTED, "OrderedDict with arguments, expected an empty one");
        *out = (struct pickle_value){.kind = PICKLE_DICT, .is_ordered = true};
        return ERR_OK;
    case PICKLE_REBUILD_TENSOR:
        return rebuild_tensor(args, a, out, e);
    case PICKLE_REBUILD_PARAMETER:
        if (args->items.n != 3)
            return err_set(e, ERR_FORMAT, "_rebuild_parameter with %zu arguments, expected 3",
                           args->items.n);
        TRY(expect(args->items.v[0], PICKLE_TENSOR, "the parameter's data", e));
        *out = *args->items.v[0];
        return ERR_OK;
    case PICKLE_STORAGE_TYPE:
        return err_set(e, ERR_FORMAT, "%s.%s is called, expected it in a persistent id only",
                       global->module, global->name);
    }
    return err_set(e, ERR_FORMAT, "%s.%s cannot be called", global->module, global->name);
}

static enum err_code take_entry(const struct pickle_value *key, const struct pickle_value *value,
                                struct arena *a, struct pickle_tensor *out, struct err *e)
{
    TRY(expect(key, PICKLE_TEXT, "a key of the state dict", e));
    TRY(tensor_check_name(key->text, e));
    if (value->kind == PICKLE_DICT)
        return err_set(e, ERR_UNSUPPORTED,
                       "entry \"%.*s\" is a dict, expected a tensor: a training checkpoint wraps "
                       "its state dict; "
                       "save that dict alone, best as safetensors",
                       (int)key->text.n, key->text.p);
    if (value->kind != PICKLE_TENSOR)
        return err_set(e, ERR_UNSUPPORTED,
                       "entry \"%.*s\" is %s, expected a tensor; save the model's state dict alone",
                       (int)key->text.n, key->text.p, pickle_kind_words(value->kind));
    *out = *value->tensor; /* a copy: tied weights share the value under two names */
    out->t.name = arena_strndup(a, key->text.p, key->text.n);
    out->storage = arena_strdup(a, value->tensor->storage);
    return ERR_OK;
}

enum err_code pickle_state_dict(const struct pickle_value *top, struct arena *a,
                                struct pickle_tensor **out, size_t *n, struct err *e)
{
    if (top->kind != PICKLE_DICT)
        return err_set(
            e, ERR_UNSUPPORTED,
            "it holds %s, expected a state dict (names and tensors); save model.state_dict()",
            pickle_kind_words(top->kind));
    size_t count = top->items.n / 2;
    struct pickle_tensor *t = arena_array(a, count, sizeof(*t));
    for (size_t i = 0; i < count; i++)
        TRY(take_entry(top->items.v[2 * i], top->items.v[2 * i + 1], a, &t[i], e));
    *out = t;
    *n = count;
    return ERR_OK;
}

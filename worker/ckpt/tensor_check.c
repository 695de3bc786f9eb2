#include "worker/ckpt/tensor_check.h"

#include <string.h>

static const struct tensor_type types[] = {
    {"F32", 4, CKPT_F32},   {"F16", 2, CKPT_F16},       {"BF16", 2, CKPT_BF16},
    {"F64", 8, CKPT_OTHER}, {"BOOL", 1, CKPT_OTHER},    {"U8", 1, CKPT_OTHER},
    {"I8", 1, CKPT_OTHER},  {"I16", 2, CKPT_OTHER},     {"U16", 2, CKPT_OTHER},
    {"I32", 4, CKPT_OTHER}, {"U32", 4, CKPT_OTHER},     {"I64", 8, CKPT_OTHER},
    {"U64", 8, CKPT_OTHER}, {"F8_E4M3", 1, CKPT_OTHER}, {"F8_E5M2", 1, CKPT_OTHER},
};

const struct tensor_type *tensor_type_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

enum err_code tensor_check_name(struct str name, struct err *e)
{
    if (name.n == 0 || name.n > TENSOR_NAME_MAX)
        return err_set(e, ERR_FORMAT, "a tensor name of %zu bytes, expected 1 to %d", name.n,
                       TENSOR_NAME_MAX);
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < ' ' || name.p[i] > '~')
            return err_set(e, ERR_FORMAT,
                           "byte %zu of a tensor name is 0x%02x, expected printable ASCII", i,
                           (unsigned)(unsigned char)name.p[i]);
    return ERR_OK;
}

enum err_code tensor_set_shape(struct ckpt_tensor *t, const int64_t *shape, size_t n_dims,
                               struct err *e)
{
    if (n_dims > CKPT_MAX_DIMS)
        return err_set(e, ERR_UNSUPPORTED, "%zu dimensions, at most %d are supported", n_dims,
                       CKPT_MAX_DIMS);
    t->n_dims = (int)n_dims;
    t->count = 1;
    for (size_t i = n_dims; i-- > 0;) {
        if (shape[i] < 0)
            return err_set(e, ERR_FORMAT, "dimension %zu is %lld, expected 0 or more", i,
                           (long long)shape[i]);
        t->shape[i] = shape[i];
        t->stride[i] = t->count;
        if (__builtin_mul_overflow(t->count, shape[i], &t->count))
            return err_set(e, ERR_FORMAT,
                           "the product of its shape overflows 64 bits at dimension %zu", i);
    }
    return ERR_OK;
}

enum err_code tensor_extent(const struct ckpt_tensor *t, int64_t first, int64_t *out, struct err *e)
{
    if (first < 0)
        return err_set(e, ERR_FORMAT, "storage offset %lld, expected 0 or more", (long long)first);
    int64_t end = t->count == 0 ? 0 : 1;
    bool is_overflow = __builtin_add_overflow(end, first, &end);
    for (int i = 0; i < t->n_dims && !is_overflow; i++) {
        int64_t reach = 0;
        if (t->stride[i] < 0)
            return err_set(e, ERR_FORMAT, "stride %lld in dimension %d, expected 0 or more",
                           (long long)t->stride[i], i);
        if (t->count == 0)
            continue;
        is_overflow = __builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach) ||
                      __builtin_add_overflow(end, reach, &end);
    }
    if (is_overflow)
        return err_set(e, ERR_FORMAT, "its strides and offset overflow 64 bits");
    *out = end;
    return ERR_OK;
}

bool tensor_is_row_major(const struct ckpt_tensor *t)
{
    int64_t expected = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != expected)
            return false;
        expected *= t->shape[i];
    }
    return true;
}

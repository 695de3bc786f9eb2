/* safetensors: what is read, and everything that must be refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/mkckpt.h"
#include "worker/ckpt/safetensors.h"

static enum err_code read_bytes(const struct buf *b, struct arena *a, struct ckpt_tensor **t,
                                int *n, struct err *e)
{
    struct io_map map = {.data = (const unsigned char *)b->data, .size = b->len};
    return safetensors_read(&map, "m.safetensors", a, t, n, e);
}

Test(safetensors, tensors_come_with_shape_stride_and_place)
{
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
        "\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
        "\"none\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[12,12]}}   ";
    struct buf b = mk_safetensors(header, "0123456789abcdef", 16);
    struct arena a = {0};
    struct ckpt_tensor *t = NULL;
    struct err e;
    int n = 0;
    cr_assert_eq(read_bytes(&b, &a, &t, &n, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(n, 3);
    cr_expect_str_eq(t[0].name, "a");
    cr_expect_eq(t[0].dtype, CKPT_F16);
    cr_expect_eq(t[0].n_dims, 2);
    cr_expect(t[0].shape[0] == 2 && t[0].shape[1] == 3 && t[0].stride[0] == 3 &&
              t[0].stride[1] == 1);
    cr_expect_eq(t[0].count, 6);
    cr_expect_eq(t[0].offset, 8 + strlen(header));
    cr_expect_eq(memcmp(t[0].data, "0123456789ab", 12), 0);
    cr_expect_str_eq(t[1].name, "none");
    cr_expect_eq(t[1].dtype, CKPT_OTHER);
    cr_expect_str_eq(t[1].stored_as, "I64");
    cr_expect_eq(t[1].count, 0);
    cr_expect_str_eq(t[2].name, "b");
    cr_expect_eq(t[2].n_dims, 0);
    cr_expect_eq(t[2].count, 1);
    arena_release(&a);
    buf_release(&b);
}

/* Every header stands over 16 bytes of data. */
static const struct bad_header {
    const char *row, *header, *says;
    enum err_code code;
} bad_headers[] = {
    {"not JSON", "{\"a\":", "not valid JSON", ERR_FORMAT},
    {"no object", "[]", "expected the '{'", ERR_FORMAT},
    {"leading space", " {}", "expected the '{'", ERR_FORMAT},
    {"no tensors over data", "{}", "end at data offset 0, but the file has 16", ERR_FORMAT},
    {"a name twice",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
     "duplicate", ERR_FORMAT},
    {"entry is a number", "{\"a\":1}", "tensor \"a\": expected an object", ERR_FORMAT},
    {"no dtype", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", "\"dtype\" must be a string",
     ERR_FORMAT},
    {"unknown dtype", "{\"a\":{\"dtype\":\"F13\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     "unknown dtype \"F13\"", ERR_FORMAT},
    {"shape is a string", "{\"a\":{\"dtype\":\"F32\",\"shape\":\"4\",\"data_offsets\":[0,16]}}",
     "\"shape\" must be an array", ERR_FORMAT},
    {"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}",
     "\"shape\"[0]", ERR_FORMAT},
    {"two negative dimensions",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-2],\"data_offsets\":[0,16]}}", "\"shape\"[0]",
     ERR_FORMAT},
    {"fractional dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]}}",
     "\"shape\"[0]", ERR_FORMAT},
    {"product overflows",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,16]}}",
     "overflows", ERR_FORMAT},
    {"bytes overflow",
     "{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904,1],\"data_offsets\":[0,16]}}",
     "hold 16 bytes", ERR_FORMAT},
    {"too many dimensions",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,4],\"data_offsets\":[0,16]}}", "5 dimensions",
     ERR_UNSUPPORTED},
    {"bytes and shape differ", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}",
     "3 elements of F32 need 4 each", ERR_FORMAT},
    {"end before begin", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}",
     "[16, 0]", ERR_FORMAT},
    {"beyond the file", "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}",
     "truncated", ERR_FORMAT},
    {"negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}",
     "\"data_offsets\"[0]", ERR_FORMAT},
    {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}",
     "expected [begin, end]", ERR_FORMAT},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,16]}}",
     "expected [begin, end]", ERR_FORMAT},
    {"overlap",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
     "tensor \"b\" begins at data offset 8, expected 12: it overlaps", ERR_FORMAT},
    {"the same bytes twice",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     "overlaps", ERR_FORMAT},
    {"hole",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
     "belong to no tensor", ERR_FORMAT},
    {"hole at the start", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}",
     "belong to no tensor", ERR_FORMAT},
    {"rest at the end", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}",
     "end at data offset 12", ERR_FORMAT},
    {"line break in a type",
     "{\"a\":{\"dtype\":\"F\\n\\u001b[1mX\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     "unknown dtype \"F??[1mX\"", ERR_FORMAT},
    {"empty name", "{\"\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     "tensor name", ERR_FORMAT},
    {"line break in a name",
     "{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     "byte 1 of a tensor name is 0x0a", ERR_FORMAT},
};

Test(safetensors, hostile_headers_are_refused_in_one_line_that_names_file_and_reason)
{
    for (size_t i = 0; i < ARRAY_LEN(bad_headers); i++) {
        const struct bad_header *row = &bad_headers[i];
        struct buf b = mk_safetensors(row->header, "0123456789abcdef", 16);
        struct arena a = {0};
        struct ckpt_tensor *t = NULL;
        struct err e = {0};
        int n = 0;
        cr_expect_eq(read_bytes(&b, &a, &t, &n, &e), row->code, "%s: %s", row->row, e.text);
        cr_expect(strstr(e.text, row->says) != NULL, "%s: %s", row->row, e.text);
        cr_expect(strncmp(e.text, "m.safetensors", 13) == 0, "%s: %s", row->row, e.text);
        cr_expect(strchr(e.text, '\n') == NULL, "%s", row->row);
        arena_release(&a);
        buf_release(&b);
    }
}

Test(safetensors, every_truncation_of_a_valid_file_is_refused)
{
    struct buf b =
        mk_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
                       "0123456789abcdef", 16);
    size_t full = b.len;
    struct ckpt_tensor *t = NULL;
    struct err e;
    int n = 0;
    for (size_t len = 0; len < full; len++) {
        struct arena a = {0};
        unsigned char *exact = xmalloc(len); /* so that a sanitizer sees one byte too far */
        memcpy(exact, b.data, len);
        struct io_map map = {.data = len > 0 ? exact : NULL, .size = len};
        cr_expect_eq(safetensors_read(&map, "m", &a, &t, &n, &e), ERR_FORMAT, "%zu bytes", len);
        xfree(exact);
        arena_release(&a);
    }
    buf_release(&b);
}

Test(safetensors, header_lengths_beyond_the_file_or_the_bound_are_refused)
{
    static const struct {
        uint64_t length;
        const char *says;
    } rows[] = {
        {17, "only 16 bytes follow"},         {16777216, "only 16 bytes follow"},
        {16777217, "at most 16777216"},       {UINT64_MAX, "at most 16777216"},
        {UINT64_MAX - 7, "at most 16777216"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b = {0};
        mk_uint(&b, rows[i].length, 8);
        buf_adds(&b, "{}              ");
        struct arena a = {0};
        struct ckpt_tensor *t = NULL;
        struct err e;
        int n = 0;
        cr_expect_eq(read_bytes(&b, &a, &t, &n, &e), ERR_FORMAT);
        cr_expect(strstr(e.text, rows[i].says) != NULL, "%s", e.text);
        cr_expect(strstr(e.text, "offset 0") != NULL, "%s", e.text);
        arena_release(&a);
        buf_release(&b);
    }
}

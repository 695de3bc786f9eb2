/* pytorch_model.bin: the zip archive, the pickle in it, and everything that must be refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/mkckpt.h"
#include "worker/ckpt/pickle.h"
#include "worker/ckpt/torchbin.h"
#include "worker/ckpt/zipdir.h"

/* 12 fp16 elements: element i holds the bits 0x3c00 + i. */
enum { STORAGE_N = 12, STORAGE_BYTES = 24 };
static const uint16_t storage[STORAGE_N] = {0x3c00, 0x3c01, 0x3c02, 0x3c03, 0x3c04, 0x3c05,
                                            0x3c06, 0x3c07, 0x3c08, 0x3c09, 0x3c0a, 0x3c0b};

static const struct mk_tensor plain = {.name = "w",
                                       .storage_type = "HalfStorage",
                                       .key = "0",
                                       .storage_count = STORAGE_N,
                                       .n_dims = 2,
                                       .shape = {3, 4},
                                       .stride = {4, 1}};

struct loaded {
    struct arena a;
    struct ckpt_tensor *t;
    int n;
    struct err e;
    enum err_code rc;
};

/* Releases `file`: tensors' data pointers must not be used. */
static struct loaded load(struct buf file)
{
    struct loaded l = {0};
    struct io_map map = {.data = (const unsigned char *)file.data, .size = file.len};
    l.rc = torchbin_read(&map, "m.bin", &l.a, &l.t, &l.n, &l.e);
    buf_release(&file);
    return l;
}

static void expect_refused(struct buf file, enum err_code code, const char *says, const char *row)
{
    struct loaded l = load(file);
    cr_expect_eq(l.rc, code, "%s: %s", row, l.e.text);
    cr_expect(strstr(l.e.text, says) != NULL, "%s: %s", row, l.e.text);
    cr_expect(strncmp(l.e.text, "m.bin", 5) == 0 && strchr(l.e.text, '\n') == NULL, "%s: %s", row,
              l.e.text);
    arena_release(&l.a);
}

Test(torchbin, the_top_folder_may_have_any_name)
{
    static const char *const tops[] = {"archive", "pytorch_model", "pytorch_model-00001-of-00002",
                                       "x y"};
    for (size_t i = 0; i < ARRAY_LEN(tops); i++) {
        struct loaded l = load(mk_torchbin(tops[i], mk_pickle(&plain, 1), storage, STORAGE_BYTES));
        cr_assert_eq(l.rc, ERR_OK, "%s", l.e.text);
        cr_assert_eq(l.n, 1);
        cr_expect_str_eq(l.t[0].name, "w");
        cr_expect_eq(l.t[0].dtype, CKPT_F16);
        cr_expect(l.t[0].n_dims == 2 && l.t[0].shape[0] == 3 && l.t[0].shape[1] == 4);
        cr_expect_eq(l.t[0].offset % 64, 0);
        arena_release(&l.a);
    }
}

Test(torchbin, an_ordered_dict_with_metadata_and_tied_views_is_read)
{
    const struct mk_tensor t[] = {
        plain,
        {.name = "tied",
         .storage_type = "HalfStorage",
         .key = "0",
         .storage_count = STORAGE_N,
         .n_dims = 2,
         .shape = {3, 4},
         .stride = {4, 1}},
        {.name = "column",
         .storage_type = "HalfStorage",
         .key = "0",
         .storage_count = STORAGE_N,
         .first = 2,
         .n_dims = 1,
         .shape = {3},
         .stride = {4}},
        {.name = "transpose",
         .storage_type = "HalfStorage",
         .key = "0",
         .storage_count = STORAGE_N,
         .n_dims = 2,
         .shape = {4, 3},
         .stride = {1, 4}},
        {.name = "scalar",
         .storage_type = "HalfStorage",
         .key = "0",
         .storage_count = STORAGE_N,
         .first = 11},
        {.name = "nothing",
         .storage_type = "HalfStorage",
         .key = "0",
         .storage_count = STORAGE_N,
         .first = 12,
         .n_dims = 1,
         .shape = {0},
         .stride = {1}},
    };
    struct buf file =
        mk_torchbin("archive", mk_pickle_ordered(t, ARRAY_LEN(t)), storage, STORAGE_BYTES);
    struct io_map map = {.data = (const unsigned char *)file.data, .size = file.len};
    struct arena a = {0};
    struct ckpt_tensor *r = NULL;
    struct err e;
    int n = 0;
    cr_assert_eq(torchbin_read(&map, "m.bin", &a, &r, &n, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(n, (int)ARRAY_LEN(t));
    cr_expect_str_eq(r[1].name, "tied");
    cr_expect_eq(r[1].offset, r[0].offset);
    cr_expect_eq(memcmp(r[0].data, storage, STORAGE_BYTES), 0);
    cr_expect_eq(memcmp(r[2].data, &storage[2], 2), 0);
    cr_expect_eq(r[2].stride[0], 4);
    cr_expect(r[3].stride[0] == 1 && r[3].stride[1] == 4);
    cr_expect(r[4].n_dims == 0 && r[4].count == 1);
    cr_expect_eq(memcmp(r[4].data, &storage[11], 2), 0);
    cr_expect_eq(r[5].count, 0);
    arena_release(&a);
    buf_release(&file);
}

Test(torchbin, every_storage_type_has_its_element_type)
{
    static const struct {
        const char *storage_type, *stored_as;
        int bytes;
        enum ckpt_dtype dtype;
    } rows[] = {
        {"HalfStorage", "F16", 2, CKPT_F16},    {"BFloat16Storage", "BF16", 2, CKPT_BF16},
        {"FloatStorage", "F32", 4, CKPT_F32},   {"DoubleStorage", "F64", 8, CKPT_OTHER},
        {"ByteStorage", "U8", 1, CKPT_OTHER},   {"CharStorage", "I8", 1, CKPT_OTHER},
        {"BoolStorage", "BOOL", 1, CKPT_OTHER}, {"ShortStorage", "I16", 2, CKPT_OTHER},
        {"IntStorage", "I32", 4, CKPT_OTHER},   {"LongStorage", "I64", 8, CKPT_OTHER},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t count = STORAGE_BYTES / rows[i].bytes;
        struct mk_tensor t = {.name = "w",
                              .storage_type = rows[i].storage_type,
                              .key = "0",
                              .storage_count = count,
                              .n_dims = 1,
                              .shape = {count},
                              .stride = {1}};
        struct loaded l = load(mk_torchbin("archive", mk_pickle(&t, 1), storage, STORAGE_BYTES));
        cr_assert_eq(l.rc, ERR_OK, "%s", l.e.text);
        cr_expect_eq(l.t[0].dtype, rows[i].dtype);
        cr_expect_str_eq(l.t[0].stored_as, rows[i].stored_as);
        arena_release(&l.a);
    }
}

/* Each row changes one thing of `plain`: {name, storage type, key, elements of the storage, first, dimensions, shape, stride}. */
static const struct bad_tensor {
    const char *row, *says;
    enum err_code code;
    struct mk_tensor t;
} bad_tensors[] = {
    {"missing storage",
     "archive/data/7, is missing",
     ERR_FORMAT,
     {"w", "HalfStorage", "7", 12, 0, 2, {3, 4}, {4, 1}}},
    {"key with a folder",
     "archive/data/../data/0, is missing",
     ERR_FORMAT,
     {"w", "HalfStorage", "../data/0", 12, 0, 2, {3, 4}, {4, 1}}},
    {"key with a line break",
     "the storage key",
     ERR_FORMAT,
     {"w", "HalfStorage", "0\n", 12, 0, 2, {3, 4}, {4, 1}}},
    {"storage smaller than said",
     "has 24 bytes, expected 13 elements",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 13, 0, 2, {3, 4}, {4, 1}}},
    {"storage larger than said",
     "has 24 bytes, expected 11 elements",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 11, 0, 2, {3, 4}, {4, 1}}},
    {"other element size",
     "expected 12 elements of F32",
     ERR_FORMAT,
     {"w", "FloatStorage", "0", 12, 0, 2, {3, 4}, {4, 1}}},
    {"negative storage",
     "a storage of -12 elements",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", -12, 0, 2, {3, 4}, {4, 1}}},
    {"storage overflows",
     "elements of F16",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", INT64_MAX, 0, 2, {3, 4}, {4, 1}}},
    {"offset beyond",
     "reaches to element 13",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 1, 2, {3, 4}, {4, 1}}},
    {"negative offset",
     "storage offset -1",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, -1, 2, {3, 4}, {4, 1}}},
    {"offset overflows",
     "overflow",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, INT64_MAX, 2, {3, 4}, {4, 1}}},
    {"stride beyond",
     "reaches to element 14",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {3, 4}, {5, 1}}},
    {"negative stride",
     "stride -4",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {3, 4}, {-4, 1}}},
    {"stride overflows",
     "overflow",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {3, 4}, {INT64_MAX, INT64_MAX}}},
    {"negative shape",
     "dimension 0 is -3",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {-3, 4}, {4, 1}}},
    {"two negative dimensions",
     "dimension 1 is -4",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {-3, -4}, {4, 1}}},
    {"shape overflows",
     "overflows 64 bits",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {INT64_C(1) << 40, INT64_C(1) << 40}, {4, 1}}},
    {"expanded tensor",
     "with 1099511627776 elements",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 0, 2, {INT64_C(1) << 40, 1}, {0, 1}}},
    {"empty beyond its storage",
     "reaches to element 13",
     ERR_FORMAT,
     {"w", "HalfStorage", "0", 12, 13, 1, {0}, {1}}},
    {"too many dimensions",
     "5 dimensions",
     ERR_UNSUPPORTED,
     {"w", "HalfStorage", "0", 12, 0, 5, {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1}}},
    {"unknown storage type",
     "global torch.EvilStorage",
     ERR_UNSUPPORTED,
     {"w", "EvilStorage", "0", 12, 0, 2, {3, 4}, {4, 1}}},
    {"type of another role",
     "global torch.OrderedDict",
     ERR_UNSUPPORTED,
     {"w", "OrderedDict", "0", 12, 0, 2, {3, 4}, {4, 1}}},
    {"empty name",
     "a tensor name of 0 bytes",
     ERR_FORMAT,
     {"", "HalfStorage", "0", 12, 0, 2, {3, 4}, {4, 1}}},
    {"name with a line break",
     "0x0a",
     ERR_FORMAT,
     {"a\nb", "HalfStorage", "0", 12, 0, 2, {3, 4}, {4, 1}}},
};

Test(torchbin, tensors_that_lie_about_their_place_are_refused)
{
    for (size_t i = 0; i < ARRAY_LEN(bad_tensors); i++)
        expect_refused(
            mk_torchbin("archive", mk_pickle(&bad_tensors[i].t, 1), storage, STORAGE_BYTES),
            bad_tensors[i].code, bad_tensors[i].says, bad_tensors[i].row);
}

/* A pickle whose bytes stand between PROTO 2 and the end. */
static const struct bad_pickle {
    const char *row, *says, *bytes;
    size_t n;
    enum err_code code;
} bad_pickles[] = {
#define BAD(row, says, code, bytes)                                                                \
    {                                                                                              \
        row, says, bytes, sizeof(bytes) - 1, code                                                  \
    }
    BAD("os.system", "global os.system is not one", ERR_UNSUPPORTED,
        "cos\nsystem\n(X\x04\0\0\0true"
        "tR."),
    BAD("builtins.eval", "global builtins.eval", ERR_UNSUPPORTED, "cbuiltins\neval\n."),
    BAD("eval by stack", "global builtins.eval", ERR_UNSUPPORTED,
        "\x8c\x08"
        "builtins\x8c\x04"
        "eval\x93."),
    BAD("dotted name", "global torch.storage._load_from_bytes", ERR_UNSUPPORTED,
        "ctorch.storage\n_load_from_bytes\n."),
    BAD("global with control bytes", "global o?s.sys?tem", ERR_UNSUPPORTED,
        "co\x01s\nsys\x1btem\n."),
    BAD("NEWOBJ", "instruction 0x81", ERR_UNSUPPORTED, "ccollections\nOrderedDict\n)\x81."),
    BAD("INST", "instruction 0x69", ERR_UNSUPPORTED, "(ios\nsystem\n."),
    BAD("EXT1", "instruction 0x82", ERR_UNSUPPORTED, "\x82\x01."),
    BAD("wrapped state dict", "entry \"model\" is a dict", ERR_UNSUPPORTED, "}X\x05\0\0\0model}s."),
    BAD("state_dict in a checkpoint", "entry \"state_dict\" is a dict", ERR_UNSUPPORTED,
        "}(X\x0a\0\0\0state_dict}u."),
    BAD("a number", "entry \"epoch\" is an int", ERR_UNSUPPORTED, "}X\x05\0\0\0epochK\x03s."),
    BAD("a list", "holds a list", ERR_UNSUPPORTED, "]."),
    BAD("nothing", "holds None", ERR_UNSUPPORTED, "N."),
    BAD("key is no string", "a key of the state dict is an int", ERR_FORMAT, "}K\x01K\x02s."),
    BAD("no STOP", "ends without STOP", ERR_FORMAT, "}"),
    BAD("empty stack at the end", "ends with 0 values", ERR_FORMAT, "."),
    BAD("two values at the end", "ends with 2 values", ERR_FORMAT, "}}."),
    BAD("open mark", "1 marks", ERR_FORMAT, "}(."),
    BAD("no mark", "no mark", ERR_FORMAT, "}u."),
    BAD("odd items", "1 items for a dict", ERR_FORMAT, "}(Nu."),
    BAD("items for a list", "expected a dict", ERR_FORMAT, "](NNu."),
    BAD("append to a dict", "expected a list", ERR_FORMAT, "}Na."),
    BAD("values under the mark", "values needed", ERR_FORMAT, "NN(\x86."),
    BAD("call of a string", "a call of a string", ERR_FORMAT, "X\x01\0\0\0x)R."),
    BAD("call without a tuple", "with None", ERR_FORMAT, "ccollections\nOrderedDict\nNR."),
    BAD("call of a storage type", "torch.HalfStorage is called", ERR_FORMAT,
        "ctorch\nHalfStorage\n)R."),
    BAD("OrderedDict with items", "OrderedDict with arguments", ERR_UNSUPPORTED,
        "ccollections\nOrderedDict\n]\x85R."),
    BAD("tensor without arguments", "with 0 arguments", ERR_FORMAT,
        "ctorch._utils\n_rebuild_tensor_v2\n)R."),
    BAD("tensor of Nones", "storage is None", ERR_FORMAT,
        "ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR."),
    BAD("parameter of None", "data is None", ERR_FORMAT,
        "ctorch._utils\n_rebuild_parameter\nNNN\x87R."),
    BAD("BUILD of a plain dict", "as the attributes of a dict", ERR_UNSUPPORTED, "}}b."),
    BAD("BUILD with a tuple", "a tuple as the attributes", ERR_UNSUPPORTED,
        "ccollections\nOrderedDict\n)R)b."),
    BAD("persistent id of a string", "persistent id is a string", ERR_FORMAT, "X\x01\0\0\0xQ."),
    BAD("short persistent id", "2 parts", ERR_FORMAT, "NN\x86Q."),
    BAD("memo never set", "memo number 9", ERR_FORMAT, "h\x09."),
    BAD("memo between those set", "memo number 9", ERR_FORMAT, "}q\x00h\x09."),
    BAD("memo out of range", "memo number 4294967295", ERR_FORMAT, "}r\xff\xff\xff\xff."),
    BAD("memo of nothing", "values needed", ERR_FORMAT, "q\x00."),
    BAD("long string", "bytes needed", ERR_FORMAT, "X\xff\xff\xff\xffx."),
    BAD("longer string", "bytes needed", ERR_FORMAT, "\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."),
    BAD("frame beyond the end", "FRAME: 65535 bytes needed", ERR_FORMAT,
        "\x95\xff\xff\0\0\0\0\0\0}."),
    BAD("wide integer", "an integer of 9 bytes", ERR_FORMAT,
        "\x8a\x09"
        "123456789."),
    BAD("name without end", "line end", ERR_FORMAT, "cos"),
    BAD("protocol 1", "protocol 1", ERR_UNSUPPORTED, "\x80\x01}."),
    BAD("protocol 6", "protocol 6", ERR_UNSUPPORTED, "\x80\x06}."),
#undef BAD
};

Test(torchbin, hostile_pickles_are_refused_and_nothing_in_them_runs)
{
    for (size_t i = 0; i < ARRAY_LEN(bad_pickles); i++) {
        struct buf pickle = {0};
        buf_add(&pickle, "\x80\x02", 2);
        buf_add(&pickle, bad_pickles[i].bytes, bad_pickles[i].n);
        expect_refused(mk_torchbin("archive", pickle, storage, STORAGE_BYTES), bad_pickles[i].code,
                       bad_pickles[i].says, bad_pickles[i].row);
    }
}

Test(torchbin, every_truncation_of_a_valid_pickle_is_refused)
{
    struct buf whole = mk_pickle_ordered(&plain, 1);
    for (size_t n = 0; n < whole.len; n++) {
        char *exact = xmalloc(n);
        memcpy(exact, whole.data, n);
        struct arena a = {0};
        struct pickle_tensor *t = NULL;
        struct err e;
        size_t count = 0;
        cr_expect_neq(pickle_read((struct str){exact, n}, "p", &a, &t, &count, &e), ERR_OK,
                      "%zu bytes", n);
        arena_release(&a);
        xfree(exact);
    }
    buf_release(&whole);
}

/* Exponential without a bound: each tuple holds the one before it twice, through the memo. */
Test(torchbin, tuples_nested_through_the_memo_cost_nothing)
{
    struct buf p = {0};
    buf_add(&p, "\x80\x02)", 3);
    for (int i = 0; i < 100000; i++)
        buf_add(&p, "q\0h\0\x86", 5);
    buf_adds(&p, ".");
    struct arena a = {0};
    struct pickle_tensor *t = NULL;
    struct err e;
    size_t n = 0;
    cr_expect_eq(pickle_read((struct str){p.data, p.len}, "p", &a, &t, &n, &e), ERR_UNSUPPORTED);
    cr_expect(strstr(e.text, "holds a tuple") != NULL, "%s", e.text);
    arena_release(&a);
    buf_release(&p);
}

Test(torchbin, values_marks_and_stack_are_bounded)
{
    static const struct {
        char op;
        const char *says;
    } rows[] = {{'N', "more than 1048576 values"}, {'(', "more than 1048576 marks"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf p = {0};
        for (int k = 0; k < (1 << 20) + 1; k++)
            buf_addc(&p, rows[i].op);
        struct arena a = {0};
        struct pickle_tensor *t = NULL;
        struct err e;
        size_t n = 0;
        cr_expect_eq(pickle_read((struct str){p.data, p.len}, "p", &a, &t, &n, &e), ERR_FORMAT);
        cr_expect(strstr(e.text, rows[i].says) != NULL, "%s", e.text);
        arena_release(&a);
        buf_release(&p);
    }
}

/* What protocol 4 writes instead: short strings, MEMOIZE, STACK_GLOBAL, a frame. */
Test(torchbin, protocol_4_means_the_same)
{
    struct buf p = {0}, body = {0};
    buf_adds(&body,
             "}\x94(\x8c\x01w\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94(("
             "\x8c\x07storage\x94\x8c\x05torch\x94\x8c\x0bHalfStorage\x94\x93\x94\x8c\x01"
             "0\x94\x8c\x03"
             "cpu\x94K\x0ct\x94Q");
    buf_add(&body, "K\0K\x03K\x04\x86\x94K\x04K\x01\x86\x94\x89\x8c\x0b", 17);
    buf_adds(&body,
             "collections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94t\x94R\x94\x8c\x05tied2\x94");
    buf_add(&body, "h\x13u.", 4); /* memo 19: the tensor */
    buf_add(&p, "\x80\x04\x95", 3);
    mk_uint(&p, body.len, 8);
    buf_add(&p, body.data, body.len);
    buf_release(&body);
    struct arena a = {0};
    struct pickle_tensor *t = NULL;
    struct err e = {0};
    size_t n = 0;
    cr_assert_eq(pickle_read((struct str){p.data, p.len}, "p", &a, &t, &n, &e), ERR_OK, "%s",
                 e.text);
    cr_assert_eq(n, 2);
    cr_expect_str_eq(t[0].t.name, "w");
    cr_expect(t[0].t.shape[0] == 3 && t[0].t.shape[1] == 4 && t[0].t.stride[0] == 4);
    cr_expect_str_eq(t[1].t.name, "tied2");
    cr_expect_str_eq(t[1].storage, "0");
    arena_release(&a);
    buf_release(&p);
}

/* The pickle of `plain` with the first occurrence of `from` replaced by `to`. */
static struct buf edited_pickle(struct str from, struct str to)
{
    struct buf p = mk_pickle(&plain, 1), q = {0};
    const char *at = memmem(p.data, p.len, from.p, from.n);
    cr_assert_not_null(at);
    buf_add(&q, p.data, (size_t)(at - p.data));
    buf_add(&q, to.p, to.n);
    buf_add(&q, at + from.n, p.len - (size_t)(at + from.n - p.data));
    buf_release(&p);
    return q;
}

Test(torchbin, integers_keep_their_sign_and_width)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"J\xff\xff\xff\xff", 5, "storage offset -1"},
        {"M\xff\xff", 3, "reaches to element 65547"},
        {"\x8a\x01\xfe", 3, "storage offset -2"},
        {"\x8a\x00", 2, NULL},
        {"\x8a\x02\xff\x00", 4, "reaches to element 267"},
        {"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", 10, "overflow"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        /* the storage offset, a zero, follows the persistent id */
        struct buf to = {0};
        buf_adds(&to, "tQ");
        buf_add(&to, rows[i].bytes, rows[i].n);
        struct buf q = edited_pickle(STR("tQK\0"), (struct str){to.data, to.len});
        buf_release(&to);
        struct buf file = mk_torchbin("archive", q, storage, STORAGE_BYTES);
        if (rows[i].says != NULL) {
            expect_refused(file, ERR_FORMAT, rows[i].says, rows[i].says);
        } else {
            struct loaded l = load(file);
            cr_expect_eq(l.rc, ERR_OK, "%s", l.e.text);
            arena_release(&l.a);
        }
    }
}

Test(torchbin, a_seventh_argument_may_only_say_nothing)
{
    static const struct {
        struct str to;
        enum err_code code;
    } rows[] = {{STR(")RNtR"), ERR_OK},
                {STR(")R}tR"), ERR_OK},
                {STR(")R}X\x03\0\0\0neg\x88stR"), ERR_UNSUPPORTED}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf p = edited_pickle(STR(")RtR"), rows[i].to);
        struct loaded l = load(mk_torchbin("archive", p, storage, STORAGE_BYTES));
        cr_expect_eq(l.rc, rows[i].code, "row %zu: %s", i, l.e.text);
        arena_release(&l.a);
    }
}

Test(torchbin, a_parameter_is_its_tensor)
{
    struct buf p = {0};
    buf_add(&p, "\x80\x02}", 3);
    mk_text(&p, "w");
    mk_global(&p, "torch._utils", "_rebuild_parameter");
    buf_addc(&p, '(');
    mk_pickle_tensor(&p, &plain);
    buf_addc(&p, '\x88');
    mk_global(&p, "collections", "OrderedDict");
    buf_adds(&p, ")RtRs.");
    struct loaded l = load(mk_torchbin("archive", p, storage, STORAGE_BYTES));
    cr_assert_eq(l.rc, ERR_OK, "%s", l.e.text);
    cr_expect(l.n == 1 && l.t[0].count == 12);
    arena_release(&l.a);
}

Test(torchbin, files_that_are_no_zip_archive_are_told_apart)
{
    static const struct {
        const char *row, *bytes;
        size_t n;
        const char *says;
        enum err_code code;
    } rows[] = {
        {"empty", "", 0, "0 bytes", ERR_FORMAT},
        {"text", "hello world, this is no model", 29, "expected the zip archive", ERR_FORMAT},
        {"legacy", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8P\x19.", 16, "before version 1.6",
         ERR_UNSUPPORTED},
        {"zip magic alone", "PK\003\004", 4, "expected the zip archive", ERR_FORMAT},
        {"zip cut short", "PK\003\004\0\0\0\0\0\0\0\0\0\0\0\0", 16, "not a readable zip archive",
         ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b = {0};
        buf_add(&b, rows[i].bytes, rows[i].n);
        expect_refused(b, rows[i].code, rows[i].says, rows[i].row);
    }
    struct buf tar = {0};
    for (int i = 0; i < 512; i++)
        buf_addc(&tar, '\0');
    memcpy(tar.data + 257, "ustar", 5);
    expect_refused(tar, ERR_UNSUPPORTED, "before version 1.6", "tar");
}

/* One archive with data.pkl and one storage that lies as `lie` says. */
static struct buf lying_archive(const struct mk_lie *lie)
{
    struct mk_zip z = {0};
    struct buf p = mk_pickle(&plain, 1);
    mk_zip_add(&z, "archive/data.pkl", p.data, p.len);
    mk_zip_add_lying(&z, "archive/data/0", storage, STORAGE_BYTES, lie);
    mk_zip_add(&z, "archive/version", "3\n", 2);
    buf_release(&p);
    return mk_zip_finish(&z);
}

Test(torchbin, zip_bombs_and_lying_directories_are_refused)
{
    static const struct {
        const char *row;
        struct mk_lie lie;
        const char *says;
        enum err_code code;
    } rows[] = {
        {"compressed", {.method = 8}, "archive/data/0 is compressed", ERR_UNSUPPORTED},
        {"4 GB out of 24 bytes",
         {.central_size = 0xfffffff0U},
         "declares 4294967280 bytes in 24",
         ERR_FORMAT},
        {"100 bytes out of 24", {.central_size = 100}, "declares 100 bytes in 24", ERR_FORMAT},
        {"larger than the file", {.size = 0x7fffffff}, "archive/data/0", ERR_FORMAT},
        {"larger than what is left", {.size = 900}, "archive/data/0", ERR_FORMAT},
        {"over the entry behind it", {.size = 140}, "overlaps", ERR_FORMAT},
        {"local header elsewhere", {.offset_shift = 3}, "archive/data/0", ERR_FORMAT},
        {"local header beyond the file", {.offset_shift = 1 << 30}, "m.bin", ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        expect_refused(lying_archive(&rows[i].lie), rows[i].code, rows[i].says, rows[i].row);
}

Test(torchbin, archives_need_one_pickle_and_little_endian_bytes)
{
    struct buf p = mk_pickle(&plain, 1);
    struct mk_zip z = {0};
    mk_zip_add(&z, "archive/data/0", storage, STORAGE_BYTES);
    expect_refused(mk_zip_finish(&z), ERR_FORMAT, "no entry <folder>/data.pkl", "no pickle");

    mk_zip_add(&z, "a/b/data.pkl", p.data, p.len);
    expect_refused(mk_zip_finish(&z), ERR_FORMAT, "no entry <folder>/data.pkl", "pickle too deep");

    mk_zip_add(&z, "a/data.pkl", p.data, p.len);
    mk_zip_add(&z, "b/data.pkl", p.data, p.len);
    expect_refused(mk_zip_finish(&z), ERR_FORMAT, "expected one", "two pickles");

    mk_zip_add(&z, "a/data.pkl", p.data, p.len);
    mk_zip_add(&z, "a/data/0", storage, STORAGE_BYTES);
    mk_zip_add(&z, "a/data/0", storage, STORAGE_BYTES);
    expect_refused(mk_zip_finish(&z), ERR_FORMAT, "appears twice", "an entry twice");

    mk_zip_add(&z, "a/data.pkl", "", 0);
    expect_refused(mk_zip_finish(&z), ERR_FORMAT, "has 0 bytes", "empty pickle");

    mk_zip_add(&z, "a/data.pkl", p.data, p.len);
    mk_zip_add(&z, "a/byteorder", "big", 3);
    mk_zip_add(&z, "a/data/0", storage, STORAGE_BYTES);
    expect_refused(mk_zip_finish(&z), ERR_UNSUPPORTED, "a/byteorder", "big endian");

    mk_zip_add(&z, "a/data.pkl", p.data, p.len);
    mk_zip_add(&z, "a/byteorder", "little", 6);
    mk_zip_add(&z, "a/data/0", storage, STORAGE_BYTES);
    struct loaded l = load(mk_zip_finish(&z));
    cr_expect_eq(l.rc, ERR_OK, "%s", l.e.text);
    arena_release(&l.a);
    buf_release(&p);
}

Test(torchbin, more_entries_than_a_checkpoint_can_need_are_refused)
{
    struct mk_zip z = {0};
    char name[32];
    for (int i = 0; i < 65535; i++) { /* what 16 bits can count */
        snprintf(name, sizeof(name), "a/data/%d", i);
        mk_zip_add(&z, name, "", 0);
    }
    struct buf b = mk_zip_finish(&z);
    struct io_map map = {.data = (const unsigned char *)b.data, .size = b.len};
    struct arena a = {0};
    struct zip_entry *entries = NULL;
    struct err e;
    size_t n = 0;
    cr_expect_eq(zipdir_read(&map, "m.bin", &a, &entries, &n, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "65535 zip entries") != NULL, "%s", e.text);
    arena_release(&a);
    buf_release(&b);
}

Test(torchbin, every_truncation_of_an_archive_is_refused)
{
    struct buf whole = mk_torchbin("archive", mk_pickle(&plain, 1), storage, STORAGE_BYTES);
    for (size_t n = 0; n < whole.len; n++) {
        unsigned char *exact = xmalloc(n);
        memcpy(exact, whole.data, n);
        struct io_map map = {.data = exact, .size = n};
        struct arena a = {0};
        struct ckpt_tensor *t = NULL;
        struct err e;
        int count = 0;
        cr_expect_neq(torchbin_read(&map, "m.bin", &a, &t, &count, &e), ERR_OK, "%zu bytes", n);
        arena_release(&a);
        xfree(exact);
    }
    buf_release(&whole);
}

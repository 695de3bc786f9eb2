/* ckpt: which files are opened, indexes, casts, transposes, identity. The formats have tests of their own. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "tests/support/mkckpt.h"
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/convert.h"

/* A directory with config.json. */
static char *new_dir(void)
{
    char *dir = support_tmpdir();
    mk_file(dir, "config.json", "{\"model_type\":\"opt\"}", 20);
    return dir;
}

static enum err_code open_dir(const char *dir, struct ckpt **c, struct err *e)
{
    struct model_ref m = {.path = dir};
    return ckpt_open(&m, c, e);
}

static struct ckpt *must_open(const char *dir)
{
    struct ckpt *c = NULL;
    struct err e;
    cr_assert_eq(open_dir(dir, &c, &e), ERR_OK, "%s", e.text);
    return c;
}

/* Removes `dir`. */
static void expect_refused(char *dir, enum err_code code, const char *says)
{
    struct ckpt *c = NULL;
    struct err e = {0};
    cr_expect_eq(open_dir(dir, &c, &e), code, "%s", e.text);
    cr_expect(strstr(e.text, says) != NULL, "expected '%s' in: %s", says, e.text);
    cr_expect(strstr(e.text, dir) != NULL, "%s", e.text);
    cr_expect(strchr(e.text, '\n') == NULL, "%s", e.text);
    support_tmpdir_remove(dir);
}

/* One tensor "w" of n elements. */
static struct buf one_tensor(const char *dtype, const char *shape, const void *data, size_t n)
{
    struct buf header = {0};
    buf_printf(&header, "{\"w\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[0,%zu]}}", dtype,
               shape, n);
    struct buf b = mk_safetensors(header.data, data, n);
    buf_release(&header);
    return b;
}

static struct buf named_tensor(const char *name, const char *eight_bytes)
{
    struct buf header = {0};
    buf_printf(&header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", name);
    struct buf b = mk_safetensors(header.data, eight_bytes, 8);
    buf_release(&header);
    return b;
}

/* ---- Casts, against what the formats mean. ---- */

/* The value of fp16 bits: (-1)^s 2^(e-15) 1.m, or 2^-14 0.m. */
static double value_of_f16(uint16_t h)
{
    int exponent = h >> 10 & 31;
    int mantissa = h & 0x3ff;
    double a = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -a : a;
}

static uint16_t f16_of(float f, struct convert_counts *counts)
{
    uint16_t h = 0;
    convert_to_f16(CKPT_F32, (const unsigned char *)&f, 1, &h, counts);
    return h;
}

Test(ckpt, every_fp16_number_becomes_its_value_and_comes_back)
{
    enum { N = 1 << 16 };
    static uint16_t in[N], back[N];
    static float out[N];
    struct convert_counts counts = {0};
    for (int i = 0; i < N; i++)
        in[i] = (uint16_t)i;
    convert_to_f32(CKPT_F16, (const unsigned char *)in, N, out, &counts);
    cr_expect_eq(counts.bad, 2 * 1024); /* exponent 31 */
    counts.bad = 0;
    convert_to_f16(CKPT_F32, (const unsigned char *)out, N, back, &counts);
    cr_expect_eq(counts.bad, 2 * 1024);
    cr_expect_eq(counts.flushed, 0);
    for (int i = 0; i < N; i++) {
        if ((i & 0x7c00) == 0x7c00) {
            cr_assert((i & 0x3ff) == 0 ? isinf(out[i]) : isnan(out[i]), "%04x", (unsigned)i);
            cr_assert((i & 0x3ff) == 0 ? back[i] == in[i] : (back[i] & 0x7fff) > 0x7c00, "%04x",
                      (unsigned)i);
            continue;
        }
        cr_assert_eq((double)out[i], value_of_f16(in[i]), "%04x", (unsigned)i);
        cr_assert_eq(signbit(out[i]) != 0, i >= 0x8000, "%04x", (unsigned)i);
        cr_assert_eq(back[i], in[i], "%04x", (unsigned)i);
    }
}

/* Between neighbours h and h + 1: the middle goes to the even one, anything beside it to the nearer one. The
 * neighbour above the largest number is 65536, which is infinity. */
Test(ckpt, casts_to_fp16_round_to_nearest_even_everywhere)
{
    struct convert_counts counts = {0};
    for (unsigned h = 0; h < 0x7c00; h++) {
        double above = h + 1 == 0x7c00 ? 65536.0 : value_of_f16((uint16_t)(h + 1));
        float middle = (float)((value_of_f16((uint16_t)h) + above) / 2); /* exact: 12 bits */
        unsigned even = h % 2 == 0 ? h : h + 1;
        for (int sign = 0; sign < 2; sign++) {
            unsigned s = sign ? 0x8000 : 0;
            float m = sign ? -middle : middle;
            cr_assert_eq(f16_of(m, &counts), s | even, "%a", (double)m);
            cr_assert_eq(f16_of(nextafterf(m, 0), &counts), s | h, "%a", (double)m);
            cr_assert_eq(f16_of(nextafterf(m, m * 2), &counts), s | (h + 1), "%a", (double)m);
        }
    }
}

Test(ckpt, what_flushes_to_zero_is_counted_and_what_overflows_is_bad)
{
    static const struct {
        float w;
        int flushed, bad;
    } rows[] = {
        {0.0F, 0, 0},      {-0.0F, 0, 0},           {0x1p-24F, 0, 0},     {0x1p-25F, 1, 0},
        {-0x1p-25F, 1, 0}, {0x1.000002p-25F, 0, 0}, {FLT_TRUE_MIN, 1, 0}, {-FLT_MIN, 1, 0},
        {65504.0F, 0, 0},  {65519.996F, 0, 0},      {65520.0F, 0, 1},     {-65520.0F, 0, 1},
        {FLT_MAX, 0, 1},   {INFINITY, 0, 1},        {-INFINITY, 0, 1},    {NAN, 0, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct convert_counts counts = {0};
        f16_of(rows[i].w, &counts);
        cr_expect_eq(counts.flushed, rows[i].flushed, "%a", (double)rows[i].w);
        cr_expect_eq(counts.bad, rows[i].bad, "%a", (double)rows[i].w);
    }
}

Test(ckpt, every_bf16_number_is_cast_as_the_fp32_number_it_is)
{
    enum { N = 1 << 16 };
    static uint16_t in[N], via_bf16[N], via_f32[N];
    static float wide[N], f32[N];
    struct convert_counts a = {0}, b = {0}, c = {0};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t bits = i << 16;
        in[i] = (uint16_t)i;
        memcpy(&wide[i], &bits, 4);
    }
    convert_to_f16(CKPT_BF16, (const unsigned char *)in, N, via_bf16, &a);
    convert_to_f16(CKPT_F32, (const unsigned char *)wide, N, via_f32, &b);
    convert_to_f32(CKPT_BF16, (const unsigned char *)in, N, f32, &c);
    cr_expect_eq(memcmp(via_bf16, via_f32, sizeof(via_f32)), 0);
    cr_expect_eq(memcmp(f32, wide, sizeof(wide)), 0);
    cr_expect(a.bad == b.bad && a.flushed == b.flushed && a.flushed > 0);
    cr_expect_eq(c.bad, 2 * 128); /* exponent 255 */
}

Test(ckpt, casts_do_not_depend_on_length_or_alignment)
{
    enum { N = 200 };
    unsigned char raw[4 * N + 4];
    uint16_t whole[N], piece[N];
    struct convert_counts counts = {0};
    for (int i = 0; i < N; i++) {
        float f = (float)(i - 100) * 0.37F;
        memcpy(raw + 4 * i, &f, 4);
    }
    convert_to_f16(CKPT_F32, raw, N, whole, &counts);
    for (int shift = 1; shift < 4; shift++) {
        memmove(raw + shift, raw + shift - 1, 4 * N);
        for (size_t n = 0; n <= N; n += 13) {
            memset(piece, 0xff, sizeof(piece));
            convert_to_f16(CKPT_F32, raw + shift, n, piece, &counts);
            cr_assert_eq(memcmp(piece, whole, n * 2), 0);
            cr_assert(n == N || piece[n] == 0xffff);
        }
    }
}

/* ---- Reading with strides and transposes. ---- */

struct layout_row {
    int n_dims;
    int64_t shape[4], stride[4], first;
    bool is_transposed;
};

static void check_layout(const struct layout_row *row, const char *storage_type, size_t width)
{
    enum { STORAGE = 40000 };
    unsigned char *storage = xcalloc(STORAGE, width);
    for (int i = 0; i < STORAGE; i++) { /* element i holds i mod 256, exact in every type */
        float f = (float)(i % 256);
        uint32_t bits;
        memcpy(&bits, &f, 4);
        struct convert_counts ignored = {0};
        uint16_t half = (uint16_t)(bits >> 16);
        if (strcmp(storage_type, "HalfStorage") == 0)
            half = f16_of(f, &ignored);
        memcpy(storage + (size_t)i * width, width == 4 ? (void *)&f : (void *)&half, width);
    }
    struct mk_tensor t = {.name = "w",
                          .storage_type = storage_type,
                          .key = "0",
                          .storage_count = STORAGE,
                          .first = row->first,
                          .n_dims = row->n_dims};
    memcpy(t.shape, row->shape, sizeof(row->shape));
    memcpy(t.stride, row->stride, sizeof(row->stride));
    char *dir = new_dir();
    mk_put(dir, "pytorch_model.bin",
           mk_torchbin("archive", mk_pickle(&t, 1), storage, STORAGE * width));
    struct ckpt *c = must_open(dir);
    const struct ckpt_tensor *w = ckpt_find(c, "w");
    struct err e;
    cr_assert_not_null(w);
    float *f32 = xcalloc((size_t)w->count, 4);
    uint16_t *f16 = xcalloc((size_t)w->count, 2);
    cr_assert_eq(ckpt_read_f32(c, w, row->is_transposed, f32, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(ckpt_read_f16(c, w, row->is_transposed, f16, NULL, &e), ERR_OK, "%s", e.text);
    for (int64_t flat = 0; flat < w->count; flat++) {
        int64_t at = row->first, rest = flat, to = flat;
        for (int d = row->n_dims - 1; d >= 0; d--) {
            at += rest % row->shape[d] * row->stride[d];
            rest /= row->shape[d];
        }
        if (row->is_transposed)
            to = flat % row->shape[1] * row->shape[0] + flat / row->shape[1];
        cr_assert_eq(f32[to], (float)(at % 256), "%s element %lld", storage_type, (long long)flat);
        cr_assert_eq(value_of_f16(f16[to]), (double)(at % 256), "%s element %lld", storage_type,
                     (long long)flat);
    }
    xfree(f16);
    xfree(f32);
    ckpt_close(c);
    support_tmpdir_remove(dir);
    xfree(storage);
}

Test(ckpt, strides_and_transposes_put_every_element_in_its_place)
{
    static const struct layout_row rows[] = {
        {1, {1}, {1}, 39999, false},
        {1, {100}, {3}, 5, false},
        {2, {130, 70}, {70, 1}, 0, false},
        {2, {130, 70}, {70, 1}, 0, true},
        {2, {130, 70}, {1, 130}, 3, false}, /* a transpose as torch saves it */
        {2, {130, 70}, {1, 130}, 3, true},
        {2, {64, 64}, {64, 1}, 0, true},
        {2, {1, 129}, {129, 1}, 0, true},
        {2, {129, 1}, {1, 1}, 0, true},
        {2, {65, 63}, {200, 2}, 7, false}, /* every other column of a wider matrix */
        {2, {65, 63}, {200, 2}, 7, true},
        {3, {3, 5, 7}, {35, 7, 1}, 1, false},
        {3, {3, 5, 7}, {1, 3, 15}, 1, false},
        {4, {2, 3, 4, 5}, {60, 20, 5, 1}, 0, false},
        {4, {2, 3, 4, 5}, {1, 40, 2, 8}, 9, false},
        {3, {70, 1, 80}, {1, 9999, 70}, 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_layout(&rows[i], "FloatStorage", 4);
        check_layout(&rows[i], "HalfStorage", 2);
        check_layout(&rows[i], "BFloat16Storage", 2);
    }
}

Test(ckpt, flushed_weights_are_added_up)
{
    const float w[4] = {0x1p-25F, 0.0F, 1.0F, -0x1p-30F};
    char *dir = new_dir();
    mk_put(dir, "model.safetensors", one_tensor("F32", "2,2", w, sizeof(w)));
    struct ckpt *c = must_open(dir);
    uint16_t out[4];
    int64_t flushed = 40;
    struct err e;
    cr_assert_eq(ckpt_read_f16(c, ckpt_find(c, "w"), true, out, &flushed, &e), ERR_OK);
    cr_expect_eq(flushed, 42);
    cr_expect(out[0] == 0 && out[1] == 0x3c00 && out[2] == 0 && out[3] == 0x8000);
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

Test(ckpt, nan_and_infinity_are_refused_with_file_tensor_and_index)
{
    static const struct {
        float bad;
        bool is_bad_in_f32;
        const char *says;
    } rows[] = {{NAN, true, "element 4 is NaN"},
                {-INFINITY, true, "element 4 is infinite"},
                {1e5F, false, "element 4 is 100000 (1 such), beyond fp16's 65504"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (int is_transposed = 0; is_transposed < 2; is_transposed++) {
            float w[6] = {1, 2, 3, 4, rows[i].bad, 6};
            char *dir = new_dir();
            mk_put(dir, "model.safetensors", one_tensor("F32", "2,3", w, sizeof(w)));
            struct ckpt *c = must_open(dir);
            uint16_t f16[6];
            float f32[6];
            struct err e = {0};
            cr_expect_eq(ckpt_read_f16(c, ckpt_find(c, "w"), is_transposed, f16, NULL, &e),
                         ERR_NUMERIC);
            cr_expect(strstr(e.text, rows[i].says) != NULL, "%s", e.text);
            cr_expect(strstr(e.text, "model.safetensors: tensor \"w\"") != NULL, "%s", e.text);
            cr_expect_eq(ckpt_read_f32(c, ckpt_find(c, "w"), is_transposed, f32, &e),
                         rows[i].is_bad_in_f32 ? ERR_NUMERIC : ERR_OK);
            ckpt_close(c);
            support_tmpdir_remove(dir);
        }
    }
}

Test(ckpt, integer_buffers_are_listed_but_not_read)
{
    char *dir = new_dir();
    mk_put(dir, "model.safetensors", one_tensor("U8", "8", "abcdefgh", 8));
    struct ckpt *c = must_open(dir);
    uint16_t out[8];
    struct err e;
    cr_expect_eq(ckpt_find(c, "w")->dtype, CKPT_OTHER);
    cr_expect_eq(ckpt_read_f16(c, ckpt_find(c, "w"), false, out, NULL, &e), ERR_UNSUPPORTED);
    cr_expect(strstr(e.text, "tensor \"w\" is U8") != NULL, "%s", e.text);
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

Test(ckpt, only_matrices_can_be_transposed)
{
    char *dir = new_dir();
    mk_put(dir, "model.safetensors", one_tensor("F16", "4", "abcdefgh", 8));
    struct ckpt *c = must_open(dir);
    uint16_t out[4];
    struct err e;
    cr_expect_eq(ckpt_read_f16(c, ckpt_find(c, "w"), true, out, NULL, &e), ERR_FORMAT);
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

/* ---- Which files. ---- */

Test(ckpt, safetensors_win_over_pickles_and_a_single_file_over_an_index)
{
    char *dir = new_dir();
    mk_put(dir, "model.safetensors", named_tensor("from_safetensors", "12345678"));
    mk_file(dir, "model.safetensors.index.json", "not even JSON", 13);
    mk_file(dir, "pytorch_model.bin", "not a zip", 9);
    struct ckpt *c = must_open(dir);
    cr_expect_eq(ckpt_n_tensors(c), 1);
    cr_expect_str_eq(ckpt_tensor_at(c, 0)->name, "from_safetensors");
    cr_expect_str_eq(ckpt_dir(c), dir);
    cr_expect_str_eq(json_opt_str(ckpt_config(c), "model_type", ""), "opt");
    cr_expect_null(ckpt_find(c, "absent"));
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

static void put_index(const char *dir, const char *weight_map)
{
    struct buf b = {0};
    buf_printf(&b, "{\"metadata\":{},\"weight_map\":%s}", weight_map);
    mk_put(dir, "model.safetensors.index.json", b);
}

/* The names do not follow the usual pattern: only the index tells. */
Test(ckpt, shards_are_found_through_the_index_whatever_their_names)
{
    char *dir = new_dir();
    put_index(dir, "{\"b\":\"zz_00001\",\"a\":\"part two.bin\"}");
    mk_put(dir, "zz_00001", named_tensor("b", "bbbbbbbb"));
    mk_put(dir, "part two.bin", named_tensor("a", "aaaaaaaa"));
    mk_file(dir, "model-00003-of-00003.safetensors", "not in the index", 16);
    struct ckpt *c = must_open(dir);
    cr_assert_eq(ckpt_n_tensors(c), 2);
    cr_assert_eq(ckpt_n_files(c), 2);
    cr_expect_str_eq(ckpt_file_name(c, 0), "part two.bin");
    cr_expect_str_eq(ckpt_file_name(c, ckpt_find(c, "a")->file), "part two.bin");
    cr_expect_str_eq(ckpt_file_name(c, ckpt_find(c, "b")->file), "zz_00001");
    cr_expect_eq(memcmp(ckpt_find(c, "b")->data, "bbbbbbbb", 8), 0);
    cr_expect_eq(ckpt_bytes(c), ckpt_file_bytes(c, 0) + ckpt_file_bytes(c, 1));
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

Test(ckpt, an_index_decides_between_two_shards_that_hold_the_same_name)
{
    char *dir = new_dir();
    put_index(dir, "{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}");
    struct buf both =
        mk_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                       "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
                       "wrong a.right b.", 16);
    mk_put(dir, "1.safetensors", both);
    mk_put(dir, "2.safetensors", named_tensor("a", "right a."));
    struct ckpt *c = must_open(dir);
    cr_assert_eq(ckpt_n_tensors(c), 2);
    cr_expect_eq(memcmp(ckpt_find(c, "a")->data, "right a.", 8), 0);
    cr_expect_eq(memcmp(ckpt_find(c, "b")->data, "right b.", 8), 0);
    ckpt_close(c);
    support_tmpdir_remove(dir);
}

Test(ckpt, index_entries_that_leave_the_directory_or_make_no_sense_are_refused)
{
    static const struct {
        const char *map, *says;
    } rows[] = {
        {"{\"a\":\"../secret\"}", "weight_map of \"a\""},
        {"{\"a\":\"/etc/passwd\"}", "weight_map of \"a\""},
        {"{\"a\":\"sub/file\"}", "weight_map of \"a\""},
        {"{\"a\":\"..\"}", "weight_map of \"a\""},
        {"{\"a\":\".hidden\"}", "weight_map of \"a\""},
        {"{\"a\":\"\"}", "weight_map of \"a\""},
        {"{\"a\":\"x\\ny.safetensors\"}", "weight_map of \"a\""},
        {"{\"a\":\"x\\u007f.safetensors\"}", "weight_map of \"a\""},
        {"{\"a\":7}", "weight_map of \"a\""},
        {"{\"a\":{\"file\":\"x\"}}", "weight_map of \"a\""},
        {"{\"a\\nb\":\"x\"}", "0x0a"},
        {"{}", "weight_map is empty"},
        {"[]", "\"weight_map\" must be an object"},
        {"{\"a\":\"1\",\"a\":\"2\"}", "duplicate"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *dir = new_dir();
        put_index(dir, rows[i].map);
        expect_refused(dir, ERR_FORMAT, rows[i].says);
    }
}

Test(ckpt, an_index_too_large_for_a_parser_is_refused_with_the_bound)
{
    struct buf b = {0};
    buf_adds(&b, "{\"weight_map\":{\"a\":\"x\"}}");
    while (b.len <= 16777216)
        buf_adds(&b, "                                                                ");
    char *dir = new_dir();
    mk_put(dir, "model.safetensors.index.json", b);
    expect_refused(dir, ERR_FORMAT, "16777216 bytes allowed");
}

Test(ckpt, an_index_that_does_not_fit_its_shards_is_refused)
{
    char *dir = new_dir();
    put_index(dir, "{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}");
    mk_put(dir, "1.safetensors", named_tensor("a", "12345678"));
    expect_refused(dir, ERR_FORMAT, "places tensor \"b\" in 1.safetensors, which does not have it");

    dir = new_dir();
    put_index(dir, "{\"a\":\"1.safetensors\"}");
    expect_refused(dir, ERR_NOTFOUND, "1.safetensors");

    dir = new_dir();
    put_index(dir, "{\"a\":\"1.safetensors\"}");
    mk_file(dir, "1.safetensors", "", 0);
    expect_refused(dir, ERR_FORMAT, "1.safetensors: 0 bytes");
}

Test(ckpt, missing_empty_and_foreign_files_are_refused)
{
    struct ckpt *c = NULL;
    struct err e;
    cr_expect_eq(open_dir("/nonexistent/model", &c, &e), ERR_NOTFOUND);
    cr_expect(strstr(e.text, "/nonexistent/model: no such directory") != NULL, "%s", e.text);

    expect_refused(support_tmpdir(), ERR_NOTFOUND, "config.json");
    expect_refused(new_dir(), ERR_NOTFOUND, "has no weights");

    char *dir = support_tmpdir();
    mk_file(dir, "config.json", "[1, 2]", 6);
    expect_refused(dir, ERR_FORMAT, "expected a JSON object");

    dir = support_tmpdir();
    mk_file(dir, "config.json", "{\"model_type\": ", 15);
    expect_refused(dir, ERR_FORMAT, "config.json:1:");

    dir = new_dir();
    mk_file(dir, "model.safetensors", "", 0);
    expect_refused(dir, ERR_FORMAT, "model.safetensors: 0 bytes");

    dir = new_dir();
    mk_file(dir, "pytorch_model.bin", "", 0);
    expect_refused(dir, ERR_FORMAT, "pytorch_model.bin: offset 0");

    dir = new_dir();
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    mk_file(dir, "model.safetensors", pointer, strlen(pointer));
    expect_refused(dir, ERR_FORMAT, "git lfs pull");

    dir = new_dir();
    char *folder = io_join(dir, "model.safetensors");
    cr_assert_eq(io_make_dirs(folder, &e), ERR_OK);
    xfree(folder);
    expect_refused(dir, ERR_FORMAT, "not a regular file");
}

Test(ckpt, a_tensor_twice_in_one_pickle_is_refused)
{
    const struct mk_tensor t = {.name = "w",
                                .storage_type = "HalfStorage",
                                .key = "0",
                                .storage_count = 4,
                                .n_dims = 1,
                                .shape = {4},
                                .stride = {1}};
    const struct mk_tensor twice[2] = {t, t};
    char *dir = new_dir();
    mk_put(dir, "pytorch_model.bin", mk_torchbin("archive", mk_pickle(twice, 2), "abcdefgh", 8));
    expect_refused(dir, ERR_FORMAT, "tensor \"w\" appears twice");
}

/* ---- Identity. ---- */

static void expect_identity(const char *dir, const char *command)
{
    struct ckpt *c = must_open(dir);
    char hex[SHA256_HEX], again[SHA256_HEX];
    ckpt_identity_start(c);
    ckpt_identity(c, hex);
    ckpt_identity(c, again);
    cr_expect_str_eq(hex, again);
    char *line = xasprintf("cd '%s' && %s", dir, command);
    struct support_run r = support_shell(line);
    cr_assert_eq(r.status, 0);
    cr_expect_eq(strncmp(r.out.data, hex, 64), 0, "%s: %s, not %s", command, r.out.data, hex);
    support_run_release(&r);
    xfree(line);
    ckpt_close(c);
}

Test(ckpt, identity_is_what_sha256sum_says_of_one_file_or_of_the_list_of_shards)
{
    char *dir = new_dir();
    mk_put(dir, "model.safetensors", named_tensor("a", "12345678"));
    expect_identity(dir, "sha256sum model.safetensors");
    support_tmpdir_remove(dir);

    dir = new_dir();
    put_index(dir, "{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}");
    mk_put(dir, "2.safetensors", named_tensor("a", "12345678"));
    mk_put(dir, "1.safetensors", named_tensor("b", "12345679"));
    expect_identity(dir, "LC_ALL=C sha256sum 1.safetensors 2.safetensors | sha256sum");
    support_tmpdir_remove(dir);
}

/* ---- Published layouts: checksums of tensors computed by NumPy from the same files. ---- */

static const struct golden {
    const char *model, *identity, *tensor;
    const char *f16, *f32, *f16_transposed;
    int n_files;
} goldens[] = {
    {"models/pythia-s3", "d1c44a07b83fe28ac481bc5110bb9ae6dfd9222338e0211de2d79ddac95f7316",
     "embed_out.weight", "cd0b377d07bd8845b0369e43bd657002c189cb7f053ee7c3ed44039b9522f6a6",
     "a447fcdfbd8fc78b6e6d3b25b9a83ace46b09718940fc1d6d39629cd4fbfdae5",
     "e080ba3fd7ca3d355fe2a78441b08b5696dbe94a498d8acd43fc1755a07c29bd", 2},
    {"models/bloom-s1", "9b6a31bd7e43b740cf8e4acd0532a5cc6cd59fe5a8cd866a52d6d13d062b2dd2",
     "transformer.h.0.self_attention.query_key_value.weight",
     "56fa63cfd54fbae6de4b5586b6d08f830d25dffccc1c3182f6432fcfa8960e1a",
     "a254b8f7ae5299ad235eed814a707d57f33c399555963dd64c9b150afda1c1a2",
     "c3cd51ede5810dca57eaba17e78c723ffcc10bc288ea2061d3ef2dba10232a38", 1},
    {"models/gpt2-s1", "260335267d0ce3aaf4de0e9db39fa39cb8037bd283f378c986bd7c7ee0dcfc00",
     "transformer.h.0.attn.c_attn.weight",
     "ebdb8061d9c0aa40d51efd5bfa12a38fca0bf08d4665890a0f2e6b69a2637082",
     "8e3537411d0f3d829d55601a8029092e9b3e8c5531844a59da8851a9c3ec8f04",
     "e8db6ad0f234e445814c9c140257244dbb7da4320030cb1c8fbd0827e07c56a4", 1},
    {"models/opt-s3", "85f4b7d164c10153af7583a2eb5729980eae9ca5568a0c40db31b2d656a60651",
     "model.decoder.layers.1.fc1.weight",
     "c09d1a992688fe776ec51f1be73dff56f4bddc65bf922b902657f53c9aee8b0e",
     "dfe0670da1386cadd030f431bfadd40cb13a136ff5781f517e0018ba5cb60db1",
     "4f91c54fd73ad7c9463ec050d372cd5ea1977b64587878a585d914aedcbfb198", 2},
};

static void expect_sha256(const void *data, size_t n, const char *expected, const char *what)
{
    char hex[SHA256_HEX];
    sha256_bytes(data, n, hex);
    cr_expect_str_eq(hex, expected, "%s", what);
}

Test(ckpt, real_checkpoints_read_as_numpy_reads_them)
{
    for (size_t i = 0; i < ARRAY_LEN(goldens); i++) {
        const struct golden *g = &goldens[i];
        const char *dir = support_shared(g->model);
        if (dir == NULL)
            continue;
        struct ckpt *c = must_open(dir);
        const struct ckpt_tensor *t = ckpt_find(c, g->tensor);
        char hex[SHA256_HEX];
        struct err e;
        cr_assert_not_null(t);
        ckpt_identity(c, hex);
        cr_expect_str_eq(hex, g->identity);
        cr_expect_eq(ckpt_n_files(c), g->n_files);
        uint16_t *f16 = xmalloc((size_t)t->count * 2);
        float *f32 = xmalloc((size_t)t->count * 4);
        cr_assert_eq(ckpt_read_f16(c, t, false, f16, NULL, &e), ERR_OK, "%s", e.text);
        expect_sha256(f16, (size_t)t->count * 2, g->f16, g->model);
        cr_assert_eq(ckpt_read_f16(c, t, true, f16, NULL, &e), ERR_OK, "%s", e.text);
        expect_sha256(f16, (size_t)t->count * 2, g->f16_transposed, g->model);
        cr_assert_eq(ckpt_read_f32(c, t, false, f32, &e), ERR_OK, "%s", e.text);
        expect_sha256(f32, (size_t)t->count * 4, g->f32, g->model);
        ckpt_forget_pages(c);
        xfree(f32);
        xfree(f16);
        ckpt_close(c);
    }
}

/* ---- equality ---- */

Test(ckpt, matrices_are_equal_by_their_values_however_they_are_stored)
{
    static const float f32[] = {0, 1, -2, 0.5F}, zero[] = {-0.0F, 1, -2, 0.5F},
                       other[] = {0, 1, -2, 3};
    static const uint16_t f16[] = {0, 0x3c00, 0xc000, 0x3800};
    struct buf data = {0};
    buf_add(&data, f32, sizeof f32);
    buf_add(&data, f32, sizeof f32);
    buf_add(&data, zero, sizeof zero);
    buf_add(&data, other, sizeof other);
    buf_add(&data, f16, sizeof f16);
    char *dir = new_dir();
    mk_put(dir, "model.safetensors",
           mk_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                          "\"copy\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[16,32]},"
                          "\"zero\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[32,48]},"
                          "\"other\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[48,64]},"
                          "\"half\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[64,72]}}",
                          data.data, data.len));
    struct ckpt *c = must_open(dir);
    const struct ckpt_tensor *a = ckpt_find(c, "a");
    cr_expect(ckpt_is_equal(a, a));
    cr_expect(ckpt_is_equal(a, ckpt_find(c, "copy")));
    cr_expect(ckpt_is_equal(a, ckpt_find(c, "zero")));
    cr_expect(ckpt_is_equal(a, ckpt_find(c, "half")));
    cr_expect_not(ckpt_is_equal(a, ckpt_find(c, "other")));
    cr_expect_not(ckpt_is_equal(ckpt_find(c, "half"), ckpt_find(c, "other")));
    struct ckpt_tensor turned = *a, reshaped = *a, huge = *a, huger = *a;
    turned.stride[0] = 1, turned.stride[1] = 2;
    cr_expect_not(ckpt_is_equal(a, &turned));
    reshaped.shape[0] = 1, reshaped.shape[1] = 4;
    cr_expect_not(ckpt_is_equal(a, &reshaped));
    huge.shape[0] = huge.shape[1] = (int64_t)1 << 31, huge.count = (int64_t)1 << 62;
    huge.stride[0] = huge.stride[1] = 0;
    huger = huge, huger.data += 4;
    cr_expect_not(ckpt_is_equal(&huge, &huger), "one element, repeated for ever");
    ckpt_close(c);
    buf_release(&data);
    support_tmpdir_remove(dir);
}

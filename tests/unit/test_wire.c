#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "schema/wire.h"

static unsigned char header[WIRE_HEADER_BYTES];
static struct buf json;
static struct err e;

static struct wire_frame text(const char *z)
{
    return (struct wire_frame){z, strlen(z)};
}

static enum err_code decode(const char *body, int n_frames, struct wire_msg *m)
{
    struct wire_frame f[WIRE_MAX_FRAMES] = {{header, sizeof(header)}, text(body)};
    for (int i = 2; i < WIRE_MAX_FRAMES; i++)
        f[i] = text("blob");
    return wire_decode(f, n_frames, m, &e);
}

static void make_header(void)
{
    cr_assert_eq(wire_encode(WIRE_BEAT, NULL, header, &json, &e), ERR_OK);
}

Test(wire, header_is_what_the_protocol_says)
{
    make_header();
    const unsigned char expected[8] = {'i', 'b', 'i', 't', 1, 4, 0, 0};
    cr_expect_arr_eq(header, expected, 8);
    cr_expect_str_eq(json.data, "{}");
    buf_release(&json);
}

Test(wire, message_survives_encoding_and_decoding)
{
    json_t *body = json_pack("{s:I, s:s}", "job", (json_int_t)1 << 53, "text", "ä|\"\\");
    cr_assert_eq(wire_encode(WIRE_FAIL, body, header, &json, &e), ERR_OK);
    struct wire_frame f[3] = {{header, sizeof(header)}, {json.data, json.len}, text("samples")};
    struct wire_msg m;
    cr_assert_eq(wire_decode(f, 3, &m, &e), ERR_OK, "%s", e.text);
    cr_expect_eq(m.type, WIRE_FAIL);
    cr_expect(json_equal(m.body, body));
    cr_expect_eq(m.n_blobs, 1);
    cr_expect_eq(m.blobs[0].size, 7);
    wire_msg_release(&m);
    json_decref(body);
    buf_release(&json);
}

Test(wire, every_type_has_a_name_and_a_number_of_its_own)
{
#define X(name, number, max_kib, sender)                                                           \
    cr_expect_str_eq(wire_type_name((enum wire_type)(number)), #name, "number %d", number);
    WIRE_TYPE_LIST(X)
#undef X
    cr_expect_str_eq(wire_type_name((enum wire_type)200), "?");
}

Test(wire, header_is_refused_when_any_byte_is_wrong)
{
    static const struct {
        int at;
        unsigned char value;
        enum err_code code;
        const char *says;
    } rows[] = {
        {0, 'x', ERR_FORMAT, "not an isobit peer"},
        {3, 'T', ERR_FORMAT, "not an isobit peer"},
        {4, 2, ERR_VERSION, "version 2"},
        {4, 0, ERR_VERSION, "version 0"},
        {5, 0, ERR_FORMAT, "type 0"},
        {5, 255, ERR_FORMAT, "type 255"},
        {6, 1, ERR_FORMAT, "bytes 6 and 7"},
        {7, 9, ERR_FORMAT, "bytes 6 and 7"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        make_header();
        header[rows[i].at] = rows[i].value;
        struct wire_msg m;
        cr_expect_eq(decode("{}", 2, &m), rows[i].code, "row %zu", i);
        cr_expect_not_null(strstr(e.text, rows[i].says), "row %zu: %s", i, e.text);
        cr_expect_null(m.body);
        cr_expect_eq((int)m.type, 0);
    }
    buf_release(&json);
}

Test(wire, body_must_be_one_json_object)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "1",
                                      "{",
                                      "{} {}",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"\xff\":1}",
                                      "{\"a\":\"\\u0000\"}",
                                      "null",
                                      "{\"a\":1e999}"};
    make_header();
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct wire_msg m;
        cr_expect_eq(decode(bad[i], 2, &m), ERR_FORMAT, "%s", bad[i]);
        cr_expect_null(m.body, "%s", bad[i]);
    }
    buf_release(&json);
}

Test(wire, frame_count_is_bounded)
{
    make_header();
    for (int n = 0; n <= WIRE_MAX_FRAMES + 1; n++) {
        struct wire_msg m;
        enum err_code expected = n >= 2 && n <= WIRE_MAX_FRAMES ? ERR_OK : ERR_FORMAT;
        cr_expect_eq(decode("{}", n, &m), expected, "%d frames", n);
        wire_msg_release(&m);
    }
    buf_release(&json);
}

Test(wire, oversized_frames_are_refused_without_being_read)
{
    make_header();
    struct wire_frame f[3] = {{header, sizeof(header)}, {"{}", 2}, {"", (size_t)WIRE_MAX_BLOB + 1}};
    struct wire_msg m;
    cr_expect_eq(wire_decode(f, 3, &m, &e), ERR_FORMAT);
    f[1].size = (size_t)WIRE_MAX_JSON + 1;
    cr_expect_eq(wire_decode(f, 2, &m, &e), ERR_FORMAT);
    f[0].size = 7;
    cr_expect_eq(wire_decode(f, 2, &m, &e), ERR_FORMAT);
    buf_release(&json);
}

Test(wire, body_that_is_too_large_is_not_sent)
{
    json_t *body = json_object();
    size_t n = (size_t)5 * WIRE_MAX_JSON;
    char *big = xmalloc(n);
    memset(big, 'a', n);
    json_object_set_new(body, "text", json_stringn(big, n));
    cr_expect_eq(wire_encode(WIRE_ITEMS, body, header, &json, &e), ERR_FORMAT);
    xfree(big);
    json_decref(body);
    buf_release(&json);
}

Test(wire, text_of_any_bytes_becomes_utf8)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain", "plain"},
        {NULL, ""},
        {"h\xc3\xa4", "h\xc3\xa4"},
        {"\xff\xfe", "??"},
        {"\xc3", "?"},
        {"\xc0\xaf", "??"},
        {"\xed\xa0\x80", "???"},
        {"\xe0\x80\x80", "???"},
        {"\xf4\x90\x80\x80", "????"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xf0\x80\x80\x80", "????"},
        {"\xe2\x82\xac", "\xe2\x82\xac"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *t = wire_text(rows[i].in);
        cr_expect_str_eq(json_string_value(t), rows[i].out, "row %zu", i);
        json_decref(t);
    }
    char longer[3001];
    memset(longer, 'x', 3000);
    longer[3000] = '\0';
    json_t *t = wire_text(longer);
    cr_expect_eq(json_string_length(t), WIRE_MAX_TEXT);
    json_decref(t);
}

Test(wire, body_is_measured_against_its_type_before_it_is_parsed)
{
    static const struct {
        unsigned char type;
        size_t limit;
    } rows[] = {{WIRE_BEAT, 4096},      {WIRE_CREDIT, 4096},   {WIRE_FAIL, 65536},
                {WIRE_RESULT, 1 << 20}, {WIRE_HELLO, 4 << 20}, {WIRE_ITEMS, 16 << 20},
                {WIRE_REQUEST, 4 << 20}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned char head[WIRE_HEADER_BYTES] = {'i', 'b', 'i', 't', WIRE_VERSION, rows[i].type};
        char *body = xmalloc(rows[i].limit + 1);
        memset(body, ' ', rows[i].limit + 1);
        memcpy(body, "{}", 2);
        struct wire_frame f[2] = {{head, sizeof(head)}, {body, rows[i].limit}};
        struct wire_msg m;
        struct err why;
        cr_expect_eq(wire_decode(f, 2, &m, &why), ERR_OK, "type %d: %s", rows[i].type, why.text);
        wire_msg_release(&m);
        f[1].size++;
        cr_expect_eq(wire_decode(f, 2, &m, &why), ERR_FORMAT, "type %d", rows[i].type);
        cr_expect_not_null(strstr(why.text, "at most"), "%s", why.text);
        xfree(body);
    }
}

#include <criterion/criterion.h>
#include <string.h>

#include "base/json.h"
#include "base/json_text.h"

static struct json_text t;
static struct arena arena;
static struct err e;

static void teardown(void)
{
    json_text_release(&t);
    arena_release(&arena);
}

TestSuite(json_text, .fini = teardown);

static enum err_code parse(const char *text)
{
    return json_text_parse(&t, str_of(text), "test", &e);
}

Test(json_text, members_are_found_at_their_level)
{
    cr_assert_eq(parse(" { \"a\" : {\"b\":1, \"x\":[1,{\"b\":2}]} , \"b\":-7,\"c\":2.5e1,"
                       "\"d\":null,\"e\":\"text\"}\n"),
                 ERR_OK, "%s", e.text);
    int64_t i = 0;
    double d = 0;
    int a = 0;
    const char *z = NULL;
    cr_assert_eq(json_text_int(&t, 0, "b", -10, 10, &i, &e), ERR_OK, "%s", e.text);
    cr_expect_eq(i, -7);
    cr_assert_eq(json_text_obj(&t, 0, "a", &a, &e), ERR_OK);
    cr_assert_eq(json_text_int(&t, a, "b", 0, 10, &i, &e), ERR_OK);
    cr_expect_eq(i, 1);
    cr_assert_eq(json_text_num(&t, 0, "c", &d, &e), ERR_OK);
    cr_expect_eq(d, 25.0);
    cr_assert_eq(json_text_num(&t, 0, "b", &d, &e), ERR_OK, "an integer is a number");
    cr_assert_eq(json_text_str(&t, 0, "e", &arena, &z, &e), ERR_OK);
    cr_expect_str_eq(z, "text");
    cr_expect(json_text_is_null(&t, json_text_get(&t, 0, "d")));
    cr_expect(json_text_is_null(&t, json_text_get(&t, 0, "nothing")));
    cr_expect_eq(json_text_get(&t, json_text_get(&t, 0, "b"), "x"), -1, "a number has no members");
}

Test(json_text, wrong_members_are_named)
{
    int64_t i = 5;
    double d = 5;
    cr_assert_eq(parse("{\"a\":\"1\",\"b\":1.5,\"c\":99999999999999999999,\"d\":1e999}"), ERR_OK);
    static const char *const not_int[] = {"a", "b", "c", "x"};
    for (size_t k = 0; k < ARRAY_LEN(not_int); k++) {
        cr_expect_eq(json_text_int(&t, 0, not_int[k], 0, 9, &i, &e), ERR_FORMAT);
        cr_expect(strstr(e.text, not_int[k]) != NULL, "%s", e.text);
    }
    cr_expect_eq(json_text_num(&t, 0, "a", &d, &e), ERR_FORMAT);
    cr_expect_eq(json_text_num(&t, 0, "d", &d, &e), ERR_FORMAT, "not finite");
    cr_expect(i == 5 && d == 5, "untouched");
}

Test(json_text, strings_are_understood_as_the_other_parser_does)
{
    const char *z = NULL;
    cr_assert_eq(parse("{\"a\":\"x\\n\\u00e9\\ud83d\\ude00\",\"b\":\"\xc3\xa9\",\"c\":\"\xff\","
                       "\"d\":\"\\ud83d\"}"),
                 ERR_OK, "%s", e.text);
    cr_assert_eq(json_text_str(&t, 0, "a", &arena, &z, &e), ERR_OK);
    cr_expect_str_eq(z, "x\n\xc3\xa9\xf0\x9f\x98\x80");
    cr_assert_eq(json_text_str(&t, 0, "b", &arena, &z, &e), ERR_OK);
    cr_expect_str_eq(z, "\xc3\xa9");
    cr_expect_eq(json_text_str(&t, 0, "c", &arena, &z, &e), ERR_FORMAT, "no UTF-8");
    cr_expect_eq(json_text_str(&t, 0, "d", &arena, &z, &e), ERR_FORMAT, "half a surrogate pair");
}

/* The array of tokens grows under every kind of value in turn, and no token is lost. */
Test(json_text, values_keep_their_text_wherever_the_array_grows)
{
    static const char *const values[] = {"true", "null", "12", "-2.5e3", "\"s\""};
    static const int sizes[] = {4, 4, 2, 6, 1};
    enum { MOST = 700 }; /* it grows three times */
    for (size_t v = 0; v < ARRAY_LEN(values); v++) {
        struct buf text = {0};
        buf_adds(&text, "{\"a\":[");
        for (int i = 0; i < MOST; i++) {
            buf_adds(&text, i > 0 ? "," : "");
            buf_adds(&text, values[v]);
        }
        buf_adds(&text, "]}");
        json_text_release(&t); /* it starts small again */
        cr_assert_eq(json_text_parse(&t, (struct str){text.data, text.len}, "test", &e), ERR_OK,
                     "%s", e.text);
        cr_assert_eq(t.n, 3 + MOST);
        for (int i = 3; i < t.n; i++)
            cr_assert_eq(t.v[i].text.n, (size_t)sizes[v], "%s at token %d", values[v], i);
        buf_release(&text);
    }
}

Test(json_text, what_is_no_object_is_an_error)
{
    static const char *const texts[] = {"",
                                        "[]",
                                        "1",
                                        "{",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{\"a\":1 2}",
                                        "{\"a\":01}",
                                        "{\"a\":1.}",
                                        "{\"a\":1e}",
                                        "{\"a\":-}",
                                        "{\"a\":+1}",
                                        "{\"a\":tru}",
                                        "{\"a\":\"}",
                                        "{a:1}",
                                        "{\"a\":[1,]}",
                                        "{\"a\":[}",
                                        "{} x",
                                        "{\"a\":nul",
                                        "{\"a\":\"\n\"}",
                                        "{\"a\":\"\\",
                                        "{\"a\\n\":1}",
                                        "{\"a\":1,\"a\":2}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        cr_expect_eq(parse(texts[i]), ERR_FORMAT, "%s", texts[i]);
}

Test(json_text, depth_and_members_have_limits)
{
    struct buf b = {0};
    for (int i = 0; i < JSON_TEXT_MAX_DEPTH; i++)
        buf_adds(&b, "{\"a\":");
    buf_adds(&b, "1");
    for (int i = 0; i < JSON_TEXT_MAX_DEPTH; i++)
        buf_adds(&b, "}");
    cr_expect_eq(parse(b.data), ERR_FORMAT, "one level too many");
    buf_reset(&b);
    for (int i = 0; i <= JSON_TEXT_MAX_MEMBERS; i++)
        buf_printf(&b, "%s\"m%d\":0", i == 0 ? "{" : ",", i);
    buf_adds(&b, "}");
    cr_expect_eq(parse(b.data), ERR_FORMAT, "one member too many");
    buf_release(&b);
}

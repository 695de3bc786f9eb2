/* The text reader against the tree's parser: whatever it accepts is well-formed, every token lies in the text, and what the
 * tree's parser makes of a member is what it reads. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/json.h"
#include "base/json_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare_member(const struct json_text *t, const json_t *v, const char *name)
{
    struct arena a = {0};
    struct err e;
    int64_t i = 0;
    double d = 0;
    const char *z = NULL;
    if (json_text_int(t, 0, name, INT64_MIN, INT64_MAX, &i, &e) == ERR_OK)
        CHECK(json_is_integer(v) && json_integer_value(v) == i);
    if (json_text_num(t, 0, name, &d, &e) == ERR_OK)
        CHECK(json_is_number(v) && json_number_value(v) == d);
    if (json_text_str(t, 0, name, &a, &z, &e) == ERR_OK)
        CHECK(json_is_string(v) && strcmp(json_string_value(v), z) == 0);
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_text t = {0};
    struct err e;
    const struct str text = {(const char *)data, size};
    if (json_text_parse(&t, text, "fuzz", &e) == ERR_OK) {
        json_t *doc = NULL;
        bool is_tree = json_parse(text, "fuzz", &doc, &e) == ERR_OK;
        for (int i = 0; i < t.n; i++) {
            CHECK(t.v[i].next > i && t.v[i].next <= t.n);
            CHECK(t.v[i].text.n == 0 ||
                  (t.v[i].text.p >= text.p && t.v[i].text.p + t.v[i].text.n <= text.p + text.n));
        }
        const char *name = NULL;
        json_t *v = NULL;
        if (is_tree)
            json_object_foreach(doc, name, v) compare_member(&t, v, name);
        json_decref(doc);
    }
    json_text_release(&t);
    return 0;
}

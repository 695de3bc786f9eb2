#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "schema/job_json.h"

static struct arena arena;
static struct err e;

static const char sha[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static struct config busy_config(void)
{
    return (struct config){.k = 5,
                           .dtype = DTYPE_float,
                           .exponent_bits = 2,
                           .subnormal_shift = 2,
                           .block = 128,
                           .center = CENTER_TENSOR,
                           .outlier_pct = 1.5,
                           .outlier_rule = OUTLIER_RULE_PREVIOUS_RESID,
                           .quant_head = true,
                           .dequant = DEQUANT_FP32,
                           .compute = COMPUTE_BF16};
}

Test(job_json, configuration_survives_the_round_trip)
{
    struct config cases[] = {config_default(), busy_config(), busy_config()};
    cases[2].block = 0;
    cases[2].outlier_pct = 0;
    config_normalize(&cases[2]);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *j = config_to_json(&cases[i]);
        struct config back;
        cr_assert_eq(config_from_json(j, "test", &back, &e), ERR_OK, "%s", e.text);
        cr_expect(config_equal(&back, &cases[i]), "case %zu", i);
        json_decref(j);
    }
}

static json_t *parsed(const char *text)
{
    json_t *j = NULL;
    cr_assert_eq(json_parse(str_of(text), "test", &j, &e), ERR_OK, "%s", e.text);
    return j;
}

Test(job_json, absent_fields_are_defaults_and_exponent_bits_resolve)
{
    json_t *j = parsed("{\"k\": 4, \"dtype\": \"float\", \"block\": \"tensor\"}");
    struct config c;
    cr_assert_eq(config_from_json(j, "test", &c, &e), ERR_OK, "%s", e.text);
    cr_expect_eq(c.exponent_bits, 2);
    cr_expect_eq(c.block, 0);
    cr_expect_eq(c.compute, COMPUTE_FP32);
    json_decref(j);
}

Test(job_json, hostile_configurations_are_errors)
{
    static const char *const bad[] = {
        "[]",
        "{}",
        "{\"k\": \"4\"}",
        "{\"k\": 4.5}",
        "{\"k\": 99}",
        "{\"k\": 4, \"dtype\": \"float8\"}",
        "{\"k\": 4, \"dtype\": 1}",
        "{\"k\": 4, \"block\": -1}",
        "{\"k\": 4, \"block\": \"row\"}",
        "{\"k\": 4, \"block\": 99999999999}",
        "{\"k\": 4, \"exponent_bits\": 2}",
        "{\"k\": 4, \"outlier_pct\": \"2\"}",
        "{\"k\": 4, \"quant_head\": 1}",
        "{\"k\": 3, \"dtype\": \"float\", \"exponent_bits\": 3}",
        "{\"k\": 4, \"outlier_pct\": 2, \"block\": 0}",
        "{\"k\": 4, \"outlier_pct\": 1e300}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_t *j = parsed(bad[i]);
        struct config c;
        cr_expect_eq(config_from_json(j, "here", &c, &e), ERR_FORMAT, "%s", bad[i]);
        cr_expect(str_starts(str_of(e.text), "here"), "%s", e.text);
        json_decref(j);
    }
}

Test(job_json, model_and_evaluation_survive_the_round_trip)
{
    struct model_ref m = {.family = "opt",
                          .size = "125m",
                          .name = "facebook/opt-125m@v1",
                          .hub = "facebook/opt-125m",
                          .revision = "v1"};
    struct eval_spec ev = {.name = "cc",
                           .task = TASK_perplexity,
                           .data = "d.jsonl",
                           .data_path = "/a/d.jsonl",
                           .subset = "Pile-CC",
                           .limit = 3,
                           .window = 512,
                           .max_tokens = 99,
                           .method = METHOD_STRIDED,
                           .join = JOIN_H22,
                           .bos = true};
    json_t *jm = model_ref_to_json(&m);
    json_t *je = eval_spec_to_json(&ev);
    struct model_ref mb;
    struct eval_spec eb;
    cr_assert_eq(model_ref_from_json(jm, "test", &arena, &mb, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(eval_spec_from_json(je, "test", &arena, &eb, &e), ERR_OK, "%s", e.text);
    cr_expect_str_eq(key_of_model(&mb, &arena), key_of_model(&m, &arena));
    cr_expect_str_eq(mb.hub, m.hub);
    cr_expect_str_eq(mb.revision, "v1");
    cr_expect_null(mb.path);
    cr_expect_str_eq(key_of_eval(&eb, &arena), key_of_eval(&ev, &arena));
    cr_expect_str_eq(eb.name, "cc");
    cr_expect_str_eq(eb.data_path, "/a/d.jsonl");
    json_decref(jm);
    json_decref(je);
    arena_release(&arena);
}

Test(job_json, a_model_is_either_a_path_or_on_the_hub)
{
    static const char *const bad[] = {
        "{\"family\": \"a\", \"size\": \"b\", \"name\": \"c\"}",
        "{\"family\": \"a\", \"size\": \"b\", \"name\": \"c\", \"path\": \"/p\", \"hub\": \"o/n\"}",
        "{\"family\": \"a\", \"size\": \"b\", \"name\": \"\", \"path\": \"/p\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_t *j = parsed(bad[i]);
        struct model_ref m;
        cr_expect_eq(model_ref_from_json(j, "test", &arena, &m, &e), ERR_FORMAT, "%s", bad[i]);
        json_decref(j);
    }
    arena_release(&arena);
}

static struct job_result a_result(void)
{
    static const struct metric metrics[] = {{"acc", 0.53, 0.01, 500},
                                            {"kl_to_16bit", NAN, NAN, 4096}};
    struct job_result r = {.metrics = metrics,
                           .n_metrics = 2,
                           .n = 500,
                           .tokens = 12345,
                           .seconds = 1.25,
                           .bits = {4.25, 993054720, 528869184, 360972288, 77},
                           .n_params = 124439808,
                           .n_params_linear = 84934656,
                           .device = "cpu: test \xff",
                           .program = "isobit 0.1.0",
                           .n_items = 500,
                           .per_item = 4};
    memcpy(r.weights_sha256, sha, sizeof(sha));
    memcpy(r.data_sha256, sha, sizeof(sha));
    memcpy(r.tokenizer_sha256, sha, sizeof(sha));
    return r;
}

/* As it travels: written, and read from the text. */
static enum err_code read_back(const json_t *result, struct job_result *out)
{
    struct json_text t = {0};
    struct buf text = {0};
    buf_adds(&text, "{\"result\":");
    json_append(&text, result, false);
    buf_adds(&text, "}");
    enum err_code rc = json_text_parse(&t, (struct str){text.data, text.len}, "test", &e);
    if (rc == ERR_OK)
        rc = job_result_from_text(&t, json_text_get(&t, 0, "result"), &arena, out, &e);
    json_text_release(&t);
    buf_release(&text);
    return rc;
}

Test(job_json, result_survives_the_round_trip)
{
    struct job_result r = a_result();
    struct job_result b;
    json_t *j = job_result_to_json(&r);
    cr_expect(json_is_null(json_object_get(json_object_get(j, "metrics"), "kl_to_16bit")),
              "NaN is null");
    cr_assert_eq(read_back(j, &b), ERR_OK, "%s", e.text);
    cr_assert_eq(b.n_metrics, 2);
    cr_expect_str_eq(b.metrics[0].name, "acc");
    cr_expect_eq(b.metrics[0].value, 0.53);
    cr_expect_eq(b.metrics[0].stderr_, 0.01);
    cr_expect_eq(b.metrics[0].n, 500);
    cr_expect(isnan(b.metrics[1].value) && isnan(b.metrics[1].stderr_));
    cr_expect_eq(b.tokens, 12345);
    cr_expect_eq(b.bits.total_full, 993054720);
    cr_expect_eq(b.bits.uncharged, 77);
    cr_expect_eq(b.n_params_linear, 84934656);
    cr_expect_eq(b.per_item, 4);
    cr_expect_str_eq(b.weights_sha256, sha);
    cr_expect_str_eq(b.device, "cpu: test ?", "what is no UTF-8 does not break the message");
    json_decref(j);
    arena_release(&arena);
}

/* Each member replaced by something wrong in turn: an error, never a crash or a half-read result. */
Test(job_json, hostile_results_are_errors)
{
    static const char *const keys[] = {"metrics",  "n",      "tokens",  "bits",
                                       "n_params", "device", "identity"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct job_result r = a_result();
        struct job_result b = {.n = -1};
        json_t *j = job_result_to_json(&r);
        json_object_set_new(j, keys[i], json_true());
        cr_expect_eq(read_back(j, &b), ERR_FORMAT, "%s", keys[i]);
        cr_expect_eq(b.n, -1, "untouched on error");
        json_decref(j);
    }
    struct job_result r = a_result();
    json_t *j = job_result_to_json(&r);
    json_object_set_new(json_object_get(j, "identity"), "weights_sha256", json_string("00ZZ"));
    cr_expect_eq(read_back(j, &r), ERR_FORMAT);
    json_decref(j);
    j = job_result_to_json(&r);
    json_object_set_new(json_object_get(j, "metrics"), "acc", json_string("0.5"));
    cr_expect_eq(read_back(j, &r), ERR_FORMAT);
    json_decref(j);
    arena_release(&arena);
}

Test(job_json, items_survive_the_round_trip)
{
    static const int32_t a[] = {5, 6};
    static const int32_t b[] = {7, 8};
    static const int32_t c[] = {1, 2};
    const struct item items[] = {{1, 2, a, b, c}, {-1, 1, a, b, c}};
    struct item_list l = {.items = items, .n = 2};
    memcpy(l.tokenizer_sha256, sha, sizeof(sha));
    memcpy(l.items_sha256, sha, sizeof(sha));
    json_t *j = item_list_to_json(&l);
    struct item_list back;
    cr_assert_eq(item_list_from_json(j, "test", &arena, &back, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(back.n, 2);
    cr_expect_eq(back.items[0].gold, 1);
    cr_expect_eq(back.items[0].n_choices, 2);
    cr_expect_eq(back.items[0].chars[1], 6);
    cr_expect_eq(back.items[0].bytes[1], 8);
    cr_expect_eq(back.items[0].tokens[1], 2);
    cr_expect_eq(back.items[1].gold, -1);
    cr_expect_str_eq(back.items_sha256, sha);
    json_decref(j);
    arena_release(&arena);
}

Test(job_json, hostile_items_are_errors)
{
    static const char *const rows[] = {"[]",
                                       "[0,1]",
                                       "[0,1,2]",
                                       "[2,1,1,1,1,1,1]",
                                       "[-2,1,1,1]",
                                       "[0,-1,1,1]",
                                       "[0,1,1,4294967296]",
                                       "[0,1,1,\"1\"]",
                                       "{}",
                                       "7"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *text =
            xasprintf("{\"tokenizer_sha256\": \"%s\", \"items_sha256\": \"%s\", \"items\": [%s]}",
                      sha, sha, rows[i]);
        json_t *j = parsed(text);
        struct item_list l;
        cr_expect_eq(item_list_from_json(j, "test", &arena, &l, &e), ERR_FORMAT, "%s", rows[i]);
        json_decref(j);
        xfree(text);
    }
    arena_release(&arena);
}

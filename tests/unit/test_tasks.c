#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "tests/support/support.h"
#include "worker/eval/data.h"
#include "worker/eval/eval.h"
#include "worker/tok/text.h"

static struct task_item parse(enum task t, const char *line, struct arena *a, struct err *e)
{
    struct task_item item = {.gold = -1};
    json_t *record = NULL;
    cr_assert_eq(json_parse(str_of(line), "row", &record, e), ERR_OK, "%s", e->text);
    if (task_ops_of(t)->parse(record, "f.jsonl:7", a, &item, e) != ERR_OK)
        item.n_choices = 0;
    json_decref(record);
    return item;
}

static void expect_text(struct str found, const char *expected)
{
    cr_expect(str_eqz(found, expected), "found '%.*s', expected '%s'", (int)found.n, found.p,
              expected);
}

/* SHA-256 over context, 0x1F, continuation, 0x1E of every request (evaluation spec, section 4a). */
static void expect_prompts(enum task t, const char *rel, int n_expected, const char *expected)
{
    const char *path = support_shared(rel);
    if (path == NULL)
        cr_skip_test("reference data is absent");
    struct err e = {0};
    struct data_reader *r = NULL;
    struct sha256 *h = sha256_new();
    int n = 0;
    cr_assert_eq(data_open(path, &r, &e), ERR_OK, "%s", e.text);
    for (;;) {
        json_t *record = NULL;
        struct arena a = {0};
        struct task_item item = {.gold = -1};
        cr_assert_eq(data_next_record(r, &record, &e), ERR_OK, "%s", e.text);
        if (record == NULL)
            break;
        cr_assert_eq(task_ops_of(t)->parse(record, data_where(r), &a, &item, &e), ERR_OK, "%s",
                     e.text);
        for (int i = 0; i < item.n_choices; i++) {
            sha256_add(h, item.context[i].p, item.context[i].n);
            sha256_add(h, "\x1f", 1);
            sha256_add(h, item.continuation[i].p, item.continuation[i].n);
            sha256_add(h, "\x1e", 1);
            n++;
        }
        json_decref(record);
        arena_release(&a);
    }
    data_close(r);
    char hex[SHA256_HEX];
    sha256_finish(h, hex);
    cr_expect_eq(n, n_expected);
    cr_expect_str_eq(hex, expected);
}

Test(tasks, piqa_prompts_have_the_published_checksum)
{
    expect_prompts(TASK_piqa, "data/tasks/piqa_valid.jsonl", 3676,
                   "d9b43f1473ab616557fa37d2bd9bd31e08020db41cc054c78640d4e48b2971b1");
}

Test(tasks, lambada_prompts_have_the_published_checksum)
{
    expect_prompts(TASK_lambada, "data/tasks/lambada_test.jsonl", 5153,
                   "521c496efd250b705653e489f1fee7a0aceacda8dd3384fae6999585aa9d3a97");
}

Test(tasks, lambada_splits_at_the_last_space_only)
{
    struct arena a = {0};
    struct err e = {0};
    struct task_item item =
        parse(TASK_lambada, "{\"text\": \"he said\\tto it.\\n\\n\\\"No\"}", &a, &e);
    cr_assert_eq(item.n_choices, 1);
    expect_text(item.context[0], "he said\tto");
    expect_text(item.continuation[0], " it.\n\n\"No");
    cr_expect_eq(item.gold, -1);
    arena_release(&a);
}

Test(tasks, winogrande_scores_the_common_suffix)
{
    struct arena a = {0};
    struct err e = {0};
    struct task_item item =
        parse(TASK_winogrande,
              "{\"sentence\": \"Ann met Bo and _'s car_x \\u00a0\", \"option1\": \"Ann\", "
              "\"option2\": \"Bo\", \"answer\": \"2\"}",
              &a, &e);
    cr_assert_eq(item.n_choices, 2);
    expect_text(item.context[0], "Ann met Bo and Ann");
    expect_text(item.context[1], "Ann met Bo and Bo");
    expect_text(item.continuation[0], " 's car_x");
    expect_text(item.continuation[1], " 's car_x");
    cr_expect_eq(item.gold, 1);
    arena_release(&a);
}

Test(tasks, original_hellaswag_records_are_cleaned_and_capitalized)
{
    const struct {
        const char *a, *b, *ending, *query, *continuation;
    } rows[] = {
        {"A man is sitting on a roof.", "he", "is ripping.",
         "Label: A man is sitting on a roof. He", " is ripping."},
        {"Seen.", "the Lady from NYC", "runs [step] off", "Label: Seen. The lady from nyc",
         " runs off"},
        {"How to fly [title] Wait.", "", "  a   b ", "Label: How to fly. Wait.", " a  b"},
        {"x [a[b] c] y", "", "[1] go [2]", "Label: x c] y", "  go "},
        {"open [ only", "", "a [b\\nc] d", "Label: open [ only", " a [b\nc] d"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena a = {0};
        struct err e = {0};
        char *line = xasprintf(
            "{\"activity_label\": \"Label\", \"ctx_a\": \"%s\", \"ctx_b\": \"%s\", \"ctx\": \"\", "
            "\"endings\": [\"%s\", \"b\", \"c\", \"d\"], \"label\": \"3\"}",
            rows[i].a, rows[i].b, rows[i].ending);
        struct task_item item = parse(TASK_hellaswag, line, &a, &e);
        cr_assert_eq(item.n_choices, 4, "%s", e.text);
        expect_text(item.context[0], rows[i].query);
        expect_text(item.context[3], rows[i].query);
        expect_text(item.continuation[0], rows[i].continuation);
        cr_expect_eq(item.gold, 3);
        xfree(line);
        arena_release(&a);
    }
}

Test(tasks, cleaned_hellaswag_records_are_taken_verbatim)
{
    struct arena a = {0};
    struct err e = {0};
    struct task_item item = parse(TASK_hellaswag,
                                  "{\"activity_label\": \"Label\", \"ctx\": \"A man. he  [x]\", "
                                  "\"endings\": [\"a  [b]\", \"b\", "
                                  "\"c\", \" d\"], \"label\": 0}",
                                  &a, &e);
    expect_text(item.context[0], "Label: A man. he  [x]");
    expect_text(item.continuation[0], " a  [b]");
    expect_text(item.continuation[3], "  d");
    cr_expect_eq(item.gold, 0);
    arena_release(&a);
}

Test(tasks, records_that_lack_something_are_errors_with_their_place)
{
    const struct {
        enum task task;
        const char *line, *expected;
    } rows[] = {
        {TASK_lambada, "{}", "\"text\""},
        {TASK_lambada, "{\"text\": 1}", "\"text\""},
        {TASK_lambada, "{\"text\": \"word\"}", "space"},
        {TASK_lambada, "{\"text\": \"two words \"}", "space"},
        {TASK_winogrande, "{\"sentence\": \"no blank\"}", "blank"},
        {TASK_winogrande, "{\"sentence\": \"a _ b\", \"option1\": \"x\"}", "option2"},
        {TASK_winogrande, "{\"sentence\": \"a _ b\", \"option1\": \"x\", \"option2\": \"y\"}",
         "answer"},
        {TASK_winogrande,
         "{\"sentence\": \"a _ b\", \"option1\": \"x\", \"option2\": \"y\", \"answer\": \"0\"}",
         "1 to 2"},
        {TASK_hellaswag,
         "{\"activity_label\": \"a\", \"ctx\": \"b\", \"endings\": [\"c\"], \"label\": 0}",
         "4 entries"},
        {TASK_hellaswag,
         "{\"activity_label\": \"a\", \"ctx\": \"b\", \"endings\": [\"c\",1,2,3], \"label\": 0}",
         "strings"},
        {TASK_hellaswag,
         "{\"activity_label\": \"a\", \"ctx\": \"b\", \"endings\": [\"c\",\"c\",\"c\",\"c\"], "
         "\"label\": \"\"}",
         "0 to 3"},
        {TASK_hellaswag,
         "{\"activity_label\": \"a\", \"ctx\": \"b\", \"endings\": [\"c\",\"c\",\"c\",\"c\"], "
         "\"label\": 4}",
         "0 to 3"},
        {TASK_hellaswag,
         "{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"endings\": [], \"label\": 4}", "ctx_b"},
        {TASK_piqa, "{\"goal\": \"g\", \"sol1\": \"s\"}", "sol2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena a = {0};
        struct err e = {0};
        cr_expect_eq(parse(rows[i].task, rows[i].line, &a, &e).n_choices, 0, "row %zu", i);
        cr_expect_eq(e.code, ERR_FORMAT, "row %zu", i);
        cr_expect(strstr(e.text, "f.jsonl:7") != NULL, "row %zu: %s", i, e.text);
        cr_expect(strstr(e.text, rows[i].expected) != NULL, "row %zu: %s", i, e.text);
        arena_release(&a);
    }
}

/* ---- text as Python sees it ---- */

Test(tasks, capitalize_does_what_python_does)
{
    const char *const rows[][2] = {
        {"the Lady from NYC", "The lady from nyc"},
        {"", ""},
        {"\u00e9COLE", "\u00c9cole"},
        {"\u01c6X", "\u01c5x"}, /* title case, not upper case */
        {"\u00dfA", "Ssa"},
        {"\ufb01X", "Fix"},
        {"A\u0130", "Ai\u0307"},
        {"\u0391\u03a3", "\u0391\u03c2"}, /* a final sigma */
        {"\u0391\u03a3\u0391", "\u0391\u03c3\u03b1"},
        {"\u03a3\u03a3 \u03a3", "\u03a3\u03c2 \u03c3"},
        {"1A", "1a"},
        {"\u0587 \u0531", "\u0535\u0582 \u0561"},
        {"\u1FE4X", "\u03A1\u0313x"},
        {"x\u0138\u03A3", "X\u0138\u03C2"}, /* U+0138 is cased without another case */
        {"1\u00AA\u03A3", "1\u00AA\u03C2"},
        {"A\uFF0E\u03A3", "A\uFF0E\u03C2"}, /* looked through */
        {"A-\u03A3", "A-\u03C3"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        text_capitalize(str_of(rows[i][0]), &out);
        expect_text((struct str){out.data, out.len}, rows[i][1]);
        buf_release(&out);
    }
}

Test(tasks, strip_knows_unicode_white_space)
{
    expect_text(text_strip(str_of(" \t\n\u00a0\u3000 a b\u2003\x1c ")), "a b");
    expect_text(text_strip(str_of("\u200b a")), "\u200b a"); /* zero width: no space */
    expect_text(text_strip(str_of("  \u2028")), "");
    expect_text(text_strip_right(str_of(" a\u2029")), " a");
    cr_expect_eq(text_count_chars(str_of("a\u00e9\u3000\U0001F600")), 4);
}

/* ---- metrics ---- */

static double metric(const struct job_result *r, const char *name)
{
    for (int i = 0; i < r->n_metrics; i++)
        if (strcmp(r->metrics[i].name, name) == 0)
            return r->metrics[i].value;
    cr_assert(false, "no metric %s", name);
    return NAN;
}

/* The set's lists; its other arrays are the test's own. */
static void release_lists(struct eval_set *s)
{
    tok_ids_release(&s->gold);
    tok_ids_release(&s->chars);
    tok_ids_release(&s->bytes);
    tok_ids_release(&s->n_scored);
}

static struct tok_ids ids_of(const int32_t *v, size_t n)
{
    struct tok_ids ids = {0};
    for (size_t i = 0; i < n; i++)
        tok_ids_push(&ids, v[i]);
    return ids;
}

Test(tasks, norms_divide_by_code_points_and_by_bytes)
{
    /* Item 1: by ll choice 0, by chars choice 1, by bytes choice 0. Item 2: a tie, which the first choice wins. */
    double ll[] = {-10, -11, -5, -5};
    const int32_t chars[] = {10, 12, 1, 1}, bytes[] = {12, 12, 1, 1}, gold[] = {1, 0},
                  scored[] = {3, 3, 1, 1};
    struct eval_request requests[4] = {{.n = 2, .n_scored = 1}};
    int64_t first[] = {0, 2, 4};
    struct eval_set set = {.task = TASK_piqa,
                           .n_choices = 2,
                           .n_items = 2,
                           .n_requests = 4,
                           .requests = requests,
                           .first = first,
                           .gold = ids_of(gold, 2),
                           .chars = ids_of(chars, 4),
                           .bytes = ids_of(bytes, 4),
                           .n_scored = ids_of(scored, 4)};
    struct eval_scores scores = {.ll = ll};
    struct job_result r = {0};
    struct arena a = {0};
    eval_score(&set, &scores, &r, &a);
    cr_expect_float_eq(metric(&r, "acc"), 0.5, 1e-12);
    cr_expect_float_eq(metric(&r, "acc_norm"), 1, 1e-12);
    cr_expect_float_eq(metric(&r, "acc_bytes"), 0.5, 1e-12);
    cr_expect_float_eq(r.metrics[0].stderr_, 0.5, 1e-12); /* sqrt(p (1 - p) / (n - 1)) */
    cr_expect_eq(r.per_item, 2);
    cr_expect_float_eq(r.samples[1], -11, 0);
    cr_expect_eq(r.items->items[0].chars[1], 12);
    cr_expect_eq(r.items->items[1].gold, 0);
    arena_release(&a);
    release_lists(&set);
}

Test(tasks, lambada_reports_greedy_accuracy_and_perplexity_per_word)
{
    double ll[] = {-1, -3, -2};
    uint8_t greedy[] = {1, 0, 1};
    const int32_t none[] = {-1, -1, -1}, ones[] = {1, 1, 1};
    struct eval_set set = {.task = TASK_lambada,
                           .n_choices = 1,
                           .n_items = 3,
                           .n_requests = 3,
                           .gold = ids_of(none, 3),
                           .chars = ids_of(ones, 3),
                           .bytes = ids_of(ones, 3),
                           .n_scored = ids_of(ones, 3)};
    struct eval_scores scores = {.ll = ll, .is_greedy = greedy};
    struct job_result r = {0};
    struct arena a = {0};
    eval_score(&set, &scores, &r, &a);
    cr_expect_float_eq(metric(&r, "acc"), 2.0 / 3, 1e-12);
    cr_expect_float_eq(metric(&r, "perplexity"), exp(2), 1e-12);
    cr_expect_float_eq(r.metrics[1].stderr_, exp(2) / sqrt(3),
                       1e-12); /* ppl * sd / sqrt(n), sd = 1 */
    cr_expect_eq(r.per_item, 2);
    cr_expect_float_eq(r.samples[5], 1, 0);
    arena_release(&a);
    release_lists(&set);
}

/* HellaSwag: which of four endings continues a caption. Original records (with ctx_a and ctx_b) are cleaned by the
 * published rules; cleaned copies (without ctx_a) are taken verbatim (evaluation spec, section 2). */
#include <string.h>

#include "worker/eval/items.h"
#include "worker/tok/text.h"

/* Appends `s` with every `from` replaced by `to`, in one pass from left to right. */
static void add_replaced(struct buf *out, struct str s, struct str from, struct str to)
{
    size_t i = 0;
    while (i < s.n) {
        bool is_hit = s.n - i >= from.n && memcmp(s.p + i, from.p, from.n) == 0;
        if (is_hit)
            buf_add(out, to.p, to.n);
        else
            buf_addc(out, s.p[i]);
        i += is_hit ? from.n : 1;
    }
}

/* Appends `s` without the shortest [...] spans that do not cross a line's end. */
static void add_without_brackets(struct buf *out, struct str s)
{
    size_t i = 0;
    while (i < s.n) {
        size_t end = i;
        if (s.p[i] == '[') {
            while (end < s.n && s.p[end] != ']' && s.p[end] != '\n')
                end++;
        }
        bool is_span = s.p[i] == '[' && end < s.n && s.p[end] == ']';
        if (!is_span)
            buf_addc(out, s.p[i]);
        i = is_span ? end + 1 : i + 1;
    }
}

/* clean() of the spec. Double spaces are halved in one pass, and what the steps leave at the ends stays. */
static struct str clean(struct arena *a, struct str text)
{
    struct buf titled = {0}, bare = {0}, out = {0};
    add_replaced(&titled, text_strip(text), STR(" [title]"), STR(". "));
    add_without_brackets(&bare, (struct str){titled.data, titled.len});
    add_replaced(&out, (struct str){bare.data, bare.len}, STR("  "), STR(" "));
    struct str kept = items_concat(a, (struct str){out.data, out.len}, STR(""));
    buf_release(&titled);
    buf_release(&bare);
    buf_release(&out);
    return kept;
}

static enum err_code original_query(const json_t *record, const char *where, struct str label,
                                    struct arena *a, struct str *out, struct err *e)
{
    struct str ctx_a = {0}, ctx_b = {0};
    TRY(items_need_text(record, "ctx_a", where, &ctx_a, e));
    TRY(items_need_text(record, "ctx_b", where, &ctx_b, e));
    struct buf query = {0};
    buf_add(&query, label.p, label.n);
    buf_adds(&query, ": ");
    buf_add(&query, ctx_a.p, ctx_a.n);
    buf_addc(&query, ' ');
    text_capitalize(ctx_b, &query);
    *out = clean(a, (struct str){query.data, query.len});
    buf_release(&query);
    return ERR_OK;
}

static enum err_code cleaned_query(const json_t *record, const char *where, struct str label,
                                   struct arena *a, struct str *out, struct err *e)
{
    struct str ctx = {0};
    TRY(items_need_text(record, "ctx", where, &ctx, e));
    *out = items_concat(a, items_concat(a, label, STR(": ")), ctx);
    return ERR_OK;
}

static enum err_code hellaswag_parse(const json_t *record, const char *where, struct arena *a,
                                     struct task_item *out, struct err *e)
{
    enum { N_ENDINGS = 4 };
    struct str label = {0}, query = {0};
    json_t *endings = NULL;
    bool is_original = json_object_get(record, "ctx_a") != NULL;
    TRY(items_need_text(record, "activity_label", where, &label, e));
    TRY((is_original ? original_query : cleaned_query)(record, where, label, a, &query, e));
    TRY(json_need_arr(record, "endings", where, &endings, e));
    if (json_array_size(endings) != N_ENDINGS)
        return err_set(e, ERR_FORMAT, "%s: \"endings\" must have %d entries, found %zu", where,
                       N_ENDINGS, json_array_size(endings));
    out->n_choices = N_ENDINGS;
    for (int i = 0; i < N_ENDINGS; i++) {
        const json_t *v = json_array_get(endings, (size_t)i);
        if (!json_is_string(v))
            return err_set(e, ERR_FORMAT, "%s: \"endings\" must be strings", where);
        struct str ending = {json_string_value(v), json_string_length(v)};
        out->context[i] = query;
        out->continuation[i] = items_concat(a, STR(" "), is_original ? clean(a, ending) : ending);
    }
    return items_need_gold(record, "label", where, 0, N_ENDINGS, &out->gold, e);
}

const struct task_ops task_ops_hellaswag = {
    .parse = hellaswag_parse,
    .score = items_score_normed_choice,
};

#include "worker/eval/windows.h"

#include <string.h>

#include "worker/eval/items.h"
#include "worker/eval/requests.h"
#include "worker/tok/text.h"

static bool is_wanted(const struct eval_source *src, const json_t *record)
{
    const char *subset = src->spec->subset;
    const char *name = json_opt_str(json_object_get(record, "meta"), "pile_set_name", "");
    return subset == NULL || strcmp(subset, name) == 0;
}

enum err_code windows_next_document(const struct eval_source *src, struct data_reader *r,
                                    json_t **record, struct str *text, struct err *e)
{
    for (;;) {
        TRY(data_next_record(r, record, e));
        if (*record == NULL)
            return ERR_OK;
        if (is_wanted(src, *record))
            break;
        json_decref(*record);
    }
    enum err_code rc = items_need_text(*record, "text", data_where(r), text, e);
    if (rc != ERR_OK)
        json_decref(*record);
    return rc;
}

static enum err_code join_documents(const struct eval_source *src, struct data_reader *r,
                                    struct buf *out, struct err *e)
{
    out->max = (size_t)1 << 30;
    for (bool is_first = true;; is_first = false) {
        json_t *record = NULL;
        struct str text = {0};
        TRY(windows_next_document(src, r, &record, &text, e));
        if (record == NULL)
            return ERR_OK;
        bool is_room =
            (is_first || buf_try_add(out, "\n\n", 2)) && buf_try_add(out, text.p, text.n);
        json_decref(record);
        if (!is_room)
            return err_set(e, ERR_FORMAT, "%s: more than 1 GiB of text; use the rolling method",
                           data_where(r));
    }
}

enum err_code windows_read(const struct eval_source *src, struct data_reader *r,
                           struct eval_set *set, struct err *e)
{
    const struct eval_spec *spec = src->spec;
    struct buf text = {0};
    enum err_code rc =
        data_is_jsonl(spec->data) ? join_documents(src, r, &text, e) : data_read_rest(r, &text, e);
    if (rc == ERR_OK)
        rc = requests_encode(src, (struct str){text.data, text.len}, &set->tokens, e);
    buf_release(&text);
    return rc == ERR_OK ? ERR_OK : err_wrap(e, "%s", spec->data_path);
}

enum err_code windows_add(const struct eval_source *src, struct eval_set *set, int32_t window,
                          int64_t limit, struct err *e)
{
    int64_t n = (int64_t)set->tokens.n / window;
    if (limit != 0 && limit < n)
        n = limit;
    if (n == 0)
        return err_set(e, ERR_FORMAT,
                       "%s: %zu tokens do not fill one window of %d; use a smaller one",
                       src->spec->data_path, set->tokens.n, window);
    struct buf text = {0};
    for (int64_t i = 0; i < n; i++) {
        size_t at = (size_t)(i * window);
        buf_reset(&text);
        tok_decode(src->tok, set->tokens.v + at + 1, (size_t)window - 1, &text);
        requests_begin_item(set, -1);
        requests_add_span(set, at, window, window - 1);
        requests_add_choice(set, text_count_chars((struct str){text.data, text.len}),
                            (int64_t)text.len, window - 1);
    }
    buf_release(&text);
    return ERR_OK;
}

/* WinoGrande with partial evaluation: the text after the blank is scored behind each of the two fillings; the same
 * continuation for both, so there is nothing to normalize. */
#include <string.h>

#include "worker/eval/items.h"
#include "worker/tok/text.h"

static enum err_code winogrande_parse(const json_t *record, const char *where, struct arena *a,
                                      struct task_item *out, struct err *e)
{
    static const char *const options[] = {"option1", "option2"};
    struct str sentence = {0};
    TRY(items_need_text(record, "sentence", where, &sentence, e));
    const char *blank = memchr(sentence.p, '_', sentence.n);
    if (blank == NULL)
        return err_set(e, ERR_FORMAT, "%s: \"sentence\" must have a blank, written _", where);
    struct str before = {sentence.p, (size_t)(blank - sentence.p)};
    struct str after = text_strip((struct str){blank + 1, sentence.n - before.n - 1});
    out->n_choices = 2;
    for (int i = 0; i < 2; i++) {
        struct str option = {0};
        TRY(items_need_text(record, options[i], where, &option, e));
        out->context[i] = items_concat(a, before, option);
        out->continuation[i] = items_concat(a, STR(" "), after);
    }
    return items_need_gold(record, "answer", where, 1, 2, &out->gold, e);
}

const struct task_ops task_ops_winogrande = {
    .parse = winogrande_parse,
    .score = items_score_choice,
};

/* PIQA: two ways to reach a goal, taken raw (some end in spaces). Labels stand in a file beside the data. */
#include "worker/eval/items.h"

static enum err_code piqa_parse(const json_t *record, const char *where, struct arena *a,
                                struct task_item *out, struct err *e)
{
    static const char *const solutions[] = {"sol1", "sol2"};
    struct str goal = {0};
    TRY(items_need_text(record, "goal", where, &goal, e));
    struct str question = items_concat(a, STR("Question: "), goal);
    out->n_choices = 2;
    for (int i = 0; i < 2; i++) {
        struct str solution = {0};
        TRY(items_need_text(record, solutions[i], where, &solution, e));
        out->context[i] = items_concat(a, question, STR("\nAnswer:"));
        out->continuation[i] = items_concat(a, STR(" "), solution);
    }
    return ERR_OK;
}

const struct task_ops task_ops_piqa = {
    .has_labels_file = true,
    .parse = piqa_parse,
    .score = items_score_normed_choice,
};

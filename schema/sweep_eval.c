/* Evaluations of a spec. */
#include <string.h>

#include "base/io.h"
#include "schema/sweep_node.h"

/* The value of a labelled key; *out stays when the key is absent. */
static enum err_code opt_label(const struct spec_source *src, const struct node *map,
                               const char *key, const char *const *labels, int n_labels, int *out,
                               struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return ERR_OK;
    TRY(node_need_scalar(src, n, key, e));
    struct buf list = {0};
    for (int i = 0; i < n_labels; i++) {
        if (strcmp(labels[i], n->text) == 0) {
            buf_release(&list);
            *out = i;
            return ERR_OK;
        }
        buf_printf(&list, "%s%s", i == 0 ? "" : ", ", labels[i]);
    }
    enum err_code rc =
        spec_error(src, n->mark, e, "%s: expected one of %s, not \"%.40s\"%s", key, list.data,
                   n->text, spec_suggest(n->text, labels, n_labels, src->arena));
    buf_release(&list);
    return rc;
}

static enum err_code read_task(const struct spec_source *src, const struct node *map,
                               struct eval_spec *ev, struct err *e)
{
    const char *labels[TASK_COUNT];
    for (int i = 0; i < TASK_COUNT; i++)
        labels[i] = task_label((enum task)i);
    const struct node *n = NULL;
    TRY(node_need_text(src, map, "task", &n, e));
    int task = 0;
    TRY(opt_label(src, map, "task", labels, TASK_COUNT, &task, e));
    ev->task = (enum task)task;
    return ERR_OK;
}

static enum err_code read_data(const struct spec_source *src, const struct node *map,
                               const char *dir, struct eval_spec *ev, struct err *e)
{
    const struct node *n = NULL;
    TRY(node_need_text(src, map, "data", &n, e));
    ev->data = n->text;
    char *full = io_join(dir, n->text);
    ev->data_path = arena_strdup(src->arena, full);
    xfree(full);
    return ERR_OK;
}

/* `window: context` is the model's context, as if it were absent. */
static enum err_code read_window(const struct spec_source *src, const struct node *map,
                                 struct eval_spec *ev, struct err *e)
{
    const struct node *n = node_find(map, "window");
    if (n != NULL && n->kind == NODE_SCALAR && strcmp(n->text, "context") == 0)
        return ERR_OK;
    if (n != NULL && n->kind == NODE_SCALAR && n->text[0] != '\0' &&
        strspn(n->text, "0123456789") != strlen(n->text))
        return spec_error(src, n->mark, e,
                          "window: expected a number of tokens from 2, or context, not \"%.40s\"",
                          n->text);
    return node_opt_int(src, map, "window", 2, &ev->window, e);
}

/* A key that would have no effect is an error: nothing a spec says is silently ignored. */
static enum err_code refuse_key(const struct spec_source *src, const struct node *map,
                                const char *key, const char *why, struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return ERR_OK;
    return spec_error(src, n->key_mark, e, "%s has no effect on %s; remove it", key, why);
}

static enum err_code read_perplexity(const struct spec_source *src, const struct node *map,
                                     struct eval_spec *ev, struct err *e)
{
    static const char *const perplexity_keys[] = {"subset", "method", "window", "max_tokens"};
    if (ev->task != TASK_perplexity) {
        char *why = arena_printf(src->arena, "task %s, only on perplexity", task_label(ev->task));
        for (size_t i = 0; i < ARRAY_LEN(perplexity_keys); i++)
            TRY(refuse_key(src, map, perplexity_keys[i], why, e));
        if (ev->task == TASK_weight_std)
            return refuse_key(src, map, "join", "task weight-std, which joins nothing", e);
        return ERR_OK;
    }
    const char *labels[METHOD_COUNT];
    for (int i = 0; i < METHOD_COUNT; i++)
        labels[i] = method_label((enum method)i);
    int method = eval_default_method(ev->data);
    TRY(opt_label(src, map, "method", labels, METHOD_COUNT, &method, e));
    ev->method = (enum method)method;
    TRY(read_window(src, map, ev, e));
    TRY(node_opt_int(src, map, "max_tokens", 2, &ev->max_tokens, e));
    if (eval_default_method(ev->data) == METHOD_STRIDED)
        TRY(refuse_key(src, map, "subset", "plain text, which has no subsets", e));
    if (ev->method == METHOD_STRIDED)
        TRY(refuse_key(src, map, "join", "method strided, which joins nothing", e));
    const struct node *subset = node_find(map, "subset");
    if (subset == NULL)
        return ERR_OK;
    TRY(node_need_text(src, map, "subset", &subset, e));
    ev->subset = subset->text;
    return ERR_OK;
}

static enum err_code read_eval(const struct spec_source *src, const struct node *map,
                               const char *dir, struct sweep_eval *out, struct err *e)
{
    static const char *const keys[] = {"name",   "task", "data",   "limit",      "subset",
                                       "method", "join", "window", "max_tokens", "bos"};
    TRY(node_check_keys(src, map, "an evaluation", keys, ARRAY_LEN(keys), e));
    struct eval_spec *ev = &out->spec;
    out->mark = map->mark;
    TRY(read_task(src, map, ev, e));
    TRY(read_data(src, map, dir, ev, e));
    ev->name = task_label(ev->task);
    if (node_find(map, "name") != NULL) {
        const struct node *n = NULL;
        TRY(node_need_text(src, map, "name", &n, e));
        ev->name = n->text;
    }
    const char *joins[JOIN_COUNT];
    for (int i = 0; i < JOIN_COUNT; i++)
        joins[i] = join_label((enum join)i);
    int join = JOIN_H26;
    TRY(opt_label(src, map, "join", joins, JOIN_COUNT, &join, e));
    ev->join = (enum join)join;
    TRY(node_opt_int(src, map, "limit", 1, &ev->limit, e));
    TRY(node_opt_bool(src, map, "bos", &ev->bos, e));
    return read_perplexity(src, map, ev, e);
}

/* The same number under whatever name: the keys are equal. */
static bool is_same_meaning(const struct eval_spec *a, const struct eval_spec *b)
{
    struct arena scratch = {0};
    bool is_same = strcmp(key_of_eval(a, &scratch), key_of_eval(b, &scratch)) == 0;
    arena_release(&scratch);
    return is_same;
}

static enum err_code add_eval(const struct spec_source *src, struct sweep_spec *out,
                              const struct sweep_eval *ev, struct err *e)
{
    for (int i = 0; i < out->n_evals; i++) {
        const struct sweep_eval *old = &out->evals[i];
        bool is_same_name = strcmp(old->spec.name, ev->spec.name) == 0;
        bool is_same = is_same_meaning(&old->spec, &ev->spec);
        if (is_same_name && is_same)
            return ERR_OK; /* counted once */
        if (is_same_name)
            return spec_error(
                src, ev->mark, e,
                "the evaluation \"%.60s\" means something else in line %d; give one of "
                "them another name:",
                ev->spec.name, old->mark.line);
        if (is_same)
            return spec_error(
                src, ev->mark, e,
                "\"%.60s\" is the same evaluation as \"%.60s\" in line %d; remove one",
                ev->spec.name, old->spec.name, old->mark.line);
    }
    out->evals[out->n_evals++] = *ev;
    return ERR_OK;
}

enum err_code sweep_spec_read_evals(const struct spec_source *src, const struct node *root,
                                    const char *dir, struct sweep_spec *out, struct err *e)
{
    const struct node *list = NULL;
    TRY(node_need_list(src, root, "evaluations", &list, e));
    if (list->n > SPEC_EVALS_MAX)
        return spec_error(src, list->mark, e, "more than %d evaluations", SPEC_EVALS_MAX);
    out->evals = arena_array(src->arena, (size_t)list->n, sizeof(*out->evals));
    for (const struct node *n = list->first; n != NULL; n = n->next) {
        struct sweep_eval ev = {0};
        TRY(read_eval(src, n, dir, &ev, e));
        TRY(add_eval(src, out, &ev, e));
    }
    return ERR_OK;
}

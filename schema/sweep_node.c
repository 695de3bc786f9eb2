#include "schema/sweep_node.h"

#include <string.h>

const struct node *node_find(const struct node *map, const char *key)
{
    for (const struct node *m = map->first; m != NULL; m = m->next) {
        if (strcmp(m->key, key) == 0)
            return m;
    }
    return NULL;
}

static const char *kind_name(const struct node *n)
{
    switch (n->kind) {
    case NODE_SCALAR:
        return "a single value";
    case NODE_LIST:
        return "a list";
    case NODE_MAP:
        return "a map";
    }
    return "";
}

static enum err_code unknown_key(const struct spec_source *src, const struct node *m,
                                 const char *what, const char *const *keys, size_t n_keys,
                                 struct err *e)
{
    const char *near = spec_suggest(m->key, keys, (int)n_keys, src->arena);
    if (near[0] != '\0')
        return spec_error(src, m->key_mark, e, "%s has no key \"%.60s\"%s", what, m->key, near);
    struct buf list = {0};
    for (size_t i = 0; i < n_keys; i++)
        buf_printf(&list, "%s%s", i == 0 ? "" : ", ", keys[i]);
    enum err_code rc = spec_error(src, m->key_mark, e, "%s has no key \"%.60s\"; its keys are %s",
                                  what, m->key, list.data);
    buf_release(&list);
    return rc;
}

enum err_code node_check_keys(const struct spec_source *src, const struct node *map,
                              const char *what, const char *const *keys, size_t n_keys,
                              struct err *e)
{
    if (map->kind != NODE_MAP)
        return spec_error(src, map->mark, e, "%s must be a map of keys and values, not %s", what,
                          kind_name(map));
    for (const struct node *m = map->first; m != NULL; m = m->next) {
        bool is_known = false;
        for (size_t i = 0; i < n_keys && !is_known; i++)
            is_known = strcmp(m->key, keys[i]) == 0;
        if (!is_known)
            return unknown_key(src, m, what, keys, n_keys, e);
    }
    return ERR_OK;
}

enum err_code node_need_scalar(const struct spec_source *src, const struct node *n, const char *key,
                               struct err *e)
{
    if (n->kind != NODE_SCALAR)
        return spec_error(src, n->mark, e, "%s: expected a single value, not %s", key,
                          kind_name(n));
    return ERR_OK;
}

enum err_code node_need_text(const struct spec_source *src, const struct node *map, const char *key,
                             const struct node **out, struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return spec_error(src, map->mark, e, "the key %s is missing here; add `%s:`", key, key);
    TRY(node_need_scalar(src, n, key, e));
    if (n->text[0] == '\0')
        return spec_error(src, n->mark, e, "%s: expected text, and there is none", key);
    *out = n;
    return ERR_OK;
}

enum err_code node_need_list(const struct spec_source *src, const struct node *map, const char *key,
                             const struct node **out, struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return spec_error(src, map->mark, e, "the key %s is missing; add `%s:` and a list below it",
                          key, key);
    if (n->kind != NODE_LIST || n->n == 0)
        return spec_error(src, n->mark, e,
                          "%s: expected a list with at least one entry, each after `- `", key);
    *out = n;
    return ERR_OK;
}

enum err_code node_opt_int(const struct spec_source *src, const struct node *map, const char *key,
                           int64_t min, int64_t *out, struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return ERR_OK;
    TRY(node_need_scalar(src, n, key, e));
    const int64_t max = INT64_C(1) << 40;
    int64_t v = 0;
    if (!parse_i64(str_of(n->text), &v) || v < min || v > max)
        return spec_error(src, n->mark, e, "%s: expected a whole number from %lld, not \"%.40s\"",
                          key, (long long)min, n->text);
    *out = v;
    return ERR_OK;
}

enum err_code node_opt_bool(const struct spec_source *src, const struct node *map, const char *key,
                            bool *out, struct err *e)
{
    const struct node *n = node_find(map, key);
    if (n == NULL)
        return ERR_OK;
    TRY(node_need_scalar(src, n, key, e));
    bool is_true = strcmp(n->text, "true") == 0;
    if (!is_true && strcmp(n->text, "false") != 0)
        return spec_error(src, n->mark, e, "%s: expected true or false, not \"%.40s\"", key,
                          n->text);
    *out = is_true;
    return ERR_OK;
}

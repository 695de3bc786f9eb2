/* YAML text -> tree, over libyaml's events. The only file that includes yaml.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "schema/sweep_spec.h"

/* Far more than any spec needs; they bound what a hostile one can cost. */
enum { DEPTH_MAX = 16, NODES_MAX = 200000, MAP_KEYS_MAX = 64, SPEC_BYTES_MAX = 4 << 20 };

struct builder {
    const struct spec_source *src;
    struct str text;
    yaml_parser_t parser;
    struct node *open[DEPTH_MAX]; /* lists and maps not yet closed, outermost first */
    struct node *last[DEPTH_MAX]; /* last member of each */
    const char *key[DEPTH_MAX];   /* key read, value outstanding */
    struct sweep_mark key_mark[DEPTH_MAX];
    int depth;
    int n_nodes;
    struct node *root;
};

enum err_code spec_error(const struct spec_source *src, struct sweep_mark mark, struct err *e,
                         const char *fmt, ...)
{
    char text[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(e, ERR_FORMAT, "%s:%d:%d: %s", src->path, mark.line, mark.column, text);
}

static struct sweep_mark mark_of(yaml_mark_t m)
{
    return (struct sweep_mark){(int)m.line + 1, (int)m.column + 1};
}

static struct sweep_mark mark_of_offset(struct str text, size_t offset)
{
    struct sweep_mark m = {1, 1};
    for (size_t i = 0; i < offset && i < text.n; i++) {
        m.line += text.p[i] == '\n';
        m.column = text.p[i] == '\n' ? 1 : m.column + 1;
    }
    return m;
}

static enum err_code syntax_error(const struct builder *b, struct err *e)
{
    const yaml_parser_t *p = &b->parser;
    const char *problem = p->problem != NULL ? p->problem : "it cannot be read";
    if (p->error == YAML_READER_ERROR)
        return spec_error(b->src, mark_of_offset(b->text, p->problem_offset), e,
                          "not UTF-8 text: %s; save the spec as UTF-8", problem);
    size_t at = p->problem_mark.index;
    if (at < b->text.n && b->text.p[at] == '\t')
        return spec_error(b->src, mark_of(p->problem_mark), e,
                          "a tab stands where YAML wants spaces; indent with spaces");
    return spec_error(b->src, mark_of(p->problem_mark), e, "not valid YAML: %s%s%s", problem,
                      p->context != NULL ? " " : "", p->context != NULL ? p->context : "");
}

/* {family} and {size} may stand unquoted in a path, also inside {…}, where YAML gives braces another meaning.
 * The reader is therefore shown <family> and <size>, which take the same room, so that places in errors stay
 * right; the tree gets the braces back. Neither word alone in braces means anything else in a spec. */
static void rewrite_placeholders(char *text, size_t n, const char *const from[2],
                                 const char *const to[2])
{
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(from[i]);
        for (char *p = memmem(text, n, from[i], len); p != NULL;
             p = memmem(p, n - (size_t)(p - text), from[i], len))
            memcpy(p, to[i], len);
    }
}

static const char *const in_braces[2] = {"{family}", "{size}"};
static const char *const in_angles[2] = {"<family>", "<size>"};

/* A scalar in a map with no key outstanding is the next key. */
static bool is_key_expected(const struct builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1]->kind == NODE_MAP && b->key[b->depth - 1] == NULL;
}

static enum err_code take_key(struct builder *b, const char *text, struct sweep_mark mark,
                              struct err *e)
{
    const struct node *map = b->open[b->depth - 1];
    for (const struct node *m = map->first; m != NULL; m = m->next) {
        if (strcmp(m->key, text) == 0)
            return spec_error(b->src, mark, e,
                              "the key %.40s stands a second time (first in line %d); keep one",
                              text, m->key_mark.line);
    }
    if (map->n >= MAP_KEYS_MAX)
        return spec_error(b->src, mark, e, "more than %d keys in one map", MAP_KEYS_MAX);
    b->key[b->depth - 1] = text;
    b->key_mark[b->depth - 1] = mark;
    return ERR_OK;
}

static enum err_code add_node(struct builder *b, enum node_kind kind, struct sweep_mark mark,
                              const char *text, struct err *e)
{
    if (++b->n_nodes > NODES_MAX)
        return spec_error(b->src, mark, e, "more than %d values in one spec", NODES_MAX);
    struct node *n = arena_alloc(b->src->arena, sizeof(*n));
    *n = (struct node){.kind = kind, .mark = mark, .text = text};
    if (b->depth == 0) {
        b->root = n;
    } else {
        int d = b->depth - 1;
        n->key = b->key[d];
        n->key_mark = b->key_mark[d];
        b->key[d] = NULL;
        if (b->last[d] != NULL)
            b->last[d]->next = n;
        else
            b->open[d]->first = n;
        b->last[d] = n;
        b->open[d]->n++;
    }
    if (kind != NODE_SCALAR) {
        if (b->depth == DEPTH_MAX)
            return spec_error(b->src, mark, e, "nested more than %d deep", DEPTH_MAX);
        b->open[b->depth] = n;
        b->last[b->depth] = NULL;
        b->key[b->depth] = NULL;
        b->depth++;
    }
    return ERR_OK;
}

static enum err_code check_plain(const struct builder *b, const yaml_char_t *anchor,
                                 const yaml_char_t *tag, struct sweep_mark mark, struct err *e)
{
    if (anchor != NULL)
        return spec_error(b->src, mark, e,
                          "the anchor &%.40s: a spec has no anchors; repeat the value",
                          (const char *)anchor);
    if (tag != NULL)
        return spec_error(b->src, mark, e,
                          "the tag %.40s: a spec has no tags; write the plain value",
                          (const char *)tag);
    return ERR_OK;
}

static enum err_code take_scalar(struct builder *b, const yaml_event_t *ev, struct err *e)
{
    struct sweep_mark mark = mark_of(ev->start_mark);
    TRY(check_plain(b, ev->data.scalar.anchor, ev->data.scalar.tag, mark, e));
    char *text =
        arena_strndup(b->src->arena, (const char *)ev->data.scalar.value, ev->data.scalar.length);
    if (strlen(text) != ev->data.scalar.length)
        return spec_error(b->src, mark, e, "a NUL character inside a value; remove it");
    rewrite_placeholders(text, ev->data.scalar.length, in_angles, in_braces);
    return is_key_expected(b) ? take_key(b, text, mark, e)
                              : add_node(b, NODE_SCALAR, mark, text, e);
}

static enum err_code take_open(struct builder *b, const yaml_event_t *ev, struct err *e)
{
    struct sweep_mark mark = mark_of(ev->start_mark);
    bool is_map = ev->type == YAML_MAPPING_START_EVENT;
    TRY(check_plain(b, is_map ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor,
                    is_map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag, mark, e));
    if (is_key_expected(b))
        return spec_error(b->src, mark, e, "a list or map stands where a key is expected");
    return add_node(b, is_map ? NODE_MAP : NODE_LIST, mark, NULL, e);
}

static enum err_code take_event(struct builder *b, const yaml_event_t *ev, struct err *e)
{
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        return take_scalar(b, ev, e);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return take_open(b, ev, e);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return ERR_OK;
    case YAML_ALIAS_EVENT:
        return spec_error(b->src, mark_of(ev->start_mark), e,
                          "the alias *%.40s: a spec has no aliases; repeat the value",
                          (const char *)ev->data.alias.anchor);
    case YAML_DOCUMENT_START_EVENT:
        if (b->root != NULL)
            return spec_error(b->src, mark_of(ev->start_mark), e,
                              "a second document begins; a spec is one document, keep one a file");
        return ERR_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return ERR_OK;
    }
    return ERR_OK;
}

static enum err_code build(struct builder *b, struct err *e)
{
    for (bool is_end = false; !is_end;) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&b->parser, &ev))
            return syntax_error(b, e);
        is_end = ev.type == YAML_STREAM_END_EVENT;
        enum err_code rc = take_event(b, &ev, e);
        yaml_event_delete(&ev);
        TRY(rc);
    }
    if (b->root == NULL)
        return spec_error(b->src, (struct sweep_mark){1, 1}, e,
                          "the spec is empty; it needs models, configurations and evaluations");
    return ERR_OK;
}

enum err_code sweep_yaml_parse(const struct spec_source *src, struct str text, struct node **root,
                               struct err *e)
{
    if (text.n > SPEC_BYTES_MAX)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes; a sweep spec has at most %d", src->path,
                       text.n, SPEC_BYTES_MAX);
    char *shown = arena_strndup(src->arena, text.p != NULL ? text.p : "", text.n);
    rewrite_placeholders(shown, text.n, in_braces, in_angles);
    struct builder b = {.src = src, .text = {shown, text.n}};
    if (!yaml_parser_initialize(&b.parser))
        return err_set(e, ERR_NOMEM, "%s: no memory for the YAML parser", src->path);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)shown, text.n);
    enum err_code rc = build(&b, e);
    yaml_parser_delete(&b.parser);
    if (rc == ERR_OK)
        *root = b.root;
    return rc;
}

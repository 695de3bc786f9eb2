#include "worker/tok/tok_added.h"

#include <string.h>

#include "base/mem.h"
#include "worker/tok/tok_unicode.h"

enum { NONE = -1 };

/* Children of a node are a list through `sibling`; only the first byte is looked up by index. */
struct trie_node {
    int32_t child, sibling; /* NONE ends the list */
    int32_t token;          /* NONE: no token ends here */
    unsigned char byte;
};

struct added {
    int32_t first[256]; /* node of a token's first byte */
    struct trie_node *nodes;
    size_t n_nodes, nodes_cap;
    struct added_token *tokens;
    size_t n_tokens, tokens_cap;
};

struct added *added_new(void)
{
    struct added *a = xcalloc(1, sizeof(*a));
    for (size_t i = 0; i < ARRAY_LEN(a->first); i++)
        a->first[i] = NONE;
    return a;
}

void added_free(struct added *a)
{
    if (a == NULL)
        return;
    xfree(a->nodes);
    xfree(a->tokens);
    xfree(a);
}

static int32_t new_node(struct added *a, unsigned char byte)
{
    if (a->n_nodes == a->nodes_cap) {
        a->nodes_cap = a->nodes_cap * 2 + 64;
        a->nodes = xrealloc(a->nodes, a->nodes_cap * sizeof(*a->nodes));
    }
    a->nodes[a->n_nodes] = (struct trie_node){NONE, NONE, NONE, byte};
    return (int32_t)a->n_nodes++;
}

static int32_t find_child(const struct added *a, int32_t node, unsigned char byte)
{
    int32_t i = a->nodes[node].child;
    while (i != NONE && a->nodes[i].byte != byte)
        i = a->nodes[i].sibling;
    return i;
}

static int32_t find_or_add_child(struct added *a, int32_t node, unsigned char byte)
{
    int32_t found = find_child(a, node, byte);
    if (found != NONE)
        return found;
    int32_t child = new_node(a, byte);
    a->nodes[child].sibling = a->nodes[node].child;
    a->nodes[node].child = child;
    return child;
}

static int32_t new_token(struct added *a, struct added_token token)
{
    if (a->n_tokens == a->tokens_cap) {
        a->tokens_cap = a->tokens_cap * 2 + 16;
        a->tokens = xrealloc(a->tokens, a->tokens_cap * sizeof(*a->tokens));
    }
    a->tokens[a->n_tokens] = token;
    return (int32_t)a->n_tokens++;
}

enum err_code added_insert(struct added *a, struct str text, struct added_token token,
                           struct err *e)
{
    if (text.n == 0 || text.n > ADDED_MAX_BYTES)
        return err_set(e, ERR_FORMAT, "an added token has %zu bytes, expected 1 to %d", text.n,
                       (int)ADDED_MAX_BYTES);
    if (a->n_nodes + text.n > ADDED_MAX_TOTAL)
        return err_set(e, ERR_FORMAT, "the added tokens have more than %d bytes",
                       (int)ADDED_MAX_TOTAL);
    unsigned char first = (unsigned char)text.p[0];
    if (a->first[first] == NONE)
        a->first[first] = new_node(a, first);
    int32_t node = a->first[first];
    for (size_t i = 1; i < text.n; i++)
        node = find_or_add_child(a, node, (unsigned char)text.p[i]);
    if (a->nodes[node].token == NONE)
        a->nodes[node].token = new_token(a, token);
    return ERR_OK;
}

/* The longest token that starts at `at`; NULL for none. */
static const struct added_token *match_at(const struct added *a, struct str text, size_t at,
                                          size_t *end)
{
    const struct added_token *best = NULL;
    int32_t node = a->first[(unsigned char)text.p[at]];
    while (node != NONE) {
        at++;
        if (a->nodes[node].token != NONE) {
            best = &a->tokens[a->nodes[node].token];
            *end = at;
        }
        node = at < text.n ? find_child(a, node, (unsigned char)text.p[at]) : NONE;
    }
    return best;
}

static const struct added_token *next_match(const struct added *a, struct str text, size_t from,
                                            size_t *start, size_t *end)
{
    if (a->n_tokens == 0)
        return NULL;
    for (size_t i = from; i < text.n; i++) {
        const struct added_token *t = match_at(a, text, i, end);
        if (t != NULL) {
            *start = i;
            return t;
        }
    }
    return NULL;
}

static struct str part(struct str text, size_t from, size_t to)
{
    return (struct str){text.p + from, to - from};
}

static bool stands_alone(struct str text, size_t start, size_t end)
{
    return !uni_ends_in_word(part(text, 0, start)) && !uni_starts_in_word(part(text, end, text.n));
}

/* End of the token with the white space it takes. A later token may start inside white space that is already
 * taken: the run is not walked again, so that a long one costs linear time. */
static size_t end_with_spaces(struct str text, size_t end, struct added_cursor *c)
{
    if (end >= c->spaces_end)
        c->spaces_end = end + uni_spaces_at_start(part(text, end, text.n));
    return c->spaces_end;
}

/* The next match that counts, with the white space behind that it takes. */
static const struct added_token *next_token(const struct added *a, struct str text,
                                            struct added_cursor *c, size_t *start, size_t *end)
{
    for (;;) {
        const struct added_token *t = next_match(a, text, c->search, start, end);
        if (t == NULL)
            return NULL;
        c->search = *end; /* also behind a match that is then given up */
        if (t->is_single_word && !stands_alone(text, *start, *end))
            continue;
        if (t->strips_right)
            *end = end_with_spaces(text, *end, c);
        /* Inside white space that the token before has taken, nothing is left of one that strips to its left;
         * one that does not is a token all the same. */
        if (!t->strips_left || *end > c->done)
            return t;
    }
}

bool added_next(const struct added *a, struct str text, struct added_cursor *c, struct str *gap,
                int32_t *id)
{
    size_t start = 0;
    size_t end = 0;
    const struct added_token *t = next_token(a, text, c, &start, &end);
    if (t == NULL) {
        *gap = c->done < text.n ? part(text, c->done, text.n) : (struct str){text.p, 0};
        *id = NONE;
        c->done = c->search = text.n;
        return gap->n > 0;
    }
    if (t->strips_left && start > c->done)
        start -= uni_spaces_at_end(part(text, c->done, start));
    *gap = start > c->done ? part(text, c->done, start) : (struct str){text.p, 0};
    *id = t->id;
    c->done = end;
    return true;
}

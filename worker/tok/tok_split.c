#include "worker/tok/tok_split.h"

#include <string.h>

#include "base/mem.h"
#include "worker/tok/tok_bytemap.h"
#include "worker/tok/tok_regex.h"

enum { MAX_STAGES = 32 };

enum stage_kind { STAGE_REGEX, STAGE_PREFIX_SPACE, STAGE_BYTEMAP };

struct stage {
    enum stage_kind kind;
    struct tok_regex *regex; /* STAGE_REGEX */
    enum split_behavior behavior;
    bool is_inverted;
};

struct pieces {
    struct str *v;
    size_t n, cap;
};

struct split {
    struct stage stages[MAX_STAGES];
    int n_stages;
    bool is_mapped;        /* one of the stages is STAGE_BYTEMAP */
    struct pieces in, out; /* of the stage that runs */
    struct arena text;     /* pieces that are not parts of the caller's text */
};

struct split *split_new(void)
{
    return xcalloc(1, sizeof(struct split));
}

void split_free(struct split *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->n_stages; i++)
        tok_regex_free(s->stages[i].regex);
    xfree(s->in.v);
    xfree(s->out.v);
    arena_release(&s->text);
    xfree(s);
}

static enum err_code add_stage(struct split *s, struct stage stage, struct err *e)
{
    if (s->n_stages == MAX_STAGES) {
        tok_regex_free(stage.regex);
        return err_set(e, ERR_UNSUPPORTED, "more than %d pre-tokenizer steps", (int)MAX_STAGES);
    }
    s->stages[s->n_stages++] = stage;
    return ERR_OK;
}

enum err_code split_add_regex(struct split *s, struct str pattern, enum split_behavior behavior,
                              bool is_inverted, struct err *e)
{
    struct stage stage = {STAGE_REGEX, .behavior = behavior, .is_inverted = is_inverted};
    TRY(tok_regex_new(pattern, &stage.regex, e));
    return add_stage(s, stage, e);
}

enum err_code split_add_prefix_space(struct split *s, struct err *e)
{
    return add_stage(s, (struct stage){.kind = STAGE_PREFIX_SPACE}, e);
}

enum err_code split_add_bytemap(struct split *s, struct err *e)
{
    s->is_mapped = true;
    return add_stage(s, (struct stage){.kind = STAGE_BYTEMAP}, e);
}

static void pieces_push(struct pieces *p, struct str piece)
{
    if (p->n == p->cap) {
        p->cap = p->cap * 2 + 64;
        p->v = xrealloc(p->v, p->cap * sizeof(*p->v));
    }
    p->v[p->n++] = piece;
}

/* The parts of one piece in order, matches and what lies between them, as they fall together under a behavior. */
struct joiner {
    struct pieces *out;
    enum split_behavior behavior;
    struct str open; /* joined so far, not yet pushed; n == 0: nothing */
    bool was_match;  /* of the last part */
};

static void close_piece(struct joiner *j)
{
    if (j->open.n > 0)
        pieces_push(j->out, j->open);
    j->open.n = 0;
}

/* Whether a part continues the open piece. MERGED_WITH_NEXT looks at the part before: a match takes in the text
 * behind it, but of several matches in a row only the last does; MERGED_WITH_PREVIOUS is its mirror image. */
static bool continues(const struct joiner *j, bool is_match)
{
    switch (j->behavior) {
    case SPLIT_ISOLATED:
    case SPLIT_REMOVED:
        return false;
    case SPLIT_MERGED_WITH_PREVIOUS:
        return is_match && !j->was_match;
    case SPLIT_MERGED_WITH_NEXT:
        return !is_match && j->was_match;
    case SPLIT_CONTIGUOUS:
        return is_match == j->was_match;
    }
    BUG("unknown split behavior");
}

static void join_part(struct joiner *j, struct str part, bool is_match)
{
    if (part.n == 0)
        return;
    if (j->open.n > 0 && continues(j, is_match)) {
        j->open.n += part.n;
    } else {
        close_piece(j);
        if (!(is_match && j->behavior == SPLIT_REMOVED))
            j->open = part;
    }
    j->was_match = is_match;
}

static enum err_code run_regex(const struct stage *stage, struct str piece, struct pieces *out,
                               struct err *e)
{
    struct joiner j = {.out = out, .behavior = stage->behavior};
    size_t at = 0;
    while (at < piece.n) {
        size_t start = 0;
        size_t end = 0;
        TRY(tok_regex_next(stage->regex, piece, at, &start, &end, e));
        join_part(&j, (struct str){piece.p + at, start - at}, stage->is_inverted);
        join_part(&j, (struct str){piece.p + start, end - start}, !stage->is_inverted);
        at = end;
    }
    close_piece(&j);
    return ERR_OK;
}

static struct str with_prefix_space(struct split *s, struct str piece)
{
    if (piece.p[0] == ' ')
        return piece;
    char *p = arena_alloc(&s->text, piece.n + 1);
    p[0] = ' ';
    memcpy(p + 1, piece.p, piece.n);
    return (struct str){p, piece.n + 1};
}

static struct str mapped(struct split *s, struct str piece)
{
    char *p = arena_alloc(&s->text, BYTEMAP_MAX_UTF8 * piece.n);
    return (struct str){p, bytemap_encode(piece, p)};
}

static struct str unmapped(struct split *s, struct str piece)
{
    char *p = arena_alloc(&s->text, piece.n);
    size_t n = 0;
    CHECK(bytemap_decode(piece, p, &n));
    return (struct str){p, n};
}

static enum err_code run_stage(struct split *s, const struct stage *stage, struct err *e)
{
    for (size_t i = 0; i < s->in.n; i++) {
        struct str piece = s->in.v[i];
        switch (stage->kind) {
        case STAGE_REGEX:
            TRY(run_regex(stage, piece, &s->out, e));
            break;
        case STAGE_PREFIX_SPACE:
            pieces_push(&s->out, with_prefix_space(s, piece));
            break;
        case STAGE_BYTEMAP:
            pieces_push(&s->out, mapped(s, piece));
            break;
        }
    }
    return ERR_OK;
}

enum err_code split_run(struct split *s, struct str text, const struct str **pieces, size_t *n,
                        struct err *e)
{
    arena_release(&s->text);
    s->in.n = 0;
    if (text.n > 0)
        pieces_push(&s->in, text);
    for (int i = 0; i < s->n_stages; i++) {
        s->out.n = 0;
        TRY(run_stage(s, &s->stages[i], e));
        struct pieces swap = s->in;
        s->in = s->out;
        s->out = swap;
    }
    for (size_t i = 0; s->is_mapped && i < s->in.n; i++)
        s->in.v[i] = unmapped(s, s->in.v[i]);
    *pieces = s->in.v;
    *n = s->in.n;
    return ERR_OK;
}

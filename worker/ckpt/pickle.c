/* The pickle machine. A pickle is a sequence of one-byte instructions with operands behind them, working on a stack
 * of values, a stack of marks and a numbered memo:
 *
 *      80 02                       PROTO 2
 *      7d  71 00  28               EMPTY_DICT, BINPUT 0, MARK
 *      58 04 00 00 00 "name"       BINUNICODE, u32 length, UTF-8        key
 *      63 "torch._utils\n_rebuild_tensor_v2\n"   GLOBAL                 callable
 *      28 … 74 51 … 74 52          MARK … TUPLE BINPERSID … TUPLE REDUCE   tensor
 *      75 2e                       SETITEMS up to the mark, STOP
 *
 * Published files hold an OrderedDict (REDUCE) with an attribute `_metadata` (BUILD) in place of the dict. Bounds:
 * the number of values, the stack, the marks and the memo each stop at LIMIT; instructions never nest, so there is
 * no recursion; lengths are checked against the bytes that are left. */
#include "worker/ckpt/pickle.h"

#include <string.h>

#include "worker/ckpt/pickle_value.h"

enum { LIMIT = 1 << 20 };

struct reader {
    const unsigned char *p;
    size_t size, at;
    struct arena *a;
    struct pickle_value **stack;
    size_t depth, stack_cap;
    size_t *marks; /* stack depths */
    size_t n_marks, marks_cap;
    struct pickle_value **memo;
    size_t memo_cap, n_memo; /* n_memo: entries in use */
    size_t n_values;
    bool is_done;
};

/* Room for one more in an array of n elements. */
static void *grow(void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap != 0 ? *cap * 2 : 256;
    return xrealloc(v, *cap * size);
}

static enum err_code need_bytes(const struct reader *r, uint64_t n, struct err *e)
{
    if (n > r->size - r->at)
        return err_set(e, ERR_FORMAT,
                       "%llu bytes needed, %zu left; truncated: download the file again",
                       (unsigned long long)n, r->size - r->at);
    return ERR_OK;
}

/* Little endian, up to 8 bytes. */
static enum err_code take_uint(struct reader *r, int width, uint64_t *out, struct err *e)
{
    TRY(need_bytes(r, (uint64_t)width, e));
    uint64_t v = 0;
    for (int i = width - 1; i >= 0; i--)
        v = v << 8 | r->p[r->at + (size_t)i];
    r->at += (size_t)width;
    *out = v;
    return ERR_OK;
}

static enum err_code take_line(struct reader *r, struct str *out, struct err *e)
{
    struct str rest = {(const char *)r->p + r->at, r->size - r->at};
    if (rest.n == 0 || memchr(rest.p, '\n', rest.n) == NULL)
        return err_set(e, ERR_FORMAT,
                       "a name without its line end; truncated: download the file again");
    CHECK(str_next_line(&rest, out));
    r->at = r->size - rest.n;
    return ERR_OK;
}

static enum err_code push_value(struct reader *r, struct pickle_value *v, struct err *e)
{
    if (r->depth >= LIMIT)
        return err_set(e, ERR_FORMAT, "more than %d values on the stack", LIMIT);
    r->stack = grow(r->stack, r->depth, &r->stack_cap, sizeof(struct pickle_value *));
    r->stack[r->depth++] = v;
    return ERR_OK;
}

static enum err_code push(struct reader *r, struct pickle_value v, struct err *e)
{
    if (++r->n_values > LIMIT)
        return err_set(e, ERR_FORMAT, "more than %d values", LIMIT);
    struct pickle_value *p = arena_alloc(r->a, sizeof(*p));
    *p = v;
    return push_value(r, p, e);
}

/* Values above the last mark: others cannot be reached. */
static size_t n_reachable(const struct reader *r)
{
    return r->depth - (r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0);
}

static enum err_code need_values(const struct reader *r, size_t n, struct err *e)
{
    if (n_reachable(r) < n)
        return err_set(e, ERR_FORMAT, "%zu values needed, %zu on the stack", n, n_reachable(r));
    return ERR_OK;
}

/* Takes n values off the stack. They stay readable, in the order they were pushed, from popped() on until the next
 * push. */
static enum err_code pop(struct reader *r, size_t n, struct err *e)
{
    TRY(need_values(r, n, e));
    r->depth -= n;
    return ERR_OK;
}

/* As pop, of everything above the last mark, and the mark. */
static enum err_code pop_to_mark(struct reader *r, size_t *n, struct err *e)
{
    if (r->n_marks == 0)
        return err_set(e, ERR_FORMAT, "no mark on the stack");
    *n = n_reachable(r);
    r->depth -= *n;
    r->n_marks--;
    return ERR_OK;
}

static struct pickle_value **popped(const struct reader *r)
{
    return r->stack + r->depth;
}

static void append(struct reader *r, struct pickle_value *to, struct pickle_value *const *v,
                   size_t n)
{
    const size_t size = sizeof(struct pickle_value *);
    if (n > to->items.cap - to->items.n) {
        size_t cap = to->items.cap * 2 > to->items.n + n ? to->items.cap * 2 : to->items.n + n;
        struct pickle_value **items = arena_array(r->a, cap, size);
        if (to->items.n > 0)
            memcpy(items, to->items.v, to->items.n * size);
        to->items.v = items;
        to->items.cap = cap;
    }
    if (n > 0)
        memcpy(to->items.v + to->items.n, v, n * size);
    to->items.n += n;
}

static enum err_code op_proto(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    uint64_t version = 0;
    TRY(take_uint(r, 1, &version, e));
    if (version < 2 || version > 5)
        return err_set(e, ERR_UNSUPPORTED, "protocol %llu, expected 2 to 5",
                       (unsigned long long)version);
    return ERR_OK;
}

/* A frame only groups instructions for buffered readers. */
static enum err_code op_frame(struct reader *r, int arg, struct err *e)
{
    uint64_t n = 0;
    TRY(take_uint(r, arg, &n, e));
    return need_bytes(r, n, e);
}

static enum err_code op_stop(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    if (r->n_marks != 0 || r->depth != 1)
        return err_set(e, ERR_FORMAT,
                       "the pickle ends with %zu values and %zu marks, expected one value",
                       r->depth, r->n_marks);
    r->is_done = true;
    return ERR_OK;
}

static enum err_code op_mark(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    if (r->n_marks >= LIMIT)
        return err_set(e, ERR_FORMAT, "more than %d marks", LIMIT);
    r->marks = grow(r->marks, r->n_marks, &r->marks_cap, sizeof(*r->marks));
    r->marks[r->n_marks++] = r->depth;
    return ERR_OK;
}

static enum err_code op_none(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    return push(r, (struct pickle_value){.kind = PICKLE_NONE}, e);
}

static enum err_code op_bool(struct reader *r, int arg, struct err *e)
{
    return push(r, (struct pickle_value){.kind = PICKLE_BOOL, .number = arg}, e);
}

/* Operands of 1 and 2 bytes are unsigned, those of 4 signed. */
static enum err_code op_int(struct reader *r, int arg, struct err *e)
{
    uint64_t v = 0;
    TRY(take_uint(r, arg, &v, e));
    int64_t number = arg == 4 ? (int32_t)(uint32_t)v : (int64_t)v;
    return push(r, (struct pickle_value){.kind = PICKLE_INT, .number = number}, e);
}

/* A length byte, then that many bytes of two's complement. */
static enum err_code op_long(struct reader *r, int arg, struct err *e)
{
    uint64_t n = 0;
    uint64_t v = 0;
    TRY(take_uint(r, arg, &n, e));
    if (n > 8)
        return err_set(e, ERR_FORMAT, "an integer of %llu bytes, expected at most 8",
                       (unsigned long long)n);
    TRY(take_uint(r, (int)n, &v, e));
    if (n > 0 && n < 8 && (v >> (8 * n - 1) & 1) != 0)
        v |= UINT64_MAX << (8 * n);
    return push(r, (struct pickle_value){.kind = PICKLE_INT, .number = (int64_t)v}, e);
}

/* Only metadata that nobody reads can be a float: its value is not kept. */
static enum err_code op_real(struct reader *r, int arg, struct err *e)
{
    uint64_t ignored = 0;
    TRY(take_uint(r, arg, &ignored, e));
    return push(r, (struct pickle_value){.kind = PICKLE_REAL}, e);
}

static enum err_code op_text(struct reader *r, int arg, struct err *e)
{
    uint64_t n = 0;
    TRY(take_uint(r, arg, &n, e));
    TRY(need_bytes(r, n, e));
    struct str text = {(const char *)r->p + r->at, (size_t)n};
    r->at += (size_t)n;
    return push(r, (struct pickle_value){.kind = PICKLE_TEXT, .text = text}, e);
}

static enum err_code op_empty(struct reader *r, int arg, struct err *e)
{
    return push(r, (struct pickle_value){.kind = (enum pickle_kind)arg}, e);
}

/* The n popped values become a tuple. */
static enum err_code push_tuple(struct reader *r, size_t n, struct err *e)
{
    struct pickle_value tuple = {.kind = PICKLE_TUPLE};
    append(r, &tuple, popped(r), n);
    return push(r, tuple, e);
}

static enum err_code op_tuple(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    size_t n = 0;
    TRY(pop_to_mark(r, &n, e));
    return push_tuple(r, n, e);
}

static enum err_code op_tuple_of(struct reader *r, int arg, struct err *e)
{
    TRY(pop(r, (size_t)arg, e));
    return push_tuple(r, (size_t)arg, e);
}

/* Adds the n popped values to the container below them. */
static enum err_code add_items(struct reader *r, size_t n, enum pickle_kind kind, struct err *e)
{
    TRY(need_values(r, 1, e));
    struct pickle_value *to = r->stack[r->depth - 1];
    if (to->kind != kind || (kind == PICKLE_DICT && n % 2 != 0))
        return err_set(e, ERR_FORMAT, "%zu items for %s, expected %s", n,
                       pickle_kind_words(to->kind), pickle_kind_words(kind));
    append(r, to, popped(r), n);
    return ERR_OK;
}

static enum err_code op_append(struct reader *r, int arg, struct err *e)
{
    size_t n = arg == PICKLE_DICT ? 2 : 1;
    TRY(pop(r, n, e));
    return add_items(r, n, (enum pickle_kind)arg, e);
}

static enum err_code op_append_all(struct reader *r, int arg, struct err *e)
{
    size_t n = 0;
    TRY(pop_to_mark(r, &n, e));
    return add_items(r, n, (enum pickle_kind)arg, e);
}

static enum err_code memo_put(struct reader *r, uint64_t at, struct err *e)
{
    TRY(need_values(r, 1, e));
    if (at >= LIMIT)
        return err_set(e, ERR_FORMAT, "memo number %llu, expected less than %d",
                       (unsigned long long)at, LIMIT);
    while (at >= r->memo_cap) {
        size_t old = r->memo_cap;
        r->memo = grow(r->memo, old, &r->memo_cap, sizeof(struct pickle_value *));
        memset(r->memo + old, 0, (r->memo_cap - old) * sizeof(struct pickle_value *));
    }
    r->n_memo += r->memo[at] == NULL;
    r->memo[at] = r->stack[r->depth - 1];
    return ERR_OK;
}

static enum err_code op_put(struct reader *r, int arg, struct err *e)
{
    uint64_t at = 0;
    TRY(take_uint(r, arg, &at, e));
    return memo_put(r, at, e);
}

static enum err_code op_memoize(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    return memo_put(r, r->n_memo, e);
}

static enum err_code op_get(struct reader *r, int arg, struct err *e)
{
    uint64_t at = 0;
    TRY(take_uint(r, arg, &at, e));
    if (at >= r->memo_cap || r->memo[at] == NULL)
        return err_set(e, ERR_FORMAT, "memo number %llu was never set", (unsigned long long)at);
    return push_value(r, r->memo[at], e);
}

static enum err_code push_global(struct reader *r, struct str module, struct str name,
                                 struct err *e)
{
    const struct pickle_global *g = NULL;
    TRY(pickle_find_global(module, name, &g, e));
    return push(r, (struct pickle_value){.kind = PICKLE_GLOBAL, .global = g}, e);
}

static enum err_code op_global(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    struct str module = {0};
    struct str name = {0};
    TRY(take_line(r, &module, e));
    TRY(take_line(r, &name, e));
    return push_global(r, module, name, e);
}

static enum err_code op_stack_global(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    TRY(pop(r, 2, e));
    struct pickle_value **v = popped(r);
    if (v[0]->kind != PICKLE_TEXT || v[1]->kind != PICKLE_TEXT)
        return err_set(e, ERR_FORMAT, "a global named by %s and %s, expected strings",
                       pickle_kind_words(v[0]->kind), pickle_kind_words(v[1]->kind));
    return push_global(r, v[0]->text, v[1]->text, e);
}

static enum err_code op_persistent(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    struct pickle_value storage;
    TRY(pop(r, 1, e));
    TRY(pickle_make_storage(*popped(r), &storage, e));
    return push(r, storage, e);
}

static enum err_code op_reduce(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    struct pickle_value result;
    TRY(pop(r, 2, e));
    struct pickle_value **v = popped(r);
    if (v[0]->kind != PICKLE_GLOBAL || v[1]->kind != PICKLE_TUPLE)
        return err_set(e, ERR_FORMAT, "a call of %s with %s, expected a global and a tuple",
                       pickle_kind_words(v[0]->kind), pickle_kind_words(v[1]->kind));
    TRY(pickle_call(v[0]->global, v[1], r->a, &result, e));
    return push(r, result, e);
}

/* Attributes are given to an OrderedDict only (`_metadata`, the module versions), and nobody needs them. */
static enum err_code op_build(struct reader *r, int arg, struct err *e)
{
    (void)arg;
    TRY(need_values(r, 2, e));
    enum pickle_kind kind = r->stack[--r->depth]->kind;
    const struct pickle_value *of = r->stack[r->depth - 1];
    if (kind != PICKLE_DICT || of->kind != PICKLE_DICT || !of->is_ordered)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s as the attributes of %s, expected a dict for an OrderedDict",
                       pickle_kind_words(kind), pickle_kind_words(of->kind));
    return ERR_OK;
}

/* Instructions that torch.save writes for a state dict under protocols 2 to 5; `arg` is the operand's width, a
 * number of values or a kind. All others are refused. */
static const struct op {
    const char *name;
    enum err_code (*run)(struct reader *r, int arg, struct err *e);
    int arg;
} ops[256] = {
    [0x80] = {"PROTO", op_proto, 0},
    [0x95] = {"FRAME", op_frame, 8},
    ['.'] = {"STOP", op_stop, 0},
    ['('] = {"MARK", op_mark, 0},
    ['N'] = {"NONE", op_none, 0},
    [0x88] = {"NEWTRUE", op_bool, 1},
    [0x89] = {"NEWFALSE", op_bool, 0},
    ['K'] = {"BININT1", op_int, 1},
    ['M'] = {"BININT2", op_int, 2},
    ['J'] = {"BININT", op_int, 4},
    [0x8a] = {"LONG1", op_long, 1},
    ['G'] = {"BINFLOAT", op_real, 8},
    ['X'] = {"BINUNICODE", op_text, 4},
    [0x8c] = {"SHORT_BINUNICODE", op_text, 1},
    [0x8d] = {"BINUNICODE8", op_text, 8},
    ['U'] = {"SHORT_BINSTRING", op_text, 1},
    ['T'] = {"BINSTRING", op_text, 4},
    ['}'] = {"EMPTY_DICT", op_empty, PICKLE_DICT},
    [']'] = {"EMPTY_LIST", op_empty, PICKLE_LIST},
    [')'] = {"EMPTY_TUPLE", op_empty, PICKLE_TUPLE},
    ['t'] = {"TUPLE", op_tuple, 0},
    [0x85] = {"TUPLE1", op_tuple_of, 1},
    [0x86] = {"TUPLE2", op_tuple_of, 2},
    [0x87] = {"TUPLE3", op_tuple_of, 3},
    ['a'] = {"APPEND", op_append, PICKLE_LIST},
    ['s'] = {"SETITEM", op_append, PICKLE_DICT},
    ['e'] = {"APPENDS", op_append_all, PICKLE_LIST},
    ['u'] = {"SETITEMS", op_append_all, PICKLE_DICT},
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    ['c'] = {"GLOBAL", op_global, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0},
    ['R'] = {"REDUCE", op_reduce, 0},
    ['b'] = {"BUILD", op_build, 0},
};

static enum err_code run(struct reader *r, const char *what, struct err *e)
{
    while (!r->is_done) {
        size_t at = r->at;
        if (at == r->size)
            return err_set(e, ERR_FORMAT,
                           "%s: byte %zu: the pickle ends without STOP; truncated: download the "
                           "file again",
                           what, at);
        const struct op *op = &ops[r->p[r->at++]];
        if (op->run == NULL)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: byte %zu: instruction 0x%02x is not one that a plain state dict "
                           "needs, so it is "
                           "refused; use a safetensors version of this checkpoint",
                           what, at, (unsigned)r->p[at]);
        if (op->run(r, op->arg, e) != ERR_OK)
            return err_wrap(e, "%s: byte %zu: %s", what, at, op->name);
    }
    return ERR_OK;
}

/* Values live in an arena of their own: the caller's keeps only the tensors. */
enum err_code pickle_read(struct str bytes, const char *what, struct arena *a,
                          struct pickle_tensor **out, size_t *n, struct err *e)
{
    struct arena values = {0};
    struct reader r = {.p = (const unsigned char *)bytes.p, .size = bytes.n, .a = &values};
    r.stack = grow(NULL, 0, &r.stack_cap, sizeof(struct pickle_value *)); /* never NULL */
    enum err_code rc = run(&r, what, e);
    if (rc == ERR_OK && pickle_state_dict(r.stack[0], a, out, n, e) != ERR_OK)
        rc = err_wrap(e, "%s", what);
    arena_release(&values);
    xfree(r.memo);
    xfree(r.marks);
    xfree(r.stack);
    return rc;
}

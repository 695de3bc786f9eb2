#include "analysis/item_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/zstd_blob.h"
#include "base/json.h"

enum { MAX_SETS = 4096, MAX_CHOICES = 8, WORD_BITS = 64 };

/* ---- facts: what the view `items` tells about one set of items ---- */

struct facts {
    enum task task;
    const char *item_set; /* its identity in the database */
    int n, capacity;
    int n_choices;
    int *gold;      /* [n]; -1: none */
    double *chars;  /* [n][n_choices] */
    double *bytes;  /* [n][n_choices] */
    double *tokens; /* [n]; of the first choice */
    bool is_broken; /* items are missing or have another number of choices */
};

/* Items of a set as a job with n of them sees it. */
struct numbered_set {
    const struct facts *facts;
    int n;
};

struct loading {
    struct store *store;
    struct arena *arena;
    struct items *out;
    struct facts facts[MAX_SETS];
    int n_facts;
    struct numbered_set sets[MAX_SETS];
    float *floats; /* of one blob */
    size_t capacity;
};

/* A number for one choice, a JSON array for several. False when there are not n of them. */
static bool take_counts(const struct store_row *r, int col, int n, double *out)
{
    enum store_type type = store_col_type(r, col);
    if (type == STORE_INT || type == STORE_NUM) {
        out[0] = store_col_num(r, col);
        return n == 1;
    }
    json_t *list = NULL;
    struct err ignored;
    if (type != STORE_TEXT ||
        json_parse(str_of(store_col_text(r, col)), "items", &list, &ignored) != ERR_OK)
        return false;
    bool is_fitting = json_is_array(list) && json_array_size(list) == (size_t)n;
    for (int i = 0; is_fitting && i < n; i++)
        out[i] = json_number_value(json_array_get(list, (size_t)i));
    json_decref(list);
    return is_fitting;
}

static void *grown(struct arena *a, const void *old, int n, int capacity, size_t size)
{
    void *v = arena_array(a, (size_t)capacity, size);
    if (n > 0)
        memcpy(v, old, (size_t)n * size);
    return v;
}

static void grow_facts(struct facts *f, struct arena *a)
{
    int capacity = f->capacity != 0 ? 2 * f->capacity : 1024;
    size_t choices = (size_t)f->n_choices * sizeof(double);
    f->gold = grown(a, f->gold, f->n, capacity, sizeof(*f->gold));
    f->tokens = grown(a, f->tokens, f->n, capacity, sizeof(*f->tokens));
    f->chars = grown(a, f->chars, f->n, capacity, choices);
    f->bytes = grown(a, f->bytes, f->n, capacity, choices);
    f->capacity = capacity;
}

struct fact_reader {
    struct facts *facts;
    struct arena *arena;
};

static enum err_code add_fact(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    const struct fact_reader *reader = arg;
    struct facts *f = reader->facts;
    if (f->n == f->capacity)
        grow_facts(f, reader->arena);
    double tokens[MAX_CHOICES] = {0};
    int at = f->n * f->n_choices;
    bool is_fitting =
        store_col_int(r, 0) == f->n && take_counts(r, 2, f->n_choices, f->chars + at) &&
        take_counts(r, 3, f->n_choices, f->bytes + at) && take_counts(r, 4, f->n_choices, tokens);
    f->is_broken = f->is_broken || !is_fitting;
    f->gold[f->n] = store_col_is_null(r, 1) ? -1 : (int)store_col_int(r, 1);
    f->tokens[f->n++] = tokens[0];
    return ERR_OK;
}

/* The facts of a set, read when it is first met; NULL when there are too many sets or the samples name none. */
static enum err_code find_facts(struct loading *l, enum task task, const char *item_set,
                                const struct facts **out, struct err *e)
{
    *out = NULL;
    if (item_set == NULL)
        return ERR_OK;
    for (int i = 0; i < l->n_facts; i++)
        if (l->facts[i].task == task && strcmp(l->facts[i].item_set, item_set) == 0) {
            *out = &l->facts[i];
            return ERR_OK;
        }
    if (l->n_facts == MAX_SETS)
        return ERR_OK;
    struct facts *f = &l->facts[l->n_facts++];
    *f = (struct facts){.task = task,
                        .item_set = arena_strdup(l->arena, item_set),
                        .n_choices = task_choices(task)};
    struct fact_reader reader = {f, l->arena};
    TRY(store_query(
        l->store, "SELECT i, gold, chars, bytes, tokens FROM items WHERE item_set = ?1 ORDER BY i",
        &item_set, 1, add_fact, &reader, e));
    *out = f;
    return ERR_OK;
}

/* -1: too many sets. */
static int set_number(struct loading *l, const struct facts *f, int n)
{
    for (int i = 0; i < l->out->n_sets; i++)
        if (l->sets[i].facts == f && l->sets[i].n == n)
            return i;
    if (l->out->n_sets == MAX_SETS)
        return -1;
    l->sets[l->out->n_sets] = (struct numbered_set){f, n};
    return l->out->n_sets++;
}

/* ---- samples ---- */

/* First maximum of v[i] / length[i], as the tasks choose (evaluation spec, section 2); lengths NULL: of v[i]. */
static int best_choice(const float *v, const double *lengths, int n)
{
    int best = 0;
    double best_value = -INFINITY;
    for (int i = 0; i < n; i++) {
        double value = lengths != NULL ? v[i] / lengths[i] : v[i];
        if (value > best_value) {
            best = i;
            best_value = value;
        }
    }
    return best;
}

static void set_bit(uint64_t *bits, int i, bool is_set)
{
    bits[i / WORD_BITS] |= (uint64_t)is_set << (i % WORD_BITS);
}

static const uint64_t *right_choices(const float *v, int n, const struct facts *f,
                                     const double *lengths, struct arena *a)
{
    uint64_t *bits = arena_array(a, (size_t)n / WORD_BITS + 1, sizeof(*bits));
    for (int i = 0; i < n; i++) {
        int at = i * f->n_choices;
        const double *item_lengths = lengths != NULL ? lengths + at : NULL;
        set_bit(bits, i, best_choice(v + at, item_lengths, f->n_choices) == f->gold[i]);
    }
    return bits;
}

static void reduce(struct item_job *j, const float *v, const struct facts *f, struct arena *a)
{
    if (j->task == TASK_perplexity) {
        float *nll = arena_array(a, (size_t)j->n + 1, sizeof(*nll));
        for (int i = 0; i < j->n; i++)
            nll[i] = -v[i];
        j->nll = nll;
        j->tokens = f->tokens;
    } else if (j->task == TASK_lambada) {
        uint64_t *bits = arena_array(a, (size_t)j->n / WORD_BITS + 1, sizeof(*bits));
        for (int i = 0; i < j->n; i++)
            set_bit(bits, i, v[2 * i + 1] > 0.5F);
        j->right[SCORE_ACC] = bits;
    } else {
        j->right[SCORE_ACC] = right_choices(v, j->n, f, NULL, a);
    }
    if (j->task == TASK_hellaswag || j->task == TASK_piqa) {
        j->right[SCORE_NORM] = right_choices(v, j->n, f, f->chars, a);
        j->right[SCORE_BYTES] = right_choices(v, j->n, f, f->bytes, a);
    }
}

static int floats_per_item(enum task t)
{
    return t == TASK_lambada ? 2 : task_choices(t);
}

/* NULL when the blob was taken, else why not. */
static const char *take_blob(struct loading *l, struct item_job *j, const struct facts *f,
                             const struct store_row *r, const char *codec)
{
    int per_item = floats_per_item(j->task);
    if (strcmp(codec, arena_printf(l->arena, "zstd-f32/%d", per_item)) != 0)
        return arena_printf(l->arena, "codec '%s' where zstd-f32/%d was expected", codec, per_item);
    if (f == NULL || f->n == 0)
        return "no facts about its items are stored";
    if (f->is_broken)
        return "the facts about its items have gaps";
    size_t wanted = (size_t)f->n * (size_t)per_item;
    if (wanted > l->capacity) {
        l->floats = xrealloc(l->floats, wanted * sizeof(float));
        l->capacity = wanted;
    }
    size_t bytes = 0;
    const void *blob = store_col_blob(r, 3, &bytes);
    size_t n = 0;
    if (blob == NULL || !zstd_blob_unpack(blob, bytes, l->floats, wanted, &n) ||
        n % (size_t)per_item != 0 || n == 0)
        return "its samples are damaged or longer than its items";
    j->n = (int)(n / (size_t)per_item);
    j->set = set_number(l, f, j->n);
    if (j->set < 0)
        return "too many item sets";
    reduce(j, l->floats, f, l->arena);
    return NULL;
}

static int compare_job(const void *a, const void *b)
{
    int64_t x = ((const struct item_job *)a)->job;
    int64_t y = ((const struct item_job *)b)->job;
    return (x > y) - (x < y);
}

const struct item_job *items_of(const struct items *it, int64_t job)
{
    struct item_job key = {.job = job};
    return it->n > 0 ? bsearch(&key, it->jobs, (size_t)it->n, sizeof(key), compare_job) : NULL;
}

static enum err_code add_samples(void *arg, const struct store_row *r, struct err *e)
{
    struct loading *l = arg;
    struct item_job *j = (struct item_job *)items_of(l->out, store_col_int(r, 0));
    const char *item_set = store_col_text(r, 1);
    const char *codec = store_col_text(r, 2);
    if (j == NULL || j->n != 0) /* not asked for, or met in another sweep */
        return ERR_OK;
    const struct facts *f = NULL;
    TRY(find_facts(l, j->task, item_set, &f, e));
    const char *why = take_blob(l, j, f, r, codec);
    if (why == NULL)
        return ERR_OK;
    j->n = 0;
    if (l->out->n_unreadable++ == 0)
        l->out->unreadable = arena_printf(l->arena, "job %lld: %s", (long long)j->job, why);
    return ERR_OK;
}

/* Tasks whose items are averaged; the samples of others mean something else. */
static bool has_scores(enum task t)
{
    return t == TASK_perplexity || task_is_zero_shot(t);
}

/* One entry per job that the frame names, ascending. */
static void list_jobs(const struct frame *f, struct items *out, struct arena *a)
{
    out->jobs = arena_array(a, (size_t)f->n * TASK_COUNT + 1, sizeof(*out->jobs));
    int n = 0;
    for (int i = 0; i < f->n; i++)
        for (int t = 0; t < TASK_COUNT; t++)
            if (f->rows[i].job[t] != 0 && has_scores((enum task)t))
                out->jobs[n++] = (struct item_job){.job = f->rows[i].job[t], .task = (enum task)t};
    qsort(out->jobs, (size_t)n, sizeof(*out->jobs), compare_job);
    for (int i = 0; i < n; i++)
        if (out->n == 0 || out->jobs[out->n - 1].job != out->jobs[i].job)
            out->jobs[out->n++] = out->jobs[i];
}

static void drop_empty(struct items *out)
{
    int n = 0;
    for (int i = 0; i < out->n; i++)
        if (out->jobs[i].n > 0)
            out->jobs[n++] = out->jobs[i];
    out->n = n;
}

enum err_code items_read(struct store *s, const struct frame *f, struct arena *a, struct items *out,
                         struct err *e)
{
    *out = (struct items){0};
    list_jobs(f, out, a);
    struct loading *l = arena_alloc(a, sizeof(*l));
    l->store = s;
    l->arena = a;
    l->out = out;
    enum err_code rc = store_query(
        s, "SELECT c.job, s.item_set, s.codec, s.blob FROM cells c JOIN samples s ON s.job = c.job",
        NULL, 0, add_samples, l, e);
    xfree(l->floats);
    drop_empty(out);
    return rc;
}

/* ---- numbers of one job ---- */

double items_accuracy(const struct item_job *j, enum item_score score, int from, int to)
{
    const uint64_t *bits = j->right[score];
    if (bits == NULL || from >= to)
        return NAN;
    int n = 0;
    for (int word = from / WORD_BITS; word <= (to - 1) / WORD_BITS; word++) {
        uint64_t v = bits[word];
        if (word == from / WORD_BITS)
            v &= ~(uint64_t)0 << from % WORD_BITS;
        if (word == (to - 1) / WORD_BITS)
            v &= ~(uint64_t)0 >> (WORD_BITS - 1 - (to - 1) % WORD_BITS);
        n += __builtin_popcountll(v);
    }
    return (double)n / (to - from);
}

double items_nll(const struct item_job *j, int from, int to)
{
    if (j->nll == NULL)
        return NAN;
    double nll = 0;
    double tokens = 0;
    for (int i = from; i < to; i++) {
        nll += (double)j->nll[i];
        tokens += j->tokens[i];
    }
    return tokens > 0 ? nll / tokens : NAN;
}

#include "analysis/bootstrap.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/draw.h"
#include "base/proc.h"

/* One score of one job: what a resample turns into one number. Columns of one draw (task, n) are neighbours. */
struct column {
    const struct item_job *job;
    enum item_score score;
};

/* Columns [first, first + n) are drawn together. */
struct draw_set {
    enum task task;
    int n_items;
    int first, n;
};

struct moments {
    double sum, squares;
};

/* What the threads share. They write to different resamples and blocks only. */
struct run {
    const struct frame *frame;
    struct bootstrap *out;
    uint64_t seed;
    int n_blocks;
    struct column *columns;
    int n_columns;
    struct draw_set *sets;
    int n_sets;
    int max_columns, max_items; /* of a set */
    double *values;             /* by column: over all items once */
    int *first_row;             /* by column: rows with its job, as a list; -1 ends it */
    int *next_row[TASK_COUNT];  /* by row */
    struct moments *moments;    /* [block][column] */
    atomic_int next_block;
};

/* A thread's own arrays. */
struct scratch {
    uint16_t *counts;
    const void **columns;
    uint32_t *hits;
    double *sums;
    double *values; /* [column of the set][DRAW_BLOCK] */
};

/* ---- columns ---- */

static bool is_normed(enum task t)
{
    return t == TASK_hellaswag || t == TASK_piqa;
}

static int compare_column(const void *a, const void *b)
{
    const struct column *x = a;
    const struct column *y = b;
    if (x->job->task != y->job->task)
        return (int)x->job->task - (int)y->job->task;
    if (x->job->n != y->job->n)
        return x->job->n - y->job->n;
    /* Documents of one set share their lengths: keep them together. */
    if (x->job->set != y->job->set)
        return x->job->set - y->job->set;
    if (x->score != y->score)
        return (int)x->score - (int)y->score;
    return (x->job->job > y->job->job) - (x->job->job < y->job->job);
}

static void list_columns(struct run *run, const struct items *items, struct arena *a)
{
    run->columns = arena_array(a, (size_t)items->n * SCORE_COUNT + 1, sizeof(*run->columns));
    for (int i = 0; i < items->n; i++)
        for (int s = 0; s < SCORE_COUNT; s++) {
            const struct item_job *j = &items->jobs[i];
            if (s == SCORE_ACC || (s == SCORE_NORM && j->right[s] != NULL))
                run->columns[run->n_columns++] = (struct column){j, (enum item_score)s};
        }
    qsort(run->columns, (size_t)run->n_columns, sizeof(*run->columns), compare_column);
    run->sets = arena_array(a, (size_t)run->n_columns + 1, sizeof(*run->sets));
    for (int i = 0; i < run->n_columns; i++) {
        const struct item_job *j = run->columns[i].job;
        struct draw_set *s = run->n_sets > 0 ? &run->sets[run->n_sets - 1] : NULL;
        if (s == NULL || s->task != j->task || s->n_items != j->n) {
            s = &run->sets[run->n_sets++];
            *s = (struct draw_set){.task = j->task, .n_items = j->n, .first = i};
        }
        s->n++;
        run->max_columns = s->n > run->max_columns ? s->n : run->max_columns;
        run->max_items = s->n_items > run->max_items ? s->n_items : run->max_items;
    }
}

/* Which rows a column's numbers go to: a job may stand in the rows of several sweeps. */
static void link_rows(struct run *run, const struct items *items, struct arena *a)
{
    int *first = arena_array(a, (size_t)items->n + 1, sizeof(*first));
    for (int i = 0; i < items->n; i++)
        first[i] = -1;
    for (int t = 0; t < TASK_COUNT; t++) {
        run->next_row[t] = arena_array(a, (size_t)run->frame->n + 1, sizeof(int));
        for (int row = 0; row < run->frame->n; row++) {
            const struct item_job *j = items_of(items, run->frame->rows[row].job[t]);
            if (j == NULL)
                continue;
            run->next_row[t][row] = first[j - items->jobs];
            first[j - items->jobs] = row;
        }
    }
    run->first_row = arena_array(a, (size_t)run->n_columns + 1, sizeof(int));
    run->values = arena_array(a, (size_t)run->n_columns + 1, sizeof(double));
    for (int c = 0; c < run->n_columns; c++) {
        const struct item_job *j = run->columns[c].job;
        run->first_row[c] = first[j - items->jobs];
        run->values[c] = j->nll != NULL ? items_nll(j, 0, j->n)
                                        : items_accuracy(j, run->columns[c].score, 0, j->n);
    }
}

/* The metrics that a column is a part of. */
static bool column_feeds(const struct column *c, enum metric_id m)
{
    enum task t = c->job->task;
    if (t == TASK_perplexity)
        return m == METRIC_NLL;
    if (m == METRIC_ZERO_SHOT)
        return c->score == SCORE_ACC;
    return m == METRIC_ZERO_SHOT_NORM && c->score == (is_normed(t) ? SCORE_NORM : SCORE_ACC);
}

/* A metric of every row as its items give it; NaN where some are missing. */
static void values_from_items(const struct run *run, enum metric_id m, double *out, int *n_parts)
{
    int n_wanted = m == METRIC_NLL ? 1 : 4;
    for (int c = 0; c < run->n_columns; c++) {
        const struct column *col = &run->columns[c];
        if (!column_feeds(col, m))
            continue;
        for (int row = run->first_row[c]; row >= 0; row = run->next_row[col->job->task][row]) {
            out[row] += run->values[c] / n_wanted;
            n_parts[row]++;
        }
    }
    for (int row = 0; row < run->frame->n; row++)
        if (n_parts[row] != n_wanted)
            out[row] = NAN;
}

/* ---- one block of resamples ---- */

static int block_size(const struct bootstrap *b, int block)
{
    int n = b->n_resamples - block * DRAW_BLOCK;
    return n < DRAW_BLOCK ? n : DRAW_BLOCK;
}

static void draw_nll(const struct run *run, const struct draw_set *s, struct scratch *w)
{
    for (int c = 0; c < s->n; c++)
        w->columns[c] = run->columns[s->first + c].job->nll;
    draw_sum_floats(w->counts, s->n_items, (const float *const *)w->columns, s->n, w->sums);
    const double *tokens = NULL;
    double drawn[DRAW_BLOCK] = {0};
    for (int c = 0; c < s->n; c++) {
        const struct item_job *j = run->columns[s->first + c].job;
        if (j->tokens != tokens) {
            tokens = j->tokens;
            memset(drawn, 0, sizeof(drawn));
            for (int i = 0; i < s->n_items; i++)
                for (int r = 0; r < DRAW_BLOCK; r++)
                    drawn[r] += tokens[i] * w->counts[(size_t)i * DRAW_BLOCK + (size_t)r];
        }
        for (int r = 0; r < DRAW_BLOCK; r++) {
            size_t at = (size_t)c * DRAW_BLOCK + (size_t)r;
            w->values[at] = w->sums[at] / drawn[r];
        }
    }
}

static void draw_accuracy(const struct run *run, const struct draw_set *s, struct scratch *w)
{
    for (int c = 0; c < s->n; c++) {
        const struct column *col = &run->columns[s->first + c];
        w->columns[c] = col->job->right[col->score];
    }
    draw_sum_bits(w->counts, s->n_items, (const uint64_t *const *)w->columns, s->n, w->hits);
    for (size_t i = 0; i < (size_t)s->n * DRAW_BLOCK; i++)
        w->values[i] = (double)w->hits[i] / s->n_items;
}

/* Adds the resampled values of `n_columns` columns from `first` to the rows that have them, a quarter of each accuracy: resample by
 * resample, as the matrices lie in memory. */
static void add_to_rows(const struct run *run, int first, int n_columns, int block,
                        enum metric_id m, const double *values)
{
    const struct bootstrap *b = run->out;
    int n = block_size(b, block);
    for (int r = 0; r < n; r++) {
        double *out = b->value[m] + ((size_t)block * DRAW_BLOCK + (size_t)r) * (size_t)b->n_rows;
        for (int i = 0; i < n_columns; i++) {
            const struct column *c = &run->columns[first + i];
            enum task t = c->job->task;
            if (!column_feeds(c, m))
                continue;
            double v = values[(size_t)i * DRAW_BLOCK + (size_t)r];
            for (int row = run->first_row[first + i]; row >= 0; row = run->next_row[t][row])
                if (b->is_drawn[m][row])
                    out[row] += t == TASK_perplexity ? v : v / 4;
        }
    }
}

static struct moments moments_of(const double *v, int n)
{
    struct moments m = {0};
    for (int r = 0; r < n; r++) {
        m.sum += v[r];
        m.squares += v[r] * v[r];
    }
    return m;
}

enum { TILE = 64 }; /* columns whose values fit the first-level cache */

static void keep_values(const struct run *run, const struct draw_set *s, int block,
                        const double *values)
{
    for (int c = 0; c < s->n; c += TILE) {
        int n = s->n - c < TILE ? s->n - c : TILE;
        for (int m = 0; m < METRIC_COUNT; m++)
            if (m == METRIC_NLL || m == METRIC_ZERO_SHOT || m == METRIC_ZERO_SHOT_NORM)
                add_to_rows(run, s->first + c, n, block, (enum metric_id)m,
                            values + (size_t)c * DRAW_BLOCK);
    }
    struct moments *moments = run->moments + (size_t)block * (size_t)run->n_columns + s->first;
    for (int c = 0; c < s->n; c++)
        moments[c] = moments_of(values + (size_t)c * DRAW_BLOCK, block_size(run->out, block));
}

static void run_block(const struct run *run, int block, struct scratch *w)
{
    for (int i = 0; i < run->n_sets; i++) {
        const struct draw_set *s = &run->sets[i];
        draw_counts(run->seed, s->task, s->n_items, block, w->counts);
        if (s->task == TASK_perplexity)
            draw_nll(run, s, w);
        else
            draw_accuracy(run, s, w);
        keep_values(run, s, block, w->values);
    }
}

static void *run_blocks(void *arg)
{
    struct run *run = arg;
    size_t columns = (size_t)run->max_columns;
    struct scratch w = {
        .counts = xcalloc(draw_counts_size(run->max_items) + 1, sizeof(*w.counts)),
        .columns = xcalloc(columns + 1, sizeof(*w.columns)),
        .hits = xcalloc(columns * DRAW_BLOCK + 1, sizeof(*w.hits)),
        .sums = xcalloc(columns * DRAW_BLOCK + 1, sizeof(*w.sums)),
        .values = xcalloc(columns * DRAW_BLOCK + 1, sizeof(*w.values)),
    };
    int block = 0;
    while ((block = atomic_fetch_add(&run->next_block, 1)) < run->n_blocks)
        run_block(run, block, &w);
    xfree(w.values);
    xfree(w.sums);
    xfree(w.hits);
    xfree(w.columns);
    xfree(w.counts);
    return NULL;
}

enum { MAX_THREADS = 16 };

static enum err_code run_threads(struct run *run, int64_t n_asked, struct err *e)
{
    int64_t n = n_asked > 0 ? n_asked : proc_cores();
    n = n < run->n_blocks ? n : run->n_blocks;
    n = n < MAX_THREADS ? n : MAX_THREADS;
    pthread_t threads[MAX_THREADS];
    int started = 0;
    enum err_code rc = ERR_OK;
    for (; started < (int)n - 1; started++) {
        int failed = pthread_create(&threads[started], NULL, run_blocks, run);
        if (failed != 0) {
            rc = err_set_errno(e, failed,
                               "cannot start a thread for the bootstrap; --threads 1 "
                               "needs none");
            break;
        }
    }
    run_blocks(run); /* this thread is one of them; the others stop when no block is left */
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return rc;
}

/* ---- before and after ---- */

/* Stored values and items come from the same numbers, the items rounded to 32 bits: a near tie may fall the other way. */
static bool agree(double stored, double from_items, enum metric_id m)
{
    return fabs(stored - from_items) <= (m == METRIC_NLL ? 1e-3 * fmax(1, fabs(stored)) : 2e-3);
}

static void mark_metric(struct run *run, enum metric_id m, bool *is_drawn, bool *is_missing,
                        bool *is_contradicted)
{
    const struct frame *f = run->frame;
    double limit = f->cap > 0 ? log(f->cap) : INFINITY;
    double *own = xcalloc((size_t)f->n + 1, sizeof(*own));
    int *n_parts = xcalloc((size_t)f->n + 1, sizeof(*n_parts));
    values_from_items(run, m, own, n_parts);
    int n_wanted = m == METRIC_NLL ? 1 : 4;
    for (int i = 0; i < f->n; i++) {
        double stored = f->rows[i].metric[m];
        double v = m == METRIC_NLL && !(own[i] <= limit) ? limit : own[i];
        if (!isfinite(stored))
            continue;
        bool is_whole = n_parts[i] == n_wanted;
        is_drawn[i] = is_whole && agree(stored, v, m);
        is_missing[i] = is_missing[i] || !is_whole;
        is_contradicted[i] = is_contradicted[i] || (is_whole && !is_drawn[i]);
    }
    xfree(n_parts);
    xfree(own);
}

static void mark_drawn(struct run *run, struct arena *a)
{
    struct bootstrap *b = run->out;
    size_t n = (size_t)run->frame->n;
    bool *is_drawn[METRIC_COUNT];
    bool *is_missing = arena_array(a, n + 1, sizeof(bool));
    bool *is_contradicted = arena_array(a, n + 1, sizeof(bool));
    for (int m = 0; m < METRIC_COUNT; m++) {
        is_drawn[m] = arena_array(a, n + 1, sizeof(bool));
        if (m == METRIC_NLL || m == METRIC_ZERO_SHOT || m == METRIC_ZERO_SHOT_NORM)
            mark_metric(run, (enum metric_id)m, is_drawn[m], is_missing, is_contradicted);
        b->is_drawn[m] = is_drawn[m];
    }
    b->is_drawn[METRIC_PERPLEXITY] = is_drawn[METRIC_NLL];
    for (size_t i = 0; i < n; i++) {
        b->n_not_drawn += is_missing[i] || is_contradicted[i];
        b->n_contradicted += is_contradicted[i];
    }
}

static enum err_code alloc_matrices(struct bootstrap *b, struct err *e)
{
    size_t cells = 0;
    if (!size_mul((size_t)b->n_rows, (size_t)b->n_resamples, &cells) ||
        !size_mul(cells, sizeof(double), &b->bytes))
        return err_set(e, ERR_NOMEM, "%d rows times %d resamples do not fit; use fewer --resamples",
                       b->n_rows, b->n_resamples);
    for (int m = 0; m < METRIC_COUNT; m++) {
        void *v = NULL;
        if (m != METRIC_KL)
            TRY(big_alloc(b->bytes, "the bootstrap's resamples (use fewer --resamples)", &v, e));
        b->value[m] = v;
    }
    return ERR_OK;
}

/* Rows that were not drawn keep their value; perplexity is exp of cross entropy; both are capped as the frame is. */
static void finish_matrices(struct bootstrap *b, const struct frame *f)
{
    double limit = f->cap > 0 ? log(f->cap) : INFINITY;
    for (int r = 0; r < b->n_resamples; r++) {
        size_t at = (size_t)r * (size_t)b->n_rows;
        for (int i = 0; i < f->n; i++) {
            const double *own = f->rows[i].metric;
            for (int m = 0; m < METRIC_COUNT; m++)
                if (m != METRIC_KL && !b->is_drawn[m][i])
                    b->value[m][at + (size_t)i] = own[m];
            double *nll = &b->value[METRIC_NLL][at + (size_t)i];
            if (b->is_drawn[METRIC_NLL][i] && !(*nll <= limit))
                *nll = limit;
            if (b->is_drawn[METRIC_PERPLEXITY][i])
                b->value[METRIC_PERPLEXITY][at + (size_t)i] = exp(*nll);
        }
    }
}

/* Resample by resample, as the matrices lie in memory. */
static void find_errors(struct bootstrap *b, const struct frame *f, struct arena *a)
{
    size_t n = (size_t)b->n_rows;
    double *mean = xcalloc(n + 1, sizeof(*mean));
    for (int m = 0; m < METRIC_COUNT; m++) {
        double *errors = arena_array(a, (size_t)f->n + 1, sizeof(*errors));
        memset(mean, 0, n * sizeof(*mean));
        int n_resamples = b->value[m] != NULL ? b->n_resamples : 0;
        for (int r = 0; r < n_resamples; r++)
            for (size_t i = 0; i < n; i++)
                mean[i] += b->value[m][(size_t)r * n + i] / n_resamples;
        for (int r = 0; r < n_resamples; r++)
            for (size_t i = 0; i < n; i++) {
                double off = b->value[m][(size_t)r * n + i] - mean[i];
                errors[i] += off * off;
            }
        for (size_t i = 0; i < n; i++)
            errors[i] =
                b->is_drawn[m][i] && n_resamples > 1 ? sqrt(errors[i] / (n_resamples - 1)) : NAN;
        b->stderr_[m] = errors;
    }
    xfree(mean);
}

/* From sums over all blocks, in their order. */
static double error_of(const struct run *run, int column)
{
    struct moments all = {0};
    for (int block = 0; block < run->n_blocks; block++) {
        const struct moments *m =
            &run->moments[(size_t)block * (size_t)run->n_columns + (size_t)column];
        all.sum += m->sum;
        all.squares += m->squares;
    }
    int n = run->out->n_resamples;
    double variance = (all.squares - all.sum * all.sum / n) / (n - 1);
    return n < 2 ? NAN : sqrt(fmax(variance, 0));
}

static void estimate_tasks(const struct run *run, struct arena *a)
{
    int n = run->frame->n;
    struct task_estimate *out[TASK_COUNT][SCORE_COUNT];
    for (int t = 0; t < TASK_COUNT; t++)
        for (int s = 0; s < SCORE_COUNT; s++) {
            out[t][s] = arena_array(a, (size_t)n + 1, sizeof(struct task_estimate));
            for (int i = 0; i < n; i++)
                out[t][s][i] = (struct task_estimate){NAN, NAN};
            run->out->task[t][s] = out[t][s];
        }
    for (int i = 0; i < run->n_columns; i++) {
        const struct column *c = &run->columns[i];
        struct task_estimate v = {run->values[i], error_of(run, i)};
        for (int row = run->first_row[i]; row >= 0; row = run->next_row[c->job->task][row])
            out[c->job->task][c->score][row] = v;
    }
}

enum err_code bootstrap_run(const struct frame *f, const struct items *items,
                            const struct bootstrap_opts *o, struct arena *a, struct bootstrap *out,
                            struct err *e)
{
    *out = (struct bootstrap){.n_rows = f->n, .n_resamples = (int)o->n_resamples};
    struct run run = {.frame = f,
                      .out = out,
                      .seed = (uint64_t)o->seed,
                      .n_blocks = (out->n_resamples + DRAW_BLOCK - 1) / DRAW_BLOCK};
    list_columns(&run, items, a);
    link_rows(&run, items, a);
    mark_drawn(&run, a);
    size_t n_moments = (size_t)run.n_blocks * (size_t)run.n_columns;
    run.moments = xcalloc(n_moments + 1, sizeof(*run.moments));
    enum err_code rc = ERR_OK;
    if (out->n_resamples > 0) {
        rc = alloc_matrices(out, e);
        if (rc == ERR_OK)
            rc = run_threads(&run, o->n_threads, e);
        if (rc == ERR_OK)
            finish_matrices(out, f);
    }
    if (rc == ERR_OK) {
        find_errors(out, f, a);
        estimate_tasks(&run, a);
    } else {
        bootstrap_release(out);
    }
    xfree(run.moments);
    return rc;
}

enum err_code bootstrap_load(struct store *s, const struct frame *f, const struct bootstrap_opts *o,
                             struct arena *a, struct items *items, struct bootstrap *out,
                             struct err *e)
{
    *items = (struct items){0};
    if (o->n_resamples > 0)
        TRY(items_read(s, f, a, items, e));
    return bootstrap_run(f, items, o, a, out, e);
}

void bootstrap_release(struct bootstrap *b)
{
    for (int m = 0; m < METRIC_COUNT; m++) {
        if (b->value[m] != NULL)
            big_free(b->value[m], b->bytes);
        b->value[m] = NULL;
    }
}

/* ---- intervals ---- */

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double p)
{
    double at = p * (n - 1);
    int low = (int)at;
    int high = low + 1 < n ? low + 1 : low;
    return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

struct interval interval_of(double *v, int n)
{
    if (n < 2)
        return (struct interval){NAN, NAN};
    qsort(v, (size_t)n, sizeof(*v), compare_double);
    return (struct interval){quantile(v, n, 0.025), quantile(v, n, 0.975)};
}

double spread_of(const double *v, int n)
{
    if (n < 2)
        return NAN;
    double mean = 0;
    for (int i = 0; i < n; i++)
        mean += v[i] / n;
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += (v[i] - mean) * (v[i] - mean);
    return sqrt(squares / (n - 1));
}

struct interval bootstrap_interval(const struct bootstrap *b, enum metric_id m,
                                   const struct linear *l)
{
    if (l->n == 0 || b->value[m] == NULL)
        return (struct interval){NAN, NAN};
    double *v = xcalloc((size_t)b->n_resamples, sizeof(*v));
    for (int r = 0; r < b->n_resamples; r++)
        v[r] = linear_at(l, b->value[m] + (size_t)r * (size_t)b->n_rows);
    struct interval i = interval_of(v, b->n_resamples);
    xfree(v);
    return i;
}

void bootstrap_best(const struct bootstrap *b, enum metric_id m, const struct group *g, double x,
                    double *p)
{
    bool is_larger_better = metric_info_of(m)->is_larger_better;
    struct arena a = {0};
    struct linear *at = arena_array(&a, (size_t)g->n_curves + 1, sizeof(*at));
    for (int c = 0; c < g->n_curves; c++) {
        at[c] = linear_value(&g->curves[c], x, &a);
        p[c] = b->value[m] != NULL ? 0 : NAN;
    }
    for (int r = 0; b->value[m] != NULL && r < b->n_resamples; r++) {
        const double *values = b->value[m] + (size_t)r * (size_t)b->n_rows;
        int best = -1;
        double best_value = NAN;
        for (int c = 0; c < g->n_curves; c++) {
            double v = linear_at(&at[c], values);
            if (at[c].n > 0 && (best < 0 || (is_larger_better ? v > best_value : v < best_value))) {
                best = c;
                best_value = v;
            }
        }
        if (best >= 0)
            p[best] += 1.0 / b->n_resamples;
    }
    arena_release(&a);
}

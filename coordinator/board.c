#include "coordinator/board.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- loading ---- */

struct loader {
    struct board *b;
    int64_t cap;
    int32_t *
        rank; /* of a configuration within a checkpoint: 16-bit ones first, as the engine wants its baseline */
};

/* Rows are never deleted and ids ascend, so that an index stays the same over reloads. */
#define FIND_BY_ID(list, n, wanted)                                                                \
    int32_t lo = 0, hi = (n)-1;                                                                    \
    while (lo < hi) {                                                                              \
        int32_t mid = lo + (hi - lo) / 2;                                                          \
        if ((list)[mid].id < (wanted))                                                             \
            lo = mid + 1;                                                                          \
        else                                                                                       \
            hi = mid;                                                                              \
    }                                                                                              \
    return (n) > 0 && (list)[lo].id == (wanted) ? lo : -1

static int32_t model_index(const struct store_parts *p, int64_t id)
{
    FIND_BY_ID(p->models, p->n_models, id);
}

static int32_t config_index(const struct store_parts *p, int64_t id)
{
    FIND_BY_ID(p->configs, p->n_configs, id);
}

static int32_t eval_index(const struct store_parts *p, int64_t id)
{
    FIND_BY_ID(p->evals, p->n_evals, id);
}

/* While loading, `cell` holds the configuration and `prev` the model: the cells do not exist yet. */
static enum err_code add_job(void *arg, const struct store_open_job *j, struct err *e)
{
    struct loader *l = arg;
    struct board *b = l->b;
    if (b->n_jobs == l->cap) {
        l->cap = l->cap != 0 ? l->cap + l->cap / 2 : 1024;
        b->jobs = xrealloc(b->jobs, (size_t)l->cap * sizeof(*b->jobs));
    }
    struct board_job job = {
        .id = j->id,
        .worker_id = j->worker_id,
        .cell = config_index(&b->parts, j->config_id),
        .eval = eval_index(&b->parts, j->eval_id),
        .prev = model_index(&b->parts, j->model_id),
        .set_id = (int32_t)j->set_id,
        .attempt = j->attempt,
        .failures = j->failures,
        .priority = j->priority,
        .owner = -1,
        .avoid = -1,
        .is_pending = j->worker_id == 0,
        .is_open = true,
    };
    if (job.cell < 0 || job.eval < 0 || job.prev < 0)
        return err_set(
            e, ERR_FORMAT,
            "job %lld names a model, configuration or evaluation that is not in the database; "
            "go back to a copy made by `isobit backup`",
            (long long)j->id);
    b->jobs[b->n_jobs++] = job;
    b->max_id = j->id;
    return ERR_OK;
}

static int compare(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_jobs(const void *pa, const void *pb, void *arg)
{
    const struct loader *l = arg;
    const struct board_job *a = pa, *b = pb;
    int c = compare(a->prev, b->prev);
    if (c == 0)
        c = compare(l->rank[a->cell], l->rank[b->cell]);
    return c != 0 ? c : compare(a->eval, b->eval);
}

static void rank_configs(struct loader *l)
{
    const struct store_parts *p = &l->b->parts;
    l->rank = xcalloc((size_t)p->n_configs, sizeof(*l->rank));
    int32_t next = 0;
    for (int is_quantized = 0; is_quantized <= 1; is_quantized++)
        for (int i = 0; i < p->n_configs; i++)
            if ((p->configs[i].config.k < 16) == is_quantized)
                l->rank[i] = next++;
}

/* A plan inserts in this order, so that sorting is only needed after several plans. */
static void sort_jobs(struct loader *l)
{
    struct board *b = l->b;
    for (int64_t i = 1; i < b->n_jobs; i++) {
        if (compare_jobs(&b->jobs[i - 1], &b->jobs[i], l) > 0) {
            qsort_r(b->jobs, (size_t)b->n_jobs, sizeof(*b->jobs), compare_jobs, l);
            return;
        }
    }
}

/* Room for one more in an array of *n; returns the new one, all zero. */
static void *grow(void **array, int32_t *n, size_t size)
{
    enum { FIRST = 64 };
    bool is_full = *n == 0 || (*n >= FIRST && (*n & (*n - 1)) == 0);
    if (is_full)
        *array = xrealloc(*array, size * (size_t)(*n < FIRST ? FIRST : 2 * *n));
    void *last = (char *)*array + size * (size_t)*n;
    memset(last, 0, size);
    ++*n;
    return last;
}

static void make_cells(struct board *b)
{
    struct board_cell *c = NULL;
    for (int32_t i = 0; i < b->n_jobs; i++) {
        struct board_job *j = &b->jobs[i];
        if (c == NULL || c->model != j->prev || c->config != j->cell) {
            c = grow((void **)&b->cells, &b->n_cells, sizeof(*c));
            *c = (struct board_cell){
                .model = j->prev, .config = j->cell, .first_job = i, .priority = j->priority};
        }
        c->n_jobs++;
        c->n_pending += j->is_pending;
        c->priority = j->priority > c->priority ? j->priority : c->priority;
    }
}

static enum compute compute_of_cell(const struct board *b, const struct board_cell *c)
{
    return b->parts.configs[c->config].config.compute;
}

static int compare_cells(const void *pa, const void *pb, void *arg)
{
    const struct loader *l = arg;
    const struct board_cell *a = pa, *b = pb;
    int c = compare(a->model, b->model);
    if (c == 0)
        c = compare(compute_of_cell(l->b, a), compute_of_cell(l->b, b));
    if (c == 0)
        c = compare(b->priority, a->priority);
    return c != 0 ? c : compare(l->rank[a->config], l->rank[b->config]);
}

static void make_lanes(struct loader *l)
{
    struct board *b = l->b;
    struct board_lane *lane = NULL;
    if (b->n_cells > 0) /* an empty array is NULL, which qsort_r may not be given */
        qsort_r(b->cells, (size_t)b->n_cells, sizeof(*b->cells), compare_cells, l);
    for (int32_t i = 0; i < b->n_cells; i++) {
        struct board_cell *c = &b->cells[i];
        if (lane == NULL || lane->model != c->model || lane->compute != compute_of_cell(b, c) ||
            lane->priority != c->priority) {
            lane = grow((void **)&b->lanes, &b->n_lanes, sizeof(*lane));
            *lane = (struct board_lane){.model = c->model,
                                        .compute = compute_of_cell(b, c),
                                        .priority = c->priority,
                                        .first_cell = i,
                                        .cursor = i};
        }
        c->lane = b->n_lanes - 1;
        lane->n_cells++;
        lane->n_pending += c->n_pending;
        lane->n_pending_cells += c->n_pending > 0;
        b->n_pending += c->n_pending;
    }
}

static void link_jobs(struct board *b)
{
    b->by_id = xmalloc((size_t)(b->max_id + 1) * sizeof(*b->by_id));
    memset(b->by_id, 0xff, (size_t)(b->max_id + 1) * sizeof(*b->by_id));
    b->n_open = xcalloc((size_t)b->parts.n_models * (size_t)b->parts.n_evals, sizeof(*b->n_open));
    for (int32_t c = 0; c < b->n_cells; c++) {
        const struct board_cell *cell = &b->cells[c];
        for (int32_t i = cell->first_job; i < cell->first_job + cell->n_jobs; i++) {
            struct board_job *j = &b->jobs[i];
            j->cell = c;
            j->prev = j->next = -1;
            b->by_id[j->id] = i;
            b->n_open[(int64_t)cell->model * b->parts.n_evals + j->eval]++;
        }
    }
}

enum err_code board_load(struct board *b, struct store *s, struct err *e)
{
    struct loader l = {.b = b};
    board_release(b);
    enum err_code rc = store_load_parts(s, &b->arena, &b->parts, e);
    if (rc == ERR_OK)
        rc = store_each_open_job(s, add_job, &l, e);
    if (rc == ERR_OK) {
        rank_configs(&l);
        sort_jobs(&l);
        make_cells(b);
        make_lanes(&l);
        link_jobs(b);
        xfree(l.rank);
    } else {
        board_release(b);
    }
    return rc;
}

void board_release(struct board *b)
{
    xfree(b->jobs);
    xfree(b->cells);
    xfree(b->lanes);
    xfree(b->by_id);
    xfree(b->n_open);
    arena_release(&b->arena);
    *b = (struct board){0};
}

/* ---- moving jobs ---- */

int32_t board_find(const struct board *b, int64_t job_id)
{
    if (job_id < 1 || job_id > b->max_id)
        return -1;
    int32_t i = b->by_id[job_id];
    return i >= 0 && b->jobs[i].is_open ? i : -1;
}

const struct board_cell *board_cell_of(const struct board *b, int32_t job)
{
    return &b->cells[b->jobs[job].cell];
}

/* `by` is 1 or -1. */
static void count_pending(struct board *b, const struct board_job *j, int32_t by)
{
    struct board_cell *c = &b->cells[j->cell];
    struct board_lane *l = &b->lanes[c->lane];
    if (c->n_pending == 0)
        l->n_pending_cells++;
    c->n_pending += by;
    if (c->n_pending == 0)
        l->n_pending_cells--;
    l->n_pending += by;
    b->n_pending += by;
    if (by > 0 && j->cell < l->cursor)
        l->cursor = j->cell;
    while (l->cursor < l->first_cell + l->n_cells && b->cells[l->cursor].n_pending == 0)
        l->cursor++;
}

void board_take(struct board *b, int32_t job, int32_t owner, struct board_list *held)
{
    struct board_job *j = &b->jobs[job];
    CHECK(j->is_open && j->owner < 0);
    if (j->is_pending) {
        j->is_pending = false;
        count_pending(b, j, -1);
    }
    j->owner = owner;
    j->next = -1;
    j->prev = held->n > 0 ? held->tail : -1;
    if (held->n > 0)
        b->jobs[held->tail].next = job;
    else
        held->head = job;
    held->tail = job;
    held->n++;
}

static void unlink_job(struct board *b, int32_t job, struct board_list *held)
{
    struct board_job *j = &b->jobs[job];
    CHECK(j->owner >= 0 && held->n > 0);
    if (j->prev >= 0)
        b->jobs[j->prev].next = j->next;
    else
        held->head = j->next;
    if (j->next >= 0)
        b->jobs[j->next].prev = j->prev;
    else
        held->tail = j->prev;
    held->n--;
    j->owner = -1;
    j->worker_id = 0;
}

void board_put_back(struct board *b, int32_t job, struct board_list *held)
{
    struct board_job *j = &b->jobs[job];
    unlink_job(b, job, held);
    j->is_pending = true;
    count_pending(b, j, 1);
}

void board_close(struct board *b, int32_t job, struct board_list *held)
{
    struct board_job *j = &b->jobs[job];
    unlink_job(b, job, held);
    j->is_open = false;
    b->n_open[(int64_t)b->cells[j->cell].model * b->parts.n_evals + j->eval]--;
}

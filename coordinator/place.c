#include "coordinator/place.h"

#include <math.h>

#include "base/mem.h"

int64_t place_bytes(const struct store_model *m, enum compute c)
{
    /* Master and quantized copy, both in the arithmetic's width (models spec, section 4: memory). */
    int64_t width = c == COMPUTE_FP32 ? 4 : 2;
    return m->n_params * 2 * width;
}

static bool fits(const struct session *s, const struct board *b, const struct board_lane *l)
{
    return s->memory_bytes == 0 ||
           place_bytes(&b->parts.models[l->model], l->compute) <= s->memory_bytes;
}

static bool can_run(const struct session_table *t, const struct session *s,
                    const struct board_lane *l)
{
    return s->is_live && (s->computes >> l->compute & 1) != 0 &&
           !session_refuses(s, WIRE_LACK_CHECKPOINT, l->model) &&
           !session_is_too_small(t, s, l->model);
}

/* A checkpoint too large for a worker goes to one that it fits; when it fits nobody, the worker may stream it, or says
 * that it cannot. */
static bool is_for_another(const struct board *b, const struct session_table *t,
                           const struct session *s, const struct board_lane *l)
{
    if (fits(s, b, l))
        return false;
    for (int i = 0; i < t->n_slots; i++)
        if (t->v[i] != NULL && can_run(t, t->v[i], l) && fits(t->v[i], b, l))
            return true;
    return false;
}

/* Other live sessions that have this checkpoint loaded. */
static int n_attending(const struct session_table *t, int slot, int32_t model)
{
    int n = 0;
    for (int i = 0; i < t->n_slots; i++)
        n += i != slot && t->v[i] != NULL && t->v[i]->is_live && t->v[i]->model == model;
    return n;
}

/* The same for all checkpoints at once: [models], caller frees. */
static int *count_attending(const struct board *b, const struct session_table *t, int slot)
{
    int *n = xcalloc((size_t)b->parts.n_models, sizeof(*n));
    for (int i = 0; i < t->n_slots; i++)
        if (i != slot && t->v[i] != NULL && t->v[i]->is_live && t->v[i]->model >= 0)
            n[t->v[i]->model]++;
    return n;
}

/* What decides between two lanes, most important first. */
struct merit {
    double v[4];
};

static struct merit merit_of(const struct board *b, const struct session *s, int others,
                             const struct board_lane *l)
{
    double size = (double)b->parts.models[l->model].n_params;
    return (struct merit){{
        l->priority, s->model == l->model ? 2 : others == 0,
        others == 0 ? size : (double)l->n_pending / (others + 1),
        l->model, /* a size may not be known; specs list small ones first */
    }};
}

static bool is_better(const struct merit *a, const struct merit *b)
{
    for (size_t i = 0; i < ARRAY_LEN(a->v); i++)
        if (a->v[i] != b->v[i])
            return a->v[i] > b->v[i];
    return false;
}

int32_t place_lane(const struct board *b, const struct session_table *t, int slot, const bool *skip)
{
    const struct session *s = t->v[slot];
    int *others = count_attending(b, t, slot);
    int32_t best = -1;
    struct merit best_merit = {{0}};
    for (int32_t i = 0; i < b->n_lanes; i++) {
        const struct board_lane *l = &b->lanes[i];
        if (l->n_pending == 0 || (skip != NULL && skip[i]) || !can_run(t, s, l) ||
            is_for_another(b, t, s, l))
            continue;
        struct merit m = merit_of(b, s, others[l->model], l);
        if (best < 0 || is_better(&m, &best_merit)) {
            best = i;
            best_merit = m;
        }
    }
    xfree(others);
    return best;
}

/* ---- the length of a slice ---- */

static int n_models_with_work(const struct board *b)
{
    int n = 0;
    int32_t last = -1; /* lanes of a checkpoint stand together */
    for (int32_t i = 0; i < b->n_lanes; i++) {
        if (b->lanes[i].n_pending > 0 && b->lanes[i].model != last) {
            n++;
            last = b->lanes[i].model;
        }
    }
    return n;
}

/* Cells a slice may have at most: half of what is left for each of the workers that share the lane now or will at the end,
 * so that they end together. */
static int32_t max_cells(const struct board *b, const struct session_table *t, int slot,
                         const struct board_lane *l)
{
    int attending = 1 + n_attending(t, slot, l->model);
    int n_models = n_models_with_work(b);
    int spread = n_models > 0 ? (t->n_live + n_models - 1) / n_models : 1;
    int sharing = attending > spread ? attending : spread;
    int32_t share = (l->n_pending_cells + 2 * sharing - 1) / (2 * sharing);
    return share > 1 ? share : 1;
}

/* Another live worker could run this lane. */
static bool has_other(const struct session_table *t, int slot, const struct board_lane *l)
{
    for (int i = 0; i < t->n_slots; i++)
        if (i != slot && t->v[i] != NULL && can_run(t, t->v[i], l))
            return true;
    return false;
}

/* Seconds a session needs for a job, as far as measured jobs tell; when none does, a slice's length. */
static double expected_seconds(const struct board *b, const struct pace *p, const struct session *s,
                               const struct board_job *j, double slice_s)
{
    double seconds = pace_job_seconds(p, &b->parts, b->cells[j->cell].model, j->eval);
    return seconds < 0 ? slice_s : seconds * s->slowness;
}

/* Until the session leaves, less what it has in hand. */
static double seconds_left(const struct board *b, const struct pace *p, const struct session *s,
                           double slice_s, int64_t now_ns)
{
    if (s->end_ns == 0)
        return INFINITY;
    double left = (double)(s->end_ns - now_ns) * 1e-9;
    for (int32_t i = 0, j = s->held.head; i < s->held.n; i++, j = b->jobs[j].next)
        left -= expected_seconds(b, p, s, &b->jobs[j], slice_s);
    return left;
}

/* Seconds of the jobs just added; negative as long as this checkpoint has not been measured. */
static double seconds_of(const struct board *b, const struct pace *p, int32_t model,
                         const int32_t *jobs, int n)
{
    double total = 0;
    for (int i = 0; i < n; i++) {
        if (!pace_is_measured(p, model, b->jobs[jobs[i]].eval))
            return -1;
        total += pace_job_seconds(p, &b->parts, model, b->jobs[jobs[i]].eval);
    }
    return total;
}

static bool is_refused(const struct session *s, const struct board_job *j)
{
    return session_refuses(s, WIRE_LACK_DATA, j->eval) ||
           session_refuses(s, WIRE_LACK_CONFIGURATION, j->id);
}

int place_slice(const struct board *b, const struct pace *p, const struct session_table *t,
                int slot, int32_t lane, const struct place_time *time, int32_t *jobs, int max)
{
    const struct board_lane *l = &b->lanes[lane];
    int32_t cells_left = max_cells(b, t, slot, l);
    bool is_elsewhere = has_other(t, slot, l);
    double seconds = 0, left = seconds_left(b, p, t->v[slot], time->slice_s, time->now_ns);
    int n = 0;
    for (int32_t c = l->cursor; c < l->first_cell + l->n_cells && cells_left > 0; c++) {
        const struct board_cell *cell = &b->cells[c];
        if (cell->n_pending == 0)
            continue;
        if (n > 0 && n + cell->n_pending > max)
            break;
        int before = n;
        for (int32_t i = cell->first_job; i < cell->first_job + cell->n_jobs && n < max; i++) {
            const struct board_job *j = &b->jobs[i];
            /* A job that failed here last has its next try elsewhere, as long as there is an elsewhere. */
            bool is_avoided = j->avoid == slot && is_elsewhere;
            if (!j->is_pending || is_avoided || is_refused(t->v[slot], j))
                continue;
            double needed = isinf(left) ? 0 : expected_seconds(b, p, t->v[slot], j, time->slice_s);
            if (needed > left) /* it would be cut short */
                continue;
            left -= needed;
            jobs[n++] = i;
        }
        if (n == before)
            continue;
        cells_left--;
        double more = seconds_of(b, p, l->model, jobs + before, n - before);
        if (more < 0) /* the first slice of a checkpoint is one configuration: it measures */
            break;
        seconds += more * t->v[slot]->slowness;
        if (seconds >= time->slice_s)
            break;
    }
    return n;
}

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/claims_impl.h"

/* ---- what of the frame is looked at ---- */

const char *world_compute(const struct frame *f)
{
    const char *best = NULL;
    int most = 0;
    for (int v = 0; v < COMPUTE_COUNT; v++) {
        const char *label = compute_label((enum compute)v);
        int n = 0;
        for (int i = 0; i < f->n; i++)
            n += strcmp(f->rows[i].compute, label) == 0;
        if (n > most) {
            most = n;
            best = label;
        }
    }
    return best;
}

struct picked {
    const struct frame_row *row;
    int origin; /* row of the frame */
};

static int compare_picked(const void *a, const void *b)
{
    const struct picked *x = a;
    const struct picked *y = b;
    if (x->row->model_id != y->row->model_id)
        return x->row->model_id < y->row->model_id ? -1 : 1;
    if (x->row->config_id != y->row->config_id)
        return x->row->config_id < y->row->config_id ? -1 : 1;
    return x->origin - y->origin;
}

/* A cell that several sweeps share is looked at once; a frame made without a database has no ids and is taken as it is. */
static bool is_repeated(const struct picked *p, int i)
{
    return i > 0 && p[i].row->model_id != 0 && p[i - 1].row->model_id == p[i].row->model_id &&
           p[i - 1].row->config_id == p[i].row->config_id;
}

/* Rows of the wanted precision as one sweep; origin[i] is the frame's row of the i-th. */
static struct frame pick_rows(const struct frame *f, const char *compute, struct arena *a,
                              int *origin)
{
    struct picked *picked = arena_array(a, (size_t)f->n + 1, sizeof(*picked));
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->rows[i].compute, compute) == 0)
            picked[n++] = (struct picked){&f->rows[i], i};
    qsort(picked, (size_t)n, sizeof(*picked), compare_picked);
    struct frame out = {.rows = arena_array(a, (size_t)n + 1, sizeof(*out.rows)), .cap = f->cap};
    for (int i = 0; i < n; i++) {
        if (is_repeated(picked, i))
            continue;
        origin[out.n] = picked[i].origin;
        out.rows[out.n] = *picked[i].row;
        out.rows[out.n++].sweep = "";
    }
    return out;
}

/* ---- the world ---- */

static const struct {
    const char *name;
    enum claim_family id;
} family_names[] = {
    {"opt", FAMILY_OPT},       {"pythia", FAMILY_PYTHIA}, {"neox", FAMILY_PYTHIA},
    {"gpt2", FAMILY_GPT2},     {"gpt-2", FAMILY_GPT2},    {"bloom", FAMILY_BLOOM},
    {"bloomz", FAMILY_BLOOMZ},
};

static enum claim_family family_id(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(family_names); i++)
        if (strcmp(family_names[i].name, name) == 0)
            return family_names[i].id;
    return FAMILY_OTHER;
}

static struct world_family *family_for(struct world *w, const char *name, struct arena *a)
{
    for (int i = 0; i < w->n_families; i++)
        if (strcmp(w->families[i].name, name) == 0)
            return &w->families[i];
    struct world_family *f = &w->families[w->n_families++];
    *f = (struct world_family){
        .name = name,
        .id = family_id(name),
        .groups = arena_array(a, (size_t)w->n_groups, sizeof(*f->groups)),
    };
    return f;
}

/* "float E3" is a type with its exponent bits; false for settings that no claim is about. */
static bool slice_of(const struct setting *s, struct slice *out)
{
    int exponent_bits = 0;
    const char *space = strchr(s->dtype, ' ');
    size_t length = space != NULL ? (size_t)(space - s->dtype) : strlen(s->dtype);
    if (space != NULL && space[1] == 'E')
        exponent_bits = (int)strtol(space + 2, NULL, 10);
    int dtype = dtype_of((struct str){s->dtype, length});
    *out = (struct slice){.dtype = (enum dtype)dtype,
                          .exponent_bits = exponent_bits,
                          .block = s->block,
                          .outlier_pct = s->outlier_pct,
                          .is_centered = strcmp(s->center, "tensor") == 0};
    return dtype >= 0 && s->subnormal_shift == 0 && s->also[0] == '\0' &&
           strcmp(s->center, "block") != 0 &&
           (s->outlier_pct == 0 || strcmp(s->outlier_rule, "previous") == 0);
}

static void point_to_frame(struct group *g, const int *origin, struct arena *a)
{
    for (int c = 0; c < g->n_curves; c++)
        for (int p = 0; p < g->curves[c].n; p++) {
            struct curve_point *point = &g->curves[c].points[p];
            int *rows = arena_array(a, (size_t)point->n_rows, sizeof(*rows));
            for (int i = 0; i < point->n_rows; i++)
                rows[i] = origin[point->rows[i]];
            point->rows = rows;
        }
}

struct slice slice_default(enum dtype t)
{
    return (struct slice){.dtype = t, .block = 64};
}

static bool slice_equal(const struct slice *x, const struct slice *y)
{
    return x->dtype == y->dtype && x->block == y->block && x->exponent_bits == y->exponent_bits &&
           x->is_centered == y->is_centered && x->outlier_pct == y->outlier_pct;
}

static struct group *group_of(const struct world_family *f, const struct slice *s)
{
    for (int g = 0; g < f->n_groups; g++)
        if (slice_equal(&f->groups[g].slice, s))
            return f->groups[g].group;
    return NULL;
}

/* True when it added a lane. */
static bool add_lane(struct world *w, const struct world_family *f, enum dtype t, struct arena *a)
{
    struct slice s = slice_default(t);
    struct group *g = group_of(f, &s);
    if (g == NULL)
        return false;
    const char *label = arena_printf(a, "%s, %s", f->name, dtype_label(t));
    w->lanes[w->n_lanes++] = (struct lane){f, s, g, label};
    return true;
}

static void add_lanes(struct world *w, struct arena *a)
{
    w->lanes = arena_array(a, (size_t)w->n_families * 2 + 1, sizeof(*w->lanes));
    for (int f = 0; f < w->n_families; f++) {
        bool has_float = add_lane(w, &w->families[f], DTYPE_float, a);
        bool has_quantile = add_lane(w, &w->families[f], DTYPE_quantile, a);
        if (!has_float && !has_quantile)
            add_lane(w, &w->families[f], DTYPE_int, a);
    }
}

struct world world_build(const struct frame *f, const char *compute, enum metric_id m,
                         enum bits_id b, struct arena *a)
{
    struct world w = {.metric = m, .bits = b, .n_frame_rows = f->n};
    int *origin = arena_array(a, (size_t)f->n + 1, sizeof(*origin));
    struct frame *picked = arena_alloc(a, sizeof(*picked)); /* groups point into it */
    *picked = pick_rows(f, compute, a, origin);
    w.rows = origin;
    w.n_rows = picked->n;
    int n_dropped = 0;
    w.groups = groups_build(picked, m, b, a, &w.n_groups, &n_dropped);
    w.families = arena_array(a, (size_t)w.n_groups + 1, sizeof(*w.families));
    for (int i = 0; i < w.n_groups; i++) {
        struct slice slice;
        point_to_frame(&w.groups[i], origin, a);
        if (!slice_of(&w.groups[i].setting, &slice))
            continue;
        struct world_family *family = family_for(&w, w.groups[i].family, a);
        family->groups[family->n_groups++] = (struct world_group){slice, &w.groups[i]};
    }
    add_lanes(&w, a);
    return w;
}

void world_set(struct world *w, const double *values, double *scratch)
{
    bool is_nll = w->metric == METRIC_NLL;
    for (int i = 0; i < w->n_frame_rows; i++)
        scratch[i] = is_nll ? -fmin(values[i], log(100)) / CLAIM_NATS_PER_POINT : 100 * values[i];
    for (int i = 0; i < w->n_groups; i++)
        group_set_values(&w->groups[i], scratch);
}

/* ---- access ---- */

const struct curve *curve_of(const struct world_family *f, struct slice s, int k)
{
    if (s.exponent_bits != 0 && s.exponent_bits == config_heuristic_exponent_bits(k))
        s.exponent_bits = 0;
    const struct group *g = group_of(f, &s);
    return g != NULL ? group_curve(g, k) : NULL;
}

void use_point(struct claim_ctx *c, const struct curve_point *p)
{
    for (int i = 0; c->used != NULL && i < p->n_rows; i++)
        c->used[p->rows[i]] = true;
}

void use_curve(struct claim_ctx *c, const struct curve *x)
{
    for (int i = 0; c->used != NULL && i < x->n; i++)
        use_point(c, &x->points[i]);
}

double gap_of(struct claim_ctx *c, const struct curve *x, const struct curve *y)
{
    if (x == NULL || y == NULL || x->n < CLAIM_MIN_SIZES || y->n < CLAIM_MIN_SIZES)
        return NAN;
    double gap = curve_gap(x, y);
    if (!isnan(gap)) {
        use_curve(c, x);
        use_curve(c, y);
    }
    return gap;
}

double gap_at(struct claim_ctx *c, const struct world_family *f, struct slice x, int kx,
              struct slice y, int ky)
{
    return gap_of(c, curve_of(f, x, kx), curve_of(f, y, ky));
}

const struct curve_point *point_of(struct claim_ctx *c, const struct curve *x, const char *size)
{
    for (int i = 0; x != NULL && i < x->n; i++)
        if (strcmp(x->points[i].size, size) == 0) {
            use_point(c, &x->points[i]);
            return &x->points[i];
        }
    return NULL;
}

void mean_add(struct mean *m, double v)
{
    if (isnan(v))
        return;
    m->sum += v;
    m->n++;
}

double mean_of(const struct mean *m)
{
    return m->n > 0 ? m->sum / m->n : NAN;
}

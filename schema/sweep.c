/* Expansion of a sweep spec: grids multiplied out, cells united, excludes taken off, jobs put in order. */
#include "schema/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "schema/sweep_spec.h"

/* Bounds on what a spec can cost. A grid far beyond the paper's has 35,000 configurations. */
static const int64_t cells_max = 1000000; /* of all grids, before equal ones are counted once */
static const int64_t jobs_max = 10000000;
static const int64_t visits_max = 200000000; /* models times cells */
enum { SPEC_FILE_BYTES_MAX = 8 << 20 };

/* ---- distinct configurations ---- */

struct config_set {
    struct config *v;
    int n, cap;
    int32_t *slots; /* open addressing; index + 1 into v, 0: free */
    size_t n_slots; /* a power of two, more than twice n */
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ (h >> 29);
}

static uint64_t config_hash(const struct config *c)
{
    uint64_t h = 1;
    for (int x = 0; x < AXIS_COUNT; x++) {
        double v = axis_get(c, (enum axis)x);
        uint64_t bits = 0;
        memcpy(&bits, &v, sizeof(bits));
        h = mix(h, bits);
    }
    return h;
}

static int32_t *find_slot(const struct config_set *s, const struct config *c)
{
    size_t i = config_hash(c) & (s->n_slots - 1);
    while (s->slots[i] != 0 && !config_equal(&s->v[s->slots[i] - 1], c))
        i = (i + 1) & (s->n_slots - 1);
    return &s->slots[i];
}

static void config_set_grow(struct config_set *s)
{
    s->cap = s->cap != 0 ? 2 * s->cap : 256;
    s->v = xrealloc(s->v, (size_t)s->cap * sizeof(*s->v));
    xfree(s->slots);
    s->n_slots = 4 * (size_t)s->cap;
    s->slots = xcalloc(s->n_slots, sizeof(*s->slots));
    for (int i = 0; i < s->n; i++)
        *find_slot(s, &s->v[i]) = i + 1;
}

/* The index of the configuration, which joins the set if it is new. */
static int config_set_add(struct config_set *s, const struct config *c)
{
    if (s->n == s->cap)
        config_set_grow(s);
    int32_t *slot = find_slot(s, c);
    if (*slot == 0) {
        s->v[s->n++] = *c;
        *slot = s->n;
    }
    return *slot - 1;
}

/* ---- order ---- */

struct ranked {
    struct config config;
    int32_t index; /* where it stood */
};

/* The frozen order of configurations within a model: the 16-bit baseline first, as the engine compares with
 * it, then weights as stored, then from many bits to few; whole-tensor constants after all block sizes. */
static double order_of(const struct config *c, enum axis x)
{
    double v = axis_get(c, x);
    if (x == AXIS_K)
        return v == 16 ? 0 : v == 32 ? 1 : 16 - v;
    if (x == AXIS_BLOCK && v == 0)
        return 1e12;
    return v;
}

static int ranked_compare(const void *pa, const void *pb)
{
    const struct ranked *a = pa;
    const struct ranked *b = pb;
    for (int x = 0; x < AXIS_COUNT; x++) {
        double va = order_of(&a->config, (enum axis)x);
        double vb = order_of(&b->config, (enum axis)x);
        if (va != vb)
            return va < vb ? -1 : 1;
    }
    return 0;
}

/* ---- cells of grids ---- */

struct cells {
    int32_t *v; /* configurations, by index */
    size_t n;
};

struct expansion {
    const struct spec_source *src;
    const struct sweep_spec *spec;
    struct config_set configs;
    struct cells *cells; /* of each grid */
    uint64_t *evals;     /* of one model: bit mask of evaluations for each configuration */
    bool *config_is_used, *model_is_used;
    int64_t n_jobs;
};

static bool value_matches(double listed, const struct config *c, enum axis x)
{
    if (x == AXIS_EXPONENT_BITS && listed == EXPONENT_BITS_PAPER)
        listed = config_paper_exponent_bits(c->k);
    return listed == axis_get(c, x);
}

/* A cell is in a set when each axis the set names has one of the named values. An axis that means nothing
 * for the cell matches nothing, so that {dtype: int} leaves the 16-bit baseline alone. Impossible cells
 * are matched as they were written. */
static bool axes_match(const struct spec_grid *g, const struct config *c, bool is_impossible)
{
    for (int x = 0; x < AXIS_COUNT; x++) {
        const struct spec_values *values = &g->axis[x];
        bool is_match = values->n == 0;
        if (!is_match && !is_impossible && !axis_applies(c, (enum axis)x))
            return false;
        for (int i = 0; i < values->n && !is_match; i++)
            is_match = value_matches(values->v[i], c, (enum axis)x);
        if (!is_match)
            return false;
    }
    return true;
}

static bool is_dropped_everywhere(const struct sweep_spec *spec, const struct config *c)
{
    for (int i = 0; i < spec->n_excludes; i++) {
        const struct spec_grid *x = &spec->excludes[i];
        if (x->family.n == 0 && x->size.n == 0 && x->evaluation.n == 0 && axes_match(x, c, true))
            return true;
    }
    return false;
}

/* Names the cell, and the line that takes it out. */
static enum err_code impossible_cell(const struct expansion *x, const struct spec_grid *g,
                                     const int *at, struct err *e)
{
    struct buf cell = {0};
    for (int i = 0; i < AXIS_COUNT; i++) {
        enum axis axis = (enum axis)i;
        if (g->axis[i].n == 0 || axis == AXIS_COMPUTE)
            continue;
        buf_printf(&cell, "%s%s: %s", cell.len == 0 ? "" : ", ", axis_key(axis),
                   axis_spell(axis, g->axis[i].v[at[i]], x->src->arena));
    }
    enum err_code rc =
        spec_error(x->src, g->mark, e,
                   "an impossible cell: %s; take the value out of this grid, or add under "
                   "exclude: - {%s}",
                   e->text, cell.data != NULL ? cell.data : "");
    buf_release(&cell);
    return rc;
}

static struct config cell_at(const struct spec_grid *g, const int *at)
{
    struct config c = config_default();
    for (int x = 0; x < AXIS_COUNT; x++) {
        if (g->axis[x].n != 0)
            axis_set(&c, (enum axis)x, g->axis[x].v[at[x]]);
    }
    if (c.exponent_bits == EXPONENT_BITS_PAPER)
        c.exponent_bits = config_paper_exponent_bits(c.k);
    return c;
}

/* Odometer over the axes, the last one fastest; false after the last cell. */
static bool next_cell(const struct spec_grid *g, int *at)
{
    for (int x = AXIS_COUNT - 1; x >= 0; x--) {
        if (g->axis[x].n == 0)
            continue;
        if (++at[x] < g->axis[x].n)
            return true;
        at[x] = 0;
    }
    return false;
}

static enum err_code multiply_out(struct expansion *x, const struct spec_grid *g, struct cells *out,
                                  struct err *e)
{
    int at[AXIS_COUNT] = {0};
    do {
        struct config c = cell_at(g, at);
        struct err why = {0};
        if (config_validate(&c, &why) != ERR_OK) {
            if (is_dropped_everywhere(x->spec, &c))
                continue;
            *e = why;
            return impossible_cell(x, g, at, e);
        }
        config_normalize(&c);
        out->v[out->n++] = config_set_add(&x->configs, &c);
    } while (next_cell(g, at));
    return ERR_OK;
}

static int64_t count_cells(const struct spec_grid *g)
{
    int64_t n = 1;
    for (int x = 0; x < AXIS_COUNT && n <= cells_max; x++)
        n *= g->axis[x].n != 0 ? g->axis[x].n : 1;
    return n;
}

static enum err_code multiply_all(struct expansion *x, struct err *e)
{
    int64_t total = 0;
    for (int i = 0; i < x->spec->n_grids; i++) {
        const struct spec_grid *g = &x->spec->grids[i];
        int64_t n = count_cells(g);
        total += n;
        if (total > cells_max || total * x->spec->n_models > visits_max)
            return spec_error(x->src, g->mark, e,
                              "with this grid the spec passes %lld configurations for %d models; "
                              "split the sweep",
                              (long long)(total - n), x->spec->n_models);
        x->cells[i].v = xcalloc((size_t)n, sizeof(*x->cells[i].v));
        TRY(multiply_out(x, g, &x->cells[i], e));
    }
    return ERR_OK;
}

/* Sorts the configurations and renumbers the grids' cells. */
static void sort_configs(struct expansion *x)
{
    int n = x->configs.n;
    struct ranked *r = xcalloc((size_t)n, sizeof(*r));
    int32_t *rank = xcalloc((size_t)n, sizeof(*rank));
    for (int i = 0; i < n; i++)
        r[i] = (struct ranked){x->configs.v[i], i};
    qsort(r, (size_t)n, sizeof(*r), ranked_compare);
    for (int i = 0; i < n; i++) {
        x->configs.v[i] = r[i].config;
        rank[r[i].index] = i;
    }
    for (int g = 0; g < x->spec->n_grids; g++) {
        for (size_t i = 0; i < x->cells[g].n; i++)
            x->cells[g].v[i] = rank[x->cells[g].v[i]];
    }
    xfree(rank);
    xfree(r);
}

/* ---- jobs ---- */

static bool name_matches(const struct spec_names *names, const char *name)
{
    for (int i = 0; i < names->n; i++) {
        if (strcmp(names->v[i], name) == 0)
            return true;
    }
    return names->n == 0;
}

static bool model_matches(const struct spec_grid *g, const struct model_ref *m)
{
    return name_matches(&g->family, m->family) && name_matches(&g->size, m->size);
}

static uint64_t evals_named(const struct sweep_spec *spec, const struct spec_names *names)
{
    uint64_t mask = 0;
    for (int i = 0; i < spec->n_evals; i++) {
        if (name_matches(names, spec->evals[i].spec.name))
            mask |= UINT64_C(1) << i;
    }
    return mask;
}

/* x->evals[c] becomes the evaluations of configuration c on model m. */
static void expand_model(struct expansion *x, int m)
{
    const struct sweep_spec *spec = x->spec;
    const struct model_ref *ref = &spec->models[m].ref;
    uint64_t all = evals_named(spec, &(struct spec_names){0});
    memset(x->evals, 0, (size_t)x->configs.n * sizeof(*x->evals));
    for (int g = 0; g < spec->n_grids; g++) {
        if (!model_matches(&spec->grids[g], ref))
            continue;
        for (size_t i = 0; i < x->cells[g].n; i++)
            x->evals[x->cells[g].v[i]] = all;
    }
    for (int i = 0; i < spec->n_excludes; i++) {
        const struct spec_grid *ex = &spec->excludes[i];
        if (!model_matches(ex, ref))
            continue;
        uint64_t dropped = evals_named(spec, &ex->evaluation);
        for (int c = 0; c < x->configs.n; c++) {
            if (x->evals[c] != 0 && axes_match(ex, &x->configs.v[c], false))
                x->evals[c] &= ~dropped;
        }
    }
}

static enum err_code count_jobs(struct expansion *x, struct err *e)
{
    for (int m = 0; m < x->spec->n_models; m++) {
        expand_model(x, m);
        for (int c = 0; c < x->configs.n; c++) {
            x->n_jobs += __builtin_popcountll(x->evals[c]);
            if (x->evals[c] != 0)
                x->config_is_used[c] = x->model_is_used[m] = true;
        }
        if (x->n_jobs > jobs_max)
            return err_set(e, ERR_FORMAT, "%s: the spec makes more than %lld jobs; split the sweep",
                           x->src->path, (long long)jobs_max);
    }
    if (x->n_jobs == 0)
        return err_set(e, ERR_FORMAT,
                       "%s: the spec makes no jobs; every configuration is excluded or named for "
                       "families and sizes that do not go together",
                       x->src->path);
    return ERR_OK;
}

static void add_jobs(const struct expansion *x, struct sweep *out, int model, int config,
                     uint64_t evals)
{
    for (int i = 0; i < x->spec->n_evals; i++) {
        if ((evals >> i & 1) != 0)
            out->jobs[out->n_jobs++] = (struct sweep_job){model, config, i};
    }
}

/* Models and configurations that no job uses are left out, so that a sweep holds what it runs. */
static void fill_sweep(struct expansion *x, struct sweep *out)
{
    const struct sweep_spec *spec = x->spec;
    struct arena *a = x->src->arena;
    int32_t *place = xcalloc((size_t)x->configs.n, sizeof(*place));
    out->models = arena_array(a, (size_t)spec->n_models, sizeof(*out->models));
    out->configs = arena_array(a, (size_t)x->configs.n, sizeof(*out->configs));
    out->jobs = arena_array(a, (size_t)x->n_jobs, sizeof(*out->jobs));
    out->evals = spec->evals;
    out->n_evals = spec->n_evals;
    for (int c = 0; c < x->configs.n; c++) {
        place[c] = out->n_configs;
        if (x->config_is_used[c])
            out->configs[out->n_configs++] = x->configs.v[c];
    }
    for (int m = 0; m < spec->n_models; m++) {
        if (!x->model_is_used[m])
            continue;
        expand_model(x, m);
        for (int c = 0; c < x->configs.n; c++)
            add_jobs(x, out, out->n_models, place[c], x->evals[c]);
        out->models[out->n_models++] = spec->models[m];
    }
    xfree(place);
}

static enum err_code sweep_expand(const struct spec_source *src, const struct sweep_spec *spec,
                                  struct sweep *out, struct err *e)
{
    struct expansion x = {.src = src, .spec = spec};
    x.cells = xcalloc((size_t)spec->n_grids, sizeof(*x.cells));
    enum err_code rc = multiply_all(&x, e);
    if (rc == ERR_OK) {
        sort_configs(&x);
        x.evals = xcalloc((size_t)x.configs.n, sizeof(*x.evals));
        x.config_is_used = xcalloc((size_t)x.configs.n, sizeof(*x.config_is_used));
        x.model_is_used = xcalloc((size_t)spec->n_models, sizeof(*x.model_is_used));
        rc = count_jobs(&x, e);
    }
    if (rc == ERR_OK)
        fill_sweep(&x, out);
    xfree(x.model_is_used);
    xfree(x.config_is_used);
    xfree(x.evals);
    for (int i = 0; i < spec->n_grids; i++)
        xfree(x.cells[i].v);
    xfree(x.cells);
    xfree(x.configs.slots);
    xfree(x.configs.v);
    return rc;
}

/* ---- the whole ---- */

enum err_code sweep_parse(struct str text, const char *path, struct arena *a, struct sweep *out,
                          struct err *e)
{
    struct spec_source src = {path, a};
    struct node *root = NULL;
    struct sweep_spec spec;
    char *absolute = io_absolute(path);
    char *dir = io_dirname(absolute);
    struct sweep sw = {.path = arena_strdup(a, path), .dir = arena_strdup(a, dir)};
    xfree(dir);
    xfree(absolute);
    TRY(sweep_yaml_parse(&src, text, &root, e));
    TRY(sweep_spec_read(&src, root, sw.dir, &spec, e));
    TRY(sweep_expand(&src, &spec, &sw, e));
    sw.name = spec.name;
    sw.job_limit_s = spec.job_limit_s;
    sw.text = arena_strndup(a, text.p != NULL ? text.p : "", text.n);
    *out = sw;
    return ERR_OK;
}

enum err_code sweep_load(const char *path, struct arena *a, struct sweep *out, struct err *e)
{
    struct buf text = {0};
    TRY(io_read_file(path, SPEC_FILE_BYTES_MAX, &text, e));
    enum err_code rc = sweep_parse((struct str){text.data, text.len}, path, a, out, e);
    buf_release(&text);
    return rc;
}

/* The tree of a spec -> models, grids and excludes with every value checked. Evaluations: sweep_eval.c. */
#include <string.h>

#include "base/io.h"
#include "schema/sweep_node.h"

enum { VALUES_MAX = 64, LABEL_MAX = 64 };

/* ---- models ---- */

struct model_list {
    struct sweep_model *v;
    int n, cap;
};

static bool is_label(const char *z)
{
    size_t n = strlen(z);
    static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return n > 0 && n <= LABEL_MAX && strspn(z, legal) == n && z[0] != '.' && z[0] != '-';
}

static enum err_code check_label(const struct spec_source *src, const struct node *n,
                                 const char *what, struct err *e)
{
    if (!is_label(n->text))
        return spec_error(src, n->mark, e,
                          "%s: expected 1 to %d letters, digits, `.`, `_` or `-`, no `.` or `-` "
                          "first, not \"%.60s\"",
                          what, LABEL_MAX, n->text);
    return ERR_OK;
}

/* "demo/{family}-{size}" with both put in. */
static enum err_code substitute(const struct spec_source *src, const struct node *template,
                                const char *family, const char *size, const char **out,
                                struct err *e)
{
    struct buf b = {0};
    for (const char *p = template->text; *p != '\0'; p++) {
        if (strncmp(p, "{family}", 8) == 0) {
            buf_adds(&b, family);
            p += 7;
        } else if (strncmp(p, "{size}", 6) == 0) {
            buf_adds(&b, size);
            p += 5;
        } else if (*p == '{' || *p == '}' || (unsigned char)*p < 0x20) {
            buf_release(&b);
            return spec_error(src, template->mark, e,
                              "%s: only {family} and {size} can stand in braces, and no control "
                              "characters: \"%.100s\"",
                              template->key, template->text);
        } else {
            buf_addc(&b, *p);
        }
    }
    *out = arena_strndup(src->arena, b.data != NULL ? b.data : "", b.len);
    buf_release(&b);
    return ERR_OK;
}

/* org/name[@revision] */
static enum err_code set_hub(const struct spec_source *src, const struct node *n, const char *text,
                             struct model_ref *m, struct err *e)
{
    const char *at = strchr(text, '@');
    size_t len = at != NULL ? (size_t)(at - text) : strlen(text);
    char *id = arena_strndup(src->arena, text, len);
    char *slash = strchr(id, '/');
    bool is_legal = slash != NULL;
    if (is_legal) {
        *slash = '\0';
        is_legal = is_label(id) && is_label(slash + 1);
        *slash = '/';
    }
    if (at != NULL && (at[1] == '\0' || strpbrk(at + 1, " @{}\\") != NULL))
        is_legal = false;
    if (!is_legal)
        return spec_error(src, n->mark, e,
                          "hub: expected org/name or org/name@revision, not \"%.100s\"", text);
    m->hub = id;
    m->revision = at != NULL ? arena_strdup(src->arena, at + 1) : NULL;
    return ERR_OK;
}

static void set_path(const struct spec_source *src, const char *dir, const char *text,
                     struct model_ref *m)
{
    char *full = io_join(dir, text);
    m->path = arena_strdup(src->arena, full);
    xfree(full);
}

/* One name is one checkpoint, and one family and size is one point on a curve. */
static enum err_code add_model(const struct spec_source *src, struct model_list *l,
                               const struct sweep_model *m, struct err *e)
{
    for (int i = 0; i < l->n; i++) {
        const struct sweep_model *old = &l->v[i];
        bool is_same_label =
            strcmp(old->ref.family, m->ref.family) == 0 && strcmp(old->ref.size, m->ref.size) == 0;
        bool is_same_name = strcmp(old->ref.name, m->ref.name) == 0;
        if (is_same_label && is_same_name)
            return ERR_OK; /* counted once */
        if (is_same_label)
            return spec_error(src, m->mark, e,
                              "%s %s is %.80s here and %.80s in line %d; give them different sizes "
                              "or families",
                              m->ref.family, m->ref.size, m->ref.name, old->ref.name,
                              old->mark.line);
        if (is_same_name)
            return spec_error(
                src, m->mark, e,
                "%.80s is %s %s here and %s %s in line %d; put {size} into the path, or "
                "name it once",
                m->ref.name, m->ref.family, m->ref.size, old->ref.family, old->ref.size,
                old->mark.line);
    }
    if (l->n == SPEC_MODELS_MAX)
        return spec_error(src, m->mark, e, "more than %d models", SPEC_MODELS_MAX);
    if (l->n == l->cap) {
        l->cap = l->cap != 0 ? 2 * l->cap : 32;
        l->v = xrealloc(l->v, (size_t)l->cap * sizeof(*l->v));
    }
    l->v[l->n++] = *m;
    return ERR_OK;
}

static enum err_code read_one_model(const struct spec_source *src, const char *dir,
                                    const struct node *place, const char *family,
                                    const struct node *size, struct model_list *l, struct err *e)
{
    TRY(node_need_scalar(src, size, "sizes", e));
    TRY(check_label(src, size, "sizes", e));
    struct sweep_model m = {.mark = size->mark};
    m.ref.family = family;
    m.ref.size = size->text;
    TRY(substitute(src, place, family, size->text, &m.ref.name, e));
    CHECK(m.ref.name != NULL);
    if (strcmp(place->key, "hub") == 0)
        TRY(set_hub(src, place, m.ref.name, &m.ref, e));
    else
        set_path(src, dir, m.ref.name, &m.ref);
    return add_model(src, l, &m, e);
}

static enum err_code read_model_entry(const struct spec_source *src, const char *dir,
                                      const struct node *entry, struct model_list *l, struct err *e)
{
    static const char *const keys[] = {"family", "sizes", "path", "hub"};
    TRY(node_check_keys(src, entry, "a model", keys, ARRAY_LEN(keys), e));
    const struct node *family = NULL;
    TRY(node_need_text(src, entry, "family", &family, e));
    TRY(check_label(src, family, "family", e));
    const struct node *sizes = node_find(entry, "sizes");
    if (sizes == NULL || (sizes->kind == NODE_LIST && sizes->n == 0))
        return spec_error(src, entry->mark, e, "a model needs sizes: a label or a list of labels");
    const struct node *path = node_find(entry, "path");
    const struct node *hub = node_find(entry, "hub");
    if ((path == NULL) == (hub == NULL))
        return spec_error(src, entry->mark, e,
                          "a model needs either path: (a directory) or hub: (org/name), %s",
                          path == NULL ? "and has none" : "not both");
    const struct node *place = NULL;
    TRY(node_need_text(src, entry, path != NULL ? "path" : "hub", &place, e));
    if (sizes->kind != NODE_LIST)
        return read_one_model(src, dir, place, family->text, sizes, l, e);
    for (const struct node *s = sizes->first; s != NULL; s = s->next)
        TRY(read_one_model(src, dir, place, family->text, s, l, e));
    return ERR_OK;
}

static enum err_code read_models(const struct spec_source *src, const char *dir,
                                 const struct node *root, struct sweep_spec *out, struct err *e)
{
    const struct node *list = NULL;
    TRY(node_need_list(src, root, "models", &list, e));
    struct model_list l = {0};
    enum err_code rc = ERR_OK;
    for (const struct node *m = list->first; m != NULL && rc == ERR_OK; m = m->next)
        rc = read_model_entry(src, dir, m, &l, e);
    if (rc == ERR_OK && l.n > 0) {
        out->models = arena_array(src->arena, (size_t)l.n, sizeof(*l.v));
        memcpy(out->models, l.v, (size_t)l.n * sizeof(*l.v));
        out->n_models = l.n;
    }
    xfree(l.v);
    return rc;
}

/* ---- grids and excludes ---- */

/* A value once, however often a list repeats it. */
static enum err_code add_value(const struct spec_source *src, enum axis x, const struct node *n,
                               struct spec_values *out, struct err *e)
{
    double v = 0;
    TRY(axis_parse(src, x, n, &v, e));
    for (int i = 0; i < out->n; i++) {
        if (out->v[i] == v)
            return ERR_OK;
    }
    if (out->n == VALUES_MAX)
        return spec_error(src, n->mark, e, "%s: more than %d values", axis_key(x), VALUES_MAX);
    out->v[out->n++] = v;
    return ERR_OK;
}

static enum err_code read_values(const struct spec_source *src, enum axis x, const struct node *n,
                                 struct spec_values *out, struct err *e)
{
    *out = (struct spec_values){.v = arena_array(src->arena, VALUES_MAX, sizeof(double))};
    if (n->kind != NODE_LIST)
        return add_value(src, x, n, out, e);
    if (n->n == 0)
        return spec_error(src, n->mark, e,
                          "%s: an empty list makes no cells; remove the key or name a value",
                          axis_key(x));
    for (const struct node *m = n->first; m != NULL; m = m->next)
        TRY(add_value(src, x, m, out, e));
    return ERR_OK;
}

enum label_kind { LABEL_FAMILY, LABEL_SIZE, LABEL_EVALUATION };

static const char *label_at(const struct sweep_spec *spec, enum label_kind kind, int i)
{
    switch (kind) {
    case LABEL_FAMILY:
        return spec->models[i].ref.family;
    case LABEL_SIZE:
        return spec->models[i].ref.size;
    case LABEL_EVALUATION:
        return spec->evals[i].spec.name;
    }
    return NULL;
}

static enum err_code add_name(const struct spec_source *src, const struct sweep_spec *spec,
                              enum label_kind kind, const struct node *n, struct spec_names *out,
                              struct err *e)
{
    static const char *const words[] = {"family", "size", "evaluation"};
    TRY(node_need_scalar(src, n, words[kind], e));
    int count = kind == LABEL_EVALUATION ? spec->n_evals : spec->n_models;
    for (int i = 0; i < count; i++) {
        if (strcmp(label_at(spec, kind, i), n->text) == 0) {
            out->v[out->n++] = n->text;
            return ERR_OK;
        }
    }
    const char **known = arena_array(src->arena, (size_t)count, sizeof(*known));
    for (int i = 0; i < count; i++)
        known[i] = label_at(spec, kind, i);
    return spec_error(src, n->mark, e, "%s: nothing in this spec is called \"%.60s\"%s",
                      words[kind], n->text, spec_suggest(n->text, known, count, src->arena));
}

static enum err_code read_names(const struct spec_source *src, const struct sweep_spec *spec,
                                enum label_kind kind, const struct node *n, struct spec_names *out,
                                struct err *e)
{
    if (n == NULL)
        return ERR_OK;
    size_t room = n->kind == NODE_LIST ? (size_t)n->n : 1;
    out->v = arena_array(src->arena, room, sizeof(*out->v));
    if (n->kind != NODE_LIST)
        return add_name(src, spec, kind, n, out, e);
    if (n->n == 0)
        return spec_error(src, n->mark, e,
                          "an empty list matches nothing; remove the key or name a value");
    for (const struct node *m = n->first; m != NULL; m = m->next)
        TRY(add_name(src, spec, kind, m, out, e));
    return ERR_OK;
}

static enum err_code read_grid(const struct spec_source *src, const struct sweep_spec *spec,
                               const struct node *n, bool is_exclude, struct spec_grid *g,
                               struct err *e)
{
    const char *keys[AXIS_COUNT + 3];
    size_t n_keys = 0;
    for (int x = 0; x < AXIS_COUNT; x++)
        keys[n_keys++] = axis_key((enum axis)x);
    keys[n_keys++] = "family";
    keys[n_keys++] = "size";
    if (is_exclude)
        keys[n_keys++] = "evaluation";
    TRY(node_check_keys(src, n, is_exclude ? "an exclude" : "a grid", keys, n_keys, e));
    g->mark = n->mark;
    for (int x = 0; x < AXIS_COUNT; x++) {
        const struct node *v = node_find(n, axis_key((enum axis)x));
        if (v != NULL)
            TRY(read_values(src, (enum axis)x, v, &g->axis[x], e));
    }
    TRY(read_names(src, spec, LABEL_FAMILY, node_find(n, "family"), &g->family, e));
    TRY(read_names(src, spec, LABEL_SIZE, node_find(n, "size"), &g->size, e));
    if (!is_exclude)
        return ERR_OK;
    if (n->n == 0)
        return spec_error(src, n->mark, e,
                          "an exclude without a key would drop every job; name an axis");
    return read_names(src, spec, LABEL_EVALUATION, node_find(n, "evaluation"), &g->evaluation, e);
}

static bool has_value_at_most(const struct spec_values *s, double limit)
{
    for (int i = 0; i < s->n; i++) {
        if (s->v[i] <= limit)
            return true;
    }
    return false;
}

static bool has_value_above(const struct spec_values *s, double limit)
{
    for (int i = 0; i < s->n; i++) {
        if (s->v[i] > limit)
            return true;
    }
    return false;
}

/* What a grid as a whole cannot mean. Single cells are judged when they are multiplied out. */
static enum err_code check_grid(const struct spec_source *src, const struct spec_grid *g,
                                struct err *e)
{
    const struct spec_values *k = &g->axis[AXIS_K];
    if (k->n == 0)
        return spec_error(src, g->mark, e, "a grid needs k: a number of bits or a list of them");
    for (int x = 0; x < AXIS_COUNT; x++) {
        if (x == AXIS_K || x == AXIS_COMPUTE || g->axis[x].n == 0 || has_value_at_most(k, 8))
            continue;
        return spec_error(
            src, g->mark, e,
            "%s means nothing at k: 16 or 32, where nothing is quantized; remove it, or "
            "add a k from 2 to 8",
            axis_key((enum axis)x));
    }
    if (g->axis[AXIS_OUTLIER_RULE].n != 0 && !has_value_above(&g->axis[AXIS_OUTLIER_PCT], 0))
        return spec_error(src, g->mark, e,
                          "outlier_rule means nothing without outliers; add outlier_pct above 0");
    return ERR_OK;
}

static enum err_code read_grids(const struct spec_source *src, const struct node *list,
                                struct sweep_spec *out, const struct spec_values *compute,
                                struct err *e)
{
    if (list->n > SPEC_GRIDS_MAX)
        return spec_error(src, list->mark, e, "more than %d grids", SPEC_GRIDS_MAX);
    out->grids = arena_array(src->arena, (size_t)list->n, sizeof(*out->grids));
    for (const struct node *n = list->first; n != NULL; n = n->next) {
        struct spec_grid *g = &out->grids[out->n_grids++];
        TRY(read_grid(src, out, n, false, g, e));
        TRY(check_grid(src, g, e));
        if (g->axis[AXIS_COMPUTE].n == 0)
            g->axis[AXIS_COMPUTE] = *compute;
    }
    return ERR_OK;
}

static enum err_code read_excludes(const struct spec_source *src, const struct node *root,
                                   struct sweep_spec *out, struct err *e)
{
    if (node_find(root, "exclude") == NULL)
        return ERR_OK;
    const struct node *list = NULL;
    TRY(node_need_list(src, root, "exclude", &list, e));
    if (list->n > SPEC_GRIDS_MAX)
        return spec_error(src, list->mark, e, "more than %d excludes", SPEC_GRIDS_MAX);
    out->excludes = arena_array(src->arena, (size_t)list->n, sizeof(*out->excludes));
    for (const struct node *n = list->first; n != NULL; n = n->next)
        TRY(read_grid(src, out, n, true, &out->excludes[out->n_excludes++], e));
    return ERR_OK;
}

/* ---- the whole ---- */

/* `name:`, or the file's name without its ending. */
static enum err_code read_name(const struct spec_source *src, const struct node *root,
                               const char **out, struct err *e)
{
    if (node_find(root, "name") != NULL) {
        const struct node *n = NULL;
        TRY(node_need_text(src, root, "name", &n, e));
        TRY(check_label(src, n, "name", e));
        *out = n->text;
        return ERR_OK;
    }
    const char *slash = strrchr(src->path, '/');
    const char *base = slash != NULL ? slash + 1 : src->path;
    const char *dot = strrchr(base, '.');
    *out = arena_strndup(src->arena, base,
                         dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base));
    if (!is_label(*out))
        return spec_error(src, root->mark, e,
                          "the file's name is no name for a sweep; add name: with letters, digits, "
                          "`.`, `_` or `-`");
    return ERR_OK;
}

enum err_code sweep_spec_read(const struct spec_source *src, const struct node *root,
                              const char *dir, struct sweep_spec *out, struct err *e)
{
    static const char *const keys[] = {"name",    "compute",     "models",   "configurations",
                                       "exclude", "evaluations", "job_limit"};
    *out = (struct sweep_spec){0};
    TRY(node_check_keys(src, root, "a sweep spec", keys, ARRAY_LEN(keys), e));
    TRY(read_name(src, root, &out->name, e));
    TRY(node_opt_int(src, root, "job_limit", 1, &out->job_limit_s, e));
    struct spec_values compute = {0};
    const struct node *c = node_find(root, "compute");
    if (c != NULL) {
        TRY(read_values(src, AXIS_COMPUTE, c, &compute, e));
    } else {
        compute = (struct spec_values){.v = arena_array(src->arena, 1, sizeof(double)), .n = 1};
        compute.v[0] = COMPUTE_FP32;
    }
    TRY(read_models(src, dir, root, out, e));
    TRY(sweep_spec_read_evals(src, root, dir, out, e));
    const struct node *grids = NULL;
    TRY(node_need_list(src, root, "configurations", &grids, e));
    TRY(read_grids(src, grids, out, &compute, e));
    return read_excludes(src, root, out, e);
}

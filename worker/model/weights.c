#include "worker/model/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* Slots start at multiples of this many elements: 64 bytes of fp16. */
enum { SLOT_ALIGN = 32 };
/* Mapped pages are given back after this much was read. */
enum { FORGET_BYTES = 64 << 20 };

bool weights_is_per_layer(enum role role)
{
    return role >= ROLE_NORM1_W;
}

bool weights_is_linear(enum role role)
{
    return role == ROLE_QKV_W || role == ROLE_OUT_W || role == ROLE_FFN1_W || role == ROLE_FFN2_W ||
           role == ROLE_PROJECT_IN || role == ROLE_PROJECT_OUT;
}

const struct weight_tensor *weights_tensor(const struct weights *w, enum role role)
{
    for (int i = 0; i < w->n_tensors; i++)
        if (w->tensors[i].role == role)
            return &w->tensors[i];
    return NULL;
}

static size_t slot_index(enum role role, int layer)
{
    return weights_is_per_layer(role) ? (size_t)role + (size_t)layer * ROLES_PER_LAYER
                                      : (size_t)role;
}

const struct weight_slot *weights_slot(const struct weights *w, enum role role, int layer)
{
    return &w->slots[slot_index(role, layer)];
}

void *weights_compute_at(const struct weights *w, int64_t at)
{
    return (char *)w->compute + at * w->act_bytes;
}

const void *weights_compute(const struct weights *w, enum role role, int layer)
{
    const struct weight_slot *s = weights_slot(w, role, layer);
    if (w->view != NULL)
        return s->rows > 0 ? w->view->compute[role] : NULL;
    return s->rows > 0 ? weights_compute_at(w, s->at) : NULL;
}

const uint16_t *weights_master(const struct weights *w, enum role role, int layer)
{
    const struct weight_slot *s = weights_slot(w, role, layer);
    if (w->view != NULL)
        return s->rows > 0 ? w->view->master[role] : NULL;
    return s->rows > 0 ? w->master + s->at : NULL;
}

/* "prefix" + name with its %d replaced by the layer. */
static void name_format(char *out, size_t size, const char *prefix, struct str name, int layer)
{
    const char *mark = memmem(name.p, name.n, "%d", 2);
    int head = (int)(mark != NULL ? (size_t)(mark - name.p) : name.n);
    int written = snprintf(out, size, "%s%.*s", prefix, head, name.p);
    if (mark != NULL)
        snprintf(out + written, size - (size_t)written, "%d%.*s", layer, (int)name.n - head - 2,
                 mark + 2);
}

/* By one of the row's names, with or without the prefix. */
static const struct ckpt_tensor *find_tensor(const struct ckpt *c, const struct family_ops *ops,
                                             const struct family_tensor *row, int layer)
{
    const struct ckpt_tensor *t = NULL;
    struct str rest = str_of(row->name), field;
    while (t == NULL && str_next_field(&rest, '|', &field)) {
        char name[256];
        name_format(name, sizeof name, ops->prefix, field, layer);
        t = ckpt_find(c, name);
        if (t == NULL) {
            name_format(name, sizeof name, "", field, layer);
            t = ckpt_find(c, name);
        }
    }
    return t;
}

static enum err_code check_shape(const struct ckpt *c, const struct ckpt_tensor *t,
                                 bool is_transposed, int64_t rows, int64_t cols, bool is_vector,
                                 struct err *e)
{
    int64_t first = is_transposed ? cols : rows, second = is_transposed ? rows : cols;
    int n_dims = is_vector ? 1 : 2;
    if (t->n_dims == n_dims && t->shape[0] == first && (is_vector || t->shape[1] == second))
        return ERR_OK;
    char found[128] = "", wanted[64];
    for (int i = 0; i < t->n_dims; i++) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%s%lld", i > 0 ? ", " : "",
                 (long long)t->shape[i]);
    }
    if (is_vector)
        snprintf(wanted, sizeof wanted, "%lld", (long long)first);
    else
        snprintf(wanted, sizeof wanted, "%lld, %lld", (long long)first, (long long)second);
    return err_set(e, ERR_FORMAT, "%s: tensor %s has shape [%s], config.json asks for [%s]",
                   ckpt_file_name(c, t->file), t->name, found, wanted);
}

/* What one pass over the family's table works on. */
struct planner {
    const struct family_ops *ops;
    struct wiring *wiring;
    struct weights *w;
    const struct ckpt_tensor *twin; /* a stored head that is the embedding too; NULL: none */
};

/* Of a global role, which every family has. */
static const struct family_tensor *find_row(const struct family_ops *ops, enum role role)
{
    int i = 0;
    while (ops->tensors[i].role != role)
        CHECK(++i < ops->n_tensors);
    return &ops->tensors[i];
}

static const struct ckpt_tensor *find_role(const struct planner *p, enum role role)
{
    return find_tensor(p->w->ckpt, p->ops, find_row(p->ops, role), 0);
}

/* As transformers settles it: a stored head with other values than the embedding is a head of its own, whatever config.json
 * says of tying; and when only the head is stored, it is the embedding as well (safetensors keeps one name of the two). */
static void settle_head(struct planner *p)
{
    const struct ckpt_tensor *head = find_role(p, ROLE_HEAD), *embed = find_role(p, ROLE_EMBED);
    if (!p->wiring->is_tied || head == NULL)
        return;
    p->wiring->is_tied = embed == NULL || ckpt_is_equal(embed, head);
    if (p->wiring->is_tied)
        p->twin = head;
    ckpt_forget_pages(p->w->ckpt);
}

static enum err_code plan_tensor(struct planner *p, const struct family_tensor *row, int layer,
                                 struct err *e)
{
    struct weights *w = p->w;
    const struct ckpt_tensor *t = find_tensor(w->ckpt, p->ops, row, layer);
    if (t == NULL && row->role == ROLE_EMBED)
        t = p->twin;
    char name[256];
    name_format(name, sizeof name, "", str_of(row->name), layer);
    if (!family_is_needed(p->wiring, row->need)) {
        if (t != NULL && row->role != ROLE_HEAD)
            return err_set(e, ERR_FORMAT, "%s: tensor %s is there although config.json excludes it",
                           ckpt_file_name(w->ckpt, t->file), t->name);
        return ERR_OK;
    }
    if (t == NULL)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is missing (with and without \"%s\" in front)",
                       ckpt_dir(w->ckpt), name, p->ops->prefix);
    int64_t rows = family_dim(p->wiring, row->rows), cols = family_dim(p->wiring, row->cols);
    TRY(check_shape(w->ckpt, t, row->is_transposed, rows, cols, row->cols == DIM_ONE, e));
    struct weight_slot *slot = &w->slots[slot_index(row->role, layer)];
    if (slot->rows == 0) {
        w->n_elements = (w->n_elements + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
        *slot = (struct weight_slot){.at = w->n_elements, .cols = cols};
    }
    w->tensors[w->n_tensors++] = (struct weight_tensor){.src = t,
                                                        .role = row->role,
                                                        .layer = layer,
                                                        .rows = rows,
                                                        .cols = cols,
                                                        .at = w->n_elements,
                                                        .is_transposed = row->is_transposed};
    slot->rows += rows;
    w->n_elements += rows * cols;
    w->n_params += rows * cols;
    return ERR_OK;
}

static enum err_code plan_all(struct planner *p, struct err *e)
{
    const struct family_ops *ops = p->ops;
    for (int i = 0; i < ops->n_tensors; i++)
        if (!weights_is_per_layer(ops->tensors[i].role))
            TRY(plan_tensor(p, &ops->tensors[i], 0, e));
    for (int layer = 0; layer < p->wiring->n_layers; layer++)
        for (int i = 0; i < ops->n_tensors; i++)
            if (weights_is_per_layer(ops->tensors[i].role))
                TRY(plan_tensor(p, &ops->tensors[i], layer, e));
    return ERR_OK;
}

/* `name` is `end`, or ends with it behind a dot. */
static bool is_name_of(const char *name, struct str end)
{
    const size_t n = strlen(name);
    return n >= end.n && memcmp(name + n - end.n, end.p, end.n) == 0 &&
           (n == end.n || name[n - end.n - 1] == '.');
}

static bool is_ignored(const struct family_ops *ops, const char *name)
{
    for (const char *const *end = ops->ignored; *end != NULL; end++)
        if (is_name_of(name, str_of(*end)))
            return true;
    return false;
}

/* The head once more, under another of its names. */
static bool is_spare_head(const struct planner *p, const struct ckpt_tensor *t)
{
    const struct weight_tensor *used =
        weights_tensor(p->w, p->wiring->is_tied ? ROLE_EMBED : ROLE_HEAD);
    struct str rest = str_of(find_row(p->ops, ROLE_HEAD)->name), name;
    while (str_next_field(&rest, '|', &name))
        if (is_name_of(t->name, name))
            return ckpt_is_equal(t, used->src);
    return false;
}

/* A tensor that nothing uses would be a part of the model that is silently left out. */
static enum err_code check_leftovers(const struct planner *p, struct err *e)
{
    const struct weights *w = p->w;
    for (int i = 0; i < ckpt_n_tensors(w->ckpt); i++) {
        const struct ckpt_tensor *t = ckpt_tensor_at(w->ckpt, i);
        bool is_used = is_ignored(p->ops, t->name) || t == p->twin;
        for (int j = 0; j < w->n_tensors && !is_used; j++)
            is_used = w->tensors[j].src == t;
        if (!is_used && !is_spare_head(p, t))
            return err_set(e, ERR_FORMAT,
                           "%s: tensor %s is not part of this architecture; check model_type and "
                           "the number of layers in config.json",
                           ckpt_file_name(w->ckpt, t->file), t->name);
    }
    return ERR_OK;
}

/* Room on the host for the largest tensor with elements of `size` bytes. */
static enum err_code stage_alloc(const struct weights *w, size_t size, void **out, size_t *bytes,
                                 struct err *e)
{
    int64_t most = 0;
    for (int i = 0; i < w->n_tensors; i++)
        most = w->tensors[i].src->count > most ? w->tensors[i].src->count : most;
    *bytes = (size_t)most * size;
    return big_alloc(*bytes, "room for the largest tensor", out, e);
}

static void forget_read(const struct weights *w, int64_t *read, int64_t count)
{
    *read += count * 4;
    if (*read >= FORGET_BYTES) {
        ckpt_forget_pages(w->ckpt);
        *read = 0;
    }
}

static enum err_code load_master(struct weights *w, struct err *e)
{
    void *stage = NULL;
    size_t stage_bytes;
    int64_t read = 0;
    TRY(stage_alloc(w, sizeof(uint16_t), &stage, &stage_bytes, e));
    enum err_code code = ERR_OK;
    for (int i = 0; i < w->n_tensors && code == ERR_OK; i++) {
        const struct weight_tensor *t = &w->tensors[i];
        code = ckpt_read_f16(w->ckpt, t->src, t->is_transposed, stage, &w->flushed, e);
        if (code == ERR_OK)
            code = kern_upload(w->k, w->master + t->at, stage,
                               (size_t)t->src->count * sizeof(uint16_t), e);
        if (code == ERR_OK)
            code = kern_sync(w->k, e);
        forget_read(w, &read, t->src->count);
    }
    ckpt_forget_pages(w->ckpt);
    big_free(stage, stage_bytes);
    return code;
}

static enum err_code count_bytes(const struct weights *w, size_t size, size_t *out, struct err *e)
{
    if (!size_mul((size_t)w->n_elements, size, out))
        return err_set(e, ERR_NOMEM, "%s: size of the weights overflows", ckpt_dir(w->ckpt));
    return ERR_OK;
}

enum err_code weights_plan(const struct family_ops *ops, struct wiring *wiring, struct ckpt *ckpt,
                           struct kern *k, struct weights *w, struct err *e)
{
    *w = (struct weights){.k = k, .ckpt = ckpt, .act_bytes = kern_get_info(k)->act_bytes};
    size_t n_layers = (size_t)wiring->n_layers;
    /* A count of layers from the file must not size memory before tensors bear it out. */
    if (n_layers > (size_t)ckpt_n_tensors(ckpt))
        return err_set(e, ERR_FORMAT, "%s: %d layers in config.json, but only %d tensors",
                       ckpt_dir(ckpt), wiring->n_layers, ckpt_n_tensors(ckpt));
    w->slots = xcalloc(ROLES_GLOBAL + n_layers * ROLES_PER_LAYER, sizeof *w->slots);
    w->tensors = xcalloc((size_t)ops->n_tensors * (n_layers + 1), sizeof *w->tensors);
    struct planner p = {.ops = ops, .wiring = wiring, .w = w};
    settle_head(&p);
    TRY(plan_all(&p, e));
    return check_leftovers(&p, e);
}

enum err_code weights_load(struct weights *w, struct err *e)
{
    struct kern *k = w->k;
    size_t master_bytes, compute_bytes;
    TRY(count_bytes(w, sizeof(uint16_t), &master_bytes, e));
    TRY(count_bytes(w, (size_t)w->act_bytes, &compute_bytes, e));
    void *master;
    TRY(kern_alloc(k, master_bytes, "fp16 weights", &master, e));
    w->master = master;
    TRY(kern_alloc(k, compute_bytes, "compute weights", &w->compute, e));
    return load_master(w, e);
}

void weights_release(struct weights *w)
{
    if (w->k != NULL) {
        kern_free(w->k, w->master);
        kern_free(w->k, w->compute);
    }
    xfree(w->slots);
    xfree(w->tensors);
    *w = (struct weights){0};
}

enum err_code weights_cast_all(struct weights *w, struct err *e)
{
    return kern_cast_f16(w->k, w->compute, w->master, w->n_elements, e);
}

/* fp32 on the host is what a device computing in fp32 wants; others get it through a buffer of their own. */
static enum err_code put_stored(struct weights *w, const struct weight_tensor *t,
                                const float *stage, void *device_stage, struct err *e)
{
    void *dst = weights_compute_at(w, t->at);
    size_t bytes = (size_t)t->src->count * sizeof(float);
    if (device_stage == NULL) {
        TRY(kern_upload(w->k, dst, stage, bytes, e));
    } else {
        TRY(kern_upload(w->k, device_stage, stage, bytes, e));
        TRY(kern_cast_f32(w->k, dst, device_stage, t->src->count, e));
    }
    return kern_sync(w->k, e);
}

enum err_code weights_read_stored(struct weights *w, struct err *e)
{
    void *stage = NULL, *device_stage = NULL;
    size_t stage_bytes = 0;
    int64_t read = 0;
    TRY(stage_alloc(w, sizeof(float), &stage, &stage_bytes, e));
    enum err_code code = ERR_OK;
    if (w->act_bytes != (int)sizeof(float))
        code = kern_alloc(w->k, stage_bytes, "room for the largest tensor", &device_stage, e);
    for (int i = 0; i < w->n_tensors && code == ERR_OK; i++) {
        const struct weight_tensor *t = &w->tensors[i];
        code = ckpt_read_f32(w->ckpt, t->src, t->is_transposed, stage, e);
        if (code == ERR_OK)
            code = put_stored(w, t, stage, device_stage, e);
        forget_read(w, &read, t->src->count);
    }
    ckpt_forget_pages(w->ckpt);
    kern_free(w->k, device_stage);
    big_free(stage, stage_bytes);
    return code;
}

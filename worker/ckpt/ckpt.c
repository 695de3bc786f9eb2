#include "worker/ckpt/ckpt.h"

#include <stdlib.h>
#include <string.h>

#include "schema/hub.h"
#include "worker/ckpt/ckpt_private.h"
#include "worker/ckpt/safetensors.h"
#include "worker/ckpt/tensor_check.h"
#include "worker/ckpt/torchbin.h"

enum { CONFIG_MAX = 16 << 20, INDEX_MAX = 16 << 20, FILES_MAX = 4096 };

typedef enum err_code (*directory_reader)(const struct io_map *file, const char *path,
                                          struct arena *a, struct ckpt_tensor **out, int *n,
                                          struct err *e);

/* Where weights may be, the preferred one first. An index names the shards: patterns over file names would miss
 * spellings such as pytorch_model_00001-of-00072.bin. */
static const struct layout {
    const char *name;
    bool is_index;
    directory_reader read;
} layouts[] = {
    {"model.safetensors", false, safetensors_read},
    {"model.safetensors.index.json", true, safetensors_read},
    {"pytorch_model.bin", false, torchbin_read},
    {"pytorch_model.bin.index.json", true, torchbin_read},
};

/* A damaged download's commonest form, worth its own words: the text that stands for a file in a Git repository. */
static enum err_code refuse_pointer(const struct ckpt_file *f, struct err *e)
{
    static const char lfs[] = "version https://git-lfs";
    if (f->map.size >= sizeof(lfs) - 1 && memcmp(f->map.data, lfs, sizeof(lfs) - 1) == 0)
        return err_set(e, ERR_FORMAT,
                       "%s is a Git LFS pointer, not weights; run `git lfs pull` in its repository",
                       f->path);
    return ERR_OK;
}

/* Maps file `name` and reads its directory; the tensors' `file` is set. */
static enum err_code add_file(struct ckpt *c, const char *name, directory_reader read,
                              struct ckpt_tensor **tensors, int *n, struct err *e)
{
    int at = c->n_files;
    struct ckpt_file *f = &c->files[c->n_files++];
    *f = (struct ckpt_file){.name = arena_strdup(&c->arena, name), .path = io_join(c->dir, name)};
    TRY(io_map_open(f->path, &f->map, e));
    TRY(refuse_pointer(f, e));
    TRY(read(&f->map, f->path, &c->arena, tensors, n, e));
    for (int i = 0; i < *n; i++)
        (*tensors)[i].file = at;
    return ERR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ckpt_tensor *)a)->name, ((const struct ckpt_tensor *)b)->name);
}

static const struct ckpt_tensor *find_in(const struct ckpt_tensor *t, int n, const char *name)
{
    struct ckpt_tensor key = {.name = name};
    return n == 0 ? NULL : bsearch(&key, t, (size_t)n, sizeof(*t), by_name);
}

static enum err_code refuse_duplicates(const struct ckpt_tensor *t, int n, const char *path,
                                       struct err *e)
{
    for (int i = 1; i < n; i++)
        if (strcmp(t[i - 1].name, t[i].name) == 0)
            return err_set(e, ERR_FORMAT, "%s: tensor \"%s\" appears twice", path, t[i].name);
    return ERR_OK;
}

static enum err_code open_single(struct ckpt *c, const struct layout *l, struct err *e)
{
    c->files = xcalloc(1, sizeof(*c->files));
    TRY(add_file(c, l->name, l->read, &c->tensors, &c->n_tensors, e));
    if (c->n_tensors > 0)
        qsort(c->tensors, (size_t)c->n_tensors, sizeof(*c->tensors), by_name);
    return refuse_duplicates(c->tensors, c->n_tensors, c->files[0].path, e);
}

/* A shard is a file beside its index, nothing else; its name appears in lists and messages. */
static bool is_file_name(const char *s)
{
    for (const char *p = s; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return false;
    return s[0] != '\0' && s[0] != '.' && strchr(s, '/') == NULL && strlen(s) < 200;
}

struct shard {
    const char *name; /* borrowed from the index */
    struct ckpt_tensor *tensors;
    int n;
};

static int by_shard_name(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->name, ((const struct shard *)b)->name);
}

/* The different files of a weight_map, sorted; caller frees *out with xfree. */
static enum err_code list_shards(json_t *weight_map, const char *path, struct shard **out, int *n,
                                 struct err *e)
{
    size_t n_keys = json_object_size(weight_map);
    struct shard *s = xcalloc(n_keys, sizeof(*s));
    size_t used = 0;
    const char *tensor;
    const json_t *file;
    enum err_code rc = ERR_OK;
    json_object_foreach(weight_map, tensor, file)
    {
        rc = tensor_check_name(str_of(tensor), e);
        if (rc != ERR_OK) {
            err_wrap(e, "%s: weight_map", path);
            break;
        }
        if (!json_is_string(file) || !is_file_name(json_string_value(file))) {
            rc = err_set(
                e, ERR_FORMAT,
                "%s: weight_map of \"%s\": expected the printable name of a file beside the "
                "index, without folders",
                path, tensor);
            break;
        }
        s[used++].name = json_string_value(file);
    }
    if (rc == ERR_OK && used == 0)
        rc = err_set(e, ERR_FORMAT, "%s: weight_map is empty, expected tensor names and files",
                     path);
    if (rc != ERR_OK) {
        xfree(s);
        return rc;
    }
    qsort(s, used, sizeof(*s), by_shard_name);
    size_t kept = 1;
    for (size_t i = 1; i < used; i++)
        if (strcmp(s[i].name, s[kept - 1].name) != 0)
            s[kept++] = s[i];
    if (kept > FILES_MAX) {
        xfree(s);
        return err_set(e, ERR_FORMAT, "%s: weight_map names %zu files, expected at most %d", path,
                       kept, FILES_MAX);
    }
    *out = s;
    *n = (int)kept;
    return ERR_OK;
}

/* The index decides which tensor comes from where; what a shard holds beyond that is not used. */
static enum err_code take_mapped(struct ckpt *c, json_t *weight_map, const struct shard *shards,
                                 int n_shards, const char *path, struct err *e)
{
    c->tensors = arena_array(&c->arena, json_object_size(weight_map), sizeof(*c->tensors));
    const char *name;
    const json_t *file;
    json_object_foreach(weight_map, name, file)
    {
        struct shard key = {.name = json_string_value(file)};
        const struct shard *s = bsearch(&key, shards, (size_t)n_shards, sizeof(*s), by_shard_name);
        const struct ckpt_tensor *t = find_in(s->tensors, s->n, name);
        if (t == NULL)
            return err_set(
                e, ERR_FORMAT,
                "%s: weight_map places tensor \"%s\" in %s, which does not have it; index and "
                "shards belong to different versions: download them again",
                path, name, s->name);
        c->tensors[c->n_tensors++] = *t;
    }
    qsort(c->tensors, (size_t)c->n_tensors, sizeof(*c->tensors), by_name);
    return ERR_OK;
}

static enum err_code open_shards(struct ckpt *c, const struct layout *l, json_t *weight_map,
                                 const char *path, struct err *e)
{
    struct shard *shards = NULL;
    int n = 0;
    TRY(list_shards(weight_map, path, &shards, &n, e));
    c->files = xcalloc((size_t)n, sizeof(*c->files));
    enum err_code rc = ERR_OK;
    for (int i = 0; i < n && rc == ERR_OK; i++) {
        rc = add_file(c, shards[i].name, l->read, &shards[i].tensors, &shards[i].n, e);
        if (rc == ERR_OK && shards[i].n > 0)
            qsort(shards[i].tensors, (size_t)shards[i].n, sizeof(*shards[i].tensors), by_name);
        if (rc == ERR_OK)
            rc = refuse_duplicates(shards[i].tensors, shards[i].n, c->files[i].path, e);
    }
    if (rc == ERR_OK)
        rc = take_mapped(c, weight_map, shards, n, path, e);
    xfree(shards);
    return rc;
}

static enum err_code open_index(struct ckpt *c, const struct layout *l, struct err *e)
{
    char *path = io_join(c->dir, l->name);
    json_t *doc = NULL;
    json_t *weight_map = NULL;
    enum err_code rc = json_read(path, INDEX_MAX, &doc, e);
    if (rc == ERR_OK)
        rc = json_need_obj(doc, "weight_map", path, &weight_map, e);
    if (rc == ERR_OK)
        rc = open_shards(c, l, weight_map, path, e);
    json_decref(doc);
    xfree(path);
    return rc;
}

static enum err_code open_weights(struct ckpt *c, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        char *path = io_join(c->dir, layouts[i].name);
        bool is_there = io_exists(path);
        xfree(path);
        if (is_there)
            return layouts[i].is_index ? open_index(c, &layouts[i], e)
                                       : open_single(c, &layouts[i], e);
    }
    return err_set(e, ERR_NOTFOUND,
                   "%s has no weights, expected model.safetensors, model.safetensors.index.json, "
                   "pytorch_model.bin or pytorch_model.bin.index.json",
                   c->dir);
}

static enum err_code open_config(struct ckpt *c, struct err *e)
{
    char *path = io_join(c->dir, "config.json");
    enum err_code rc = json_read(path, CONFIG_MAX, &c->config, e);
    if (rc == ERR_OK && !json_is_object(c->config))
        rc = err_set(e, ERR_FORMAT, "%s: expected a JSON object", path);
    xfree(path);
    return rc;
}

static enum err_code open_dir(struct ckpt *c, struct err *e)
{
    if (!io_is_dir(c->dir))
        return err_set(
            e, ERR_NOTFOUND,
            "%s: no such directory, expected a checkpoint in Hugging Face layout (config.json and "
            "weights)",
            c->dir);
    TRY(open_config(c, e));
    return open_weights(c, e);
}

enum err_code ckpt_open(const struct model_ref *m, struct ckpt **out, struct err *e)
{
    CHECK(m->path != NULL || m->hub != NULL);
    struct hub_id id = {.repo = m->hub, .revision = m->revision};
    struct ckpt *c = xcalloc(1, sizeof(*c));
    enum err_code rc = ERR_OK;
    if (m->path != NULL)
        c->dir = xstrdup(m->path);
    else
        rc = hub_find(&id, &c->dir, e);
    if (rc == ERR_OK) {
        rc = open_dir(c, e);
        if (rc == ERR_NOTFOUND && m->path == NULL)
            rc = hub_explain(&id, e);
    }
    if (rc != ERR_OK) {
        ckpt_close(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}

void ckpt_close(struct ckpt *c)
{
    if (c == NULL)
        return;
    ckpt_identity_stop(c);
    for (int i = 0; i < c->n_files; i++) {
        io_map_close(&c->files[i].map);
        xfree(c->files[i].path);
    }
    xfree(c->files);
    json_decref(c->config);
    arena_release(&c->arena);
    xfree(c->dir);
    xfree(c);
}

const char *ckpt_dir(const struct ckpt *c)
{
    return c->dir;
}

const json_t *ckpt_config(const struct ckpt *c)
{
    return c->config;
}

int ckpt_n_tensors(const struct ckpt *c)
{
    return c->n_tensors;
}

const struct ckpt_tensor *ckpt_tensor_at(const struct ckpt *c, int i)
{
    CHECK(i >= 0 && i < c->n_tensors);
    return &c->tensors[i];
}

const struct ckpt_tensor *ckpt_find(const struct ckpt *c, const char *name)
{
    return find_in(c->tensors, c->n_tensors, name);
}

const char *ckpt_file_name(const struct ckpt *c, int file)
{
    CHECK(file >= 0 && file < c->n_files);
    return c->files[file].name;
}

int ckpt_n_files(const struct ckpt *c)
{
    return c->n_files;
}

int64_t ckpt_file_bytes(const struct ckpt *c, int file)
{
    CHECK(file >= 0 && file < c->n_files);
    return (int64_t)c->files[file].map.size;
}

int64_t ckpt_bytes(const struct ckpt *c)
{
    int64_t sum = 0;
    for (int i = 0; i < c->n_files; i++)
        sum += ckpt_file_bytes(c, i);
    return sum;
}

void ckpt_forget_pages(struct ckpt *c)
{
    for (int i = 0; i < c->n_files; i++)
        io_map_forget(&c->files[i].map, 0, c->files[i].map.size);
}

#include "coordinator/estimate.h"

#include <dirent.h>
#include <string.h>

#include "base/io.h"
#include "base/proc.h"
#include "schema/hub.h"
#include "schema/rates.h"

static const char *const shape_labels[] = {
#define X(id, label) label,
    SHAPE_SOURCE_LIST(X)
#undef X
};

static const char *const tokens_labels[] = {
#define X(id, label) label,
    TOKENS_SOURCE_LIST(X)
#undef X
};

const char *shape_source_label(enum shape_source s)
{
    return shape_labels[s];
}

const char *tokens_source_label(enum tokens_source s)
{
    return tokens_labels[s];
}

/* ---- models ---- */

enum { CONFIG_BYTES_MAX = 4 << 20 };

/* Where a model's files are or would be; NULL when the Hugging Face cache has none. */
static const char *model_dir(const struct model_ref *m, struct arena *a)
{
    if (m->path != NULL)
        return m->path;
    struct hub_id id = {m->hub, m->revision};
    struct err ignored;
    char *dir = NULL;
    if (hub_find(&id, &dir, &ignored) != ERR_OK)
        return NULL;
    const char *kept = arena_strdup(a, dir);
    xfree(dir);
    return kept;
}

/* Sum over the files of a directory whose names end in `suffix`. */
static int64_t bytes_of_files(const char *dir, const char *suffix)
{
    int64_t sum = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f = d != NULL ? readdir(d) : NULL; f != NULL; f = readdir(d)) {
        if (!str_ends(str_of(f->d_name), suffix))
            continue;
        char *path = io_join(dir, f->d_name);
        int64_t size = io_file_size(path);
        sum += size > 0 ? size : 0;
        xfree(path);
    }
    if (d != NULL)
        closedir(d);
    return sum;
}

static int64_t bytes_of_weights(const char *dir)
{
    int64_t n = bytes_of_files(dir, ".safetensors");
    return n != 0 ? n : bytes_of_files(dir, ".bin");
}

static void take_shape(struct estimate_model *em, const struct model_shape *s)
{
    em->n_params = shape_n_params(s);
    em->n_embed = shape_n_embed(s);
    em->n_head = s->vocab * s->embed;
}

static bool shape_from_config(const char *dir, struct arena *a, struct model_shape *out)
{
    char *path = arena_printf(a, "%s/config.json", dir);
    json_t *config = NULL;
    struct err ignored;
    if (json_read(path, CONFIG_BYTES_MAX, &config, &ignored) != ERR_OK)
        return false;
    bool is_read = catalog_from_config(config, path, out, &ignored) == ERR_OK;
    json_decref(config);
    return is_read;
}

static void estimate_one_model(const struct model_ref *m, struct arena *a,
                               struct estimate_model *em)
{
    const char *dir = model_dir(m, a);
    const struct model_facts *facts = m->hub != NULL ? catalog_find(str_of(m->hub)) : NULL;
    struct model_shape shape;
    em->weights_bytes = dir != NULL ? bytes_of_weights(dir) : 0;
    em->is_here = em->weights_bytes > 0;
    em->source = SHAPE_UNKNOWN;
    if (facts != NULL) {
        em->source = SHAPE_CATALOG;
        take_shape(em, &facts->shape);
        if (!em->is_here)
            em->weights_bytes = em->n_params * facts->weight_bytes;
    } else if (dir != NULL && shape_from_config(dir, a, &shape)) {
        em->source = SHAPE_CONFIG;
        take_shape(em, &shape);
        if (!em->is_here)
            em->weights_bytes = 2 * em->n_params;
    } else if (em->is_here) {
        em->source = SHAPE_FILES;
        em->n_params = em->weights_bytes / 2; /* 16-bit weights */
    }
}

/* ---- evaluations ---- */

struct task_facts {
    int choices;
    double requests, tokens, shared, scored;
};
static const struct task_facts task_facts[] = {
#define X(id, label, choices, is_zero_shot, requests, tokens, shared_tokens, scored)               \
    {choices, requests, tokens, shared_tokens, scored},
#include "schema/task.def"
#undef X
};

static const double bytes_per_token = 4.3; /* English text under GPT-2's BPE */
static const double zstd_ratio = 3;        /* of the Pile's files, about */
static const int64_t lines_bytes_max = 64 << 20;

/* Lines of a file; -1 for one too large to look through or compressed. */
static int64_t count_lines(const char *path)
{
    struct io_map m = {0};
    struct err ignored;
    int64_t size = io_file_size(path);
    if (size > lines_bytes_max || str_ends(str_of(path), ".zst") ||
        io_map_open(path, &m, &ignored) != ERR_OK)
        return -1;
    int64_t n = 0;
    const unsigned char *end = m.data + m.size;
    for (const unsigned char *p = m.data; p != NULL && p < end; n++) {
        p = memchr(p, '\n', (size_t)(end - p));
        p = p != NULL ? p + 1 : NULL;
    }
    io_map_close(&m);
    return n;
}

static double min_of(double a, double b)
{
    return a < b ? a : b;
}

static void estimate_perplexity(const struct eval_spec *ev, struct estimate_eval *ee)
{
    double tokens = task_facts[TASK_perplexity].tokens;
    ee->source = TOKENS_PUBLISHED;
    if (ee->is_here) {
        double ratio = str_ends(str_of(ev->data), ".zst") ? zstd_ratio : 1;
        tokens = (double)io_file_size(ev->data_path) * ratio / bytes_per_token;
        ee->source = TOKENS_BYTES;
        int64_t lines = ev->limit != 0 ? count_lines(ev->data_path) : -1;
        if (lines > 0)
            tokens *= min_of(1, (double)ev->limit / (double)lines);
    }
    if (ev->max_tokens != 0 && (!ee->is_here || (double)ev->max_tokens < tokens)) {
        tokens = (double)ev->max_tokens;
        ee->source = TOKENS_SPEC;
    }
    ee->tokens = ee->shared_tokens = ee->scored_tokens = tokens;
}

static void estimate_items(const struct eval_spec *ev, struct estimate_eval *ee)
{
    const struct task_facts *f = &task_facts[ev->task];
    double published = f->requests / f->choices;
    double items = published;
    bool has_items = ev->task != TASK_weight_std; /* whose items are windows of a text */
    int64_t lines = ee->is_here && has_items ? count_lines(ev->data_path) : -1;
    ee->source = lines >= 0 ? TOKENS_LINES : TOKENS_PUBLISHED;
    if (lines >= 0)
        items = (double)lines;
    if (ev->limit != 0)
        items = min_of(items, (double)ev->limit);
    ee->tokens = items * f->tokens / published;
    ee->shared_tokens = items * f->shared / published;
    ee->scored_tokens = items * f->scored / published;
}

static void estimate_one_eval(const struct eval_spec *ev, struct estimate_eval *ee)
{
    ee->is_here = io_exists(ev->data_path) && !io_is_dir(ev->data_path);
    if (ev->task == TASK_perplexity)
        estimate_perplexity(ev, ee);
    else
        estimate_items(ev, ee);
}

/* ---- sums ---- */

static double flops_of(const struct estimate_model *em, const struct estimate_eval *ee)
{
    return 2 * (double)em->n_params * ee->tokens;
}

/* What the engine computes: shared contexts once, the head only for scored tokens, no product with embeddings. */
static double flops_shared_of(const struct estimate_model *em, const struct estimate_eval *ee)
{
    return 2 * (double)(em->n_params - em->n_embed) * ee->shared_tokens +
           2 * (double)em->n_head * ee->scored_tokens;
}

static void add_jobs(const struct sweep *sw, struct estimate *out)
{
    int32_t model = -1;
    int32_t config = -1;
    for (int64_t i = 0; i < sw->n_jobs; i++) {
        const struct sweep_job *j = &sw->jobs[i];
        struct estimate_model *em = &out->models[j->model];
        struct estimate_eval *ee = &out->evals[j->eval];
        bool is_new_cell = j->model != model || j->config != config; /* jobs are sorted */
        em->n_configs += is_new_cell;
        out->n_cells += is_new_cell;
        em->n_jobs++;
        ee->n_jobs++;
        em->flops += flops_of(em, ee);
        out->flops_shared += flops_shared_of(em, ee);
        model = j->model;
        config = j->config;
    }
}

static void finish_model(const struct sweep *sw, struct estimate *out, int i)
{
    struct estimate_model *em = &out->models[i];
    for (int v = 0; v < sw->n_evals; v++)
        em->flops_pass += flops_of(em, &out->evals[v]);
    em->hours_flat = em->flops / rate_flat() / 3600;
    em->hours_by_size = em->flops / rate_by_size((double)em->n_params) / 3600;
    out->flops += em->flops;
    out->hours_flat += em->hours_flat;
    out->hours_by_size += em->hours_by_size;
    out->bytes_once += (double)em->weights_bytes;
    out->bytes_per_config_loads += (double)em->weights_bytes * em->n_configs;
    out->bytes_per_job_loads += (double)em->weights_bytes * (double)em->n_jobs;
    out->n_models_absent += !em->is_here;
    out->n_models_unknown += em->source == SHAPE_UNKNOWN;
}

static struct estimate_group *group_of(struct estimate *out, const char *family, int n_configs)
{
    for (int i = 0; i < out->n_groups; i++) {
        struct estimate_group *g = &out->groups[i];
        if (g->n_configs == n_configs && strcmp(g->family, family) == 0)
            return g;
    }
    struct estimate_group *g = &out->groups[out->n_groups++];
    *g = (struct estimate_group){.family = family, .n_configs = n_configs};
    return g;
}

static void add_to_group(const struct sweep *sw, struct estimate *out, int i)
{
    const struct estimate_model *em = &out->models[i];
    struct estimate_group *g = group_of(out, sw->models[i].ref.family, em->n_configs);
    g->n_models++;
    g->n_jobs += em->n_jobs;
    g->n_params += (double)em->n_params;
    g->weights_bytes += (double)em->weights_bytes;
    g->flops_pass += em->flops_pass;
    g->flops += em->flops;
    g->hours_flat += em->hours_flat;
    g->hours_by_size += em->hours_by_size;
}

void estimate_sweep(const struct sweep *sw, struct arena *a, struct estimate *out)
{
    *out = (struct estimate){.cpu_cores = proc_cores()};
    out->models = arena_array(a, (size_t)sw->n_models, sizeof(*out->models));
    out->evals = arena_array(a, (size_t)sw->n_evals, sizeof(*out->evals));
    out->groups = arena_array(a, (size_t)sw->n_models, sizeof(*out->groups));
    for (int i = 0; i < sw->n_models; i++)
        estimate_one_model(&sw->models[i].ref, a, &out->models[i]);
    for (int i = 0; i < sw->n_evals; i++) {
        estimate_one_eval(&sw->evals[i].spec, &out->evals[i]);
        out->n_evals_absent += !out->evals[i].is_here;
    }
    add_jobs(sw, out);
    for (int i = 0; i < sw->n_models; i++) {
        finish_model(sw, out, i);
        add_to_group(sw, out, i);
    }
    out->hours_cpu = out->flops_shared / (rate_cpu_core() * out->cpu_cores) / 3600;
}

/* Estimates for people and for programs. */
#include <stdio.h>
#include <string.h>

#include "coordinator/estimate.h"
#include "schema/rates.h"
#include "schema/sweep_axis.h"

/* ---- jobs for each value of each axis ---- */

enum { AXIS_VALUES_MAX = 64 };

struct axis_count {
    double value;
    int64_t jobs;
};

struct axis_counts {
    struct axis_count v[AXIS_VALUES_MAX];
    int n;
};

static int64_t *jobs_per_config(const struct sweep *sw, struct arena *a)
{
    int64_t *jobs = arena_array(a, (size_t)sw->n_configs, sizeof(*jobs));
    for (int64_t i = 0; i < sw->n_jobs; i++)
        jobs[sw->jobs[i].config]++;
    return jobs;
}

static void count_value(struct axis_counts *out, double value, int64_t jobs)
{
    int i = 0;
    while (i < out->n && out->v[i].value != value)
        i++;
    if (i == AXIS_VALUES_MAX)
        return; /* an axis has at most as many values as a spec can list */
    if (i == out->n)
        out->v[out->n++] = (struct axis_count){value, 0};
    out->v[i].jobs += jobs;
}

static void count_axis(const struct sweep *sw, const int64_t *jobs, enum axis x,
                       struct axis_counts *out)
{
    out->n = 0;
    for (int c = 0; c < sw->n_configs; c++) {
        if (axis_applies(&sw->configs[c], x))
            count_value(out, axis_get(&sw->configs[c], x), jobs[c]);
    }
}

/* ---- for people ---- */

enum { COUNT_TEXT = 32 };

/* "35,280" */
static const char *with_commas(int64_t n, char out[COUNT_TEXT])
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%lld", (long long)n);
    int at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static const char *hours_text(double hours, char out[COUNT_TEXT])
{
    if (hours >= 10)
        snprintf(out, COUNT_TEXT, "%.0f h", hours);
    else if (hours >= 0.1)
        snprintf(out, COUNT_TEXT, "%.1f h", hours);
    else
        fmt_duration(hours * 3600, out);
    return out;
}

static void print_head(const struct sweep *sw, const struct estimate *est, struct buf *out)
{
    char jobs[COUNT_TEXT];
    char cells[COUNT_TEXT];
    buf_printf(out, "sweep %s (%s): %s jobs\n", sw->name, sw->path, with_commas(sw->n_jobs, jobs));
    buf_printf(out, "  %d models, %d configurations (%s pairs of both), %d evaluations\n\n",
               sw->n_models, sw->n_configs, with_commas(est->n_cells, cells), sw->n_evals);
}

static void print_axes(const struct sweep *sw, struct buf *out)
{
    struct arena a = {0};
    int64_t *jobs = jobs_per_config(sw, &a);
    buf_adds(out, "jobs by axis\n");
    for (int x = 0; x < AXIS_COUNT; x++) {
        struct axis_counts counts;
        count_axis(sw, jobs, (enum axis)x, &counts);
        if (counts.n < 2 && x != AXIS_K && x != AXIS_COMPUTE)
            continue;
        buf_printf(out, "  %-16s", axis_key((enum axis)x));
        for (int i = 0; i < counts.n; i++) {
            char n[COUNT_TEXT];
            buf_printf(out, "%s%s: %s", i == 0 ? "" : "  ",
                       axis_spell((enum axis)x, counts.v[i].value, &a),
                       with_commas(counts.v[i].jobs, n));
        }
        buf_adds(out, "\n");
    }
    buf_adds(out, "\n");
    arena_release(&a);
}

static void print_group(const struct estimate_group *g, struct buf *out)
{
    char jobs[COUNT_TEXT];
    char params[32];
    char bytes[32];
    char flat[COUNT_TEXT];
    char by_size[COUNT_TEXT];
    char configs[COUNT_TEXT] = "";
    if (g->n_configs != 0) /* a total has no one number */
        snprintf(configs, sizeof(configs), "%d", g->n_configs);
    buf_printf(out, "  %-10s %6d %8s %10s %10s %10s %10.2e %10s %10s\n", g->family, g->n_models,
               configs, with_commas(g->n_jobs, jobs), fmt_si(g->n_params, params),
               fmt_bytes(g->weights_bytes, bytes), g->flops_pass, hours_text(g->hours_flat, flat),
               hours_text(g->hours_by_size, by_size));
}

static void add_group(struct estimate_group *sum, const struct estimate_group *g)
{
    sum->n_models += g->n_models;
    sum->n_jobs += g->n_jobs;
    sum->n_params += g->n_params;
    sum->weights_bytes += g->weights_bytes;
    sum->flops_pass += g->flops_pass;
    sum->flops += g->flops;
    sum->hours_flat += g->hours_flat;
    sum->hours_by_size += g->hours_by_size;
}

/* A sum for each number of configurations that several groups share: a thinned grid of the largest models stays
 * apart from the full one. */
static void print_sums(const struct estimate *est, struct buf *out)
{
    struct estimate_group total = {.family = "total"};
    for (int i = 0; i < est->n_groups; i++) {
        struct estimate_group sum = {.family = "sum", .n_configs = est->groups[i].n_configs};
        int n_members = 0;
        bool is_first = true;
        for (int j = 0; j < est->n_groups; j++) {
            if (est->groups[j].n_configs != sum.n_configs)
                continue;
            is_first = is_first && j >= i;
            n_members++;
            add_group(&sum, &est->groups[j]);
        }
        if (is_first && n_members > 1 && n_members < est->n_groups)
            print_group(&sum, out);
        add_group(&total, &est->groups[i]);
    }
    print_group(&total, out);
}

static void print_groups(const struct estimate *est, struct buf *out)
{
    buf_printf(out, "  %-10s %6s %8s %10s %10s %10s %10s %10s %10s\n", "family", "models",
               "configs", "jobs", "parameters", "files", "FLOPs/pass", "flat rate", "by size");
    for (int i = 0; i < est->n_groups; i++)
        print_group(&est->groups[i], out);
    if (est->n_groups > 1)
        print_sums(est, out);
    buf_printf(
        out,
        "  a pass: every evaluation of one configuration, 2 FLOPs a parameter and token\n"
        "  flat rate: %.0f TFLOP/s; by size: 40 TFLOP/s below 0.2 G parameters, 100 below 0.6 G, "
        "200 below 3.5 G, 400 above\n\n",
        rate_flat() / 1e12);
}

static void print_evals(const struct sweep *sw, const struct estimate *est, struct buf *out)
{
    buf_printf(out, "  %-14s %-12s %10s %10s  %s\n", "evaluation", "task", "jobs", "tokens",
               "tokens estimated from");
    for (int i = 0; i < sw->n_evals; i++) {
        const struct eval_spec *ev = &sw->evals[i].spec;
        const struct estimate_eval *ee = &est->evals[i];
        char jobs[COUNT_TEXT];
        char tokens[32];
        buf_printf(out, "  %-14s %-12s %10s %10s  %s\n", ev->name, task_label(ev->task),
                   with_commas(ee->n_jobs, jobs), fmt_si(ee->tokens, tokens),
                   tokens_source_label(ee->source));
    }
    buf_adds(out, "\n");
}

/* Beyond this nobody runs a sweep on a CPU. */
static const double cpu_hours_sensible = 1000;

static void print_totals(const struct estimate *est, struct buf *out)
{
    char a[32];
    char b[32];
    char c[32];
    char cpu[COUNT_TEXT];
    buf_printf(
        out,
        "weights to read    %s with one load for each checkpoint (what workers do), %s for each "
        "configuration, %s for each job\n",
        fmt_bytes(est->bytes_once, a), fmt_bytes(est->bytes_per_config_loads, b),
        fmt_bytes(est->bytes_per_job_loads, c));
    buf_printf(
        out,
        "floating point     %.2e FLOPs; %.2e with shared contexts computed once and the head only "
        "where tokens are scored\n",
        est->flops, est->flops_shared);
    buf_printf(out, "time               %.1f GPU-hours at the flat rate, %.1f by size\n",
               est->hours_flat, est->hours_by_size);
    if (est->hours_cpu < cpu_hours_sensible)
        buf_printf(out, "                   %s on this machine's %d core%s at %.0f GFLOP/s each\n",
                   hours_text(est->hours_cpu, cpu), est->cpu_cores, est->cpu_cores == 1 ? "" : "s",
                   rate_cpu_core() / 1e9);
    if (est->n_models_unknown > 0)
        buf_printf(
            out,
            "%d models are neither in the catalog nor here: their cost is not in these numbers\n",
            est->n_models_unknown);
}

void estimate_print(const struct sweep *sw, const struct estimate *est, struct buf *out)
{
    print_head(sw, est, out);
    print_axes(sw, out);
    print_groups(est, out);
    print_evals(sw, est, out);
    print_totals(est, out);
}

/* ---- for programs ---- */

static void put(json_t *o, const char *key, json_t *v)
{
    CHECK(json_object_set_new(o, key, v) == 0);
}

static json_t *axes_to_json(const struct sweep *sw)
{
    struct arena a = {0};
    int64_t *jobs = jobs_per_config(sw, &a);
    json_t *axes = json_object();
    for (int x = 0; x < AXIS_COUNT; x++) {
        struct axis_counts counts;
        count_axis(sw, jobs, (enum axis)x, &counts);
        json_t *values = json_object();
        for (int i = 0; i < counts.n; i++)
            put(values, axis_spell((enum axis)x, counts.v[i].value, &a),
                json_integer(counts.v[i].jobs));
        put(axes, axis_key((enum axis)x), values);
    }
    arena_release(&a);
    return axes;
}

static json_t *model_to_json(const struct model_ref *m, const struct estimate_model *em)
{
    json_t *o = json_object();
    put(o, "family", json_string(m->family));
    put(o, "size", json_string(m->size));
    put(o, "name", json_string(m->name));
    put(o, "is_here", json_boolean(em->is_here));
    put(o, "source", json_string(shape_source_label(em->source)));
    put(o, "n_params", json_integer(em->n_params));
    put(o, "weights_bytes", json_integer(em->weights_bytes));
    put(o, "configurations", json_integer(em->n_configs));
    put(o, "jobs", json_integer(em->n_jobs));
    put(o, "flops_pass", json_real(em->flops_pass));
    put(o, "flops", json_real(em->flops));
    put(o, "gpu_hours_flat", json_real(em->hours_flat));
    put(o, "gpu_hours_by_size", json_real(em->hours_by_size));
    return o;
}

static json_t *eval_to_json(const struct eval_spec *ev, const struct estimate_eval *ee)
{
    json_t *o = json_object();
    put(o, "name", json_string(ev->name));
    put(o, "task", json_string(task_label(ev->task)));
    put(o, "data", json_string(ev->data));
    put(o, "is_here", json_boolean(ee->is_here));
    put(o, "jobs", json_integer(ee->n_jobs));
    put(o, "tokens", json_real(ee->tokens));
    put(o, "tokens_shared", json_real(ee->shared_tokens));
    put(o, "tokens_scored", json_real(ee->scored_tokens));
    put(o, "source", json_string(tokens_source_label(ee->source)));
    return o;
}

static json_t *group_to_json(const struct estimate_group *g)
{
    json_t *o = json_object();
    put(o, "family", json_string(g->family));
    put(o, "models", json_integer(g->n_models));
    put(o, "configurations", json_integer(g->n_configs));
    put(o, "jobs", json_integer(g->n_jobs));
    put(o, "n_params", json_real(g->n_params));
    put(o, "weights_bytes", json_real(g->weights_bytes));
    put(o, "flops_pass", json_real(g->flops_pass));
    put(o, "flops", json_real(g->flops));
    put(o, "gpu_hours_flat", json_real(g->hours_flat));
    put(o, "gpu_hours_by_size", json_real(g->hours_by_size));
    return o;
}

static json_t *totals_to_json(const struct estimate *est)
{
    json_t *o = json_object();
    put(o, "bytes_per_checkpoint_load", json_real(est->bytes_once));
    put(o, "bytes_per_configuration_load", json_real(est->bytes_per_config_loads));
    put(o, "bytes_per_job_load", json_real(est->bytes_per_job_loads));
    put(o, "flops", json_real(est->flops));
    put(o, "flops_shared", json_real(est->flops_shared));
    put(o, "gpu_hours_flat", json_real(est->hours_flat));
    put(o, "gpu_hours_by_size", json_real(est->hours_by_size));
    put(o, "flat_flops_per_s", json_real(rate_flat()));
    put(o, "cpu_hours", json_real(est->hours_cpu));
    put(o, "cpu_cores", json_integer(est->cpu_cores));
    put(o, "cpu_core_flops_per_s", json_real(rate_cpu_core()));
    return o;
}

json_t *estimate_to_json(const struct sweep *sw, const struct estimate *est)
{
    json_t *o = json_object();
    json_t *models = json_array();
    json_t *evals = json_array();
    json_t *groups = json_array();
    for (int i = 0; i < sw->n_models; i++)
        CHECK(json_array_append_new(models, model_to_json(&sw->models[i].ref, &est->models[i])) ==
              0);
    for (int i = 0; i < sw->n_evals; i++)
        CHECK(json_array_append_new(evals, eval_to_json(&sw->evals[i].spec, &est->evals[i])) == 0);
    for (int i = 0; i < est->n_groups; i++)
        CHECK(json_array_append_new(groups, group_to_json(&est->groups[i])) == 0);
    put(o, "sweep", json_string(sw->name));
    put(o, "spec", json_string(sw->path));
    put(o, "jobs", json_integer(sw->n_jobs));
    put(o, "configurations", json_integer(sw->n_configs));
    put(o, "cells", json_integer(est->n_cells));
    put(o, "axes", axes_to_json(sw));
    put(o, "groups", groups);
    put(o, "models", models);
    put(o, "evaluations", evals);
    put(o, "totals", totals_to_json(est));
    return o;
}

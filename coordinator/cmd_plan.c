/* isobit plan SPEC.yaml: what a sweep consists of and costs; without --dry-run its jobs go into the database. */
#include <stddef.h>
#include <stdio.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "coordinator/plan.h"

struct plan_options {
    const char *db;
    int64_t priority;
    bool is_dry_run, is_json;
};

static const struct cli_opt options[] = {
    CMD_OPT_SPEC_DB(offsetof(struct plan_options, db)),
    {.name = "dry-run",
     .letter = 'n',
     .type = CLI_FLAG,
     .help = "only count and estimate; write nothing",
     .offset = offsetof(struct plan_options, is_dry_run)},
    {.name = "priority",
     .type = CLI_INT,
     .arg = "N",
     .help = "jobs of a higher priority are leased first",
     .def = "0",
     .min = -1000,
     .max = 1000,
     .offset = offsetof(struct plan_options, priority)},
    CLI_OPT_JSON(offsetof(struct plan_options, is_json)),
};

static void print_planned(const struct plan_counts *n, const char *db, struct buf *out)
{
    if (n->jobs_new == 0)
        buf_printf(out, "nothing new: all %lld jobs are already in %s\n", (long long)n->jobs_total,
                   db);
    else
        buf_printf(out, "planned %lld new jobs into %s (%lld were there already)\n",
                   (long long)n->jobs_new, db, (long long)n->jobs_known);
}

static json_t *planned_to_json(const struct plan_counts *n, const char *db)
{
    return json_pack("{s:s, s:I, s:I, s:I}", "db", db, "jobs_total", (json_int_t)n->jobs_total,
                     "jobs_new", (json_int_t)n->jobs_new, "jobs_known", (json_int_t)n->jobs_known);
}

static enum err_code plan_and_print(const struct plan_options *o, const char *spec_path,
                                    struct arena *a, struct err *e)
{
    struct sweep sw;
    struct estimate est;
    struct plan_counts counts = {0};
    TRY(sweep_load(spec_path, a, &sw, e));
    estimate_sweep(&sw, a, &est);
    char *db = o->db != NULL ? xstrdup(o->db) : plan_default_db(spec_path);
    enum err_code rc = o->is_dry_run ? ERR_OK : plan_submit(&sw, db, o->priority, &counts, e);
    if (rc == ERR_OK) {
        struct buf out = {0};
        if (o->is_json) {
            json_t *doc = estimate_to_json(&sw, &est);
            json_object_set_new(doc, "planned",
                                o->is_dry_run ? json_null() : planned_to_json(&counts, db));
            json_append(&out, doc, true);
            buf_adds(&out, "\n");
            json_decref(doc);
        } else {
            estimate_print(&sw, &est, &out);
            if (!o->is_dry_run)
                print_planned(&counts, db, &out);
        }
        plan_warn_absent(&sw, &est);
        fwrite(out.data, 1, out.len, stdout);
        buf_release(&out);
    }
    xfree(db);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    struct arena a = {0};
    struct err e;
    enum err_code rc = plan_and_print(opts, args[0], &a, &e);
    arena_release(&a);
    return rc == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_plan = {
    .name = "plan",
    .args = "SPEC.yaml",
    .summary = "expand a sweep spec, estimate its cost, add its jobs to a database",
    /* The help wraps lines itself; a line here is a paragraph there. */
    .doc =
        "Expands SPEC.yaml (sweeps/README.md has every key) and prints jobs by axis, weights to "
        "read, "
        "floating-point operations and hours at stated rates. Without --dry-run the jobs go into "
        "the "
        "database; those that are there already stay as they are, so planning twice adds nothing. "
        "A "
        "model or data file that is not on this machine is a warning: the catalog knows the "
        "paper's "
        "models, and only workers need the files.\n"
        "\n"
        "  isobit plan sweeps/paper.yaml --dry-run\n"
        "\n"
        "--json prints one object:\n"
        "  sweep, spec, jobs, configurations, cells (pairs of model and configuration)\n"
        "  axes{axis: {value: jobs}}\n"
        "  groups[family, models, configurations, jobs, n_params, weights_bytes, flops_pass, "
        "flops, "
        "gpu_hours_flat, gpu_hours_by_size]\n"
        "  models[family, size, name, is_here, source, n_params, weights_bytes, configurations, "
        "jobs, "
        "flops_pass, flops, gpu_hours_flat, gpu_hours_by_size]\n"
        "  evaluations[name, task, data, is_here, jobs, tokens, tokens_shared, tokens_scored, "
        "source]\n"
        "  totals{bytes_per_checkpoint_load, bytes_per_configuration_load, bytes_per_job_load, "
        "flops, "
        "flops_shared, gpu_hours_flat, gpu_hours_by_size, flat_flops_per_s, cpu_hours, cpu_cores, "
        "cpu_core_flops_per_s}\n"
        "  planned{db, jobs_total, jobs_new, jobs_known}, null with --dry-run",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct plan_options),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "schema/sweep.h"
#include "tests/support/support.h"

static struct arena arena;
static struct err e;

/* Every spec of the tables below is these models and evaluations around the part under test. */
static const char models[] = "models:\n"
                             "  - {family: pythia, sizes: [s0, s1], path: m/{family}-{size}}\n"
                             "  - {family: opt, sizes: 125m, hub: facebook/opt-{size}}\n";
static const char evals[] = "evaluations:\n"
                            "  - {task: lambada, data: l.jsonl}\n"
                            "  - {name: cc, task: perplexity, data: c.jsonl, window: context}\n";

static enum err_code parse(const char *text, struct sweep *out)
{
    return sweep_parse(str_of(text), "spec.yaml", &arena, out, &e);
}

static struct sweep parsed(const char *middle)
{
    struct sweep sw = {0};
    char *text = xasprintf("name: t\n%s%s%s", models, middle, evals);
    cr_assert_eq(parse(text, &sw), ERR_OK, "%s", e.text);
    xfree(text);
    return sw;
}

static const char *key_at(const struct sweep *sw, int64_t i)
{
    const struct sweep_job *j = &sw->jobs[i];
    return job_key(&sw->models[j->model].ref, &sw->configs[j->config], &sw->evals[j->eval].spec,
                   &arena);
}

/* ---- what a spec means ---- */

Test(sweep, spec_of_the_contract_is_read)
{
    static const char text[] =
        "name: demo\n"
        "compute: fp32                        # or a list\n"
        "models:\n"
        "  - {family: pythia, sizes: [s0, s1, s2], path: demo/models/{family}-{size}}\n"
        "  - {family: opt, sizes: [125m, 350m, 1.3b], hub: facebook/opt-{size}}\n"
        "configurations:                      # a list of grids\n"
        "  - {k: 16}\n"
        "  - {k: [3, 4, 5, 6, 7, 8], dtype: [int, float, dynamic, quantile], block: [64, 256, "
        "1024, tensor]}\n"
        "  - {k: 4, dtype: float, exponent_bits: [1, 2, 3], block: 64}\n"
        "  - {k: [3, 4], dtype: float, block: 64, outlier_pct: [0, 2], family: opt}\n"
        "  - {k: 4, dtype: int, block: 64, center: [none, tensor]}\n"
        "exclude:\n"
        "  - {dtype: quantile, k: [7, 8]}\n"
        "evaluations:\n"
        "  - {name: corpus, task: perplexity, data: demo/corpus.jsonl, window: 512, max_tokens: "
        "16384}\n"
        "  - {task: lambada, data: demo/tasks/lambada.jsonl, limit: 120}\n";
    struct sweep sw;
    cr_assert_eq(sweep_parse(STR(text), "/specs/demo.yaml", &arena, &sw, &e), ERR_OK, "%s", e.text);
    cr_expect_str_eq(sw.name, "demo");
    cr_expect_str_eq(sw.dir, "/specs");
    cr_expect_str_eq(sw.text, text);
    /* 1 + 96 - 8 excluded + E1 and E3 at k=4 (E2 is the heuristic's) + centering = 92, and 2 with outliers for OPT. */
    cr_expect_eq(sw.n_configs, 94);
    cr_expect_eq(sw.n_jobs, (3 * 92 + 3 * 94) * 2);
    cr_expect_str_eq(sw.models[0].ref.name, "demo/models/pythia-s0");
    cr_expect_str_eq(sw.models[0].ref.path, "/specs/demo/models/pythia-s0");
    cr_expect_str_eq(sw.models[5].ref.hub, "facebook/opt-1.3b");
    cr_expect_null(sw.models[5].ref.path);
    cr_expect_str_eq(sw.evals[0].spec.data_path, "/specs/demo/corpus.jsonl");
    cr_expect_eq(sw.evals[0].spec.method, METHOD_ROLLING);
    cr_expect_str_eq(sw.evals[1].spec.name, "lambada");
    cr_expect_eq(sw.evals[1].spec.limit, 120);
    arena_release(&arena);
}

Test(sweep, jobs_are_ordered_by_model_configuration_and_evaluation_with_the_baseline_first)
{
    struct sweep sw = parsed("configurations:\n  - {k: [3, 16, 4], block: [tensor, 64]}\n");
    static const struct {
        int64_t at;
        const char *key;
    } rows[] = {
        {0, "v1|k=16|model=m/pythia-s0|task=lambada|task.data=l.jsonl"},
        {1, "v1|k=16|model=m/pythia-s0|task=perplexity|task.data=c.jsonl|task.method=rolling"},
        {2, "v1|k=4|model=m/pythia-s0|task=lambada|task.data=l.jsonl"},
        {3, "v1|k=4|model=m/pythia-s0|task=perplexity|task.data=c.jsonl|task.method=rolling"},
        {4, "v1|block=tensor|k=4|model=m/pythia-s0|task=lambada|task.data=l.jsonl"},
        {6, "v1|k=3|model=m/pythia-s0|task=lambada|task.data=l.jsonl"},
        {10, "v1|k=16|model=m/pythia-s1|task=lambada|task.data=l.jsonl"},
    };
    cr_expect_eq(sw.n_jobs, 3 * 5 * 2, "16 bits count once, whatever the block");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        cr_expect_str_eq(key_at(&sw, rows[i].at), rows[i].key);
    arena_release(&arena);
}

Test(sweep, expansion_does_not_depend_on_the_order_or_repetition_of_grids_and_values)
{
    struct sweep a = parsed(
        "configurations:\n  - {k: 16}\n  - {k: [3, 4], dtype: [int, float], block: [64, 128]}\n");
    struct sweep b = parsed("configurations:\n"
                            "  - {k: [4, 3, 4], dtype: float, exponent_bits: 2, block: [128, 64]}\n"
                            "  - {k: 3, dtype: float, block: 64}\n"
                            "  - {k: [16, 4, 3], dtype: int, block: [64, 128]}\n");
    cr_assert_eq(a.n_jobs, b.n_jobs);
    for (int64_t i = 0; i < a.n_jobs; i++)
        cr_expect_str_eq(key_at(&a, i), key_at(&b, i));
    arena_release(&arena);
}

static int64_t n_jobs_of(const char *middle)
{
    return parsed(middle).n_jobs;
}

/* Three models, two evaluations: six jobs a configuration. */
static const struct {
    const char *middle;
    int64_t n_jobs;
} counts[] = {
    {"configurations: [{k: 16}]\n", 6},
    {"compute: [fp32, fp16]\nconfigurations: [{k: 16}]\n", 12},
    {"compute: [fp32, fp16]\nconfigurations: [{k: 16, compute: bf16}]\n", 6},
    {"configurations: [{k: 4, dtype: float, exponent_bits: paper}, {k: 4, dtype: float, "
     "exponent_bits: 3}]\n",
     6},
    {"configurations: [{k: 3, dtype: float, exponent_bits: paper}, {k: 3, dtype: float}]\n", 6},
    {"configurations: [{k: 4, family: pythia}]\n", 4},
    {"configurations: [{k: 4, size: [s1, 125m]}]\n", 4},
    {"configurations: [{k: 4, family: pythia, size: s1}]\n", 2},
    {"configurations: [{k: 4}, {k: 8, family: opt}]\n", 8},
    {"configurations: [{k: [3, 4, 16]}]\nexclude: [{dtype: int}]\n",
     6}, /* 16 bits have no data type */
    {"configurations: [{k: [3, 4, 16]}]\nexclude: [{k: 16}]\n", 12},
    {"configurations: [{k: [3, 4]}]\nexclude: [{family: pythia, k: 3}]\n", 8},
    {"configurations: [{k: [3, 4]}]\nexclude: [{evaluation: cc, size: s0}]\n", 10},
    {"configurations: [{k: [3, 4], dtype: float}]\nexclude: [{exponent_bits: paper}]\n",
     6}, /* k=3: heuristic is 2 */
    {"configurations: [{k: [3, 4], dtype: float, exponent_bits: [2, 3]}]\n"
     "exclude: [{k: 3, dtype: float, exponent_bits: 3}]\n",
     18},
    {"configurations: [{k: 4, outlier_pct: [0, 2], outlier_rule: [previous, previous-resid]}]\n",
     18},
    {"configurations: [{k: 3, dtype: float, subnormal_shift: [0, 2, 4]}]\n",
     6}, /* no mantissa, no subnormals */
    {"configurations: [{k: 4, dtype: float, subnormal_shift: [0, 2, 4]}]\n", 18},
    {"configurations: [{k: 4, block: tensor, center: [tensor, block]}]\n", 6},
    {"configurations: [{k: 4, quant_head: [true, false], quant_embed: [true, false], dequant: "
     "[fp16, fp32]}]\n",
     48},
    {"configurations:\n- k:\n  - 3\n  - 4\n", 12},
};

Test(sweep, grids_unite_and_excludes_take_off)
{
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        cr_expect_eq(n_jobs_of(counts[i].middle), counts[i].n_jobs, "%s: %lld", counts[i].middle,
                     (long long)n_jobs_of(counts[i].middle));
    arena_release(&arena);
}

Test(sweep, models_and_configurations_without_jobs_are_left_out)
{
    struct sweep sw =
        parsed("configurations: [{k: [3, 4]}]\nexclude: [{family: pythia}, {k: 3}]\n");
    cr_expect_eq(sw.n_models, 1);
    cr_expect_eq(sw.n_configs, 1);
    cr_expect_eq(sw.n_jobs, 2);
    cr_expect_eq(sw.jobs[0].model, 0);
    cr_expect_str_eq(sw.models[0].ref.size, "125m");
    arena_release(&arena);
}

Test(sweep, name_defaults_to_the_file_and_revisions_are_part_of_a_model)
{
    struct sweep sw;
    cr_assert_eq(sweep_parse(STR("models: [{family: o, sizes: [a], hub: org/x-{size}@v1.0}]\n"
                                 "configurations: [{k: 4}]\n"
                                 "evaluations: [{task: piqa, data: /abs/p.jsonl}]\n"),
                             "dir/my-sweep.yaml", &arena, &sw, &e),
                 ERR_OK, "%s", e.text);
    cr_expect_str_eq(sw.name, "my-sweep");
    cr_expect_str_eq(sw.models[0].ref.name, "org/x-a@v1.0");
    cr_expect_str_eq(sw.models[0].ref.hub, "org/x-a");
    cr_expect_str_eq(sw.models[0].ref.revision, "v1.0");
    cr_expect_str_eq(sw.evals[0].spec.data_path, "/abs/p.jsonl");
    cr_expect(str_ends(str_of(sw.dir), "/dir") && sw.dir[0] == '/', "%s", sw.dir);
    arena_release(&arena);
}

/* ---- the paper's grid: models spec, section 3 ---- */

static int count_if(const struct sweep *sw, bool (*is_part)(const struct config *))
{
    int n = 0;
    for (int i = 0; i < sw->n_configs; i++)
        n += is_part(&sw->configs[i]);
    return n;
}

static bool is_baseline(const struct config *c)
{
    return c->k == 16;
}
static bool has_other_exponent(const struct config *c)
{
    return c->k < 16 && c->dtype == DTYPE_float &&
           c->exponent_bits != config_heuristic_exponent_bits(c->k);
}
static bool is_centered(const struct config *c)
{
    return c->center == CENTER_TENSOR && c->block == 64;
}
static bool has_outliers(const struct config *c)
{
    return c->outlier_pct > 0 && c->block == 64;
}
static bool is_base(const struct config *c)
{
    return !is_baseline(c) && !has_other_exponent(c) && c->center == CENTER_NONE &&
           c->outlier_pct == 0;
}

Test(sweep, paper_grid_has_its_parts_and_35280_jobs)
{
    struct sweep sw;
    cr_assert_eq(sweep_load(support_source("sweeps/paper.yaml"), &arena, &sw, &e), ERR_OK, "%s",
                 e.text);
    cr_expect_eq(count_if(&sw, is_base), 144);
    cr_expect_eq(count_if(&sw, is_centered), 24);
    cr_expect_eq(count_if(&sw, has_outliers), 36);
    cr_expect_eq(count_if(&sw, has_other_exponent), 21);
    cr_expect_eq(count_if(&sw, is_baseline), 1);
    cr_expect_eq(sw.n_configs, 226);
    cr_expect_eq(sw.n_models, 33);
    cr_expect_eq(sw.n_evals, 5);
    int64_t large = 0;
    for (int64_t i = 0; i < sw.n_jobs; i++)
        large += strcmp(sw.models[sw.jobs[i].model].ref.size, "176b") == 0;
    cr_expect_eq(large, 2 * 25 * 5);
    cr_expect_eq(sw.n_jobs, 31 * 226 * 5 + 2 * 25 * 5);
    arena_release(&arena);
}

Test(sweep, every_shipped_spec_is_valid)
{
    static const struct {
        const char *path;
        int64_t min, max;
    } rows[] = {{"sweeps/demo.yaml", 590, 590},
                {"sweeps/demo-full.yaml", 2000, 10000},
                {"sweeps/smoke.yaml", 40, 60}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sweep sw;
        cr_assert_eq(sweep_load(support_source(rows[i].path), &arena, &sw, &e), ERR_OK, "%s",
                     e.text);
        cr_expect(sw.n_jobs >= rows[i].min && sw.n_jobs <= rows[i].max, "%s: %lld jobs",
                  rows[i].path, (long long)sw.n_jobs);
        for (int m = 0; m < sw.n_models; m++)
            cr_expect(io_is_dir(sw.models[m].ref.path), "%s", sw.models[m].ref.path);
        for (int v = 0; v < sw.n_evals; v++)
            cr_expect(io_exists(sw.evals[v].spec.data_path), "%s", sw.evals[v].spec.data_path);
    }
    arena_release(&arena);
}

Test(sweep, no_two_jobs_share_a_key)
{
    struct sweep sw;
    cr_assert_eq(sweep_load(support_source("sweeps/demo-full.yaml"), &arena, &sw, &e), ERR_OK, "%s",
                 e.text);
    for (int a = 0; a < sw.n_configs; a++) {
        for (int b = 0; b < a; b++)
            cr_expect_not(config_equal(&sw.configs[a], &sw.configs[b]), "%d %d", a, b);
    }
    for (int64_t i = 1; i < sw.n_jobs; i++) {
        const struct sweep_job *x = &sw.jobs[i - 1];
        const struct sweep_job *y = &sw.jobs[i];
        bool is_ordered = x->model != y->model     ? x->model < y->model
                          : x->config != y->config ? x->config < y->config
                                                   : x->eval < y->eval;
        cr_assert(is_ordered, "job %lld", (long long)i);
    }
    arena_release(&arena);
}

/* ---- errors: place, what was expected ---- */

static const struct {
    const char *middle; /* starts in line 5 */
    const char *says;
} errors[] = {
    {"configurations: [{k: [3, 4], dtype: float, exponent_bits: [2, 3]}]\n",
     "spec.yaml:5:18: an impossible cell: exponent_bits: 3 is impossible at k: 3"},
    {"configurations: [{k: [3, 4], dtype: float, exponent_bits: [2, 3]}]\n",
     "- {k: 3, dtype: float, exponent_bits: 3}"},
    {"configurations: [{k: 4, dtype: int, exponent_bits: 2}]\n", "means nothing for dtype int"},
    {"configurations: [{k: 4, dtype: [int, float], exponent_bits: paper}]\n",
     "means nothing for dtype int"},
    {"configurations: [{k: 4, block: [64, tensor], outlier_pct: 2}]\n", "block: tensor"},
    {"configurations: [{k: 2, dtype: float}]\n", "k: 2"},
    {"configurations: [{k: 4, blok: 64}]\n",
     "spec.yaml:5:25: a grid has no key \"blok\"; did you mean block?"},
    {"configurations: [{k: 4, colour: 64}]\n", "its keys are k, dtype"},
    {"configurations: [{k: 4, dtype: flaot}]\n",
     "spec.yaml:5:32: dtype: expected one of int, float"},
    {"configurations: [{k: 4, dtype: flaot}]\n", "did you mean float?"},
    {"configurations: [{k: 4, k: 5}]\n", "spec.yaml:5:25: the key k stands a second time"},
    {"configurations: [{k: 16}]\nmodels: []\n",
     "the key models stands a second time (first in line 2)"},
    {"configurations: [{dtype: int}]\n", "a grid needs k"},
    {"configurations: [{k: 16, block: 64}]\n", "block means nothing at k: 16"},
    {"configurations: [{k: 4, outlier_rule: previous}]\n",
     "outlier_rule means nothing without outliers"},
    {"configurations: [{k: 9}]\n", "k: expected 2 to 8 bits"},
    {"configurations: [{k: 4.5}]\n", "not \"4.5\""},
    {"configurations: [{k: four}]\n", "not \"four\""},
    {"configurations: [{k: }]\n", "k: expected"},
    {"configurations: [{k: []}]\n", "an empty list makes no cells"},
    {"configurations: [{k: [[3]]}]\n", "not a list"},
    {"configurations: [{k: 4, block: 65}]\n", "block: expected a power of two"},
    {"configurations: [{k: 4, block: 0}]\n", "block: expected a power of two"},
    {"configurations: [{k: 4, exponent_bits: 8}]\n", "exponent_bits: expected 1 to 7"},
    {"configurations: [{k: 4, subnormal_shift: 3}]\n", "subnormal_shift: expected 0, 2 or 4"},
    {"configurations: [{k: 4, outlier_pct: nan}]\n", "outlier_pct: expected"},
    {"configurations: [{k: 4, outlier_pct: 60}]\n", "outlier_pct: expected"},
    {"configurations: [{k: 4, quant_head: yes}]\n", "quant_head: expected one of false, true"},
    {"configurations: [{k: 4, family: bloom}]\n",
     "family: nothing in this spec is called \"bloom\""},
    {"configurations: [{k: 4, family: pythai}]\n", "did you mean pythia?"},
    {"configurations: [{k: 4, evaluation: cc}]\n", "a grid has no key \"evaluation\""},
    {"configurations: [{k: 4, family: opt, size: s0}]\n", "the spec makes no jobs"},
    {"configurations: [{k: 4}]\nexclude: [{k: 4}]\n", "the spec makes no jobs"},
    {"configurations: [{k: 4}]\nexclude: [{}]\n", "an exclude without a key"},
    {"configurations: [{k: 4}]\nexclude: [{evaluation: hellaswag}]\n",
     "evaluation: nothing in this spec"},
    {"configurations: []\n", "configurations: expected a list with at least one entry"},
    {"configurations: {k: 4}\n", "configurations: expected a list"},
    {"configurations: [4]\n", "a grid must be a map"},
    {"", "the key configurations is missing"},
    {"configuration: [{k: 4}]\n", "did you mean configurations?"},
    {"configurations: [{k: 4}]\ncompute: fp64\n", "compute: expected one of fp32, fp16, bf16"},
    {"configurations: [&a {k: 4}]\n", "the anchor &a"},
    {"configurations: [*a]\n", "the alias *a"},
    {"configurations: [!!map {k: 4}]\n", "the tag"},
    {"configurations:\n\t- {k: 4}\n", "spec.yaml:6:1: a tab"},
    {"configurations: [{k: 4}\n", "not valid YAML"},
    {"configurations: [{k: 4}]\n? [a]\n: b\n", "a list or map stands where a key is expected"},
    {"configurations: [{k: \"4\\0\"}]\n", "a NUL character"},
    {"configurations: [[[[[[[[[[[[[[[[[[[[[[[[4]]]]]]]]]]]]]]]]]]]]]]]]\n",
     "nested more than 16 deep"},
    {"configurations: [{k: 4}]\nname: a b\n", "name:"},
};

Test(sweep, errors_name_the_place_and_what_was_expected)
{
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        struct sweep sw;
        bool has_name = strstr(errors[i].middle, "name: a b") != NULL;
        char *text =
            xasprintf("%s%s%s%s", has_name ? "\n" : "name: t\n", models, errors[i].middle, evals);
        cr_expect_eq(parse(text, &sw), ERR_FORMAT, "%s", errors[i].middle);
        cr_expect_not_null(strstr(e.text, errors[i].says), "%s\n  got: %s\n  not: %s",
                           errors[i].middle, e.text, errors[i].says);
        cr_expect(str_starts(str_of(e.text), "spec.yaml:"), "%s", e.text);
        cr_expect_null(strchr(e.text, '\n'), "one line: %s", e.text);
        xfree(text);
        arena_release(&arena);
    }
}

static const struct {
    const char *text, *says;
} whole[] = {
    {"", "spec.yaml:1:1: the spec is empty"},
    {"# only a comment\n", "the spec is empty"},
    {"just words\n", "a sweep spec must be a map"},
    {"a: b\n---\nc: d\n", "spec.yaml:2:1: a second document begins"},
    {"name: \xff\xfe\n", "spec.yaml:1:7: not UTF-8 text"},
    {"models: []\nconfigurations: [{k: 4}]\nevaluations: [{task: piqa, data: x}]\n",
     "models: expected a list"},
    {"models: [{family: a, path: x}]\nconfigurations: [{k: 4}]\nevaluations: [{task: piqa, data: "
     "x}]\n",
     "a model needs sizes"},
    {"models: [{family: a, size: b, path: x}]\n", "did you mean sizes?"},
    {"models: [{sizes: b, path: x}]\n", "the key family is missing here"},
    {"models: [{family: a, sizes: b}]\n", "either path:"},
    {"models: [{family: a, sizes: b, path: x, hub: o/n}]\n", "not both"},
    {"models: [{family: a b, sizes: b, path: x}]\n", "family: expected 1 to 64 letters"},
    {"models: [{family: a, sizes: [b, c], path: x}]\n", "put {size} into the path"},
    {"models: [{family: a, sizes: b, path: x}, {family: a, sizes: b, path: y}]\n",
     "give them different sizes"},
    {"models: [{family: a, sizes: b, path: 'x/{siz}'}]\n", "only {family} and {size}"},
    {"models: [{family: a, sizes: b, hub: x}]\n", "hub: expected org/name"},
    {"models: [{family: a, sizes: b, hub: o/n@}]\n", "hub: expected org/name"},
    {"models: [{family: a, sizes: b, hub: ../n}]\n", "hub: expected org/name"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x, limt: 3}]\n",
     "did you mean limit?"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{data: x}]\n",
     "the key task is missing"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa}]\n",
     "the key data is missing"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqqa, data: x}]\n",
     "did you mean piqa?"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x, limit: 0}]\n",
     "a whole number from 1"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x, limit: 1e3}]\n",
     "not \"1e3\""},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x, window: 9}]\n",
     "window has no effect on task piqa"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: perplexity, data: x, window: "
     "all}]\n",
     "or context"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: perplexity, data: x.txt, "
     "subset: a}]\n",
     "subset has no effect on plain text"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: perplexity, data: x.txt, "
     "join: h22}]\n",
     "join has no effect"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: perplexity, data: x, method: "
     "slide}]\n",
     "method: expected one of strided, rolling"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x, bos: 1}]\n",
     "true or false"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x}, {task: piqa, "
     "data: y}]\n",
     "means something else in line 2"},
    {"models: [{family: a, sizes: b, path: x}]\nevaluations: [{task: piqa, data: x}, {name: q, "
     "task: piqa, data: x}]\n",
     "the same evaluation as"},
};

Test(sweep, errors_outside_of_grids_too)
{
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        struct sweep sw;
        cr_expect_eq(parse(whole[i].text, &sw), ERR_FORMAT, "%s", whole[i].text);
        cr_expect_not_null(strstr(e.text, whole[i].says), "%s\n  got: %s\n  not: %s", whole[i].text,
                           e.text, whole[i].says);
        arena_release(&arena);
    }
}

/* ---- size ---- */

/* Time of our own, which other programs on the machine do not stretch. */
static int64_t cpu_ns(void)
{
    return clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

Test(sweep, a_spec_that_explodes_is_refused_before_it_costs_anything)
{
    struct buf grid = {0};
    buf_adds(&grid, "configurations:\n  - {k: [2, 3, 4, 5, 6, 7, 8], block: [32, 64, 128, 256, "
                    "512, 1024, 2048, 4096],"
                    " center: [none, tensor, block], outlier_rule: [previous, previous-resid], "
                    "quant_head: [true, false],"
                    " quant_embed: [true, false], dequant: [fp16, fp32], compute: [fp32, fp16, "
                    "bf16], outlier_pct: [1");
    for (int i = 2; i <= 64; i++)
        buf_printf(&grid, ", %g", 0.5 * i);
    buf_adds(&grid, "]}\n");
    char *text =
        xasprintf("%s%s%s%s", models, grid.data, grid.data + strlen("configurations:\n"), evals);
    struct sweep sw;
    int64_t start = cpu_ns();
    cr_expect_eq(parse(text, &sw), ERR_FORMAT);
    cr_expect_not_null(strstr(e.text, "split the sweep"), "%s", e.text);
    cr_expect_lt((double)(cpu_ns() - start) * 1e-9, 5.0);
    xfree(text);
    buf_release(&grid);
    arena_release(&arena);
}

Test(sweep, files_beyond_the_limit_are_refused)
{
    size_t n = (4 << 20) + 1;
    char *text = xmalloc(n);
    memset(text, ' ', n);
    struct sweep sw;
    cr_expect_eq(sweep_parse((struct str){text, n}, "spec.yaml", &arena, &sw, &e), ERR_FORMAT);
    cr_expect_not_null(strstr(e.text, "at most"), "%s", e.text);
    xfree(text);
    arena_release(&arena);
}

/* 1,000 models x 1,008 configurations x 1 evaluation. The bound is generous for instrumented builds; an optimized
 * one takes 0.1 s. */
Test(sweep, a_million_jobs_expand_in_seconds)
{
    struct buf text = {0};
    buf_adds(&text, "name: large\nmodels:\n  - {family: f, path: m/{size}, sizes: [x0");
    for (int i = 1; i < 1000; i++)
        buf_printf(&text, ", x%d", i);
    buf_adds(&text,
             "]}\nconfigurations:\n  - {k: [3, 4, 5, 6, 7, 8], dtype: [int, dynamic, quantile, nf],"
             " block: [64, 128, 256, 512, 1024, 2048, 4096], center: [none, tensor, block],"
             " dequant: [fp16, fp32]}\nevaluations:\n  - {task: piqa, data: p.jsonl}\n");
    struct sweep sw;
    int64_t start = cpu_ns();
    cr_assert_eq(parse(text.data, &sw), ERR_OK, "%s", e.text);
    cr_expect_eq(sw.n_jobs, 1008000);
    cr_expect_lt((double)(cpu_ns() - start) * 1e-9, 10.0);
    cr_expect_lt(arena.total, (size_t)32 << 20, "%zu bytes", arena.total);
    buf_release(&text);
    arena_release(&arena);
}

#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "schema/job.h"

static struct arena arena;
static struct err e;

static struct model_ref a_model(void)
{
    return (struct model_ref){
        .family = "pythia", .size = "s0", .name = "demo/models/pythia-s0", .path = "/x"};
}

static struct eval_spec an_eval(void)
{
    return (struct eval_spec){.name = "lambada",
                              .task = TASK_lambada,
                              .data = "demo/lambada.jsonl",
                              .data_path = "/x/demo/lambada.jsonl"};
}

static struct eval_spec a_perplexity(void)
{
    return (struct eval_spec){.name = "corpus",
                              .task = TASK_perplexity,
                              .data = "c.jsonl",
                              .data_path = "/c.jsonl",
                              .method = METHOD_ROLLING};
}

static struct config quantized(int k, enum dtype dtype)
{
    struct config c = config_default();
    c.k = k;
    c.dtype = dtype;
    config_normalize(&c);
    return c;
}

static const char *key(const struct config *c, const struct eval_spec *ev)
{
    struct model_ref m = a_model();
    return job_key(&m, c, ev, &arena);
}

/* Golden texts: a key that changes orphans every stored result, so these never change. */
Test(job, keys_are_frozen)
{
    struct config c = config_default();
    struct eval_spec ev = an_eval();
    cr_expect_str_eq(
        key(&c, &ev),
        "v1|k=16|model=demo/models/pythia-s0|task=lambada|task.data=demo/lambada.jsonl");
    c = quantized(4, DTYPE_int);
    cr_expect_str_eq(
        key(&c, &ev),
        "v1|k=4|model=demo/models/pythia-s0|task=lambada|task.data=demo/lambada.jsonl");
    c = quantized(4, DTYPE_float);
    ev.limit = 120;
    cr_expect_str_eq(key(&c, &ev),
                     "v1|dtype=float|exponent_bits=2|k=4|model=demo/models/pythia-s0|task=lambada"
                     "|task.data=demo/lambada.jsonl|task.limit=120");
    c = (struct config){.k = 3,
                        .dtype = DTYPE_float,
                        .exponent_bits = 1,
                        .subnormal_shift = 4,
                        .block = 256,
                        .center = CENTER_BLOCK,
                        .outlier_pct = 0.1,
                        .outlier_rule = OUTLIER_RULE_PREVIOUS_RESID,
                        .quant_head = true,
                        .quant_embed = true,
                        .dequant = DEQUANT_FP32,
                        .compute = COMPUTE_BF16};
    ev = a_perplexity();
    ev.subset = "Pile-CC";
    ev.bos = true;
    ev.join = JOIN_H22;
    ev.limit = 7;
    ev.max_tokens = 16384;
    ev.window = 512;
    cr_expect_str_eq(
        key(&c, &ev),
        "v1|block=256|center=block|compute=bf16|dequant=fp32|dtype=float|exponent_bits=1|k=3"
        "|model=demo/models/pythia-s0|outlier_pct=0.1|outlier_rule=previous-resid|quant_embed=true"
        "|quant_head=true|subnormal_shift=4|task=perplexity|task.bos=true|task.data=c.jsonl|task."
        "join=h22"
        "|task.limit=7|task.max_tokens=16384|task.method=rolling|task.subset=Pile-CC|task.window="
        "512");
    c = quantized(8, DTYPE_quantile);
    c.block = 0;
    ev = an_eval();
    cr_expect_str_eq(key(&c, &ev),
                     "v1|block=tensor|dtype=quantile|k=8|model=demo/models/pythia-s0|task=lambada"
                     "|task.data=demo/lambada.jsonl");
    arena_release(&arena);
}

/* Names between the separators, in order, each once. */
static void expect_sorted(const char *text)
{
    struct str rest = str_of(text);
    struct str field;
    char last[64] = "";
    cr_assert(str_next_field(&rest, '|', &field) && str_eqz(field, "v1"));
    while (str_next_field(&rest, '|', &field)) {
        char name[64] = "";
        const char *eq = memchr(field.p, '=', field.n);
        cr_assert_not_null(eq, "%s", text);
        memcpy(name, field.p, (size_t)(eq - field.p));
        cr_expect_lt(strcmp(last, name), 0, "%s before %s", last, name);
        memcpy(last, name, sizeof(last));
    }
}

Test(job, key_names_are_sorted)
{
    struct config c = {.k = 3,
                       .dtype = DTYPE_float,
                       .exponent_bits = 1,
                       .subnormal_shift = 2,
                       .block = 128,
                       .center = CENTER_TENSOR,
                       .outlier_pct = 2,
                       .outlier_rule = OUTLIER_RULE_PREVIOUS_RESID,
                       .quant_head = true,
                       .quant_embed = true,
                       .dequant = DEQUANT_FP32,
                       .compute = COMPUTE_FP16};
    struct eval_spec ev = a_perplexity();
    ev.subset = "x";
    ev.limit = ev.window = ev.max_tokens = 5;
    ev.bos = true;
    ev.join = JOIN_H22;
    expect_sorted(key(&c, &ev));
    arena_release(&arena);
}

static void expect_all_different(const char *const *keys, int n)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++)
            cr_expect_str_neq(keys[i], keys[j], "variants %d and %d share a key", i, j);
    }
}

Test(job, changing_any_axis_changes_the_key)
{
    struct config base = quantized(5, DTYPE_float);
    base.outlier_pct = 1;
    struct config v[14];
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        v[i] = base;
    v[1].k = 4;
    v[2].dtype = DTYPE_int;
    v[3].exponent_bits = 2;
    v[4].subnormal_shift = 2;
    v[5].block = 128;
    v[6].block = 0;
    v[7].center = CENTER_TENSOR;
    v[8].outlier_pct = 1.5;
    v[9].outlier_rule = OUTLIER_RULE_PREVIOUS_RESID;
    v[10].quant_head = true;
    v[11].quant_embed = true;
    v[12].dequant = DEQUANT_FP32;
    v[13].compute = COMPUTE_FP16;
    const char *keys[ARRAY_LEN(v)];
    struct eval_spec ev = an_eval();
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        keys[i] = key(&v[i], &ev);
        for (size_t j = 0; j < ARRAY_LEN(v); j++)
            cr_expect_eq(config_equal(&v[i], &v[j]), i == j, "%zu %zu", i, j);
    }
    expect_all_different(keys, ARRAY_LEN(v));
    arena_release(&arena);
}

Test(job, changing_any_option_of_an_evaluation_changes_the_key)
{
    struct eval_spec v[10];
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        v[i] = a_perplexity();
    v[1].data = "d.jsonl";
    v[2].subset = "Pile-CC";
    v[3].limit = 1;
    v[4].window = 512;
    v[5].max_tokens = 512;
    v[6].method = METHOD_STRIDED;
    v[7].join = JOIN_H22;
    v[8].bos = true;
    v[9].task = TASK_piqa;
    const char *keys[ARRAY_LEN(v)];
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        keys[i] = key_of_eval(&v[i], &arena);
    expect_all_different(keys, ARRAY_LEN(v));
    v[0].name = "renamed";
    cr_expect_str_eq(key_of_eval(&v[0], &arena), keys[0], "a name is a label, not a meaning");
    arena_release(&arena);
}

Test(job, copies_keep_what_is_absent_and_own_their_strings)
{
    char revision[] = "main", subset[] = "Books3";
    struct model_ref m = a_model();
    struct eval_spec ev = a_perplexity();
    m.revision = revision;
    ev.subset = subset;
    ev.limit = 7;
    const struct model_ref model = model_ref_copy(&m, &arena);
    const struct eval_spec own = eval_spec_copy(&ev, &arena);
    revision[0] = subset[0] = '?';
    cr_expect_str_eq(model.name, m.name);
    cr_expect_str_eq(model.revision, "main");
    cr_expect_null(model.hub);
    cr_expect_str_eq(own.subset, "Books3");
    cr_expect_str_eq(own.data_path, ev.data_path);
    cr_expect(own.limit == 7 && own.method == METHOD_ROLLING);
    arena_release(&arena);
}

Test(job, separators_in_values_cannot_forge_fields)
{
    struct model_ref m = a_model();
    m.name = "a|k=3%\n\x7f";
    cr_expect_str_eq(key_of_model(&m, &arena), "|model=a%7Ck=3%25%0A%7F");
    arena_release(&arena);
}

Test(job, numbers_have_one_shortest_spelling)
{
    static const struct {
        double value;
        const char *text;
    } rows[] = {{2, "|outlier_pct=2"},
                {0.1, "|outlier_pct=0.1"},
                {1.0 / 3, "|outlier_pct=0.3333333333333333"},
                {12.5, "|outlier_pct=12.5"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config c = quantized(4, DTYPE_int);
        char *head = NULL;
        char *tail = NULL;
        c.outlier_pct = rows[i].value;
        key_of_config(&c, &arena, &head, &tail);
        cr_expect_str_eq(tail, rows[i].text);
    }
    arena_release(&arena);
}

Test(job, exponent_bits_follow_the_heuristic_and_the_paper)
{
    static const int heuristic[] = {2, 2, 3, 3, 4, 4}; /* quantization spec, 2.2, k = 3..8 */
    static const int paper[] = {2, 3, 3, 3, 3, 3};
    for (int k = 3; k <= 8; k++) {
        cr_expect_eq(config_heuristic_exponent_bits(k), heuristic[k - 3], "k=%d", k);
        cr_expect_eq(config_paper_exponent_bits(k), paper[k - 3], "k=%d", k);
    }
}

Test(job, normalizing_is_idempotent_and_drops_what_means_nothing)
{
    struct config c = {.k = 16,
                       .dtype = DTYPE_float,
                       .exponent_bits = 2,
                       .block = 0,
                       .outlier_pct = 3,
                       .quant_head = true,
                       .compute = COMPUTE_FP16};
    struct config baseline = config_default();
    baseline.compute = COMPUTE_FP16;
    config_normalize(&c);
    cr_expect(config_equal(&c, &baseline));
    c = (struct config){.k = 3,
                        .dtype = DTYPE_float,
                        .exponent_bits = 2,
                        .subnormal_shift = 4,
                        .block = 0,
                        .center = CENTER_BLOCK,
                        .outlier_rule = OUTLIER_RULE_PREVIOUS_RESID};
    config_normalize(&c);
    cr_expect_eq(c.subnormal_shift, 0, "E2M0 has no subnormals");
    cr_expect_eq(c.center, CENTER_TENSOR, "one block: its mean is the tensor's");
    cr_expect_eq(c.outlier_rule, OUTLIER_RULE_PREVIOUS, "no outliers");
    struct config again = c;
    config_normalize(&again);
    cr_expect(config_equal(&c, &again));
}

static const struct {
    const char *why;
    struct config c;
    const char *says; /* NULL: legal */
} cells[] = {
    {"16 bits", {.k = 16, .block = 64}, NULL},
    {"32 bits", {.k = 32, .block = 64}, NULL},
    {"2-bit int", {.k = 2, .block = 64}, NULL},
    {"17 bits", {.k = 17, .block = 64}, "k: 17"},
    {"9 bits", {.k = 9, .block = 64}, "k: 9"},
    {"1 bit", {.k = 1, .block = 64}, "k: 1"},
    {"2-bit float", {.k = 2, .dtype = DTYPE_float, .block = 64}, "dtype float"},
    {"all exponent", {.k = 3, .dtype = DTYPE_float, .exponent_bits = 2, .block = 64}, NULL},
    {"too many exponent bits",
     {.k = 3, .dtype = DTYPE_float, .exponent_bits = 3, .block = 64},
     "exponent_bits: 3"},
    {"negative exponent bits",
     {.k = 3, .dtype = DTYPE_float, .exponent_bits = -1, .block = 64},
     "exponent_bits: -1"},
    {"exponent bits of int", {.k = 4, .exponent_bits = 2, .block = 64}, "dtype int"},
    {"shift of int", {.k = 4, .subnormal_shift = 2, .block = 64}, "subnormal_shift"},
    {"shift 3",
     {.k = 4, .dtype = DTYPE_float, .exponent_bits = 2, .subnormal_shift = 3, .block = 64},
     "0, 2 or 4"},
    {"block 48", {.k = 4, .block = 48}, "block: 48"},
    {"block 16", {.k = 4, .block = 16}, "block: 16"},
    {"block 8192", {.k = 4, .block = 8192}, "block: 8192"},
    {"negative block", {.k = 4, .block = -64}, "block: -64"},
    {"whole tensor", {.k = 4, .block = 0}, NULL},
    {"outliers", {.k = 4, .block = 64, .outlier_pct = 2}, NULL},
    {"outliers over the whole tensor", {.k = 4, .block = 0, .outlier_pct = 2}, "block: tensor"},
    {"too many outliers", {.k = 4, .block = 64, .outlier_pct = 51}, "outlier_pct: 51"},
    {"negative outliers", {.k = 4, .block = 64, .outlier_pct = -1}, "outlier_pct: -1"},
    {"no number of outliers", {.k = 4, .block = 64, .outlier_pct = 0.0 / 0.0}, "outlier_pct"},
    {"no such dtype", {.k = 4, .block = 64, .dtype = (enum dtype)99}, "without a label"},
};

Test(job, impossible_cells_are_refused_with_the_axis_and_the_value)
{
    for (size_t i = 0; i < ARRAY_LEN(cells); i++) {
        enum err_code rc = config_validate(&cells[i].c, &e);
        cr_expect_eq(rc, cells[i].says == NULL ? ERR_OK : ERR_FORMAT, "%s", cells[i].why);
        if (cells[i].says != NULL)
            cr_expect_not_null(strstr(e.text, cells[i].says), "%s: %s", cells[i].why, e.text);
    }
}

Test(job, labels_and_values_map_both_ways)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        cr_expect_eq(dtype_of(str_of(dtype_label((enum dtype)i))), i);
    for (int i = 0; i < TASK_COUNT; i++)
        cr_expect_eq(task_of(str_of(task_label((enum task)i))), i);
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        cr_expect_eq(job_state_of(str_of(job_state_label((enum job_state)i))), i);
    for (int i = 0; i < OUTLIER_RULE_COUNT; i++)
        cr_expect_eq(outlier_rule_of(str_of(outlier_rule_label((enum outlier_rule)i))), i);
    cr_expect_eq(dtype_of(STR("Int")), -1);
    cr_expect_eq(compute_of(STR("fp1")), -1);
    cr_expect_eq(center_of((struct str){NULL, 0}), -1);
    cr_expect_eq(task_choices(TASK_hellaswag), 4);
    cr_expect_not(task_is_zero_shot(TASK_perplexity));
    cr_expect(task_is_zero_shot(TASK_lambada));
}

Test(job, method_of_a_perplexity_follows_the_file)
{
    cr_expect_eq(eval_default_method("a/b.txt"), METHOD_STRIDED);
    cr_expect_eq(eval_default_method("b.jsonl"), METHOD_ROLLING);
    cr_expect_eq(eval_default_method("b.jsonl.zst"), METHOD_ROLLING);
    cr_expect_eq(eval_default_method("b.jsonl.txt"), METHOD_STRIDED);
}

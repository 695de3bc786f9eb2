/* Story: `isobit-analysis claims` over databases of known laws and over databases that lack nearly everything. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

static struct support_run run_claims(const char *db, const char *options)
{
    char *command = xasprintf("timeout 120 isobit-analysis claims --db %s %s", db, options);
    struct support_run r = support_shell(command);
    xfree(command);
    return r;
}

static char *write_db(const char *dir, const char *name, const struct planted *p)
{
    char *path = xasprintf("%s/%s.db", dir, name);
    struct err e;
    EXPECT(planted_write(p, path, &e) == ERR_OK, "%s", e.text);
    return path;
}

static struct planted small_world(void)
{
    struct planted p = planted_paper();
    p.grids = PLANTED_WIDTHS | PLANTED_OUTLIERS;
    p.families = 1U << PLANTED_OPT | 1U << PLANTED_GPT2;
    p.max_sizes = 4;
    for (int t = 0; t < PLANTED_TASKS; t++)
        p.n_items[t] = 300;
    p.n_items[TASK_perplexity] = 600;
    return p;
}

/* ---- the contract of --json ---- */

static const json_t *claim_of(const json_t *doc, const char *id)
{
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(doc, "claims"), i, c)
    {
        if (strcmp(json_opt_str(c, "id", ""), id) == 0)
            return c;
    }
    EXPECT(false, "no claim %s", id);
    return NULL;
}

static void expect_verdict(const json_t *doc, const char *id, const char *verdict)
{
    const char *is = json_opt_str(claim_of(doc, id), "verdict", "");
    EXPECT(strcmp(is, verdict) == 0, "%s is %s, planted %s", id, is, verdict);
}

static void expect_contract(const json_t *doc)
{
    static const char *const keys[] = {"id",        "claim", "test",    "unit", "verdict",
                                       "statistic", "value", "low",     "high", "threshold",
                                       "n_rows",    "note",  "variants"};
    static const char *const absent[] = {"C30", "C31", "C32", "C35", "E1", "E5", "E9"};
    size_t n_rows = json_array_size(json_object_get(doc, "rows"));
    EXPECT(json_array_size(json_object_get(doc, "claims")) == 44, "C1 to C35 and E1 to E9");
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(doc, "claims"), i, c)
    {
        for (size_t k = 0; k < ARRAY_LEN(keys); k++)
            EXPECT(json_object_get(c, keys[k]) != NULL, "claim %zu has no %s", i, keys[k]);
        size_t v;
        const json_t *variant;
        json_array_foreach(json_object_get(c, "variants"), v, variant)
        {
            const json_t *rows = json_object_get(variant, "rows");
            for (size_t r = 0; r < json_array_size(rows); r++)
                EXPECT((size_t)json_integer_value(json_array_get(rows, r)) < n_rows, "row");
        }
    }
    for (size_t a = 0; a < ARRAY_LEN(absent); a++) {
        expect_verdict(doc, absent[a], "not covered");
        EXPECT(json_is_null(json_object_get(claim_of(doc, absent[a]), "value")),
               "%s has a number without data", absent[a]);
    }
}

static json_t *parse(const struct support_run *r)
{
    json_t *doc = NULL;
    struct err e;
    EXPECT(json_parse((struct str){r->out.data, r->out.len}, "claims --json", &doc, &e) == ERR_OK,
           "%s", e.text);
    return doc;
}

static void claims_of_a_papers_world(const char *dir)
{
    struct planted p = small_world();
    char *db = write_db(dir, "paper", &p);
    struct support_run r = run_claims(db, "--json --resamples 200");
    EXPECT(r.status == 0, "exit %d: %s", r.status, r.err.data != NULL ? r.err.data : "");
    json_t *doc = parse(&r);
    expect_contract(doc);
    static const char *const confirmed[] = {"C4",  "C9",  "C13", "C15", "C23",
                                            "C24", "C28", "C29", "C33"};
    for (size_t i = 0; i < ARRAY_LEN(confirmed); i++)
        expect_verdict(doc, confirmed[i], "confirmed");
    static const char *const missing[] = {"C6", "C12", "C14", "C17", "C21", "C26", "C27"};
    for (size_t i = 0; i < ARRAY_LEN(missing); i++)
        expect_verdict(doc, missing[i], "not covered");
    struct support_run again = run_claims(db, "--json --resamples 200 --threads 1");
    EXPECT(again.out.len == r.out.len && memcmp(again.out.data, r.out.data, r.out.len) == 0,
           "threads change a number");
    json_decref(doc);
    support_run_release(&again);
    support_run_release(&r);
    xfree(db);
}

static void a_contradiction_ends_with_1(const char *dir)
{
    struct planted p = small_world();
    p.law.loss[3] = 0.5;
    memset(p.law.collapse, 0, sizeof(p.law.collapse));
    char *db = write_db(dir, "contradicted", &p);
    struct support_run r = run_claims(db, "--json --resamples 200");
    EXPECT(r.status == 1, "exit %d", r.status);
    json_t *doc = parse(&r);
    expect_verdict(doc, "C4", "contradicted");
    expect_verdict(doc, "C9", "contradicted");
    json_decref(doc);
    support_run_release(&r);
    xfree(db);
}

/* ---- little or strange data ---- */

static bool only_16_bit(const char *family, const char *size, const struct config *c, enum task t)
{
    (void)family;
    (void)size;
    (void)t;
    return c->k < 16;
}
static bool only_perplexity(const char *family, const char *size, const struct config *c,
                            enum task t)
{
    (void)family;
    (void)size;
    (void)c;
    return t != TASK_perplexity;
}
static void one_size(struct planted *p)
{
    p->max_sizes = 1;
}
static void baselines_only(struct planted *p)
{
    p->is_left_out = only_16_bit;
}
static void no_accuracies(struct planted *p)
{
    p->is_left_out = only_perplexity;
}
static void infinite(struct planted *p)
{
    p->law.loss[3] = INFINITY;
}
static void half_done(struct planted *p)
{
    p->missing = 0.5;
}
static void no_samples(struct planted *p)
{
    p->has_samples = false;
}

static const struct {
    const char *name;
    void (*change)(struct planted *p);
    const char *says; /* in the answer */
} thin[] = {
    {"one-size", one_size, "C4   not covered"},
    {"baselines", baselines_only, "C2   not covered"},
    {"perplexity-only", no_accuracies, "C11  not covered"},
    {"infinite", infinite, "count as 100"},
    {"half-done", half_done, "not covered"},
    {"no-samples", no_samples, "C33  not covered"},
};

static void thin_data_are_no_crash_and_no_number(const char *dir)
{
    for (size_t i = 0; i < ARRAY_LEN(thin); i++) {
        struct planted p = small_world();
        thin[i].change(&p);
        char *db = write_db(dir, thin[i].name, &p);
        struct support_run r = run_claims(db, "--parts --resamples 50");
        EXPECT(r.status == 0 || r.status == 1, "%s: exit %d: %s", thin[i].name, r.status,
               r.err.data != NULL ? r.err.data : "");
        EXPECT(r.out.data != NULL && strstr(r.out.data, thin[i].says) != NULL, "%s: no '%s' in\n%s",
               thin[i].name, thin[i].says, r.out.data != NULL ? r.out.data : "");
        EXPECT(r.out.data == NULL || strstr(r.out.data, "nan") == NULL, "%s: nan", thin[i].name);
        EXPECT(r.out.data == NULL || strstr(r.out.data, " inf") == NULL, "%s: inf", thin[i].name);
        support_run_release(&r);
        xfree(db);
    }
}

static void no_data_is_said_in_one_line(const char *dir)
{
    char *db = xasprintf("%s/nothing.db", dir);
    struct support_run r = run_claims(db, "");
    EXPECT(r.status == 4 && strstr(r.err.data, "nothing.db") != NULL, "absent: %d", r.status);
    support_run_release(&r);
    struct store *s = NULL;
    struct err e;
    EXPECT(store_open(db, STORE_CREATE, &s, &e) == ERR_OK, "%s", e.text);
    store_close(s);
    r = run_claims(db, "");
    EXPECT(r.status == 4 && strstr(r.err.data, "plan a sweep") != NULL, "empty: %d %s", r.status,
           r.err.data);
    support_run_release(&r);
    xfree(db);
}

int main(void)
{
    char *dir = support_tmpdir();
    claims_of_a_papers_world(dir);
    a_contradiction_ends_with_1(dir);
    thin_data_are_no_crash_and_no_number(dir);
    no_data_is_said_in_one_line(dir);
    support_tmpdir_remove(dir);
    return cluster_failures() == 0 ? 0 : 1;
}

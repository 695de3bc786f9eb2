/* Exported results are what the views say, in each format: counted and added up by other programs (sqlite3, jq). */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

/* Commands run in a folder with planted.db and with D set to it; a case holds when the command prints this and exits like this. */
static const struct {
    const char *name, *command, *says;
    int status;
} cases[] = {
    {"CSV has a line a result",
     "isobit-analysis export --db planted.db >r.csv && echo $(($(wc -l <r.csv) - 1 - $(sqlite3 "
     "planted.db 'SELECT count(*) FROM results')))",
     "0\n", 0},
    {"CSV can be read back, digit for digit",
     "sqlite3 :memory: '.import --csv r.csv r' \"ATTACH 'planted.db' AS p\" 'SELECT count(*) FROM "
     "r "
     "JOIN p.results q ON q.key = r.key AND q.metric = r.metric WHERE CAST(r.value AS REAL) <> "
     "q.value OR r.family <> q.family'",
     "0\n", 0},
    {"JSON lines have an object a job",
     "isobit-analysis export --db planted.db --format jsonl >r.jsonl && jq -s length r.jsonl && "
     "sqlite3 planted.db \"SELECT count(*) FROM jobs WHERE state = 'done'\"",
     "130\n130\n", 0},
    {"JSON lines hold every metric",
     "jq -s 'map(.metrics | length) | add' r.jsonl; sqlite3 planted.db 'SELECT count(*) FROM "
     "results' | sed s/^/of' '/",
     NULL, 0},
    {"samples of JSON lines give the accuracy",
     "isobit-analysis export --db planted.db --format jsonl --samples | jq -s 'map(select(.task == "
     "\"lambada\") | (.samples | map(.[1]) | add / length) - .metrics.acc.value | fabs) | max < "
     "1e-9'",
     "true\n", 0},
    {"samples as CSV have a line an item",
     "isobit-analysis export --db planted.db --samples | tail -n +2 | wc -l; isobit-analysis "
     "export "
     "--db planted.db --format jsonl --samples | jq -s 'map(.samples | length) | add'",
     "6500\n6500\n", 0},
    {"lm-eval has a file a configuration",
     "isobit-analysis export --db planted.db --format lm-eval --samples --out out && find out "
     "-name "
     "results.json | wc -l && find out -name 'samples_*.jsonl' | wc -l",
     "out: 26 configurations\n26\n130\n", 0},
    {"lm-eval's numbers are the view's",
     "find out -name results.json | xargs cat | jq -s 'map(.results.piqa[\"acc,none\"]) | add * "
     "1e6 "
     "| round'; sqlite3 planted.db \"SELECT CAST(round(sum(value) * 1e6) AS INTEGER) FROM results "
     "WHERE task = 'piqa' AND metric = 'acc'\" | sed s/^/of' '/",
     NULL, 0},
    {"lm-eval's files have what the harness's own tables read",
     "find out -name results.json | xargs cat | jq -s 'map([.results, .versions, .[\"n-shot\"], "
     ".higher_is_better, .[\"n-samples\"]] | map(keys) | unique | length) | unique[]'",
     "1\n", 0},
    {"a family can be chosen",
     "isobit-analysis export --db planted.db --family opt --format jsonl | jq -s 'map(.family) | "
     "unique | join(\",\")'",
     "\"opt\"\n", 0},
    {"damaged samples are named",
     "cp planted.db bad.db; sqlite3 bad.db \"UPDATE sample SET blob = x'00' WHERE job_id = 7\"; "
     "isobit-analysis export --db bad.db --samples 2>&1 >/dev/null",
     "isobit-analysis: bad.db: the samples of job 7 (codec ", 3},
    {"a database without results says so",
     "sqlite3 bad.db \"UPDATE job SET state = 'pending'\"; isobit-analysis export --db bad.db 2>&1",
     "isobit-analysis: bad.db holds 130 jobs and none is done; run them", 4},
};

/* NULL: the second number is the first. */
static bool is_same_number(const char *out)
{
    const char *of = strstr(out, "\nof ");
    return of != NULL && of > out && strncmp(out, of + 4, (size_t)(of - out) + 1) == 0;
}

int main(void)
{
    char *dir = support_tmpdir();
    char *db = io_join(dir, "planted.db");
    struct planted p = planted_paper();
    struct err e;
    p.families = 1U << PLANTED_OPT | 1U << PLANTED_PYTHIA;
    p.max_sizes = 1;
    p.grids = PLANTED_WIDTHS;
    for (int t = 0; t < PLANTED_TASKS; t++)
        p.n_items[t] = 50;
    CHECK(planted_write(&p, db, &e) == ERR_OK);
    int n_failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *command = xasprintf("cd %s && { %s; }", dir, cases[i].command);
        struct support_run r = support_shell(command);
        bool is_right = r.status == cases[i].status &&
                        (cases[i].says == NULL
                             ? is_same_number(r.out.data)
                             : strncmp(r.out.data, cases[i].says, strlen(cases[i].says)) == 0);
        printf("%s: %s\n", is_right ? "ok" : "FAILED", cases[i].name);
        if (!is_right)
            printf("status %d\n%s%s", r.status, r.out.data, r.err.data);
        n_failed += !is_right;
        support_run_release(&r);
        xfree(command);
    }
    xfree(db);
    support_tmpdir_remove(dir);
    return n_failed != 0;
}

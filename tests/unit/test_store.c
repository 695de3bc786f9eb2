#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/preflush.h"
#include "schema/store_impl.h"
#include "schema/store_migrate.h"
#include "tests/bench/million.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static char *dir;
static char *path;
static struct store *store;
static struct arena arena;
static struct err err;

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)

static void setup(void)
{
    dir = support_tmpdir();
    path = xasprintf("%s/t.db", dir);
    OK(store_open(path, STORE_CREATE, &store, &err));
}

static void teardown(void)
{
    store_close(store);
    arena_release(&arena);
    xfree(path);
    support_tmpdir_remove(dir);
}

TestSuite(store, .init = setup, .fini = teardown);

static int64_t ask(const char *sql)
{
    int64_t n = 0;
    OK(store_query_int(store, sql, -1, &n, &err));
    return n;
}

static struct store_plan_counts plan(const char *name, int n_models, int n_configs, int n_evals,
                                     int priority)
{
    struct sweep sw = fixture_sweep(&arena, name, n_models, n_configs, n_evals);
    struct store_plan_counts counts = {0};
    OK(store_plan(store, &sw, priority, &counts, &err));
    return counts;
}

static int64_t worker(void)
{
    struct store_worker w = {"uuid-1", "host", "cpu", "isobit 0.1.0", "fp32", "", 1, 1 << 30, 42};
    int64_t id = 0;
    OK(store_worker_hello(store, &w, &id, &err));
    return id;
}

/* The tally must equal a recount after whatever happened. */
static void check_tally(void)
{
    cr_expect_eq(ask("SELECT count(*) FROM (SELECT set_id, state, n FROM tally WHERE n <> 0 EXCEPT "
                     "SELECT set_id, state, count(*) FROM job GROUP BY 1, 2)"),
                 0);
    cr_expect_eq(ask("SELECT sum(n) FROM tally"), ask("SELECT count(*) FROM job"));
}

static bool finish(int64_t job, int attempt, int64_t worker_id, enum task task)
{
    struct job_result r = fixture_result(&arena, task, 0.5);
    struct store_run_facts facts = {.host = "host", .numerics = 1};
    facts.model_id = ask("SELECT min(id) FROM model");
    facts.set_id = ask("SELECT min(id) FROM sweep_set");
    facts.config_id = ask("SELECT min(id) FROM config");
    struct store_samples samples = {"blob", 4, "zstd-f32/1"};
    struct store_fence f = {job, attempt, worker_id};
    bool is_ours = false;
    OK(store_done(store, &f, &facts, &r, &samples, &is_ours, &err));
    return is_ours;
}

Test(store, planning_twice_adds_nothing)
{
    struct store_plan_counts first = plan("demo", 3, 4, 5, 0);
    cr_expect_eq(first.jobs_new, 60);
    cr_expect_eq(first.models_new, 3);
    cr_expect_eq(first.configs_new, 4);
    cr_expect_eq(first.evals_new, 5);
    struct store_plan_counts again = plan("demo", 3, 4, 5, 0);
    cr_expect_eq(again.jobs_new, 0);
    cr_expect_eq(again.jobs_known, 60);
    cr_expect_eq(ask("SELECT count(*) FROM jobs"), 60);
    cr_expect_eq(ask("SELECT count(*) FROM spec"), 1);
    check_tally();
}

Test(store, a_larger_plan_adds_only_what_is_new)
{
    plan("demo", 2, 4, 5, 0);
    struct store_plan_counts more = plan("demo", 3, 5, 5, 0);
    cr_expect_eq(more.jobs_total, 75);
    cr_expect_eq(more.jobs_new, 35);
    cr_expect_eq(more.jobs_known, 40);
    check_tally();
}

Test(store, a_job_of_two_sweeps_exists_once_and_counts_in_both)
{
    plan("first", 2, 3, 5, 0);
    plan("second", 3, 3, 5, 0);
    cr_expect_eq(ask("SELECT count(*) FROM job"), 45);
    cr_expect_eq(ask("SELECT total FROM progress WHERE sweep = 'first'"), 30);
    cr_expect_eq(ask("SELECT total FROM progress WHERE sweep = 'second'"), 45);
    cr_expect_eq(ask("SELECT count(*) FROM jobs WHERE sweep = 'first'"), 30, "the origin stays");
    plan("third", 1, 3, 5, 0);
    cr_expect_eq(ask("SELECT total FROM progress WHERE sweep = 'third'"), 15);
    cr_expect_eq(ask("SELECT total FROM progress WHERE sweep = 'second'"), 45);
    check_tally();
}

Test(store, a_higher_priority_raises_known_jobs_and_a_lower_one_does_not)
{
    plan("demo", 1, 2, 5, 5);
    plan("demo", 1, 2, 5, 1);
    cr_expect_eq(ask("SELECT min(priority) FROM job"), 5);
    plan("demo", 1, 2, 5, 9);
    cr_expect_eq(ask("SELECT min(priority) FROM job"), 9);
}

Test(store, keys_of_the_view_are_those_of_job_key)
{
    plan("demo", 2, 8, 5, 0);
    struct sweep sw = fixture_sweep(&arena, "demo", 2, 8, 5);
    for (int64_t i = 0; i < sw.n_jobs; i++) {
        const struct sweep_job *j = &sw.jobs[i];
        const char *key = job_key(&sw.models[j->model].ref, &sw.configs[j->config],
                                  &sw.evals[j->eval].spec, &arena);
        int64_t n = ask(arena_printf(&arena, "SELECT count(*) FROM jobs WHERE key = '%s'", key));
        cr_assert_eq(n, 1, "%s", key);
    }
}

Test(store, a_rolled_back_group_leaves_nothing)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 1, w, &err));
    cr_expect(finish(1, 1, w, TASK_perplexity));
    store_rollback(store);
    cr_expect_eq(ask("SELECT count(*) FROM job WHERE state = 'pending' AND attempt = 0"), 5);
    cr_expect_eq(ask("SELECT count(*) FROM metric"), 0);
    cr_expect_eq(ask("SELECT done FROM worker"), 0);
    check_tally();
}

Test(store, result_and_state_change_are_one_transaction)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 1, w, &err));
    cr_expect(finish(1, 1, w, TASK_perplexity));
    OK(store_commit(store, &err));
    cr_expect_eq(ask("SELECT count(*) FROM job WHERE state = 'done'"), 1);
    cr_expect_eq(ask("SELECT count(*) FROM results"), 3);
    cr_expect_eq(ask("SELECT count(*) FROM results WHERE metric = 'kl_to_16bit' AND value IS NULL"),
                 1, "an infinite value is NULL");
    cr_expect_eq(ask("SELECT count(*) FROM samples WHERE job = 1 AND codec = 'zstd-f32/1'"), 1);
    cr_expect_eq(ask("SELECT done FROM workers"), 1);
    cr_expect_eq(ask("SELECT jobs_per_s > 0 FROM progress"), 1);
    check_tally();
}

Test(store, a_fenced_result_changes_nothing)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 1, w, &err));
    cr_expect_not(finish(1, 2, w, TASK_perplexity), "another attempt");
    cr_expect_not(finish(1, 1, w + 1, TASK_perplexity), "another worker");
    cr_expect_not(finish(2, 0, w, TASK_perplexity), "not leased");
    cr_expect(finish(1, 1, w, TASK_perplexity));
    cr_expect_not(finish(1, 1, w, TASK_perplexity), "a repeat");
    OK(store_commit(store, &err));
    cr_expect_eq(ask("SELECT count(*) FROM run"), 1);
    cr_expect_eq(ask("SELECT count(*) FROM metric"), 3);
}

Test(store, a_failed_attempt_is_recorded_and_buries_when_told)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    bool is_ours = false;
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 3, 1, w, &err));
    struct store_fence f = {3, 1, w};
    struct store_ending end = {"failed", ERR_CRASHED, "killed by SIGSEGV", true, false};
    OK(store_end_attempt(store, &f, &end, &is_ours, &err));
    cr_expect(is_ours);
    OK(store_end_attempt(store, &f, &end, &is_ours, &err));
    cr_expect_not(is_ours);
    OK(fixture_lease(store, 3, 2, w, &err));
    f.attempt = 2;
    end.is_buried = true;
    OK(store_end_attempt(store, &f, &end, &is_ours, &err));
    OK(store_commit(store, &err));
    cr_expect_eq(ask("SELECT attempts FROM jobs WHERE state = 'buried'"), 2);
    cr_expect_eq(ask("SELECT count(*) FROM failures WHERE code = 'CRASHED' AND outcome = 'failed'"),
                 2);
    cr_expect_eq(ask("SELECT count(*) FROM jobs WHERE error = 'killed by SIGSEGV'"), 1);
    cr_expect_eq(ask("SELECT failed FROM workers"), 2);
    check_tally();
}

Test(store, leasing_a_job_that_is_not_pending_is_an_error_and_breaks_the_group)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 1, w, &err));
    cr_expect_eq(fixture_lease(store, 1, 2, w, &err), ERR_BUSY);
    store_rollback(store);
}

Test(store, changes_apply_to_matching_jobs_in_the_right_states)
{
    plan("demo", 2, 2, 5, 0);
    struct store_changed c = {0};
    OK(store_change(store, STORE_HOLD, "*|model=models/pythia-s1*", &c, &err));
    cr_expect_eq(c.matched, 10);
    cr_expect_eq(c.changed, 10);
    OK(store_change(store, STORE_HOLD, "*|model=models/pythia-s1*", &c, &err));
    cr_expect_eq(c.changed, 0);
    OK(store_change(store, STORE_CANCEL, "*task=piqa*", &c, &err));
    cr_expect_eq(c.changed, 4);
    OK(store_change(store, STORE_RELEASE, "*", &c, &err));
    cr_expect_eq(c.changed, 8);
    OK(store_change(store, STORE_RETRY, "*", &c, &err));
    cr_expect_eq(c.changed, 4);
    cr_expect_eq(ask("SELECT count(*) FROM job WHERE state = 'pending'"), 20);
    OK(store_change(store, STORE_RETRY, "nothing like it", &c, &err));
    cr_expect_eq(c.matched, 0);
    check_tally();
}

Test(store, results_of_an_older_program_can_be_taken_back)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    for (int64_t job = 1; job <= 2; job++) {
        OK(fixture_lease(store, job, 1, w, &err));
        cr_expect(finish(job, 1, w, TASK_perplexity));
    }
    OK(store_pin_weights(store, 1, "abc", 10, 8, &err));
    OK(store_commit(store, &err));
    OK(store_exec(store, "UPDATE provenance SET program = 'isobit 0.9.2'", &err));
    struct store_changed c = {0};
    OK(store_invalidate(store, "*", "0.9.2", &c, &err));
    cr_expect_eq(c.changed, 0, "0.9.2 is not before 0.9.2");
    OK(store_invalidate(store, "*", "0.10.0", &c, &err));
    cr_expect_eq(c.changed, 2, "0.9.2 is before 0.10.0");
    cr_expect_eq(ask("SELECT count(*) FROM metric"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM sample"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM failures WHERE outcome = 'invalidated'"), 2);
    cr_expect_eq(ask("SELECT count(*) FROM model WHERE weights_sha256 IS NULL"), 1,
                 "nothing left to pin it");
    check_tally();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 2, w, &err));
    cr_expect(finish(1, 2, w, TASK_perplexity));
    OK(store_commit(store, &err));
}

Test(store, items_are_stored_once_and_a_longer_list_adds_the_rest)
{
    int32_t chars[] = {3, 5}, bytes[] = {3, 6}, tokens[] = {1, 2};
    struct item items[3];
    for (int i = 0; i < 3; i++)
        items[i] = (struct item){i == 2 ? -1 : i, 2, chars, bytes, tokens};
    struct item_list l = {items, 2, "tok", "set"};
    OK(store_items(store, "data", TASK_piqa, &l, &err));
    l.n = 3;
    OK(store_items(store, "data", TASK_piqa, &l, &err));
    OK(store_items(store, "data", TASK_piqa, &l, &err));
    cr_expect_eq(ask("SELECT count(*) FROM items"), 3);
    cr_expect_eq(ask("SELECT json_extract(bytes, '$[1]') FROM items WHERE i = 1"), 6);
    cr_expect_eq(ask("SELECT count(*) FROM items WHERE gold IS NULL"), 1);
}

Test(store, items_of_another_window_are_other_items)
{
    const struct eval_spec spec = {.task = TASK_perplexity, .data = "d", .window = 256};
    struct eval_spec wide = spec, context = spec, limited = spec;
    wide.window = 512;
    context.window = 0;
    limited.limit = 7;
    struct item_list a = {.n = 1}, b = {.n = 1}, c = {0};
    items_identity(&spec, 2048, "data", "tok", a.items_sha256);
    items_identity(&wide, 2048, "data", "tok", b.items_sha256);
    items_identity(&context, 256, "data", "tok", c.items_sha256);
    cr_expect_str_eq(c.items_sha256, a.items_sha256, "a window of the whole context");
    items_identity(&limited, 0, "data", "tok", c.items_sha256);
    cr_expect_str_eq(c.items_sha256, a.items_sha256, "a limit takes the first items");
    int32_t few[] = {255}, many[] = {511};
    a.items = &(struct item){-1, 1, few, few, few};
    b.items = &(struct item){-1, 1, many, many, many};
    OK(store_items(store, "data", TASK_perplexity, &a, &err));
    OK(store_items(store, "data", TASK_perplexity, &b, &err));
    cr_expect_eq(ask("SELECT count(DISTINCT item_set) FROM items"), 2);
    cr_expect_eq(ask("SELECT max(tokens) FROM items"), 511);
}

/* ---- files ---- */

Test(store, a_new_database_has_our_mark_and_the_newest_version)
{
    cr_expect_eq(ask("PRAGMA application_id"), STORE_APPLICATION_ID);
    int newest = 0;
    for (const struct store_migration *m = store_migrations; m->version != 0; m++)
        newest = m->version;
    cr_expect_eq(ask("PRAGMA user_version"), newest);
    cr_expect_eq(ask("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    cr_expect_eq(ask("PRAGMA synchronous"), 2);
}

Test(store, a_database_that_is_not_there_says_how_to_make_one)
{
    struct store *other = NULL;
    char *missing = xasprintf("%s/none.db", dir);
    cr_expect_eq(store_open(missing, STORE_WRITE, &other, &err), ERR_NOTFOUND);
    cr_expect(strstr(err.text, "isobit plan") != NULL, "%s", err.text);
    cr_expect_eq(store_open(missing, STORE_READ, &other, &err), ERR_NOTFOUND);
    cr_expect_not(io_exists(missing));
    xfree(missing);
}

Test(store, foreign_and_damaged_files_are_refused)
{
    struct {
        const char *name, *make;
    } cases[] = {
        {"foreign.db", "sqlite3 %s/foreign.db 'CREATE TABLE t(x)'"},
        {"text.db", "head -c 5000 /dev/zero | tr '\\0' 'x' > %s/text.db"},
        {"empty.db", "touch %s/empty.db"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *command = xasprintf(cases[i].make, dir);
        struct support_run r = support_shell(command);
        cr_assert_eq(r.status, 0, "%s", command);
        support_run_release(&r);
        char *file = xasprintf("%s/%s", dir, cases[i].name);
        struct store *other = NULL;
        cr_expect_eq(store_open(file, STORE_WRITE, &other, &err), ERR_FORMAT, "%s", cases[i].name);
        cr_expect(strstr(err.text, file) != NULL, "%s", err.text);
        cr_expect_eq(store_open(file, STORE_READ, &other, &err), ERR_FORMAT, "%s", cases[i].name);
        xfree(file);
        xfree(command);
    }
}

Test(store, another_schema_version_names_both)
{
    OK(store_exec(store, "PRAGMA user_version=99", &err));
    struct store *other = NULL;
    cr_expect_eq(store_open(path, STORE_READ, &other, &err), ERR_VERSION);
    cr_expect(strstr(err.text, "99") != NULL && strstr(err.text, "up to 2") != NULL, "%s",
              err.text);
    cr_expect_eq(store_open(path, STORE_WRITE, &other, &err), ERR_VERSION);
}

/* As the first version made it: a sweep with two evaluations of perplexity, both done. */
static char *first_version(void)
{
    char *file = arena_printf(&arena, "%s/old.db", dir);
    char *command = arena_printf(
        &arena,
        "{ cat %s; printf 'PRAGMA application_id=%d; PRAGMA user_version=1;"
        "INSERT INTO model VALUES (1, \"|model=m\", \"f\", \"s\", \"m\", \"/m\", NULL, NULL, NULL, "
        "NULL, NULL);"
        "INSERT INTO config VALUES (1, \"v1\", \"\", 16, \"int\", 0, 0, 0, \"none\", 0, "
        "\"previous\", "
        "0, 0, \"fp16\", \"fp32\");"
        "INSERT INTO eval VALUES (1, \"|task=a\", \"a\", \"perplexity\", \"d\", \"/d\", NULL, 0, "
        "0, 1, "
        "\"\", \"\", 0, NULL), (2, \"|task=b\", \"b\", \"perplexity\", \"d\", \"/d\", NULL, 0, 0, "
        "2, "
        "\"\", \"\", 0, NULL);"
        "INSERT INTO sweep VALUES (1, \"demo\", 0, 0);"
        "INSERT INTO sweep_eval VALUES (1, 1), (1, 2);"
        "INSERT INTO sweep_set VALUES (1, \"1\", 1); INSERT INTO sweep_set_member VALUES (1, 1);"
        "INSERT INTO job VALUES (1, 1, 1, 1, 1, \"done\", 1, 0, 0, NULL, NULL),"
        " (2, 1, 1, 2, 1, \"done\", 1, 0, 0, NULL, NULL);"
        "INSERT INTO tally VALUES (1, \"done\", 2), (1, \"pending\", 0);"
        "INSERT INTO provenance VALUES (1, \"cpu\", \"h\", \"p\", 1, \"w\", \"d\", \"t\", \"\");"
        "INSERT INTO run VALUES (1, 1, 1, 1, 1, 1, 1, 0, 0), (2, 1, 1, 1, 1, 1, 1, 0, 0);"
        "INSERT INTO metric VALUES (1, \"perplexity\", 10, NULL, 1), (2, \"perplexity\", 20, NULL, "
        "1);'; } | sqlite3 %s",
        support_source("schema/sql/0001_init.sql"), (int)STORE_APPLICATION_ID, file);
    struct support_run r = support_shell(command);
    cr_assert(r.status == 0 && r.err.len == 0, "%s", r.err.data);
    support_run_release(&r);
    return file;
}

/* Asked of an open database. */
static int64_t ask_of(struct store *s, const char *sql)
{
    int64_t n = -1;
    OK(store_query_int(s, sql, -1, &n, &err));
    return n;
}

Test(store, a_database_of_the_first_version_is_read_as_it_is_and_brought_up_to_date_by_a_writer)
{
    const char *file = first_version();
    struct store *other = NULL;
    OK(store_open(file, STORE_READ, &other, &err));
    cr_expect_eq(ask_of(other, "SELECT perplexity FROM scaling"), 10);
    cr_expect_eq(ask_of(other, "PRAGMA user_version"), 1, "a reader changes nothing");
    store_close(other);
    OK(store_open(file, STORE_WRITE, &other, &err));
    cr_expect_eq(ask_of(other, "PRAGMA user_version"), 2);
    cr_expect_eq(ask_of(other, "SELECT perplexity FROM scaling"), 10, "as before, until a plan");
    cr_expect_eq(ask_of(other, "SELECT job FROM cells"), 1);
    cr_expect_eq(ask_of(other, "SELECT count(*) FROM results"), 2);
    cr_expect_eq(ask_of(other, "SELECT total FROM progress"), 2);
    struct sweep sw = fixture_sweep(&arena, "demo", 1, 2, 1);
    struct store_plan_counts counts = {0};
    OK(store_plan(other, &sw, 0, &counts, &err));
    cr_expect_eq(counts.jobs_new, 2);
    cr_expect_eq(ask_of(other, "SELECT count(perplexity) FROM scaling"), 0);
    cr_expect_eq(ask_of(other, "SELECT total FROM progress"), 4);
    store_close(other);
}

Test(store, a_database_without_any_version_is_no_database_yet)
{
    const char *file = first_version();
    struct support_run r =
        support_shell(arena_printf(&arena, "sqlite3 %s 'PRAGMA user_version=0'", file));
    support_run_release(&r);
    struct store *other = NULL;
    cr_expect_eq(store_open(file, STORE_READ, &other, &err), ERR_VERSION);
}

Test(store, network_file_systems_are_known_by_their_magic)
{
    cr_expect_str_eq(store_fs_network_name(0x6969), "NFS");
    cr_expect_str_eq(store_fs_network_name(0x0BD00BD0), "Lustre");
    cr_expect_str_eq(store_fs_network_name(0xFF534D42), "CIFS");
    cr_expect_null(store_fs_network_name(0xEF53), "ext4");
    cr_expect_null(store_fs_network_name(0x01021994), "tmpfs");
}

Test(store, a_reader_sees_commits_only_and_cannot_write)
{
    plan("demo", 1, 2, 5, 0);
    struct store *reader = NULL;
    OK(store_open(path, STORE_READ, &reader, &err));
    OK(store_begin(store, &err));
    OK(store_exec(store, "UPDATE job SET priority = 7", &err));
    int64_t n = 0;
    OK(store_query_int(reader, "SELECT count(*) FROM jobs WHERE priority = 7", 0, &n, &err));
    cr_expect_eq(n, 0);
    OK(store_commit(store, &err));
    OK(store_query_int(reader, "SELECT count(*) FROM jobs WHERE priority = 7", 0, &n, &err));
    cr_expect_eq(n, 10);
    cr_expect_neq(store_exec(reader, "DELETE FROM job", &err), ERR_OK);
    store_close(reader);
}

Test(store, readers_work_while_another_process_writes)
{
    plan("demo", 4, 10, 5, 0);
    store_close(store);
    store = NULL;
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        struct store *w = NULL;
        struct err e;
        bool is_ok = store_open(path, STORE_WRITE, &w, &e) == ERR_OK;
        for (int i = 0; i < 200 && is_ok; i++)
            is_ok = store_begin(w, &e) == ERR_OK &&
                    store_exec(w, "UPDATE job SET priority = priority + 1", &e) == ERR_OK &&
                    store_commit(w, &e) == ERR_OK;
        _exit(is_ok ? 0 : 1);
    }
    OK(store_open(path, STORE_READ, &store, &err));
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0)
        cr_assert_eq(ask("SELECT count(DISTINCT priority) FROM jobs"), 1, "a torn update");
    cr_expect_eq(status, 0);
    cr_expect_eq(ask("SELECT min(priority) FROM job"), 200);
}

Test(store, a_read_only_folder_can_be_read_when_nobody_writes)
{
    plan("demo", 1, 2, 5, 0);
    store_close(store);
    store = NULL;
    if (geteuid() == 0) { /* root ignores permissions: act as nobody */
        cr_assert_eq(chmod(dir, 0555), 0);
        cr_assert_eq(seteuid(65534), 0);
    }
    cr_assert_eq(access(path, R_OK), 0);
    OK(store_open(path, STORE_READ, &store, &err));
    cr_expect_eq(ask("SELECT count(*) FROM jobs"), 10);
    struct store *w = NULL;
    cr_expect_eq(store_open(path, STORE_WRITE, &w, &err), ERR_DENIED);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
}

Test(store, a_backup_is_one_consistent_file)
{
    plan("demo", 2, 5, 5, 0);
    char *out = xasprintf("%s/copy.db", dir);
    int64_t bytes = 0;
    struct store *reader = NULL;
    OK(store_open(path, STORE_READ, &reader, &err));
    OK(store_begin(store, &err));
    OK(store_exec(store, "UPDATE job SET priority = 7", &err));
    OK(store_backup(reader, out, &bytes, &err));
    OK(store_commit(store, &err));
    store_close(reader);
    cr_expect_eq(bytes, io_file_size(out));
    struct store *copy = NULL;
    OK(store_open(out, STORE_READ, &copy, &err));
    int64_t n = 0;
    OK(store_query_int(copy, "SELECT count(*) FROM jobs WHERE priority = 0", 0, &n, &err));
    cr_expect_eq(n, 50);
    store_close(copy);
    cr_expect_eq(store_backup(store, "/nonexistent/copy.db", &bytes, &err), ERR_IO);
    xfree(out);
}

/* ---- faults ---- */

/* A database that may not grow is a full disk: for every size, a plan either fits or leaves no trace. */
Test(store, a_full_disk_loses_the_group_and_nothing_else)
{
    plan("small", 1, 1, 5, 0);
    int64_t pages = ask("PRAGMA page_count");
    struct sweep sw = fixture_sweep(&arena, "demo", 4, 30, 5);
    struct store_plan_counts counts = {0};
    bool is_done = false;
    int n_failed = 0;
    for (int64_t extra = 0; !is_done; extra++) {
        OK(store_exec(
            store, arena_printf(&arena, "PRAGMA max_page_count=%lld", (long long)(pages + extra)),
            &err));
        is_done = store_plan(store, &sw, 0, &counts, &err) == ERR_OK;
        if (is_done)
            break;
        n_failed++;
        cr_assert_eq(err.code, ERR_IO, "%s", err.text);
        cr_assert(strstr(err.text, "free some space") != NULL, "%s", err.text);
        cr_assert_eq(ask("SELECT count(*) FROM job"), 5);
        cr_assert_eq(ask("SELECT count(*) FROM sweep"), 1);
        check_tally();
    }
    cr_expect(n_failed > 3);
    cr_expect_eq(ask("SELECT count(*) FROM job"), 600);
    check_tally();
}

Test(store, after_a_failed_write_the_group_cannot_be_committed)
{
    plan("demo", 1, 1, 5, 0);
    int64_t w = worker();
    OK(store_begin(store, &err));
    OK(fixture_lease(store, 1, 1, w, &err));
    cr_expect_neq(store_exec(store, "INSERT INTO job (id) VALUES (1)", &err), ERR_OK);
    cr_expect_neq(store_commit(store, &err), ERR_OK);
    cr_expect_eq(ask("SELECT count(*) FROM job WHERE state = 'pending'"), 5);
}

/* ---- speed: a sanity bound, far above what it takes; the figures are in tests/bench ---- */

Test(store, a_hundred_thousand_jobs_are_planned_in_seconds)
{
    int64_t start = clock_mono_ns();
    struct store_plan_counts c = plan("large", 20, 1000, 5, 0);
    double first_s = clock_seconds_since(start);
    start = clock_mono_ns();
    plan("large", 20, 1000, 5, 0);
    double again_s = clock_seconds_since(start);
    start = clock_mono_ns();
    cr_expect_eq(ask("SELECT pending FROM progress"), 100000);
    double count_s = clock_seconds_since(start);
    cr_expect_eq(c.jobs_new, 100000);
    cr_expect(first_s < 10 && again_s < 10 && count_s < 0.5, "%.3f s, again %.3f s, count %.4f s",
              first_s, again_s, count_s);
    cr_log_info("first %.3f s, again %.3f s, count %.4f s", first_s, again_s, count_s);
}

/* What the benchmarks write past the store must go with the schema; they are not run with the tests. */
Test(store, the_benchmarks_rows_fit_the_schema)
{
    plan("demo", 3, 4, 5, 0);
    OK(store_exec(store, million_fill, &err));
    cr_expect_eq(ask("SELECT count(*) FROM results"), 60);
}

/* ---- the write-ahead log ---- */

/* Commits something of about so many pages. */
static void write_some(int n_models)
{
    static int n;
    char name[32];
    snprintf(name, sizeof(name), "some-%d", n++);
    plan(name, n_models, 20, 2, 0);
}

Test(store, a_tidied_log_stays_short_while_work_goes_on)
{
    char *log = xasprintf("%s-wal", path);
    store->log.step = 50;
    for (int i = 0; i < 300; i++) {
        store_tidy_log(store, true);
        write_some(1 + i % 3);
        usleep(1000);
    }
    cr_expect(!store->log.is_kept);
    cr_expect_lt(io_file_size(log), (int64_t)2 << 20, "%lld bytes", (long long)io_file_size(log));
    xfree(log);
}

/* SQLite's locks on the file are the process's: nothing that happens beside it may drop them. */
Test(store, tidying_the_log_keeps_the_locks)
{
    int status = 0;
    store->log.step = 1;
    for (int i = 0; i < 4; i++) {
        write_some(1);
        store_tidy_log(store, true);
        while (!preflush_is_over(store->log.preflush))
            usleep(1000);
    }
    preflush_free(store->log.preflush); /* it closes its descriptor */
    store->log.preflush = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR);
        _exit(fcntl(fd, F_GETLK, &all) == 0 && all.l_type != F_UNLCK ? 0 : 1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0, "no lock is left on the database");
}

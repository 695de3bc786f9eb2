/* The documents behind the web page, and where the server agrees to listen. */
#include <criterion/criterion.h>
#include <string.h>

#include "coordinator/http.h"
#include "coordinator/page.h"
#include "coordinator/site_docs.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static char *dir;
static struct store *store;
static struct arena arena;
static struct err err;
static struct site_live live;

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)

static void setup(void)
{
    dir = support_tmpdir();
    live = (struct site_live){.db_path = arena_printf(&arena, "%s/t.db", dir),
                              .endpoint = "tcp://127.0.0.1:5555",
                              .counts = {.jobs_per_s = 2.5, .eta_s = -1, .workers = 1},
                              .workers = json_array()};
    OK(store_open(live.db_path, STORE_CREATE, &store, &err));
}

static void teardown(void)
{
    store_close(store);
    json_decref(live.workers);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

TestSuite(site, .init = setup, .fini = teardown);

static void plan(int n_models, int n_configs, int n_evals)
{
    struct sweep sw = fixture_sweep(&arena, "a \"quoted\\ sweep\n", n_models, n_configs, n_evals);
    struct store_plan_counts n = {0};
    OK(store_plan(store, &sw, 0, &n, &err));
}

/* A worker leases job 1 and fails, so that it is buried. */
static void bury_job_1(void)
{
    const struct store_worker w = {"uuid-1", "host",  "cpu", "isobit 0.1.0", "fp32", "",
                                   1,        1 << 30, 42};
    const struct store_ending end = {.outcome = "failed",
                                     .code = ERR_FORMAT,
                                     .text = "<b>broken</b>",
                                     .counts = true,
                                     .is_buried = true};
    int64_t worker = 0;
    bool is_ours = false;
    OK(store_begin(store, &err));
    OK(store_worker_hello(store, &w, &worker, &err));
    OK(fixture_lease(store, 1, 1, worker, &err));
    OK(store_end_attempt(store, &(struct store_fence){1, 1, worker}, &end, &is_ours, &err));
    OK(store_commit(store, &err));
    cr_assert(is_ours);
}

static json_t *make(site_doc_fn fn)
{
    struct buf text = {0};
    json_t *doc = NULL;
    OK(fn(store, &live, &text, &err));
    OK(json_parse((struct str){text.data, text.len}, "document", &doc, &err));
    buf_release(&text);
    return doc;
}

Test(site, documents_of_an_empty_database_are_complete)
{
    static const site_doc_fn all[] = {site_doc_status, site_doc_workers, site_doc_failures,
                                      site_doc_progress, site_doc_scaling};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        json_decref(make(all[i]));
    struct buf text = {0};
    OK(site_doc_metrics(store, &live, &text, &err));
    cr_expect(strstr(text.data, "isobit_jobs_per_second 2.5\n") != NULL);
    cr_expect(strstr(text.data, "isobit_remaining_seconds") == NULL, "nothing is known of it");
    buf_release(&text);
}

Test(site, progress_counts_every_job_once)
{
    plan(3, 8, 5);
    bury_job_1();
    json_t *doc = make(site_doc_progress), *row = NULL;
    int64_t pending = 0, buried = 0;
    size_t i = 0;
    json_array_foreach(json_object_get(doc, "rows"), i, row)
    {
        cr_assert_eq(json_array_size(row), 11);
        pending += json_integer_value(json_array_get(row, 5));
        buried += json_integer_value(json_array_get(row, 8));
    }
    cr_expect_eq(pending, 3 * 8 * 5 - 1);
    cr_expect_eq(buried, 1);
    /* Seven configurations are six widths at two block sizes and the baseline: k = 3 stands twice in one cell. */
    cr_expect_eq(json_array_size(json_object_get(doc, "rows")), 3 * 7 * 5);
    cr_expect_eq(
        json_integer_value(json_array_get(json_array_get(json_object_get(doc, "rows"), 0), 2)), 3);
    json_decref(doc);
}

Test(site, failures_come_with_the_command_that_tries_again)
{
    plan(1, 2, 1);
    bury_job_1();
    json_t *doc = make(site_doc_failures);
    const json_t *first = json_array_get(json_object_get(doc, "failures"), 0);
    const json_t *count = json_array_get(json_object_get(doc, "counts"), 0);
    char *hint = arena_printf(&arena, "isobit retry --db '%s' '%s'", live.db_path,
                              json_opt_str(first, "key", ""));
    cr_expect_str_eq(json_opt_str(first, "hint", ""), hint);
    cr_expect_str_eq(json_opt_str(first, "text", ""), "<b>broken</b>");
    cr_expect_eq(json_opt_int(count, "attempts", 0), 1);
    cr_expect_eq(json_opt_int(count, "buried", 0), 1);
    json_decref(doc);
}

Test(site, a_hint_survives_a_quote_in_a_name)
{
    struct buf hint = {0};
    site_hint("buried", "v1|a", "it's.db", &hint);
    cr_expect_str_eq(hint.data, "isobit retry --db 'it'\\''s.db' 'v1|a'");
    buf_reset(&hint);
    site_hint("pending", "v1|a", "s.db", &hint);
    cr_expect(strstr(hint.data, "by itself") != NULL);
    buf_release(&hint);
}

Test(site, workers_carry_what_the_coordinator_knows_of_them)
{
    plan(1, 2, 1);
    bury_job_1();
    json_array_append_new(live.workers,
                          json_pack("{s:s, s:s, s:s, s:f}", "uuid", "uuid-1", "checkpoint", "m/s0",
                                    "state", "busy", "seconds", 3.5));
    json_t *doc = make(site_doc_workers);
    const json_t *w = json_array_get(json_object_get(doc, "workers"), 0);
    cr_expect_str_eq(json_opt_str(w, "checkpoint", ""), "m/s0");
    cr_expect_str_eq(json_opt_str(w, "doing", ""), "busy");
    cr_expect_str_eq(json_opt_str(w, "state", ""), "live");
    cr_expect_eq(json_opt_num(w, "connected_s", 0), 3.5);
    json_decref(doc);
}

Test(site, labels_of_metrics_are_escaped)
{
    struct buf text = {0};
    plan(1, 2, 1);
    OK(site_doc_metrics(store, &live, &text, &err));
    cr_expect(strstr(text.data,
                     "isobit_jobs{sweep=\"a \\\"quoted\\\\ sweep\\n\",state=\"pending\"} 2\n") !=
                  NULL,
              "%s", text.data);
    buf_release(&text);
}

Test(site, fingerprint_changes_when_a_job_does)
{
    struct buf before = {0}, same = {0}, after = {0};
    plan(1, 2, 1);
    OK(site_fingerprint(store, &before, &err));
    OK(site_fingerprint(store, &same, &err));
    bury_job_1();
    OK(site_fingerprint(store, &after, &err));
    cr_expect_str_eq(before.data, same.data);
    cr_expect_str_neq(before.data, after.data);
    buf_release(&before);
    buf_release(&same);
    buf_release(&after);
}

Test(site, page_has_its_files)
{
    static const char *const wanted[] = {"/", "/page.css", "/page.js"};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        const struct page_file *f = page_files;
        while (f->path != NULL && strcmp(f->path, wanted[i]) != 0)
            f++;
        cr_assert(f->path != NULL, "%s", wanted[i]);
        cr_expect_gt(f->n, 500);
    }
}

/* ---- where it listens ---- */

static bool answer_nothing(void *arg, const char *path, struct http_answer *out)
{
    (void)arg;
    (void)path;
    (void)out;
    return false;
}

static enum err_code try_address(const char *address, bool is_open)
{
    const struct http_options o = {
        .address = address, .is_open = is_open, .answer = answer_nothing};
    struct http *h = NULL;
    enum err_code rc = http_start(&o, &h, &err);
    http_stop(rc == ERR_OK ? h : NULL);
    return rc;
}

Test(http, listens_on_loopback_unless_told_otherwise)
{
    cr_expect_eq(try_address("127.0.0.1:0", false), ERR_OK, "%s", err.text);
    cr_expect_eq(try_address("127.9.9.9:0", false), ERR_OK, "%s", err.text);
    cr_expect_eq(try_address("localhost:0", false), ERR_OK, "%s", err.text);
    cr_expect_eq(try_address("0.0.0.0:0", false), ERR_DENIED);
    cr_expect(strstr(err.text, "--http-open") != NULL);
    cr_expect_eq(try_address("[::]:0", false), ERR_DENIED);
    cr_expect_eq(try_address("0.0.0.0:0", true), ERR_OK, "%s", err.text);
}

Test(http, an_address_that_is_none_is_wrong_usage)
{
    static const char *const bad[] = {"",      "8080",       ":8080",        "127.0.0.1",
                                      "a:b",   "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:65536",
                                      "::1:0", "[]:0",       "127.0.0.1:80x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(try_address(bad[i], false), ERR_USAGE, "%s", bad[i]);
}

Test(http, a_port_that_is_taken_is_busy)
{
    const struct http_options o = {.address = "127.0.0.1:0", .answer = answer_nothing};
    struct http *h = NULL;
    cr_assert_eq(http_start(&o, &h, &err), ERR_OK, "%s", err.text);
    char address[64];
    int port = 0;
    cr_assert_eq(sscanf(http_url(h), "http://127.0.0.1:%d/", &port), 1);
    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    cr_expect_eq(try_address(address, false), ERR_BUSY);
    http_stop(h);
}

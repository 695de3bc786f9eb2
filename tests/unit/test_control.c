#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "coordinator/control.h"
#include "coordinator/lock.h"
#include "schema/link.h"
#include "schema/store_work.h"
#include "tests/support/support.h"

static char *dir, *db;
static struct err err;

static const char spec[] =
    "name: tiny\n"
    "models: [{family: pythia, sizes: [s0, s1], path: \"models/{family}-{size}\"}]\n"
    "configurations: [{k: 16}, {k: [3, 4], dtype: int}]\n"
    "evaluations: [{task: lambada, data: l.jsonl}, {task: piqa, data: p.jsonl}]\n";

static void setup(void)
{
    dir = support_tmpdir();
    db = xasprintf("%s/t.db", dir);
}

static void teardown(void)
{
    xfree(db);
    support_tmpdir_remove(dir);
}

TestSuite(control, .init = setup, .fini = teardown);

static json_t *ask(json_t *request, bool may_create)
{
    json_t *reply = NULL;
    cr_assert_not_null(request);
    enum err_code rc = control_request(db, request, may_create, 10, &reply, &err);
    json_decref(request);
    return rc == ERR_OK ? reply : NULL;
}

static json_t *plan_request(const char *text)
{
    return json_pack("{s:s, s:s, s:s, s:i}", "op", "plan", "spec_text", text, "spec_path",
                     "/data/tiny.yaml", "priority", 0);
}

static void plan(void)
{
    json_t *reply = ask(plan_request(spec), true);
    cr_assert_not_null(reply, "%s", err.text);
    cr_expect_eq(json_opt_int(reply, "jobs_new", 0), 12);
    json_decref(reply);
}

static json_t *change(const char *op, const char *pattern)
{
    return ask(json_pack("{s:s, s:s}", "op", op, "pattern", pattern), false);
}

static void check_change(const char *op, const char *pattern, int matched, int changed)
{
    json_t *reply = change(op, pattern);
    cr_assert_not_null(reply, "%s: %s", op, err.text);
    cr_expect_eq(json_opt_int(reply, "matched", -1), matched, "%s %s", op, pattern);
    cr_expect_eq(json_opt_int(reply, "changed", -1), changed, "%s %s", op, pattern);
    json_decref(reply);
}

Test(control, commands_work_directly_when_nobody_serves)
{
    plan();
    check_change("hold", "*task=piqa*", 6, 6);
    check_change("release", "*", 12, 6);
    check_change("cancel", "*k=16*", 4, 4);
    check_change("retry", "*", 12, 4);
    check_change("retry", "nothing", 0, 0);
    json_t *reply = ask(json_pack("{s:s}", "op", "status"), false);
    cr_expect_eq(json_opt_int(reply, "pending", 0), 12);
    cr_expect_eq(json_opt_int(reply, "done", -1), 0);
    json_decref(reply);
    struct lock_owner owner;
    cr_expect_not(lock_is_held(db, &owner), "released");
}

Test(control, errors_come_back_with_code_and_text)
{
    cr_expect_null(change("hold", "*"));
    cr_expect_eq(err.code, ERR_NOTFOUND);
    cr_expect_not(io_exists(db), "asking makes no database");
    plan();
    cr_expect_null(ask(plan_request("models: 7\n"), true));
    cr_expect_eq(err.code, ERR_FORMAT);
    cr_expect_not_null(strstr(err.text, "/data/tiny.yaml:1"), "%s", err.text);
    cr_expect_null(ask(json_pack("{s:s}", "op", "dance"), false));
    cr_expect_eq(err.code, ERR_UNSUPPORTED);
    cr_expect_null(ask(json_pack("{s:s}", "op", "hold"), false));
    cr_expect_eq(err.code, ERR_FORMAT);
    cr_expect_null(ask(json_pack("{s:s,s:s,s:s,s:s}", "op", "retry", "pattern", "*", "state",
                                 "done", "program", "0.2"),
                       false));
    cr_expect_eq(err.code, ERR_USAGE);
    cr_expect_null(ask(json_pack("{s:s,s:s}", "op", "backup", "out", "/nonexistent/o.db"), false));
    cr_expect_eq(err.code, ERR_IO);
}

Test(control, a_failed_operation_leaves_no_transaction_open)
{
    plan();
    struct store *s = NULL;
    cr_assert_eq(store_open(db, STORE_WRITE, &s, &err), ERR_OK);
    json_t *bad = plan_request("models: 7\n"),
           *good = json_pack("{s:s,s:s}", "op", "hold", "pattern", "*");
    json_t *first = control_execute(s, bad), *second = control_execute(s, good);
    cr_expect_not(json_opt_bool(first, "ok", true));
    cr_expect_str_eq(json_opt_str(first, "code", ""), "FORMAT");
    cr_expect(json_opt_bool(second, "ok", false));
    cr_expect_eq(json_opt_int(second, "changed", 0), 12);
    json_decref(first);
    json_decref(second);
    json_decref(bad);
    json_decref(good);
    store_close(s);
}

/* ---- through a coordinator: a child that holds the lock and answers on a control socket ---- */

static int serve(const char *endpoint, bool is_mute)
{
    struct lock lock;
    struct lock_owner owner;
    struct link_context *context = NULL;
    struct link *l = NULL;
    struct store *s = NULL;
    struct err e;
    char bound[256];
    if (lock_take(db, &lock, &owner, &e) != ERR_OK ||
        store_open(db, STORE_WRITE, &s, &e) != ERR_OK || link_context_new(&context, &e) != ERR_OK ||
        link_listen(context, endpoint, NULL, bound, &l, &e) != ERR_OK ||
        lock_publish(&lock, bound, &e) != ERR_OK)
        return 1;
    for (;;) {
        struct link_inbox in;
        bool is_readable = false;
        struct link *links[] = {l};
        link_wait(links, 1, NULL, 0, 1000000000, &is_readable);
        while (link_receive(l, &in)) {
            json_t *reply = control_execute(s, in.msg.body);
            json_object_set_new(reply, "by", json_string("coordinator"));
            if (!is_mute && link_send(l, &in.from, WIRE_REPLY, reply, NULL, 0, &e) != ERR_OK)
                return 1;
            json_decref(reply);
            link_inbox_release(&in);
        }
    }
}

static pid_t start_server(bool is_mute)
{
    char *endpoint = xasprintf("ipc://%s/control.sock", dir);
    struct lock_owner owner = {0};
    pid_t pid = fork();
    if (pid == 0)
        _exit(serve(endpoint, is_mute));
    for (int i = 0; i < 500 && (!lock_is_held(db, &owner) || owner.control[0] == '\0'); i++)
        usleep(10000);
    cr_assert_str_eq(owner.control, endpoint);
    xfree(endpoint);
    return pid;
}

static void stop_server(pid_t pid)
{
    cr_expect_eq(kill(pid, SIGKILL), 0, "it ended by itself");
    waitpid(pid, NULL, 0);
}

Test(control, commands_go_through_the_coordinator_that_holds_the_lock)
{
    plan();
    pid_t pid = start_server(false);
    json_t *reply = change("hold", "*task=piqa*");
    cr_assert_not_null(reply, "%s", err.text);
    cr_expect_str_eq(json_opt_str(reply, "by", ""), "coordinator");
    cr_expect_eq(json_opt_int(reply, "changed", 0), 6);
    json_decref(reply);
    cr_expect_null(ask(plan_request("models: 7\n"), true));
    cr_expect_eq(err.code, ERR_FORMAT, "errors come through too");
    stop_server(pid);
    check_change("release", "*", 12, 6); /* directly again, and what it wrote is there */
}

Test(control, a_coordinator_that_does_not_answer_is_a_time_out)
{
    plan();
    pid_t pid = start_server(true);
    json_t *request = json_pack("{s:s}", "op", "status"), *reply = NULL;
    cr_expect_eq(control_request(db, request, false, 0.5, &reply, &err), ERR_TIMEOUT);
    json_decref(request);
    stop_server(pid);
}

Test(control, a_coordinator_that_leaves_without_an_answer_is_replaced_by_the_command_itself)
{
    plan();
    pid_t pid = start_server(true);
    pid_t killer = fork();
    if (killer == 0) {
        usleep(300000);
        kill(pid, SIGKILL);
        _exit(0);
    }
    json_t *reply = change("hold", "*task=piqa*");
    cr_assert_not_null(reply, "%s", err.text);
    json_decref(reply);
    waitpid(killer, NULL, 0);
    waitpid(pid, NULL, 0);
}

Test(control, a_short_command_that_holds_the_lock_is_waited_for)
{
    plan();
    struct lock lock;
    struct lock_owner owner;
    int ready[2];
    char byte = 'x';
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct err e;
        if (lock_take(db, &lock, &owner, &e) != ERR_OK || write(ready[1], &byte, 1) != 1)
            _exit(1);
        usleep(300000);
        lock_release(&lock);
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    check_change("hold", "*", 12, 12);
    waitpid(pid, NULL, 0);
}

/* Dispatch in a laboratory: a real store in a folder of its own, a made-up clock, and steps each in a transaction as the serve
 * loop does them. Header only; each test is a process of its own, so the state is the file's. A test file ends its includes
 * with DISPATCH_SUITE(name). */
#ifndef ISOBIT_TESTS_SUPPORT_DISPATCH_LAB_H
#define ISOBIT_TESTS_SUPPORT_DISPATCH_LAB_H

#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/dispatch.h"
#include "schema/store_impl.h"
#include "schema/wire.h"
#include "tests/support/dispatch_options.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static char *dir;
static struct store *store;
static struct dispatch *dispatch;
static struct arena arena;
static struct err err; /* of the last OK */
static int64_t now_ns;
static const struct store_samples no_samples = {0};

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)
#define S        CLOCK_NS_PER_S

static inline void setup(void)
{
    log_setup(LOG_ERROR, false, NULL);
    dir = support_tmpdir();
    now_ns = 1000 * S;
    OK(store_open(arena_printf(&arena, "%s/t.db", dir), STORE_CREATE, &store, &err));
}

static inline void teardown(void)
{
    dispatch_free(dispatch);
    store_close(store);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

/* ---- steps, each in a transaction as the serve loop does ---- */

static inline void begin(void)
{
    OK(store_begin(store, &err));
}

static inline void commit(void)
{
    OK(store_commit(store, &err));
}

static inline void plan(int n_models, int n_configs, int n_evals)
{
    struct sweep sw = fixture_sweep(&arena, "demo", n_models, n_configs, n_evals);
    struct store_plan_counts counts = {0};
    OK(store_plan(store, &sw, 0, &counts, &err));
}

static inline void start(void)
{
    struct dispatch_options o = usual_dispatch();
    dispatch_free(dispatch);
    dispatch = NULL;
    OK(dispatch_new(store, &o, now_ns, &dispatch, &err));
}

static inline struct worker_hello hello_of(const char *uuid)
{
    return (struct worker_hello){.uuid = uuid,
                                 .host = "host",
                                 .device = "cpu",
                                 .program = "isobit 0.1.0",
                                 .numerics = WIRE_NUMERICS,
                                 .memory_bytes = (int64_t)64 << 30,
                                 .computes = 1u << COMPUTE_FP32,
                                 .pid = 1};
}

static inline int64_t greet(const struct worker_hello *h)
{
    int64_t session = 0;
    begin();
    OK(dispatch_hello(dispatch, h, now_ns, &session, &err));
    commit();
    return session;
}

static inline int64_t hello(const char *uuid)
{
    const struct worker_hello h = hello_of(uuid);
    return greet(&h);
}

static inline int64_t join(const char *uuid, int credit)
{
    int64_t session = hello(uuid);
    dispatch_credit(dispatch, session, credit);
    return session;
}

static inline bool next(struct slice *s)
{
    bool found = false;
    begin();
    OK(dispatch_next(dispatch, now_ns, &arena, s, &found, &err));
    commit();
    return found;
}

static inline enum verdict report(int64_t session, const struct job *j, const struct job_result *r)
{
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_result(dispatch, &(struct dispatch_ref){session, j->id, j->attempt}, r, &no_samples,
                       now_ns, &v, &err));
    commit();
    return v;
}

static inline enum verdict result(int64_t session, const struct job *j)
{
    const struct job_result r = fixture_result(&arena, j->eval.task, 0.5);
    return report(session, j, &r);
}

static inline enum verdict fail(int64_t session, const struct job *j, enum err_code code)
{
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_fail(dispatch, &(struct dispatch_ref){session, j->id, j->attempt}, code, "it broke",
                     now_ns, &v, &err));
    commit();
    return v;
}

static inline enum verdict lack(int64_t session, const struct job *j, enum wire_lack what,
                                enum err_code code)
{
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_missing(dispatch, &(struct dispatch_ref){session, j->id, j->attempt},
                        &(struct dispatch_lack){what, code, "it is not here"}, now_ns, &v, &err));
    commit();
    return v;
}

static inline void tick(void)
{
    int64_t next_ns = 0;
    begin();
    OK(dispatch_tick(dispatch, now_ns, &next_ns, &err));
    commit();
    cr_assert(next_ns > 0 && next_ns <= 15 * S);
}

static inline int64_t ask(const char *sql)
{
    int64_t n = 0;
    OK(store_query_int(store, sql, -1, &n, &err));
    return n;
}

static inline int64_t count_state(const char *state)
{
    return ask(arena_printf(&arena, "SELECT count(*) FROM job WHERE state = '%s'", state));
}

static inline void change(enum store_change what, const char *pattern)
{
    struct store_changed c = {0};
    OK(store_change(store, what, pattern, &c, &err));
    dispatch_jobs_changed(dispatch);
}

/* `retry --done`: all results are taken back. */
static inline void take_back(void)
{
    struct store_changed c = {0};
    OK(store_invalidate(store, "*", NULL, &c, &err));
    dispatch_jobs_changed(dispatch);
}

#define DISPATCH_SUITE(name) TestSuite(name, .init = setup, .fini = teardown)

#endif

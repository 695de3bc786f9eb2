#include "tests/support/smoke.h"

#include "base/mem.h"
#include "tests/support/support.h"

struct smoke smoke_open(void)
{
    struct smoke s = {.dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0"};
    s.log = xasprintf("%s/log", s.dir);
    s.db = xasprintf("%s/smoke.db", s.dir);
    cluster_plan("sweeps/smoke.yaml", s.db);
    return s;
}

void smoke_close(struct smoke *s)
{
    cluster_kill(s->worker);
    cluster_kill(s->coordinator);
    xfree(s->log);
    xfree(s->db);
    support_tmpdir_remove(s->dir);
}

void smoke_serve(struct smoke *s, const char *const *extra)
{
    s->coordinator = cluster_serve(s->db, s->endpoint, s->log, extra);
}

void smoke_work(struct smoke *s, const char *const *extra)
{
    s->worker = cluster_worker(s->endpoint, s->log, extra);
}

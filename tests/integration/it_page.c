/* The web page of a coordinator in a real browser (it_page.js): live numbers, a click, filters, the curve, narrow and dark. Set
 * ISOBIT_PAGE_OUT to a folder to keep the screenshots. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

static int look_at(const char *url, const char *out)
{
    char *command = xasprintf("browse open --timeout 150 --out %s --script %s %s", out,
                              support_source("tests/integration/it_page.js"), url);
    struct support_run r = support_shell(command);
    fprintf(stderr, "%s%s", r.out.data, r.err.data);
    int status = r.status;
    support_run_release(&r);
    xfree(command);
    return status;
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    static const char *const http[] = {"--http", "127.0.0.1:0", NULL};
    const char *const compute[] = {"--compute-program", fake_compute_path(), NULL};
    char endpoint[256] = "tcp://127.0.0.1:0", url[128];
    char *dir = support_tmpdir();
    char *db = xasprintf("%s/s.db", dir), *log = xasprintf("%s/serve.log", dir);
    char *worker_log = xasprintf("%s/worker.log", dir);
    const char *out = getenv("ISOBIT_PAGE_OUT");
    setenv("ISOBIT_FAKE_MS", "40", 1);
    setenv("ISOBIT_FAKE_FAIL", "97", 1);
    cluster_plan("sweeps/demo.yaml", db);
    pid_t serve = cluster_serve(db, endpoint, log, http);
    cluster_page(log, url);
    pid_t workers[2] = {cluster_worker(endpoint, worker_log, compute),
                        cluster_worker(endpoint, worker_log, compute)};
    int status = look_at(url, out != NULL ? out : dir);
    for (int i = 0; i < 2; i++)
        cluster_kill(workers[i]);
    cluster_kill(serve);
    support_tmpdir_remove(dir);
    xfree(db);
    xfree(log);
    xfree(worker_log);
    return status;
}

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "coordinator/lock.h"
#include "tests/support/support.h"

static char *dir, *db;
static struct err err;

static void setup(void)
{
    dir = support_tmpdir();
    db = xasprintf("%s/t.db", dir);
    support_write(db, "", 0);
}

static void teardown(void)
{
    xfree(db);
    support_tmpdir_remove(dir);
}

TestSuite(lock, .init = setup, .fini = teardown);

/* A child that takes the lock, publishes `control` unless NULL, and holds it until it is killed. */
static pid_t holder(const char *path, const char *control)
{
    int ready[2];
    char byte = 0;
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        struct lock l;
        struct lock_owner o;
        struct err e;
        bool is_ok = lock_take(path, &l, &o, &e) == ERR_OK &&
                     (control == NULL || lock_publish(&l, control, &e) == ERR_OK);
        byte = is_ok ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void kill_hard(pid_t pid)
{
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(lock, the_holder_is_named_with_its_control_socket)
{
    pid_t pid = holder(db, "ipc:///tmp/x.sock");
    struct lock l;
    struct lock_owner o = {0};
    cr_expect_eq(lock_take(db, &l, &o, &err), ERR_BUSY);
    cr_expect_eq(o.pid, pid);
    cr_expect_str_eq(o.control, "ipc:///tmp/x.sock");
    cr_expect(o.host[0] != '\0');
    cr_expect(lock_is_held(db, &o));
    cr_expect_eq(o.pid, pid);
    kill_hard(pid);
}

Test(lock, it_dies_with_its_process)
{
    kill_hard(holder(db, "ipc:///tmp/x.sock"));
    struct lock l;
    struct lock_owner o = {0};
    cr_expect_not(lock_is_held(db, &o));
    cr_assert_eq(lock_take(db, &l, &o, &err), ERR_OK, "%s", err.text);
    lock_release(&l);
}

Test(lock, releasing_leaves_no_file_behind)
{
    struct lock l;
    struct lock_owner o;
    cr_assert_eq(lock_take(db, &l, &o, &err), ERR_OK);
    char *file = xasprintf("%s.lock", db);
    cr_expect(io_exists(file));
    lock_release(&l);
    cr_expect_not(io_exists(file));
    lock_release(&l); /* twice is harmless */
    xfree(file);
}

Test(lock, one_database_has_one_lock_through_links_too)
{
    char *link = xasprintf("%s/link.db", dir);
    cr_assert_eq(symlink(db, link), 0);
    pid_t pid = holder(db, NULL);
    struct lock l;
    struct lock_owner o;
    cr_expect_eq(lock_take(link, &l, &o, &err), ERR_BUSY);
    kill_hard(pid);
    xfree(link);
}

Test(lock, a_folder_that_is_not_there_is_an_error_that_names_it)
{
    struct lock l;
    struct lock_owner o;
    cr_expect_eq(lock_take("/nonexistent/t.db", &l, &o, &err), ERR_NOTFOUND);
    cr_expect_not_null(strstr(err.text, "/nonexistent/t.db"));
}

Test(lock, garbage_in_the_lock_file_is_nobody_in_particular)
{
    pid_t pid = holder(db, NULL);
    char *file = xasprintf("%s.lock", db);
    support_write(file, "{\"pid\": \"x", 10);
    struct lock_owner o;
    cr_expect(lock_is_held(db, &o));
    cr_expect_eq(o.pid, 0);
    cr_expect_str_eq(o.control, "");
    kill_hard(pid);
    xfree(file);
}

/* Many processes take and release in turn: never two at once, and none is left out by a file that was just removed. */
Test(lock, it_excludes_under_contention)
{
    char *counter = xasprintf("%s/counter", dir);
    support_write(counter, "0", 1);
    enum { PROCESSES = 4, ROUNDS = 50 };
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() != 0)
            continue;
        for (int done = 0; done < ROUNDS;) {
            struct lock l;
            struct lock_owner o;
            struct err e;
            if (lock_take(db, &l, &o, &e) != ERR_OK)
                continue;
            FILE *f = fopen(counter, "r+");
            int n = 0;
            if (f == NULL || fscanf(f, "%d", &n) != 1)
                _exit(1);
            rewind(f);
            fprintf(f, "%d", n + 1);
            fclose(f);
            lock_release(&l);
            done++;
        }
        _exit(0);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = 1;
        wait(&status);
        cr_expect_eq(status, 0);
    }
    struct buf text = {0};
    cr_assert_eq(io_read_file(counter, 100, &text, &err), ERR_OK);
    cr_expect_eq(atoi(text.data), PROCESSES * ROUNDS);
    buf_release(&text);
    xfree(counter);
}

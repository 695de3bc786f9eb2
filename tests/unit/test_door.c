#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "coordinator/door.h"
#include "tests/support/support.h"

static char *dir, *keys;
static struct door door;
static struct link_keys worker, reader;
static struct err e;

static void open_door(void)
{
    dir = support_tmpdir();
    keys = xasprintf("%s/keys", dir);
    cr_assert_eq(keys_make(keys, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(keys_load(keys, KEY_WORKER, &worker, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(keys_load(keys, KEY_READER, &reader, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(door_open(&door, keys, &e), ERR_OK, "%s", e.text);
}

static void close_door(void)
{
    door_release(&door);
    xfree(keys);
    support_tmpdir_remove(dir);
}

TestSuite(door, .init = open_door, .fini = close_door);

static bool knock(const struct link_keys *k)
{
    struct link_door d = door_link(&door, 0);
    return d.admit(d.arg, k->public_key, "192.0.2.7");
}

/* The folder's clock may be as coarse as a second. */
static void change_time(const char *folder, time_t seconds)
{
    char *path = xasprintf("%s/allow/%s", keys, folder);
    const struct timespec t[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    cr_assert_eq(utimensat(AT_FDCWD, path, t, 0), 0);
    xfree(path);
}

static void remove_key(const char *name)
{
    char *path = xasprintf("%s/allow/%s.pub", keys, name);
    cr_assert_eq(unlink(path), 0);
    xfree(path);
}

Test(door, listed_keys_are_let_in_as_what_they_are)
{
    struct link_keys stranger = {0};
    cr_assert_eq(link_make_keys(&stranger, &e), ERR_OK);
    cr_expect(knock(&worker));
    cr_expect(knock(&reader));
    cr_expect_not(knock(&stranger));
    cr_expect_eq(door_role(&door, worker.public_key), DOOR_WORKER);
    cr_expect_eq(door_role(&door, reader.public_key), DOOR_READER);
    cr_expect_eq(door_role(&door, stranger.public_key), DOOR_NOBODY);
    cr_expect_eq(door_role(&door, ""), DOOR_NOBODY);
    cr_expect_str_eq(door_name(&door, reader.public_key), "reader");
    cr_expect_eq(door.n_strangers, 1);
}

Test(door, without_keys_everybody_on_this_machine_is_anybody)
{
    struct door open;
    cr_assert_eq(door_open(&open, NULL, &e), ERR_OK);
    cr_expect_eq(door_role(&open, ""), DOOR_ANYBODY);
    cr_expect_null(door_keys(&open));
    door_look(&open, 0);
    door_release(&open);
}

Test(door, added_key_is_let_in_and_removed_one_is_not)
{
    struct link_keys gpu7;
    cr_assert_eq(keys_add(keys, KEY_WORKER, "gpu7", &e), ERR_OK);
    char *path = xasprintf("%s/gpu7", keys);
    cr_assert_eq(keys_load(path, KEY_WORKER, &gpu7, &e), ERR_OK);
    xfree(path);
    cr_expect(knock(&gpu7));
    int64_t generation = door.generation;
    remove_key("workers/gpu7");
    door_look(&door, clock_mono_ns() + CLOCK_NS_PER_S);
    cr_expect_gt(door.generation, generation);
    cr_expect_eq(door_role(&door, gpu7.public_key), DOOR_NOBODY);
    cr_expect_not(knock(&gpu7));
    cr_expect(knock(&worker));
}

Test(door, second_change_within_one_tick_of_the_folders_clock_is_seen)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    change_time("workers", now.tv_sec);
    door_look(&door, clock_mono_ns());
    remove_key("workers/worker");
    change_time("workers", now.tv_sec); /* as if nothing had happened since */
    door_look(&door, clock_mono_ns() + CLOCK_NS_PER_S);
    cr_expect_eq(door_role(&door, worker.public_key), DOOR_NOBODY);
}

Test(door, broken_entry_stops_the_start_but_not_a_running_coordinator)
{
    struct door second;
    char *path = xasprintf("%s/allow/workers/half.pub", keys);
    support_write(path, "isobit public", 13);
    chmod(path, 0600);
    cr_expect_eq(door_open(&second, keys, &e), ERR_FORMAT);
    cr_expect_not_null(strstr(e.text, "half.pub"), "%s", e.text);
    door_release(&second);
    remove_key("readers/reader");
    door_look(&door, clock_mono_ns() + CLOCK_NS_PER_S);
    cr_expect_eq(door_role(&door, worker.public_key), DOOR_WORKER);
    cr_expect_eq(door_role(&door, reader.public_key), DOOR_NOBODY, "the others still count");
    xfree(path);
}

Test(door, list_that_cannot_be_read_leaves_the_old_one_in_force)
{
    char *path = xasprintf("%s/allow/workers", keys);
    chmod(path, 0777);
    change_time("workers", 1);
    door_look(&door, clock_mono_ns() + CLOCK_NS_PER_S);
    cr_expect_eq(door_role(&door, worker.public_key), DOOR_WORKER);
    cr_expect_gt(door.n_complaints, 0);
    xfree(path);
}

Test(door, readers_ask_in_a_burst_and_then_at_a_rate)
{
    int64_t now_ns = CLOCK_NS_PER_S;
    int n = 0;
    while (n < 100 && door_may_ask(&door, reader.public_key, now_ns))
        n++;
    cr_expect_eq(n, 10);
    cr_expect_not(door_may_ask(&door, reader.public_key, now_ns + CLOCK_NS_PER_S / 4));
    cr_expect(door_may_ask(&door, reader.public_key, now_ns + CLOCK_NS_PER_S));
    now_ns += 3600 * CLOCK_NS_PER_S;
    for (n = 0; n < 100 && door_may_ask(&door, reader.public_key, now_ns);)
        n++;
    cr_expect_eq(n, 10, "what was not asked for an hour does not add up");
}

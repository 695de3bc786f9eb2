#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/keys.h"
#include "tests/support/support.h"

static char *dir, *keys;
static struct err e;

static void make_keys(void)
{
    dir = support_tmpdir();
    keys = xasprintf("%s/keys", dir);
    cr_assert_eq(keys_make(keys, &e), ERR_OK, "%s", e.text);
}

static void remove_keys(void)
{
    xfree(keys);
    support_tmpdir_remove(dir);
}

TestSuite(keys, .init = make_keys, .fini = remove_keys);

static char *in_keys(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", keys, name);
    return path;
}

static unsigned mode_of(const char *path)
{
    struct stat st = {0};
    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return (unsigned)st.st_mode & 07777;
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(in_keys(name), "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
    chmod(in_keys(name), 0600);
}

static void count_entry(void *arg, enum key_role role, const char *name,
                        const char key[LINK_KEY_HEX])
{
    (void)name;
    cr_assert_eq(strlen(key), LINK_KEY_HEX - 1);
    ((int *)arg)[role]++;
}

Test(keys, nobody_else_can_read_them)
{
    static const char *const folders[] = {"", "allow", "allow/workers", "allow/readers"};
    static const char *const files[] = {
        "coordinator.key", "coordinator.pub",          "worker.key",
        "reader.key",      "allow/workers/worker.pub", "allow/readers/reader.pub"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        cr_expect_eq(mode_of(in_keys(folders[i])), 0700, "%s", folders[i]);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        cr_expect_eq(mode_of(in_keys(files[i])), 0600, "%s", files[i]);
}

Test(keys, each_role_gets_its_own_and_the_coordinators_public_one)
{
    struct link_keys k[3];
    for (enum key_role role = KEY_COORDINATOR; role <= KEY_READER; role++)
        cr_assert_eq(keys_load(keys, role, &k[role], &e), ERR_OK, "%s", e.text);
    cr_expect_str_eq(k[KEY_WORKER].coordinator, k[KEY_COORDINATOR].public_key);
    cr_expect_str_eq(k[KEY_READER].coordinator, k[KEY_COORDINATOR].public_key);
    cr_expect_str_neq(k[KEY_WORKER].public_key, k[KEY_READER].public_key);
    cr_expect_str_neq(k[KEY_WORKER].public_key, k[KEY_COORDINATOR].public_key);
    cr_expect_str_neq(k[KEY_WORKER].public_key, k[KEY_WORKER].secret_key);
}

Test(keys, derived_public_key_is_curve25519s)
{
    /* RFC 7748, section 6.1 */
    struct link_keys k = {.secret_key =
                              "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"};
    cr_assert_eq(link_derive_public(&k, &e), ERR_OK);
    cr_expect_str_eq(k.public_key,
                     "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
}

Test(keys, nothing_is_overwritten_and_nothing_half_made_is_left)
{
    struct link_keys before, after;
    cr_assert_eq(keys_load(keys, KEY_COORDINATOR, &before, &e), ERR_OK);
    cr_expect_eq(keys_make(keys, &e), ERR_BUSY);
    cr_expect_not_null(strstr(e.text, keys), "%s", e.text);
    cr_assert_eq(keys_load(keys, KEY_COORDINATOR, &after, &e), ERR_OK);
    cr_expect_str_eq(before.secret_key, after.secret_key);
    char *command = xasprintf("ls -A %s | wc -l", dir);
    struct support_run r = support_shell(command);
    cr_expect_str_eq(r.out.data, "1\n", "left behind: %s", r.out.data);
    support_run_release(&r);
    xfree(command);
}

Test(keys, a_further_worker_gets_a_folder_and_an_entry)
{
    struct link_keys k, first;
    int n[3] = {0}, n_bad = 0;
    cr_assert_eq(keys_add(keys, KEY_WORKER, "gpu7", &e), ERR_OK, "%s", e.text);
    cr_assert_eq(keys_add(keys, KEY_READER, "board", &e), ERR_OK, "%s", e.text);
    cr_assert_eq(keys_load(in_keys("gpu7"), KEY_WORKER, &k, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(keys_load(keys, KEY_WORKER, &first, &e), ERR_OK);
    cr_expect_str_neq(k.public_key, first.public_key);
    cr_expect_str_eq(k.coordinator, first.coordinator);
    cr_assert_eq(keys_list(keys, count_entry, n, &n_bad, &e), ERR_OK);
    cr_expect(n[KEY_WORKER] == 2 && n[KEY_READER] == 2 && n_bad == 0);
    cr_expect_eq(keys_add(keys, KEY_READER, "gpu7", &e), ERR_BUSY, "a name in use");
    cr_expect_eq(keys_load(in_keys("gpu7"), KEY_READER, &k, &e), ERR_NOTFOUND);
}

Test(keys, names_that_are_paths_are_refused)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "../x", "-x", "a b", "allow", "ä"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(keys_add(keys, KEY_WORKER, bad[i], &e), ERR_USAGE, "\"%s\"", bad[i]);
}

Test(keys, a_mode_that_lets_others_in_is_refused_with_the_remedy)
{
    struct link_keys k;
    int n[3] = {0}, n_bad = 0;
    chmod(in_keys("worker.key"), 0640);
    cr_expect_eq(keys_load(keys, KEY_WORKER, &k, &e), ERR_DENIED);
    cr_expect_not_null(strstr(e.text, "chmod 600"), "%s", e.text);
    chmod(in_keys("coordinator.pub"), 0666);
    cr_expect_eq(keys_load(keys, KEY_READER, &k, &e), ERR_DENIED);
    chmod(in_keys("allow/workers"), 0777);
    cr_expect_eq(keys_list(keys, count_entry, n, &n_bad, &e), ERR_DENIED);
    cr_expect_not_null(strstr(e.text, "allow/workers"), "%s", e.text);
}

Test(keys, broken_files_are_one_line_errors)
{
    static const char digits[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const struct {
        const char *before;
        int n_digits;
        const char *after;
    } rows[] = {
        {"", 0, ""},
        {"", 0, "\n"},
        {"", 64, "\n"},
        {"isobit secret worker", 0, "\n"},
        {"isobit secret worker ", 63, "\n"},
        {"isobit secret worker ", 64, "0\n"},
        {"isobit secret worker ", 63, "g\n"},
        {"isobit secret worker ", 63, "A\n"},
        {"isobit secret worker ", 64, " more\n"},
        {"isobit secret worker ", 64, "\nmore\n"},
        {"isobit secret worker  ", 64, "\n"},
        {"isobit secret reader ", 64, "\n"},
        {"isobit public worker ", 64, "\n"},
    };
    struct link_keys k;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[256];
        snprintf(text, sizeof(text), "%s%.*s%s", rows[i].before, rows[i].n_digits, digits,
                 rows[i].after);
        write_text("worker.key", text);
        cr_expect_eq(keys_load(keys, KEY_WORKER, &k, &e), ERR_FORMAT, "%s", text);
        cr_expect_null(strchr(e.text, '\n'));
    }
    char *large = xcalloc(1, 100000);
    memset(large, 'x', 99999);
    write_text("worker.key", large);
    cr_expect_eq(keys_load(keys, KEY_WORKER, &k, &e), ERR_FORMAT);
    xfree(large);
    unlink(in_keys("worker.key"));
    cr_expect_eq(keys_load(keys, KEY_WORKER, &k, &e), ERR_NOTFOUND);
    cr_expect_not_null(strstr(e.text, "isobit keygen"), "%s", e.text);
}

Test(keys, a_broken_entry_does_not_hide_the_others)
{
    int n[3] = {0}, n_bad = 0;
    write_text("allow/workers/half.pub", "isobit public worker 12");
    write_text("allow/workers/.hidden.pub", "x");
    write_text("allow/workers/notes.txt", "x");
    write_text("allow/workers/reader.pub", "isobit public reader 12");
    cr_expect_eq(keys_list(keys, count_entry, n, &n_bad, &e), ERR_OK);
    cr_expect(n[KEY_WORKER] == 1 && n[KEY_READER] == 1);
    cr_expect_eq(n_bad, 2);
}

#include "schema/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

enum { LINE_MAX_BYTES = 256 };
static const char *const labels[] = {"coordinator", "worker", "reader"};
static const char *const folders[] = {NULL, "workers", "readers"};

const char *keys_role_label(enum key_role role)
{
    return labels[role];
}

/* 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with '.' or '-'. */
static bool is_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n < KEYS_NAME && strspn(name, allowed) == n && name[0] != '.' && name[0] != '-';
}

char *keys_list_path(const char *dir, enum key_role role)
{
    return xasprintf("%s/allow/%s", dir, folders[role]);
}

/* ---- reading ---- */

/* What others can read or write is no secret, and what others can write is no list. */
static enum err_code check_mode(const char *path, mode_t forbidden, const char *wanted,
                                struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0 && errno == ENOENT)
        return err_set(
            e, ERR_NOTFOUND,
            "%s does not exist; it is one of the files that `isobit keygen` made: copy it "
            "from there",
            path);
    if (stat(path, &st) != 0)
        return err_set_errno(e, errno, "cannot read %s", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(e, ERR_DENIED, "%s belongs to user %u, not to you: copy it as yourself",
                       path, (unsigned)st.st_uid);
    if ((st.st_mode & forbidden) != 0)
        return err_set(e, ERR_DENIED, "%s has mode %04o, so that others can %s it: chmod %s %s",
                       path, (unsigned)st.st_mode & 07777,
                       (forbidden & 044) != 0 ? "read" : "change", wanted, path);
    return ERR_OK;
}

/* "isobit secret worker 0123…\n" */
static enum err_code read_key(const char *path, bool is_secret, enum key_role role,
                              char key[LINK_KEY_HEX], struct err *e)
{
    struct buf text = {0};
    struct str rest, word = {0};
    const char *const words[] = {"isobit", is_secret ? "secret" : "public", labels[role]};
    TRY(check_mode(path, is_secret ? 077 : 022, is_secret ? "600" : "644", e));
    TRY(io_read_file(path, LINE_MAX_BYTES, &text, e));
    rest = str_trim((struct str){text.data, text.len});
    bool is_good = true;
    for (size_t i = 0; i < ARRAY_LEN(words) && is_good; i++)
        is_good = str_next_field(&rest, ' ', &word) && str_eqz(word, words[i]);
    is_good = is_good && rest.n == LINK_KEY_HEX - 1;
    for (size_t i = 0; is_good && i < rest.n; i++)
        is_good = (rest.p[i] >= '0' && rest.p[i] <= '9') || (rest.p[i] >= 'a' && rest.p[i] <= 'f');
    if (is_good) {
        memcpy(key, rest.p, rest.n);
        key[rest.n] = '\0';
    }
    buf_release(&text);
    if (is_good)
        return ERR_OK;
    return err_set(e, ERR_FORMAT,
                   "%s: expected one line \"isobit %s %s\" and 64 hexadecimal digits, as `isobit "
                   "keygen` writes it",
                   path, words[1], words[2]);
}

static enum err_code load_secret(const char *dir, enum key_role role, struct link_keys *out,
                                 struct err *e)
{
    char *path = xasprintf("%s/%s.key", dir, labels[role]);
    enum err_code rc = ERR_OK;
    if (!io_exists(path))
        rc = err_set(e, ERR_NOTFOUND, "%s does not exist; `isobit keygen DIR` makes keys, and %s",
                     path,
                     role == KEY_COORDINATOR ? "--keys names that DIR"
                                             : "this machine needs a copy of its file and of "
                                               "coordinator.pub");
    else
        rc = read_key(path, true, role, out->secret_key, e);
    xfree(path);
    return rc;
}

enum err_code keys_load(const char *dir, enum key_role role, struct link_keys *out, struct err *e)
{
    *out = (struct link_keys){0};
    TRY(load_secret(dir, role, out, e));
    TRY(link_derive_public(out, e));
    if (role == KEY_COORDINATOR)
        return ERR_OK;
    char *path = xasprintf("%s/coordinator.pub", dir);
    enum err_code rc = read_key(path, false, KEY_COORDINATOR, out->coordinator, e);
    xfree(path);
    return rc;
}

/* ---- the list ---- */

struct listing {
    keys_entry_fn fn;
    void *arg;
    int n_bad;
};

/* NAME.pub; other files are none of ours (an editor's, a note). */
static void read_entry(struct listing *l, const char *folder, const char *file, enum key_role role,
                       struct err *e)
{
    char key[LINK_KEY_HEX], name[KEYS_NAME] = "";
    size_t n = strlen(file);
    if (file[0] == '.' || n < 5 || strcmp(file + n - 4, ".pub") != 0)
        return;
    char *path = xasprintf("%s/%s", folder, file);
    if (n - 4 < sizeof(name))
        memcpy(name, file, n - 4);
    if (!is_name(name))
        l->n_bad +=
            err_set(e, ERR_FORMAT, "%s: a name has 1 to 64 letters, digits, '.', '_' or '-'",
                    path) != ERR_OK;
    else if (read_key(path, false, role, key, e) != ERR_OK)
        l->n_bad++;
    else
        l->fn(l->arg, role, name, key);
    xfree(path);
}

static enum err_code read_folder(struct listing *l, const char *folder, enum key_role role,
                                 struct err *e)
{
    TRY(check_mode(folder, 022, "700", e));
    DIR *d = opendir(folder);
    if (d == NULL)
        return err_set_errno(e, errno, "cannot read %s", folder);
    for (struct dirent *f = readdir(d); f != NULL; f = readdir(d))
        read_entry(l, folder, f->d_name, role, e);
    closedir(d);
    return ERR_OK;
}

enum err_code keys_list(const char *dir, keys_entry_fn fn, void *arg, int *n_bad, struct err *e)
{
    struct listing l = {.fn = fn, .arg = arg};
    enum err_code rc = ERR_OK;
    for (enum key_role role = KEY_WORKER; role <= KEY_READER && rc == ERR_OK; role++) {
        char *folder = keys_list_path(dir, role);
        rc = read_folder(&l, folder, role, e);
        xfree(folder);
    }
    *n_bad = l.n_bad;
    return rc;
}

/* ---- making ---- */

/* A new file that nobody else can read; one that is there already is an error. */
static enum err_code write_key(const char *path, const char *kind, enum key_role role,
                               const char *hex, struct err *e)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "isobit %s %s %s\n", kind, labels[role], hex);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return err_set(e, ERR_BUSY, "%s is there already; a key is never overwritten", path);
    if (fd < 0)
        return err_set_errno(e, errno, "cannot write %s", path);
    enum err_code rc = ERR_OK;
    if (write(fd, line, (size_t)n) != n || fsync(fd) != 0) {
        rc = err_set_errno(e, errno, "cannot write %s", path);
        unlink(path);
    }
    close(fd);
    return rc;
}

static enum err_code write_into(const char *dir, const char *name, const char *kind,
                                enum key_role role, const char *hex, struct err *e)
{
    char *path = xasprintf("%s/%s", dir, name);
    enum err_code rc = write_key(path, kind, role, hex, e);
    xfree(path);
    return rc;
}

static enum err_code make_folder(const char *dir, const char *name, struct err *e)
{
    char *path = xasprintf("%s%s%s", dir, name[0] != '\0' ? "/" : "", name);
    enum err_code rc = ERR_OK;
    if (mkdir(path, 0700) != 0)
        rc = err_set_errno(e, errno, "cannot make the folder %s", path);
    xfree(path);
    return rc;
}

/* The secret of a new worker or reader as dir/<role>.key; its public key goes to *k. */
static enum err_code make_client(const char *dir, enum key_role role, struct link_keys *k,
                                 struct err *e)
{
    char file[32];
    TRY(link_make_keys(k, e));
    snprintf(file, sizeof(file), "%s.key", labels[role]);
    return write_into(dir, file, "secret", role, k->secret_key, e);
}

static enum err_code admit(const char *dir, enum key_role role, const char *name,
                           const struct link_keys *k, struct err *e)
{
    char *folder = keys_list_path(dir, role);
    char *file = xasprintf("%s.pub", name);
    enum err_code rc = write_into(folder, file, "public", role, k->public_key, e);
    xfree(file);
    xfree(folder);
    return rc;
}

static enum err_code fill(const char *dir, struct err *e)
{
    struct link_keys k = {0};
    TRY(make_folder(dir, "", e));
    TRY(make_folder(dir, "allow", e));
    TRY(make_folder(dir, "allow/workers", e));
    TRY(make_folder(dir, "allow/readers", e));
    TRY(link_make_keys(&k, e));
    TRY(write_into(dir, "coordinator.key", "secret", KEY_COORDINATOR, k.secret_key, e));
    TRY(write_into(dir, "coordinator.pub", "public", KEY_COORDINATOR, k.public_key, e));
    for (enum key_role role = KEY_WORKER; role <= KEY_READER; role++) {
        TRY(make_client(dir, role, &k, e));
        TRY(admit(dir, role, labels[role], &k, e));
    }
    return ERR_OK;
}

/* Removes what fill or fill_copy left of a folder; names that are not there do not matter. */
static void remove_made(const char *dir)
{
    static const char *const parts[] = {"allow/workers/worker.pub",
                                        "allow/readers/reader.pub",
                                        "allow/workers",
                                        "allow/readers",
                                        "allow",
                                        "coordinator.key",
                                        "coordinator.pub",
                                        "worker.key",
                                        "reader.key"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char *path = xasprintf("%s/%s", dir, parts[i]);
        remove(path);
        xfree(path);
    }
    rmdir(dir);
}

/* Made beside its place and moved there as one step; an empty folder may be in the way, nothing else. */
static enum err_code move_to(const char *made, const char *dir, struct err *e)
{
    if (rename(made, dir) == 0)
        return ERR_OK;
    if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
        return err_set(
            e, ERR_BUSY,
            "%s is there already and keys are never overwritten: name a new folder, or add "
            "a key to it with --add-worker NAME",
            dir);
    return err_set_errno(e, errno, "cannot make %s", dir);
}

static char *place_beside(const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    return xasprintf("%.*s.new-%ld", (int)n, dir, (long)getpid());
}

enum err_code keys_make(const char *dir, struct err *e)
{
    char *made = place_beside(dir);
    enum err_code rc = fill(made, e);
    if (rc == ERR_OK)
        rc = move_to(made, dir, e);
    if (rc != ERR_OK)
        remove_made(made);
    xfree(made);
    return rc;
}

/* What a worker or reader is given: its secret and the coordinator's public key. */
static enum err_code fill_copy(const char *dir, const char *coordinator, enum key_role role,
                               struct link_keys *k, struct err *e)
{
    TRY(make_folder(dir, "", e));
    TRY(write_into(dir, "coordinator.pub", "public", KEY_COORDINATOR, coordinator, e));
    return make_client(dir, role, k, e);
}

static enum err_code check_free(const char *dir, const char *place, const char *name, struct err *e)
{
    char *workers = keys_list_path(dir, KEY_WORKER), *readers = keys_list_path(dir, KEY_READER);
    char *listed[] = {xasprintf("%s/%s.pub", workers, name), xasprintf("%s/%s.pub", readers, name)};
    enum err_code rc = ERR_OK;
    if (io_exists(place) || io_exists(listed[0]) || io_exists(listed[1]))
        rc = err_set(e, ERR_BUSY, "%s has a key named %s already: choose another name", dir, name);
    xfree(listed[0]);
    xfree(listed[1]);
    xfree(workers);
    xfree(readers);
    return rc;
}

enum err_code keys_add(const char *dir, enum key_role role, const char *name, struct err *e)
{
    struct link_keys own, k = {0};
    if (!is_name(name) || strcmp(name, "allow") == 0)
        return err_set(
            e, ERR_USAGE,
            "\"%s\" cannot name a key: expected 1 to 64 letters, digits, '.', '_' or '-'", name);
    TRY(keys_load(dir, KEY_COORDINATOR, &own, e));
    char *place = xasprintf("%s/%s", dir, name);
    char *made = place_beside(place);
    enum err_code rc = check_free(dir, place, name, e);
    if (rc == ERR_OK)
        rc = fill_copy(made, own.public_key, role, &k, e);
    if (rc == ERR_OK)
        rc = move_to(made, place, e);
    if (rc != ERR_OK)
        remove_made(made);
    else
        rc = admit(dir, role, name, &k, e);
    xfree(made);
    xfree(place);
    return rc;
}

#include "tests/support/fault_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

enum { SECTOR = 512, MAX_FILES = 4, NAME_BYTES = 128 };
enum change_kind {
    CHANGE_WRITE,
    CHANGE_TRUNCATE,
    CHANGE_SYNC,
    CHANGE_LOSE, /* a failed sync: what was not on the disk yet never will be, as Linux has it */
    CHANGE_CREATE,
    CHANGE_DELETE
};

struct change {
    enum change_kind kind;
    int file; /* index into names */
    int64_t offset, n;
    unsigned char *data;
};

static struct {
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    bool is_recording;
    char names[MAX_FILES][NAME_BYTES];
    struct buf at_start[MAX_FILES];
    int n_files;
    struct change *changes;
    int64_t n_changes, cap_changes;
    int64_t until_fault; /* changes; 0: none planned */
    enum fault_kind kind;
    bool is_lasting, has_failed;
    int64_t kill_at, n_commits; /* to write-ahead logs; kill_at 0: nowhere */
    bool is_kill_after;
} shim;

struct shim_file {
    sqlite3_file base;
    int file; /* index into names; -1: not recorded */
    bool is_log;
    sqlite3_file *real;
};

/* ---- the record ---- */

static const char *last_part(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL ? slash + 1 : path;
}

static int file_index(const char *path)
{
    const char *name = last_part(path);
    if (!shim.is_recording || name == NULL)
        return -1;
    for (int i = 0; i < shim.n_files; i++)
        if (strcmp(shim.names[i], name) == 0)
            return i;
    CHECK(shim.n_files < MAX_FILES && strlen(name) < NAME_BYTES);
    memcpy(shim.names[shim.n_files], name, strlen(name) + 1);
    return shim.n_files++;
}

static void note(int file, enum change_kind kind, int64_t offset, int64_t n, const void *data)
{
    if (!shim.is_recording || file < 0)
        return;
    if (shim.n_changes == shim.cap_changes) {
        shim.cap_changes = 2 * shim.cap_changes + 1024;
        shim.changes = xrealloc(shim.changes, (size_t)shim.cap_changes * sizeof(*shim.changes));
    }
    struct change c = {.kind = kind, .file = file, .offset = offset, .n = n};
    if (data != NULL) {
        c.data = xmalloc((size_t)n);
        memcpy(c.data, data, (size_t)n);
    }
    shim.changes[shim.n_changes++] = c;
}

void fault_vfs_record(const char *db_path)
{
    struct err e;
    shim.is_recording = db_path != NULL;
    if (db_path == NULL)
        return;
    for (int64_t c = 0; c < shim.n_changes; c++)
        xfree(shim.changes[c].data);
    for (int f = 0; f < MAX_FILES; f++)
        buf_release(&shim.at_start[f]);
    shim.n_changes = 0;
    shim.n_files = 0;
    int i = file_index(db_path);
    CHECK(i >= 0 && io_read_file(db_path, (size_t)1 << 30, &shim.at_start[i], &e) == ERR_OK);
}

int64_t fault_vfs_moment(void)
{
    return shim.n_changes;
}

/* ---- faults ---- */

void fault_vfs_fail(int64_t n, enum fault_kind kind, bool is_lasting)
{
    shim.until_fault = n;
    shim.kind = kind;
    shim.is_lasting = is_lasting;
    shim.has_failed = false;
}

bool fault_vfs_heal(void)
{
    shim.until_fault = 0;
    return shim.has_failed;
}

/* Counts a change; true when it is the one to fail. */
static bool is_failing(void)
{
    if (shim.until_fault == 0)
        return false;
    if (shim.until_fault > 1) {
        shim.until_fault--;
        return false;
    }
    shim.has_failed = true;
    shim.until_fault = shim.is_lasting ? 1 : 0;
    return true;
}

void fault_vfs_kill(int64_t n, bool is_after)
{
    shim.kill_at = n;
    shim.is_kill_after = is_after;
    shim.n_commits = 0;
}

static void die_before_commit(const struct shim_file *f)
{
    if (f->is_log && !shim.is_kill_after && shim.kill_at == shim.n_commits + 1)
        raise(SIGKILL);
}

static void die_after_commit(const struct shim_file *f)
{
    if (f->is_log && ++shim.n_commits == shim.kill_at && shim.is_kill_after)
        raise(SIGKILL);
}

static int failure(int eio)
{
    return shim.kind == FAULT_FULL ? SQLITE_FULL : eio;
}

/* ---- the VFS: changes are counted, noted and passed on; everything else is passed on ---- */

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct shim_file *)f)->real;
}
static int shim_close(sqlite3_file *f)
{
    int rc = real_of(f)->pMethods->xClose(real_of(f));
    xfree(real_of(f));
    return rc;
}
static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}
static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    die_before_commit((struct shim_file *)f);
    if (is_failing())
        return failure(SQLITE_IOERR_WRITE);
    note(((struct shim_file *)f)->file, CHANGE_WRITE, at, n, p);
    return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
}
static int shim_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    if (is_failing())
        return SQLITE_IOERR_TRUNCATE;
    note(((struct shim_file *)f)->file, CHANGE_TRUNCATE, n, 0, NULL);
    return real_of(f)->pMethods->xTruncate(real_of(f), n);
}
static int shim_sync(sqlite3_file *f, int flags)
{
    (void)flags; /* a real sync would only cost time: the record says what is durable */
    if (is_failing()) {
        if (!((struct shim_file *)f)->is_log) /* the next commit writes the log's anew */
            note(((struct shim_file *)f)->file, CHANGE_LOSE, 0, 0, NULL);
        return failure(SQLITE_IOERR_FSYNC);
    }
    note(((struct shim_file *)f)->file, CHANGE_SYNC, 0, 0, NULL);
    die_after_commit((struct shim_file *)f);
    return SQLITE_OK;
}
static int shim_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), n);
}
static int shim_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}
static int shim_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}
static int shim_reserved(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}
static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}
static int shim_sector(sqlite3_file *f)
{
    (void)f;
    return SECTOR;
}
static int shim_characteristics(sqlite3_file *f)
{
    (void)f;
    return 0; /* promises nothing: no safe append, no atomic writes */
}
static int shim_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}
static int shim_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}
static void shim_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}
static int shim_shm_unmap(sqlite3_file *f, int is_deleting)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), is_deleting);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_characteristics,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static int shim_open(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
    (void)v;
    struct shim_file *file = (struct shim_file *)f;
    bool is_new = name != NULL && !io_exists(name);
    file->base.pMethods = NULL;
    file->file = file_index(name);
    file->is_log = (flags & SQLITE_OPEN_WAL) != 0;
    file->real = xcalloc(1, (size_t)shim.real->szOsFile);
    int rc = shim.real->xOpen(shim.real, name, file->real, flags, out);
    if (rc != SQLITE_OK) {
        xfree(file->real);
        return rc;
    }
    file->base.pMethods = &methods;
    if (is_new)
        note(file->file, CHANGE_CREATE, 0, 0, NULL);
    return SQLITE_OK;
}

static int shim_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
    (void)v;
    note(file_index(name), CHANGE_DELETE, 0, 0, NULL);
    return shim.real->xDelete(shim.real, name, sync_dir);
}

void fault_vfs_install(void)
{
    shim.real = sqlite3_vfs_find(NULL);
    shim.vfs = *shim.real;
    shim.vfs.pNext = NULL;
    shim.vfs.szOsFile = sizeof(struct shim_file);
    shim.vfs.zName = "fault";
    shim.vfs.xOpen = shim_open;
    shim.vfs.xDelete = shim_delete;
    CHECK(sqlite3_vfs_register(&shim.vfs, 1) == SQLITE_OK);
}

/* ---- power cuts ---- */

struct image {
    struct buf bytes;
    bool exists;
};

struct fault_replay {
    struct image durable[MAX_FILES];
    int64_t *open[MAX_FILES]; /* changes not synced yet, in order */
    int64_t n_open[MAX_FILES], cap_open[MAX_FILES];
    int64_t at;
};

struct fault_replay *fault_replay_new(void)
{
    struct fault_replay *r = xcalloc(1, sizeof(*r));
    for (int i = 0; i < MAX_FILES; i++) {
        r->durable[i].exists = shim.at_start[i].len > 0;
        buf_add(&r->durable[i].bytes, shim.at_start[i].data, shim.at_start[i].len);
    }
    return r;
}

void fault_replay_free(struct fault_replay *r)
{
    for (int i = 0; i < MAX_FILES; i++) {
        buf_release(&r->durable[i].bytes);
        xfree(r->open[i]);
    }
    xfree(r);
}

static void set_size(struct buf *b, int64_t n)
{
    static const char zeros[4096];
    while ((int64_t)b->len < n) {
        int64_t more = n - (int64_t)b->len;
        buf_add(b, zeros, (size_t)(more < (int64_t)sizeof(zeros) ? more : (int64_t)sizeof(zeros)));
    }
    b->len = (size_t)n;
}

/* Applies a change; each sector of a write with a chance of `keep` in 1000. */
static void apply(struct buf *b, const struct change *c, int keep, struct rng *rng)
{
    if (c->kind == CHANGE_TRUNCATE) {
        if (keep >= 1000 || (int)rng_below(rng, 1000) < keep)
            set_size(b, c->offset);
        return;
    }
    for (int64_t at = 0; at < c->n;) {
        int64_t n = SECTOR - (c->offset + at) % SECTOR;
        n = n < c->n - at ? n : c->n - at;
        if (keep >= 1000 || (int)rng_below(rng, 1000) < keep) {
            if ((int64_t)b->len < c->offset + at + n)
                set_size(b, c->offset + at + n);
            memcpy(b->data + c->offset + at, c->data + at, (size_t)n);
        }
        at += n;
    }
}

static void advance(struct fault_replay *r, const struct change *c)
{
    int i = c->file;
    struct image *m = &r->durable[i];
    if (c->kind == CHANGE_LOSE) {
        r->n_open[i] = 0;
    } else if (c->kind == CHANGE_SYNC) {
        for (int64_t k = 0; k < r->n_open[i]; k++)
            apply(&m->bytes, &shim.changes[r->open[i][k]], 1000, NULL);
        r->n_open[i] = 0;
    } else if (c->kind == CHANGE_CREATE || c->kind == CHANGE_DELETE) {
        m->exists = c->kind == CHANGE_CREATE;
        m->bytes.len = 0;
        r->n_open[i] = 0;
    } else {
        if (r->n_open[i] == r->cap_open[i]) {
            r->cap_open[i] = 2 * r->cap_open[i] + 64;
            r->open[i] = xrealloc(r->open[i], (size_t)r->cap_open[i] * sizeof(*r->open[i]));
        }
        r->open[i][r->n_open[i]++] = r->at;
    }
}

void fault_replay_crash(struct fault_replay *r, int64_t moment, int keep, struct rng *rng,
                        const char *dir)
{
    for (; r->at < moment; r->at++)
        advance(r, &shim.changes[r->at]);
    for (int i = 0; i < shim.n_files; i++) {
        char *path = xasprintf("%s/%s", dir, shim.names[i]);
        unlink(path);
        if (r->durable[i].exists) {
            struct buf b = {0};
            struct err e;
            buf_add(&b, r->durable[i].bytes.data, r->durable[i].bytes.len);
            for (int64_t k = 0; k < r->n_open[i]; k++)
                apply(&b, &shim.changes[r->open[i][k]], keep, rng);
            CHECK(io_write_file(path, b.data != NULL ? b.data : "", b.len, &e) == ERR_OK);
            buf_release(&b);
        }
        xfree(path);
    }
}

/* A disk under SQLite that loses power and fails. Installed as the default VFS of the process, it passes everything on to
 * the real one and writes down every change of a file, so that any moment of a run can be made again as a power cut leaves
 * it: what was synced stands, of what was not each sector may or may not have reached the disk. It can also make the n-th
 * change fail. Creating and removing files is durable at once; the shared memory of a WAL is not kept. Plain C; one thread. */
#ifndef ISOBIT_TESTS_SUPPORT_FAULT_VFS_H
#define ISOBIT_TESTS_SUPPORT_FAULT_VFS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"

void fault_vfs_install(void);

/* Writes down from here on what happens to a closed database, whose files are told by what follows the last '/'; a new
 * record each time. NULL: stops. */
void fault_vfs_record(const char *db_path);
/* Changes written down so far: names the moment. */
int64_t fault_vfs_moment(void);

/* A replay of the record that only goes forward. */
struct fault_replay;
struct fault_replay *fault_replay_new(void);
void fault_replay_free(struct fault_replay *r);
/* Writes the files as a power cut just before change number `moment` leaves them to DIR/NAME…; `keep` of 1000 unsynced
 * sectors survive. Moments must not descend. */
void fault_replay_crash(struct fault_replay *r, int64_t moment, int keep, struct rng *rng,
                        const char *dir);

/* The n-th change from now on (1: the next) fails: as a full disk, or as one that returns I/O errors. `lasting`: all after it
 * too, until fault_vfs_heal. */
enum fault_kind { FAULT_FULL, FAULT_EIO };
void fault_vfs_fail(int64_t n, enum fault_kind kind, bool is_lasting);
/* SIGKILL at the n-th commit to a write-ahead log: before its first write, or after its sync and before anybody hears of it. */
void fault_vfs_kill(int64_t n, bool is_after);
/* No more faults; true when one has happened. */
bool fault_vfs_heal(void);

#endif

/* Key files (PROTOCOL.md section 9): making, reading and listing them. Each is one line, so that a file in the wrong place is
 * told apart from one that is broken. Knows no sockets beyond link.h's keys. */
#ifndef ISOBIT_SCHEMA_KEYS_H
#define ISOBIT_SCHEMA_KEYS_H

#include <stdbool.h>

#include "base/err.h"
#include "schema/link.h"

enum key_role { KEY_COORDINATOR, KEY_WORKER, KEY_READER };
const char *keys_role_label(enum key_role role); /* "worker" */

enum { KEYS_NAME = 65 };

/* What a program needs of DIR: its own secret (coordinator.key, worker.key or reader.key) and, but for the coordinator, the
 * coordinator's public key. Errors: ERR_NOTFOUND, ERR_DENIED (a mode that lets others read or write), ERR_FORMAT. */
MUST_USE enum err_code keys_load(const char *dir, enum key_role role, struct link_keys *out,
                                 struct err *e);

/* The list. `fn` is called for each readable entry; an entry that is not is an error of that entry: *n_bad counts them, *e
 * holds the last one, and the others are still given. Errors: those of the folder itself. */
typedef void (*keys_entry_fn)(void *arg, enum key_role role, const char *name,
                              const char key[LINK_KEY_HEX]);
MUST_USE enum err_code keys_list(const char *dir, keys_entry_fn fn, void *arg, int *n_bad,
                                 struct err *e);
/* "DIR/allow/workers"; caller frees with xfree. */
char *keys_list_path(const char *dir, enum key_role role);

/* Makes DIR with the coordinator's pair and one key `worker` and one key `reader`, listed. All or nothing. Errors: ERR_BUSY
 * when DIR is there already and not empty. */
MUST_USE enum err_code keys_make(const char *dir, struct err *e);
/* Makes a further worker's or reader's key: DIR/NAME to be copied to it, and its entry in the list. Errors: ERR_BUSY for a
 * name in use, ERR_USAGE for one that is not valid. */
MUST_USE enum err_code keys_add(const char *dir, enum key_role role, const char *name,
                                struct err *e);

#endif

/* Who may come in, and as what: the list of public keys in memory (PROTOCOL.md section 9). The list is read anew when its
 * folders change, so that keys come and go without a restart. Strangers are counted, and logged now and then. Thread: serve
 * loop. */
#ifndef ISOBIT_COORDINATOR_DOOR_H
#define ISOBIT_COORDINATOR_DOOR_H

#include <stdint.h>
#include <time.h>

#include "schema/keys.h"

enum door_role {
    DOOR_NOBODY,
    DOOR_WORKER,
    DOOR_READER,
    DOOR_ANYBODY /* no keys are in force: everything */
};

struct door_entry {
    char key[LINK_KEY_HEX];
    char name[KEYS_NAME];
    enum door_role role;
};

/* How often somebody may ask: tokens that come back with time. */
struct door_bucket {
    double tokens;
    int64_t at_ns;
};

struct door {
    const char *dir;       /* kept; NULL: no keys are in force */
    struct link_keys keys; /* the coordinator's */
    struct door_entry *v;  /* in the order of keys */
    int n, cap;
    int64_t generation; /* grows whenever the list changes */
    struct timespec changed[2], read_at;
    bool is_doubtful; /* something in the folders could not be read: look again */
    int64_t n_strangers, n_failures, n_complaints;
    int64_t looked_ns, read_ns;      /* at the folders; at every file for an unknown key */
    struct door_bucket requests[64]; /* by a hash of the key */
};

/* dir NULL: everybody on this machine may come in as anybody. Errors: those of keys_load and keys_list; a list with a broken
 * entry does not open. */
MUST_USE enum err_code door_open(struct door *d, const char *dir, struct err *e);
void door_release(struct door *d);

/* For link_options; `d` stays where it is. */
struct link_door door_link(struct door *d, int max_connections);
const struct link_keys *door_keys(const struct door *d); /* NULL: none */

/* Reads the list again if its folders have changed. */
void door_look(struct door *d, int64_t now_ns);
/* What the owner of this key may do now; `who` as link_inbox gives it. */
enum door_role door_role(const struct door *d, const char *who);
const char *door_name(const struct door *d, const char *who); /* of a listed key, else "?" */
/* May this reader ask now? Counts the question. */
bool door_may_ask(struct door *d, const char *who, int64_t now_ns);

#endif

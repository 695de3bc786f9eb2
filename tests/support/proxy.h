/* A hostile network between workers and a coordinator: a process that passes messages on, and drops, doubles, delays (so that
 * they overtake one another) or withholds them as it is told. It knows messages, not bytes, so it works where no keys are in
 * force. Aborts (CHECK) when the scaffolding itself fails. */
#ifndef ISOBIT_TESTS_SUPPORT_PROXY_H
#define ISOBIT_TESTS_SUPPORT_PROXY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proxy_mood {
    double drop, duplicate, delay; /* shares of the messages */
    int delay_ms;                  /* at most */
    bool is_cut;                   /* nothing passes */
    bool hangs_up;                 /* once: every connection ends, on both sides */
};

struct proxy {
    pid_t pid;
    int moods; /* the writing end of a pipe */
    char endpoint[256];
};

/* Listens on a loopback port of its own and connects to `upstream` for every worker. Calm at first: all zero. */
void proxy_start(struct proxy *p, const char *upstream, uint64_t seed);
void proxy_set(const struct proxy *p, const struct proxy_mood *mood);
void proxy_stop(struct proxy *p);

#endif

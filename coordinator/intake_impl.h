/* What the files of intake share. Calls go one way: intake.c (any message, HELLO, BEAT, keys) uses intake_answer.c (jobs), both
 * use intake_out.c (seats and the outbox). Included by them only. */
#ifndef ISOBIT_COORDINATOR_INTAKE_IMPL_H
#define ISOBIT_COORDINATOR_INTAKE_IMPL_H

#include "coordinator/intake.h"

enum { INTAKE_MAX_PARTS = 8 }; /* of files, a turn */

/* ---- intake_out.c ---- */

struct intake_seat *intake_seat_of(struct intake *in, int64_t session); /* NULL: none */
struct intake_seat *intake_seat_take(struct intake *in, int64_t session);
void intake_seat_leave(struct intake *in, struct intake_seat *s);
bool intake_peer_is(const struct link_peer *a, const struct link_peer *b);

/* `body` is a stolen reference; NULL: {}. */
void intake_put(struct intake *in, const struct link_peer *to, enum wire_type type, json_t *body);
/* One ACK for each worker and transaction, unless it has to carry a text. */
void intake_put_ack(struct intake *in, struct intake_seat *seat, int64_t job, int64_t attempt,
                    enum verdict v);

/* ---- intake_answer.c: `bad` says what was wrong with the message, `e` what with the store ---- */

/* The text of the RESULT is already parsed. */
MUST_USE enum err_code intake_on_result(struct intake *in, struct intake_seat *seat,
                                        const struct wire_msg *m, int64_t now_ns, struct err *bad,
                                        struct err *e);
MUST_USE enum err_code intake_on_fail(struct intake *in, struct intake_seat *seat,
                                      const json_t *body, int64_t now_ns, struct err *bad,
                                      struct err *e);
MUST_USE enum err_code intake_on_return(struct intake *in, struct intake_seat *seat,
                                        const json_t *body, int64_t now_ns, struct err *e);
MUST_USE enum err_code intake_on_items(struct intake *in, const json_t *body, struct err *bad,
                                       struct err *e);
/* A part of a data file, into the outbox. */
void intake_on_fetch(struct intake *in, const struct intake_seat *seat, const json_t *body,
                     struct err *bad);

#endif

/* Any bytes as a stream of pipe messages: cutting and decoding must neither crash nor read outside, and what decodes must
 * survive being encoded again. */
#include <stdint.h>

#include "base/check.h"
#include "schema/pipe.h"
#include "schema/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct wire_msg *m)
{
    unsigned char header[WIRE_HEADER_BYTES];
    struct buf json = {0};
    struct err e;
    struct wire_msg again;
    CHECK(wire_encode(m->type, m->body, header, &json, &e) == ERR_OK);
    struct wire_frame f[2] = {{header, sizeof(header)}, {json.data, json.len}};
    CHECK(wire_decode(f, 2, &again, &e) == ERR_OK);
    CHECK(again.type == m->type && json_equal(again.body, m->body));
    wire_msg_release(&again);
    buf_release(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_frame frames[WIRE_MAX_FRAMES];
    struct wire_msg m;
    struct err e;
    int n = 0;
    size_t used = 0;
    for (size_t at = 0; at < size; at += used) {
        if (pipe_split(data + at, size - at, frames, &n, &used, &e) != ERR_OK || used == 0)
            break;
        CHECK(used <= size - at);
        if (wire_decode(frames, n, &m, &e) == ERR_OK)
            check_round_trip(&m);
        wire_msg_release(&m);
    }
    return 0;
}

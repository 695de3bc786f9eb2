#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "schema/pipe.h"

static struct pipe a, b;
static int fds[2];
static struct err e;

static void open_pair(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    pipe_init(&a, fds[0]);
    pipe_init(&b, fds[1]);
}

static void close_pair(void)
{
    pipe_release(&a);
    pipe_release(&b);
    close(fds[0]);
    close(fds[1]);
}

TestSuite(pipe, .init = open_pair, .fini = close_pair);

static struct wire_msg expect_message(struct pipe *p)
{
    struct wire_msg m;
    bool found = false;
    do
        cr_assert_eq(pipe_receive(p, &m, &found, &e), ERR_OK, "%s", e.text);
    while (!found && pipe_wait(p, CLOCK_NS_PER_S));
    cr_assert(found);
    return m;
}

Test(pipe, messages_arrive_whole_and_in_order)
{
    for (int i = 0; i < 100; i++) {
        json_t *body = json_pack("{s:i}", "counter", i);
        cr_assert_eq(pipe_send(&a, WIRE_PROGRESS, body, NULL, 0, -1, &e), ERR_OK);
        json_decref(body);
    }
    for (int i = 0; i < 100; i++) {
        struct wire_msg m = expect_message(&b);
        cr_expect_eq(json_opt_int(m.body, "counter", -1), i);
        wire_msg_release(&m);
    }
    struct wire_msg m;
    bool found = true;
    cr_expect_eq(pipe_receive(&b, &m, &found, &e), ERR_OK);
    cr_expect_not(found);
}

struct sender {
    struct wire_frame blobs[2];
    enum err_code rc;
};

static void *send_blobs(void *arg)
{
    struct sender *s = arg;
    struct err mine;
    s->rc = pipe_send(&a, WIRE_RESULT, NULL, s->blobs, 2, -1, &mine);
    return NULL;
}

Test(pipe, message_larger_than_the_socket_buffer_arrives)
{
    size_t n = (size_t)5 << 20;
    unsigned char *big = xmalloc(n);
    for (size_t i = 0; i < n; i++)
        big[i] = (unsigned char)(i * 31 >> 3);
    struct sender s = {.blobs = {{big, n}, {"tail", 4}}, .rc = ERR_IO};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, send_blobs, &s), 0);
    struct wire_msg m = expect_message(&b);
    pthread_join(thread, NULL);
    cr_expect_eq(s.rc, ERR_OK);
    cr_assert_eq(m.n_blobs, 2);
    cr_expect(m.blobs[0].size == n && memcmp(m.blobs[0].data, big, n) == 0);
    cr_expect(m.blobs[1].size == 4 && memcmp(m.blobs[1].data, "tail", 4) == 0);
    wire_msg_release(&m);
    xfree(big);
}

Test(pipe, byte_by_byte_gives_the_same_message)
{
    cr_assert_eq(pipe_send(&a, WIRE_START, NULL, NULL, 0, -1, &e), ERR_OK);
    unsigned char bytes[64];
    ssize_t n = read(fds[1], bytes, sizeof(bytes));
    cr_assert_eq(n, 4 + 2 * 4 + 8 + 2);
    for (ssize_t i = 0; i < n; i++) {
        struct wire_msg m;
        bool found = true;
        cr_assert_eq(pipe_receive(&b, &m, &found, &e), ERR_OK);
        cr_expect_not(found, "after %zd bytes", i);
        cr_assert_eq(write(fds[0], bytes + i, 1), 1);
    }
    struct wire_msg m = expect_message(&b);
    cr_expect_eq(m.type, WIRE_START);
    wire_msg_release(&m);
}

Test(pipe, end_of_the_stream_is_told)
{
    shutdown(fds[0], SHUT_RDWR);
    struct wire_msg m;
    bool found;
    cr_expect_eq(pipe_receive(&b, &m, &found, &e), ERR_NOTFOUND);
    cr_expect_eq(pipe_send(&a, WIRE_BEAT, NULL, NULL, 0, -1, &e), ERR_NOTFOUND);
}

Test(pipe, reader_that_does_not_read_is_a_timeout)
{
    char *big = xcalloc(1, (size_t)8 << 20);
    struct wire_frame blob = {big, (size_t)8 << 20};
    int64_t start = clock_mono_ns();
    cr_expect_eq(pipe_send(&a, WIRE_RESULT, NULL, &blob, 1, CLOCK_NS_PER_S / 20, &e), ERR_TIMEOUT);
    cr_expect_lt(clock_seconds_since(start), 2.0);
    xfree(big);
}

Test(pipe, hostile_lengths_are_refused_before_memory_is_taken)
{
    static const struct {
        unsigned char bytes[16];
        size_t n;
    } rows[] = {
        {{0, 0, 0, 0}, 4},
        {{1, 0, 0, 0}, 4},
        {{7, 0, 0, 0}, 4},
        {{0xff, 0xff, 0xff, 0xff}, 4},
        {{2, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0}, 12}, /* header of 9 bytes */
        {{3, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 4},
         16}, /* blob of 64 MiB and 1 (not yet seen) */
        {{2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}, 12}, /* body of 2 GiB */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct wire_frame f[WIRE_MAX_FRAMES];
        int n = 0;
        size_t size = 0;
        enum err_code rc = pipe_split(rows[i].bytes, rows[i].n, f, &n, &size, &e);
        cr_expect(i == 5 ? rc == ERR_OK && size == 0 : rc == ERR_FORMAT, "row %zu", i);
    }
}

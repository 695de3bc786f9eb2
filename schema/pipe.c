#include "schema/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"

enum { READ_CHUNK = 65536, MAX_HEAD = 4 * (1 + WIRE_MAX_FRAMES) };

static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(unsigned char *p, size_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

void pipe_init(struct pipe *p, int fd)
{
    *p = (struct pipe){.fd = fd};
    p->in.max =
        (size_t)2 * READ_CHUNK + MAX_HEAD + WIRE_MAX_JSON + (size_t)WIRE_MAX_BLOBS * WIRE_MAX_BLOB;
    int flags = fcntl(fd, F_GETFL);
    CHECK(flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

void pipe_release(struct pipe *p)
{
    if (p == NULL)
        return;
    buf_release(&p->in);
    *p = (struct pipe){.fd = -1};
}

bool pipe_wait(const struct pipe *p, int64_t timeout_ns)
{
    struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
    struct timespec t = {timeout_ns / CLOCK_NS_PER_S, timeout_ns % CLOCK_NS_PER_S};
    return ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &t, NULL) > 0;
}

static enum err_code wait_for_room(int fd, int64_t end_ns, struct err *e)
{
    int64_t left_ns = end_ns - clock_mono_ns();
    if (end_ns >= 0 && left_ns <= 0)
        return err_set(e, ERR_TIMEOUT, "the other process does not read its messages");
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    struct timespec t = {left_ns / CLOCK_NS_PER_S, left_ns % CLOCK_NS_PER_S};
    if (ppoll(&pfd, 1, end_ns < 0 ? NULL : &t, NULL) < 0 && errno != EINTR)
        return err_set_errno(e, errno, "cannot wait for the other process");
    return ERR_OK;
}

/* MSG_NOSIGNAL: a dead reader is an error to handle, not a signal to die of. */
static enum err_code write_all(int fd, struct iovec *v, int n, int64_t end_ns, struct err *e)
{
    while (n > 0) {
        struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)n};
        ssize_t done = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (done < 0 && (errno == EPIPE || errno == ECONNRESET))
            return err_set(e, ERR_NOTFOUND, "the other process has closed the connection");
        if (done < 0 && errno != EAGAIN && errno != EINTR)
            return err_set_errno(e, errno, "cannot write to the other process");
        if (done < 0) {
            TRY(wait_for_room(fd, end_ns, e));
            continue;
        }
        size_t left = (size_t)done;
        while (n > 0 && left >= v->iov_len) {
            left -= v->iov_len;
            v++;
            n--;
        }
        if (n > 0) {
            v->iov_base = (char *)v->iov_base + left;
            v->iov_len -= left;
        }
    }
    return ERR_OK;
}

enum err_code pipe_send(struct pipe *p, enum wire_type type, const json_t *body,
                        const struct wire_frame *blobs, int n_blobs, int64_t timeout_ns,
                        struct err *e)
{
    CHECK(n_blobs >= 0 && n_blobs <= WIRE_MAX_BLOBS);
    unsigned char header[WIRE_HEADER_BYTES], head[MAX_HEAD];
    struct buf json = {0};
    enum err_code rc = wire_encode(type, body, header, &json, e);
    if (rc == ERR_OK) {
        struct iovec v[1 + WIRE_MAX_FRAMES] = {{0},
                                               {.iov_base = header, .iov_len = sizeof(header)},
                                               {.iov_base = json.data, .iov_len = json.len}};
        int n = 2 + n_blobs;
        for (int i = 0; i < n_blobs; i++)
            v[3 + i] = (struct iovec){(void *)blobs[i].data, blobs[i].size};
        put_u32(head, (size_t)n);
        for (int i = 0; i < n; i++)
            put_u32(head + 4 * (size_t)(1 + i), v[1 + i].iov_len);
        v[0] = (struct iovec){head, 4 * (size_t)(1 + n)};
        rc = write_all(p->fd, v, 1 + n, timeout_ns < 0 ? -1 : clock_mono_ns() + timeout_ns, e);
    }
    buf_release(&json);
    return rc;
}

enum err_code pipe_split(const void *bytes, size_t n, struct wire_frame frames[WIRE_MAX_FRAMES],
                         int *n_frames, size_t *size, struct err *e)
{
    const unsigned char *p = bytes;
    *size = 0;
    *n_frames = 0;
    if (n < 4)
        return ERR_OK;
    uint32_t count = get_u32(p);
    if (count < 2 || count > WIRE_MAX_FRAMES)
        return err_set(e, ERR_FORMAT, "message on the pipe has %u frames, expected 2 to %d", count,
                       WIRE_MAX_FRAMES);
    size_t at = 4 * (size_t)(1 + count);
    if (n < at)
        return ERR_OK;
    for (uint32_t i = 0; i < count; i++) {
        size_t limit = i == 0 ? WIRE_HEADER_BYTES : i == 1 ? WIRE_MAX_JSON : WIRE_MAX_BLOB;
        size_t len = get_u32(p + 4 * (size_t)(1 + i));
        if (len > limit)
            return err_set(e, ERR_FORMAT,
                           "frame %u on the pipe has %zu bytes, at most %zu are allowed", i, len,
                           limit);
        frames[i] = (struct wire_frame){p + at, len};
        at += len;
        if (at > n)
            return ERR_OK;
    }
    *n_frames = (int)count;
    *size = at;
    return ERR_OK;
}

/* Reads once; more is fetched only when what is there holds no whole message, so memory stays near one message. */
static enum err_code read_more(struct pipe *p, bool *is_dry, struct err *e)
{
    char chunk[READ_CHUNK];
    ssize_t n = read(p->fd, chunk, sizeof(chunk));
    *is_dry = n < 0 && (errno == EAGAIN || errno == EINTR);
    if (*is_dry)
        return ERR_OK;
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return err_set(e, ERR_NOTFOUND, "the other process has closed the connection");
    if (n < 0)
        return err_set_errno(e, errno, "cannot read from the other process");
    if (!buf_try_add(&p->in, chunk, (size_t)n))
        return err_set(e, ERR_FORMAT, "message on the pipe is longer than allowed");
    return ERR_OK;
}

enum err_code pipe_receive(struct pipe *p, struct wire_msg *out, bool *found, struct err *e)
{
    *found = false;
    if (p->used > 0) {
        p->in.len -= p->used;
        memmove(p->in.data, p->in.data + p->used, p->in.len);
        p->used = 0;
    }
    for (;;) {
        struct wire_frame frames[WIRE_MAX_FRAMES];
        int n = 0;
        TRY(pipe_split(p->in.data, p->in.len, frames, &n, &p->used, e));
        if (p->used > 0) {
            TRY(wire_decode(frames, n, out, e));
            *found = true;
            return ERR_OK;
        }
        bool is_dry = false;
        TRY(read_more(p, &is_dry, e));
        if (is_dry)
            return ERR_OK;
    }
}

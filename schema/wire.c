#include "schema/wire.h"

#include <stdint.h>
#include <string.h>

static const unsigned char magic[4] = {'i', 'b', 'i', 't'};

const char *wire_type_name(enum wire_type t)
{
    switch (t) {
#define X(name, number, max_kib, sender)                                                           \
    case WIRE_##name:                                                                              \
        return #name;
        WIRE_TYPE_LIST(X)
#undef X
    }
    return "?";
}

static const char *const lack_labels[] = {[WIRE_LACK_CHECKPOINT] = "checkpoint",
                                          [WIRE_LACK_DATA] = "data",
                                          [WIRE_LACK_CONFIGURATION] = "configuration"};

const char *wire_lack_label(enum wire_lack l)
{
    return lack_labels[l];
}

enum wire_lack wire_lack_of(const char *label)
{
    for (size_t i = 0; i < ARRAY_LEN(lack_labels) && label != NULL; i++)
        if (strcmp(label, lack_labels[i]) == 0)
            return (enum wire_lack)i;
    return WIRE_LACK_CHECKPOINT;
}

static size_t max_body_of(enum wire_type t)
{
    static const unsigned kib[256] = {
#define X(name, number, max_kib, sender) [number] = (max_kib),
        WIRE_TYPE_LIST(X)
#undef X
    };
    return (size_t)kib[t & 255] << 10;
}

static bool type_is_known(unsigned number)
{
    return strcmp(wire_type_name((enum wire_type)number), "?") != 0;
}

static enum err_code decode_header(const struct wire_frame *f, enum wire_type *type, struct err *e)
{
    const unsigned char *h = f->data;
    if (f->size != WIRE_HEADER_BYTES)
        return err_set(e, ERR_FORMAT, "message header has %zu bytes, expected %d", f->size,
                       WIRE_HEADER_BYTES);
    if (memcmp(h, magic, sizeof(magic)) != 0)
        return err_set(e, ERR_FORMAT, "message does not start with \"ibit\": not an isobit peer");
    if (h[4] != WIRE_VERSION)
        return err_set(e, ERR_VERSION,
                       "the peer speaks protocol version %d, this program version %d: install the "
                       "same isobit on both machines",
                       h[4], WIRE_VERSION);
    if (!type_is_known(h[5]))
        return err_set(e, ERR_FORMAT, "message type %d is not known", h[5]);
    if (h[6] != 0 || h[7] != 0)
        return err_set(e, ERR_FORMAT, "message header bytes 6 and 7 are %d %d, expected 0 0", h[6],
                       h[7]);
    *type = (enum wire_type)h[5];
    return ERR_OK;
}

static enum err_code decode_body(const struct wire_frame *f, enum wire_type type, json_t **out,
                                 struct err *e)
{
    TRY(json_parse((struct str){f->data, f->size}, wire_type_name(type), out, e));
    if (json_is_object(*out))
        return ERR_OK;
    json_decref(*out);
    *out = NULL;
    return err_set(e, ERR_FORMAT, "body of %s is not a JSON object", wire_type_name(type));
}

static enum err_code decode(const struct wire_frame *frames, int n_frames, bool leaves_results,
                            struct wire_msg *out, struct err *e)
{
    if (n_frames < 2 || n_frames > WIRE_MAX_FRAMES)
        return err_set(e, ERR_FORMAT, "message has %d frames, expected 2 to %d", n_frames,
                       WIRE_MAX_FRAMES);
    TRY(decode_header(&frames[0], &out->type, e));
    for (int i = 2; i < n_frames; i++) {
        if (frames[i].size > WIRE_MAX_BLOB)
            return err_set(e, ERR_FORMAT, "blob %d of %s has %zu bytes, at most %d are allowed",
                           i - 2, wire_type_name(out->type), frames[i].size, WIRE_MAX_BLOB);
        out->blobs[out->n_blobs++] = frames[i];
    }
    out->text = (struct str){frames[1].data, frames[1].size};
    if (out->text.n > max_body_of(out->type))
        return err_set(e, ERR_FORMAT, "body of %s has %zu bytes, at most %zu are allowed",
                       wire_type_name(out->type), out->text.n, max_body_of(out->type));
    if (leaves_results && out->type == WIRE_RESULT)
        return ERR_OK;
    return decode_body(&frames[1], out->type, &out->body, e);
}

static enum err_code decode_or_nothing(const struct wire_frame *frames, int n_frames,
                                       bool leaves_results, struct wire_msg *out, struct err *e)
{
    memset(out, 0, sizeof(*out));
    enum err_code rc = decode(frames, n_frames, leaves_results, out, e);
    if (rc != ERR_OK)
        wire_msg_release(out);
    return rc;
}

enum err_code wire_decode(const struct wire_frame *frames, int n_frames, struct wire_msg *out,
                          struct err *e)
{
    return decode_or_nothing(frames, n_frames, false, out, e);
}

enum err_code wire_decode_but_results(const struct wire_frame *frames, int n_frames,
                                      struct wire_msg *out, struct err *e)
{
    return decode_or_nothing(frames, n_frames, true, out, e);
}

void wire_msg_release(struct wire_msg *m)
{
    if (m == NULL)
        return;
    json_decref(m->body);
    memset(m, 0, sizeof(*m));
}

enum err_code wire_encode(enum wire_type type, const json_t *body,
                          unsigned char header[WIRE_HEADER_BYTES], struct buf *json, struct err *e)
{
    memcpy(header, magic, sizeof(magic));
    header[4] = WIRE_VERSION;
    header[5] = (unsigned char)type;
    header[6] = header[7] = 0;
    buf_reset(json);
    json->max = max_body_of(type);
    if (body == NULL)
        buf_adds(json, "{}");
    else if (!json_try_append(json, body, false))
        return err_set(e, ERR_FORMAT, "body of %s is larger than the %zu bytes that can be sent",
                       wire_type_name(type), max_body_of(type));
    return ERR_OK;
}

/* Length of the UTF-8 sequence at `p` (RFC 3629: no overlong forms, no surrogates), 0 when it is none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    static const unsigned char low[] = {[0xE0 - 0xE0] = 0xA0, [0xF0 - 0xE0] = 0x90};
    unsigned char c = p[0];
    size_t len = c < 0x80                ? 1
                 : c >= 0xC2 && c < 0xE0 ? 2
                 : c >= 0xE0 && c < 0xF0 ? 3
                 : c >= 0xF0 && c < 0xF5 ? 4
                                         : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 || c == 0xF0) && p[1] < low[c - 0xE0])
        return 0;
    if ((c == 0xED && p[1] > 0x9F) || (c == 0xF4 && p[1] > 0x8F))
        return 0;
    return len;
}

json_t *wire_text(const char *z)
{
    struct str rest = str_of(z);
    struct buf out = {0};
    while (rest.n > 0) {
        size_t len = utf8_length((const unsigned char *)rest.p, rest.n);
        if (out.len + len > WIRE_MAX_TEXT)
            break;
        if (len == 0)
            buf_addc(&out, '?');
        else
            buf_add(&out, rest.p, len);
        size_t used = len == 0 ? 1 : len;
        rest = (struct str){rest.p + used, rest.n - used};
    }
    json_t *text = json_stringn(out.data != NULL ? out.data : "", out.len);
    buf_release(&out);
    CHECK(text != NULL);
    return text;
}

#include "worker/eval/data.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/job.h"
#include "worker/eval/zstd_stream.h"

enum { MAX_LINE_BYTES = 64 << 20, MAX_TEXT_BYTES = 1 << 30 };

struct data_reader {
    const char *name;
    struct io_map map;        /* closed when the bytes are borrowed */
    struct str in;            /* not consumed yet */
    struct zstd_stream *zstd; /* NULL: not compressed */
    struct buf plain;         /* decompressed; [plain_at, len) is not handed out yet */
    size_t plain_at;
    int64_t line; /* number of the line handed out last, from 1 */
    char where[600];
};

struct data_reader *data_open_memory(struct str bytes, const char *name)
{
    struct data_reader *r = xcalloc(1, sizeof(*r));
    r->name = name;
    r->in = bytes;
    if (str_ends(str_of(name), ".zst")) {
        r->zstd = zstd_stream_new();
        r->plain.max = (size_t)MAX_TEXT_BYTES + 2 * (size_t)ZSTD_STREAM_CHUNK;
        buf_adds(&r->plain, ""); /* never NULL from here on */
    }
    return r;
}

enum err_code data_open(const char *path, struct data_reader **out, struct err *e)
{
    struct io_map map = {0};
    TRY(io_map_open(path, &map, e));
    *out = data_open_memory((struct str){(const char *)map.data, map.size}, path);
    (*out)->map = map;
    return ERR_OK;
}

void data_close(struct data_reader *r)
{
    if (r == NULL)
        return;
    zstd_stream_free(r->zstd);
    buf_release(&r->plain);
    io_map_close(&r->map);
    xfree(r);
}

const char *data_where(struct data_reader *r)
{
    snprintf(r->where, sizeof(r->where), "%s:%lld", r->name, (long long)r->line);
    return r->where;
}

static enum err_code inflate_chunk(struct data_reader *r, bool *is_end, struct err *e)
{
    return zstd_stream_next(r->zstd, r->name, &r->in, &r->plain, is_end, e);
}

/* Drops what was handed out, so that `plain` holds one line and a chunk at most. */
static void forget_plain(struct data_reader *r)
{
    if (r->plain_at == 0)
        return;
    memmove(r->plain.data, r->plain.data + r->plain_at, r->plain.len - r->plain_at);
    r->plain.len -= r->plain_at;
    r->plain_at = 0;
}

static enum err_code next_inflated_line(struct data_reader *r, struct str *line, bool *has_line,
                                        struct err *e)
{
    size_t seen = 0;
    bool is_end = false;
    struct str rest = {0};
    for (;;) {
        rest = (struct str){r->plain.data + r->plain_at, r->plain.len - r->plain_at};
        if (is_end || (rest.n > seen && memchr(rest.p + seen, '\n', rest.n - seen) != NULL))
            break;
        if (rest.n > MAX_LINE_BYTES)
            break;
        seen = rest.n;
        forget_plain(r);
        TRY(inflate_chunk(r, &is_end, e));
    }
    *has_line = rest.n > 0 && str_next_line(&rest, line);
    r->plain_at = r->plain.len - rest.n;
    return ERR_OK;
}

enum err_code data_next_line(struct data_reader *r, struct str *line, bool *has_line, struct err *e)
{
    if (r->zstd != NULL)
        TRY(next_inflated_line(r, line, has_line, e));
    else
        *has_line = str_next_line(&r->in, line);
    if (!*has_line)
        return ERR_OK;
    r->line++;
    if (line->n > MAX_LINE_BYTES)
        return err_set(e, ERR_FORMAT, "%s: line longer than 64 MiB; is this a JSON lines file?",
                       data_where(r));
    return ERR_OK;
}

enum err_code data_next_record(struct data_reader *r, json_t **record, struct err *e)
{
    *record = NULL;
    for (;;) {
        struct str line = {0};
        bool has_line = false;
        TRY(data_next_line(r, &line, &has_line, e));
        if (!has_line)
            return ERR_OK;
        if (str_trim(line).n == 0)
            continue;
        TRY(json_parse_corpus(line, data_where(r), record, e));
        if (json_is_object(*record))
            return ERR_OK;
        json_decref(*record);
        *record = NULL;
        return err_set(e, ERR_FORMAT, "%s: expected one JSON object per line", data_where(r));
    }
}

enum err_code data_read_rest(struct data_reader *r, struct buf *out, struct err *e)
{
    size_t total = r->in.n;
    if (r->zstd != NULL) {
        forget_plain(r);
        for (bool is_end = false; !is_end && r->plain.len <= MAX_TEXT_BYTES;)
            TRY(inflate_chunk(r, &is_end, e));
        total = r->plain.len;
    }
    if (total > MAX_TEXT_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: text larger than 1 GiB; cut it, or give it as JSON lines", r->name);
    *out = (struct buf){.max = MAX_TEXT_BYTES};
    buf_add(out, r->zstd != NULL ? r->plain.data : r->in.p, total);
    r->in.n = 0;
    buf_reset(&r->plain);
    return ERR_OK;
}

bool data_is_jsonl(const char *name)
{
    return str_ends(str_of(name), ".jsonl") || str_ends(str_of(name), ".jsonl.zst");
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

enum err_code data_identity(const char *path, const char *labels_path, const char *name,
                            char hex[SHA256_HEX], struct err *e)
{
    TRY(sha256_file(path, hex, e));
    if (labels_path == NULL)
        return ERR_OK;
    char labels_hex[SHA256_HEX];
    TRY(sha256_file(labels_path, labels_hex, e));
    char *labels_name = eval_labels_path(name);
    struct buf lines = {0};
    buf_printf(&lines, "%s  %s\n", hex, base_name(name));
    buf_printf(&lines, "%s  %s\n", labels_hex, base_name(labels_name));
    sha256_bytes(lines.data, lines.len, hex);
    buf_release(&lines);
    xfree(labels_name);
    return ERR_OK;
}

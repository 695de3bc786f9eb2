/* Data files: plain text or JSON lines, optionally compressed with zstd (by the name's end), and their identity. Lines
 * are handed out one by one, so that a large compressed corpus is never held whole. Nothing is trusted. Thread: one
 * per reader. */
#ifndef ISOBIT_WORKER_EVAL_DATA_H
#define ISOBIT_WORKER_EVAL_DATA_H

#include <stdint.h>

#include "base/json.h"
#include "base/sha256.h"
#include "base/str.h"

struct data_reader; /* opaque */

/* `path` is kept. Errors: those of io_map_open. */
MUST_USE enum err_code data_open(const char *path, struct data_reader **out, struct err *e);
/* As if `bytes` were the contents of a file called `name`; both are kept. */
struct data_reader *data_open_memory(struct str bytes, const char *name);
void data_close(struct data_reader *r);

/* Next line without its end; *line is borrowed until the next call. At the end *has_line is false. Errors: ERR_FORMAT
 * for a line beyond 64 MiB or a broken or cut compressed file. */
MUST_USE enum err_code data_next_line(struct data_reader *r, struct str *line, bool *has_line,
                                      struct err *e);
/* As data_next_line, parsed: a JSON object; lines of white space only are passed over. *record is a new reference,
 * NULL at the end. Errors name FILE:LINE. */
MUST_USE enum err_code data_next_record(struct data_reader *r, json_t **record, struct err *e);
/* Everything that is left; at most 1 GiB. Caller releases `out`. */
MUST_USE enum err_code data_read_rest(struct data_reader *r, struct buf *out, struct err *e);
/* "FILE:LINE" of what was handed out last; borrowed until the next call. */
const char *data_where(struct data_reader *r);

bool data_is_jsonl(const char *name); /* .jsonl or .jsonl.zst */

/* SHA-256 of a data file. With `labels_path` (not NULL) that of the lines "<sha256>  <base name>\n" of data and labels
 * file; base names are those of the declared `name`, so that a copy under another name has the same identity. */
MUST_USE enum err_code data_identity(const char *path, const char *labels_path, const char *name,
                                     char hex[SHA256_HEX], struct err *e);

#endif

/* A checkpoint directory: config.json plus tensors from safetensors or pytorch_model.bin, single or
 * sharded by index, memory-mapped. Readers trust nothing: every length, offset, shape and dtype is checked
 * before it is used, and an error names file, tensor and offset. Nothing here knows model families.
 * Thread: one at a time; the tensor table is read-only once open. */
#ifndef ISOBIT_WORKER_CKPT_CKPT_H
#define ISOBIT_WORKER_CKPT_CKPT_H

#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/sha256.h"
#include "schema/job.h"

enum ckpt_dtype {
    CKPT_F32,
    CKPT_F16,
    CKPT_BF16,
    CKPT_OTHER /* integer buffers: listed, not readable */
};
enum { CKPT_MAX_DIMS = 4 };

struct ckpt_tensor {
    const char *name;
    enum ckpt_dtype dtype;
    const char *stored_as; /* element type in safetensors' spelling: "F16", "I64"; static string */
    int n_dims;
    int64_t shape[CKPT_MAX_DIMS];
    int64_t stride[CKPT_MAX_DIMS]; /* in elements; row-major for safetensors */
    int64_t count;                 /* product of shape */
    int file;                      /* index into files */
    uint64_t offset;               /* of the first element in that file */
    const unsigned char *data;     /* mapped; may be unaligned */
};

struct ckpt; /* opaque */

/* Opens m->path, or finds m->hub in the local Hugging Face cache (hub.h). When both formats exist,
 * safetensors is used. Errors: ERR_NOTFOUND with the `hf download …` command or the path; ERR_FORMAT. */
MUST_USE enum err_code ckpt_open(const struct model_ref *m, struct ckpt **out, struct err *e);
void ckpt_close(struct ckpt *c);

const char *ckpt_dir(const struct ckpt *c);
const json_t *ckpt_config(const struct ckpt *c); /* borrowed */
int ckpt_n_tensors(const struct ckpt *c);
const struct ckpt_tensor *ckpt_tensor_at(const struct ckpt *c, int i);       /* sorted by name */
const struct ckpt_tensor *ckpt_find(const struct ckpt *c, const char *name); /* NULL: absent */
int ckpt_n_files(const struct ckpt *c);                     /* of weights, sorted by name */
const char *ckpt_file_name(const struct ckpt *c, int file); /* "model-00001-of-00002.safetensors" */
int64_t ckpt_file_bytes(const struct ckpt *c, int file);

/* Lines [first, first + n) of a tensor, or its columns where it is to be read transposed, as a tensor of its own. */
struct ckpt_tensor ckpt_part(const struct ckpt_tensor *t, bool is_transposed, int64_t first,
                             int64_t n);
int64_t ckpt_stored_bytes(const struct ckpt_tensor *t);
/* Two matrices of weights with the same values, however they are stored. Reads to the first difference. */
bool ckpt_is_equal(const struct ckpt_tensor *a, const struct ckpt_tensor *b);

/* dst[count] in row-major order. f16: RNE rounding; |w| <= 2^-25 becomes 0, and the number of those is added to
 * *flushed (may be NULL). Refuses NaN and infinities after the cast. Errors: ERR_NUMERIC with file, tensor and flat index;
 * ERR_UNSUPPORTED for CKPT_OTHER. `is_transposed` writes a 2-d tensor as its transpose (Conv1D). */
MUST_USE enum err_code ckpt_read_f16(const struct ckpt *c, const struct ckpt_tensor *t,
                                     bool is_transposed, uint16_t *dst, int64_t *flushed,
                                     struct err *e);
MUST_USE enum err_code ckpt_read_f32(const struct ckpt *c, const struct ckpt_tensor *t,
                                     bool is_transposed, float *dst, struct err *e);

/* SHA-256 identity of the weights: of the file when there is one; else of the lines "<sha256>  <name>\n" of the
 * shards sorted by name. One pass over the files on the first call, then kept. _start begins it on threads of its own
 * while tensors are read; it also brings the files into memory. */
void ckpt_identity(struct ckpt *c, char hex[SHA256_HEX]);
void ckpt_identity_start(struct ckpt *c);
int64_t ckpt_bytes(const struct ckpt *c); /* of all weight files */
/* Tells the system that the mapped pages are not needed now. */
void ckpt_forget_pages(struct ckpt *c);

#endif

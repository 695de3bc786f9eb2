/* Tensors out of the mapped files. Every tensor is looked at as up to four nested loops over (shape, stride); the
 * two inner ones are a plane. A plane whose inner stride is 1 is converted row by row, straight from the map.
 * Any other plane (a transpose, a view) is gathered in square tiles that stay in the first-level cache, so that
 * both the reads and the writes of a transpose come in runs. */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/ckpt/ckpt_private.h"
#include "worker/ckpt/convert.h"
#include "worker/ckpt/tensor_check.h"

enum { TILE = 64, AHEAD = 8 };

/* Where the result goes: one of the two pointers is set. */
struct sink {
    uint16_t *f16;
    float *f32;
    struct convert_counts counts;
};

static void put_run(struct sink *to, int64_t at, enum ckpt_dtype from, const unsigned char *src,
                    size_t n)
{
    if (to->f16 != NULL)
        convert_to_f16(from, src, n, to->f16 + at, &to->counts);
    else
        convert_to_f32(from, src, n, to->f32 + at, &to->counts);
}

struct plane {
    const unsigned char *src;
    int64_t rows, cols;
    int64_t row_stride, col_stride; /* elements */
    int64_t at;                     /* index of the first element in the result */
};

/* raw[r][c] = element (r, c) of the tile at `src`. Rows are the inner loop: in a transpose, the case that matters,
 * they are neighbours in the source. Its runs are too short for the prefetcher of the machine: AHEAD columns are
 * asked for by hand (measured: 4096 x 4224 fp16, 0.7 to 1.4 GB/s). */
static void gather_tile(void *raw, const unsigned char *src, const struct plane *p, int64_t n_rows,
                        int64_t n_cols, size_t width)
{
    for (int64_t c = 0; c < n_cols; c++) {
        const unsigned char *from = src + (size_t)(c * p->col_stride) * width;
        size_t step = (size_t)p->row_stride * width;
        if (c + AHEAD < n_cols)
            for (int64_t r = 0; r < n_rows; r += 64 / 4)
                __builtin_prefetch(from + (size_t)(AHEAD * p->col_stride) * width +
                                   (size_t)r * step);
        if (width == 2) {
            uint16_t *to = (uint16_t *)raw + c;
            for (int64_t r = 0; r < n_rows; r++, from += step, to += TILE)
                memcpy(to, from, 2);
        } else {
            uint32_t *to = (uint32_t *)raw + c;
            for (int64_t r = 0; r < n_rows; r++, from += step, to += TILE)
                memcpy(to, from, 4);
        }
    }
}

static void put_plane(struct sink *to, enum ckpt_dtype from, const struct plane *p)
{
    size_t width = (size_t)convert_bytes(from);
    if (p->col_stride == 1) {
        for (int64_t r = 0; r < p->rows; r++)
            put_run(to, p->at + r * p->cols, from, p->src + (size_t)(r * p->row_stride) * width,
                    (size_t)p->cols);
        return;
    }
    uint32_t raw[TILE * TILE];
    for (int64_t r = 0; r < p->rows; r += TILE) {
        int64_t n_rows = p->rows - r < TILE ? p->rows - r : TILE;
        for (int64_t c = 0; c < p->cols; c += TILE) {
            int64_t n_cols = p->cols - c < TILE ? p->cols - c : TILE;
            size_t first = (size_t)(r * p->row_stride + c * p->col_stride);
            gather_tile(raw, p->src + first * width, p, n_rows, n_cols, width);
            for (int64_t i = 0; i < n_rows; i++)
                put_run(to, p->at + (r + i) * p->cols + c, from,
                        (const unsigned char *)raw + (size_t)i * TILE * width, (size_t)n_cols);
        }
    }
}

static void put_tensor(struct sink *to, const struct ckpt_tensor *t, bool is_transposed)
{
    int64_t n[CKPT_MAX_DIMS] = {1, 1, 1, 1};
    int64_t stride[CKPT_MAX_DIMS] = {0};
    for (int i = 0; i < t->n_dims; i++) { /* right-aligned: the last two are the plane */
        n[CKPT_MAX_DIMS - t->n_dims + i] = t->shape[i];
        stride[CKPT_MAX_DIMS - t->n_dims + i] = t->stride[i];
    }
    struct plane p = {.rows = n[2], .cols = n[3], .row_stride = stride[2], .col_stride = stride[3]};
    if (is_transposed)
        p = (struct plane){
            .rows = n[3], .cols = n[2], .row_stride = stride[3], .col_stride = stride[2]};
    if (p.cols == 1) /* a column is a row: one run instead of many of one element */
        p = (struct plane){.rows = 1, .cols = p.rows, .col_stride = p.row_stride};
    for (int64_t i = 0; i < n[0]; i++) {
        for (int64_t j = 0; j < n[1]; j++, p.at += n[2] * n[3]) {
            size_t first = (size_t)(i * stride[0] + j * stride[1]);
            p.src = t->data + first * (size_t)convert_bytes(t->dtype);
            put_plane(to, t->dtype, &p);
        }
    }
}

struct ckpt_tensor ckpt_part(const struct ckpt_tensor *t, bool is_transposed, int64_t first,
                             int64_t n)
{
    struct ckpt_tensor part = *t;
    const int dim = is_transposed ? 1 : 0;
    CHECK(dim < t->n_dims && first >= 0 && n > 0 && first + n <= t->shape[dim]);
    const size_t skipped = (size_t)(first * t->stride[dim]) * (size_t)convert_bytes(t->dtype);
    part.data += skipped;
    part.offset += skipped;
    part.count = t->count / t->shape[dim] * n;
    part.shape[dim] = n;
    return part;
}

int64_t ckpt_stored_bytes(const struct ckpt_tensor *t)
{
    return t->count * convert_bytes(t->dtype);
}

static double stored_value(const struct ckpt_tensor *t, int64_t flat)
{
    int64_t at = 0;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        at += flat % t->shape[i] * t->stride[i];
        flat /= t->shape[i];
    }
    float v = 0;
    struct convert_counts ignored = {0};
    convert_to_f32(t->dtype, t->data + (size_t)at * (size_t)convert_bytes(t->dtype), 1, &v,
                   &ignored);
    return (double)v;
}

static bool is_bad(const struct sink *to, int64_t at)
{
    return to->f16 != NULL ? (to->f16[at] & 0x7fffU) >= 0x7c00U : !isfinite(to->f32[at]);
}

/* Names the first bad element in the order of the file's shape, whatever order the result has. */
static enum err_code report_bad(const struct ckpt *c, const struct ckpt_tensor *t,
                                bool is_transposed, const struct sink *to, struct err *e)
{
    int64_t flat = 0;
    for (; flat < t->count; flat++) {
        int64_t at = flat;
        if (is_transposed)
            at = flat % t->shape[1] * t->shape[0] + flat / t->shape[1];
        if (is_bad(to, at))
            break;
    }
    double v = stored_value(t, flat);
    const char *path = c->files[t->file].path;
    if (isfinite(v))
        return err_set(
            e, ERR_NUMERIC,
            "%s: tensor \"%s\": element %lld is %g (%lld such), beyond fp16's 65504; this "
            "checkpoint cannot be held in fp16",
            path, t->name, (long long)flat, v, (long long)to->counts.bad);
    return err_set(
        e, ERR_NUMERIC,
        "%s: tensor \"%s\": element %lld is %s (%lld such), expected finite weights; the file is "
        "damaged or the model diverged: check it against the publisher's SHA-256",
        path, t->name, (long long)flat, isnan(v) ? "NaN" : "infinite", (long long)to->counts.bad);
}

/* Starts the disk on the whole tensor at once; page faults alone would ask for 128 kB at a time. */
static void ask_for_pages(const struct ckpt_tensor *t)
{
    int64_t elements = 0;
    struct err e;
    if (tensor_extent(t, 0, &elements, &e) != ERR_OK)
        return;
    size_t into_page = (uintptr_t)t->data % (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = into_page + (size_t)elements * (size_t)convert_bytes(t->dtype);
    (void)madvise((void *)(t->data - into_page), bytes, MADV_WILLNEED); /* a hint */
}

static enum err_code read_tensor(const struct ckpt *c, const struct ckpt_tensor *t,
                                 bool is_transposed, struct sink *to, struct err *e)
{
    const char *path = c->files[t->file].path;
    if (t->dtype == CKPT_OTHER)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor \"%s\" is %s, expected weights in F16, BF16 or F32; convert the checkpoint",
            path, t->name, t->stored_as);
    if (is_transposed && t->n_dims != 2)
        return err_set(e, ERR_FORMAT, "%s: tensor \"%s\" has %d dimensions, expected a matrix",
                       path, t->name, t->n_dims);
    if (t->count == 0)
        return ERR_OK;
    ask_for_pages(t);
    if (!is_transposed && tensor_is_row_major(t))
        put_run(to, 0, t->dtype, t->data, (size_t)t->count);
    else
        put_tensor(to, t, is_transposed);
    if (to->counts.bad > 0)
        return report_bad(c, t, is_transposed, to, e);
    return ERR_OK;
}

static bool is_same_shape(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    return a->n_dims == b->n_dims &&
           memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof(*a->shape)) == 0;
}

/* One storage under two names, as torch.save keeps tied weights, or a copy of its bytes. */
static bool is_same_bytes(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    if (a->dtype != b->dtype)
        return false;
    if (a->data == b->data &&
        memcmp(a->stride, b->stride, (size_t)a->n_dims * sizeof(*a->stride)) == 0)
        return true;
    return tensor_is_row_major(a) && tensor_is_row_major(b) &&
           memcmp(a->data, b->data, (size_t)ckpt_stored_bytes(a)) == 0;
}

/* Elements that overlap are a file's way of being small and a reader's of never ending. */
static bool is_overlapping(const struct ckpt_tensor *t)
{
    int64_t extent = 0;
    struct err e;
    return tensor_extent(t, 0, &extent, &e) != ERR_OK || extent < t->count;
}

static bool is_same_line(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    enum { PIECE = 1024 };
    float x[PIECE], y[PIECE];
    const int64_t cols = a->shape[1];
    for (int64_t at = 0; at < cols; at += PIECE) {
        const int64_t n = cols - at < PIECE ? cols - at : PIECE;
        const struct ckpt_tensor of_a = ckpt_part(a, true, at, n), of_b = ckpt_part(b, true, at, n);
        put_tensor(&(struct sink){.f32 = x}, &of_a, false);
        put_tensor(&(struct sink){.f32 = y}, &of_b, false);
        for (int64_t i = 0; i < n; i++)
            if (x[i] != y[i])
                return false;
    }
    return true;
}

/* As fp32, where the bytes differ: another type or order, or the sign of a zero. */
static bool is_same_values(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    if (is_overlapping(a) || is_overlapping(b))
        return false;
    for (int64_t i = 0; i < a->shape[0]; i++) {
        const struct ckpt_tensor of_a = ckpt_part(a, false, i, 1), of_b = ckpt_part(b, false, i, 1);
        if (!is_same_line(&of_a, &of_b))
            return false;
    }
    return true;
}

bool ckpt_is_equal(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    if (a->n_dims != 2 || !is_same_shape(a, b) || a->count == 0 || a->dtype == CKPT_OTHER ||
        b->dtype == CKPT_OTHER)
        return false;
    ask_for_pages(a);
    ask_for_pages(b);
    return is_same_bytes(a, b) || is_same_values(a, b);
}

enum err_code ckpt_read_f16(const struct ckpt *c, const struct ckpt_tensor *t, bool is_transposed,
                            uint16_t *dst, int64_t *flushed, struct err *e)
{
    struct sink to = {.f16 = dst};
    TRY(read_tensor(c, t, is_transposed, &to, e));
    if (flushed != NULL)
        *flushed += to.counts.flushed;
    return ERR_OK;
}

enum err_code ckpt_read_f32(const struct ckpt *c, const struct ckpt_tensor *t, bool is_transposed,
                            float *dst, struct err *e)
{
    struct sink to = {.f32 = dst};
    return read_tensor(c, t, is_transposed, &to, e);
}

#include "worker/zstd_samples.h"

#include <stdio.h>
#include <zstd.h>

#include "base/mem.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "samples are stored as they lie in memory");

enum err_code zstd_samples_pack(const float *v, int64_t n_items, int per_item, void **out,
                                size_t *n, char codec[32], struct err *e)
{
    size_t count, bytes;
    if (n_items < 0 || per_item < 1 || !size_mul((size_t)n_items, (size_t)per_item, &count) ||
        !size_mul(count, sizeof(float), &bytes))
        return err_set(e, ERR_FORMAT, "samples: %lld items of %d numbers", (long long)n_items,
                       per_item);
    size_t room = ZSTD_compressBound(bytes);
    void *packed = xmalloc(room);
    size_t used = ZSTD_compress(packed, room, v, bytes, ZSTD_defaultCLevel());
    if (ZSTD_isError(used)) {
        xfree(packed);
        return err_set(e, ERR_IO, "samples: %s", ZSTD_getErrorName(used));
    }
    snprintf(codec, 32, "zstd-f32/%d", per_item);
    *out = packed;
    *n = used;
    return ERR_OK;
}

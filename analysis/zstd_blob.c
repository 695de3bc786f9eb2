#include "analysis/zstd_blob.h"

#include <zstd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "samples are read as they lie in memory");

bool zstd_blob_unpack(const void *blob, size_t bytes, float *out, size_t capacity, size_t *n)
{
    size_t got = ZSTD_decompress(out, capacity * sizeof(float), blob, bytes);
    if (ZSTD_isError(got) || got % sizeof(float) != 0)
        return false;
    *n = got / sizeof(float);
    return true;
}

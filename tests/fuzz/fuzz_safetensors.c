/* Any bytes as a .safetensors file: an error or tensors whose bytes are all there. */
#include <stdint.h>

#include "worker/ckpt/safetensors.h"
#include "worker/ckpt/tensor_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct io_map map = {.data = size > 0 ? data : NULL, .size = size};
    struct arena a = {0};
    struct ckpt_tensor *t = NULL;
    struct err e;
    int n = 0;
    unsigned sum = 0;
    if (safetensors_read(&map, "fuzz", &a, &t, &n, &e) == ERR_OK) {
        for (int i = 0; i < n; i++) {
            size_t bytes = (size_t)t[i].count * (size_t)tensor_type_find(t[i].stored_as)->bytes;
            CHECK(t[i].offset <= size && bytes <= size - t[i].offset);
            CHECK(tensor_is_row_major(&t[i]));
            sum += bytes > 0 ? t[i].data[0] + t[i].data[bytes - 1] : 0U;
        }
    }
    arena_release(&a);
    return sum == UINT32_MAX; /* never: keeps the reads */
}

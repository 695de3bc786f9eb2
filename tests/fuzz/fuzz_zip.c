/* Any bytes as pytorch_model.bin, and as a zip archive alone: an error or tensors whose bytes are all there. */
#include <stdint.h>

#include "worker/ckpt/tensor_check.h"
#include "worker/ckpt/torchbin.h"
#include "worker/ckpt/zipdir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_zip(const struct io_map *map)
{
    struct arena a = {0};
    struct zip_entry *entries = NULL;
    struct err e;
    size_t n = 0;
    if (zipdir_read(map, "fuzz", &a, &entries, &n, &e) == ERR_OK)
        for (size_t i = 0; i < n; i++)
            CHECK(entries[i].offset <= map->size &&
                  entries[i].size <= map->size - entries[i].offset);
    arena_release(&a);
}

static void check_tensors(const struct io_map *map)
{
    struct arena a = {0};
    struct ckpt_tensor *t = NULL;
    struct err e;
    int n = 0;
    if (torchbin_read(map, "fuzz", &a, &t, &n, &e) == ERR_OK) {
        for (int i = 0; i < n; i++) {
            int64_t end = 0;
            CHECK(tensor_extent(&t[i], 0, &end, &e) == ERR_OK);
            size_t bytes = (size_t)end * (size_t)tensor_type_find(t[i].stored_as)->bytes;
            CHECK(t[i].offset <= map->size && bytes <= map->size - t[i].offset);
        }
    }
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct io_map map = {.data = size > 0 ? data : NULL, .size = size};
    check_zip(&map);
    check_tensors(&map);
    return 0;
}

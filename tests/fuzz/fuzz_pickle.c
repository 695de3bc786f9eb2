/* Any bytes as data.pkl: an error or a list of tensors with plain names. */
#include <stdint.h>

#include "worker/ckpt/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct pickle_tensor *t = NULL;
    struct err e;
    size_t n = 0;
    if (pickle_read((struct str){(const char *)data, size}, "fuzz", &a, &t, &n, &e) == ERR_OK) {
        for (size_t i = 0; i < n; i++) {
            CHECK(tensor_check_name(str_of(t[i].t.name), &e) == ERR_OK);
            CHECK(tensor_check_name(str_of(t[i].storage), &e) == ERR_OK);
            CHECK(t[i].t.count >= 0 && t[i].storage_count >= 0);
        }
    }
    arena_release(&a);
    return 0;
}

#include "base/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "base/io.h"

/* struct sha256 is libcrypto's context under our name, so that no other file sees its header. */
static EVP_MD_CTX *context_of(struct sha256 *h)
{
    return (EVP_MD_CTX *)(void *)h;
}

struct sha256 *sha256_new(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    CHECK(c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1);
    return (struct sha256 *)(void *)c;
}

void sha256_add(struct sha256 *h, const void *data, size_t n)
{
    CHECK(EVP_DigestUpdate(context_of(h), data, n) == 1);
}

void sha256_finish(struct sha256 *h, char hex[SHA256_HEX])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    CHECK(EVP_DigestFinal_ex(context_of(h), raw, &n) == 1 && n == 32);
    for (unsigned int i = 0; i < n; i++)
        snprintf(hex + 2 * (size_t)i, 3, "%02x", raw[i]);
    EVP_MD_CTX_free(context_of(h));
}

void sha256_bytes(const void *data, size_t n, char hex[SHA256_HEX])
{
    struct sha256 *h = sha256_new();
    sha256_add(h, data, n);
    sha256_finish(h, hex);
}

enum err_code sha256_file(const char *path, char hex[SHA256_HEX], struct err *e)
{
    enum { STEP = 8 << 20 };
    struct io_map m = {0};
    TRY(io_map_open(path, &m, e));
    struct sha256 *h = sha256_new();
    for (size_t at = 0; at < m.size; at += STEP) {
        size_t n = m.size - at < STEP ? m.size - at : STEP;
        sha256_add(h, m.data + at, n);
        io_map_forget(&m, at, n);
    }
    sha256_finish(h, hex);
    io_map_close(&m);
    return ERR_OK;
}

/* Any bytes as tokenizer files: opening must give a tokenizer or an error, and a tokenizer must encode any text into ids
 * below its size. The first byte says what the rest is: an even one tokenizer.json; an odd one vocab.json, a NUL,
 * merges.txt, and after another NUL, where there is one, tokenizer_config.json. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/support/support.h"
#include "worker/tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *dir, const char *name, struct str text)
{
    char *path = io_join(dir, name);
    support_write(path, text.p, text.n);
    xfree(path);
}

static void write_files(const char *dir, struct str input, bool is_legacy)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    if (!is_legacy) {
        put(dir, "tokenizer.json", input);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct str text = {0};
        if (i + 1 == ARRAY_LEN(names))
            text = input;
        else if (!str_next_field(&input, '\0', &text))
            return;
        if (text.p != NULL)
            put(dir, names[i], text);
    }
}

static void encode(struct tok *t, struct str text)
{
    struct err e;
    struct tok_ids ids = {0};
    if (tok_encode(t, text, &ids, &e) == ERR_OK) {
        for (size_t i = 0; i < ids.n; i++)
            CHECK(ids.v[i] >= 0 && ids.v[i] < tok_vocab_size(t));
    }
    tok_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "The 12 cats' <|endoftext|>  e\u0301\u0327 \u00A0\u180E\x1C|(a).\r\n"
                               "\t\U0001F469\u200D\U0001F467 [word] </s>      \0\x7F \uAC01\u11A8";
    if (size == 0)
        return 0;
    char *dir = support_tmpdir();
    struct tok *t = NULL;
    struct err e;
    struct str input = {(const char *)data + 1, size - 1};
    write_files(dir, input, data[0] % 2 == 1);
    if (tok_open(dir, &t, &e) == ERR_OK) {
        encode(t, STR(text));
        encode(t, input);
    }
    tok_close(t);
    support_tmpdir_remove(dir);
    return 0;
}

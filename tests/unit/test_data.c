#include <criterion/criterion.h>
#include <string.h>
#include <zstd.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/job.h"
#include "tests/support/support.h"
#include "worker/eval/data.h"

static const char sample[] = "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\r\n{\"text\": \"three\"}";

/* sample, compressed as `n_frames` frames of equal pieces. */
static struct buf compress(const char *text, size_t n, size_t n_frames)
{
    struct buf out = {0};
    for (size_t i = 0; i < n_frames; i++) {
        size_t from = n * i / n_frames, to = n * (i + 1) / n_frames;
        char piece[4096];
        size_t len = ZSTD_compress(piece, sizeof(piece), text + from, to - from, 3);
        cr_assert(!ZSTD_isError(len));
        buf_add(&out, piece, len);
    }
    return out;
}

static int count_records(struct data_reader *r, struct err *e)
{
    int n = 0;
    json_t *record = NULL;
    while (data_next_record(r, &record, e) == ERR_OK && record != NULL) {
        n++;
        json_decref(record);
    }
    return e->code == ERR_OK ? n : -1;
}

Test(data, blank_lines_and_a_missing_last_newline_are_no_records)
{
    struct err e = {0};
    struct data_reader *r = data_open_memory(STR(sample), "sample.jsonl");
    cr_expect_eq(count_records(r, &e), 3);
    cr_expect_str_eq(data_where(r), "sample.jsonl:4");
    data_close(r);
}

Test(data, compressed_files_of_several_frames_read_like_plain_ones)
{
    for (size_t frames = 1; frames <= 4; frames++) {
        struct err e = {0};
        struct buf z = compress(sample, strlen(sample), frames);
        struct data_reader *r = data_open_memory((struct str){z.data, z.len}, "s.jsonl.zst");
        cr_expect_eq(count_records(r, &e), 3, "%zu frames: %s", frames, e.text);
        data_close(r);
        buf_release(&z);
    }
}

Test(data, a_cut_compressed_file_is_an_error_at_every_length)
{
    struct buf z = compress(sample, strlen(sample), 2);
    struct buf first = compress(sample, strlen(sample) / 2, 1);
    for (size_t n = 1; n < z.len; n++) {
        struct err e = {0};
        struct data_reader *r = data_open_memory((struct str){z.data, n}, "s.jsonl.zst");
        int records = count_records(r, &e);
        data_close(r);
        if (n == first.len) /* the end of the first frame: a whole file of half a record more */
            continue;
        cr_expect_eq(records, -1, "cut at %zu", n);
        cr_expect_eq(e.code, ERR_FORMAT);
    }
    buf_release(&first);
    buf_release(&z);
}

Test(data, garbage_instead_of_zstd_is_named)
{
    struct err e = {0};
    struct data_reader *r = data_open_memory(STR("not compressed at all"), "s.jsonl.zst");
    cr_expect_eq(count_records(r, &e), -1);
    cr_expect(strstr(e.text, "s.jsonl.zst") != NULL, "%s", e.text);
    data_close(r);
}

Test(data, errors_name_file_and_line)
{
    const struct {
        const char *text, *where;
    } rows[] = {
        {"{}\n[1]\n", "f.jsonl:2"},
        {"{}\n{}\n{\"a\": }\n", "f.jsonl:3"},
        {"\"text\"\n", "f.jsonl:1"},
        {"{\"a\": \"\xff\"}\n", "f.jsonl:1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = {0};
        struct data_reader *r = data_open_memory(str_of(rows[i].text), "f.jsonl");
        cr_expect_eq(count_records(r, &e), -1, "row %zu", i);
        cr_expect(strstr(e.text, rows[i].where) != NULL, "row %zu: %s", i, e.text);
        data_close(r);
    }
}

Test(data, rest_of_a_text_is_the_same_plain_and_compressed)
{
    struct err e = {0};
    size_t n = 1 << 20;
    char *text = xmalloc(n);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + i * i % 23);
    size_t cap = ZSTD_compressBound(n);
    char *packed = xmalloc(cap);
    size_t packed_n = ZSTD_compress(packed, cap, text, n, 3);
    const struct {
        struct str bytes;
        const char *name;
    } rows[] = {{{text, n}, "t.txt"}, {{packed, packed_n}, "t.txt.zst"}, {{NULL, 0}, "empty.txt"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        struct data_reader *r = data_open_memory(rows[i].bytes, rows[i].name);
        cr_assert_eq(data_read_rest(r, &out, &e), ERR_OK, "%s", e.text);
        cr_expect_eq(out.len, i < 2 ? n : 0);
        cr_expect(i == 2 || memcmp(out.data, text, n) == 0, "row %zu", i);
        buf_release(&out);
        data_close(r);
    }
    xfree(packed);
    xfree(text);
}

Test(data, labels_stand_beside_their_file)
{
    const char *const rows[][2] = {
        {"dir/piqa.jsonl", "dir/piqa-labels.lst"},
        {"piqa_valid.jsonl", "piqa_valid-labels.lst"},
        {"valid.jsonl.zst", "valid-labels.lst"},
        {"other", "other-labels.lst"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *path = eval_labels_path(rows[i][0]);
        cr_expect_str_eq(path, rows[i][1]);
        xfree(path);
    }
}

Test(data, identity_covers_the_labels_and_not_the_folder)
{
    struct err e = {0};
    char *dir = support_tmpdir();
    char *data = xasprintf("%s/copy", dir), *labels = xasprintf("%s/copy.labels", dir);
    support_write(data, "abc", 3);
    support_write(labels, "0\n", 2);
    char plain[SHA256_HEX], both[SHA256_HEX], expected[SHA256_HEX], labels_hex[SHA256_HEX];
    cr_assert_eq(data_identity(data, NULL, "demo/piqa.jsonl", plain, &e), ERR_OK);
    cr_expect_str_eq(plain, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cr_assert_eq(data_identity(data, labels, "demo/piqa.jsonl", both, &e), ERR_OK);
    sha256_bytes("0\n", 2, labels_hex);
    char *lines = xasprintf("%s  piqa.jsonl\n%s  piqa-labels.lst\n", plain, labels_hex);
    sha256_bytes(lines, strlen(lines), expected);
    cr_expect_str_eq(both, expected);
    xfree(lines);
    xfree(labels);
    xfree(data);
    support_tmpdir_remove(dir);
}

Test(data, json_lines_are_known_by_name)
{
    cr_expect(data_is_jsonl("a.jsonl"));
    cr_expect(data_is_jsonl("a.jsonl.zst"));
    cr_expect_not(data_is_jsonl("a.txt"));
    cr_expect_not(data_is_jsonl("a.json"));
    cr_expect_not(data_is_jsonl("jsonl"));
}

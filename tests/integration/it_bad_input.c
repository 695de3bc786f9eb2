/* Bad input of every kind through the real programs: one clear line on stderr, the right exit status, nothing left behind. Each row
 * runs in a fresh folder with a damaged copy of a demo model `m`. */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/mkckpt.h"
#include "tests/support/support.h"

#define EVAL                                                                                       \
    "isobit-worker eval --model m --k 16 --task perplexity --data t.txt --window 64 --max-tokens " \
    "128"
#define PATCH(offset, bytes)                                                                       \
    "printf '" bytes "' | dd of=m/model.safetensors bs=1 seek=$((" offset                          \
    ")) conv=notrunc 2>/dev/null"
/* Same-length edits of the header keep every offset behind it. */
#define EDIT_HEADER(from, to) "LC_ALL=C sed -i '0,/" from "/s//" to "/' m/model.safetensors"
#define SPEC(line)                                                                                 \
    "printf '%s\\n' 'name: x' 'models:' '  - {family: p, sizes: [s0], path: m}' " line " >s.yaml"
#define SPEC_TAIL                                                                                  \
    " 'configurations:' '  - {k: 16}' 'evaluations:' '  - {task: perplexity, data: t.txt}'"

static const struct row {
    const char *what, *setup, *command;
    int status;
    const char *says; /* extended regular expression over stderr */
} rows[] = {
    {"missing model", "rm -r m", EVAL, 4, "m: neither a checkpoint directory nor a hub id"},
    {"missing data file", "rm t.txt", EVAL, 4, "t\\.txt"},
    {"empty weights", ": >m/model.safetensors", EVAL, 3, "model\\.safetensors"},
    {"truncated weights", "truncate -s 5000 m/model.safetensors", EVAL, 3, "model\\.safetensors"},
    {"truncated data part", "truncate -s -100 m/model.safetensors", EVAL, 3, "model\\.safetensors"},
    {"header larger than the file", PATCH("0", "\\377\\377\\377\\003\\0\\0\\0\\0"), EVAL, 3,
     "header"},
    {"header length beyond any sense", PATCH("0", "\\377\\377\\377\\377\\377\\377\\377\\177"), EVAL,
     3, "header"},
    {"wrong dtype", EDIT_HEADER("\"F16\"", "\"I16\""), EVAL, 3, "(I16|dtype)"},
    {"unknown dtype", EDIT_HEADER("\"F16\"", "\"Z16\""), EVAL, 3, "Z16"},
    {"missing tensor", EDIT_HEADER("embed_out.weight", "embed_oat.weight"), EVAL, 3,
     "embed_out\\.weight"},
    {"shape against config.json",
     "sed -i 's/\"hidden_size\": *64/\"hidden_size\": 96/' m/config.json", EVAL, 3, "\\[.*\\]"},
    {"vocabulary against config.json",
     "sed -i 's/\"vocab_size\": *4096/\"vocab_size\": 4095/' m/config.json", EVAL, 3, "409[56]"},
    {"heads that do not divide",
     "sed -i 's/\"num_attention_heads\": *4/\"num_attention_heads\": 7/' m/config.json", EVAL, 3,
     "(heads|7)"},
    {"unknown architecture", "sed -i 's/\"gpt_neox\"/\"made_up\"/' m/config.json", EVAL, 3,
     "made_up"},
    {"config.json that is no JSON", "echo '{' >m/config.json", EVAL, 3, "config\\.json:[0-9]+"},
    {"no config.json", "rm m/config.json", EVAL, 4, "config\\.json"},
    {"NaN weight", PATCH("$(stat -c %s m/model.safetensors)-2", "\\000\\176"), EVAL, 3,
     "(NaN|not a finite)"},
    {"infinite weight", PATCH("$(stat -c %s m/model.safetensors)-2", "\\000\\174"), EVAL, 3,
     "(inf|finite)"},
    {"pickle with a forbidden global", "rm m/model.safetensors; mv evil.bin m/pytorch_model.bin",
     EVAL, 3, "posix.*system|os.*system"},
    {"zip bomb", "rm m/model.safetensors; mv bomb.bin m/pytorch_model.bin", EVAL, 3,
     "pytorch_model\\.bin"},
    {"a .bin that is no zip", "rm m/model.safetensors; echo hello >m/pytorch_model.bin", EVAL, 3,
     "pytorch_model\\.bin"},
    {"no weights at all", "rm m/model.safetensors", EVAL, 4, "model\\.safetensors"},
    {"tokenizer without merges",
     "jq 'del(.model.merges)' m/tokenizer.json >t && mv t m/tokenizer.json", EVAL, 3, "merges"},
    {"tokenizer that is cut", "truncate -s 1000 m/tokenizer.json", EVAL, 3, "tokenizer\\.json"},
    {"data line that is not JSON", "printf '{\"text\": \"a b\"}\\nnope\\n' >d.jsonl",
     "isobit-worker eval --model m --k 16 --task lambada --data d.jsonl", 3, "d\\.jsonl:2"},
    {"data record without its key", "printf '{\"txt\": \"a b\"}\\n' >d.jsonl",
     "isobit-worker eval --model m --k 16 --task lambada --data d.jsonl", 3, "d\\.jsonl:1.*text"},
    {"data that is not UTF-8", "printf 'a \\377 b' >t.txt", EVAL, 3, "t\\.txt"},
    {"empty data", ": >t.txt", EVAL, 3, "t\\.txt"},
    {"k out of range", "", "isobit-worker eval --model m --k 9 --task lambada --data t.txt", 3,
     "(^|[^0-9])9"},
    {"unknown data type", "",
     "isobit-worker eval --model m --k 4 --dtype flaot --task lambada --data t.txt", 2, "flaot"},
    {"impossible cell on the command line", "",
     "isobit-worker eval --model m --k 3 --dtype float --exponent-bits 3 --task perplexity --data "
     "t.txt",
     2, "exponent"},
    {"codebook of an impossible cell", "",
     "isobit-worker codebook --dtype float --k 3 --exponent-bits 3", 2, "exponent"},
    {"token outside the vocabulary", "", "isobit-worker logits --model m --tokens 1,999999", 3,
     "999999"},
    {"unknown YAML key", SPEC("'modles: []'" SPEC_TAIL), "isobit plan s.yaml --dry-run", 3,
     "s\\.yaml:[0-9]+:[0-9]+.*modles"},
    {"impossible cell in a spec",
     SPEC("'configurations:' '  - {k: 3, dtype: float, exponent_bits: 3}' 'evaluations:' '  - "
          "{task: perplexity, "
          "data: t.txt}'"),
     "isobit plan s.yaml --dry-run", 3, "s\\.yaml:[0-9]+:[0-9]+.*exponent"},
    {"YAML that does not parse", "printf 'name: [x\\n' >s.yaml", "isobit plan s.yaml --dry-run", 3,
     "s\\.yaml:[0-9]+:[0-9]+"},
    {"spec with a wrong type",
     SPEC("'configurations:' '  - {k: four}' 'evaluations:' '  - {task: perplexity, data: t.txt}'"),
     "isobit plan s.yaml --dry-run", 3, "s\\.yaml:[0-9]+:[0-9]+.*four"},
    {"missing spec", "", "isobit plan nowhere.yaml --dry-run", 4, "nowhere\\.yaml"},
    {"run without the model's files", "rm -r m;" SPEC("" SPEC_TAIL), "isobit run s.yaml --db x.db",
     4, "m"},
    {"run without the data", "rm t.txt;" SPEC("" SPEC_TAIL), "isobit run s.yaml --db x.db", 4,
     "t\\.txt"},
    {"database that is none", "echo hello >x.db", "isobit status --db x.db", 3, "x\\.db"},
    {"missing database", "", "isobit status --db nowhere.db", 4, "nowhere\\.db"},
    {"database of another version",
     SPEC("" SPEC_TAIL) "; isobit plan s.yaml --db x.db >&2 && sqlite3 x.db 'PRAGMA "
                        "user_version=999'",
     "isobit status --db x.db", 3, "999"},
    {"port in use",
     SPEC("" SPEC_TAIL) "; isobit plan s.yaml --db x.db >/dev/null; cp x.db y.db; "
                        "(timeout 20 isobit serve --db x.db --listen tcp://127.0.0.1:47611 "
                        ">/dev/null 2>&1 &) ; sleep 1",
     "isobit serve --db y.db --listen tcp://127.0.0.1:47611", 4, "47611"},
    {"listening to the world without keys",
     SPEC("" SPEC_TAIL) "; isobit plan s.yaml --db x.db >/dev/null",
     "isobit serve --db x.db --listen tcp://0.0.0.0:47612", 4, "keygen"},
    {"folder that cannot be made", SPEC("" SPEC_TAIL) "; : >file",
     "isobit plan s.yaml --db file/x.db", 4, "file/x\\.db"},
    {"unknown word", "", "isobit frobnicate", 2, "frobnicate"},
    {"unknown job", SPEC("" SPEC_TAIL) "; isobit plan s.yaml --db x.db >/dev/null",
     "isobit explain --db x.db 'v1|k=99'", 1, "v1\\|k=99"},
    {"analysis of an empty database",
     SPEC("" SPEC_TAIL) "; isobit plan s.yaml --db x.db >/dev/null",
     "isobit-analysis fit --db x.db", 4, "none is done"},
};

/* A pickle that would run a command, and an archive that says it unpacks to far more than it holds. */
static void write_hostile_bins(const char *dir)
{
    struct buf evil = {0};
    buf_add(&evil, "\x80\x02", 2);
    mk_global(&evil, "posix", "system");
    buf_adds(&evil, "U\x04true\x85R.");
    struct buf zip = mk_torchbin("archive", evil, "0123", 4);
    mk_put(dir, "evil.bin", zip);

    struct mk_zip z = {0};
    char zeros[4096] = {0};
    mk_zip_add(&z, "archive/data.pkl", "\x80\x02}.", 4);
    struct mk_lie lie = {.method = 8, .size = 0xfffffff0u};
    mk_zip_add_lying(&z, "archive/data/0", zeros, sizeof(zeros), &lie);
    mk_put(dir, "bomb.bin", mk_zip_finish(&z));
}

/* The error is one line. Programs may log their story too, in lines that start with the time. */
static bool is_one_line(const struct buf *text)
{
    struct str rest = {text->data, text->len};
    struct str line;
    int n = 0;
    while (str_next_line(&rest, &line))
        n += line.n > 0 && !(line.p[0] >= '0' && line.p[0] <= '9');
    return n == 1;
}

static bool check(const struct row *row, const struct support_run *r)
{
    regex_t re;
    CHECK(regcomp(&re, row->says, REG_EXTENDED | REG_NOSUB | REG_ICASE) == 0);
    bool says = r->err.data != NULL && regexec(&re, r->err.data, 0, NULL, 0) == 0;
    regfree(&re);
    bool ok = r->status == row->status && says && is_one_line(&r->err);
    if (!ok)
        printf("FAILED %s: status %d (expected %d), stderr%s:\n%s", row->what, r->status,
               row->status, says ? "" : " lacks the expected words",
               r->err.data != NULL ? r->err.data : "");
    return ok;
}

int main(void)
{
    int n_failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *dir = support_tmpdir();
        write_hostile_bins(dir);
        char *setup = xasprintf(
            "cd %s && cp -r %s m && printf 'It was a dark night. %%.0s' {1..200} >t.txt; %s", dir,
            support_source("sweeps/demo/models/pythia-s0"), rows[i].setup);
        struct support_run s = support_shell(setup);
        char *command = xasprintf("cd %s && timeout 60 %s", dir, rows[i].command);
        struct support_run r = support_shell(command);
        n_failed += !check(&rows[i], &r);
        support_run_release(&s);
        support_run_release(&r);
        xfree(setup);
        xfree(command);
        support_tmpdir_remove(dir);
    }
    printf("%zu passed, %d failed\n", ARRAY_LEN(rows) - (size_t)n_failed, n_failed);
    return n_failed == 0 ? 0 : 1;
}

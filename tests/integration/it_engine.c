/* What a sweep costs besides arithmetic: every checkpoint is read once per worker, and a worker's memory stays within 2.2 times the fp32
 * size of its checkpoint and 512 MiB. Real programs; the large checkpoint is made here of random weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "schema/store.h"
#include "tests/support/support.h"

static int n_failed;

static void expect(bool ok, const char *what, double got, double limit)
{
    printf("%s: %s: %.6g (limit %.6g)\n", ok ? "ok" : "FAILED", what, got, limit);
    n_failed += !ok;
}

static int64_t ask(const char *db, const char *sql)
{
    struct store *s = NULL;
    struct err e;
    int64_t v = -1;
    if (store_open(db, STORE_READ, &s, &e) != ERR_OK ||
        store_query_int(s, sql, -1, &v, &e) != ERR_OK)
        printf("FAILED %s: %s\n", sql, e.text);
    store_close(s);
    return v;
}

/* One worker, two checkpoints, 50 jobs: the bytes read are the bytes of the two files. */
static void weights_are_read_once(const char *dir)
{
    char *db = xasprintf("%s/smoke.db", dir);
    char *command = xasprintf("cd %s && isobit run %s --db %s --workers 1 --no-report", dir,
                              support_source("sweeps/smoke.yaml"), db);
    struct support_run r = support_shell(command);
    if (r.status != 0)
        printf("%s", r.err.data);
    expect(r.status == 0, "isobit run sweeps/smoke.yaml, exit status", r.status, 0);
    expect(ask(db, "SELECT count(*) FROM jobs WHERE state = 'done'") == 50, "jobs done",
           (double)ask(db, "SELECT count(*) FROM jobs WHERE state = 'done'"), 50);
    int64_t files = io_file_size(support_source("sweeps/demo/models/pythia-s0/model.safetensors")) +
                    io_file_size(support_source("sweeps/demo/models/gpt2-s0/model.safetensors"));
    int64_t bytes_read = ask(db, "SELECT sum(weights_read) FROM jobs");
    expect(bytes_read == files, "bytes of weights read by one worker", (double)bytes_read,
           (double)files);
    int64_t loads = ask(db, "SELECT count(*) FROM jobs WHERE weights_read > 0");
    expect(loads == 2, "jobs that read weights", (double)loads, 2);
    int64_t n_samples = ask(db, "SELECT count(*) FROM samples");
    expect(n_samples == 50, "jobs with samples", (double)n_samples, 50);
    int64_t n_loose = ask(db, "SELECT count(*) FROM samples WHERE item_set NOT IN "
                              "(SELECT item_set FROM items)");
    expect(n_loose == 0, "samples whose items are not known", (double)n_loose, 0);
    support_run_release(&r);
    xfree(command);
    xfree(db);
}

/* ---- memory ---- */

enum { D = 768, LAYERS = 8, VOCAB = 4096, CONTEXT = 512, NAME_MAX_LEN = 128 };

struct tensor {
    char name[NAME_MAX_LEN];
    int64_t rows, cols; /* cols 0: a vector */
};

static struct tensor tensors[4 + LAYERS * 12];
static int n_tensors;

static void add(const char *prefix, const char *name, int64_t rows, int64_t cols)
{
    struct tensor *t = &tensors[n_tensors++];
    snprintf(t->name, sizeof(t->name), "%s%s", prefix, name);
    t->rows = rows;
    t->cols = cols;
}

static void list_tensors(void)
{
    add("gpt_neox.", "embed_in.weight", VOCAB, D);
    for (int l = 0; l < LAYERS; l++) {
        char p[40];
        snprintf(p, sizeof(p), "gpt_neox.layers.%d.", l);
        add(p, "input_layernorm.weight", D, 0);
        add(p, "input_layernorm.bias", D, 0);
        add(p, "post_attention_layernorm.weight", D, 0);
        add(p, "post_attention_layernorm.bias", D, 0);
        add(p, "attention.query_key_value.weight", (int64_t)3 * D, D);
        add(p, "attention.query_key_value.bias", (int64_t)3 * D, 0);
        add(p, "attention.dense.weight", D, D);
        add(p, "attention.dense.bias", D, 0);
        add(p, "mlp.dense_h_to_4h.weight", (int64_t)4 * D, D);
        add(p, "mlp.dense_h_to_4h.bias", (int64_t)4 * D, 0);
        add(p, "mlp.dense_4h_to_h.weight", D, (int64_t)4 * D);
        add(p, "mlp.dense_4h_to_h.bias", D, 0);
    }
    add("gpt_neox.", "final_layer_norm.weight", D, 0);
    add("gpt_neox.", "final_layer_norm.bias", D, 0);
    add("", "embed_out.weight", VOCAB, D);
}

static int64_t count_of(const struct tensor *t)
{
    return t->rows * (t->cols != 0 ? t->cols : 1);
}

/* fp32 weights: the largest file a parameter count can have. Returns the number of parameters. */
static int64_t write_checkpoint(const char *path)
{
    struct buf header = {0};
    int64_t at = 0;
    buf_addc(&header, '{');
    for (int i = 0; i < n_tensors; i++) {
        const struct tensor *t = &tensors[i];
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i > 0 ? "," : "",
                   t->name, (long long)t->rows);
        if (t->cols != 0)
            buf_printf(&header, ",%lld", (long long)t->cols);
        buf_printf(&header, "],\"data_offsets\":[%lld,%lld]}", (long long)at,
                   (long long)(at + 4 * count_of(t)));
        at += 4 * count_of(t);
    }
    buf_addc(&header, '}');
    FILE *f = fopen(path, "wb");
    uint64_t n = header.len;
    struct rng r = {7};
    CHECK(f != NULL && fwrite(&n, 8, 1, f) == 1 && fwrite(header.data, header.len, 1, f) == 1);
    float chunk[4096];
    for (int64_t left = at / 4; left > 0; left -= (int64_t)ARRAY_LEN(chunk)) {
        size_t m = left < (int64_t)ARRAY_LEN(chunk) ? (size_t)left : ARRAY_LEN(chunk);
        for (size_t i = 0; i < m; i++)
            chunk[i] = (float)(rng_uniform(&r) - 0.5) * 0.05f;
        CHECK(fwrite(chunk, sizeof(float), m, f) == m);
    }
    CHECK(fclose(f) == 0);
    buf_release(&header);
    return at / 4;
}

static void write_config(const char *path)
{
    char *text =
        xasprintf("{\"model_type\":\"gpt_neox\",\"hidden_size\":%d,\"num_hidden_layers\":%d,"
                  "\"num_attention_heads\":12,\"intermediate_size\":%d,\"vocab_size\":%d,"
                  "\"max_position_embeddings\":%d,\"layer_norm_eps\":1e-5,\"rotary_pct\":0.25,"
                  "\"hidden_act\":\"gelu\",\"use_parallel_residual\":true,\"bos_token_id\":0,"
                  "\"eos_token_id\":0}",
                  D, LAYERS, 4 * D, VOCAB, CONTEXT);
    support_write(path, text, strlen(text));
    xfree(text);
}

/* Peak resident bytes of a quantized evaluation. */
static int64_t peak_of_eval(const char *dir, const char *k)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char *line =
            xasprintf("exec %s/isobit-worker eval --model %s --k %s --task perplexity "
                      "--data %s --method strided --window 512 --max-tokens 1024 >/dev/null",
                      TEST_BIN_DIR, dir, k, support_source("sweeps/demo/corpus.jsonl"));
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    struct rusage use;
    CHECK(wait4(pid, &status, 0, &use) == pid);
    expect(status == 0, "isobit-worker eval of the large checkpoint, status", status, 0);
    return (int64_t)use.ru_maxrss * 1024;
}

static void memory_is_bounded(const char *dir)
{
    list_tensors();
    char *weights = xasprintf("%s/model.safetensors", dir);
    char *config = xasprintf("%s/config.json", dir);
    char *copy =
        xasprintf("cp %s %s/", support_source("sweeps/demo/models/pythia-s0/tokenizer*.json"), dir);
    int64_t n_params = write_checkpoint(weights);
    write_config(config);
    struct support_run r = support_shell(copy);
    support_run_release(&r);
    double limit = 2.2 * 4.0 * (double)n_params + (512 << 20);
    static const char *const widths[] = {"4 --dtype float", "16", "32"};
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        char *what = xasprintf("peak resident bytes at k=%s, %.1f M parameters in fp32", widths[i],
                               (double)n_params * 1e-6);
        int64_t peak = peak_of_eval(dir, widths[i]);
        expect((double)peak <= limit, what, (double)peak, limit);
        xfree(what);
    }
    xfree(copy);
    xfree(config);
    xfree(weights);
}

int main(void)
{
    char *dir = support_tmpdir();
    weights_are_read_once(dir);
    memory_is_bounded(dir);
    support_tmpdir_remove(dir);
    printf("%s\n", n_failed == 0 ? "1 passed, 0 failed" : "0 passed, 1 failed");
    return n_failed != 0;
}

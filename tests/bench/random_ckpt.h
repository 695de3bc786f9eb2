/* A checkpoint of real shapes with random weights, for benchmarks: config.json and one model.safetensors, written by many
 * threads from one pool of normal fp16 numbers. */
#ifndef ISOBIT_TESTS_RANDOM_CKPT_H
#define ISOBIT_TESTS_RANDOM_CKPT_H

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/json.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "tests/bench/bench.h"

struct random_shape {
    const char *name;
    bool is_opt; /* else NeoX */
    int layers, d, heads, ffn, vocab;
};
static const struct random_shape random_shapes[] = {
    {"410m", false, 24, 1024, 16, 4096, 50304}, {"6.9b", false, 32, 4096, 32, 16384, 50432},
    {"13b", true, 40, 5120, 40, 20480, 50272},  {"20b", true, 44, 6144, 48, 24576, 50272},
    {"30b", true, 48, 7168, 56, 28672, 50272},
};

enum { RANDOM_POOL = 1 << 24, RANDOM_THREADS = 16, RANDOM_CHUNK = 32 << 20, RANDOM_CONTEXT = 2048 };

/* Plain values stand in for what is not a matrix: 1 for norms, 0 for biases. */
enum random_fill { RANDOM_NOISE, RANDOM_ONES, RANDOM_ZEROS };
struct random_tensor {
    char name[120];
    int64_t rows, cols, at, bytes;
    enum random_fill fill;
};
struct random_file {
    struct random_tensor *t;
    int n;
    int64_t bytes; /* of all tensors */
    int64_t header;
    int fd;
    const uint16_t *pool[3];
};

static inline void random_add(struct random_file *f, const char *name, int64_t rows, int64_t cols,
                              enum random_fill fill)
{
    f->t = xrealloc(f->t, (size_t)(f->n + 1) * sizeof *f->t);
    struct random_tensor *t = &f->t[f->n++];
    *t = (struct random_tensor){.rows = rows,
                                .cols = cols,
                                .at = f->bytes,
                                .bytes = 2 * rows * (cols > 0 ? cols : 1),
                                .fill = fill};
    (void)snprintf(t->name, sizeof t->name, "%s", name);
    f->bytes += t->bytes;
}

static inline void random_layer(struct random_file *f, const struct random_shape *s, int layer)
{
    static const char *const opt[] = {"self_attn.q_proj",
                                      "self_attn.k_proj",
                                      "self_attn.v_proj",
                                      "self_attn.out_proj",
                                      "fc1",
                                      "fc2"};
    static const char *const neox[] = {"attention.query_key_value", "attention.dense",
                                       "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"};
    static const char *const norms[2][2] = {{"input_layernorm", "post_attention_layernorm"},
                                            {"self_attn_layer_norm", "final_layer_norm"}};
    const int n = s->is_opt ? 6 : 4;
    char name[120];
    for (int i = 0; i < n; i++) {
        const bool is_wide = i == n - 2, is_deep = i == n - 1;
        const int64_t rows = is_wide ? s->ffn : !s->is_opt && i == 0 ? 3 * s->d : s->d;
        const char *part = s->is_opt ? opt[i] : neox[i];
        const char *front = s->is_opt ? "model.decoder.layers" : "gpt_neox.layers";
        (void)snprintf(name, sizeof name, "%s.%d.%s.weight", front, layer, part);
        random_add(f, name, rows, is_deep ? s->ffn : s->d, RANDOM_NOISE);
        (void)snprintf(name, sizeof name, "%s.%d.%s.bias", front, layer, part);
        random_add(f, name, rows, 0, RANDOM_ZEROS);
    }
    for (int i = 0; i < 2; i++) {
        const char *front = s->is_opt ? "model.decoder.layers" : "gpt_neox.layers";
        (void)snprintf(name, sizeof name, "%s.%d.%s.weight", front, layer, norms[s->is_opt][i]);
        random_add(f, name, s->d, 0, RANDOM_ONES);
        (void)snprintf(name, sizeof name, "%s.%d.%s.bias", front, layer, norms[s->is_opt][i]);
        random_add(f, name, s->d, 0, RANDOM_ZEROS);
    }
}

static inline void random_list(struct random_file *f, const struct random_shape *s)
{
    const char *norm = s->is_opt ? "model.decoder.final_layer_norm" : "gpt_neox.final_layer_norm";
    char name[120];
    random_add(f, s->is_opt ? "model.decoder.embed_tokens.weight" : "gpt_neox.embed_in.weight",
               s->vocab, s->d, RANDOM_NOISE);
    if (s->is_opt)
        random_add(f, "model.decoder.embed_positions.weight", RANDOM_CONTEXT + 2, s->d,
                   RANDOM_NOISE);
    else
        random_add(f, "embed_out.weight", s->vocab, s->d, RANDOM_NOISE);
    (void)snprintf(name, sizeof name, "%s.weight", norm);
    random_add(f, name, s->d, 0, RANDOM_ONES);
    (void)snprintf(name, sizeof name, "%s.bias", norm);
    random_add(f, name, s->d, 0, RANDOM_ZEROS);
    for (int i = 0; i < s->layers; i++)
        random_layer(f, s, i);
}

static inline void random_config(const char *dir, const struct random_shape *s)
{
    struct err e;
    char *path = io_join(dir, "config.json");
    char *text =
        s->is_opt
            ? xasprintf("{\"model_type\": \"opt\", \"hidden_size\": %d, \"num_hidden_layers\": %d, "
                        "\"num_attention_heads\": %d, \"ffn_dim\": %d, \"vocab_size\": %d, "
                        "\"max_position_embeddings\": %d, \"word_embed_proj_dim\": %d}",
                        s->d, s->layers, s->heads, s->ffn, s->vocab, RANDOM_CONTEXT, s->d)
            : xasprintf("{\"model_type\": \"gpt_neox\", \"hidden_size\": %d, "
                        "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
                        "\"intermediate_size\": %d, \"vocab_size\": %d, "
                        "\"max_position_embeddings\": %d, \"rotary_pct\": 0.25, "
                        "\"use_parallel_residual\": true, \"tie_word_embeddings\": false}",
                        s->d, s->layers, s->heads, s->ffn, s->vocab, RANDOM_CONTEXT);
    bench_must(io_write_file(path, text, strlen(text), &e), &e);
    xfree(text);
    xfree(path);
}

static inline void random_put(const struct random_file *f, const struct random_tensor *t,
                              int64_t from, int64_t n)
{
    const char *src = (const char *)f->pool[t->fill];
    const int64_t pool = (int64_t)RANDOM_POOL * 2;
    for (int64_t at = from; at < from + n;) {
        const int64_t into = (at + t->at) % pool / 128 * 128;
        const int64_t some = from + n - at < pool - into ? from + n - at : pool - into;
        CHECK(pwrite(f->fd, src + into, (size_t)some, f->header + t->at + at) == some);
        at += some;
    }
}

struct random_share {
    const struct random_file *f;
    int index;
};

/* Chunks of all tensors, dealt out in turn. */
static inline void *random_write(void *arg)
{
    const struct random_share *mine = arg;
    int64_t chunk = 0;
    for (int i = 0; i < mine->f->n; i++) {
        const struct random_tensor *t = &mine->f->t[i];
        for (int64_t at = 0; at < t->bytes; at += RANDOM_CHUNK, chunk++)
            if (chunk % RANDOM_THREADS == mine->index)
                random_put(mine->f, t, at,
                           t->bytes - at < RANDOM_CHUNK ? t->bytes - at : RANDOM_CHUNK);
    }
    return NULL;
}

static inline char *random_header(const struct random_file *f)
{
    json_t *o = json_object();
    for (int i = 0; i < f->n; i++) {
        const struct random_tensor *t = &f->t[i];
        json_t *shape = t->cols > 0 ? json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->cols)
                                    : json_pack("[I]", (json_int_t)t->rows);
        json_object_set_new(o, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F16", "shape", shape,
                                      "data_offsets", (json_int_t)t->at,
                                      (json_int_t)(t->at + t->bytes)));
    }
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* Makes the checkpoint in the folder `dir`, which is made too; bytes of its file. */
static inline int64_t random_make(const char *dir, const struct random_shape *s)
{
    struct random_file f = {0};
    struct rng r = {11};
    uint16_t *noise = xmalloc((size_t)RANDOM_POOL * 2), *ones = xmalloc((size_t)RANDOM_POOL * 2);
    for (int i = 0; i < RANDOM_POOL; i++) {
        noise[i] = f32_to_f16((float)(0.02 * rng_normal(&r)));
        ones[i] = f32_to_f16(1.0F);
    }
    f.pool[RANDOM_NOISE] = noise;
    f.pool[RANDOM_ONES] = ones;
    f.pool[RANDOM_ZEROS] = xcalloc((size_t)RANDOM_POOL, 2);
    (void)mkdir(dir, 0700);
    random_config(dir, s);
    random_list(&f, s);
    char *header = random_header(&f), *path = io_join(dir, "model.safetensors");
    const uint64_t length = (strlen(header) + 63) / 64 * 64 - 8;
    uint64_t padded = length < strlen(header) ? length + 64 : length;
    f.fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(f.fd >= 0);
    char *front = xcalloc(padded + 8, 1);
    memset(front, ' ', padded + 8);
    memcpy(front, &padded, 8);
    memcpy(front + 8, header, strlen(header));
    CHECK(pwrite(f.fd, front, padded + 8, 0) == (ssize_t)(padded + 8));
    f.header = (int64_t)padded + 8;
    pthread_t threads[RANDOM_THREADS];
    struct random_share shares[RANDOM_THREADS];
    for (int i = 0; i < RANDOM_THREADS; i++) {
        shares[i] = (struct random_share){&f, i};
        CHECK(pthread_create(&threads[i], NULL, random_write, &shares[i]) == 0);
    }
    for (int i = 0; i < RANDOM_THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(close(f.fd) == 0);
    for (int i = 0; i < 3; i++)
        xfree((void *)f.pool[i]);
    free(header);
    xfree(front);
    xfree(path);
    xfree(f.t);
    return f.bytes + f.header;
}

#endif

/* Tensors of a step that several threads read have the bytes that one thread reads, and its error where they cannot be read. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/support.h"
#include "worker/model/model_open.h"
#include "worker/model/window_fill.h"

struct opened {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
    struct window_fill fill;
};

static void opened_make(const char *dir, int stage_bytes, int n_threads, struct opened *o)
{
    struct err e = {0};
    *o = (struct opened){0};
    cr_assert_eq(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &o->ckpt, &e), ERR_OK);
    cr_assert_eq(kern_open(&(struct kern_options){.device = "cpu", .threads = 1}, &o->k, &e),
                 ERR_OK);
    cr_assert_eq(model_open(o->ckpt, o->k, &o->m, &e), ERR_OK, "%s", e.text);
    o->fill = (struct window_fill){o->ckpt, stage_bytes, n_threads};
}

static void opened_close(struct opened *o)
{
    model_close(o->m);
    kern_close(o->k);
    ckpt_close(o->ckpt);
}

static enum err_code read_both(const struct opened *o, const struct weight_tensor *t,
                               enum err_code *filled, struct err e[2])
{
    const size_t bytes = (size_t)t->src->count * (size_t)o->fill.stage_bytes;
    char *one = xcalloc(bytes + 1, 1), *many = xcalloc(bytes + 1, 1);
    const enum err_code code = window_fill_part(&o->fill, t->src, t->is_transposed, one, &e[0]);
    *filled = window_fill_tensor(&o->fill, t->src, t->is_transposed, many, &e[1]);
    if (code == ERR_OK)
        cr_expect_arr_eq(one, many, bytes + 1, "%s", t->src->name);
    xfree(one);
    xfree(many);
    return code;
}

/* gpt2 stores its layers transposed, pythia does not; 3 threads leave a remainder of lines. */
Test(window_fill, several_threads_read_what_one_reads)
{
    static const char *const models[] = {"sweeps/demo/models/gpt2-s0",
                                         "sweeps/demo/models/pythia-s1"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        for (int stage_bytes = 2; stage_bytes <= 4; stage_bytes += 2)
            for (int n_threads = 1; n_threads <= 3; n_threads++) {
                struct opened o;
                opened_make(support_source(models[i]), stage_bytes, n_threads, &o);
                for (int t = 0; t < o.m->weights.n_tensors; t++) {
                    struct err e[2] = {{0}, {0}};
                    enum err_code filled = ERR_OK;
                    cr_expect_eq(read_both(&o, &o.m->weights.tensors[t], &filled, e), ERR_OK);
                    cr_expect_eq(filled, ERR_OK, "%s", e[1].text);
                }
                opened_close(&o);
            }
}

/* A copy of a checkpoint whose tensor of this name holds a NaN behind its middle. */
static char *spoiled(const char *from, const char *name)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char *dir = support_tmpdir();
    struct err e = {0};
    struct ckpt *c = NULL;
    struct buf b = {0};
    cr_assert_eq(ckpt_open(&(struct model_ref){.name = from, .path = from}, &c, &e), ERR_OK);
    const struct ckpt_tensor *t = ckpt_find(c, name);
    cr_assert_not_null(t);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = xasprintf("%s/%s", from, files[i]), *to = xasprintf("%s/%s", dir, files[i]);
        buf_reset(&b);
        cr_assert_eq(io_read_file(path, (size_t)1 << 26, &b, &e), ERR_OK, "%s", e.text);
        const float nan = __builtin_nanf("");
        if (i == 1)
            memcpy(b.data + t->offset + (size_t)(t->count * 2 / 3) * sizeof nan, &nan, sizeof nan);
        support_write(to, b.data, b.len);
        xfree(path);
        xfree(to);
    }
    buf_release(&b);
    ckpt_close(c);
    return dir;
}

Test(window_fill, what_cannot_be_read_is_told_as_one_thread_tells_it)
{
    const char *name = "transformer.h.1.mlp.c_fc.weight";
    char *dir = spoiled(support_source("sweeps/demo/models/gpt2-s0"), name);
    struct opened o;
    struct err e = {0};
    opened_make(support_source("sweeps/demo/models/gpt2-s0"), 2, 3, &o);
    struct ckpt *c = NULL;
    cr_assert_eq(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &c, &e), ERR_OK);
    int n_refused = 0;
    for (int i = 0; i < o.m->weights.n_tensors; i++) {
        struct weight_tensor t = o.m->weights.tensors[i];
        struct err told[2] = {{0}, {0}};
        enum err_code filled = ERR_OK;
        t.src = ckpt_find(c, t.src->name); /* in the spoiled files */
        cr_assert_not_null(t.src);
        const enum err_code code = read_both(&o, &t, &filled, told);
        cr_expect_eq(code, strcmp(t.src->name, name) == 0 ? ERR_NUMERIC : ERR_OK);
        cr_expect_eq(filled, code);
        cr_expect_str_eq(told[0].text, told[1].text);
        n_refused += code != ERR_OK;
    }
    cr_expect_eq(n_refused, 1);
    ckpt_close(c);
    opened_close(&o);
    support_tmpdir_remove(dir);
}

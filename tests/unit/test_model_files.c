/* Checkpoints as different programs leave them: which stored tensors are the model's, which are copies or buffers, and what
 * config.json may call the same thing. Each case is a small reference model, changed, against the same model unchanged. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/support/mkckpt.h"
#include "tests/support/support.h"
#include "worker/model/model_impl.h"
#include "worker/model/model_open.h"

enum { TEXT = 12 };

/* A directory being changed. */
struct files {
    json_t *config, *header;
    struct buf data;
    char *dir; /* set by files_write */
};

static struct files files_read(const char *family)
{
    char path[300];
    struct err e = {0};
    struct files f = {0};
    struct buf all = {0};
    uint64_t n;
    snprintf(path, sizeof path, "tests/golden/families/%s/config.json", family);
    cr_assert_eq(json_read(support_source(path), 1 << 20, &f.config, &e), ERR_OK, "%s", e.text);
    snprintf(path, sizeof path, "tests/golden/families/%s/model.safetensors", family);
    cr_assert_eq(io_read_file(support_source(path), 1 << 20, &all, &e), ERR_OK, "%s", e.text);
    memcpy(&n, all.data, sizeof n);
    cr_assert_eq(json_parse((struct str){all.data + 8, n}, "header", &f.header, &e), ERR_OK);
    buf_add(&f.data, all.data + 8 + n, all.len - 8 - n);
    buf_release(&all);
    return f;
}

static void files_config(struct files *f, const char *edit)
{
    struct err e = {0};
    json_t *changes = NULL;
    cr_assert_eq(json_parse(str_of(edit), "edit", &changes, &e), ERR_OK, "%s", e.text);
    json_object_update(f->config, changes);
    json_decref(changes);
}

/* A tensor that is `from` again under another name. */
static void files_copy(struct files *f, const char *from, const char *to)
{
    json_t *entry = json_deep_copy(json_object_get(f->header, from));
    cr_assert(entry != NULL, "%s", from);
    json_t *span = json_object_get(entry, "data_offsets");
    const size_t at = (size_t)json_integer_value(json_array_get(span, 0));
    const size_t n = (size_t)json_integer_value(json_array_get(span, 1)) - at;
    char *bytes = xcalloc(n, 1);
    memcpy(bytes, f->data.data + at, n);
    json_array_set_new(span, 0, json_integer((json_int_t)f->data.len));
    json_array_set_new(span, 1, json_integer((json_int_t)(f->data.len + n)));
    buf_add(&f->data, bytes, n);
    json_object_set_new(f->header, to, entry);
    xfree(bytes);
}

static void files_rename(struct files *f, const char *from, const char *to)
{
    json_object_set(f->header, to, json_object_get(f->header, from));
    json_object_del(f->header, from);
}

/* Element 1 of the last tensor that was copied, an fp32 matrix, becomes 2. */
static void files_spoil_last(struct files *f, const char *name)
{
    const float two = 2;
    const json_t *span = json_object_get(json_object_get(f->header, name), "data_offsets");
    memcpy(f->data.data + json_integer_value(json_array_get(span, 0)) + 4, &two, sizeof two);
}

static void files_write(struct files *f)
{
    struct buf config = {0}, header = {0};
    f->dir = support_tmpdir();
    json_append(&config, f->config, false);
    json_append(&header, f->header, false);
    mk_put(f->dir, "config.json", config);
    mk_put(f->dir, "model.safetensors", mk_safetensors(header.data, f->data.data, f->data.len));
    buf_release(&header);
}

static void files_release(struct files *f)
{
    json_decref(f->config);
    json_decref(f->header);
    buf_release(&f->data);
    if (f->dir != NULL)
        support_tmpdir_remove(f->dir);
    *f = (struct files){0};
}

/* What a test compares of a model. */
struct seen {
    enum err_code code;
    struct err e;
    int64_t n_params;
    bool is_tied;
    int64_t n;
    float *logits; /* [TEXT * vocab] */
    struct wiring wiring;
};

static void look_inside(struct model *m, struct seen *s)
{
    struct bits bits;
    struct config c = config_default();
    int32_t text[TEXT];
    c.k = 32;
    config_normalize(&c);
    for (int i = 0; i < TEXT; i++)
        text[i] = (i * 7 + 3) % 29;
    s->n_params = model_get_info(m)->n_params;
    s->is_tied = m->wiring.is_tied;
    s->wiring = m->wiring;
    s->n = TEXT * model_get_info(m)->vocab;
    s->logits = xcalloc((size_t)s->n, sizeof *s->logits);
    cr_assert_eq(model_set_config(m, &c, &bits, &s->e), ERR_OK, "%s", s->e.text);
    cr_assert_eq(model_logits(m, text, TEXT, s->logits, &s->e), ERR_OK, "%s", s->e.text);
}

/* `f` is released. */
static struct seen look(struct files *f)
{
    struct ckpt *ckpt = NULL;
    struct kern *k = NULL;
    struct model *m = NULL;
    struct seen s = {0};
    files_write(f);
    s.code = ckpt_open(&(struct model_ref){.name = "m", .path = f->dir}, &ckpt, &s.e);
    if (s.code == ERR_OK)
        s.code = kern_open(&(struct kern_options){.device = "cpu", .threads = 1}, &k, &s.e);
    if (s.code == ERR_OK)
        s.code = model_open(ckpt, k, &m, &s.e);
    if (s.code == ERR_OK)
        look_inside(m, &s);
    model_close(m);
    kern_close(k);
    ckpt_close(ckpt);
    files_release(f);
    return s;
}

static struct seen look_at(const char *family)
{
    struct files f = files_read(family);
    return look(&f);
}

/* The same model; both are released. */
static void expect_same(struct seen *got, struct seen *wanted, const char *what)
{
    cr_assert_eq(got->code, ERR_OK, "%s: %s", what, got->e.text);
    cr_assert_eq(wanted->code, ERR_OK, "%s: %s", what, wanted->e.text);
    cr_expect_eq(got->n_params, wanted->n_params, "%s: %lld parameters, expected %lld", what,
                 (long long)got->n_params, (long long)wanted->n_params);
    cr_expect_eq(got->is_tied, wanted->is_tied, "%s", what);
    cr_assert_eq(got->n, wanted->n, "%s", what);
    cr_expect(memcmp(got->logits, wanted->logits, (size_t)got->n * sizeof *got->logits) == 0,
              "%s: other logits", what);
    xfree(got->logits);
    xfree(wanted->logits);
}

static void expect_refused(struct seen *got, enum err_code code, const char *says)
{
    cr_expect_eq(got->code, code, "%s: %s", says, got->e.text);
    cr_expect(strstr(got->e.text, says) != NULL, "expected '%s' in: %s", says, got->e.text);
    xfree(got->logits);
}

/* ---- the head ---- */

static const struct {
    const char *family, *embed, *head;
} tied[] = {
    {"gpt2-no-scale", "transformer.wte.weight", "lm_head.weight"},
    {"opt-prenorm-proj", "model.decoder.embed_tokens.weight", "lm_head.weight"},
    {"bloom-5-heads", "transformer.word_embeddings.weight", "lm_head.weight"},
    {"neox-sequential-tied", "gpt_neox.embed_in.weight", "embed_out.weight"},
};

Test(model_files, a_stored_head_equal_to_the_embedding_is_tied)
{
    for (size_t i = 0; i < ARRAY_LEN(tied); i++) {
        struct files f = files_read(tied[i].family);
        files_copy(&f, tied[i].embed, tied[i].head);
        struct seen got = look(&f), wanted = look_at(tied[i].family);
        expect_same(&got, &wanted, tied[i].family);
    }
}

/* transformers compares the two and does not tie what differs. */
Test(model_files, a_stored_head_with_other_values_is_a_head_of_its_own)
{
    for (size_t i = 0; i < ARRAY_LEN(tied); i++) {
        struct seen seen[2];
        for (int said = 0; said < 2; said++) {
            struct files f = files_read(tied[i].family);
            files_copy(&f, tied[i].embed, tied[i].head);
            files_spoil_last(&f, tied[i].head);
            files_config(&f, said ? "{\"tie_word_embeddings\": true}"
                                  : "{\"tie_word_embeddings\": false}");
            seen[said] = look(&f);
        }
        struct seen plain = look_at(tied[i].family);
        cr_expect_gt(seen[1].n_params, plain.n_params);
        cr_expect_not(seen[1].is_tied);
        xfree(plain.logits);
        expect_same(&seen[1], &seen[0], tied[i].family);
    }
}

/* Of two tensors in one storage safetensors' save_model keeps one. */
Test(model_files, a_tied_head_alone_is_the_embedding_too)
{
    for (size_t i = 0; i < ARRAY_LEN(tied); i++) {
        struct files f = files_read(tied[i].family);
        files_rename(&f, tied[i].embed, tied[i].head);
        struct seen got = look(&f), wanted = look_at(tied[i].family);
        expect_same(&got, &wanted, tied[i].family);
    }
    struct files f = files_read("gpt2-no-scale");
    files_rename(&f, "transformer.wte.weight", "lm_head.weight");
    files_config(&f, "{\"tie_word_embeddings\": false}");
    struct seen got = look(&f);
    expect_refused(&got, ERR_FORMAT, "wte.weight is missing");
}

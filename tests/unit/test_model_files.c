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

/* ---- tensors that are not weights ---- */

static struct seen look_with(const char *family, const char *from, const char *name)
{
    struct files f = files_read(family);
    files_copy(&f, from, name);
    return look(&f);
}

Test(model_files, buffers_that_older_programs_stored_change_nothing)
{
    static const struct {
        const char *family, *from, *name;
    } all[] = {
        {"gpt2-no-scale", "transformer.ln_f.bias", "transformer.h.0.attn.bias"},
        {"gpt2-no-scale", "transformer.ln_f.bias", "h.1.attn.masked_bias"},
        {"opt-prenorm-proj", "model.decoder.project_in.weight", "model.decoder.version"},
        {"opt-prenorm-proj", "model.decoder.project_in.weight", "decoder.version"},
        {"bloom-5-heads", "transformer.ln_f.bias",
         "transformer.h.0.self_attention.scale_mask_softmax.causal_mask"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias",
         "gpt_neox.layers.1.attention.masked_bias"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias",
         "gpt_neox.layers.0.attention.norm_factor"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias",
         "layers.0.attention.rotary_emb.cos_cached"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias",
         "layers.0.attention.rotary_emb.sin_cached"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias", "gpt_neox.rotary_emb.inv_freq"},
        {"neox-full-rotary-base", "gpt_neox.final_layer_norm.bias", "rotary_emb.inv_freq"},
        {"neox-full-rotary-base", "embed_out.weight", "lm_head.weight"},
        {"neox-sequential-tied", "gpt_neox.embed_in.weight", "lm_head.weight"},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct seen got = look_with(all[i].family, all[i].from, all[i].name);
        struct seen wanted = look_at(all[i].family);
        expect_same(&got, &wanted, all[i].name);
    }
}

Test(model_files, a_tensor_that_might_be_a_weight_is_refused)
{
    static const char *const names[] = {"gpt_neox.layers.0.attention.my_rotary_emb.inv_freq",
                                        "gpt_neox.layers.0.extra.weight", "version",
                                        "embed_in.weight"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct seen got = look_with("neox-full-rotary-base", "gpt_neox.embed_in.weight", names[i]);
        expect_refused(&got, ERR_FORMAT, names[i]);
    }
    struct seen got =
        look_with("neox-full-rotary-base", "gpt_neox.embed_in.weight", "lm_head.weight");
    expect_refused(&got, ERR_FORMAT, "lm_head.weight");
}

/* ---- names in config.json ---- */

/* transformers knows the common names in every family and lets them win; BLOOM's n_embed wins over hidden_size. */
Test(model_files, sizes_are_found_under_every_name_that_transformers_knows)
{
    static const struct {
        const char *family, *edit;
    } all[] = {
        {"gpt2-no-scale", "{\"n_embd\": null, \"hidden_size\": 12, \"n_layer\": null, "
                          "\"num_hidden_layers\": 2, \"n_head\": null, \"num_attention_heads\": 3, "
                          "\"n_positions\": null, \"max_position_embeddings\": 40}"},
        {"gpt2-no-scale", "{\"n_embd\": 24, \"hidden_size\": 12, \"n_layer\": 1, "
                          "\"num_hidden_layers\": 2, \"n_head\": 4, \"num_attention_heads\": 3, "
                          "\"n_positions\": 7, \"max_position_embeddings\": 40}"},
        {"bloom-5-heads", "{\"hidden_size\": 40, \"n_embed\": 20, \"n_layer\": 1, "
                          "\"num_hidden_layers\": 2, \"n_head\": 2, \"num_attention_heads\": 5}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct files f = files_read(all[i].family);
        files_config(&f, all[i].edit);
        struct seen got = look(&f), wanted = look_at(all[i].family);
        expect_same(&got, &wanted, all[i].family);
    }
}

/* ---- rotary settings ---- */

static struct seen look_neox(const char *edit)
{
    struct files f = files_read("neox-no-attention-bias");
    json_object_del(f.config, "rope_parameters");
    files_config(&f, edit);
    return look(&f);
}

static void expect_rotary(const char *edit, int dims, float base)
{
    struct seen s = look_neox(edit);
    cr_expect_eq(s.code, ERR_OK, "%s: %s", edit, s.e.text);
    cr_expect_eq(s.wiring.rotary_dims, dims, "%s: %d dimensions, expected %d", edit,
                 s.wiring.rotary_dims, dims);
    cr_expect_eq(s.wiring.rotary_base, base, "%s: base %g", edit, (double)s.wiring.rotary_base);
    xfree(s.logits);
}

/* Heads of 8. What transformers 5.24 makes of each. */
Test(model_files, rotary_settings_are_found_wherever_transformers_looks)
{
    expect_rotary("{}", 2, 10000);
    expect_rotary("{\"rotary_pct\": 0.5, \"rotary_emb_base\": 700}", 4, 700);
    expect_rotary("{\"rope_parameters\": {}}", 2, 10000);
    expect_rotary("{\"rope_parameters\": {\"type\": \"default\", \"rope_theta\": 500}}", 2, 500);
    expect_rotary("{\"rope_parameters\": {\"rope_type\": \"default\", \"type\": \"linear\"}}", 2,
                  10000);
    expect_rotary("{\"rope_parameters\": {\"partial_rotary_factor\": 1.0}, \"rotary_pct\": 0.5}", 8,
                  10000);
    expect_rotary("{\"rope_scaling\": {}}", 2, 10000);
    expect_rotary("{\"rope_scaling\": {}, \"rope_parameters\": {\"rope_theta\": 77}}", 2, 77);
    expect_rotary("{\"rope_scaling\": {\"type\": \"default\", \"rope_theta\": 300}, "
                  "\"rope_parameters\": {\"rope_theta\": 77, \"partial_rotary_factor\": 0.5}}",
                  2, 300);
    expect_rotary("{\"rope_theta\": 500, \"rotary_emb_base\": 500}", 2, 500);
    expect_rotary("{\"partial_rotary_factor\": 0.25}", 2, 10000);
}

Test(model_files, rotary_settings_that_would_be_misread_are_refused)
{
    static const struct {
        const char *edit, *says;
        enum err_code code;
    } bad[] = {
        {"{\"rope_parameters\": {\"type\": \"linear\"}}", "linear", ERR_UNSUPPORTED},
        {"{\"rope_parameters\": {\"rope_type\": \"yarn\"}}", "yarn", ERR_UNSUPPORTED},
        {"{\"rope_parameters\": {\"rope_type\": null}}", "rope_type", ERR_FORMAT},
        {"{\"rope_parameters\": {\"rope_type\": 3}}", "rope_type", ERR_FORMAT},
        {"{\"rope_parameters\": {\"type\": [\"linear\"]}}", "type", ERR_FORMAT},
        {"{\"rope_parameters\": 5}", "rope_parameters", ERR_FORMAT},
        {"{\"rope_scaling\": {\"type\": \"dynamic\"}}", "dynamic", ERR_UNSUPPORTED},
        {"{\"rope_scaling\": [1]}", "rope_scaling", ERR_FORMAT},
        {"{\"rotary_pct\": 1.2}", "1.2", ERR_UNSUPPORTED},
        {"{\"rotary_pct\": 1e29}", "1e+29", ERR_UNSUPPORTED},
        {"{\"rotary_pct\": 1.00000001}", "at most 1", ERR_UNSUPPORTED},
        {"{\"rope_theta\": 500}", "rope_theta", ERR_UNSUPPORTED},
        {"{\"rope_theta\": 500, \"rotary_emb_base\": 700}", "700", ERR_UNSUPPORTED},
        {"{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor", ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct seen s = look_neox(bad[i].edit);
        cr_expect_eq(s.code, bad[i].code, "%s: %s", bad[i].edit, s.e.text);
        expect_refused(&s, bad[i].code, bad[i].says);
    }
}

/* int(100 * 0.58) is 57 in double and 58 in float; int(50 * 0.28) is 14 in both. */
Test(model_files, the_rotary_part_of_a_head_is_cut_off_as_python_does)
{
    static const struct {
        int head_dim;
        double share;
        int dims; /* 0: odd, refused */
    } all[] = {{100, 0.58, 0}, {50, 0.28, 14}, {200, 0.29, 0}, {100, 0.57, 56}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct err e = {0};
        struct wiring w;
        const struct family_ops *ops;
        const char *label;
        char *text = xasprintf("{\"model_type\": \"gpt_neox\", \"hidden_size\": %d, "
                               "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                               "\"intermediate_size\": 8, \"vocab_size\": 9, \"rotary_pct\": %g}",
                               2 * all[i].head_dim, all[i].share);
        json_t *c = NULL;
        cr_assert_eq(json_parse(str_of(text), "config", &c, &e), ERR_OK, "%s", e.text);
        cr_assert_eq(family_find(c, "config", &label, &ops, &e), ERR_OK);
        enum err_code code = family_wire(ops, c, "config", &w, &e);
        cr_expect_eq(code, all[i].dims > 0 ? ERR_OK : ERR_UNSUPPORTED, "%s: %s", text, e.text);
        if (code == ERR_OK)
            cr_expect_eq(w.rotary_dims, all[i].dims, "%s: %d", text, w.rotary_dims);
        json_decref(c);
        xfree(text);
    }
}

#include "schema/catalog.h"

#include <stdio.h>
#include <string.h>

/* OPT's table of positions has two rows that no token uses: positions start at 2. */
enum { OPT_POSITION_OFFSET = 2 };

static int64_t rows_of_positions(enum arch a, int64_t ctx_tok)
{
    switch (a) {
    case ARCH_gpt2:
        return ctx_tok;
    case ARCH_opt:
        return ctx_tok + OPT_POSITION_OFFSET;
    case ARCH_neox:
    case ARCH_bloom:
    case ARCH_COUNT:
        return 0;
    }
    return 0;
}

/* The same rule as rows_of_positions, as a constant expression for the table. */
#define POSITION_ROWS(arch, ctx)                                                                   \
    (ARCH_##arch == ARCH_gpt2 ? (ctx) : ARCH_##arch == ARCH_opt ? (ctx) + OPT_POSITION_OFFSET : 0)

static const struct model_facts models[] = {
#define X(hub, family, size, arch, layers, hidden, heads, vocab, ctx, embed, final_norm, bytes,    \
          files)                                                                                   \
    {hub,                                                                                          \
     family,                                                                                       \
     size,                                                                                         \
     {ARCH_##arch, layers, hidden, heads, INT64_C(4) * (hidden), vocab, ctx,                       \
      POSITION_ROWS(arch, ctx), embed, final_norm, ARCH_##arch != ARCH_neox},                      \
     bytes,                                                                                        \
     MODEL_FILES_##files},
#include "schema/model.def"
#undef X
};

static const char *const arch_labels[] = {
#define X(id, label, model_type) label,
#include "schema/family.def"
#undef X
};

static const char *const model_types[] = {
#define X(id, label, model_type) model_type,
#include "schema/family.def"
#undef X
};

const char *arch_label(enum arch a)
{
    CHECK((unsigned)a < ARCH_COUNT);
    return arch_labels[a];
}

int catalog_size(void)
{
    return (int)ARRAY_LEN(models);
}

const struct model_facts *catalog_at(int i)
{
    CHECK(i >= 0 && i < catalog_size());
    return &models[i];
}

static void cut_suffix(struct str *s, const char *suffix)
{
    if (str_ends(*s, suffix))
        s->n -= strlen(suffix);
}

const struct model_facts *catalog_find(struct str hub)
{
    if (str_starts(hub, "EleutherAI/pythia-")) {
        cut_suffix(&hub, "-v0");
        cut_suffix(&hub, "-deduped");
    }
    for (int i = 0; i < catalog_size(); i++) {
        if (str_eqz(hub, models[i].hub))
            return &models[i];
    }
    return NULL;
}

/* ---- config.json ---- */

/* Far above any model, and small enough that no count of parameters can overflow. */
enum { LAYERS_MAX = 1 << 12, WIDTH_MAX = 1 << 22, ROWS_MAX = 1 << 24 };

/* Families name one thing differently: of "a|b", the first that is there and not null. */
static enum err_code need_dim(const json_t *c, const char *keys, const char *what, int64_t max,
                              int64_t *out, struct err *e)
{
    struct str rest = str_of(keys), part;
    while (str_next_field(&rest, '|', &part)) {
        char key[64];
        snprintf(key, sizeof(key), "%.*s", (int)part.n, part.p);
        const json_t *v = json_object_get(c, key);
        if (v != NULL && !json_is_null(v))
            return json_need_int(c, key, what, 1, max, out, e);
    }
    return err_set(e, ERR_FORMAT, "%s: \"%s\" is missing", what, keys);
}

static enum err_code read_arch(const json_t *c, const char *what, enum arch *out, struct err *e)
{
    const char *type = NULL;
    TRY(json_need_str(c, "model_type", what, &type, e));
    for (int i = 0; i < ARCH_COUNT; i++) {
        if (strcmp(type, model_types[i]) == 0) {
            *out = (enum arch)i;
            return ERR_OK;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: model_type \"%.60s\" is none of gpt2, opt, gpt_neox, bloom", what, type);
}

/* Absent, null and 0 mean the family's usual width. */
static enum err_code read_ffn(const json_t *c, const char *what, struct model_shape *s,
                              struct err *e)
{
    static const char *const keys[ARCH_COUNT] = {
        [ARCH_gpt2] = "n_inner", [ARCH_opt] = "ffn_dim", [ARCH_neox] = "intermediate_size"};
    s->ffn = 4 * s->hidden;
    const char *key = keys[s->arch];
    if (key == NULL || !json_is_integer(json_object_get(c, key)))
        return ERR_OK;
    return json_need_int(c, key, what, 1, WIDTH_MAX, &s->ffn, e);
}

enum err_code catalog_from_config(const json_t *config, const char *what, struct model_shape *out,
                                  struct err *e)
{
    static const struct {
        const char *hidden, *layers, *heads, *ctx;
    } keys[ARCH_COUNT] = {
        [ARCH_gpt2] = {"hidden_size|n_embd", "num_hidden_layers|n_layer",
                       "num_attention_heads|n_head", "max_position_embeddings|n_positions|n_ctx"},
        [ARCH_opt] = {"hidden_size", "num_hidden_layers", "num_attention_heads",
                      "max_position_embeddings"},
        [ARCH_neox] = {"hidden_size", "num_hidden_layers", "num_attention_heads",
                       "max_position_embeddings"},
        [ARCH_bloom] = {"n_embed|hidden_size", "num_hidden_layers|n_layer",
                        "num_attention_heads|n_head", "seq_length"},
    };
    struct model_shape s = {.has_final_norm = true};
    if (!json_is_object(config))
        return err_set(e, ERR_FORMAT, "%s: expected a JSON object", what);
    TRY(read_arch(config, what, &s.arch, e));
    TRY(need_dim(config, keys[s.arch].hidden, what, WIDTH_MAX, &s.hidden, e));
    TRY(need_dim(config, keys[s.arch].layers, what, LAYERS_MAX, &s.layers, e));
    TRY(need_dim(config, keys[s.arch].heads, what, WIDTH_MAX, &s.heads, e));
    TRY(need_dim(config, "vocab_size", what, ROWS_MAX, &s.vocab, e));
    /* Published BLOOM configurations may lack their training length. */
    s.ctx_tok = 2048;
    if (s.arch != ARCH_bloom || json_object_get(config, "seq_length") != NULL)
        TRY(need_dim(config, keys[s.arch].ctx, what, ROWS_MAX, &s.ctx_tok, e));
    TRY(read_ffn(config, what, &s, e));
    s.position_rows = rows_of_positions(s.arch, s.ctx_tok);
    s.embed = s.hidden;
    s.is_tied = json_opt_bool(config, "tie_word_embeddings", s.arch != ARCH_neox);
    if (s.arch == ARCH_opt) {
        s.embed = json_opt_int(config, "word_embed_proj_dim", s.hidden);
        s.has_final_norm = json_opt_bool(config, "do_layer_norm_before", true) &&
                           !json_opt_bool(config, "_remove_final_layer_norm", false);
        if (s.embed < 1 || s.embed > WIDTH_MAX)
            return err_set(e, ERR_FORMAT, "%s: \"word_embed_proj_dim\" is %lld, expected 1 to %d",
                           what, (long long)s.embed, WIDTH_MAX);
    }
    *out = s;
    return ERR_OK;
}

/* ---- counts ---- */

int64_t shape_n_linear(const struct model_shape *s)
{
    int64_t layer = 4 * s->hidden * s->hidden + 2 * s->hidden * s->ffn;
    int64_t projections = s->embed != s->hidden ? 2 * s->embed * s->hidden : 0;
    return s->layers * layer + projections;
}

int64_t shape_n_embed(const struct model_shape *s)
{
    return s->vocab * s->embed * (s->is_tied ? 1 : 2);
}

int64_t shape_n_params(const struct model_shape *s)
{
    /* Biases of the four attention matrices and the two feed-forward ones, two norms. */
    int64_t vectors = 4 * s->hidden + s->ffn + s->hidden + 4 * s->hidden;
    int64_t norms = (s->has_final_norm ? 2 * s->hidden : 0) +
                    (s->arch == ARCH_bloom ? 2 * s->hidden : 0); /* BLOOM norms its embeddings */
    return shape_n_linear(s) + s->layers * vectors + shape_n_embed(s) +
           s->position_rows * s->hidden + norms;
}

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "schema/catalog.h"
#include "tests/support/support.h"

static struct err e;

/* Models spec, section 1: total, and total without embeddings, positions and projections. */
static const struct {
    const char *hub;
    int64_t total, non_embedding;
} models[] = {
    {"openai-community/gpt2", 124439808, 85056000},
    {"openai-community/gpt2-medium", 354823168, 302311424},
    {"openai-community/gpt2-large", 774030080, 708390400},
    {"openai-community/gpt2-xl", 1557611200, 1475561600},
    {"facebook/opt-125m", 125239296, 85056000},
    {"facebook/opt-350m", 331196416, 303357952},
    {"facebook/opt-1.3b", 1315758080, 1208602624},
    {"facebook/opt-2.7b", 2651596800, 2517652480},
    {"facebook/opt-6.7b", 6658473984, 6444163072},
    {"facebook/opt-13b", 12853473280, 12585584640},
    {"facebook/opt-30b", 29974540288, 29599496192},
    {"facebook/opt-66b", 65719701504, 65237501952},
    {"metaseq/opt-175b", 174604468224, 173961535488},
    {"EleutherAI/pythia-70m", 70426624, 18915328},
    {"EleutherAI/pythia-160m", 162322944, 85056000},
    {"EleutherAI/pythia-410m", 405334016, 302311424},
    {"EleutherAI/pythia-1b", 1011781632, 805736448},
    {"EleutherAI/pythia-1.4b", 1414647808, 1208602624},
    {"EleutherAI/pythia-2.8b", 2775208960, 2517652480},
    {"EleutherAI/pythia-6.9b", 6857302016, 6444163072},
    {"EleutherAI/pythia-12b", 11846072320, 11327027200},
    {"EleutherAI/gpt-neox-20b", 20554567680, 19934859264},
    {"bigscience/bloom-560m", 559214592, 302313472},
    {"bigscience/bloom-1b1", 1065314304, 679962624},
    {"bigscience/bloom-1b7", 1722408960, 1208606720},
    {"bigscience/bloom-3b", 3002557440, 2360304640},
    {"bigscience/bloom-7b1", 7069016064, 6041411584},
    {"bigscience/bloom", 176247271424, 172650655744},
    {"bigscience/bloomz-560m", 559214592, 302313472},
    {"bigscience/bloomz-1b1", 1065314304, 679962624},
    {"bigscience/bloomz-1b7", 1722408960, 1208606720},
    {"bigscience/bloomz-3b", 3002557440, 2360304640},
    {"bigscience/bloomz-7b1", 7069016064, 6041411584},
    {"bigscience/bloomz", 176247271424, 172650655744},
};

Test(catalog, parameter_counts_are_the_published_ones)
{
    cr_expect_eq(catalog_size(), (int)ARRAY_LEN(models), "every model of the table and no other");
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        const struct model_facts *f = catalog_find(str_of(models[i].hub));
        cr_assert_not_null(f, "%s", models[i].hub);
        const struct model_shape *s = &f->shape;
        cr_expect_eq(shape_n_params(s), models[i].total, "%s", models[i].hub);
        int64_t rest = shape_n_params(s) - shape_n_embed(s) - s->position_rows * s->hidden;
        cr_expect_eq(rest, models[i].non_embedding, "%s: %lld", models[i].hub, (long long)rest);
    }
}

/* Quantization spec, section 7: the table of total bits at k=4, block 64. */
static const struct {
    const char *hub;
    int64_t linear, embed, full;
} bits_rows[] = {
    {"openai-community/gpt2", 84934656, 38597376, 993054720},
    {"openai-community/gpt2-medium", 301989888, 51463168, 2128789504},
    {"openai-community/gpt2-large", 707788800, 64328960, 4067962880},
    {"openai-community/gpt2-xl", 1474560000, 80411200, 7595699200},
    {"facebook/opt-125m", 84934656, 38608896, 1005846528},
    {"facebook/opt-350m", 303038464, 25739264, 1738440704},
    {"facebook/opt-1.3b", 1207959552, 102957056, 6858604544},
    {"facebook/opt-2.7b", 2516582400, 128696320, 12855705600},
    {"facebook/opt-6.7b", 6442450944, 205914112, 30836785152},
    {"facebook/opt-13b", 12582912000, 257392640, 57806356480},
    {"EleutherAI/pythia-70m-v0", 18874368, 51511296, 905052160},
    {"EleutherAI/pythia-160m-v0", 84934656, 77266944, 1599184896},
    {"EleutherAI/pythia-410m-v0", 301989888, 103022592, 2936963072},
    {"EleutherAI/pythia-1b-v0", 805306368, 206045184, 6726156288},
    {"EleutherAI/pythia-1.4b-v0", 1207959552, 206045184, 8440840192},
    {"EleutherAI/pythia-2.8b-v0", 2516582400, 257556480, 14833500160},
    {"EleutherAI/pythia-6.9b-v0", 6442450944, 413138944, 34018033664},
    {"EleutherAI/pythia-12b-v0", 11324620800, 519045120, 56472862720},
    {"bigscience/bloom-560m", 301989888, 256901120, 5399052288},
    {"bigscience/bloom-1b1", 679477248, 385351680, 9061171200},
    {"bigscience/bloom-1b7", 1207959552, 513802240, 13365018624},
    {"bigscience/bloom-3b", 2359296000, 642252800, 20319191040},
    {"bigscience/bloom-7b1", 6039797760, 1027604480, 42136633344},
};

Test(catalog, linear_weights_and_total_bits_are_those_of_the_table)
{
    for (size_t i = 0; i < ARRAY_LEN(bits_rows); i++) {
        const struct model_facts *f = catalog_find(str_of(bits_rows[i].hub));
        cr_assert_not_null(f, "%s", bits_rows[i].hub);
        int64_t linear = shape_n_linear(&f->shape);
        cr_expect_eq(linear, bits_rows[i].linear, "%s", bits_rows[i].hub);
        cr_expect_eq(shape_n_embed(&f->shape), bits_rows[i].embed, "%s", bits_rows[i].hub);
        /* 4.25 bits: every one of these tensors is a multiple of 64 long. */
        int64_t full = linear * 17 / 4 + 16 * (shape_n_params(&f->shape) - linear);
        cr_expect_eq(full, bits_rows[i].full, "%s", bits_rows[i].hub);
    }
}

Test(catalog, variants_of_pythia_share_a_row_and_strangers_have_none)
{
    const struct model_facts *f = catalog_find(STR("EleutherAI/pythia-410m"));
    cr_assert_not_null(f);
    cr_expect_eq(catalog_find(STR("EleutherAI/pythia-410m-v0")), f);
    cr_expect_eq(catalog_find(STR("EleutherAI/pythia-410m-deduped")), f);
    cr_expect_eq(catalog_find(STR("EleutherAI/pythia-410m-deduped-v0")), f);
    cr_expect_null(catalog_find(STR("EleutherAI/pythia-411m")));
    cr_expect_null(catalog_find(STR("facebook/opt-125m-v0")));
    cr_expect_null(catalog_find((struct str){NULL, 0}));
}

static json_t *parsed(const char *text)
{
    json_t *j = NULL;
    cr_assert_eq(json_parse(str_of(text), "test", &j, &e), ERR_OK, "%s", e.text);
    return j;
}

/* config.json of the published models, without what does not matter here. */
Test(catalog, config_json_gives_the_shape_of_the_catalog)
{
    static const struct {
        const char *hub, *config;
    } rows[] = {
        {"openai-community/gpt2",
         "{\"model_type\": \"gpt2\", \"n_embd\": 768, \"n_layer\": 12, \"n_head\": 12,"
         "\"n_positions\": 1024, \"n_inner\": null, \"vocab_size\": 50257}"},
        {"facebook/opt-350m",
         "{\"model_type\": \"opt\", \"hidden_size\": 1024, \"num_hidden_layers\": 24, "
         "\"num_attention_heads\": 16,"
         "\"ffn_dim\": 4096, \"max_position_embeddings\": 2048, \"vocab_size\": 50272,"
         "\"word_embed_proj_dim\": 512, \"do_layer_norm_before\": false}"},
        {"EleutherAI/pythia-70m",
         "{\"model_type\": \"gpt_neox\", \"hidden_size\": 512, \"num_hidden_layers\": 6,"
         "\"num_attention_heads\": 8, \"intermediate_size\": 2048,"
         "\"max_position_embeddings\": 2048, \"vocab_size\": 50304}"},
        {"bigscience/bloom", "{\"model_type\": \"bloom\", \"n_embed\": 14336, \"n_layer\": 70,"
                             "\"num_attention_heads\": 112, \"vocab_size\": 250880}"},
        /* By transformers' common names; and where both are there, the one that it lets win. */
        {"openai-community/gpt2",
         "{\"model_type\": \"gpt2\", \"hidden_size\": 768, \"num_hidden_layers\": 12,"
         "\"num_attention_heads\": 12, \"max_position_embeddings\": 1024, \"vocab_size\": 50257}"},
        {"openai-community/gpt2",
         "{\"model_type\": \"gpt2\", \"n_embd\": 64, \"hidden_size\": 768, \"n_layer\": 1,"
         "\"num_hidden_layers\": 12, \"n_head\": 2, \"num_attention_heads\": 12,"
         "\"n_positions\": 1024, \"n_ctx\": 512, \"vocab_size\": 50257}"},
        {"bigscience/bloom",
         "{\"model_type\": \"bloom\", \"n_embed\": 14336, \"hidden_size\": 64, \"n_layer\": 1,"
         "\"num_hidden_layers\": 70, \"n_head\": 4, \"num_attention_heads\": 112,"
         "\"vocab_size\": 250880}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *j = parsed(rows[i].config);
        struct model_shape s;
        cr_assert_eq(catalog_from_config(j, "test", &s, &e), ERR_OK, "%s: %s", rows[i].hub, e.text);
        const struct model_shape *want = &catalog_find(str_of(rows[i].hub))->shape;
        cr_expect_eq(shape_n_params(&s), shape_n_params(want), "%s", rows[i].hub);
        cr_expect_eq(shape_n_linear(&s), shape_n_linear(want), "%s", rows[i].hub);
        cr_expect_eq(s.heads, want->heads, "%s", rows[i].hub);
        cr_expect_eq(s.ctx_tok, want->ctx_tok, "%s", rows[i].hub);
        json_decref(j);
    }
}

Test(catalog, hostile_configs_are_errors)
{
    static const struct {
        const char *config;
        enum err_code code;
    } rows[] = {
        {"[]", ERR_FORMAT},
        {"{}", ERR_FORMAT},
        {"{\"model_type\": \"llama\"}", ERR_UNSUPPORTED},
        {"{\"model_type\": \"gpt2\"}", ERR_FORMAT},
        {"{\"model_type\": \"gpt2\", \"n_embd\": 768, \"n_layer\": 9223372036854775807, "
         "\"n_head\": 12,"
         "\"n_positions\": 1024, \"vocab_size\": 50257}",
         ERR_FORMAT},
        {"{\"model_type\": \"opt\", \"hidden_size\": 64, \"num_hidden_layers\": 2, "
         "\"num_attention_heads\": 2,"
         "\"max_position_embeddings\": 64, \"vocab_size\": 99, \"word_embed_proj_dim\": -5}",
         ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *j = parsed(rows[i].config);
        struct model_shape s;
        cr_expect_eq(catalog_from_config(j, "test", &s, &e), rows[i].code, "%s", rows[i].config);
        json_decref(j);
    }
}

/* The weights of a checkpoint take what its shape says: 2 bytes a parameter (4 in fp32 files) and a header. */
Test(catalog, shapes_of_real_checkpoints_match_their_files)
{
    static const struct {
        const char *dir;
        int bytes;
    } rows[] = {{"models/pythia-s0", 2},
                {"models/pythia-s2", 2},
                {"models/bloom-s1", 2},
                {"models/gpt2-s0", 4},
                {"models/gpt2-s2", 2}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char rel[128];
        snprintf(rel, sizeof(rel), "%s/config.json", rows[i].dir);
        const char *path = support_shared(rel);
        if (path == NULL)
            cr_skip_test("reference models are not here");
        json_t *j = NULL;
        struct model_shape s;
        cr_assert_eq(json_read(path, 1 << 20, &j, &e), ERR_OK, "%s", e.text);
        cr_assert_eq(catalog_from_config(j, path, &s, &e), ERR_OK, "%s", e.text);
        json_decref(j);
        snprintf(rel, sizeof(rel), "%s/model.safetensors", rows[i].dir);
        double files = (double)io_file_size(support_shared(rel));
        double weights = (double)(rows[i].bytes * shape_n_params(&s));
        cr_expect(files >= weights && files < weights + 40000, "%s: %.0f, file %.0f", rows[i].dir,
                  weights, files);
    }
}

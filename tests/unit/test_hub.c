/* hub: ids, the local cache's layout, and the advice when a model is absent. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "schema/hub.h"
#include "tests/support/mkckpt.h"
#include "worker/ckpt/ckpt.h"

Test(hub, ids_are_org_slash_name_with_an_optional_revision)
{
    static const struct {
        const char *text, *repo, *revision;
    } good[] = {
        {"facebook/opt-125m", "facebook/opt-125m", NULL},
        {"EleutherAI/pythia-70m-v0@main", "EleutherAI/pythia-70m-v0", "main"},
        {"a/b@refs/pr/1", "a/b", "refs/pr/1"},
        {"a/b.c_d@0123abcd", "a/b.c_d", "0123abcd"},
    };
    static const char *const bad[] = {"",      "gpt2",      "/",       "a/",     "/b",
                                      "a/b/c", "a/b@",      "@main",   "a/..",   "../b",
                                      "a/.b",  "a/b@../..", "a/b@/x",  "a /b",   "a/b;rm@main",
                                      "a//b",  "a/b\n",     "a/b@x@y", "a/b\x80"};
    struct arena a = {0};
    struct hub_id id;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        cr_assert_eq(hub_parse(str_of(good[i].text), &a, &id, &e), ERR_OK, "%s", good[i].text);
        cr_expect_str_eq(id.repo, good[i].repo);
        if (good[i].revision != NULL)
            cr_expect_str_eq(id.revision, good[i].revision);
        else
            cr_expect_null(id.revision);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(hub_parse(str_of(bad[i]), &a, &id, &e), ERR_FORMAT, "%s", bad[i]);
    arena_release(&a);
}

/* ROOT/models--org--name with ref "main" -> COMMIT and one snapshot. */
static void make_cache(const char *root, const char *commit)
{
    struct err e;
    char *dir = xasprintf("%s/models--org--name/refs/refs/pr", root);
    cr_assert_eq(io_make_dirs(dir, &e), ERR_OK);
    xfree(dir);
    dir = xasprintf("%s/models--org--name", root);
    mk_file(dir, "refs/main", commit, strlen(commit));
    mk_file(dir, "refs/refs/pr/1", "abc\n", 4);
    xfree(dir);
    dir = xasprintf("%s/models--org--name/snapshots/abc", root);
    cr_assert_eq(io_make_dirs(dir, &e), ERR_OK);
    xfree(dir);
}

static void expect_found(const char *revision, const char *root)
{
    struct hub_id id = {.repo = "org/name", .revision = revision};
    char *dir = NULL;
    struct err e;
    cr_assert_eq(hub_find(&id, &dir, &e), ERR_OK, "%s", e.text);
    char *expected = xasprintf("%s/models--org--name/snapshots/abc", root);
    cr_expect_str_eq(dir, expected);
    xfree(expected);
    xfree(dir);
}

Test(hub, snapshots_are_found_by_branch_by_pull_request_and_by_commit)
{
    char *root = support_tmpdir();
    make_cache(root, "abc");
    setenv("HF_HUB_CACHE", root, 1);
    setenv("HF_HOME", "/nonexistent", 1);
    expect_found(NULL, root);
    expect_found("main", root);
    expect_found("refs/pr/1", root);
    expect_found("abc", root);
    support_tmpdir_remove(root);
}

Test(hub, the_cache_is_hub_cache_then_hf_home_then_home)
{
    char *home = support_tmpdir();
    char *hf_home = xasprintf("%s/.cache/huggingface", home);
    char *root = xasprintf("%s/hub", hf_home);
    make_cache(root, "abc");
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", hf_home, 1);
    expect_found(NULL, root);
    setenv("HF_HUB_CACHE", "", 1); /* empty is unset */
    setenv("HF_HOME", "", 1);
    setenv("HOME", home, 1);
    expect_found(NULL, root);
    xfree(root);
    xfree(hf_home);
    support_tmpdir_remove(home);
}

Test(hub, an_absent_model_is_not_found_with_the_command_that_fetches_it)
{
    static const struct {
        const char *repo, *revision, *command, *not_in_it;
    } rows[] = {
        {"facebook/opt-125m", NULL,
         "hf download facebook/opt-125m --revision main config.json '*token*.json' vocab.json "
         "merges.txt "
         "'pytorch_model*.bin' pytorch_model.bin.index.json",
         "safetensors"},
        {"EleutherAI/pythia-70m-v0", "step3000",
         "hf download EleutherAI/pythia-70m-v0 --revision step3000 config.json", "safetensors"},
        {"EleutherAI/pythia-70m", NULL, "'model*.safetensors' model.safetensors.index.json",
         "pytorch_model"},
        {"some/thing", "v2", "hf download some/thing --revision v2 config.json", "\n"},
    };
    char *root = support_tmpdir();
    setenv("HF_HUB_CACHE", root, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct hub_id id = {.repo = rows[i].repo, .revision = rows[i].revision};
        char *dir = NULL;
        struct err e;
        cr_assert_eq(hub_find(&id, &dir, &e), ERR_NOTFOUND);
        cr_expect(strstr(e.text, rows[i].command) != NULL, "%s", e.text);
        cr_expect(strstr(e.text, rows[i].not_in_it) == NULL, "%s", e.text);
        cr_expect(strstr(e.text, root) != NULL, "%s", e.text);
    }
    support_tmpdir_remove(root);
}

Test(hub, a_snapshot_without_its_weights_is_explained_the_same_way)
{
    char *root = support_tmpdir();
    struct model_ref m = {.hub = "org/name"};
    struct ckpt *c = NULL;
    struct err e;
    make_cache(root, "abc");
    setenv("HF_HUB_CACHE", root, 1);
    cr_expect_eq(ckpt_open(&m, &c, &e), ERR_NOTFOUND); /* no config.json */
    cr_expect(strstr(e.text, "hf download org/name --revision main") != NULL, "%s", e.text);
    char *snapshot = xasprintf("%s/models--org--name/snapshots/abc", root);
    mk_file(snapshot, "config.json", "{}", 2);
    cr_expect_eq(ckpt_open(&m, &c, &e), ERR_NOTFOUND);
    cr_expect(strstr(e.text, "has no weights") != NULL && strstr(e.text, "hf download") != NULL,
              "%s", e.text);
    const char *index = "{\"weight_map\":{\"a\":\"model-00001-of-00001.safetensors\"}}";
    mk_file(snapshot, "model.safetensors.index.json", index, strlen(index));
    cr_expect_eq(ckpt_open(&m, &c, &e), ERR_NOTFOUND); /* the index is there, its shard is not */
    cr_expect(strstr(e.text, "model-00001-of-00001.safetensors") != NULL &&
                  strstr(e.text, "hf download") != NULL,
              "%s", e.text);
    xfree(snapshot);
    support_tmpdir_remove(root);
}

Test(hub, a_ref_that_leads_out_of_the_cache_is_refused)
{
    static const char *const refs[] = {"../../../../etc", "", "/etc", "abc def", ".."};
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        char *root = support_tmpdir();
        struct hub_id id = {.repo = "org/name"};
        char *dir = NULL;
        struct err e;
        make_cache(root, refs[i]);
        setenv("HF_HUB_CACHE", root, 1);
        cr_expect_eq(hub_find(&id, &dir, &e), ERR_FORMAT, "%s", refs[i]);
        cr_expect(strstr(e.text, "refs/main") != NULL, "%s", e.text);
        support_tmpdir_remove(root);
    }
}

Test(hub, ids_that_did_not_come_through_hub_parse_cannot_escape_either)
{
    static const struct hub_id bad[] = {{"../x", NULL}, {"a/b", "../../x"}, {"name", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *dir = NULL;
        struct err e;
        cr_expect_eq(hub_find(&bad[i], &dir, &e), ERR_FORMAT);
    }
}

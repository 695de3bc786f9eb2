/* The cache, as far as it is needed here (R = HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub):
 *
 *   R/models--ORG--NAME/refs/REVISION       a file that holds a commit
 *   R/models--ORG--NAME/snapshots/COMMIT/   config.json, …: links to blobs
 *
 * A revision is looked up in refs first and taken as a commit when there is no such ref. */
#include "schema/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "schema/catalog.h"

enum { COMMIT_MAX = 64, ID_MAX = 200 };

/* The characters of repository and branch names; no part of a path may begin with a dot, so neither "." nor ".."
 * can appear. */
static bool is_plain_path(struct str s)
{
    if (s.n == 0 || s.n > ID_MAX)
        return false;
    struct str part;
    while (str_next_field(&s, '/', &part)) {
        if (part.n == 0 || part.p[0] == '.')
            return false;
        for (size_t i = 0; i < part.n; i++) {
            char c = part.p[i];
            bool is_alnum =
                (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
            if (!is_alnum && c != '-' && c != '_' && c != '.')
                return false;
        }
    }
    return true;
}

static bool is_repo(struct str s)
{
    const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
    return is_plain_path(s) && slash != NULL &&
           memchr(slash + 1, '/', s.n - (size_t)(slash + 1 - s.p)) == NULL;
}

enum err_code hub_parse(struct str text, struct arena *a, struct hub_id *out, struct err *e)
{
    struct str repo = {0};
    struct str rest = text;
    bool has_repo = str_next_field(&rest, '@', &repo);
    if (!has_repo || !is_repo(repo) || (rest.p != NULL && !is_plain_path(rest)))
        return err_set(
            e, ERR_FORMAT,
            "\"%.*s\" is not a model id, expected org/name or org/name@revision, such as "
            "facebook/opt-125m",
            (int)(text.n < ID_MAX ? text.n : ID_MAX), text.p != NULL ? text.p : "");
    out->repo = arena_strndup(a, repo.p, repo.n);
    out->revision = rest.p != NULL ? arena_strndup(a, rest.p, rest.n) : NULL;
    return ERR_OK;
}

static const char *set_env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && v[0] != '\0' ? v : NULL;
}

/* Caller frees with xfree. */
static char *cache_root(void)
{
    const char *hub = set_env("HF_HUB_CACHE");
    const char *hf = set_env("HF_HOME");
    const char *home = set_env("HOME");
    if (hub != NULL)
        return xstrdup(hub);
    if (hf != NULL)
        return xasprintf("%s/hub", hf);
    return xasprintf("%s/.cache/huggingface/hub", home != NULL ? home : "");
}

static const char *revision_of(const struct hub_id *id)
{
    return id->revision != NULL ? id->revision : "main";
}

/* Both formats at once would fetch the weights twice. Pythia's -v0 repositories share the catalog's row with the
 * retrained models, but hold pickles only (models spec, section 1). */
static const char *weight_patterns(const char *repo)
{
    const struct model_facts *facts = catalog_find(str_of(repo));
    if (facts == NULL)
        return "'model*.safetensors' model.safetensors.index.json (without safetensors in the "
               "repository: 'pytorch_model*.bin' pytorch_model.bin.index.json)";
    if (facts->files == MODEL_FILES_PICKLE || str_ends(str_of(repo), "-v0"))
        return "'pytorch_model*.bin' pytorch_model.bin.index.json";
    return "'model*.safetensors' model.safetensors.index.json";
}

/* The patterns are quoted: the shell must not expand them. Names that a repository does not have are passed over
 * by the tool. */
char *hub_fetch_command(const struct hub_id *id, struct arena *a)
{
    return arena_printf(
        a, "hf download %s --revision %s config.json '*token*.json' vocab.json merges.txt %s",
        id->repo, revision_of(id), weight_patterns(id->repo));
}

enum err_code hub_explain(const struct hub_id *id, struct err *e)
{
    struct arena a = {0};
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof(e->text) - used, "; fetch what is needed with: %s",
             hub_fetch_command(id, &a));
    arena_release(&a);
    return e->code;
}

/* *commit = the commit that `revision` names: the content of its ref, else itself. */
static enum err_code read_ref(const char *model_dir, const char *revision,
                              char commit[COMMIT_MAX + 1], struct err *e)
{
    char *path = xasprintf("%s/refs/%s", model_dir, revision);
    struct buf text = {0};
    enum err_code rc = ERR_OK;
    struct str ref = str_of(revision);
    if (io_exists(path) && !io_is_dir(path)) {
        rc = io_read_file(path, 4096, &text, e);
        if (rc == ERR_OK)
            ref = str_trim((struct str){text.data, text.len});
    }
    if (rc == ERR_OK && (ref.n > COMMIT_MAX || !is_plain_path(ref)))
        rc = err_set(e, ERR_FORMAT,
                     "%s: expected one commit; remove the file and download the model again", path);
    if (rc == ERR_OK)
        snprintf(commit, COMMIT_MAX + 1, "%.*s", (int)ref.n, ref.p);
    buf_release(&text);
    xfree(path);
    return rc;
}

enum err_code hub_find(const struct hub_id *id, char **dir, struct err *e)
{
    const char *revision = revision_of(id);
    if (!is_repo(str_of(id->repo)) || !is_plain_path(str_of(revision)))
        return err_set(e, ERR_FORMAT,
                       "hub model \"%.200s@%.200s\", expected org/name and a plain revision",
                       id->repo, revision);
    const char *slash = strchr(id->repo, '/');
    char *root = cache_root();
    char *model_dir =
        xasprintf("%s/models--%.*s--%s", root, (int)(slash - id->repo), id->repo, slash + 1);
    char *snapshot = NULL;
    char commit[COMMIT_MAX + 1] = "";
    enum err_code rc = read_ref(model_dir, revision, commit, e);
    if (rc != ERR_OK)
        goto out;
    snapshot = xasprintf("%s/snapshots/%s", model_dir, commit);
    if (!io_is_dir(snapshot)) {
        err_set(e, ERR_NOTFOUND, "%s (revision %s) is not in the local Hugging Face cache %.200s",
                id->repo, revision, root);
        rc = hub_explain(id, e);
        goto out;
    }
    *dir = snapshot;
    snapshot = NULL;
out:
    xfree(snapshot);
    xfree(model_dir);
    xfree(root);
    return rc;
}

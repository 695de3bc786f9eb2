#include "worker/cmd.h"

#include <string.h>

#include "base/io.h"
#include "base/str.h"
#include "schema/hub.h"

enum err_code cmd_model_ref(const char *arg, struct arena *a, struct model_ref *out, struct err *e)
{
    *out = (struct model_ref){.family = "", .size = "", .name = arena_strdup(a, arg)};
    if (io_is_dir(arg)) {
        char *path = io_absolute(arg);
        out->path = arena_strdup(a, path);
        xfree(path);
        return ERR_OK;
    }
    struct hub_id id = {0};
    bool is_path = arg[0] == '/' || arg[0] == '.' || io_exists(arg);
    if (is_path || hub_parse(str_of(arg), a, &id, e) != ERR_OK)
        return err_set(
            e, ERR_NOTFOUND,
            "%s: neither a checkpoint directory nor a hub id of the form org/name[@revision]", arg);
    out->hub = id.repo;
    out->revision = id.revision;
    return ERR_OK;
}

enum err_code cmd_exponent_bits(const char *arg, int k, int *out, struct err *e)
{
    int64_t n = 0;
    if (arg != NULL && strcmp(arg, "paper") == 0)
        n = config_paper_exponent_bits(k);
    else if (arg != NULL && (!parse_i64(str_of(arg), &n) || n < 1 || n > k - 1))
        return err_set(e, ERR_USAGE,
                       "--exponent-bits: expected 1 to %d at k=%d, or paper; found '%s'", k - 1, k,
                       arg);
    *out = (int)n;
    return ERR_OK;
}

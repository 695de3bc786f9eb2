#include "worker/cmd.h"

#include "base/io.h"
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

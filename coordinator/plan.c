#include "coordinator/plan.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "coordinator/control.h"
#include "schema/hub.h"

static const double plan_timeout_s =
    600; /* a million jobs take seconds; a busy disk may take longer */

char *plan_default_db(const char *spec_path)
{
    const char *slash = strrchr(spec_path, '/');
    const char *base = slash != NULL ? slash + 1 : spec_path;
    const char *dot = strrchr(base, '.');
    size_t n = dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base);
    return xasprintf("%.*s.db", (int)n, base);
}

/* The spec travels as text: whoever holds the database expands it again, under the same path. */
static json_t *plan_request(const struct sweep *sw, int64_t priority)
{
    char *path = io_absolute(sw->path);
    json_t *request = json_pack("{s:s, s:s, s:s, s:I}", "op", "plan", "spec_text", sw->text,
                                "spec_path", path, "priority", (json_int_t)priority);
    xfree(path);
    return request;
}

enum err_code plan_submit(const struct sweep *sw, const char *db_path, int64_t priority,
                          struct plan_counts *out, struct err *e)
{
    json_t *request = plan_request(sw, priority);
    json_t *reply = NULL;
    if (request == NULL)
        return err_set(e, ERR_FORMAT, "%s: the spec's text or path is not UTF-8", sw->path);
    enum err_code rc = control_request(db_path, request, true, plan_timeout_s, &reply, e);
    json_decref(request);
    if (rc != ERR_OK)
        return rc;
    *out = (struct plan_counts){.jobs_total = json_opt_int(reply, "jobs_total", 0),
                                .jobs_new = json_opt_int(reply, "jobs_new", 0),
                                .jobs_known = json_opt_int(reply, "jobs_known", 0),
                                .has_other_evals = json_opt_bool(reply, "has_other_evals", false)};
    json_decref(reply);
    return ERR_OK;
}

void plan_warn_absent(const struct sweep *sw, const struct estimate *est)
{
    struct arena a = {0};
    for (int i = 0; i < sw->n_models; i++) {
        const struct model_ref *m = &sw->models[i].ref;
        if (est->models[i].is_here)
            continue;
        if (m->hub != NULL)
            fprintf(stderr, "warning: %s is not on this machine; workers need it: %s\n", m->name,
                    hub_fetch_command(&(struct hub_id){m->hub, m->revision}, &a));
        else
            fprintf(stderr, "warning: %s holds no weights; workers need them there\n", m->path);
    }
    for (int i = 0; i < sw->n_evals; i++) {
        if (!est->evals[i].is_here)
            fprintf(stderr, "warning: %s is not on this machine; evaluation %s needs it\n",
                    sw->evals[i].spec.data_path, sw->evals[i].spec.name);
    }
    arena_release(&a);
}

#include "coordinator/why.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/place.h"
#include "coordinator/rows.h"

enum err_code why_open(struct why *x, struct store *s, const char *db, bool is_served, json_t *live,
                       struct err *e)
{
    *x = (struct why){.s = s, .db = db, .is_served = is_served, .live = live};
    TRY(rows_query(s, "SELECT * FROM workers WHERE state = 'live'", NULL, 0, &x->workers, e));
    return rows_query(s, "SELECT * FROM refusals", NULL, 0, &x->refusals, e);
}

void why_close(struct why *x)
{
    json_decref(x->workers);
    json_decref(x->refusals);
    *x = (struct why){0};
}

enum err_code why_add_failures(const struct why *x, json_t *job, struct err *e)
{
    static const char sql[] =
        "SELECT attempt, outcome, code, text, worker, host, started_at, ended_at FROM failures "
        "WHERE job = CAST(?1 AS INTEGER) ORDER BY attempt";
    char id[32];
    snprintf(id, sizeof(id), "%lld", (long long)json_opt_int(job, "job", 0));
    const char *params[] = {id};
    json_t *attempts = NULL;
    TRY(rows_query(x->s, sql, params, 1, &attempts, e));
    json_object_set_new(job, "failures", attempts);
    return ERR_OK;
}

static const char *refusal_of(const struct why *x, const char *worker, const char *model)
{
    size_t i = 0;
    json_t *r = NULL;
    json_array_foreach(x->refusals, i, r)
    {
        if (strcmp(json_opt_str(r, "worker", ""), worker) == 0 &&
            strcmp(json_opt_str(r, "model", ""), model) == 0)
            return json_opt_str(r, "text", "");
    }
    return NULL;
}

/* What the coordinator says of a worker; NULL: nothing. */
static const json_t *live_row(const struct why *x, const char *worker)
{
    size_t i = 0;
    json_t *w = NULL;
    json_array_foreach(json_object_get(x->live, "workers"), i, w)
    {
        if (strcmp(json_opt_str(w, "uuid", ""), worker) == 0)
            return w;
    }
    return NULL;
}

static bool has_label(const char *list, const char *label)
{
    struct str rest = str_of(list), field;
    while (str_next_field(&rest, ',', &field))
        if (str_eqz(field, label))
            return true;
    return false;
}

/* The worker has not the data of the job's evaluation, says the coordinator. */
static bool lacks_data(const json_t *live, const char *evaluation)
{
    size_t i = 0;
    json_t *name = NULL;
    json_array_foreach(json_object_get(live, "lacks"), i, name)
    {
        if (strcmp(json_string_value(name), evaluation) == 0)
            return true;
    }
    return false;
}

/* Why the worker gave this very job back; NULL: it did not. */
static const char *return_of(const json_t *job, const char *worker)
{
    const char *text = NULL;
    size_t i = 0;
    json_t *f = NULL;
    json_array_foreach(json_object_get(job, "failures"), i, f)
    {
        const enum err_code code = err_from_name(json_opt_str(f, "code", ""));
        if (strcmp(json_opt_str(f, "worker", ""), worker) == 0 &&
            strcmp(json_opt_str(f, "outcome", ""), "returned") == 0 &&
            err_fate(code) == ERR_FATE_ELSEWHERE)
            text = json_opt_str(f, "text", "");
    }
    return text;
}

/* Says of each live worker that cannot take the job why not; returns how many can. */
static int say_who_cannot(const struct why *x, const json_t *job, json_t *sentences)
{
    const char *model = json_opt_str(job, "model", ""), *compute = json_opt_str(job, "compute", "");
    const char *evaluation = json_opt_str(job, "evaluation", "");
    struct store_model m = {.n_params = json_opt_int(job, "n_params", 0)};
    int64_t need = place_bytes(&m, (enum compute)compute_of(str_of(compute)));
    int n = 0;
    size_t i = 0;
    json_t *w = NULL;
    json_array_foreach(x->workers, i, w)
    {
        const char *host = json_opt_str(w, "host", ""), *uuid = json_opt_str(w, "worker", "");
        int64_t memory = json_opt_int(w, "memory_bytes", 0);
        const char *refusal = refusal_of(x, uuid, model), *returned = return_of(job, uuid);
        const json_t *live = live_row(x, uuid);
        char a[32], b[32];
        if (!has_label(json_opt_str(w, "computes", ""), compute))
            why_say(sentences, "worker %.8s on %s does not compute in %s", uuid, host, compute);
        else if (refusal != NULL)
            why_say(sentences, "worker %.8s on %s cannot serve %s: %s", uuid, host, model, refusal);
        else if (returned != NULL)
            why_say(sentences, "worker %.8s on %s gave it back: %s", uuid, host, returned);
        else if (lacks_data(live, evaluation))
            why_say(sentences,
                    "worker %.8s on %s has not the data of %s, or others than the results are of",
                    uuid, host, evaluation);
        else
            n++;
        double left_s = json_opt_num(live, "left_s", -1);
        if (left_s >= 0)
            why_say(sentences,
                    "worker %.8s on %s leaves in %s and takes nothing that would not end before",
                    uuid, host, fmt_duration(left_s, a));
        if (memory > 0 && need > memory)
            why_say(
                sentences,
                "%s needs about %s, worker %.8s on %s has %s: it gets the job only if nobody else "
                "fits",
                model, fmt_bytes((double)need, a), uuid, host, fmt_bytes((double)memory, b));
    }
    return n;
}

/* What workers that have left said of the checkpoint when they were here. */
static void say_who_could_not(const struct why *x, const char *model, json_t *sentences)
{
    size_t i = 0;
    json_t *r = NULL;
    json_array_foreach(x->refusals, i, r)
    {
        if (strcmp(json_opt_str(r, "model", ""), model) == 0)
            why_say(sentences, "worker %.8s on %s could not serve %s: %s",
                    json_opt_str(r, "worker", ""), json_opt_str(r, "host", ""), model,
                    json_opt_str(r, "text", ""));
    }
}

enum err_code why_pending(const struct why *x, const json_t *job, json_t *sentences, struct err *e)
{
    if (!x->is_served) {
        why_say(sentences,
                "nothing serves this database: start `isobit serve --db %s` (or `isobit run`)",
                x->db);
        say_who_could_not(x, json_opt_str(job, "model", ""), sentences);
    } else if (json_array_size(x->workers) == 0)
        why_say(sentences,
                "no worker is connected: start `isobit-worker run --connect …` (`isobit status` "
                "shows workers)");
    else if (say_who_cannot(x, job, sentences) == 0)
        why_say(sentences,
                "none of the %zu live workers can take it; it waits for one that can, at no cost",
                json_array_size(x->workers));
    else {
        int64_t ahead = 0;
        char *sql =
            xasprintf("SELECT count(*) FROM jobs WHERE state = 'pending' AND priority > %lld",
                      (long long)json_opt_int(job, "priority", 0));
        enum err_code rc = store_query_int(x->s, sql, 0, &ahead, e);
        xfree(sql);
        TRY(rc);
        if (ahead > 0)
            why_say(sentences, "%lld pending jobs have a higher priority", (long long)ahead);
        why_say(sentences,
                "it waits for its turn: workers take large checkpoints first and stay with one "
                "while it has work");
    }
    int64_t attempts = json_opt_int(job, "attempts", 0);
    if (attempts > 0)
        why_say(sentences, "%lld attempts failed so far, the last with: %s", (long long)attempts,
                json_opt_str(job, "error", "?"));
    return ERR_OK;
}

/* Changes that people ask for, over all jobs whose key matches a pattern. */
#include <string.h>

#include "schema/store_impl.h"
#include "schema/store_work.h"

#define MATCHING                                                                                   \
    "SELECT j.id FROM job j JOIN config c ON c.id = j.config_id "                                  \
    "JOIN model m ON m.id = j.model_id JOIN eval v ON v.id = j.eval_id "                           \
    "WHERE key_glob(?1, c.key_head || m.key || c.key_tail || v.key)"

static const char sql_match_count[] = "SELECT count(*) FROM (" MATCHING ")";

/* Retrying resets the failures, so that the job has all its attempts again; a pending job with failures counts as failed. */
static const struct {
    const char *name;
    const char *sql;
} changes[] = {
    [STORE_RETRY] = {"retry",
                     "UPDATE job SET state = 'pending', failures = 0 WHERE "
                     "(state IN ('buried', 'cancelled') OR (state = 'pending' AND failures > 0)) "
                     "AND id IN (" MATCHING ")"},
    [STORE_CANCEL] = {"cancel",
                      "UPDATE job SET state = 'cancelled', worker_id = NULL, leased_ms = NULL "
                      "WHERE state IN ('pending', 'leased', 'held', 'buried') "
                      "AND id IN (" MATCHING ")"},
    [STORE_HOLD] = {"hold", "UPDATE job SET state = 'held', worker_id = NULL, leased_ms = NULL "
                            "WHERE state IN ('pending', 'leased') AND id IN (" MATCHING ")"},
    [STORE_RELEASE] = {"release", "UPDATE job SET state = 'pending' "
                                  "WHERE state = 'held' AND id IN (" MATCHING ")"},
};

int store_change_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(changes); i++)
        if (strcmp(changes[i].name, name) == 0)
            return (int)i;
    return -1;
}

enum err_code store_change(struct store *s, enum store_change what, const char *pattern,
                           struct store_changed *out, struct err *e)
{
    *out = (struct store_changed){0};
    TRY(store_run(s, sql_match_count, ARGS(ARG_TEXT(pattern)), NULL, &out->matched, e));
    TRY(store_run(s, changes[what].sql, ARGS(ARG_TEXT(pattern)), &out->changed, NULL, e));
    return out->changed > 0 ? store_recount(s, e) : ERR_OK;
}

enum err_code store_prioritize(struct store *s, const char *pattern, int priority,
                               struct store_changed *out, struct err *e)
{
    static const char sql[] =
        "UPDATE job SET priority = ?2 WHERE priority <> ?2 AND "
        "state IN ('pending', 'leased', 'held', 'buried') AND id IN (" MATCHING ")";
    *out = (struct store_changed){0};
    TRY(store_run(s, sql_match_count, ARGS(ARG_TEXT(pattern)), NULL, &out->matched, e));
    return store_run(s, sql, ARGS(ARG_TEXT(pattern), ARG_INT(priority)), &out->changed, NULL, e);
}

/* The jobs to take back, as a temporary table: four tables lose rows by it. */
static const char sql_stale[] =
    "INSERT INTO stale SELECT j.id FROM (" MATCHING ") x JOIN job j ON j.id = x.id "
    "JOIN run r ON r.job_id = j.id JOIN provenance p ON p.id = r.provenance_id "
    "WHERE j.state = 'done' AND (?2 IS NULL OR version_number(p.program) < version_number(?2))";
static const char sql_take_back[] =
    "INSERT INTO attempt (job_id, attempt, worker_id, ended_ms, outcome, code, text) "
    "SELECT r.job_id, r.attempt, r.worker_id, unixepoch('now') * 1000, 'invalidated', 'VERSION', "
    "'result of ' || p.program || ' taken back' FROM stale x JOIN run r ON r.job_id = x.id "
    "JOIN provenance p ON p.id = r.provenance_id;"
    "DELETE FROM metric WHERE job_id IN (SELECT id FROM stale);"
    "DELETE FROM sample WHERE job_id IN (SELECT id FROM stale);"
    "DELETE FROM run WHERE job_id IN (SELECT id FROM stale);"
    "UPDATE job SET state = 'pending', failures = 0 WHERE id IN (SELECT id FROM stale);"
    "UPDATE model SET weights_sha256 = NULL WHERE weights_sha256 IS NOT NULL AND id NOT IN "
    "(SELECT model_id FROM job WHERE state = 'done');"
    "UPDATE eval SET data_sha256 = NULL WHERE data_sha256 IS NOT NULL AND id NOT IN "
    "(SELECT eval_id FROM job WHERE state = 'done');"
    "DELETE FROM refusal WHERE code = 'DENIED' AND model_id IN "
    "(SELECT id FROM model WHERE weights_sha256 IS NULL)";

enum err_code store_invalidate(struct store *s, const char *pattern, const char *before,
                               struct store_changed *out, struct err *e)
{
    *out = (struct store_changed){0};
    TRY(store_run(s, sql_match_count, ARGS(ARG_TEXT(pattern)), NULL, &out->matched, e));
    TRY(store_exec(
        s, "CREATE TEMP TABLE IF NOT EXISTS stale (id INTEGER PRIMARY KEY); DELETE FROM stale", e));
    TRY(store_run(s, sql_stale, ARGS(ARG_TEXT(pattern), ARG_TEXT(before)), &out->changed, NULL, e));
    if (out->changed == 0)
        return ERR_OK;
    TRY(store_exec(s, sql_take_back, e));
    return store_recount(s, e);
}

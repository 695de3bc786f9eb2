#include "coordinator/site_docs.h"

#include <string.h>
#include <time.h>

#include "base/cli.h"
#include "base/mem.h"
#include "coordinator/rows.h"
#include "schema/store_work.h"

/* Takes over `doc`. */
static enum err_code finish(json_t *doc, struct buf *out)
{
    json_append(out, doc, false);
    buf_addc(out, '\n');
    json_decref(doc);
    return ERR_OK;
}

static enum err_code add_rows(json_t *doc, const char *key, struct store *s, const char *sql,
                              struct err *e)
{
    json_t *rows = NULL;
    TRY(rows_query(s, sql, NULL, 0, &rows, e));
    json_object_set_new(doc, key, rows);
    return ERR_OK;
}

json_t *site_time(void)
{
    char text[32];
    struct tm t;
    time_t now = time(NULL);
    gmtime_r(&now, &t);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &t);
    return json_string(text);
}

/* ---- status ---- */

static enum err_code add_states(json_t *doc, struct store *s, struct err *e)
{
    struct store_counts n;
    int64_t total = 0;
    TRY(store_count(s, &n, e));
    json_t *states = json_object();
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        json_object_set_new(states, job_state_label((enum job_state)i), json_integer(n.n[i]));
        total += n.n[i];
    }
    json_object_set_new(doc, "states", states);
    json_object_set_new(doc, "total", json_integer(total));
    return ERR_OK;
}

static enum err_code fill_status(json_t *doc, struct store *s, struct err *e)
{
    TRY(add_states(doc, s, e));
    TRY(add_rows(doc, "sweeps", s, "SELECT * FROM progress ORDER BY sweep", e));
    return add_rows(doc, "history", s,
                    "SELECT 60 * minute AS minute, sum(n) AS done FROM pace "
                    "WHERE minute > unixepoch('now') / 60 - 60 GROUP BY minute ORDER BY minute",
                    e);
}

enum err_code site_doc_status(struct store *s, const struct site_live *live, struct buf *out,
                              struct err *e)
{
    double eta_s = live->counts.eta_s;
    json_t *doc = json_pack("{s:s, s:s, s:o, s:s, s:b, s:b, s:f, s:o, s:i}", "db", live->db_path,
                            "program", cli_version, "time", site_time(), "endpoint", live->endpoint,
                            "is_draining", live->is_draining, "is_in_trouble", live->is_in_trouble,
                            "jobs_per_s", live->counts.jobs_per_s, "eta_s",
                            eta_s < 0 ? json_null() : json_number_or_null(eta_s), "workers",
                            live->counts.workers);
    enum err_code rc = fill_status(doc, s, e);
    if (rc == ERR_OK)
        return finish(doc, out);
    json_decref(doc);
    return rc;
}

/* ---- workers ---- */

/* What the coordinator knows of a worker beyond the database. */
static void add_live_facts(json_t *row, const json_t *live)
{
    static const char *const facts[][2] = {
        {"checkpoint", "checkpoint"}, {"seconds", "connected_s"}, {"state", "doing"}};
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        json_t *v = json_object_get(live, facts[i][0]);
        if (v != NULL)
            json_object_set(row, facts[i][1], v);
    }
}

enum err_code site_doc_workers(struct store *s, const struct site_live *live, struct buf *out,
                               struct err *e)
{
    size_t i = 0;
    json_t *row = NULL, *rows = NULL, *by_uuid = json_object();
    json_array_foreach(live->workers, i, row)
    {
        json_object_set(by_uuid, json_opt_str(row, "uuid", ""), row);
    }
    enum err_code rc = rows_query(s,
                                  "SELECT * FROM workers ORDER BY state <> 'live', last_seen DESC, "
                                  "worker LIMIT 1100",
                                  NULL, 0, &rows, e);
    json_array_foreach(rows, i, row)
    {
        add_live_facts(row, json_object_get(by_uuid, json_opt_str(row, "worker", "")));
    }
    json_decref(by_uuid);
    return rc == ERR_OK ? finish(json_pack("{s:o}", "workers", rows), out) : rc;
}

/* ---- failures ---- */

static void add_quoted(struct buf *out, const char *word)
{
    buf_addc(out, '\'');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            buf_adds(out, "'\\''");
        else
            buf_addc(out, *p);
    }
    buf_addc(out, '\'');
}

void site_hint(const char *state, const char *key, const char *db_path, struct buf *out)
{
    if (strcmp(state, "buried") == 0) {
        buf_adds(out, "isobit retry --db ");
        add_quoted(out, db_path);
        buf_addc(out, ' ');
        add_quoted(out, key);
    } else if (strcmp(state, "done") == 0) {
        buf_adds(out, "done since");
    } else if (strcmp(state, "cancelled") == 0 || strcmp(state, "held") == 0) {
        buf_printf(out, "%s by hand", state);
    } else {
        buf_adds(out, "is tried again by itself");
    }
}

static const char count_sql[] =
    "SELECT a.code AS code, a.text AS text, count(*) AS attempts, "
    "count(DISTINCT CASE j.state WHEN 'buried' THEN j.id END) AS buried FROM attempt a JOIN job j "
    "ON j.id = a.job_id "
    "WHERE a.outcome IN ('failed', 'lost', 'refused') GROUP BY a.code, a.text "
    "ORDER BY count(*) DESC, a.code, a.text LIMIT 20";
static const char latest_sql[] =
    "SELECT * FROM failures WHERE job IN (SELECT job_id FROM attempt "
    "WHERE outcome IN ('failed', 'lost', 'refused') ORDER BY ended_ms DESC LIMIT 200) "
    "AND outcome IN ('failed', 'lost', 'refused') ORDER BY ended_at DESC, job, attempt DESC "
    "LIMIT 200";

enum err_code site_doc_failures(struct store *s, const struct site_live *live, struct buf *out,
                                struct err *e)
{
    json_t *doc = json_object(), *row = NULL;
    size_t i = 0;
    enum err_code rc = add_rows(doc, "counts", s, count_sql, e);
    if (rc == ERR_OK)
        rc = add_rows(doc, "failures", s, latest_sql, e);
    if (rc != ERR_OK) {
        json_decref(doc);
        return rc;
    }
    json_array_foreach(json_object_get(doc, "failures"), i, row)
    {
        struct buf hint = {0};
        site_hint(json_opt_str(row, "state", ""), json_opt_str(row, "key", ""), live->db_path,
                  &hint);
        json_object_set_new(row, "hint", json_stringn(hint.data, hint.len));
        buf_release(&hint);
    }
    return finish(doc, out);
}

/* ---- scaling ---- */

/* A row of the view `scaling` for each model, bits and data type: the best over block sizes and the like. SQLite gives the other
 * columns from the row with the minimum or maximum. The view is read once for both measures: it looks at every metric. */
static const char best_sql[] =
    "WITH s AS MATERIALIZED (SELECT sweep, family, size, n_params, k, dtype, block, "
    "total_bits_full, "
    "perplexity, mean_zero_shot FROM scaling WHERE total_bits_full IS NOT NULL) "
    "SELECT 'perplexity' AS measure, sweep, family, size, n_params, k, dtype, block, "
    "total_bits_full, "
    "min(perplexity) AS value FROM s WHERE perplexity IS NOT NULL "
    "GROUP BY sweep, family, size, k, dtype "
    "UNION ALL "
    "SELECT 'mean_zero_shot', sweep, family, size, n_params, k, dtype, block, total_bits_full, "
    "max(mean_zero_shot) FROM s WHERE mean_zero_shot IS NOT NULL "
    "GROUP BY sweep, family, size, k, dtype "
    "ORDER BY measure, sweep, family, n_params, k, dtype";

enum err_code site_doc_scaling(struct store *s, const struct site_live *live, struct buf *out,
                               struct err *e)
{
    (void)live;
    size_t i = 0;
    json_t *rows = NULL, *row = NULL;
    TRY(rows_query(s, best_sql, NULL, 0, &rows, e));
    json_t *doc =
        json_pack("{s:o, s:[], s:[]}", "time", site_time(), "perplexity", "mean_zero_shot");
    json_array_foreach(rows, i, row)
    {
        json_array_append(json_object_get(doc, json_opt_str(row, "measure", "")), row);
        json_object_del(row, "measure");
    }
    json_decref(rows);
    return finish(doc, out);
}

/* ---- change ---- */

static enum err_code add_cell(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct buf *out = arg;
    buf_printf(out, "%lld %s %lld\n", (long long)store_col_int(row, 0), store_col_text(row, 1),
               (long long)store_col_int(row, 2));
    return ERR_OK;
}

enum err_code site_fingerprint(struct store *s, struct buf *out, struct err *e)
{
    return store_query(s, "SELECT set_id, state, n FROM tally ORDER BY set_id, state", NULL, 0,
                       add_cell, out, e);
}

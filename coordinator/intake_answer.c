/* What a worker says of its jobs: RESULT, FAIL, RETURN, ITEMS; and FETCH, the files they need. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "coordinator/intake_impl.h"
#include "schema/job_json.h"

/* ---- RESULT, FAIL, RETURN ---- */

struct answer {
    int64_t job;
    int attempt;
};

static enum err_code read_answer(const json_t *body, const char *what, struct answer *out,
                                 struct err *e)
{
    int64_t attempt = 0;
    TRY(json_need_int(body, "job", what, 0, INT64_MAX, &out->job, e));
    TRY(json_need_int(body, "attempt", what, 0, INT32_MAX, &attempt, e));
    out->attempt = (int)attempt;
    return ERR_OK;
}

static enum err_code read_result_of(const struct json_text *t, struct answer *out, struct err *e)
{
    int64_t attempt = 0;
    TRY(json_text_int(t, 0, "job", 0, INT64_MAX, &out->job, e));
    TRY(json_text_int(t, 0, "attempt", 0, INT32_MAX, &attempt, e));
    out->attempt = (int)attempt;
    return ERR_OK;
}

static enum err_code fail_code(const json_t *body)
{
    enum err_code code = err_from_name(json_opt_str(body, "code", "IO"));
    return code != ERR_OK ? code : ERR_IO; /* "OK" is no failure */
}

static enum err_code fail_job(struct intake *in, struct intake_seat *seat, const struct answer *an,
                              enum err_code code, const char *text, int64_t now_ns, struct err *e)
{
    enum verdict v;
    log_event(LOG_WARN, "intake", "failed", "job=%lld attempt=%d code=%s text=\"%s\"",
              (long long)an->job, an->attempt, err_name(code), text);
    struct dispatch_ref at = {seat->session, an->job, an->attempt};
    TRY(dispatch_fail(in->dispatch, &at, code, text, now_ns, &v, e));
    intake_put_ack(in, seat, an->job, an->attempt, v);
    return ERR_OK;
}

/* The pinned identity differs: the result does not count, and the worker has to know why. */
static void deny(struct intake *in, struct intake_seat *seat, const struct answer *an,
                 enum wire_lack differs, const struct err *why)
{
    log_event(LOG_ERROR, "intake", "denied", "job=%lld text=\"%s\"", (long long)an->job, why->text);
    seat->n_in_hand -= seat->n_in_hand > 0;
    intake_put(in, &seat->peer, WIRE_ACK,
               json_pack("{s:[[I, i, s]], s:o, s:s}", "jobs", (json_int_t)an->job, an->attempt,
                         "denied", "text", wire_text(why->text), "lacks",
                         wire_lack_label(differs)));
}

/* The text is already parsed. */
static enum err_code take_result(struct intake *in, struct intake_seat *seat,
                                 const struct wire_msg *m, const struct answer *an, int64_t now_ns,
                                 struct err *e)
{
    struct arena a = {0};
    struct job_result r = {0};
    struct err why;
    const char *codec = "";
    enum err_code rc =
        job_result_from_text(&in->text, json_text_get(&in->text, 0, "result"), &a, &r, &why);
    if (rc == ERR_OK && m->n_blobs > 0)
        rc = json_text_str(&in->text, 0, "codec", &a, &codec, &why);
    if (rc != ERR_OK) {
        rc = fail_job(in, seat, an, ERR_FORMAT, why.text, now_ns, e);
    } else {
        enum verdict v;
        const struct wire_frame none = {0};
        const struct wire_frame *blob = m->n_blobs > 0 ? &m->blobs[0] : &none;
        const struct dispatch_ref at = {seat->session, an->job, an->attempt};
        const struct store_samples samples = {blob->data, blob->size, codec};
        rc = dispatch_result(in->dispatch, &at, &r, &samples, now_ns, &v, &why);
        if (rc == ERR_OK)
            intake_put_ack(in, seat, an->job, an->attempt, v);
        else if (rc == ERR_DENIED)
            deny(in, seat, an, v == VERDICT_OTHER_DATA ? WIRE_LACK_DATA : WIRE_LACK_CHECKPOINT,
                 &why);
        else
            *e = why;
        rc = rc == ERR_DENIED ? ERR_OK : rc;
    }
    arena_release(&a);
    return rc;
}

enum err_code intake_on_result(struct intake *in, struct intake_seat *seat,
                               const struct wire_msg *m, int64_t now_ns, struct err *bad,
                               struct err *e)
{
    struct answer an = {0};
    if (read_result_of(&in->text, &an, bad) != ERR_OK)
        return ERR_OK;
    return take_result(in, seat, m, &an, now_ns, e);
}

enum err_code intake_on_fail(struct intake *in, struct intake_seat *seat, const json_t *body,
                             int64_t now_ns, struct err *bad, struct err *e)
{
    struct answer an = {0};
    if (read_answer(body, "FAIL", &an, bad) != ERR_OK)
        return ERR_OK;
    return fail_job(in, seat, &an, fail_code(body), json_opt_str(body, "text", ""), now_ns, e);
}

enum err_code intake_on_return(struct intake *in, struct intake_seat *seat, const json_t *body,
                               int64_t now_ns, struct err *e)
{
    const char *reason = json_opt_str(body, "reason", "drain");
    const char *text = json_opt_str(body, "text", "");
    bool is_missing = strcmp(reason, "missing") == 0;
    struct dispatch_lack lack = {wire_lack_of(json_opt_str(body, "lacks", NULL)),
                                 err_from_name(json_opt_str(body, "code", "NOTFOUND")), text};
    if (err_fate(lack.code) != ERR_FATE_ELSEWHERE)
        lack.code = ERR_NOTFOUND;
    if (!is_missing && strcmp(reason, "revoked") != 0)
        reason = "drain";
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(body, "jobs"), i, row)
    {
        int64_t job = json_integer_value(json_array_get(row, 0));
        int64_t attempt = json_integer_value(json_array_get(row, 1));
        enum verdict v;
        if (attempt < 0 || attempt > INT32_MAX)
            continue;
        struct dispatch_ref at = {seat->session, job, (int)attempt};
        if (is_missing)
            TRY(dispatch_missing(in->dispatch, &at, &lack, now_ns, &v, e));
        else
            TRY(dispatch_return(in->dispatch, &at, reason, text, now_ns, &v, e));
        intake_put_ack(in, seat, job, attempt, v);
    }
    if (is_missing)
        log_event(LOG_WARN, "intake", "returned", "session=%lld text=\"%s\"",
                  (long long)seat->session, text);
    return ERR_OK;
}

enum err_code intake_on_items(struct intake *in, const json_t *body, struct err *bad, struct err *e)
{
    struct arena a = {0};
    struct item_list list = {0};
    const char *data_sha256 = NULL, *task = NULL;
    json_t *items = NULL;
    enum err_code rc = json_need_str(body, "data_sha256", "ITEMS", &data_sha256, bad);
    if (rc == ERR_OK)
        rc = json_need_str(body, "task", "ITEMS", &task, bad);
    if (rc == ERR_OK)
        rc = json_need_obj(body, "items", "ITEMS", &items, bad);
    if (rc == ERR_OK && task_of(str_of(task)) < 0)
        rc = err_set(bad, ERR_FORMAT, "ITEMS: task \"%s\" is not known", task);
    if (rc == ERR_OK)
        rc = item_list_from_json(items, "ITEMS", &a, &list, bad);
    if (rc == ERR_OK)
        rc = dispatch_items(in->dispatch, data_sha256, (enum task)task_of(str_of(task)), &list, e);
    else
        rc = ERR_OK; /* `bad` says what was wrong */
    arena_release(&a);
    return rc;
}

/* ---- FETCH ---- */

/* A part of a data file. After a restart nothing has been offered yet, but the worker may still hold jobs: then all files
 * are looked at once. More than a few parts a turn are left unanswered, and asked for again. */
void intake_on_fetch(struct intake *in, const struct intake_seat *seat, const json_t *body,
                     struct err *bad)
{
    const char *sha256 = NULL;
    int64_t offset = 0;
    struct files_part part = {0};
    struct err e;
    if (json_need_str(body, "sha256", "FETCH", &sha256, bad) != ERR_OK ||
        json_need_int(body, "offset", "FETCH", 0, WIRE_MAX_FILE, &offset, bad) != ERR_OK ||
        in->n_parts == INTAKE_MAX_PARTS)
        return;
    enum err_code rc = files_read(&in->files, sha256, offset, &part, &e);
    const struct eval_spec *v = NULL;
    for (int i = 0; rc == ERR_NOTFOUND && (v = dispatch_eval(in->dispatch, i)) != NULL; i++) {
        json_decref(files_offer(&in->files, v));
        rc = files_read(&in->files, sha256, offset, &part, &e);
    }
    json_t *answer = json_pack("{s:s#, s:I}", "sha256", sha256, (int)strnlen(sha256, 64), "offset",
                               (json_int_t)offset);
    if (rc == ERR_OK) {
        json_object_set_new(answer, "total", json_integer(part.total));
    } else {
        json_object_set_new(answer, "code", json_string(err_name(rc)));
        json_object_set_new(answer, "text", wire_text(e.text));
    }
    intake_put(in, &seat->peer, WIRE_DATA, answer);
    in->out[in->n_out - 1].blob = part.data;
    in->out[in->n_out - 1].blob_bytes = part.n;
    in->n_parts++;
}

#include "coordinator/slurm_text.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/sha256.h"

/* ---- what Slurm says ---- */

static const struct {
    const char *name;
    enum slurm_phase phase;
} states[] = {
#define X(name, phase) {#name, SLURM_##phase},
    SLURM_STATE_LIST(X)
#undef X
};

static bool find_state(struct str name, struct slurm_job *out)
{
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        if (str_eqz(name, states[i].name)) {
            out->state = states[i].name;
            out->phase = states[i].phase;
            return true;
        }
    }
    return false;
}

static bool parse_id(struct str s, int64_t *out)
{
    return s.n > 0 && s.p[0] >= '1' && s.p[0] <= '9' && parse_i64(s, out);
}

/* "3:07", "1:02:03", "2-01:02:03"; a job that never ran has "0:00", and one whose clock was set back "INVALID". */
static bool parse_elapsed(struct str s, int64_t *out)
{
    int64_t days = 0, total = 0, part = 0;
    struct str field, rest = s;
    int n = 0;
    if (str_eqz(s, "INVALID")) {
        *out = 0;
        return true;
    }
    if (memchr(s.p, '-', s.n) != NULL &&
        (!str_next_field(&rest, '-', &field) || !parse_i64(field, &days)))
        return false;
    for (; str_next_field(&rest, ':', &field); n++) {
        bool is_first = n == 0;
        if (field.n == 0 || field.n > (is_first ? 9 : 2) || field.p[0] == '+' ||
            !parse_i64(field, &part) || part < 0 || (!is_first && part > 59))
            return false;
        total = 60 * total + part;
    }
    if (n < 2 || n > 3 || days < 0 || days > 100000)
        return false;
    *out = days * 86400 + total;
    return true;
}

static bool parse_queue_line(struct str line, struct slurm_job *out)
{
    struct str rest = line, id, state, elapsed;
    *out = (struct slurm_job){0};
    if (!str_next_field(&rest, '|', &id) || !parse_id(id, &out->id) ||
        !str_next_field(&rest, '|', &state) || !find_state(state, out) ||
        !str_next_field(&rest, '|', &elapsed) || !parse_elapsed(elapsed, &out->run_s) ||
        rest.p == NULL)
        return false;
    snprintf(out->reason, sizeof(out->reason), "%.*s", (int)(rest.n < 95 ? rest.n : 95), rest.p);
    return true;
}

static int quoted(struct str s)
{
    return (int)(s.n < 200 ? s.n : 200);
}

enum err_code slurm_parse_queue(struct str text, struct arena *a, struct slurm_job **out, int *n,
                                struct err *e)
{
    struct str rest = text, line;
    int n_lines = 0, i = 0;
    while (str_next_line(&rest, &line))
        n_lines++;
    struct slurm_job *v = arena_array(a, (size_t)n_lines + 1, sizeof(*v));
    for (rest = text; str_next_line(&rest, &line); i++)
        if (!parse_queue_line(line, &v[i]))
            return err_set(e, ERR_FORMAT,
                           "squeue, line %d: expected ID|STATE|TIME|REASON and not \"%.*s\"", i + 1,
                           quoted(line), line.p);
    *out = v;
    *n = n_lines;
    return ERR_OK;
}

enum err_code slurm_parse_submitted(struct str text, int64_t *id, struct err *e)
{
    struct str rest = text, line = {0}, word = {0};
    /* Sites put greetings into sbatch; they go to standard error, so one line is all there may be. */
    bool is_good = str_next_line(&rest, &line) && rest.n == 0;
    struct str fields = line;
    if (!is_good || !str_next_field(&fields, ';', &word) || !parse_id(word, id))
        return err_set(e, ERR_FORMAT,
                       "sbatch --parsable: expected the number of a job and not \"%.*s\"",
                       quoted(text), text.p != NULL ? text.p : "");
    return ERR_OK;
}

enum err_code slurm_parse_ending(struct str text, struct slurm_ending *out, struct err *e)
{
    struct str rest = text, word, status, signal;
    while (str_next_field(&rest, ' ', &word)) {
        if (!str_starts(word, "ExitCode="))
            continue;
        struct str value = {word.p + strlen("ExitCode="), word.n - strlen("ExitCode=")};
        struct slurm_ending r = {0};
        if (str_next_field(&value, ':', &status) && str_next_field(&value, ':', &signal) &&
            value.p == NULL && parse_i64(status, &r.status) && parse_i64(signal, &r.signal) &&
            r.status >= 0 && r.status <= 255 && r.signal >= 0 && r.signal <= 255) {
            *out = r;
            return ERR_OK;
        }
    }
    return err_set(e, ERR_FORMAT, "scontrol show job: expected ExitCode=STATUS:SIGNAL in \"%.*s\"",
                   quoted(text), text.p != NULL ? text.p : "");
}

/* ---- what is said to Slurm ---- */

void slurm_job_name(const char *db_path, char out[24])
{
    char hex[SHA256_HEX];
    char *absolute = io_absolute(db_path);
    sha256_bytes(absolute, strlen(absolute), hex);
    xfree(absolute);
    snprintf(out, 24, "isobit-%.12s", hex);
}

/* One line of options; sbatch reads it as words, so that a value with a space needs quotes. */
static enum err_code add_option(struct buf *b, const char *name, const char *value, struct err *e)
{
    if (value == NULL)
        return ERR_OK;
    if (strpbrk(value, "\"\\\n\r") != NULL)
        return err_set(e, ERR_USAGE,
                       "%s%s: quotes, backslashes and line ends cannot stand in a batch script",
                       name, value);
    bool is_plain = strpbrk(value, " \t#") == NULL;
    buf_printf(b, is_plain ? "#SBATCH %s%s\n" : "#SBATCH %s\"%s\"\n", name, value);
    return ERR_OK;
}

static enum err_code add_options(const struct slurm_script *s, struct buf *b, struct err *e)
{
    enum err_code rc = ERR_OK;
    char *log = xasprintf("%s/slurm-%%j.log", s->log_dir);
    rc = add_option(b, "--output=", log, e);
    xfree(log);
    TRY(rc);
    TRY(add_option(b, "--job-name=", s->name, e));
    TRY(add_option(b, "--partition=", s->partition, e));
    TRY(add_option(b, "--account=", s->account, e));
    TRY(add_option(b, "--time=", s->walltime, e));
    buf_printf(b, "#SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --signal=B:USR1@%lld\n",
               (long long)s->drain_s);
    if (s->gpus > 0)
        buf_printf(b, "#SBATCH --gres=gpu:%lld\n", (long long)s->gpus);
    for (int i = 0; i < s->sbatch_args.n; i++) {
        const char *arg = s->sbatch_args.v[i];
        if (arg[0] != '-' || strpbrk(arg, "\n\r") != NULL)
            return err_set(e, ERR_USAGE,
                           "--sbatch-arg %s: expected one option of sbatch, e.g. "
                           "--sbatch-arg=--mem=20G",
                           arg);
        buf_printf(b, "#SBATCH %s\n", arg);
    }
    return ERR_OK;
}

/* A word of a shell command, in quotes unless it is plain. */
static void add_word(struct buf *b, const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
    buf_addc(b, ' ');
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        buf_adds(b, word);
        return;
    }
    buf_addc(b, '\'');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            buf_adds(b, "'\\''");
        else
            buf_addc(b, *p);
    }
    buf_addc(b, '\'');
}

static int64_t grace_of(const struct slurm_script *s)
{
    /* A third of the warning is for answers on their way and for Slurm's own slack. */
    return 2 * s->drain_s / 3;
}

/* Workers take no job that would not end in the grace after the warning, and leave by themselves when the warning is due, should
 * it not come. Slurm 23 and later say when a job ends, others are asked. */
static void add_walltime(const struct slurm_script *s, struct buf *b)
{
    buf_printf(
        b,
        "ends=${SLURM_JOB_END_TIME:+@$SLURM_JOB_END_TIME}\n"
        "[ -n \"$ends\" ] || ends=$(squeue --noheader --jobs=\"$SLURM_JOB_ID\" --format=%%e)\n"
        "if [ -n \"$ends\" ] && ends=$(date -d \"$ends\" +%%s 2>/dev/null); then\n"
        "    left=$((ends - $(date +%%s)))\n"
        "    if [ \"$left\" -le %1$lld ]; then\n"
        "        echo \"the time limit leaves $left s, not more than --drain %1$lld\" >&2\n"
        "        exit 1\n"
        "    fi\n"
        "    export ISOBIT_WALLTIME=$((left - %2$lld))\n"
        "fi\n",
        (long long)s->drain_s, (long long)(s->drain_s - grace_of(s)));
}

static void add_worker(const struct slurm_script *s, struct buf *b)
{
    int64_t n = s->gpus > 0 ? s->gpus : 1;
    buf_printf(b, "threads=$((${SLURM_CPUS_ON_NODE:-1} / %lld))\n", (long long)n);
    buf_adds(b, "[ \"$threads\" -gt 0 ] || threads=1\nfor device in");
    for (int64_t i = 0; i < s->gpus; i++)
        buf_printf(b, " cuda:%lld", (long long)i);
    buf_printf(b, "%s; do\n   ", s->gpus > 0 ? "" : " auto");
    add_word(b, s->worker_program);
    buf_adds(b, " run --connect");
    add_word(b, s->connect);
    if (s->keys_dir != NULL) {
        buf_adds(b, " --keys");
        add_word(b, s->keys_dir);
    }
    buf_printf(b,
               " --device \"$device\" --threads \"$threads\" \\\n        --idle-timeout %lld "
               "--grace %lld",
               (long long)s->idle_s, (long long)grace_of(s));
    for (int i = 0; i < s->worker_args.n; i++)
        add_word(b, s->worker_args.v[i]);
    buf_adds(b, " &\n    workers=\"$workers $!\"\ndone\n");
}

/* The shell stays, since Slurm's warning goes to it alone (B:). `wait` returns when a trap has run, so it is asked again; 127 is
 * its answer for a worker whose end it has told already. */
static const char before_workers[] =
    "\nworkers= told= signals=0\n"
    "# USR1 comes before the time limit and, where the cluster is set so, before preemption: the\n"
    "# workers hand their work back, and the job queues again.\n"
    "trap 'told=1; signals=$((signals + 1)); [ -z \"$workers\" ] || kill -USR1 $workers' USR1\n"
    "# TERM reaches the workers without this shell's help.\n"
    "trap 'signals=$((signals + 1))' TERM\n\n";
static const char after_workers_format[] =
    "status=0\n"
    "for worker in $workers; do\n"
    "    before= ended=127\n"
    "    until [ \"$before\" = \"$signals\" ]; do\n"
    "        before=$signals\n"
    "        wait \"$worker\"\n"
    "        code=$?\n"
    "        [ \"$code\" -eq 127 ] || ended=$code\n"
    "    done\n"
    "    [ \"$ended\" -le \"$status\" ] || status=$ended\n"
    "done\n"
    "# Where a job may not be queued again, `isobit slurm` starts another one.\n"
    "[ -z \"$ends\" ] || [ \"$(date +%%s)\" -lt $((ends - %lld)) ] || told=1\n"
    "[ -z \"$told\" ] || scontrol requeue \"$SLURM_JOB_ID\"\n"
    "exit \"$status\"\n";

enum err_code slurm_write_script(const struct slurm_script *s, struct buf *out, struct err *e)
{
    if (strpbrk(s->db_path, "\n\r") != NULL)
        return err_set(e, ERR_USAGE, "--db %s: a line end cannot stand in a batch script",
                       s->db_path);
    buf_printf(out, "#!/bin/sh\n# Workers for %s, started by `isobit slurm`.\n", s->db_path);
    TRY(add_options(s, out, e));
    buf_adds(out, before_workers);
    add_walltime(s, out);
    add_worker(s, out);
    /* A second for the clock's rounding: a worker that left when the warning was due counts as warned. */
    buf_printf(out, after_workers_format, (long long)s->drain_s + 1);
    return ERR_OK;
}

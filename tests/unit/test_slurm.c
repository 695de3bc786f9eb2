/* What Slurm says (recorded from 22.05.8), what is said to it, and how many jobs there should be. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/proc.h"
#include "coordinator/alloc.h"

/* ---- outputs ---- */

static const char recorded_queue[] = "19|PENDING|0:00|Resources\n"
                                     "18|RUNNING|1-02:03:04|None\n"
                                     "17|COMPLETING|0:31|None\n"
                                     "16|COMPLETED|0:31|None\n"
                                     "1|FAILED|0:08|NonZeroExitCode\n"
                                     "2|TIMEOUT|1:07|TimeLimit\n"
                                     "4|PENDING|0:00|(ReqNodeNotAvail, UnavailableNodes:vm|x)\n"
                                     "5|PREEMPTED|INVALID|None\n";

Test(slurm, queue_is_read_as_squeue_prints_it)
{
    struct arena a = {0};
    struct slurm_job *v = NULL;
    int n = 0;
    struct err e;
    cr_assert_eq(slurm_parse_queue(str_of(recorded_queue), &a, &v, &n, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(n, 8);
    cr_expect_eq(v[0].id, 19);
    cr_expect_eq(v[0].phase, SLURM_QUEUED);
    cr_expect_str_eq(v[0].reason, "Resources");
    cr_expect_eq(v[1].phase, SLURM_RUNNING);
    cr_expect_eq(v[1].run_s, 86400 + 2 * 3600 + 3 * 60 + 4);
    cr_expect_eq(v[2].phase, SLURM_LEAVING);
    cr_expect_eq(v[3].phase, SLURM_ENDED);
    cr_expect_eq(v[4].phase, SLURM_BROKEN);
    cr_expect_eq(v[4].run_s, 8);
    cr_expect_eq(v[5].phase, SLURM_TAKEN);
    cr_expect_eq(v[5].run_s, 67);
    cr_expect_str_eq(v[6].reason, "(ReqNodeNotAvail, UnavailableNodes:vm|x)");
    cr_expect_eq(v[7].phase, SLURM_TAKEN);
    arena_release(&a);
}

Test(slurm, an_empty_queue_is_a_queue)
{
    struct arena a = {0};
    struct slurm_job *v = NULL;
    int n = -1;
    struct err e;
    cr_assert_eq(slurm_parse_queue(str_of(""), &a, &v, &n, &e), ERR_OK);
    cr_expect_eq(n, 0);
    arena_release(&a);
}

Test(slurm, a_queue_that_is_not_exactly_right_is_an_error)
{
    static const char *const bad[] = {
        "19|PENDING|0:00",
        "|PENDING|0:00|x",
        "0|PENDING|0:00|x",
        "-1|PENDING|0:00|x",
        "19_3|PENDING|0:00|x",
        "19|WAITING|0:00|x",
        "19|pending|0:00|x",
        "19|RUNNING|00|x",
        "19|RUNNING|1:2:3:4|x",
        "19|RUNNING|0:99|x",
        "19|RUNNING|-1:00|x",
        "19|RUNNING|99999999999:00|x",
        "99999999999999999999|RUNNING|0:00|x",
        "slurm_load_jobs error: Unable to contact slurm controller",
        "19|PENDING|0:00|x\n\n20|PENDING|0:00|x",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct arena a = {0};
        struct slurm_job *v = NULL;
        int n = 0;
        struct err e;
        cr_expect_eq(slurm_parse_queue(str_of(bad[i]), &a, &v, &n, &e), ERR_FORMAT, "%s", bad[i]);
        arena_release(&a);
    }
}

Test(slurm, submitted_job_is_one_number)
{
    int64_t id = 0;
    struct err e;
    cr_expect_eq(slurm_parse_submitted(str_of("17\n"), &id, &e), ERR_OK);
    cr_expect_eq(id, 17);
    cr_expect_eq(slurm_parse_submitted(str_of("18;sandbox\n"), &id, &e), ERR_OK);
    cr_expect_eq(id, 18);
    static const char *const bad[] = {
        "", "\n", "Submitted batch job 17\n", "17 \n", "17\n18\n", "x17\n", "0\n", "+5\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(slurm_parse_submitted(str_of(bad[i]), &id, &e), ERR_FORMAT, "%s", bad[i]);
}

Test(slurm, ending_is_found_in_what_scontrol_shows)
{
    struct slurm_ending r = {0};
    struct err e;
    cr_expect_eq(
        slurm_parse_ending(str_of("JobId=1 JobName=isobit-x JobState=FAILED "
                                  "Reason=NonZeroExitCode Requeue=1 Restarts=0 BatchFlag=1 "
                                  "Reboot=0 ExitCode=3:0 RunTime=00:00:08\n"),
                           &r, &e),
        ERR_OK);
    cr_expect_eq(r.status, 3);
    cr_expect_eq(r.signal, 0);
    static const char *const bad[] = {"",
                                      "ExitCode=",
                                      "ExitCode=3",
                                      "ExitCode=3:x",
                                      "ExitCode=3:0:1",
                                      "ExitCode=999:0",
                                      "XExitCode=3:0"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(slurm_parse_ending(str_of(bad[i]), &r, &e), ERR_FORMAT, "%s", bad[i]);
}

/* ---- the script ---- */

static struct slurm_script plain_script(void)
{
    return (struct slurm_script){.name = "isobit-1",
                                 .db_path = "/data/s.db",
                                 .worker_program = "/opt/isobit-worker",
                                 .connect = "tcp://head:5555",
                                 .log_dir = "/data/s.db-logs",
                                 .partition = "gpu",
                                 .idle_s = 300,
                                 .drain_s = 90};
}

static bool has_line(const struct buf *text, const char *line)
{
    struct str rest = {text->data, text->len}, l;
    while (str_next_line(&rest, &l))
        if (str_eqz(str_trim(l), line))
            return true;
    return false;
}

Test(slurm, script_asks_for_what_was_asked_for)
{
    struct slurm_script s = plain_script();
    const char *sbatch[] = {"--mem=20G"}, *worker[] = {"--memory=20GiB", "it's"};
    struct buf text = {0};
    struct err e;
    s.walltime = "4:00:00";
    s.account = "physics";
    s.gpus = 2;
    s.keys_dir = "/data/keys of mine";
    s.sbatch_args = (struct cli_list){sbatch, 1};
    s.worker_args = (struct cli_list){worker, 2};
    cr_assert_eq(slurm_write_script(&s, &text, &e), ERR_OK, "%s", e.text);
    static const char *const lines[] = {
        "#!/bin/sh",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=physics",
        "#SBATCH --time=4:00:00",
        "#SBATCH --gres=gpu:2",
        "#SBATCH --mem=20G",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@90",
        "#SBATCH --output=/data/s.db-logs/slurm-%j.log",
        "for device in cuda:0 cuda:1; do",
        "--idle-timeout 300 --grace 60 --memory=20GiB 'it'\\''s' &",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        cr_expect(has_line(&text, lines[i]), "%s is missing in\n%s", lines[i], text.data);
    cr_expect(strstr(text.data, "--keys '/data/keys of mine'") != NULL);
    buf_release(&text);
}

Test(slurm, a_value_cannot_break_out_of_its_line)
{
    struct err e;
    struct buf text = {0};
    const char *bad_arg[] = {"--mem=1\nrm -rf /"}, *no_option[] = {"mem"};
    struct slurm_script s = plain_script();
    s.partition = "gpu\n#SBATCH --mem=1";
    cr_expect_eq(slurm_write_script(&s, &text, &e), ERR_USAGE);
    s = plain_script();
    s.db_path = "/data/a\nrm";
    cr_expect_eq(slurm_write_script(&s, &text, &e), ERR_USAGE);
    s = plain_script();
    s.sbatch_args = (struct cli_list){bad_arg, 1};
    cr_expect_eq(slurm_write_script(&s, &text, &e), ERR_USAGE);
    s.sbatch_args = (struct cli_list){no_option, 1};
    cr_expect_eq(slurm_write_script(&s, &text, &e), ERR_USAGE);
    buf_release(&text);
}

static int run_script(const char *worker, const char *during, struct proc_output *out)
{
    struct slurm_script s = plain_script();
    struct buf text = {0};
    struct err e;
    s.worker_program = worker;
    cr_assert_eq(slurm_write_script(&s, &text, &e), ERR_OK);
    char *whole = xasprintf("SLURM_JOB_ID=7\nscontrol() { echo \"scontrol $*\"; }\n"
                            "squeue() { echo NONE; }\n%s\n%s",
                            during, text.data);
    char *const argv[] = {"/bin/sh", "-c", whole, NULL};
    cr_assert_eq(proc_run(argv, (struct str){0}, (int64_t)10000000000, out, &e), ERR_OK, "%s",
                 e.text);
    xfree(whole);
    buf_release(&text);
    return out->status;
}

Test(slurm, script_ends_as_its_worker_does)
{
    struct proc_output out;
    cr_expect_eq(run_script("/bin/false", ":", &out), 1 << 8);
    cr_expect_eq(out.out.len, 0, "%s", out.out.data);
    proc_output_release(&out);
    cr_expect_eq(run_script("/bin/true", ":", &out), 0);
    proc_output_release(&out);
}

/* The worker is a shell that ends when it gets USR1; the script gets USR1 half a second after its start. */
Test(slurm, script_hands_the_warning_on_and_queues_again)
{
    struct proc_output out;
    char path[] = "/tmp/isobit-test-worker-XXXXXX";
    int fd = mkstemp(path);
    static const char worker[] =
        "#!/bin/sh\ntrap 'echo drained; exit 0' USR1\n"
        "i=0; while [ $i -lt 80 ]; do i=$((i+1)); sleep 0.1; done\nexit 9\n";
    cr_assert_eq(write(fd, worker, sizeof(worker) - 1), (ssize_t)sizeof(worker) - 1);
    fchmod(fd, 0700);
    close(fd);
    cr_expect_eq(run_script(path, "me=$$; (sleep 0.5; kill -TERM $me; kill -USR1 $me) &", &out), 0);
    cr_expect(strstr(out.out.data, "drained\nscontrol requeue 7\n") != NULL, "%s", out.out.data);
    proc_output_release(&out);
    unlink(path);
}

/* A worker that says what it was told of the time. */
Test(slurm, script_tells_workers_when_the_warning_comes)
{
    struct proc_output out;
    char path[] = "/tmp/isobit-test-worker-XXXXXX";
    int fd = mkstemp(path);
    static const char worker[] = "#!/bin/sh\necho \"time ${ISOBIT_WALLTIME:-none}\"\n";
    int64_t left = 0;
    cr_assert_eq(write(fd, worker, sizeof(worker) - 1), (ssize_t)sizeof(worker) - 1);
    fchmod(fd, 0700);
    close(fd);
    run_script(path, ":", &out);
    cr_expect_str_eq(out.out.data, "time none\n");
    proc_output_release(&out);
    run_script(path, "squeue() { date -d '+1000 seconds' +%Y-%m-%dT%H:%M:%S; }", &out);
    cr_assert(str_starts(str_of(out.out.data), "time ") &&
              parse_i64(str_trim(str_of(out.out.data + 5)), &left));
    cr_expect(left >= 960 && left <= 970, "%s", out.out.data);
    proc_output_release(&out);
    run_script(path, "SLURM_JOB_END_TIME=$(($(date +%s) + 2000))", &out);
    cr_assert(parse_i64(str_trim(str_of(out.out.data + 5)), &left));
    cr_expect(left >= 1960 && left <= 1970, "%s", out.out.data);
    proc_output_release(&out);
    unlink(path);
}

/* A worker that sees the time run out before the warning comes leaves by itself: that is no reason to end for good. */
Test(slurm, script_queues_again_when_its_time_is_over)
{
    struct proc_output out;
    char path[] = "/tmp/isobit-test-worker-XXXXXX";
    int fd = mkstemp(path);
    static const char worker[] = "#!/bin/sh\nsleep 2\n";
    cr_assert_eq(write(fd, worker, sizeof(worker) - 1), (ssize_t)sizeof(worker) - 1);
    fchmod(fd, 0700);
    close(fd);
    run_script(path, "SLURM_JOB_END_TIME=$(($(date +%s) + 92))", &out);
    cr_expect_str_eq(out.out.data, "scontrol requeue 7\n");
    proc_output_release(&out);
    run_script(path, "SLURM_JOB_END_TIME=$(($(date +%s) + 200))", &out);
    cr_expect_eq(out.out.len, 0, "%s", out.out.data);
    proc_output_release(&out);
    unlink(path);
}

/* It would be warned at once, and queue again for ever. */
Test(slurm, script_refuses_a_time_limit_within_the_warning)
{
    struct proc_output out;
    cr_expect_eq(run_script("/bin/true", "SLURM_JOB_END_TIME=$(($(date +%s) + 60))", &out), 1 << 8);
    cr_expect_eq(out.out.len, 0, "%s", out.out.data);
    cr_expect(strstr(out.err.data, "not more than --drain 90") != NULL, "%s", out.err.data);
    proc_output_release(&out);
}

Test(slurm, name_depends_on_the_database)
{
    char a[24], b[24];
    slurm_job_name("/data/a.db", a);
    slurm_job_name("/data/b.db", b);
    cr_expect_eq(strlen(a), 19);
    cr_expect_str_neq(a, b);
}

/* ---- how many ---- */

struct scene {
    struct alloc alloc;
    struct arena arena;
    struct alloc_end *ends;
    int n_ends;
};

static struct scene scene_of(int64_t max, int64_t backlog)
{
    return (struct scene){.alloc.limits = {.max = max, .backlog = backlog, .idle_s = 300}};
}

static void look(struct scene *s, const char *queue, int64_t pending, int64_t done,
                 int64_t passed_s)
{
    struct slurm_job *v = NULL;
    int n = 0;
    struct err e;
    const struct alloc_work work = {pending, done, passed_s};
    cr_assert_eq(slurm_parse_queue(str_of(queue), &s->arena, &v, &n, &e), ERR_OK, "%s", e.text);
    alloc_observe(&s->alloc, v, n, &work, &s->arena, &s->ends, &s->n_ends);
}

static void scene_release(struct scene *s)
{
    alloc_release(&s->alloc);
    arena_release(&s->arena);
}

Test(alloc, grows_by_the_backlog_up_to_the_maximum)
{
    struct scene s = scene_of(4, 2);
    look(&s, "", 100, 0, 0);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 2);
    alloc_submitted(&s.alloc, 1);
    alloc_submitted(&s.alloc, 2);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 0);
    look(&s, "1|RUNNING|0:01|None\n2|PENDING|0:00|Resources\n", 100, 0, 1);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 1);
    look(&s, "1|RUNNING|0:01|None\n2|RUNNING|0:00|None\n3|RUNNING|0:00|None\n", 100, 0, 1);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 1, "the maximum");
    scene_release(&s);
}

Test(alloc, never_queues_more_than_there_is_work_waiting)
{
    struct scene s = scene_of(40, 20);
    look(&s, "", 3, 0, 0);
    cr_expect_eq(alloc_to_submit(&s.alloc, 3), 3);
    cr_expect_eq(alloc_to_submit(&s.alloc, 0), 0);
    cr_expect_not(alloc_is_queue_idle(&s.alloc, 0));
    look(&s, "1|PENDING|0:00|Resources\n", 0, 0, 1);
    cr_expect(alloc_is_queue_idle(&s.alloc, 0));
    scene_release(&s);
}

Test(alloc, finds_the_jobs_of_an_earlier_process_and_forgets_ended_ones)
{
    struct scene s = scene_of(4, 2);
    look(&s, "1|RUNNING|9:00|None\n2|FAILED|0:01|NonZeroExitCode\n", 100, 0, 0);
    cr_expect_eq(alloc_count(&s.alloc, SLURM_RUNNING), 1);
    cr_expect_eq(s.n_ends, 0);
    cr_expect_eq(s.alloc.failed_starts, 0);
    scene_release(&s);
}

Test(alloc, three_failed_starts_in_a_row_pause_it)
{
    struct scene s = scene_of(4, 4);
    alloc_submitted(&s.alloc, 1);
    alloc_submitted(&s.alloc, 2);
    alloc_submitted(&s.alloc, 3);
    alloc_submitted(&s.alloc, 4);
    look(&s, "1|FAILED|0:03|x\n2|FAILED|0:03|x\n3|RUNNING|0:03|x\n4|RUNNING|0:03|x\n", 9, 0, 1);
    cr_expect_eq(s.n_ends, 2);
    cr_expect_eq(s.ends[0].verdict, ALLOC_FAILED);
    cr_expect_not(s.alloc.is_paused);
    look(&s, "3|NODE_FAIL|0:40|x\n4|RUNNING|0:03|x\n", 9, 0, 1);
    cr_expect(s.alloc.is_paused);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 0);
    alloc_resume(&s.alloc);
    cr_expect_eq(alloc_to_submit(&s.alloc, 100), 3);
    scene_release(&s);
}

Test(alloc, a_good_life_forgives_and_preemption_does_not_count)
{
    struct scene s = scene_of(4, 4);
    for (int i = 1; i <= 5; i++)
        alloc_submitted(&s.alloc, i);
    look(&s,
         "1|FAILED|0:03|x\n2|FAILED|0:03|x\n3|RUNNING|0:03|x\n4|RUNNING|0:03|x\n5|RUNNING|0:03|x\n",
         9, 0, 1);
    look(&s, "3|PREEMPTED|0:03|x\n4|CANCELLED|0:03|x\n5|RUNNING|0:03|x\n", 9, 0, 1);
    cr_expect_eq(s.alloc.failed_starts, 2);
    look(&s, "5|FAILED|2:00|x\n", 9, 0, 1);
    cr_expect_eq(s.alloc.failed_starts, 0);
    scene_release(&s);
}

Test(alloc, workers_that_find_nothing_pause_it)
{
    struct scene s = scene_of(4, 4);
    for (int i = 1; i <= 3; i++)
        alloc_submitted(&s.alloc, i);
    look(&s, "1|RUNNING|0:01|x\n2|RUNNING|0:01|x\n3|RUNNING|0:01|x\n", 9, 5, 0);
    look(&s, "1|RUNNING|5:01|x\n2|RUNNING|5:01|x\n3|RUNNING|5:01|x\n", 9, 5, 301);
    look(&s, "1|COMPLETED|5:02|x\n2|COMPLETED|5:02|x\n3|COMPLETED|5:02|x\n", 9, 5, 2);
    cr_expect_eq(s.ends[0].verdict, ALLOC_USELESS);
    cr_expect(s.alloc.is_paused);
    scene_release(&s);
}

Test(alloc, workers_that_leave_while_others_get_on_are_fine)
{
    struct scene s = scene_of(4, 4);
    for (int i = 1; i <= 3; i++)
        alloc_submitted(&s.alloc, i);
    look(&s, "1|RUNNING|0:01|x\n2|RUNNING|0:01|x\n3|RUNNING|0:01|x\n", 9, 5, 0);
    look(&s, "1|RUNNING|5:01|x\n2|RUNNING|5:01|x\n3|RUNNING|5:01|x\n", 9, 6, 301);
    look(&s, "1|COMPLETED|5:02|x\n2|COMPLETED|5:02|x\n3|COMPLETED|5:02|x\n", 9, 6, 2);
    cr_expect_eq(s.ends[0].verdict, ALLOC_LEFT);
    cr_expect_not(s.alloc.is_paused);
    scene_release(&s);
}

Test(alloc, ten_refused_submissions_pause_it)
{
    struct scene s = scene_of(4, 4);
    for (int i = 0; i < 9; i++)
        alloc_submit_failed(&s.alloc);
    cr_expect_not(s.alloc.is_paused);
    alloc_submit_failed(&s.alloc);
    cr_expect(s.alloc.is_paused);
    scene_release(&s);
}

/* err, mem, str, io, json, sha256, rng, signals, proc: the small parts everything stands on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/signals.h"
#include "base/str.h"
#include "tests/support/support.h"

Test(err, wrapping_puts_the_outer_step_in_front)
{
    struct err e;
    cr_assert_eq(err_set(&e, ERR_FORMAT, "tensor %s", "w"), ERR_FORMAT);
    cr_assert_eq(err_wrap(&e, "loading shard %d", 2), ERR_FORMAT);
    cr_assert_str_eq(e.text, "loading shard 2: tensor w");
}

Test(err, names_go_round_and_unknown_ones_become_io)
{
    for (int c = ERR_OK; c < ERR_CODE_COUNT; c++)
        cr_expect_eq((int)err_from_name(err_name((enum err_code)c)), c);
    cr_expect_eq(err_from_name("NO_SUCH"), ERR_IO);
    cr_expect_eq(err_exit_status(ERR_USAGE), 2);
    cr_expect_eq(err_exit_status(ERR_FORMAT), 3);
    cr_expect_eq(err_exit_status(ERR_BUSY), 4);
}

Test(err, errno_chooses_the_code)
{
    struct err e;
    cr_expect_eq(err_set_errno(&e, ENOENT, "open x"), ERR_NOTFOUND);
    cr_expect_eq(err_set_errno(&e, EROFS, "open x"), ERR_DENIED);
    cr_expect_eq(err_set_errno(&e, ENOSPC, "write x"), ERR_IO);
    cr_expect(strstr(e.text, "No space left") != NULL);
}

Test(err, overlong_texts_are_cut_and_stay_terminated)
{
    struct err e;
    char big[3000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    err_set(&e, ERR_FORMAT, "%s", big);
    err_wrap(&e, "outer");
    cr_expect_lt(strlen(e.text), sizeof(e.text));
    cr_expect(strncmp(e.text, "outer: xxx", 10) == 0);
}

/* What a file puts into an error must not write lines of its own, nor speak to a terminal. */
Test(err, a_text_is_one_line_whatever_goes_into_it)
{
    struct err e;
    err_set(&e, ERR_FORMAT, "dtype \"%s\"", "F\n16\r\t\x1b[31m\x7f \xc3\xa9");
    cr_expect_str_eq(e.text, "dtype \"F?16???[31m? \xc3\xa9\"");
    err_wrap(&e, "shard %s", "a\nb");
    cr_expect_str_eq(e.text, "shard a?b: dtype \"F?16???[31m? \xc3\xa9\"");
    err_set_errno(&e, ENOENT, "open %s", "x\ny");
    cr_expect(strncmp(e.text, "open x?y: ", 10) == 0, "%s", e.text);
}

Test(mem, size_arithmetic_refuses_overflow)
{
    size_t r = 7;
    cr_expect_not(size_mul(SIZE_MAX, 2, &r));
    cr_expect_not(size_add(SIZE_MAX, 1, &r));
    cr_expect_eq(r, 7);
    cr_expect(size_mul(3, 5, &r) && r == 15);
}

Test(mem, big_alloc_fails_when_told_to)
{
    struct err e;
    void *p = NULL;
    mem_fail_after(2);
    cr_assert_eq(big_alloc(100, "a", &p, &e), ERR_OK);
    big_free(p, 100);
    cr_assert_eq(big_alloc(100, "weights", &p, &e), ERR_NOMEM);
    cr_assert(strstr(e.text, "weights needs 100 bytes") != NULL);
    cr_assert_eq(big_alloc(100, "a", &p, &e), ERR_OK);
    big_free(p, 100);
}

Test(mem, arena_memory_is_zero_and_aligned)
{
    struct arena a = {0};
    for (size_t n = 1; n < 200000; n = n * 3 + 1) {
        unsigned char *p = arena_alloc(&a, n);
        cr_assert_eq((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(p[i], 0);
        memset(p, 0xff, n);
    }
    arena_release(&a);
    cr_assert_str_eq(arena_printf(&a, "%d-%s", 4, "bit"), "4-bit");
    arena_release(&a);
}

Test(str, numbers_must_be_the_whole_text)
{
    int64_t n = -1;
    double d = -1;
    cr_expect(parse_i64(STR("-42"), &n) && n == -42);
    cr_expect_not(parse_i64(STR("42 "), &n));
    cr_expect_not(parse_i64(STR(" 42"), &n));
    cr_expect_not(parse_i64(STR(""), &n));
    cr_expect_not(parse_i64(STR("9223372036854775808"), &n));
    cr_expect(parse_f64(STR("1e-3"), &d) && d == 1e-3);
    cr_expect_not(parse_f64(STR("nan"), &d));
    cr_expect_not(parse_f64(STR("inf"), &d));
    cr_expect_not(parse_f64(STR("1e999"), &d));
    cr_expect(parse_bytes(STR("1.5K"), &n) && n == 1536);
    cr_expect(parse_bytes(STR("6GiB"), &n) && n == (INT64_C(6) << 30));
    cr_expect(parse_bytes(STR("6GB"), &n) && n == INT64_C(6000000000));
    cr_expect(parse_bytes(STR("2kB"), &n) && n == 2000);
    cr_expect(parse_bytes(STR("80g"), &n) && n == (INT64_C(80) << 30));
    cr_expect_not(parse_bytes(STR("6 apples"), &n));
}

Test(str, lines_and_fields_are_cut)
{
    struct str rest = STR("a\r\nbc\n\nd");
    struct str line;
    cr_assert(str_next_line(&rest, &line) && str_eqz(line, "a"));
    cr_assert(str_next_line(&rest, &line) && str_eqz(line, "bc"));
    cr_assert(str_next_line(&rest, &line) && line.n == 0);
    cr_assert(str_next_line(&rest, &line) && str_eqz(line, "d"));
    cr_assert_not(str_next_line(&rest, &line));
    rest = STR("a||");
    cr_assert(str_next_field(&rest, '|', &line) && str_eqz(line, "a"));
    cr_assert(str_next_field(&rest, '|', &line) && line.n == 0);
    cr_assert(str_next_field(&rest, '|', &line) && line.n == 0);
    cr_assert_not(str_next_field(&rest, '|', &line));
}

Test(str, glob_matches_whole_texts)
{
    static const struct {
        const char *pattern, *text;
        bool is_match;
    } cases[] = {{"*", "", true},         {"a*c", "abbc", true},
                 {"a*c", "abbcd", false}, {"*k=4|*", "v1|k=4|m", true},
                 {"?", "ab", false},      {"*|k=?*", "x|k=16", true},
                 {"a[b]", "a[b]", true},  {"**a*", "bba", true},
                 {"abc", "abc", true},    {"", "", true},
                 {"", "a", false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        cr_expect_eq(str_glob(cases[i].pattern, cases[i].text), cases[i].is_match, "%s on %s",
                     cases[i].pattern, cases[i].text);
}

Test(str, a_buffer_stops_at_its_maximum)
{
    struct buf b = {.max = 10};
    cr_assert(buf_try_add(&b, "0123456789", 10));
    cr_assert_not(buf_try_add(&b, "x", 1));
    cr_assert_str_eq(b.data, "0123456789");
    buf_release(&b);
}

Test(str, quantities_are_written_for_people)
{
    char t[32];
    cr_expect_str_eq(fmt_bytes(1530000000, t), "1.53 GB");
    cr_expect_str_eq(fmt_bytes(812, t), "812 B");
    cr_expect_str_eq(fmt_duration(3.25, t), "3.2 s");
    cr_expect_str_eq(fmt_duration(200, t), "3m 20s");
    cr_expect_str_eq(fmt_duration(7500, t), "2h 05m");
}

Test(io, a_replaced_file_is_whole_or_old)
{
    char *dir = support_tmpdir();
    char *path = xasprintf("%s/f", dir);
    struct err e;
    cr_assert_eq(io_write_file(path, "one", 3, &e), ERR_OK);
    cr_assert_eq(io_write_file(path, "second", 6, &e), ERR_OK);
    struct buf b = {0};
    cr_assert_eq(io_read_file(path, 100, &b, &e), ERR_OK);
    cr_assert_str_eq(b.data, "second");
    buf_release(&b);
    cr_assert_eq(io_read_file(path, 5, &b, &e), ERR_FORMAT);
    cr_assert_eq(io_read_file("/no/such/file", 5, &b, &e), ERR_NOTFOUND);
    cr_assert_eq(io_read_file(dir, 5, &b, &e), ERR_FORMAT);
    cr_assert_eq(io_write_file("/no/such/dir/f", "x", 1, &e), ERR_NOTFOUND);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(io, a_pipe_in_the_place_of_a_file_is_refused_at_once, .timeout = 20)
{
    char *dir = support_tmpdir();
    char *path = xasprintf("%s/f", dir);
    struct err e;
    struct buf b = {0};
    struct io_map map;
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(io_read_file(path, 5, &b, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "is not a regular file") != NULL, "%s", e.text);
    cr_expect_eq(io_map_open(path, &map, &e), ERR_FORMAT);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(json, errors_name_the_place_and_the_key)
{
    struct err e;
    json_t *doc = NULL;
    cr_assert_eq(json_parse(STR("{\"a\": 1,\n \"a\": 2}"), "x.json", &doc, &e), ERR_FORMAT);
    cr_assert(strncmp(e.text, "x.json:2:", 9) == 0, "%s", e.text);
    cr_assert_eq(json_parse(STR("{\"k\": 3, \"s\": \"t\"}"), "x.json", &doc, &e), ERR_OK);
    int64_t n = 0;
    cr_expect_eq(json_need_int(doc, "k", "x.json", 4, 8, &n, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "\"k\" is 3, expected 4 to 8") != NULL);
    cr_expect_eq(json_need_int(doc, "s", "x.json", 4, 8, &n, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "must be an integer, but it is a string") != NULL);
    const char *s = NULL;
    cr_expect_eq(json_need_str(doc, "missing", "x.json", &s, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "missing") != NULL);
    json_decref(doc);
}

Test(json, what_json_cannot_say_becomes_null)
{
    json_t *o = json_pack("[o,o,o]", json_number_or_null(1.5), json_number_or_null(NAN),
                          json_number_or_null(INFINITY));
    struct buf b = {0};
    json_append(&b, o, false);
    cr_assert_str_eq(b.data, "[1.5,null,null]");
    buf_release(&b);
    json_decref(o);
}

Test(json, deep_nesting_is_refused)
{
    struct buf b = {0};
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, '[');
    json_t *doc = NULL;
    struct err e;
    cr_assert_eq(json_parse((struct str){b.data, b.len}, "deep", &doc, &e), ERR_FORMAT);
    buf_release(&b);
}

Test(sha256, known_digest)
{
    char hex[SHA256_HEX];
    sha256_bytes("abc", 3, hex); /* FIPS 180-4, example */
    cr_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

Test(rng, numbers_are_the_specified_ones)
{
    struct rng r = {0}; /* SplitMix64 from state 0 */
    cr_assert_eq(rng_u64(&r), 0xe220a8397b1dcdafU);
    cr_assert_eq(rng_u64(&r), 0x6e789e6aa1b965f4U);
}

static struct proc_output run_shell(const char *line, const char *input, int64_t limit_ns,
                                    enum err_code expected)
{
    char *const argv[] = {"/bin/sh", "-c", (char *)line, NULL};
    struct proc_output o = {0};
    struct err e = {0};
    cr_assert_eq(proc_run(argv, str_of(input), limit_ns, &o, &e), expected, "%s", e.text);
    return o;
}

static bool is_blocked(int number)
{
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    return sigismember(&now, number) == 1;
}

Test(signals, arrive_at_the_descriptor_until_it_is_closed)
{
    struct signals s = {0};
    struct err e;
    signals_close(&s);
    cr_assert_eq(signals_open(&s, SIGUSR1, &e), ERR_OK);
    cr_expect_eq(signals_next(&s), 0);
    raise(SIGUSR1);
    cr_expect_eq(signals_next(&s), SIGUSR1);
    raise(SIGHUP);
    cr_expect_eq(signals_next(&s), SIGHUP);
    cr_expect_eq(signals_next(&s), 0);
    signals_close(&s);
    cr_expect(!is_blocked(SIGUSR1) && !is_blocked(SIGTERM) && !s.is_open);
    cr_assert_eq(signals_open(&s, 0, &e), ERR_OK);
    cr_expect(!is_blocked(SIGUSR1) && is_blocked(SIGTERM), "only what is listened to");
    signals_close(&s);
}

Test(signals, a_reader_that_is_gone_does_not_end_the_work)
{
    struct signals s = {0};
    struct err e;
    int ends[2];
    cr_assert_eq(signals_open(&s, 0, &e), ERR_OK);
    cr_assert_eq(pipe(ends), 0);
    close(ends[0]);
    cr_expect_eq(write(ends[1], "x", 1), -1);
    cr_expect_eq(errno, EPIPE);
    close(ends[1]);
    signals_close(&s);
}

/* Of a process that is bound to one core. */
Test(proc, cores_are_those_of_the_process)
{
    cpu_set_t before, one;
    int first = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    cr_expect_eq(proc_cores(), CPU_COUNT(&before));
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_expect_eq(proc_cores(), 1);
    cr_assert_eq(sched_setaffinity(0, sizeof before, &before), 0);
}

Test(proc, run_keeps_both_streams_and_the_status)
{
    struct proc_output o = run_shell("cat; echo bad >&2; exit 3", "in\n", 5000000000, ERR_OK);
    cr_expect_str_eq(o.out.data, "in\n");
    cr_expect_str_eq(o.err.data, "bad\n");
    cr_expect_eq(WEXITSTATUS(o.status), 3);
    proc_output_release(&o);
}

Test(proc, run_ends_what_does_not_end)
{
    run_shell("sleep 60", "", 100000000, ERR_TIMEOUT);
}

Test(proc, run_takes_no_endless_output)
{
    run_shell("yes", "", 20000000000, ERR_FORMAT);
}

Test(proc, find_looks_in_path_only)
{
    char *sh = proc_find("sh");
    cr_expect(sh != NULL && sh[0] == '/');
    xfree(sh);
    cr_expect_null(proc_find("no-such-program-here"));
}

Test(io, last_line_is_what_a_program_said_last)
{
    char *dir = support_tmpdir(), *path = xasprintf("%s/log", dir), line[16];
    support_write(path, "first\nthe second line is long\n\n", 31);
    io_last_line(path, line, sizeof(line));
    cr_expect_str_eq(line, "the second line");
    io_last_line("/nonexistent", line, sizeof(line));
    cr_expect_str_eq(line, "");
    xfree(path);
    support_tmpdir_remove(dir);
}

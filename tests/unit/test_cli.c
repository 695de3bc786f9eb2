#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/err.h"
#include "base/mem.h"
#include "tests/support/support.h"

struct opts {
    const char *task;
    const char *kind;
    int64_t k;
    int64_t memory;
    double pct;
    bool is_loud;
    struct cli_list devices;
};

static const struct cli_opt table[] = {
    {.name = "task",
     .type = CLI_STRING,
     .arg = "NAME",
     .help = "task",
     .offset = offsetof(struct opts, task)},
    {.name = "kind",
     .type = CLI_CHOICE,
     .arg = "K",
     .help = "kind",
     .def = "int",
     .choices = "int|float",
     .offset = offsetof(struct opts, kind)},
    {.name = "k",
     .letter = 'k',
     .type = CLI_INT,
     .arg = "BITS",
     .help = "bits",
     .def = "4",
     .min = 2,
     .max = 8,
     .offset = offsetof(struct opts, k)},
    {.name = "memory",
     .type = CLI_BYTES,
     .arg = "SIZE",
     .help = "memory",
     .offset = offsetof(struct opts, memory)},
    {.name = "outlier-pct",
     .type = CLI_NUMBER,
     .arg = "PCT",
     .help = "share",
     .offset = offsetof(struct opts, pct)},
    {.name = "loud", .type = CLI_FLAG, .help = "loud", .offset = offsetof(struct opts, is_loud)},
    {.name = "device",
     .type = CLI_LIST,
     .arg = "D",
     .help = "devices",
     .offset = offsetof(struct opts, devices)},
};

static struct opts seen;
static int seen_args;

/* Texts live as long as the command runs, so the test keeps copies. */
static int run_seen(const void *opts, int n_args, char **args)
{
    (void)args;
    seen = *(const struct opts *)opts;
    seen.task = seen.task != NULL ? xstrdup(seen.task) : NULL;
    seen.kind = xstrdup(seen.kind);
    seen_args = n_args;
    return 0;
}

static const struct cli_cmd cmd_go = {
    .name = "go",
    .args = "FILE",
    .summary = "Goes.",
    .doc = "A paragraph whose lines\nare filled, however they are broken "
           "in the source of the program.\n"
           "  isobit an example that is longer than a terminal's 80 "
           "columns but can be copied as it is\n"
           "  fields[one, two, three, four, five, six, seven, eight, "
           "nine, ten, eleven, twelve]\n\nEnd.",
    .opts = table,
    .n_opts = ARRAY_LEN(table),
    .opt_size = sizeof(struct opts),
    .min_args = 0,
    .max_args = 1,
    .run = run_seen};
static const struct cli_cmd *const cmds[] = {&cmd_go, NULL};
static const struct cli_program program = {.name = "prog", .summary = "A program.", .cmds = cmds};

/* Splits at spaces and runs. */
static int go(const char *line)
{
    char *words[32] = {0};
    int n = 0;
    struct str rest = str_of(line);
    struct str word;
    while (n < 31 && str_next_field(&rest, ' ', &word))
        words[n++] = xstrndup(word.p, word.n);
    int status = cli_main(&program, n, words);
    /* option values point into the words, which live until the test's process ends */
    static char **kept[64];
    static int n_kept;
    kept[n_kept] = xmalloc(sizeof(words));
    memcpy(kept[n_kept++], words, sizeof(words));
    return status;
}

Test(cli, defaults_hold_where_nothing_is_said)
{
    cr_assert_eq(go("prog go"), 0);
    cr_assert_eq(seen.k, 4);
    cr_assert_str_eq(seen.kind, "int");
    cr_assert_null(seen.task);
    cr_assert_eq(seen.devices.n, 0);
    cr_assert_not(seen.is_loud);
}

Test(cli, flags_of_every_type_are_read)
{
    cr_assert_eq(go("prog go -k 3 --kind float --memory 6GiB --outlier-pct=2.5 --loud --device a "
                    "--device b FILE"),
                 0);
    cr_assert_eq(seen.k, 3);
    cr_assert_eq(seen.memory, INT64_C(6) << 30);
    cr_assert_float_eq(seen.pct, 2.5, 0);
    cr_assert(seen.is_loud);
    cr_assert_eq(seen.devices.n, 2);
    cr_assert_eq(seen_args, 1);
}

Test(cli, flag_beats_environment_beats_config_beats_default)
{
    char *dir = support_tmpdir();
    char *path = xasprintf("%s/c.conf", dir);
    const char text[] = "# comment\nk = 5\ntask = from-config\nkind = float\n";
    support_write(path, text, strlen(text));
    setenv("ISOBIT_TASK", "from-env", 1);
    setenv("ISOBIT_OUTLIER_PCT", "1.5", 1);
    setenv("ISOBIT_DEVICE", "x,y,z", 1);
    char *line = xasprintf("prog go --config %s --kind int", path);
    cr_assert_eq(go(line), 0);
    cr_expect_eq(seen.k, 5);
    cr_expect_str_eq(seen.task, "from-env");
    cr_expect_str_eq(seen.kind, "int");
    cr_expect_float_eq(seen.pct, 1.5, 0);
    cr_expect_eq(seen.devices.n, 3);
    xfree(line);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(cli, wrong_usage_is_status_2_with_one_line)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"prog go --nope", "no option --nope"},
        {"prog go --k", "option --k needs BITS"},
        {"prog go -k 9", "expected 2 to 8"},
        {"prog go -k 3x", "expected a whole number"},
        {"prog go --kind odd", "expected int|float"},
        {"prog go --memory lots", "expected a size"},
        {"prog go a b", "unexpected word 'b'"},
        {"prog gone", "no command 'gone'"},
        {"prog go --nope FILE", "no option --nope"},
        {"prog go FILE --nope --loud", "no option --nope"},
        {"prog go --nope=3", "no option --nope"},
        {"prog go --task x --nope y z", "no option --nope"},
        {"prog go -x FILE", "no option -x"},
        {"prog go -5", "a word that starts with - goes behind --"},
        {"prog go --loud=yes FILE", "option --loud takes no value"},
        {"prog go FILE --task", "option --task needs NAME"},
        {"prog go -k", "option -k needs BITS"},
        {"prog go --d=1 --lou --nope", "no option --nope"},
        {"prog go --k=4 --t", "option --task needs NAME"},
        {"prog go --l", "--l can mean --loud or --log-format"},
        {"prog config", "expected COMMAND"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *dir = support_tmpdir();
        char *path = xasprintf("%s/err", dir);
        FILE *old = freopen(path, "w", stderr);
        cr_assert_not_null(old);
        int status = go(cases[i].line);
        fflush(stderr);
        struct buf text = {0};
        FILE *f = fopen(path, "r");
        char line[512];
        while (fgets(line, sizeof(line), f) != NULL)
            buf_adds(&text, line);
        fclose(f);
        cr_expect_eq(status, 2, "%s gave %d", cases[i].line, status);
        cr_expect(strstr(text.data, cases[i].says) != NULL, "%s said %s", cases[i].line, text.data);
        cr_expect_eq(strchr(text.data, '\n'), text.data + text.len - 1, "%s: one line",
                     cases[i].line);
        buf_release(&text);
        xfree(path);
        support_tmpdir_remove(dir);
    }
}

static void read_help(char *text, size_t size)
{
    cr_redirect_stdout();
    cr_assert_eq(go("prog go --help"), 0);
    fflush(stdout);
    size_t n = fread(text, 1, size - 1, cr_get_redirected_stdout());
    text[n] = '\0';
}

Test(cli, help_names_every_option_with_its_default)
{
    char text[8192];
    read_help(text, sizeof(text));
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        cr_expect(strstr(text, table[i].name) != NULL, "%s", table[i].name);
    cr_expect(strstr(text, "(default: 4)") != NULL);
}

Test(cli, help_fills_paragraphs_and_leaves_examples)
{
    char text[8192];
    read_help(text, sizeof(text));
    const char *doc = strstr(text, "\nA paragraph");
    cr_assert_not_null(doc);
    cr_expect_str_eq(
        doc, "\nA paragraph whose lines are filled, however they are broken in the source of\n"
             "the program.\n"
             "  isobit an example that is longer than a terminal's 80 columns but can be copied "
             "as it is\n"
             "  fields[one, two, three, four, five, six, seven, eight, nine, ten, eleven,\n"
             "    twelve]\n\nEnd.\n");
}

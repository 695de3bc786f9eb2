/* Option and subcommand tables -> parsing, --help, environment, config file, origin of each value, over
 * argp. One row of struct cli_opt feeds all of them. Precedence: flag > ISOBIT_<NAME> environment >
 * --config FILE (`key = value` lines, # comments) > default. Values are checked for type, range and
 * spelling before a command runs. Every program also gets --help, --version, --config FILE,
 * --log-format text|json, --log-level and the subcommand `config --json CMD…` that shows each value with
 * its origin. Start-up only; one thread. */
#ifndef ISOBIT_BASE_CLI_H
#define ISOBIT_BASE_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_list {
    const char **v;
    int n;
};

/* type            field in the command's option struct
 * CLI_STRING      const char *   NULL when absent and without default
 * CLI_CHOICE      const char *   one of `choices`
 * CLI_INT         int64_t        min..max where min < max
 * CLI_BYTES       int64_t        "6GiB"; min..max likewise
 * CLI_NUMBER      double
 * CLI_FLAG        bool           no argument; environment and config take 1/0/true/false
 * CLI_LIST        struct cli_list   the option may be repeated; environment splits at commas */
enum cli_type { CLI_STRING, CLI_CHOICE, CLI_INT, CLI_BYTES, CLI_NUMBER, CLI_FLAG, CLI_LIST };

struct cli_opt {
    const char *name; /* "block": --block, ISOBIT_BLOCK, `block = …` */
    char letter;      /* -b, or 0 */
    enum cli_type type;
    const char *arg;     /* "SIZE" in the help; NULL for CLI_FLAG */
    const char *help;    /* with units */
    const char *def;     /* default as text; NULL: zero, false, NULL or empty */
    const char *choices; /* "cpu|auto" for CLI_CHOICE */
    double min, max;     /* checked when min < max */
    size_t offset;       /* offsetof(struct opts_of_the_command, field) */
};

/* One subcommand. `run` gets the filled option struct and the words that are no options; it returns the
 * exit status (err_exit_status). */
struct cli_cmd {
    const char *name;
    const char *args;    /* "SPEC.yaml" */
    const char *summary; /* one line, for the program's --help */
    const char *doc;     /* paragraphs with an example, for CMD --help */
    const struct cli_opt *opts;
    size_t n_opts;
    size_t opt_size; /* sizeof the option struct */
    int min_args, max_args;
    int (*run)(const void *opts, int n_args, char **args);
    bool is_hidden; /* not listed in --help (internal) */
};

struct cli_program {
    const char *name;
    const char *summary;
    const struct cli_cmd *const *cmds; /* ends with NULL */
    const char *sibling_prefix; /* "isobit-": an unknown word W runs the sibling program; or NULL */
};

/* Parses, runs, returns the exit status (2 with one line on stderr for wrong usage). */
int cli_main(const struct cli_program *prog, int argc, char **argv);

/* The row of commands with one JSON document to print; `at`: offset of the field. */
#define CLI_OPT_JSON(at)                                                                           \
    {                                                                                              \
        .name = "json", .type = CLI_FLAG, .help = "print one JSON object", .offset = (at)          \
    }
/* What `--json` prints: the document and a newline on standard output. */
struct json_t;
void cli_print_json(const struct json_t *doc, bool is_indented);

/* Prints the one line "PROGRAM: TEXT" that every failed command ends with, and returns the exit status of
 * the error. */
struct err;
int cli_fail(const struct err *e);

/* Version text shown by --version and stored with every result, e.g. "isobit 0.1.0". */
extern const char *const cli_version;

#endif

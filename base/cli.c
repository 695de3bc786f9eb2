/* Values travel as text with their origin until the whole command line is known; only then are they checked and stored into
 * the command's option struct. So one conversion serves flags, environment, config file and defaults alike. */
#include "base/cli.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include <unistd.h>

const char *const cli_version = "isobit " ISOBIT_VERSION;

enum origin { FROM_DEFAULT, FROM_CONFIG, FROM_ENVIRONMENT, FROM_FLAG };

struct value {
    enum origin origin;
    const char **texts; /* one entry; any number for CLI_LIST */
    int n;
};

/* Options every command has. Their struct is filled before the command runs. */
struct common_opts {
    const char *config;
    const char *log_format;
    const char *log_level;
    bool help;
    bool version;
};

static const struct cli_opt common_table[] = {
    {.name = "config",
     .type = CLI_STRING,
     .arg = "FILE",
     .help = "read `key = value` lines of option names",
     .offset = offsetof(struct common_opts, config)},
    {.name = "log-format",
     .type = CLI_CHOICE,
     .arg = "FORMAT",
     .help = "log lines on stderr: text or json",
     .def = "text",
     .choices = "text|json",
     .offset = offsetof(struct common_opts, log_format)},
    {.name = "log-level",
     .type = CLI_CHOICE,
     .arg = "LEVEL",
     .help = "debug, info, warn or error",
     .def = "info",
     .choices = "debug|info|warn|error",
     .offset = offsetof(struct common_opts, log_level)},
    {.name = "help",
     .letter = 'h',
     .type = CLI_FLAG,
     .help = "show this text",
     .offset = offsetof(struct common_opts, help)},
    {.name = "version",
     .letter = 'V',
     .type = CLI_FLAG,
     .help = "show the version",
     .offset = offsetof(struct common_opts, version)},
};

enum { COMMON_N = ARRAY_LEN(common_table), OPT_KEY_BASE = 1000 };

struct parse {
    const struct cli_cmd *cmd;
    char *title; /* "isobit plan" */
    size_t n;    /* options: the command's, then the common ones */
    struct value *values;
    char **args;
    int n_args;
    struct arena arena;
};

static const struct cli_opt *opt_at(const struct parse *p, size_t i)
{
    return i < p->cmd->n_opts ? &p->cmd->opts[i] : &common_table[i - p->cmd->n_opts];
}

static enum err_code usage_error(struct err *e, const struct parse *p, const char *text)
{
    return err_set(e, ERR_USAGE, "%s; see '%s --help'", text, p->title);
}

/* A value of higher origin replaces a lower one; of the same origin it replaces too, but for lists, which collect. */
static void set_value(struct parse *p, size_t i, enum origin origin, const char *text)
{
    struct value *v = &p->values[i];
    if (v->n > 0 && v->origin > origin)
        return;
    if (v->origin != origin || opt_at(p, i)->type != CLI_LIST)
        v->n = 0;
    const char **texts = arena_array(&p->arena, (size_t)v->n + 1, sizeof(*texts));
    for (int j = 0; j < v->n; j++)
        texts[j] = v->texts[j];
    texts[v->n] = text;
    *v = (struct value){origin, texts, v->n + 1};
}

static error_t argp_step(int key, char *arg, struct argp_state *state)
{
    struct parse *p = state->input;
    if (key == ARGP_KEY_ARG) {
        p->args[p->n_args++] = arg;
        return 0;
    }
    for (size_t i = 0; i < p->n; i++) {
        const struct cli_opt *o = opt_at(p, i);
        if (key == OPT_KEY_BASE + (int)i || (o->letter != 0 && key == o->letter)) {
            set_value(p, i, FROM_FLAG, arg != NULL ? arg : "true");
            return 0;
        }
    }
    return ARGP_ERR_UNKNOWN;
}

static struct argp make_argp(struct parse *p)
{
    struct argp_option *options = arena_array(&p->arena, p->n + 1, sizeof(*options));
    for (size_t i = 0; i < p->n; i++) {
        const struct cli_opt *o = opt_at(p, i);
        bool is_common = i >= p->cmd->n_opts;
        options[i] = (struct argp_option){
            .name = o->name,
            .key = o->letter != 0 ? o->letter : OPT_KEY_BASE + (int)i,
            .arg = o->arg,
            .doc = o->def != NULL ? arena_printf(&p->arena, "%s (default: %s)", o->help, o->def)
                                  : o->help,
            .group = is_common ? 2 : 1,
        };
    }
    return (struct argp){
        .options = options,
        .parser = argp_step,
        .args_doc = p->cmd->args,
        .doc = p->cmd->summary,
    };
}

/* The option that a word's name means, as getopt finds it: by the whole name, or by its beginning where no other begins so. */
static const struct cli_opt *opt_named(const struct parse *p, struct str name,
                                       const struct cli_opt **other)
{
    const struct cli_opt *found = NULL;
    *other = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct cli_opt *o = opt_at(p, i);
        if (str_eqz(name, o->name))
            return *other = NULL, o;
        if (strncmp(o->name, name.p, name.n) != 0)
            continue;
        if (found == NULL)
            found = o;
        else if (*other == NULL)
            *other = o;
    }
    return found;
}

static const struct cli_opt *opt_lettered(const struct parse *p, char letter)
{
    for (size_t i = 0; i < p->n; i++)
        if (opt_at(p, i)->letter == letter)
            return opt_at(p, i);
    return NULL;
}

/* What is wrong with words[*at], or NULL; *at moves over the value that follows an option. */
static const char *option_fault(struct parse *p, char **words, int argc, int *at)
{
    const char *word = words[*at];
    const bool is_long = word[1] == '-';
    const char *equals = is_long ? strchr(word, '=') : NULL;
    const int n = (int)(equals != NULL ? equals - word : (int)strlen(word));
    const struct cli_opt *o = NULL, *other = NULL;
    bool has_value = equals != NULL;
    if (is_long)
        o = opt_named(p, (struct str){word + 2, (size_t)n - 2}, &other);
    else
        for (const char *c = word + 1; *c != '\0' && !has_value; c++) {
            o = opt_lettered(p, *c);
            if (o == NULL)
                break;
            has_value = o->arg != NULL && c[1] != '\0';
        }
    if (o == NULL && word[1] >= '0' && word[1] <= '9')
        return arena_printf(&p->arena, "no option %s; a word that starts with - goes behind --",
                            word);
    if (o == NULL)
        return arena_printf(&p->arena, "no option %.*s", n, word);
    if (other != NULL)
        return arena_printf(&p->arena, "%.*s can mean --%s or --%s", n, word, o->name, other->name);
    if (o->arg == NULL && equals != NULL)
        return arena_printf(&p->arena, "option --%s takes no value", o->name);
    if (o->arg != NULL && !has_value && ++*at >= argc)
        return is_long ? arena_printf(&p->arena, "option --%s needs %s", o->name, o->arg)
                       : arena_printf(&p->arena, "option %s needs %s", word, o->arg);
    return NULL;
}

/* argp does not tell which word it could not use; this finds it and says why. */
static enum err_code explain_bad_option(struct parse *p, char **words, int argc, struct err *e)
{
    for (int i = 1; i < argc && strcmp(words[i], "--") != 0; i++) {
        const char *fault =
            words[i][0] == '-' && words[i][1] != '\0' ? option_fault(p, words, argc, &i) : NULL;
        if (fault != NULL)
            return usage_error(e, p, fault);
    }
    return usage_error(e, p, "the command line cannot be read");
}

static enum err_code parse_flags(struct parse *p, int argc, char **argv, struct err *e)
{
    struct argp argp = make_argp(p);
    char **words = arena_array(&p->arena, (size_t)argc + 1, sizeof(*words));
    memcpy(words, argv, (size_t)argc * sizeof(*words));
    words[0] = p->title;
    p->args = arena_array(&p->arena, (size_t)argc + 1, sizeof(*p->args));
    if (argp_parse(&argp, argc, words, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, p) == 0)
        return ERR_OK;
    memcpy(words, argv, (size_t)argc * sizeof(*words)); /* getopt has put them in another order */
    return explain_bad_option(p, words, argc, e);
}

/* Prints the words of `text` from `column` on, where a line begins if `is_fresh`; one that would be longer than WIDTH goes on at
 * `indent`. Returns the column behind the last word. */
static size_t print_words(struct str text, size_t indent, size_t column, bool is_fresh)
{
    enum { WIDTH = 79 };
    struct str word;
    for (; str_next_field(&text, ' ', &word); is_fresh = is_fresh && word.n == 0) {
        if (word.n == 0)
            continue;
        if (!is_fresh && column + 1 + word.n > WIDTH)
            column = (size_t)printf("\n%*s", (int)indent, "") - 1;
        else if (!is_fresh)
            column += (size_t)printf(" ");
        column += (size_t)printf("%.*s", (int)word.n, word.p);
    }
    return column;
}

/* Paragraphs are filled; lines with an indent begin a new one, and examples, which name a program, stay as they are, so that they can
 * be copied. */
static void print_doc(const char *doc)
{
    struct str rest = str_of(doc), line;
    size_t column = 0;
    while (str_next_line(&rest, &line)) {
        const bool is_indented = line.n > 0 && line.p[0] == ' ';
        const bool is_example = memmem(line.p, line.n, "isobit", 6) != NULL;
        if (column > 0 && (is_indented || line.n == 0)) {
            putchar('\n');
            column = 0;
        }
        if (line.n == 0)
            putchar('\n');
        else if (is_indented && is_example)
            printf("%.*s\n", (int)line.n, line.p);
        else if (is_indented)
            column = print_words(line, 4, (size_t)printf("  "), true);
        else
            column = print_words(line, 0, column, column == 0);
    }
    if (column > 0)
        putchar('\n');
}

static void print_command_help(struct parse *p)
{
    struct argp argp = make_argp(p);
    argp_help(&argp, stdout, ARGP_HELP_USAGE | ARGP_HELP_PRE_DOC | ARGP_HELP_LONG, p->title);
    if (p->cmd->doc != NULL) {
        putchar('\n');
        print_doc(p->cmd->doc);
    }
}

static void read_environment(struct parse *p)
{
    for (size_t i = 0; i < p->n; i++) {
        char *name = arena_printf(&p->arena, "ISOBIT_%s", opt_at(p, i)->name);
        for (char *c = name; *c != '\0'; c++)
            *c = *c == '-' ? '_' : (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
        const char *text = getenv(name);
        if (text == NULL)
            continue;
        struct str rest = str_of(text);
        struct str field;
        if (opt_at(p, i)->type != CLI_LIST)
            set_value(p, i, FROM_ENVIRONMENT, arena_strdup(&p->arena, text));
        else
            while (str_next_field(&rest, ',', &field))
                set_value(p, i, FROM_ENVIRONMENT, arena_strndup(&p->arena, field.p, field.n));
    }
}

static enum err_code read_config(struct parse *p, const char *path, struct err *e)
{
    struct buf text = {0};
    TRY(io_read_file(path, 1 << 20, &text, e));
    struct str rest = {text.data, text.len};
    struct str line;
    enum err_code rc = ERR_OK;
    for (int number = 1; rc == ERR_OK && str_next_line(&rest, &line); number++) {
        line = str_trim(line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        struct str value = line;
        struct str key;
        if (!str_next_field(&value, '=', &key) || value.p == NULL) {
            rc = err_set(e, ERR_FORMAT, "%s:%d: expected `key = value`", path, number);
            break;
        }
        key = str_trim(key);
        value = str_trim(value);
        bool is_known = false;
        for (size_t i = 0; i < p->n; i++) {
            if (!str_eqz(key, opt_at(p, i)->name))
                continue;
            set_value(p, i, FROM_CONFIG, arena_strndup(&p->arena, value.p, value.n));
            is_known = true;
        }
        if (!is_known)
            rc = err_set(e, ERR_FORMAT, "%s:%d: '%.*s' is no option of '%s'", path, number,
                         (int)key.n, key.p, p->title);
    }
    buf_release(&text);
    return rc;
}

static bool choice_allows(const char *choices, const char *text)
{
    struct str rest = str_of(choices);
    struct str one;
    while (str_next_field(&rest, '|', &one))
        if (str_eqz(one, text))
            return true;
    return false;
}

static bool parse_flag_text(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    return *out || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static enum err_code bad_value(const struct parse *p, const struct cli_opt *o, const char *text,
                               const char *expected, struct err *e)
{
    return usage_error(e, p,
                       arena_printf((struct arena *)&p->arena, "--%s is '%s', expected %s", o->name,
                                    text, expected));
}

static enum err_code check_range(const struct parse *p, const struct cli_opt *o, const char *text,
                                 double v, struct err *e)
{
    if (o->min < o->max && (v < o->min || v > o->max))
        return bad_value(p, o, text,
                         arena_printf((struct arena *)&p->arena, "%.15g to %.15g", o->min, o->max),
                         e);
    return ERR_OK;
}

static enum err_code store_value(struct parse *p, size_t i, void *opts, struct err *e)
{
    const struct cli_opt *o = opt_at(p, i);
    const struct value *v = &p->values[i];
    void *field = (char *)opts + o->offset;
    const char *text = v->n > 0 ? v->texts[0] : NULL;
    switch (o->type) {
    case CLI_LIST:
        *(struct cli_list *)field = (struct cli_list){v->texts, v->n};
        return ERR_OK;
    case CLI_STRING:
        *(const char **)field = text;
        return ERR_OK;
    case CLI_CHOICE:
        *(const char **)field = text;
        return text == NULL || choice_allows(o->choices, text)
                   ? ERR_OK
                   : bad_value(p, o, text, o->choices, e);
    case CLI_FLAG:
        *(bool *)field = false;
        return text == NULL || parse_flag_text(text, field)
                   ? ERR_OK
                   : bad_value(p, o, text, "true or false", e);
    case CLI_INT:
    case CLI_BYTES: {
        int64_t n = 0;
        bool is_int = o->type == CLI_INT;
        if (text != NULL && !(is_int ? parse_i64(str_of(text), &n) : parse_bytes(str_of(text), &n)))
            return bad_value(p, o, text, is_int ? "a whole number" : "a size such as 512MiB", e);
        *(int64_t *)field = n;
        return text == NULL ? ERR_OK : check_range(p, o, text, (double)n, e);
    }
    case CLI_NUMBER: {
        double d = 0;
        if (text != NULL && !parse_f64(str_of(text), &d))
            return bad_value(p, o, text, "a number", e);
        *(double *)field = d;
        return text == NULL ? ERR_OK : check_range(p, o, text, d, e);
    }
    }
    BUG("cli type");
}

static const char *config_path(const struct parse *p)
{
    for (size_t i = p->cmd->n_opts; i < p->n; i++)
        if (strcmp(opt_at(p, i)->name, "config") == 0 && p->values[i].n > 0)
            return p->values[i].texts[0];
    return NULL;
}

static enum err_code fill(struct parse *p, int argc, char **argv, void *opts,
                          struct common_opts *common, struct err *e)
{
    for (size_t i = 0; i < p->n; i++)
        if (opt_at(p, i)->def != NULL)
            set_value(p, i, FROM_DEFAULT, opt_at(p, i)->def);
    read_environment(p);
    TRY(parse_flags(p, argc, argv, e));
    if (config_path(p) != NULL)
        TRY(read_config(p, config_path(p), e));
    for (size_t i = 0; i < p->n; i++)
        TRY(store_value(p, i, i < p->cmd->n_opts ? opts : (void *)common, e));
    return ERR_OK;
}

static int show_config(const struct parse *p)
{
    static const char *origins[] = {"default", "config", "environment", "flag"};
    json_t *doc = json_object();
    for (size_t i = 0; i < p->n; i++) {
        const struct value *v = &p->values[i];
        json_t *texts = json_array();
        for (int j = 0; j < v->n; j++)
            json_array_append_new(texts, json_string(v->texts[j]));
        json_t *row = json_pack("{s:o,s:s}", "value",
                                opt_at(p, i)->type == CLI_LIST ? json_incref(texts)
                                : v->n > 0                     ? json_string(v->texts[0])
                                                               : json_null(),
                                "origin", v->n > 0 ? origins[v->origin] : "unset");
        json_decref(texts);
        json_object_set_new(doc, opt_at(p, i)->name, row);
    }
    cli_print_json(doc, true);
    json_decref(doc);
    return 0;
}

static void apply_logging(const struct common_opts *common)
{
    static const char *levels[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_INFO;
    CHECK(common->log_level != NULL && common->log_format != NULL); /* both have defaults */
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (strcmp(common->log_level, levels[i]) == 0)
            level = (enum log_level)i;
    log_setup(level, strcmp(common->log_format, "json") == 0, NULL);
}

static enum err_code check_arg_count(const struct parse *p, struct err *e)
{
    if (p->n_args < p->cmd->min_args)
        return usage_error(e, p,
                           arena_printf((struct arena *)&p->arena, "expected %s", p->cmd->args));
    if (p->n_args > p->cmd->max_args)
        return usage_error(e, p,
                           arena_printf((struct arena *)&p->arena, "unexpected word '%s'",
                                        p->args[p->cmd->max_args]));
    return ERR_OK;
}

static int run_command(const struct cli_program *prog, const struct cli_cmd *cmd, int argc,
                       char **argv, bool is_config_shown)
{
    struct parse p = {.cmd = cmd, .n = cmd->n_opts + COMMON_N};
    p.title = xasprintf("%s %s", prog->name, cmd->name);
    p.values = xcalloc(p.n, sizeof(*p.values));
    void *opts = xcalloc(1, cmd->opt_size);
    struct common_opts common = {0};
    struct err e;
    int status = 0;
    enum err_code rc = fill(&p, argc, argv, opts, &common, &e);
    bool is_run = rc == ERR_OK && !common.help && !common.version && !is_config_shown;
    if (is_run)
        rc = check_arg_count(&p, &e);
    if (rc != ERR_OK) {
        status = cli_fail(&e);
    } else if (common.help) {
        print_command_help(&p);
    } else if (common.version) {
        puts(cli_version);
    } else if (is_config_shown) {
        status = show_config(&p);
    } else {
        apply_logging(&common);
        status = cmd->run(opts, p.n_args, p.args);
    }
    if (fflush(stdout) != 0 && status == 0) {
        err_set_errno(&e, errno, "cannot write standard output");
        status = cli_fail(&e);
    }
    xfree(opts);
    xfree(p.values);
    xfree(p.title);
    arena_release(&p.arena);
    return status;
}

static void print_program_help(const struct cli_program *prog)
{
    printf("Usage: %s COMMAND [OPTION...]\n%s\n\nCommands:\n", prog->name, prog->summary);
    for (const struct cli_cmd *const *c = prog->cmds; *c != NULL; c++)
        if (!(*c)->is_hidden)
            printf("  %-10s %s\n", (*c)->name, (*c)->summary);
    printf("  %-10s %s\n", "config", "show each option of a command with its value and origin");
    printf("\n'%s COMMAND --help' explains a command and its options. Options can also be set as\n"
           "ISOBIT_<NAME> in the environment or as `name = value` in a file named by --config.\n",
           prog->name);
}

static const struct cli_cmd *find_command(const struct cli_program *prog, const char *word)
{
    for (const struct cli_cmd *const *c = prog->cmds; *c != NULL; c++)
        if (strcmp((*c)->name, word) == 0)
            return *c;
    return NULL;
}

/* Runs PREFIXword from the program's own directory, else from PATH; returns only when there is none. */
static void run_sibling(const char *prefix, char **argv)
{
    char *dir = io_program_dir();
    char *name = xasprintf("%s%s", prefix, argv[0]);
    char *path = xasprintf("%s/%s", dir, name);
    char *old = argv[0];
    argv[0] = name;
    execv(path, argv);
    execvp(name, argv);
    argv[0] = old;
    xfree(path);
    xfree(name);
    xfree(dir);
}

int cli_main(const struct cli_program *prog, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "--help";
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        puts(cli_version);
        return 0;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_program_help(prog);
        return argc > 1 ? 0 : 2;
    }
    int skip = 1;
    bool is_config_shown = strcmp(word, "config") == 0;
    if (is_config_shown) {
        skip = argc > 2 && strcmp(argv[2], "--json") == 0 ? 3 : 2;
        word = argc > skip ? argv[skip] : "";
    }
    const struct cli_cmd *cmd = find_command(prog, word);
    if (cmd != NULL)
        return run_command(prog, cmd, argc - skip, argv + skip, is_config_shown);
    if (prog->sibling_prefix != NULL && word[0] != '-' && word[0] != '\0' && !is_config_shown)
        run_sibling(prog->sibling_prefix, argv + 1);
    struct err e;
    if (word[0] == '\0')
        err_set(&e, ERR_USAGE, "expected COMMAND; see '%s --help'", prog->name);
    else
        err_set(&e, ERR_USAGE, "no command '%s'; see '%s --help'", word, prog->name);
    return cli_fail(&e);
}

void cli_print_json(const json_t *doc, bool is_indented)
{
    struct buf text = {.max = SIZE_MAX};
    json_append(&text, doc, is_indented);
    puts(text.data);
    buf_release(&text);
}

int cli_fail(const struct err *e)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, e->text);
    return err_exit_status(e->code);
}

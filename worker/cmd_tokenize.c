/* isobit-worker tokenize: text to token ids, to compare with other software. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "schema/hub.h"
#include "worker/cmd.h"
#include "worker/tok/tok.h"

struct tokenize_opts {
    const char *model;
};

static const struct cli_opt tokenize_opts[] = {
    CMD_OPT_MODEL("directory with tokenizer files", offsetof(struct tokenize_opts, model)),
};

static enum err_code read_stdin(struct buf *text, struct err *e)
{
    text->max = (size_t)512 << 20;
    for (;;) {
        char chunk[65536];
        ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));
        if (n == 0)
            return ERR_OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(e, errno, "cannot read the standard input");
        if (!buf_try_add(text, chunk, (size_t)n))
            return err_set(e, ERR_FORMAT, "the text on the standard input is longer than 512 MiB");
    }
}

static enum err_code print_ids(const struct tok_ids *ids, struct err *e)
{
    for (size_t i = 0; i < ids->n; i++)
        printf("%s%d", i > 0 ? " " : "", (int)ids->v[i]);
    putchar('\n');
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return err_set_errno(e, errno, "cannot write the ids");
    return ERR_OK;
}

static enum err_code tokenize_stdin(const char *dir, struct err *e)
{
    struct tok *t = NULL;
    struct buf text = {0};
    struct tok_ids ids = {0};
    TRY(tok_open(dir, &t, e));
    enum err_code rc = read_stdin(&text, e);
    if (rc == ERR_OK)
        rc = tok_encode(t, (struct str){text.data, text.len}, &ids, e);
    if (rc == ERR_OK)
        rc = print_ids(&ids, e);
    tok_ids_release(&ids);
    buf_release(&text);
    tok_close(t);
    return rc;
}

static enum err_code tokenize(const struct tokenize_opts *o, struct arena *a, struct err *e)
{
    struct model_ref model = {0};
    if (o->model == NULL)
        return err_set(e, ERR_USAGE, "tokenize needs --model; see 'isobit-worker tokenize --help'");
    TRY(cmd_model_ref(o->model, a, &model, e));
    if (model.path != NULL)
        return tokenize_stdin(model.path, e);
    struct hub_id id = {model.hub, model.revision};
    char *dir = NULL;
    TRY(hub_find(&id, &dir, e));
    enum err_code rc = tokenize_stdin(dir, e);
    xfree(dir);
    return rc == ERR_NOTFOUND ? hub_explain(&id, e) : rc;
}

static int tokenize_run_command(const void *opts, int n_args, char **args)
{
    struct arena a = {0};
    struct err e = {0};
    (void)n_args;
    (void)args;
    int status = tokenize(opts, &a, &e) == ERR_OK ? 0 : cli_fail(&e);
    arena_release(&a);
    return status;
}

const struct cli_cmd cmd_tokenize = {
    .name = "tokenize",
    .args = "",
    .summary = "print the token ids of a text",
    .doc = "Reads UTF-8 text from the standard input to its end, newlines included, and prints its "
           "token ids on one line, separated by spaces. No special token is added; special tokens "
           "that stand in the text are recognized. Weights are not needed.\n\n"
           "  printf 'Hello world' | isobit-worker tokenize --model models/pythia-s1",
    .opts = tokenize_opts,
    .n_opts = ARRAY_LEN(tokenize_opts),
    .opt_size = sizeof(struct tokenize_opts),
    .run = tokenize_run_command,
};

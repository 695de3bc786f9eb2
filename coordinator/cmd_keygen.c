/* isobit keygen DIR: the keys of a coordinator and of those who may connect to it. */
#include <stddef.h>
#include <stdio.h>

#include "coordinator/cmd.h"
#include "schema/keys.h"

struct keygen_options {
    const char *worker, *reader;
};

static const struct cli_opt options[] = {
    {.name = "add-worker",
     .type = CLI_STRING,
     .arg = "NAME",
     .help = "add a worker's key to DIR; DIR/NAME is what its machine needs",
     .offset = offsetof(struct keygen_options, worker)},
    {.name = "add-reader",
     .type = CLI_STRING,
     .arg = "NAME",
     .help = "add a key that may only ask; DIR/NAME is what its owner needs",
     .offset = offsetof(struct keygen_options, reader)},
};

static enum err_code add(const char *dir, enum key_role role, const char *name, struct err *e)
{
    const char *label = keys_role_label(role);
    TRY(keys_add(dir, role, name, e));
    printf("%s/%s is for the %s: copy this folder there (`--keys`), then remove it here\n"
           "rm %s/allow/%ss/%s.pub takes its right back\n",
           dir, name, label, dir, label, name);
    return ERR_OK;
}

static enum err_code make(const char *dir, struct err *e)
{
    TRY(keys_make(dir, e));
    printf("isobit serve --keys %s …                 stays here, with all of %s\n"
           "isobit-worker run --keys DIR …           needs %s/worker.key and %s/coordinator.pub\n"
           "isobit status --connect … --keys DIR     needs %s/reader.key and %s/coordinator.pub\n",
           dir, dir, dir, dir, dir, dir);
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    const struct keygen_options *o = opts;
    struct err e;
    enum err_code rc = ERR_OK;
    if (o->worker != NULL)
        rc = add(args[0], KEY_WORKER, o->worker, &e);
    if (o->reader != NULL && rc == ERR_OK)
        rc = add(args[0], KEY_READER, o->reader, &e);
    if (o->worker == NULL && o->reader == NULL)
        rc = make(args[0], &e);
    return rc == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_keygen = {
    .name = "keygen",
    .args = "DIR",
    .summary = "make the keys of a coordinator, its workers and its readers",
    .doc =
        "Makes DIR (mode 0700) with the coordinator's key, one key that workers may share, one "
        "for\n"
        "readers, and DIR/allow, the list of public keys that are let in. Nothing is overwritten.\n"
        "\n"
        "  isobit keygen keys\n"
        "  isobit keygen keys --add-worker gpu7\n"
        "  isobit serve --db sweep.db --listen tcp://0.0.0.0:5555 --keys keys\n"
        "\n"
        "A running coordinator sees changes of DIR/allow by itself: removing "
        "allow/workers/NAME.pub\n"
        "takes that worker's right back at once. docs/SECURITY.md has the whole story.",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct keygen_options),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

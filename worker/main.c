/* isobit-worker: serves a coordinator, and runs single steps of a job by hand. */
#include "worker/cmd.h"

static const struct cli_cmd *const cmds[] = {
    &cmd_run,      &cmd_eval,  &cmd_logits,  &cmd_codebook, &cmd_inspect,
    &cmd_tokenize, &cmd_probe, &cmd_compute, NULL,
};

int main(int argc, char **argv)
{
    static const struct cli_program program = {
        .name = "isobit-worker",
        .summary = "Evaluates quantized language models, for a coordinator or by hand.",
        .cmds = cmds,
    };
    return cli_main(&program, argc, argv);
}

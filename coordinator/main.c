/* isobit: the front door. Any other word W runs the sibling program isobit-W. */
#include "base/cli.h"
#include "coordinator/cmd.h"

static const struct cli_cmd *const commands[] = {
    &cmd_run,     &cmd_plan,     &cmd_serve,  &cmd_slurm,  &cmd_status,
    &cmd_jobs,    &cmd_explain,  &cmd_retry,  &cmd_cancel, &cmd_hold,
    &cmd_release, &cmd_priority, &cmd_backup, &cmd_keygen, NULL,
};

static const struct cli_program program = {
    .name = "isobit",
    .summary =
        "models compared at equal total bits: plan, run and watch sweeps of quantized models",
    .cmds = commands,
    .sibling_prefix = "isobit-",
};

int main(int argc, char **argv)
{
    return cli_main(&program, argc, argv);
}

/* isobit-analysis: from the results of a sweep to curves, tables, pictures and a report. */
#include "analysis/cmd.h"

static const struct cli_cmd *const cmds[] = {&cmd_fit,    &cmd_table,  &cmd_claims,    &cmd_plot,
                                             &cmd_report, &cmd_export, &cmd_recommend, NULL};

int main(int argc, char **argv)
{
    static const struct cli_program program = {
        .name = "isobit-analysis",
        .summary = "Scaling curves, tables, pictures and reports from the database of a sweep.",
        .cmds = cmds,
    };
    return cli_main(&program, argc, argv);
}

#include "tests/support/chosen.h"

#include <stdio.h>
#include <string.h>

static bool is_in(const char *const *names, const char *name)
{
    while (*names != NULL && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

bool chosen(char **argv, const char *name)
{
    return argv[1] == NULL || is_in((const char *const *)argv + 1, name);
}

bool chosen_are_known(char **argv, const char *const *names)
{
    for (char **a = argv + 1; *a != NULL; a++) {
        if (is_in(names, *a))
            continue;
        fprintf(stderr, "%s: no test is named '%s'; there are", argv[0], *a);
        for (const char *const *n = names; *n != NULL; n++)
            fprintf(stderr, " %s", *n);
        fputc('\n', stderr);
        return false;
    }
    return true;
}

/* Which of its named tests a plain program runs: those that its arguments name, or all without arguments. */
#ifndef ISOBIT_TESTS_SUPPORT_CHOSEN_H
#define ISOBIT_TESTS_SUPPORT_CHOSEN_H

#include <stdbool.h>

bool chosen(char **argv, const char *name);
/* True when every argument is one of `names`, which ends with NULL; else stderr says which is not, and what there is. */
bool chosen_are_known(char **argv, const char *const *names);

#endif

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local const char *check_what;

void check_context(const char *what)
{
    check_what = what;
}

_Noreturn void check_failed(const char *file, int line, const char *text)
{
    fprintf(stderr, "isobit: bug at %s:%d: %s%s%s\n", file, line, text,
            check_what != NULL ? " while at " : "", check_what != NULL ? check_what : "");
    abort();
}

static const struct {
    const char *name;
    enum err_fate fate;
    int exit_status;
} codes[] = {
#define X(name, fate, exit_status) {#name, ERR_FATE_##fate, exit_status},
    ERR_LIST(X)
#undef X
};

_Static_assert(ARRAY_LEN(codes) == ERR_CODE_COUNT, "one row per code");

/* One line, whatever a file or a peer put into it; and nothing that a terminal would obey. */
static void make_line(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++)
        if (*p < ' ' || *p == 0x7f)
            *p = '?';
}

static void set_text(struct err *e, enum err_code code, const char *file, int line, const char *fmt,
                     va_list ap)
{
    CHECK(code > ERR_OK && code < ERR_CODE_COUNT);
    e->code = code;
    e->file = file;
    e->line = line;
    if (vsnprintf(e->text, sizeof(e->text), fmt, ap) < 0)
        e->text[0] = '\0';
    make_line(e->text);
}

enum err_code err_set_at(struct err *e, enum err_code code, const char *file, int line,
                         const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_text(e, code, file, line, fmt, ap);
    va_end(ap);
    return code;
}

static enum err_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return ERR_NOMEM;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

enum err_code err_set_errno_at(struct err *e, int errnum, const char *file, int line,
                               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_text(e, code_of_errno(errnum), file, line, fmt, ap);
    va_end(ap);
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof(e->text) - used, ": %s", strerror(errnum));
    return e->code;
}

enum err_code err_wrap(struct err *e, const char *fmt, ...)
{
    char inner[sizeof(e->text)];
    memcpy(inner, e->text, sizeof(inner));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof(e->text) ? (size_t)n : sizeof(e->text) - 1;
    snprintf(e->text + used, sizeof(e->text) - used, ": %.*s", (int)(sizeof(inner) - 3), inner);
    make_line(e->text);
    return e->code;
}

const char *err_name(enum err_code code)
{
    return codes[code].name;
}

enum err_code err_from_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (strcmp(codes[i].name, name) == 0)
            return (enum err_code)i;
    return ERR_IO;
}

enum err_fate err_fate(enum err_code code)
{
    return codes[code].fate;
}

int err_exit_status(enum err_code code)
{
    return codes[code].exit_status;
}

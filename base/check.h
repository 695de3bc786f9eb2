/* Assertions and compiler helpers. CHECK is for our own bugs and is on in every build: it aborts with
 * file, line and text. DCHECK is for inner loops and vanishes in release builds. Anything that comes
 * from a file, socket, user or device is an error (err.h), never an assertion. */
#ifndef ISOBIT_BASE_CHECK_H
#define ISOBIT_BASE_CHECK_H

#include <stddef.h>

#define ARRAY_LEN(a)            (sizeof(a) / sizeof((a)[0]))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define MUST_USE                __attribute__((warn_unused_result))

/* Prints "isobit: bug at FILE:LINE: TEXT" and aborts. Thread: any. */
void check_failed(const char *file, int line, const char *text) __attribute__((noreturn));

/* Adds `what` (for example a job key) to the text of a later check_failed of this thread; NULL clears
 * it. The string is kept by pointer. */
void check_context(const char *what);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_failed(__FILE__, __LINE__, #cond);                                               \
    } while (0)

#define BUG(text) check_failed(__FILE__, __LINE__, text)

#ifdef NDEBUG
#define DCHECK(cond) ((void)sizeof(cond))
#else
#define DCHECK(cond) CHECK(cond)
#endif

#endif

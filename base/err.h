/* The error list of the whole project, and struct err, which carries one error up to the place that
 * reports it. A fallible function returns enum err_code and takes `struct err *e` last: never NULL,
 * untouched on success. Library code neither exits nor prints; only main.c and cmd_*.c do.
 * Thread: a struct err belongs to one thread. */
#ifndef ISOBIT_BASE_ERR_H
#define ISOBIT_BASE_ERR_H

#include "base/check.h"

/* X(name, what becomes of the job that met it, exit status of a program that ends with it)
 *   FAIL       the attempt counts; after the last one the job is buried
 *   RETRY      the attempt counts; another worker may have more luck
 *   ELSEWHERE  costs no attempt: the job waits for a worker that can (files absent, memory too small) */
#define ERR_LIST(X)                                                                                \
    X(OK, NONE, 0)            /* ok */                                                             \
    X(USAGE, FAIL, 2)         /* wrong usage */                                                    \
    X(FORMAT, FAIL, 3)        /* bad input */                                                      \
    X(UNSUPPORTED, FAIL, 3)   /* not supported */                                                  \
    X(NUMERIC, FAIL, 3)       /* not a finite number */                                            \
    X(VERSION, FAIL, 3)       /* other version */                                                  \
    X(NOTFOUND, ELSEWHERE, 4) /* not found */                                                      \
    X(BUSY, RETRY, 4)         /* busy */                                                           \
    X(IO, RETRY, 4)           /* input/output error */                                             \
    X(NOMEM, ELSEWHERE, 4)    /* out of memory */                                                  \
    X(DEVICE, RETRY, 4)       /* device error */                                                   \
    X(DENIED, FAIL, 4)        /* not allowed */                                                    \
    X(CRASHED, RETRY, 4)      /* compute process died */                                           \
    X(TIMEOUT, RETRY, 4)      /* time limit */                                                     \
    X(STOPPED, RETRY, 1)      /* stopped by request */

enum err_code {
#define X(name, fate, exit_status) ERR_##name,
    ERR_LIST(X)
#undef X
        ERR_CODE_COUNT
};

enum err_fate { ERR_FATE_NONE, ERR_FATE_FAIL, ERR_FATE_RETRY, ERR_FATE_ELSEWHERE };

/* One error. `text` names the thing, the place in it, what was expected and what to do: one line, in which control
 * characters became '?'. */
struct err {
    enum err_code code;
    int line;         /* where in our source it was set */
    const char *file; /* static string */
    char text[1000];
};

/* Tells the compiler and the static analyzer that a recorded error is never ERR_OK. */
static inline enum err_code err_known(enum err_code code)
{
    if (code == ERR_OK)
        __builtin_unreachable();
    return code;
}

/* Records an error and returns `code`, so that `return err_set(e, ERR_FORMAT, "…")` reads well. */
#define err_set(e, code, ...) err_known(err_set_at((e), (code), __FILE__, __LINE__, __VA_ARGS__))
enum err_code err_set_at(struct err *e, enum err_code code, const char *file, int line,
                         const char *fmt, ...) PRINTF_LIKE(5, 6);

/* As err_set, with ": " and the text of `errnum` (an errno value) at the end. ENOMEM, ENOENT and
 * EACCES choose their own code; everything else becomes ERR_IO. */
#define err_set_errno(e, errnum, ...)                                                              \
    err_known(err_set_errno_at((e), (errnum), __FILE__, __LINE__, __VA_ARGS__))
enum err_code err_set_errno_at(struct err *e, int errnum, const char *file, int line,
                               const char *fmt, ...) PRINTF_LIKE(5, 6);

/* Puts an outer step in front: "loading shard 2: …". Returns e->code. */
enum err_code err_wrap(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

const char *err_name(enum err_code code);      /* "FORMAT": what is stored and sent */
enum err_code err_from_name(const char *name); /* unknown names become ERR_IO */
enum err_fate err_fate(enum err_code code);
int err_exit_status(enum err_code code);

/* Spells out that the result of a fallible call is deliberately dropped. */
#define ERR_IGNORE(call)                                                                           \
    do {                                                                                           \
        if ((call) != ERR_OK) {                                                                    \
        }                                                                                          \
    } while (0)

/* Hands an error on: `TRY(step(…, e));` */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum err_code try_code = (call);                                                           \
        if (try_code != ERR_OK)                                                                    \
            return try_code;                                                                       \
    } while (0)

#endif

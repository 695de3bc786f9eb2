/* The story on stderr: one line per event, `time level module event key=value…`, or JSON lines.
 * stdout is never written here. Thread: any; a line is one write. */
#ifndef ISOBIT_BASE_LOG_H
#define ISOBIT_BASE_LOG_H

#include <stdbool.h>

#include "base/check.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Start-up only. `prefix` (kept, or NULL) names the process in every line. Default: LOG_INFO, text. */
void log_setup(enum log_level level, bool is_json, const char *prefix);

/* log_event(LOG_INFO, "dispatch", "lease", "worker=%s job=%lld", …): fields as key=value, values
 * without spaces or in double quotes. */
void log_event(enum log_level level, const char *module, const char *event, const char *fields, ...)
    PRINTF_LIKE(4, 5);

#endif

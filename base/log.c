#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

static enum log_level min_level = LOG_INFO;
static bool json_lines;
static const char *process_prefix;

void log_setup(enum log_level level, bool is_json, const char *prefix)
{
    min_level = level;
    json_lines = is_json;
    process_prefix = prefix;
}

static void add_json_text(struct buf *b, const char *s, size_t n)
{
    buf_addc(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c < 0x20)
            buf_printf(b, "\\u%04x", c);
        else
            buf_addc(b, (char)c);
    }
    buf_addc(b, '"');
}

/* Turns `a=1 b="two words"` into JSON members; every value becomes a string. */
static void add_json_fields(struct buf *b, const char *s)
{
    while (*s != '\0') {
        const char *eq = strchr(s, '=');
        if (eq == NULL)
            return;
        const char *value = eq + 1;
        bool is_quoted = *value == '"';
        if (is_quoted)
            value++;
        const char *end = strchr(value, is_quoted ? '"' : ' ');
        size_t n = end != NULL ? (size_t)(end - value) : strlen(value);
        buf_addc(b, ',');
        add_json_text(b, s, (size_t)(eq - s));
        buf_addc(b, ':');
        add_json_text(b, value, n);
        s = value + n;
        while (*s == '"' || *s == ' ')
            s++;
    }
}

void log_event(enum log_level level, const char *module, const char *event, const char *fields, ...)
{
    static const char *names[] = {"debug", "info", "warn", "error"};
    if (level < min_level)
        return;
    char text[2000];
    va_list ap;
    va_start(ap, fields);
    if (vsnprintf(text, sizeof(text), fields, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char stamp[40];
    size_t n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, sizeof(stamp) - n, ".%03dZ", (int)(now.tv_nsec / 1000000));

    struct buf line = {0};
    if (json_lines) {
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"module\":\"%s\",\"event\":\"%s\"",
                   stamp, names[level], module, event);
        if (process_prefix != NULL) {
            buf_adds(&line, ",\"process\":");
            add_json_text(&line, process_prefix, strlen(process_prefix));
        }
        add_json_fields(&line, text);
        buf_adds(&line, "}\n");
    } else {
        buf_printf(&line, "%s %-5s %s%s%s %s%s%s\n", stamp, names[level],
                   process_prefix != NULL ? process_prefix : "", process_prefix != NULL ? " " : "",
                   module, event, text[0] != '\0' ? " " : "", text);
    }
    if (write(STDERR_FILENO, line.data, line.len) < 0) {
        /* nowhere left to complain */
    }
    buf_release(&line);
}

#include "worker/walltime.h"

#include <string.h>
#include <time.h>

#include "base/str.h"

static const int64_t max_s = (int64_t)10 * 366 * 86400;

/* "1.5h": a number and a unit, s when there is none. */
static bool parse_with_unit(struct str s, int64_t *seconds)
{
    static const struct {
        char unit;
        double seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    double factor = 1, v = 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && s.n > 0; i++) {
        if (s.p[s.n - 1] == units[i].unit) {
            factor = units[i].seconds;
            s.n--;
            break;
        }
    }
    if (!parse_f64(s, &v) || v < 0 || v * factor > (double)max_s)
        return false;
    *seconds = (int64_t)(v * factor);
    return true;
}

/* Two or three fields; with days the first one is hours, without it the last one is seconds. */
static bool parse_clock(struct str s, bool has_days, int64_t *seconds)
{
    static const int64_t with_days[] = {3600, 60, 1}, two[] = {60, 1};
    int64_t v[3] = {0}, total = 0;
    struct str field;
    int n = 0;
    while (str_next_field(&s, ':', &field))
        if (n == 3 || !parse_i64(field, &v[n]) || v[n] < 0 || v[n++] > max_s)
            return false;
    const int64_t *factors = has_days || n == 3 ? with_days : two;
    if (n == 0 || (!has_days && n == 1))
        return false;
    for (int i = 0; i < n; i++)
        total += v[i] * factors[i];
    *seconds = total;
    return total <= max_s;
}

bool parse_duration(const char *text, int64_t *seconds)
{
    const char *dash = strchr(text, '-');
    int64_t days = 0, rest = 0;
    if (dash == NULL && strchr(text, ':') == NULL)
        return parse_with_unit(str_of(text), seconds);
    if (dash != NULL && (!parse_i64((struct str){text, (size_t)(dash - text)}, &days) || days < 0 ||
                         days > max_s / 86400))
        return false;
    if (!parse_clock(str_of(dash != NULL ? dash + 1 : text), dash != NULL, &rest))
        return false;
    *seconds = days * 86400 + rest;
    return true;
}

bool parse_date(const char *text, int64_t *seconds)
{
    struct tm tm = {.tm_isdst = -1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL || (rest[0] != '\0' && strcmp(rest, "Z") != 0))
        return false;
    time_t t = rest[0] == 'Z' ? timegm(&tm) : mktime(&tm);
    *seconds = (int64_t)t;
    return t != (time_t)-1;
}

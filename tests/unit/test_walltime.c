#include <criterion/criterion.h>

#include "base/check.h"
#include "worker/walltime.h"

Test(walltime, durations_are_read_as_people_and_slurm_write_them)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {{"5400", 5400},     {"0", 0},         {"90s", 90},         {"90m", 5400},
                {"2h", 7200},       {"1.5h", 5400},   {"1d", 86400},       {"30:00", 1800},
                {"01:30:00", 5400}, {"1-12", 129600}, {"1-12:30", 131400}, {"1-12:00:05", 129605}};
    static const char *const bad[] = {"",   "h",     "-1",   "2 h", "2w",  "1:2:3:4", "1e9d",
                                      "1-", "-1:00", "1:-1", "1:",  "a-1", "nan",     "inf"};
    int64_t s = 0;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        cr_expect(parse_duration(good[i].text, &s), "%s", good[i].text);
        cr_expect_eq(s, good[i].seconds, "%s: %lld", good[i].text, (long long)s);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        s = 77;
        cr_expect(!parse_duration(bad[i], &s), "%s: %lld", bad[i], (long long)s);
        cr_expect_eq(s, 77);
    }
}

Test(walltime, dates_are_utc_with_a_z)
{
    int64_t s = 0;
    cr_assert(parse_date("2026-11-23T06:00:00Z", &s));
    cr_expect_eq(s, 1795413600);
    cr_expect(parse_date("2026-11-23T06:00:00", &s));
    cr_expect(!parse_date("2026-11-23", &s));
    cr_expect(!parse_date("2026-11-23T06:00:00+01:00", &s));
    cr_expect(!parse_date("2h", &s));
}

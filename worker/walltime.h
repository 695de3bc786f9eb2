/* Times as people and batch systems write them. Pure. */
#ifndef ISOBIT_WORKER_WALLTIME_H
#define ISOBIT_WORKER_WALLTIME_H

#include <stdbool.h>
#include <stdint.h>

/* "5400" and "5400s" are seconds, "90m", "2h", "1.5d", and Slurm's "MM:SS", "HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS".
 * False, and *seconds untouched, for anything else. */
bool parse_duration(const char *text, int64_t *seconds);
/* "2026-11-23T06:00:00Z" in UTC, without the Z in local time; seconds since 1970. */
bool parse_date(const char *text, int64_t *seconds);

#endif

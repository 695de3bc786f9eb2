/* Writes a database from known laws (tests/support/planted.h), for people, tests and benchmarks that need one:
 *   bench_planted OUT.db [paper|full] [seed]
 * `full` has 35,030 jobs with the item counts of the paper's data sets. Prints the jobs, the bytes and the seconds. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "tests/support/planted.h"

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s OUT.db [paper|full] [seed]\n", argv[0]);
        return 2;
    }
    bool is_full = argc > 2 && strcmp(argv[2], "full") == 0;
    struct planted p = is_full ? planted_full_size() : planted_paper();
    int64_t seed = 1;
    if (argc > 3 && !parse_i64(str_of(argv[3]), &seed))
        return 2;
    p.seed = (uint64_t)seed;
    planted_correlate(&p, -0.94);
    struct err e;
    int64_t start_ns = clock_mono_ns();
    if (planted_write(&p, argv[1], &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    double seconds = clock_seconds_since(start_ns);
    struct arena a = {0};
    int n_models = 0, n_configs = 0;
    (void)planted_models(&p, &a, &n_models);
    (void)planted_configs(&p, &a, &n_configs);
    printf("%d models, %d configurations, %d jobs, %lld bytes, %.1f s\n", n_models, n_configs,
           n_models * n_configs * PLANTED_TASKS, (long long)io_file_size(argv[1]), seconds);
    arena_release(&a);
    return 0;
}

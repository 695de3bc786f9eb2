/* A laboratory for tests of the cuda module: both backends open in one compute type, arrays that live on both sides, and
 * checks that count. Outputs are poisoned first, so that an element nobody wrote shows. Tests are plain programs, since
 * CUDA should start once a process; lab_main runs them for every compute type (short: fp16). */
#ifndef ISOBIT_TESTS_SUPPORT_CUDA_LAB_H
#define ISOBIT_TESTS_SUPPORT_CUDA_LAB_H

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"

enum { SKIPPED = 77, POISON = 0xff, LAB_COMPUTES = KERN_BF16 + 1 };

struct lab {
    struct kern *cpu, *gpu;
    struct kern *gpus[LAB_COMPUTES]; /* on one device, a compute type each; NULL: not tested */
    enum kern_compute compute;       /* of gpu */
    double tolerance;                /* relative, one rounded operation on top of fp32 sums */
    struct rng rng;
    bool is_short; /* ISOBIT_TEST_SHORT is set: for tools under which everything is slow */
    int n_checks, n_failures;
};

/* A program's tests, under the name by which an argument asks for them; without arguments all run. The last has no name. */
struct lab_part {
    const char *name;
    void (*run)(struct lab *l);
};

/* Both return the exit status of the program. lab_main runs the parts for each of gpus; lab_main_once runs them once, where the
 * cpu's results serve all of gpus, and gives the cpu one thread: for many small tensors, where threads mostly wait. */
int lab_main(const struct lab_part *parts, char **argv);
int lab_main_once(const struct lab_part *parts, char **argv);
/* Makes gpu the one of gpus[c], which is not NULL. */
void lab_use(struct lab *l, enum kern_compute c);

void lab_check(struct lab *l, bool is_ok, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Ends the program on an error. */
void lab_must(enum err_code code, const struct err *e);
/* Text that stays until the next call. */
const char *lab_label(const char *fmt, ...) PRINTF_LIKE(1, 2);

float lab_round_to(enum kern_compute c, float x);
/* Element i of an array of the compute type. */
float lab_element(const struct lab *l, const void *raw, int64_t i);
void *lab_device_alloc(struct lab *l, size_t bytes);
int32_t *lab_random_ints(struct lab *l, int64_t n, int64_t below);

struct both {
    float *host; /* what the cpu works on */
    void *device;
    int64_t n;
};
struct both both_random(struct lab *l, int64_t n, double mean, double deviation);
struct both both_poisoned(struct lab *l, int64_t n);
void both_free(struct lab *l, struct both *b);
/* host[] becomes the device's array, rounded to the compute type. */
void lab_to_device(struct lab *l, struct both *b);
void lab_compare(struct lab *l, const struct both *b, double tolerance, const char *what);

/* Runs one operation on both sides; the second argument set differs in its pointers only. */
#define RUN_BOTH(l, op, on_cpu, on_gpu)                                                            \
    do {                                                                                           \
        struct err run_err;                                                                        \
        lab_must(op((l)->cpu, &(on_cpu), &run_err), &run_err);                                     \
        lab_must(op((l)->gpu, &(on_gpu), &run_err), &run_err);                                     \
    } while (0)

#endif

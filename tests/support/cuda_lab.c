#include "tests/support/cuda_lab.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/bf16.h"
#include "tests/support/chosen.h"

enum { MAX_PARTS = 16 };

static const char *compute_name(enum kern_compute c)
{
    static const char *const all[] = {"fp32", "fp16", "bf16"};
    return all[c];
}

void lab_check(struct lab *l, bool is_ok, const char *fmt, ...)
{
    l->n_checks++;
    if (is_ok)
        return;
    if (l->n_failures++ > 50)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("FAILED (%s): ", compute_name(l->compute));
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void lab_must(enum err_code code, const struct err *e)
{
    if (code == ERR_OK)
        return;
    printf("FAILED: %s\n", e->text);
    exit(1);
}

float lab_round_to(enum kern_compute c, float x)
{
    switch (c) {
    case KERN_FP32:
        break;
    case KERN_FP16:
        return f32_round_to_f16(x);
    case KERN_BF16:
        return f32_round_to_bf16(x);
    }
    return x;
}

float lab_element(const struct lab *l, const void *raw, int64_t i)
{
    switch (l->compute) {
    case KERN_FP32:
        break;
    case KERN_FP16:
        return f16_to_f32(((const uint16_t *)raw)[i]);
    case KERN_BF16:
        return f32_of_bits((uint32_t)((const uint16_t *)raw)[i] << 16);
    }
    return ((const float *)raw)[i];
}

void *lab_device_alloc(struct lab *l, size_t bytes)
{
    struct err e;
    void *p;
    lab_must(kern_alloc(l->gpu, bytes, "test", &p, &e), &e);
    return p;
}

void lab_to_device(struct lab *l, struct both *b)
{
    struct err e;
    size_t bytes = (size_t)b->n * sizeof(float);
    void *stage = lab_device_alloc(l, bytes);
    lab_must(kern_upload(l->gpu, stage, b->host, bytes, &e), &e);
    lab_must(kern_cast_f32(l->gpu, b->device, stage, b->n, &e), &e);
    lab_must(kern_sync(l->gpu, &e), &e);
    kern_free(l->gpu, stage);
}

struct both both_random(struct lab *l, int64_t n, double mean, double deviation)
{
    struct both b = {.n = n};
    b.host = xcalloc((size_t)n, sizeof(float));
    b.device = lab_device_alloc(l, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        b.host[i] = lab_round_to(l->compute, (float)(mean + deviation * rng_normal(&l->rng)));
    lab_to_device(l, &b);
    return b;
}

struct both both_poisoned(struct lab *l, int64_t n)
{
    struct both b = {.n = n};
    struct err e;
    size_t bytes = (size_t)n * sizeof(float);
    b.host = xcalloc((size_t)n, sizeof(float));
    b.device = lab_device_alloc(l, bytes);
    memset(b.host, POISON, bytes);
    lab_must(kern_upload(l->gpu, b.device, b.host, bytes, &e), &e);
    return b;
}

void both_free(struct lab *l, struct both *b)
{
    kern_free(l->gpu, b->device);
    xfree(b->host);
}

void lab_compare(struct lab *l, const struct both *b, double tolerance, const char *what)
{
    struct err e;
    size_t bytes = (size_t)b->n * (size_t)kern_get_info(l->gpu)->act_bytes;
    void *raw = xmalloc(bytes);
    lab_must(kern_download(l->gpu, raw, b->device, bytes, &e), &e);
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < b->n; i++) {
        double d = (double)lab_element(l, raw, i) - b->host[i];
        diff += d * d;
        norm += (double)b->host[i] * b->host[i];
    }
    double relative = sqrt(diff / norm);
    lab_check(l, relative <= tolerance, "%s: off by %.3g, allowed %.3g", what, relative, tolerance);
    xfree(raw);
}

const char *lab_label(const char *fmt, ...)
{
    static char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return text;
}

int32_t *lab_random_ints(struct lab *l, int64_t n, int64_t below)
{
    int32_t *out = xcalloc((size_t)n, sizeof(*out));
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)rng_below(&l->rng, (uint64_t)below);
    return out;
}

void lab_use(struct lab *l, enum kern_compute c)
{
    static const double tolerance[] = {2e-6, 6e-4, 5e-3};
    l->gpu = l->gpus[c];
    l->compute = c;
    l->tolerance = tolerance[c];
}

/* ERR_NOTFOUND when there is no module or no GPU. */
static enum err_code lab_open(struct lab *l, int threads, struct err *e)
{
    for (int c = KERN_FP32; c < LAB_COMPUTES; c++) {
        if (l->is_short && c != KERN_FP16)
            continue;
        struct kern_options gpu = {.device = "cuda:0", .compute = (enum kern_compute)c};
        TRY(kern_open(&gpu, &l->gpus[c], e));
    }
    lab_use(l, KERN_FP16);
    return kern_open(&(struct kern_options){.device = "cpu", .threads = threads}, &l->cpu, e);
}

static void lab_close(struct lab *l)
{
    for (int c = KERN_FP32; c < LAB_COMPUTES; c++)
        kern_close(l->gpus[c]);
    kern_close(l->cpu);
}

/* Returns how many checks failed. Every part starts with the same random numbers, whatever runs before it. */
static int lab_run(struct lab *l, const struct lab_part *parts, char **argv, const char *what)
{
    l->n_checks = l->n_failures = 0;
    for (const struct lab_part *p = parts; p->name != NULL; p++) {
        l->rng = (struct rng){11};
        if (chosen(argv, p->name))
            p->run(l);
    }
    printf("%s: %d checks, %d failed\n", what, l->n_checks, l->n_failures);
    return l->n_failures;
}

static bool parts_are_known(const struct lab_part *parts, char **argv)
{
    const char *names[MAX_PARTS + 1] = {0};
    for (int i = 0; parts[i].name != NULL; i++) {
        CHECK(i < MAX_PARTS);
        names[i] = parts[i].name;
    }
    return chosen_are_known(argv, names);
}

static int lab_main_as(const struct lab_part *parts, char **argv, bool is_once)
{
    struct lab l = {.is_short = getenv("ISOBIT_TEST_SHORT") != NULL};
    struct err e;
    if (!parts_are_known(parts, argv))
        return 2;
    enum err_code code = lab_open(&l, is_once ? 1 : 0, &e);
    if (code == ERR_NOTFOUND) {
        printf("SKIPPED: %s\n", e.text);
        return SKIPPED;
    }
    lab_must(code, &e);
    printf("%s\n", kern_get_info(l.gpu)->device);
    int n_failures = is_once ? lab_run(&l, parts, argv, "all compute types") : 0;
    for (int c = KERN_FP32; c < LAB_COMPUTES && !is_once; c++) {
        if (l.gpus[c] == NULL)
            continue;
        lab_use(&l, (enum kern_compute)c);
        n_failures += lab_run(&l, parts, argv, compute_name(l.compute));
    }
    lab_close(&l);
    return n_failures > 0;
}

int lab_main(const struct lab_part *parts, char **argv)
{
    return lab_main_as(parts, argv, false);
}

int lab_main_once(const struct lab_part *parts, char **argv)
{
    return lab_main_as(parts, argv, true);
}

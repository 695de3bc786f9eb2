/* Which of two sides of the second-level cache each multiprocessor stands at, told from how long it takes to add to some lines of
 * memory. An addition is done where its line is at home, and the way there from the other side is longer: on an H200 near ones
 * take 273 to 340 cycles, far ones 444 to 546. Pure. Private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_SIDES_H
#define ISOBIT_KERNELS_CUDA_SIDES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SIDES_MOST = 256, SIDES_LINES = 8 }; /* multiprocessors, by number; lines of memory */

struct sides {
    int n[2];                         /* multiprocessors */
    uint32_t second[SIDES_MOST / 32]; /* bits of the second side's, by number */
};

/* Cycles of every multiprocessor and line; 0 where there is no such multiprocessor. */
struct sides_times {
    uint32_t took[SIDES_MOST][SIDES_LINES];
};

static inline int sides_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The middle of the widest gap between neighbouring times of a line, at least a quarter of them on each side of it. */
static inline uint32_t sides_limit(const struct sides_times *t, int line)
{
    uint32_t v[SIDES_MOST], widest = 0, limit = 0;
    int n = 0;
    for (int s = 0; s < SIDES_MOST; s++)
        if (t->took[s][line] > 0)
            v[n++] = t->took[s][line];
    qsort(v, (size_t)n, sizeof(*v), sides_compare);
    for (int i = n / 4; i + 1 < n - n / 4; i++) {
        if (v[i + 1] - v[i] > widest) {
            widest = v[i + 1] - v[i];
            limit = v[i] + widest / 2;
        }
    }
    return limit;
}

/* How one line divides the multiprocessors. The lowest number stands at the first side, wherever the line is at home. */
static inline struct sides sides_by(const struct sides_times *t, int line)
{
    const uint32_t limit = sides_limit(t, line);
    struct sides s;
    bool is_first_far = false;
    memset(&s, 0, sizeof(s));
    for (int i = 0; i < SIDES_MOST; i++) {
        if (t->took[i][line] == 0)
            continue;
        const bool is_far = t->took[i][line] > limit;
        if (s.n[0] == 0)
            is_first_far = is_far;
        const bool is_second = is_far != is_first_far;
        s.second[i / 32] |= (uint32_t)is_second << i % 32;
        s.n[is_second]++;
    }
    return s;
}

/* Two sides where all lines agree on them and pairs of multiprocessors, as clusters are, divide them; else one. */
static inline void sides_find(struct sides *s, const struct sides_times *t)
{
    *s = sides_by(t, 0);
    bool is_clear = s->n[0] % 2 == 0 && s->n[1] % 2 == 0 && s->n[1] > 0;
    for (int line = 1; line < SIDES_LINES && is_clear; line++) {
        const struct sides other = sides_by(t, line);
        is_clear = memcmp(&other, s, sizeof(other)) == 0;
    }
    if (!is_clear) {
        s->n[0] += s->n[1];
        s->n[1] = 0;
        memset(s->second, 0, sizeof(s->second));
    }
}

#endif

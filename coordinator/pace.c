#include "coordinator/pace.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

void pace_release(struct pace *p)
{
    xfree(p->v);
    *p = (struct pace){0};
}

void pace_fit(struct pace *p, const struct store_parts *parts)
{
    if (p->n_models == parts->n_models && p->n_evals == parts->n_evals)
        return;
    struct pace_mean *v = xcalloc((size_t)parts->n_models * (size_t)parts->n_evals, sizeof(*v));
    for (int m = 0; m < p->n_models; m++)
        memcpy(&v[(size_t)m * (size_t)parts->n_evals], &p->v[(size_t)m * (size_t)p->n_evals],
               (size_t)p->n_evals * sizeof(*v));
    xfree(p->v);
    p->v = v;
    p->n_models = parts->n_models;
    p->n_evals = parts->n_evals;
}

static const struct pace_mean *mean_of(const struct pace *p, int32_t model, int32_t eval)
{
    return &p->v[(size_t)model * (size_t)p->n_evals + (size_t)eval];
}

/* Brings the ring up to `second`, with zeros for seconds in which nothing finished. */
static void turn_to(struct pace *p, int64_t second)
{
    int64_t gap = second - p->second;
    for (int64_t i = 0; i < gap && i < PACE_WINDOW_S; i++)
        p->finished[(second - i) % PACE_WINDOW_S] = 0;
    if (gap > 0)
        p->second = second;
}

void pace_add(struct pace *p, int32_t model, int32_t eval, double seconds, int64_t now_ns)
{
    enum { MEMORY = 16 }; /* the mean follows a change within about so many jobs */
    struct pace_mean *m = &p->v[(size_t)model * (size_t)p->n_evals + (size_t)eval];
    m->n += m->n < MEMORY;
    m->seconds += (seconds - m->seconds) / m->n;
    int64_t second = now_ns / CLOCK_NS_PER_S;
    turn_to(p, second);
    p->finished[second % PACE_WINDOW_S]++;
    if (p->start_s == 0)
        p->start_s = second;
}

bool pace_is_measured(const struct pace *p, int32_t model, int32_t eval)
{
    return mean_of(p, model, eval)->n > 0;
}

double pace_job_seconds(const struct pace *p, const struct store_parts *parts, int32_t model,
                        int32_t eval)
{
    if (pace_is_measured(p, model, eval))
        return mean_of(p, model, eval)->seconds;
    double seconds = 0, params = 0, plain = 0;
    int n_plain = 0;
    for (int32_t m = 0; m < p->n_models; m++) {
        if (!pace_is_measured(p, m, eval))
            continue;
        plain += mean_of(p, m, eval)->seconds;
        n_plain++;
        if (parts->models[m].n_params > 0) {
            seconds += mean_of(p, m, eval)->seconds;
            params += (double)parts->models[m].n_params;
        }
    }
    if (params > 0 && parts->models[model].n_params > 0)
        return seconds / params * (double)parts->models[model].n_params;
    return n_plain > 0 ? plain / n_plain : -1;
}

double pace_rate(const struct pace *p, int64_t now_ns)
{
    int64_t now_s = now_ns / CLOCK_NS_PER_S;
    int64_t n = 0;
    for (int64_t s = now_s - PACE_WINDOW_S + 1; s <= p->second; s++)
        if (s > p->second - PACE_WINDOW_S && s >= 0)
            n += p->finished[s % PACE_WINDOW_S];
    int64_t span = now_s - p->start_s + 1;
    return n == 0 ? 0 : (double)n / (double)(span < PACE_WINDOW_S ? span : PACE_WINDOW_S);
}

double pace_open_seconds(const struct pace *p, const struct board *b)
{
    double total = 0;
    for (int32_t m = 0; m < b->parts.n_models; m++) {
        for (int32_t v = 0; v < b->parts.n_evals; v++) {
            int64_t n = b->n_open[(int64_t)m * b->parts.n_evals + v];
            double seconds = n > 0 ? pace_job_seconds(p, &b->parts, m, v) : 0;
            if (seconds < 0)
                return -1;
            total += seconds * (double)n;
        }
    }
    return total;
}

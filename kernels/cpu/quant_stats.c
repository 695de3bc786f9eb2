/* Exact statistics of fp16 tensors on the CPU: the order statistics behind quantile codebooks and the rank keys behind
 * outlier columns (quantization spec, sections 2.4 and 6). Integers only, so threads may add in any order. */
#include <inttypes.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/f16.h"
#include "kernels/cpu/quant_source.h"
#include "kernels/quant_check.h"

enum { HIST_BINS = 65536 };

/* Counts the fp16 patterns of blocks' parts; a block's mean is found where its part begins. */
static void count_range(const struct quant_source *s, int64_t start, int64_t n, uint16_t mean,
                        uint16_t *y, int64_t *hist)
{
    for (int64_t done = 0; done < n; done += QUANT_PART) {
        int len = n - done < QUANT_PART ? (int)(n - done) : QUANT_PART;
        quant_source_read(s, start + done, len, mean, y);
        for (int i = 0; i < len; i++)
            hist[y[i]]++;
    }
}

static void count_all(const struct quant_source *s, int64_t *hist)
{
    /* Only a centered block must be read as a whole. */
    int64_t step = s->center == KERN_CENTER_BLOCK ? s->block : QUANT_PART;
    int64_t n_steps = (s->n + step - 1) / step;
#pragma omp parallel num_threads(s->threads)
    {
        int64_t *mine = xcalloc(HIST_BINS, sizeof(*mine));
        uint16_t *y = xmalloc(QUANT_PART * sizeof(*y));
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n_steps; i++) {
            int64_t start = i * step;
            int64_t n = s->n - start < step ? s->n - start : step;
            count_range(s, start, n, quant_source_mean(s, start, n), y, mine);
        }
#pragma omp critical(quant_stats_hist)
        for (int i = 0; i < HIST_BINS; i++)
            hist[i] += mine[i];
        xfree(y);
        xfree(mine);
    }
}

static int64_t count_bad(const int64_t *hist)
{
    int64_t n = 0;
    for (int i = 0; i < HIST_BINS; i++)
        n += (i & F16_MAGNITUDE) >= F16_INFINITY ? hist[i] : 0;
    return n;
}

/* The i-th finite number in ascending order: negative ones from the largest magnitude down. */
static uint16_t f16_in_order(int i)
{
    return (uint16_t)(i < F16_INFINITY ? 0x8000 + F16_INFINITY - 1 - i : i - F16_INFINITY);
}

static void ranks_find(const int64_t *hist, const int64_t *rank, int n, float *value)
{
    int64_t end = 0; /* the rank behind the numbers gone through */
    for (int i = 0, j = 0; j < n; i++) {
        uint16_t bits = f16_in_order(i);
        end += hist[bits];
        for (; j < n && rank[j] < end; j++)
            value[j] = (bits & F16_MAGNITUDE) != 0 ? f16_to_f32(bits) : 0;
    }
}

enum err_code cpu_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                   const int64_t *rank, int n, float *value, struct err *e)
{
    struct quant_source s;
    int64_t *hist = NULL;
    int64_t n_bad = 0;
    enum err_code code = quant_source_init(&s, k, a, e);
    if (code == ERR_OK)
        code = quant_check_ranks(a, rank, n, e);
    if (code != ERR_OK)
        goto out;
    hist = xcalloc(HIST_BINS, sizeof(*hist));
    count_all(&s, hist);
    hist[0] -= a->rows * a->n_keep; /* kept columns were read as +0 */
    n_bad = count_bad(hist);
    if (n_bad > 0)
        code = quant_refuse_some(n_bad, a->center != KERN_CENTER_NONE, e);
    else
        ranks_find(hist, rank, n, value);
out:
    xfree(hist);
    quant_source_release(&s);
    return code;
}

/* Sums over a line of n weights in units of 2^-24. |x| < 2^40, so sum |x| < n * 2^40, sum x^2 < n * 2^80 and
 * n * sum x^2 < n^2 * 2^80: 128 bits hold all of it for n < 2^24, which SPREAD_MAX enforces. */
struct moments {
    __int128 sum;
    unsigned __int128 squares;
};
enum { SPREAD_MAX = 1 << 24 };

static inline void moments_add(struct moments *m, uint16_t h)
{
    int64_t x = f16_units(h);
    m->sum += x;
    m->squares += (unsigned __int128)((__int128)x * x);
}

static unsigned __int128 moments_key(const struct moments *m, int64_t n)
{
    unsigned __int128 mag = (unsigned __int128)(m->sum < 0 ? -m->sum : m->sum);
    return (unsigned __int128)n * m->squares - mag * mag;
}

static void spread_rows(const uint16_t *w16, int64_t rows, int64_t cols, int threads,
                        unsigned __int128 *keys)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        struct moments m = {0};
        for (int64_t c = 0; c < cols; c++)
            moments_add(&m, w16[r * cols + c]);
        keys[r] = moments_key(&m, cols);
    }
}

/* Threads take groups of columns and walk down the rows: a group is a few cache lines wide. */
static void spread_cols(const uint16_t *w16, int64_t rows, int64_t cols, int threads,
                        unsigned __int128 *keys)
{
    enum { GROUP = 64 };
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < cols; first += GROUP) {
        struct moments m[GROUP] = {0};
        int n = cols - first < GROUP ? (int)(cols - first) : GROUP;
        for (int64_t r = 0; r < rows; r++) {
            for (int i = 0; i < n; i++)
                moments_add(&m[i], w16[r * cols + first + i]);
        }
        for (int i = 0; i < n; i++)
            keys[first + i] = moments_key(&m[i], rows);
    }
}

enum err_code cpu_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                         bool by_rows, unsigned __int128 *keys, struct err *e)
{
    if (rows <= 0 || cols <= 0 || (by_rows ? cols : rows) >= SPREAD_MAX)
        return err_set(e, ERR_UNSUPPORTED,
                       "rank keys of a tensor of %" PRId64 " rows and %" PRId64
                       " columns; lines of 1 to %d weights are possible",
                       rows, cols, SPREAD_MAX - 1);
    if (by_rows)
        spread_rows(w16, rows, cols, k->info.threads, keys);
    else
        spread_cols(w16, rows, cols, k->info.threads, keys);
    return ERR_OK;
}

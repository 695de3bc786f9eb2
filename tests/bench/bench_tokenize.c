/* Tokenizing English prose on one core, against cutting it into pieces with nothing merged. Prints a table, also of a
 * megabyte without a space, which must not take quadratic time, then one JSON line: GPT-NeoX's kind of tokenizer.
 * Without arguments it takes the reference models and held-out books; else: bench_tokenize TEXT DIRECTORY…
 * Benchmark: tokenize */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/bench/bench.h"
#include "tests/support/support.h"
#include "worker/tok/tok.h"
#include "worker/tok/tok_regex.h"
#include "worker/tok/tok_split.h"

enum { REPEATS = 7 };
static const double limit_mb = 5.0; /* MB/s */

struct bench {
    struct str text;
    struct tok *tok;     /* encode with it, */
    struct split *split; /* or only cut */
    size_t n_ids;
};

static void run(struct bench *b)
{
    struct err e;
    struct tok_ids ids = {0};
    const struct str *pieces = NULL;
    if (b->tok != NULL)
        bench_must(tok_encode(b->tok, b->text, &ids, &e), &e);
    else
        bench_must(split_run(b->split, b->text, &pieces, &ids.n, &e), &e);
    b->n_ids = ids.n;
    tok_ids_release(&ids);
}

/* MB/s of processor time, the median of REPEATS runs after one that warms up. */
static double measure(struct bench *b, const char *what)
{
    double seconds[REPEATS];
    run(b);
    for (int i = 0; i < REPEATS; i++) {
        int64_t start = clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
        run(b);
        seconds[i] = (double)(clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e-9;
    }
    qsort(seconds, REPEATS, sizeof(seconds[0]), bench_compare_doubles);
    double mb = (double)b->text.n * 1e-6 / seconds[REPEATS / 2];
    printf("%-52.52s %8.1f MB/s %9zu pieces or tokens\n", what, mb, b->n_ids);
    return mb;
}

static double measure_cutting(struct str text)
{
    struct bench b = {.text = text, .split = split_new()};
    struct buf pattern = {0};
    struct err e;
    bench_must(tok_regex_translate(str_of(tok_regex_gpt2), &pattern, &e), &e);
    bench_must(split_add_regex(b.split, (struct str){pattern.data, pattern.len}, SPLIT_ISOLATED,
                               false, &e),
               &e);
    double mb = measure(&b, "cutting only, GPT-2's expression");
    buf_release(&pattern);
    split_free(b.split);
    return mb;
}

static double measure_model(const char *dir, struct str text)
{
    enum { LONG = 1 << 20 };
    struct bench b = {.text = text};
    struct err e;
    bench_must(tok_open(dir, &b.tok, &e), &e);
    double mb = measure(&b, dir);
    char *long_piece = xmalloc(LONG);
    struct rng r = {1};
    for (size_t i = 0; i < LONG; i++)
        long_piece[i] = (char)('a' + rng_below(&r, 26));
    b.text = (struct str){long_piece, LONG};
    measure(&b, "   1 MiB of letters without a space");
    xfree(long_piece);
    tok_close(b.tok);
    return mb;
}

static void print_json(double value, double against)
{
    const char *commit = getenv("ISOBIT_BENCH_COMMIT");
    printf("{\"name\": \"tokenize\", \"value\": %.2f, \"unit\": \"MB/s\", "
           "\"against\": \"cutting into pieces only\", \"against_value\": %.2f, \"ratio\": %.3f, "
           "\"limit\": \"at least\", \"limit_value\": %.2f, \"of_limit\": %.3f, "
           "\"machine\": \"one core\", \"commit\": \"%s\"}\n",
           value, against, value / against, limit_mb, value / limit_mb,
           commit != NULL ? commit : "");
}

int main(int argc, char **argv)
{
    static const char *const models[] = {"models/pythia-s0", "models/gpt2-s0", "models/opt-s0",
                                         "models/bloom-s0"};
    const char *path = argc > 1 ? argv[1] : support_shared("data/heldout_books.txt");
    if (path == NULL)
        return 77;
    struct buf text = {0};
    struct err e;
    bench_must(io_read_file(path, (size_t)1 << 28, &text, &e), &e);
    struct str view = {text.data, text.len};
    double against = measure_cutting(view);
    double value = 0;
    size_t n = argc > 1 ? (size_t)argc - 2 : ARRAY_LEN(models);
    for (size_t i = 0; i < n; i++) {
        const char *dir = argc > 1 ? argv[i + 2] : support_shared(models[i]);
        double mb = dir != NULL ? measure_model(dir, view) : 0;
        value = i == 0 ? mb : value;
    }
    print_json(value, against);
    buf_release(&text);
    return 0;
}

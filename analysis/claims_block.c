/* Claims about block sizes. */
#include <math.h>

#include "analysis/claims_impl.h"
#include "schema/bits.h"

static const int64_t all_blocks[] = {32, 64, 128, 256, 512, 1024, 2048, 4096, 0};

static const struct curve *with_block(const struct lane *lane, int64_t block, int k)
{
    struct slice s = lane->slice;
    s.block = block;
    return curve_of(lane->family, s, k);
}

/* What blocks of 64 instead of 1024 are worth at equal bits. */
static double block_gain(struct claim_ctx *c, const struct lane *lane, int k)
{
    return gap_of(c, with_block(lane, 64, k), with_block(lane, 1024, k));
}

/* Over the models that have all three: gain of the smaller block, gain of one bit more. */
static void gains_of_lane(struct claim_ctx *c, const struct lane *lane, struct mean *block,
                          struct mean *bit)
{
    const struct curve *small = with_block(lane, 64, 4);
    const struct curve *large = with_block(lane, 1024, 4);
    const struct curve *more = with_block(lane, 1024, 5);
    for (int i = 0; large != NULL && i < large->n; i++) {
        const struct curve_point *p = &large->points[i];
        const struct curve_point *s = point_of(c, small, p->size);
        const struct curve_point *m = point_of(c, more, p->size);
        if (s == NULL || m == NULL)
            continue;
        use_point(c, p);
        mean_add(block, s->value - p->value);
        mean_add(bit, m->value - p->value);
    }
}

/* The ratio of the two gains has no mean where the second is near 0: what is tested is its numerator minus 0.7 of its
 * denominator. */
void claim_block_is_a_bit(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        if (lane->family->id != FAMILY_PYTHIA)
            continue;
        struct mean block = {0}, bit = {0};
        gains_of_lane(c, lane, &block, &bit);
        bool has_data = block.n >= CLAIM_MIN_SIZES;
        claim_state(c, AT_LEAST(0), has_data ? mean_of(&block) - 0.7 * mean_of(&bit) : NAN,
                    "block's gain beyond 0.7 of a bit's, %s", lane->label);
        claim_state(c, TOLD, has_data ? mean_of(&block) / mean_of(&bit) : NAN,
                    "ratio of the gains, %s", lane->label);
    }
}

static double overhead(int k, int64_t block, double outlier_pct)
{
    struct config config = config_default();
    config.k = k;
    config.block = block;
    config.outlier_pct = outlier_pct;
    return bits_nominal_per_param(&config, (int64_t)1 << 30) - k;
}

void claim_overhead(struct claim_ctx *c)
{
    double of_64 = overhead(4, 64, 0);
    claim_set(c, 1);
    claim_state_exact(c, EQUAL(0.25), of_64, "blocks of 64");
    claim_state_exact(c, EQUAL(0.234375), of_64 - overhead(4, 1024, 0), "64 instead of 1024");
    claim_state_exact(c, EQUAL(0.24), overhead(4, 64, 2) - of_64, "2 % of the columns at 16 bit");
}

/* Mean over the family's types. */
static double family_gain(struct claim_ctx *c, enum claim_family family)
{
    struct mean gain = {0};
    for (int i = 0; i < c->world->n_lanes; i++)
        if (c->world->lanes[i].family->id == family)
            mean_add(&gain, block_gain(c, &c->world->lanes[i], 4));
    return mean_of(&gain);
}

void claim_small_blocks(struct claim_ctx *c)
{
    static const enum claim_family more[] = {FAMILY_PYTHIA, FAMILY_GPT2};
    static const enum claim_family less[] = {FAMILY_BLOOM, FAMILY_BLOOMZ, FAMILY_OPT};
    static const char *const names[] = {[FAMILY_PYTHIA] = "Pythia",
                                        [FAMILY_GPT2] = "GPT-2",
                                        [FAMILY_BLOOM] = "BLOOM",
                                        [FAMILY_BLOOMZ] = "BLOOMZ",
                                        [FAMILY_OPT] = "OPT"};
    const struct world *w = c->world;
    struct mean gain[6] = {{0}};
    claim_set(c, 1);
    for (int i = 0; i < w->n_lanes; i++) {
        claim_state(c, AT_LEAST(0), block_gain(c, &w->lanes[i], 4), "%s", w->lanes[i].label);
        for (int k = 3; k <= 5; k++)
            mean_add(&gain[k], block_gain(c, &w->lanes[i], k));
    }
    claim_set(c, 1);
    for (size_t m = 0; m < ARRAY_LEN(more); m++)
        for (size_t l = 0; l < ARRAY_LEN(less); l++)
            claim_state(c, AT_LEAST(0), family_gain(c, more[m]) - family_gain(c, less[l]),
                        "%s's gain over %s's", names[more[m]], names[less[l]]);
    claim_set(c, 1);
    claim_state(c, AT_LEAST(0), mean_of(&gain[3]) - mean_of(&gain[4]),
                "gain at 3 bit over that at 4");
    claim_state(c, AT_LEAST(0), mean_of(&gain[4]) - mean_of(&gain[5]),
                "gain at 4 bit over that at 5");
}

void claim_no_rescue(struct claim_ctx *c)
{
    claim_set(c, 1);
    for (int i = 0; i < c->world->n_lanes; i++) {
        const struct lane *lane = &c->world->lanes[i];
        double best = NAN;
        for (size_t b = 0; b < ARRAY_LEN(all_blocks); b++)
            best =
                fmax(best, gap_of(c, with_block(lane, all_blocks[b], 4), with_block(lane, 64, 3)));
        claim_state(c, AT_LEAST(0), best, "%s", lane->label);
    }
}

/* For each model at the bits that it has with the largest block: which block's curve is highest there? The smallest model has no
 * counterpart below it and drops out. */
static void add_best_blocks(struct claim_ctx *c, const struct lane *lane, struct mean *is_small)
{
    const struct curve *curves[ARRAY_LEN(all_blocks)];
    bool small[ARRAY_LEN(all_blocks)];
    int n = 0;
    for (size_t b = 0; b < ARRAY_LEN(all_blocks); b++) {
        const struct curve *x = with_block(lane, all_blocks[b], 4);
        if (x == NULL || x->n < CLAIM_MIN_SIZES)
            continue;
        small[n] = all_blocks[b] == 64 || all_blocks[b] == 128;
        curves[n++] = x;
    }
    for (int i = 0; n >= 3 && i < curves[n - 1]->n; i++) {
        double x = curves[n - 1]->points[i].log2_bits;
        int best = 0;
        bool is_covered = true;
        for (int j = 0; j < n; j++) {
            is_covered = is_covered && !isnan(curve_at(curves[j], x));
            if (curve_at(curves[j], x) > curve_at(curves[best], x))
                best = j;
        }
        if (is_covered)
            mean_add(is_small, small[best]);
    }
    for (int j = 0; n >= 3 && j < n; j++)
        use_curve(c, curves[j]);
}

void claim_best_block(struct claim_ctx *c)
{
    struct mean share = {0};
    for (int i = 0; i < c->world->n_lanes; i++)
        add_best_blocks(c, &c->world->lanes[i], &share);
    claim_set(c, 1);
    claim_state(c, AT_LEAST(0.6), mean_of(&share), "share of %d models and types", share.n);
    claim_range(c, 0, 1);
}

/* Every type and block has a say of its own: the largest of many gaps would grow with the noise. */
void claim_nothing_helps(struct claim_ctx *c)
{
    static const enum dtype types[] = {DTYPE_int, DTYPE_float, DTYPE_dynamic, DTYPE_quantile};
    const struct slice plain = {.dtype = DTYPE_int, .block = 1024};
    for (int k = 6; k <= 8; k++) {
        claim_set(c, 1);
        for (size_t t = 0; t < ARRAY_LEN(types); t++)
            for (size_t b = 0; b < ARRAY_LEN(all_blocks); b++) {
                struct slice s = {.dtype = types[t], .block = all_blocks[b]};
                struct mean gap = {0};
                if (s.dtype == plain.dtype && s.block == plain.block)
                    continue;
                for (int f = 0; f < c->world->n_families; f++)
                    mean_add(&gap, gap_at(c, &c->world->families[f], s, k, plain, k));
                claim_state(c, WITHIN(0.5), mean_of(&gap), "%s, block %lld, %d bit",
                            dtype_label(s.dtype), (long long)s.block, k);
            }
    }
}

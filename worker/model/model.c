/* Facts of a model that all its other files ask for: sizes, how it runs, what follows from its
 * wiring. */
#include "worker/model/model_impl.h"

const struct model_info *model_get_info(const struct model *m)
{
    return &m->info;
}

int64_t model_max_tokens(const struct model *m)
{
    return m->max_tokens;
}

bool model_is_streamed(const struct model *m)
{
    return m->plan.mode == PLAN_STREAMING;
}

bool model_is_hosted(const struct model *m)
{
    return m->plan.mode == PLAN_HOST_MASTER;
}

int64_t model_step_rows(const struct model *m, int64_t n)
{
    const int64_t step = kern_get_info(m->k)->row_step;
    return (n + step - 1) / step * step;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Wide enough for q, k, v, for the MLP's inner layer, and for two sets of final rows side by side. */
int64_t model_wide_cols(const struct wiring *w)
{
    return larger(larger((int64_t)3 * w->d, w->ffn), (int64_t)2 * w->d_embed);
}

int64_t model_row_cols(const struct wiring *w)
{
    return (int64_t)3 * w->d + model_wide_cols(w);
}

enum model_part model_part_of(const struct wiring *w, enum role role)
{
    switch (role) {
    case ROLE_NORM1_W:
    case ROLE_NORM1_B:
        return w->is_post_norm ? MODEL_PART_OUT : MODEL_PART_QKV;
    case ROLE_NORM2_W:
    case ROLE_NORM2_B:
        return w->is_post_norm ? MODEL_PART_FFN2 : w->is_parallel ? MODEL_PART_QKV : MODEL_PART_OUT;
    case ROLE_QKV_W:
    case ROLE_QKV_B:
        return MODEL_PART_QKV;
    case ROLE_OUT_W:
    case ROLE_OUT_B:
        return MODEL_PART_OUT;
    case ROLE_FFN1_W:
    case ROLE_FFN1_B:
        return MODEL_PART_FFN1;
    default:
        return MODEL_PART_FFN2;
    }
}

#include "schema/rates.h"

static const double tera = 1e12, giga = 1e9;

double rate_flat(void)
{
    return 400 * tera;
}

double rate_by_size(double n_params)
{
    if (n_params < 0.2e9)
        return 40 * tera;
    if (n_params < 0.6e9)
        return 100 * tera;
    return n_params < 3.5e9 ? 200 * tera : 400 * tera;
}

double rate_cpu_core(void)
{
    return 0.025 * tera;
}

double rate_storage(void)
{
    return 2 * giga;
}

double rate_link(void)
{
    return 50 * giga;
}

/* How `isobit run` shares the machine's cores among its workers. */
#include <criterion/criterion.h>

#include "coordinator/local.h"

static void expect_shares(const struct local_devices *d, int n, const struct local_share *expected)
{
    for (int i = 0; i < n; i++) {
        const struct local_share s = local_share_of(d, i, n);
        cr_expect(s.part == expected[i].part && s.n_parts == expected[i].n_parts,
                  "worker %d: %d/%d", i, s.part, s.n_parts);
    }
}

Test(local, workers_without_a_gpu_share_all_cores)
{
    static const struct local_share expected[] = {{0, 3}, {1, 3}, {2, 3}};
    expect_shares(&(struct local_devices){0}, 3, expected);
}

Test(local, workers_whose_gpus_are_nowhere_share_all_cores)
{
    struct local_device v[] = {{"cuda:0", -1}, {"cuda:1", -1}};
    static const struct local_share expected[] = {{0, 2}, {1, 2}};
    expect_shares(&(struct local_devices){v, 2}, 2, expected);
}

Test(local, workers_share_the_cores_of_their_gpus_node)
{
    struct local_device v[] = {{"cuda:0", 1}, {"cuda:1", 0}, {"cuda:2", 1}, {"cuda:3", 1}};
    static const struct local_share expected[] = {{0, 3}, {0, 1}, {1, 3}, {2, 3}};
    expect_shares(&(struct local_devices){v, 4}, 4, expected);
}

Test(local, several_workers_of_one_gpu_count_each)
{
    struct local_device v[] = {{"cuda:0", 0}, {"cuda:1", 1}};
    static const struct local_share expected[] = {{0, 2}, {0, 1}, {1, 2}};
    expect_shares(&(struct local_devices){v, 2}, 3, expected);
}

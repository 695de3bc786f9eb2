/* Which cores a worker takes: shares of them all, or those next to its GPU. The machine of the file has two nodes of four
 * cores of two threads; the GPU with the lower address, 3b:00.0, is plugged into the second node, b4:00.0 into the first, and
 * of e0:00.0 nothing is known. */
#include <criterion/criterion.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/support/support.h"
#include "worker/topo.h"

struct row {
    const char *pci;
    int part, n_parts;
    bool is_near;
    int numa_node, n_cores;
    const char *cores;
};

static const struct row rows[] = {
    {NULL, 0, 1, false, -1, 8, "0-15"},
    {NULL, 0, 2, false, -1, 4, "0-7"},
    {NULL, 1, 2, false, -1, 4, "8-15"},
    {NULL, 2, 3, false, -1, 3, "10-15"},
    {NULL, 9, 16, false, -1, 1, "8-9"}, /* more parts than cores: shared */
    {"0000:3b:00.0", 0, 1, true, 1, 4, "8-15"},
    {"0000:B4:00.0", 0, 1, true, 0, 4, "0-7"}, /* as CUDA writes it */
    {"00000000:b4:00.0", 0, 1, true, 0, 4, "0-7"},
    {"0000:3b:00.0", 0, 2, true, 1, 2, "8-11"},
    {"0000:3b:00.0", 1, 2, true, 1, 2, "12-15"},
    {"0000:3b:00.0", 1, 8, true, 1, 1, "8-9"},
    /* Nothing is known of these: shares of all cores. */
    {"0000:e0:00.0", 1, 2, false, -1, 4, "8-15"},
    {"0000:77:00.0", 1, 2, false, -1, 4, "8-15"},
    {"no address", 0, 1, false, -1, 8, "0-15"},
};

Test(topo, a_share_is_next_to_the_device_where_that_is_known)
{
    struct buf xml = {0};
    struct err e = {0};
    cr_assert_eq(
        io_read_file(support_source("tests/golden/topology-two-nodes.xml"), 1 << 20, &xml, &e),
        ERR_OK, "%s", e.text);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        const struct topo_share share = {r->pci, r->part, r->n_parts};
        struct topo_place at;
        cr_assert_eq(topo_find(xml.data, &share, &at, &e), ERR_OK, "row %zu: %s", i, e.text);
        cr_expect_eq(at.is_near, r->is_near, "row %zu", i);
        cr_expect_eq(at.numa_node, r->numa_node, "row %zu: node %d", i, at.numa_node);
        cr_expect_eq(at.n_cores, r->n_cores, "row %zu: %d cores", i, at.n_cores);
        cr_expect_str_eq(at.cores, r->cores, "row %zu: cores %s", i, at.cores);
    }
    buf_release(&xml);
}

Test(topo, shares_that_do_not_exist_are_refused)
{
    static const char *const bad[] = {"", "1", "2/2", "-1/2", "0/0", "x/2", "0/99999", "1/2/3"};
    struct topo_share share;
    struct topo_place at;
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(topo_parse_share(bad[i], &share, &e), ERR_USAGE, "'%s'", bad[i]);
    cr_expect_eq(topo_parse_share("1/2", &share, &e), ERR_OK);
    cr_expect(share.part == 1 && share.n_parts == 2);
    cr_expect_eq(topo_find(NULL, &(struct topo_share){.part = 2, .n_parts = 2}, &at, &e),
                 ERR_USAGE);
    cr_expect_eq(topo_find("<nonsense>", &(struct topo_share){.n_parts = 1}, &at, &e), ERR_FORMAT);
}

Test(topo, a_binding_holds_for_the_process)
{
    const int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct topo_info info;
    struct topo_place at;
    struct err e = {0};
    cpu_set_t set;
    cr_assert_eq(topo_describe(&info, &e), ERR_OK, "%s", e.text);
    cr_expect(info.cores >= 1 && info.cores <= n && info.threads >= info.cores);
    cr_assert_eq(
        topo_bind(&(struct topo_share){.part = info.cores - 1, .n_parts = info.cores}, &at, &e),
        ERR_OK, "%s", e.text);
    cr_expect_eq(at.n_cores, 1);
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_expect_eq(CPU_COUNT(&set), info.threads / info.cores);
    /* What is left is shared again, not what the machine has. */
    cr_assert_eq(topo_find(NULL, &(struct topo_share){.n_parts = 1}, &at, &e), ERR_OK);
    cr_expect_eq(at.n_cores, 1);
}

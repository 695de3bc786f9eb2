#include "worker/topo.h"

#include <errno.h>
#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct topo {
    hwloc_topology_t t;
    hwloc_cpuset_t mine; /* what this process may use */
};

static void topo_release(struct topo *m)
{
    if (m->mine != NULL)
        hwloc_bitmap_free(m->mine);
    if (m->t != NULL)
        hwloc_topology_destroy(m->t);
}

static enum err_code topo_init(struct topo *m, struct err *e)
{
    *m = (struct topo){0};
    if (hwloc_topology_init(&m->t) != 0 || hwloc_topology_load(m->t) != 0)
        return err_set_errno(e, errno, "cannot read the machine's topology");
    m->mine = hwloc_bitmap_alloc();
    if (m->mine == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a set of cores");
    if (hwloc_get_cpubind(m->t, m->mine, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(m->mine, hwloc_topology_get_allowed_cpuset(m->t));
    return ERR_OK;
}

/* Objects of a kind that this process may use, at least in part; `out` may be NULL. */
static int usable(const struct topo *m, hwloc_obj_type_t type, int max, hwloc_obj_t *out)
{
    int n = 0;
    hwloc_obj_t o = NULL;
    while ((o = hwloc_get_next_obj_by_type(m->t, type, o)) != NULL) {
        if (!hwloc_bitmap_intersects(o->cpuset, m->mine))
            continue;
        if (out != NULL && n < max)
            out[n] = o;
        n++;
    }
    return n;
}

enum err_code topo_describe(struct topo_info *out, struct err *e)
{
    struct topo m;
    enum err_code rc = topo_init(&m, e);
    if (rc == ERR_OK) {
        hwloc_obj_t package = hwloc_get_obj_by_type(m.t, HWLOC_OBJ_PACKAGE, 0);
        const char *model =
            package != NULL ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
        *out = (struct topo_info){.cores = usable(&m, HWLOC_OBJ_CORE, 0, NULL),
                                  .threads = usable(&m, HWLOC_OBJ_PU, 0, NULL),
                                  .numa_nodes = usable(&m, HWLOC_OBJ_NUMANODE, 0, NULL),
                                  .memory_bytes =
                                      (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)};
        snprintf(out->cpu, sizeof(out->cpu), "%s", model != NULL ? model : "unknown");
    }
    topo_release(&m);
    return rc;
}

static enum err_code bind_part(const struct topo *m, int part, int n_parts, struct err *e)
{
    enum { MAX_CORES = 4096 };
    static hwloc_obj_t cores[MAX_CORES]; /* start-up only; too large for the stack */
    int n = usable(m, HWLOC_OBJ_CORE, MAX_CORES, cores);
    if (n > MAX_CORES)
        n = MAX_CORES;
    if (n == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the system does not tell its cores: run without --bind");
    int from = (int)((int64_t)part * n / n_parts), to = (int)((int64_t)(part + 1) * n / n_parts);
    if (to == from)
        to = from + 1;
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    for (int i = from; i < to; i++)
        hwloc_bitmap_or(set, set, cores[i]->cpuset);
    hwloc_bitmap_and(set, set, m->mine);
    enum err_code rc = ERR_OK;
    if (hwloc_set_cpubind(m->t, set, HWLOC_CPUBIND_PROCESS) != 0)
        rc = err_set(e, ERR_UNSUPPORTED, "cannot bind to cores %d to %d: %s; run without --bind",
                     from, to - 1, strerror(errno));
    /* Without STRICT other nodes serve when these are full; where it is not possible, first touch does nearly as well. */
    hwloc_set_membind(m->t, set, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_PROCESS);
    hwloc_bitmap_free(set);
    return rc;
}

enum err_code topo_bind(int part, int n_parts, struct err *e)
{
    if (n_parts < 1 || part < 0 || part >= n_parts)
        return err_set(e, ERR_USAGE,
                       "--bind %d/%d: expected PART/PARTS with PART from 0 to PARTS - 1", part,
                       n_parts);
    struct topo m;
    enum err_code rc = topo_init(&m, e);
    if (rc == ERR_OK)
        rc = bind_part(&m, part, n_parts, e);
    topo_release(&m);
    return rc;
}

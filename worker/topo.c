#include "worker/topo.h"

#include <errno.h>
#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

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

static enum err_code load(struct topo *m, const char *xml, struct err *e)
{
    if (hwloc_topology_init(&m->t) != 0)
        return err_set_errno(e, errno, "cannot read the machine's topology");
    /* PCI devices, which are left out otherwise. */
    hwloc_topology_set_io_types_filter(m->t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    bool is_xml = xml == NULL || hwloc_topology_set_xmlbuffer(m->t, xml, (int)strlen(xml) + 1) == 0;
    bool is_loaded = is_xml && hwloc_topology_load(m->t) == 0;
    if (xml != NULL && !is_loaded)
        return err_set(e, ERR_FORMAT, "this is no topology in hwloc's XML");
    if (!is_loaded)
        return err_set_errno(e, errno, "cannot read the machine's topology");
    return ERR_OK;
}

static enum err_code topo_init(struct topo *m, const char *xml, struct err *e)
{
    *m = (struct topo){0};
    TRY(load(m, xml, e));
    m->mine = hwloc_bitmap_alloc();
    if (m->mine == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a set of cores");
    if (!hwloc_topology_is_thissystem(m->t) ||
        hwloc_get_cpubind(m->t, m->mine, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(m->mine, hwloc_topology_get_allowed_cpuset(m->t));
    return ERR_OK;
}

/* Objects of a kind that reach into `set`; `out` may be NULL. */
static int usable(const struct topo *m, hwloc_const_cpuset_t set, hwloc_obj_type_t type, int max,
                  hwloc_obj_t *out)
{
    int n = 0;
    hwloc_obj_t o = NULL;
    while ((o = hwloc_get_next_obj_by_type(m->t, type, o)) != NULL) {
        if (!hwloc_bitmap_intersects(o->cpuset, set))
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
    enum err_code rc = topo_init(&m, NULL, e);
    if (rc == ERR_OK) {
        hwloc_obj_t package = hwloc_get_obj_by_type(m.t, HWLOC_OBJ_PACKAGE, 0);
        const char *model =
            package != NULL ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
        *out = (struct topo_info){.cores = usable(&m, m.mine, HWLOC_OBJ_CORE, 0, NULL),
                                  .threads = usable(&m, m.mine, HWLOC_OBJ_PU, 0, NULL),
                                  .numa_nodes = usable(&m, m.mine, HWLOC_OBJ_NUMANODE, 0, NULL),
                                  .memory_bytes =
                                      (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)};
        snprintf(out->cpu, sizeof(out->cpu), "%s", model != NULL ? model : "unknown");
    }
    topo_release(&m);
    return rc;
}

/* Cores next to a device, those of the smallest part of the machine that it hangs on; NULL when it is not known to hang on
 * any part: then it is a child of the machine itself, which has several. */
static hwloc_const_cpuset_t cores_near(const struct topo *m, const char *pci, int *numa_node)
{
    hwloc_obj_t device = hwloc_get_pcidev_by_busidstring(m->t, pci);
    if (device == NULL)
        return NULL;
    hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(m->t, device);
    if (place == NULL || !hwloc_bitmap_intersects(place->cpuset, m->mine))
        return NULL;
    if (place->parent == NULL && hwloc_get_nbobjs_by_type(m->t, HWLOC_OBJ_NUMANODE) > 1)
        return NULL;
    if (hwloc_bitmap_weight(place->nodeset) == 1)
        *numa_node = hwloc_bitmap_first(place->nodeset);
    return place->cpuset;
}

/* The share's cores into `set`, which is empty. */
static enum err_code find_set(const struct topo *m, const struct topo_share *share,
                              hwloc_cpuset_t set, struct topo_place *out, struct err *e)
{
    enum { MAX_CORES = 4096 };
    static hwloc_obj_t cores[MAX_CORES]; /* start-up only; too large for the stack */
    hwloc_const_cpuset_t near =
        share->pci != NULL ? cores_near(m, share->pci, &out->numa_node) : NULL;
    out->is_near = near != NULL;
    hwloc_bitmap_copy(set, m->mine);
    if (near != NULL)
        hwloc_bitmap_and(set, set, near);
    int n = usable(m, set, HWLOC_OBJ_CORE, MAX_CORES, cores);
    n = n > MAX_CORES ? MAX_CORES : n;
    if (n == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the system does not tell its cores: run with --bind none");
    int from = (int)((int64_t)share->part * n / share->n_parts);
    int to = (int)((int64_t)(share->part + 1) * n / share->n_parts);
    to = to == from ? from + 1 : to;
    hwloc_bitmap_zero(set);
    for (int i = from; i < to; i++)
        hwloc_bitmap_or(set, set, cores[i]->cpuset);
    hwloc_bitmap_and(set, set, m->mine);
    out->n_cores = to - from;
    hwloc_bitmap_list_snprintf(out->cores, sizeof(out->cores), set);
    return ERR_OK;
}

static enum err_code bind_set(const struct topo *m, hwloc_const_cpuset_t set, const char *cores,
                              struct err *e)
{
    if (hwloc_set_cpubind(m->t, set, HWLOC_CPUBIND_PROCESS) != 0)
        return err_set(e, ERR_UNSUPPORTED, "cannot bind to cores %s: %s; run with --bind none",
                       cores, strerror(errno));
    /* Without STRICT other nodes serve when these are full; where it is not possible, first touch does nearly as well. Linux
     * binds memory thread by thread: the threads that this one starts inherit it. */
    if (hwloc_set_membind(m->t, set, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_PROCESS) != 0)
        hwloc_set_membind(m->t, set, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_THREAD);
    return ERR_OK;
}

static enum err_code find(const char *xml, const struct topo_share *share, bool is_binding,
                          struct topo_place *out, struct err *e)
{
    struct topo m;
    *out = (struct topo_place){.numa_node = -1};
    if (share->n_parts < 1 || share->part < 0 || share->part >= share->n_parts)
        return err_set(e, ERR_USAGE,
                       "--bind %d/%d: expected PART/PARTS with PART from 0 to PARTS - 1",
                       share->part, share->n_parts);
    enum err_code rc = topo_init(&m, xml, e);
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    if (rc == ERR_OK && set == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for a set of cores");
    if (rc == ERR_OK)
        rc = find_set(&m, share, set, out, e);
    if (rc == ERR_OK && is_binding)
        rc = bind_set(&m, set, out->cores, e);
    hwloc_bitmap_free(set);
    topo_release(&m);
    return rc;
}

enum err_code topo_find(const char *xml, const struct topo_share *share, struct topo_place *out,
                        struct err *e)
{
    return find(xml, share, false, out, e);
}

enum err_code topo_bind(const struct topo_share *share, struct topo_place *out, struct err *e)
{
    return find(NULL, share, true, out, e);
}

enum err_code topo_parse_share(const char *text, struct topo_share *out, struct err *e)
{
    struct str rest = str_of(text), part, parts;
    int64_t i = 0, n = 0;
    if (!str_next_field(&rest, '/', &part) || !str_next_field(&rest, '/', &parts) ||
        rest.p != NULL || !parse_i64(part, &i) || !parse_i64(parts, &n) || i < 0 || i >= n ||
        n > 65536)
        return err_set(e, ERR_USAGE,
                       "--bind %s: expected PART/PARTS with PART from 0 to PARTS - 1, e.g. 0/2, or "
                       "none",
                       text);
    out->part = (int)i;
    out->n_parts = (int)n;
    return ERR_OK;
}

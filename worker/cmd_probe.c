/* isobit-worker probe: what this machine can compute with. */
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "kernels/kernels.h"
#include "schema/job.h"
#include "schema/wire.h"
#include "worker/cmd.h"
#include "worker/topo.h"

enum { MAX_GPUS = 64 };

struct probe_opts {
    bool json;
};

static const struct cli_opt probe_opts[] = {
    CLI_OPT_JSON(offsetof(struct probe_opts, json)),
};

static enum err_code probe_one(const char *name, enum kern_compute compute, struct kern_info *info,
                               struct err *e)
{
    struct kern *k = NULL;
    const struct kern_options o = {.device = name, .compute = compute};
    TRY(kern_open(&o, &k, e));
    *info = *kern_get_info(k);
    kern_close(k);
    return ERR_OK;
}

/* Where a GPU is plugged in: `pci`, the `numa_node` and `cores` next to it; null where the machine does not tell. */
static void add_place(json_t *out, const char *pci)
{
    const struct topo_share all = {.pci = pci, .n_parts = 1};
    struct topo_place at;
    struct err ignored;
    const bool is_near = topo_find(NULL, &all, &at, &ignored) == ERR_OK && at.is_near;
    json_object_set_new(out, "pci", json_string(pci));
    json_object_set_new(out, "numa_node",
                        is_near && at.numa_node >= 0 ? json_integer(at.numa_node) : json_null());
    json_object_set_new(out, "cores", is_near ? json_string(at.cores) : json_null());
}

/* An object with `name`, `device`, `memory_bytes`, `computes`, `place`; NULL when there is no such device (`why` says it). */
static json_t *probe_device(const char *name, struct err *why)
{
    static const enum compute all[] = {
        [KERN_FP32] = COMPUTE_FP32, [KERN_FP16] = COMPUTE_FP16, [KERN_BF16] = COMPUTE_BF16};
    struct kern_info info, other;
    struct err e;
    if (probe_one(name, KERN_FP32, &info, why) != ERR_OK)
        return NULL;
    json_t *computes = json_array(), *notes = json_array();
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (probe_one(name, (enum kern_compute)i, &other, &e) != ERR_OK)
            continue;
        json_array_append_new(computes, json_string(compute_label(all[i])));
        if (other.note[0] != '\0')
            json_array_append_new(notes, json_string(other.note));
    }
    json_t *out = json_pack("{s:s, s:o, s:I, s:o, s:o}", "name", name, "device",
                            wire_text(info.device), "memory_bytes", (json_int_t)info.memory_bytes,
                            "computes", computes, "notes", notes);
    if (info.pci[0] != '\0')
        add_place(out, info.pci);
    return out;
}

static json_t *probe_machine(const struct topo_info *t)
{
    char host[256] = "unknown";
    struct err e = {0};
    gethostname(host, sizeof(host) - 1);
    json_t *devices = json_array(), *cpu = probe_device("cpu", &e);
    if (cpu != NULL)
        json_array_append_new(devices, cpu);
    for (int i = 0; i < MAX_GPUS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "cuda:%d", i);
        json_t *gpu = probe_device(name, &e);
        if (gpu == NULL)
            break;
        json_array_append_new(devices, gpu);
    }
    bool has_gpu = json_array_size(devices) > 1;
    return json_pack("{s:s, s:i, s:i, s:o, s:o, s:i, s:i, s:i, s:I, s:o, s:o}", "program",
                     cli_version, "protocol", WIRE_VERSION, "numerics", WIRE_NUMERICS, "host",
                     wire_text(host), "cpu", wire_text(t->cpu), "cores", t->cores, "threads",
                     t->threads, "numa_nodes", t->numa_nodes, "memory_bytes",
                     (json_int_t)t->memory_bytes, "devices", devices, "no_gpu_because",
                     has_gpu ? json_null() : wire_text(e.text));
}

static void print_place(const json_t *device)
{
    const char *pci = json_opt_str(device, "pci", NULL);
    const char *cores = json_opt_str(device, "cores", NULL);
    if (pci == NULL)
        return;
    printf("         PCI %s, ", pci);
    if (cores == NULL)
        printf("the machine does not tell which cores are near\n");
    else if (json_is_integer(json_object_get(device, "numa_node")))
        printf("NUMA node %d, cores %s\n", (int)json_opt_int(device, "numa_node", 0), cores);
    else
        printf("near cores %s of several NUMA nodes\n", cores);
}

static void print_machine(const json_t *m, const struct topo_info *t)
{
    char size[32];
    printf("%s, protocol %d, numerics %d, on %s\n", cli_version, WIRE_VERSION, WIRE_NUMERICS,
           json_opt_str(m, "host", "?"));
    printf("%s: %d cores, %d threads, %d NUMA node%s, %s\n", t->cpu, t->cores, t->threads,
           t->numa_nodes, t->numa_nodes == 1 ? "" : "s", fmt_bytes((double)t->memory_bytes, size));
    size_t i;
    json_t *d;
    json_array_foreach(json_object_get(m, "devices"), i, d)
    {
        printf("%-8s %s, %s:", json_opt_str(d, "name", "?"), json_opt_str(d, "device", "?"),
               fmt_bytes((double)json_opt_int(d, "memory_bytes", 0), size));
        size_t c;
        json_t *label;
        json_array_foreach(json_object_get(d, "computes"), c, label)
            printf(" %s", json_string_value(label));
        printf("\n");
        print_place(d);
        json_array_foreach(json_object_get(d, "notes"), c, label)
            printf("         %s\n", json_string_value(label));
    }
    if (json_opt_str(m, "no_gpu_because", NULL) != NULL)
        printf("no GPU: %s\n", json_opt_str(m, "no_gpu_because", ""));
}

static int run_probe(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct probe_opts *o = opts;
    struct topo_info t;
    struct err e;
    if (topo_describe(&t, &e) != ERR_OK)
        return cli_fail(&e);
    json_t *m = probe_machine(&t);
    if (o->json)
        cli_print_json(m, true);
    else
        print_machine(m, &t);
    json_decref(m);
    return 0;
}

const struct cli_cmd cmd_probe = {
    .name = "probe",
    .summary = "what this machine can compute with",
    .doc =
        "Prints cores, memory, devices with their compute precisions, and why there is no GPU when "
        "there is none.\n  isobit-worker probe --json",
    .opts = probe_opts,
    .n_opts = ARRAY_LEN(probe_opts),
    .opt_size = sizeof(struct probe_opts),
    .run = run_probe,
};

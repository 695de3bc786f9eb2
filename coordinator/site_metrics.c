/* /metrics: Prometheus' text format 0.0.4. Names and units follow its conventions (base units, _total for counters), process_* those of
 * its client libraries. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/io.h"
#include "coordinator/site_docs.h"

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and line end are escaped. */
static void add_label(struct buf *out, const char *name, const char *value, bool is_first)
{
    buf_printf(out, "%s%s=\"", is_first ? "{" : ",", name);
    for (const char *p = value != NULL ? value : ""; *p != '\0'; p++) {
        if (*p == '\n')
            buf_adds(out, "\\n");
        else if (*p == '\\' || *p == '"')
            buf_printf(out, "\\%c", *p);
        else
            buf_addc(out, *p);
    }
    buf_addc(out, '"');
}

/* A row of a query: label columns named by SQL, the value last. */
struct family {
    struct buf *out;
    const char *name;
};

static enum err_code add_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    const struct family *f = arg;
    int n = store_n_cols(row) - 1;
    buf_adds(f->out, f->name);
    for (int i = 0; i < n; i++)
        add_label(f->out, store_col_name(row, i), store_col_text(row, i), i == 0);
    buf_printf(f->out, "%s %.17g\n", n > 0 ? "}" : "", store_col_num(row, n));
    return ERR_OK;
}

static const struct {
    const char *name, *type, *help, *sql;
} families[] = {
    {"isobit_jobs", "gauge", "Jobs of a sweep by state.",
     "SELECT s.name AS sweep, t.state AS state, sum(t.n) FROM tally t "
     "JOIN sweep_set_member m ON m.set_id = t.set_id JOIN sweep s ON s.id = m.sweep_id "
     "GROUP BY s.name, t.state"},
    {"isobit_attempts_ended_total", "counter", "Attempts that ended without a result, by how.",
     "SELECT outcome, count(*) FROM attempt GROUP BY outcome"},
    {"isobit_results_total", "counter", "Results accepted from workers.",
     "SELECT ifnull(sum(done), 0) FROM worker"},
    {"isobit_workers", "gauge", "Workers ever seen, by state.",
     "SELECT state, count(*) FROM worker GROUP BY state"},
    {"isobit_worker_results_total", "counter", "Results accepted from a live worker.",
     "SELECT uuid AS worker, host, device, done FROM worker WHERE state = 'live'"},
    {"isobit_worker_failures_total", "counter",
     "Attempts of a live worker that counted against a job.",
     "SELECT uuid AS worker, host, device, failed FROM worker WHERE state = 'live'"},
};

static void add_gauge(struct buf *out, const char *name, const char *help, double value)
{
    head(out, name, "gauge", help);
    buf_printf(out, "%s %.17g\n", name, value);
}

static void add_live(struct buf *out, const struct site_live *live)
{
    int64_t size = io_file_size(live->db_path);
    head(out, "isobit_build_info", "gauge", "The program; always 1.");
    buf_adds(out, "isobit_build_info");
    add_label(out, "version", cli_version, true);
    buf_adds(out, "} 1\n");
    add_gauge(out, "isobit_jobs_per_second", "Jobs done a second over the last minute.",
              live->counts.jobs_per_s);
    if (live->counts.eta_s >= 0)
        add_gauge(out, "isobit_remaining_seconds", "Estimated time until nothing is pending.",
                  live->counts.eta_s);
    add_gauge(out, "isobit_draining", "1 while the coordinator waits for its workers to leave.",
              live->is_draining);
    add_gauge(out, "isobit_database_unwritable", "1 while the database cannot be written.",
              live->is_in_trouble);
    if (size >= 0)
        add_gauge(out, "isobit_database_bytes", "Size of the database file.", (double)size);
}

/* ---- this process, from /proc ---- */

struct process {
    double cpu_s, start_s, resident_bytes, virtual_bytes;
};

/* /proc/self/stat after the program's name, which may hold anything, and the state: field[0] is number 4 of proc(5). */
static bool read_process(struct process *p)
{
    static const double ticks_default = 100;
    char text[2048];
    double field[22] = {0}, boot_s = 0;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f != NULL ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f != NULL)
        fclose(f);
    text[n] = '\0';
    struct str rest = str_of(strrchr(text, ')')), word;
    if (rest.p == NULL || !str_next_field(&rest, ' ', &word) || !str_next_field(&rest, ' ', &word))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(field); i++)
        if (!str_next_field(&rest, ' ', &word) || !parse_f64(str_trim(word), &field[i]))
            return false;
    if ((f = fopen("/proc/stat", "re")) != NULL) {
        char line[512];
        while (fgets(line, sizeof(line), f) != NULL)
            if (strncmp(line, "btime ", 6) == 0 && !parse_f64(str_trim(str_of(line + 6)), &boot_s))
                boot_s = 0;
        fclose(f);
    }
    double ticks = (double)sysconf(_SC_CLK_TCK) > 0 ? (double)sysconf(_SC_CLK_TCK) : ticks_default;
    p->cpu_s = (field[10] + field[11]) / ticks;
    p->start_s = boot_s + field[18] / ticks;
    p->virtual_bytes = field[19];
    p->resident_bytes = field[20] * (double)sysconf(_SC_PAGESIZE);
    return true;
}

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        return -1;
    for (const struct dirent *entry = readdir(d); entry != NULL; entry = readdir(d))
        n += entry->d_name[0] != '.';
    closedir(d);
    return n - 1; /* the one that reads the folder */
}

static void add_process(struct buf *out)
{
    struct process p;
    int n_fds = count_fds();
    if (!read_process(&p))
        return;
    head(out, "process_cpu_seconds_total", "counter",
         "Total user and system CPU time spent in seconds.");
    buf_printf(out, "process_cpu_seconds_total %.17g\n", p.cpu_s);
    add_gauge(out, "process_start_time_seconds",
              "Start time of the process since unix epoch in seconds.", p.start_s);
    add_gauge(out, "process_resident_memory_bytes", "Resident memory size in bytes.",
              p.resident_bytes);
    add_gauge(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.",
              p.virtual_bytes);
    if (n_fds >= 0)
        add_gauge(out, "process_open_fds", "Number of open file descriptors.", n_fds);
}

enum err_code site_doc_metrics(struct store *s, const struct site_live *live, struct buf *out,
                               struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        struct family f = {out, families[i].name};
        head(out, families[i].name, families[i].type, families[i].help);
        TRY(store_query(s, families[i].sql, NULL, 0, add_row, &f, e));
    }
    add_live(out, live);
    add_process(out);
    return ERR_OK;
}

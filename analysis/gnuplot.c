#include "analysis/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "analysis/gnuplot_script.h"
#include "base/io.h"

extern char **environ;

static enum err_code write_part(const char *dir, const char *name, const char *suffix,
                                const struct buf *text, struct err *e)
{
    struct arena a = {0};
    enum err_code rc =
        io_write_file(arena_printf(&a, "%s/%s.%s", dir, name, suffix), text->data, text->len, e);
    arena_release(&a);
    return rc;
}

/* Runs gnuplot inside `dir`; its complaints go to NAME.log, which is kept only when there are any. */
static enum err_code run_gnuplot(const char *name, const char *dir, struct err *e)
{
    struct arena a = {0};
    char *script = arena_printf(&a, "%s.gp", name);
    char *log_path = arena_printf(&a, "%s/%s.log", dir, name);
    char *const argv[] = {(char *)"gnuplot", script, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_path,
                                     O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    pid_t pid = 0;
    int rc = posix_spawnp(&pid, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    enum err_code code = ERR_OK;
    int status = 0;
    if (rc != 0) {
        code =
            err_set(e, ERR_NOTFOUND, "gnuplot does not start (%s); install the package gnuplot-nox",
                    strerror(rc));
    } else if (waitpid(pid, &status, 0) != pid || status != 0) {
        struct buf log = {0};
        ERR_IGNORE(io_read_file(log_path, 1 << 20, &log, e));
        code = err_set(e, ERR_IO, "gnuplot failed on %s/%s: %s", dir, script,
                       log.data != NULL ? log.data : "");
        buf_release(&log);
    }
    if (code == ERR_OK || rc != 0)
        unlink(log_path);
    arena_release(&a);
    return code;
}

enum err_code gnuplot_draw(const struct figure *fig, const char *dir, struct err *e)
{
    TRY(io_make_dirs(dir, e));
    struct buf data = {0};
    struct buf script = {0};
    gnuplot_add_data(&data, fig);
    gnuplot_add_script(&script, fig);
    enum err_code rc = write_part(dir, fig->name, "dat", &data, e);
    if (rc == ERR_OK)
        rc = write_part(dir, fig->name, "gp", &script, e);
    if (rc == ERR_OK)
        rc = run_gnuplot(fig->name, dir, e);
    buf_release(&data);
    buf_release(&script);
    return rc;
}

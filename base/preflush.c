#include "base/preflush.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

enum preflush_state { PREFLUSH_IDLE, PREFLUSH_BUSY, PREFLUSH_LEAVE };

struct preflush {
    char *path;
    pthread_t thread;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    enum preflush_state state;
};

/* A table of its own with the file alone in it; -1 where that is not to be had. */
static int open_alone(const char *path)
{
    if (unshare(CLONE_FILES) != 0)
        return -1;
    /* Copies of other descriptors would keep alive what the process closes. */
    if (close_range(STDERR_FILENO + 1, ~0U, 0) != 0)
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void *run(void *arg)
{
    struct preflush *p = arg;
    int fd = open_alone(p->path);
    pthread_mutex_lock(&p->mutex);
    while (p->state != PREFLUSH_LEAVE) {
        if (p->state == PREFLUSH_BUSY) {
            pthread_mutex_unlock(&p->mutex);
            if (fd >= 0)
                (void)fdatasync(fd);
            pthread_mutex_lock(&p->mutex);
            if (p->state == PREFLUSH_BUSY)
                p->state = PREFLUSH_IDLE;
        } else {
            pthread_cond_wait(&p->changed, &p->mutex);
        }
    }
    pthread_mutex_unlock(&p->mutex);
    if (fd >= 0)
        close(fd);
    return NULL;
}

struct preflush *preflush_new(const char *path)
{
    struct preflush *p = xcalloc(1, sizeof(*p));
    sigset_t all, before;
    p->path = xstrdup(path);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    sigfillset(&all); /* signals are for the thread that reads them */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&p->thread, NULL, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return p;
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    xfree(p->path);
    xfree(p);
    return NULL;
}

static void set_state(struct preflush *p, enum preflush_state state)
{
    pthread_mutex_lock(&p->mutex);
    p->state = state;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}

void preflush_free(struct preflush *p)
{
    if (p == NULL)
        return;
    set_state(p, PREFLUSH_LEAVE);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    xfree(p->path);
    xfree(p);
}

void preflush_begin(struct preflush *p)
{
    set_state(p, PREFLUSH_BUSY);
}

bool preflush_is_over(struct preflush *p)
{
    pthread_mutex_lock(&p->mutex);
    bool is_over = p->state == PREFLUSH_IDLE;
    pthread_mutex_unlock(&p->mutex);
    return is_over;
}

/* The layers of a checkpoint that does not fit, or whose master stays on the host, step after step: a step's fp16 master (or its
 * weights as stored) comes from the files while the one before is worked on, and one compute copy is rewritten for each
 * configuration. A step is a layer, or one of its parts. Also the small tensors in front of and behind the layers, which
 * stay for a pass (docs/STREAMING.md). Private to worker/model. Thread: one at a time; a reader thread of its own lives between
 * window_begin and window_end. */
#ifndef ISOBIT_WORKER_MODEL_WINDOW_H
#define ISOBIT_WORKER_MODEL_WINDOW_H

#include "worker/model/model_impl.h"
#include "worker/model/plan.h"
#include "worker/model/window_fill.h"

struct window_reader; /* window_reader.c */

/* Where a role's buffer lies in its step, or among the small ones: elements. */
struct window_place {
    int cut; /* step within the layer */
    int64_t at;
};

struct window {
    const struct model *m; /* kept */
    struct plan plan;
    struct weight_view *view; /* kept; filled with what is there */
    struct window_place place[ROLE_COUNT];
    int n_cuts; /* steps of a layer */
    int64_t cut_elements[MODEL_PARTS];
    int64_t small_elements;
    /* Device memory. The block holds masters and compute copy; the head takes its place behind the layers. */
    char *block, *small;
    char *master[2], *compute;
    /* Where the reader puts a step: the masters themselves when the device is the host. */
    char *host[2];
    char *all; /* instead: all steps behind each other, kept on the host once they were read */
    int64_t n_kept, n_counted; /* steps in `all`; steps that bytes_read counts */
    struct window_fill fill;   /* how tensors are read, in the reader's thread and for tables */
    struct window_reader *reader;
    int64_t now;        /* step in the window; -1: none */
    int64_t n_queued;   /* steps whose copy to the device was begun */
    int64_t bytes_read; /* of stored tensors, since the window was opened */
};

/* Sizes of a model's buffers as a window holds them; part[] of plan_shape. */
void window_sizes(const struct model *m, int64_t part[MODEL_PARTS], int64_t *small);

MUST_USE enum err_code window_open(const struct model *m, const struct plan *p,
                                   struct weight_view *view, struct window *w, struct err *e);
void window_close(struct window *w);

/* Reads the small tensors, at their 16-bit or stored values in the compute copy. */
MUST_USE enum err_code window_small(struct window *w, struct err *e);
/* Starts a walk over all steps; the reader begins at once. */
MUST_USE enum err_code window_begin(struct window *w, struct err *e);
/* Puts the next step in place; nothing is in the compute copy then. Errors: those of reading; ERR_DEVICE. */
MUST_USE enum err_code window_next(struct window *w, struct err *e);
/* To be called now and then while a step is worked on: starts the copy of the next one once it was read. */
MUST_USE enum err_code window_poll(struct window *w, struct err *e);
void window_end(struct window *w);

int64_t window_steps(const struct window *w);
int window_layer(const struct window *w);
/* Parts [*first, return value) of the step in the window. */
int window_parts(const struct window *w, int *first);
bool window_holds(const struct window *w, enum role role);
/* The compute copy of the whole step, or of the small tensors, from the master. */
MUST_USE enum err_code window_cast(struct window *w, struct err *e);
MUST_USE enum err_code window_cast_small(struct window *w, struct err *e);
/* Master and compute copy of one tensor of the step or of the small ones. */
const uint16_t *window_master_of(const struct window *w, const struct weight_tensor *t);
void *window_compute_of(const struct window *w, const struct weight_tensor *t);

#endif

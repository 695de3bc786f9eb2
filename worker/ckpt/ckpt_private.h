/* Inside of struct ckpt, shared by ckpt.c (opening), ckpt_read.c (reading tensors) and ckpt_identity.c. Not for others. */
#ifndef ISOBIT_WORKER_CKPT_CKPT_PRIVATE_H
#define ISOBIT_WORKER_CKPT_CKPT_PRIVATE_H

#include "base/io.h"
#include "base/mem.h"
#include "worker/ckpt/ckpt.h"

struct ckpt_file {
    const char *name; /* within the directory */
    char *path;
    struct io_map map;
};

struct ckpt {
    char *dir;
    json_t *config;
    struct arena arena; /* names and tensor tables */
    struct ckpt_file *files;
    int n_files;
    struct ckpt_tensor *tensors; /* sorted by name */
    int n_tensors;
    char identity[SHA256_HEX];    /* empty until computed */
    struct ckpt_hashing *hashing; /* while it is being computed */
};

/* Before the files are unmapped. */
void ckpt_identity_stop(struct ckpt *c);

#endif

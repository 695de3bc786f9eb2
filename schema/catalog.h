/* What is known of models without opening their weights: the shapes of the paper's models (model.def), those of
 * any checkpoint's config.json, and what follows from shapes: parameter counts. The planner's estimates and the
 * tests of bit accounting stand on it; a worker counts the tensors it has loaded instead. Pure. */
#ifndef ISOBIT_SCHEMA_CATALOG_H
#define ISOBIT_SCHEMA_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

enum arch {
#define X(id, label, model_type) ARCH_##id,
#include "schema/family.def"
#undef X
    ARCH_COUNT
};
const char *arch_label(enum arch a);

struct model_shape {
    enum arch arch;
    int64_t layers, hidden, heads, ffn, vocab;
    int64_t ctx_tok;       /* BLOOM: the training length, no limit of the architecture */
    int64_t position_rows; /* learned positions; 0: rotary or ALiBi */
    int64_t embed;         /* width of the embeddings; other than hidden: projections in and out */
    bool has_final_norm;
    bool is_tied; /* the head is the embedding */
};

enum model_files { MODEL_FILES_SAFETENSORS, MODEL_FILES_PICKLE };

struct model_facts {
    const char *hub;    /* "facebook/opt-125m" */
    const char *family; /* labels of the paper's sweep */
    const char *size;
    struct model_shape shape;
    int weight_bytes; /* of one stored weight: 4 for GPT-2's fp32 files, else 2 */
    enum model_files files;
};

int catalog_size(void);
const struct model_facts *catalog_at(int i); /* in the order of model.def */
/* By hub id without revision; Pythia's -v0 and -deduped variants are found under the plain name. NULL: not listed. */
const struct model_facts *catalog_find(struct str hub);

/* Reads the shape from a checkpoint's config.json. Errors: ERR_UNSUPPORTED for another architecture, naming it;
 * ERR_FORMAT for a missing or absurd value. `what` names the file. */
MUST_USE enum err_code catalog_from_config(const json_t *config, const char *what,
                                           struct model_shape *out, struct err *e);

/* Every parameter once, tied tensors once (models spec, section 1). */
int64_t shape_n_params(const struct model_shape *s);
/* The weights a sweep quantizes: 12 hidden² a layer, and the projections around narrow embeddings. */
int64_t shape_n_linear(const struct model_shape *s);
/* Embeddings, and the head where it has weights of its own; without positions. */
int64_t shape_n_embed(const struct model_shape *s);

#endif

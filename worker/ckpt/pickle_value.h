/* Values of the pickle machine (pickle.c) and what the allowed globals make of them (pickle_torch.c). Not for
 * others. Values are owned by the reader's arena, which does not outlive it, and may be shared through the memo;
 * nothing walks them deeper than a fixed number of levels. */
#ifndef ISOBIT_WORKER_CKPT_PICKLE_VALUE_H
#define ISOBIT_WORKER_CKPT_PICKLE_VALUE_H

#include "worker/ckpt/pickle.h"

/* X(id, words for errors) */
#define PICKLE_KIND_LIST(X)                                                                        \
    X(NONE, "None")                                                                                \
    X(BOOL, "a bool")                                                                              \
    X(INT, "an int")                                                                               \
    X(REAL, "a float")                                                                             \
    X(TEXT, "a string")                                                                            \
    X(TUPLE, "a tuple")                                                                            \
    X(LIST, "a list")                                                                              \
    X(DICT, "a dict")                                                                              \
    X(GLOBAL, "a global")                                                                          \
    X(STORAGE, "a storage")                                                                        \
    X(TENSOR, "a tensor")

enum pickle_kind {
#define X(id, words) PICKLE_##id,
    PICKLE_KIND_LIST(X)
#undef X
};

enum pickle_role {
    PICKLE_ORDERED_DICT,
    PICKLE_REBUILD_TENSOR,
    PICKLE_REBUILD_PARAMETER,
    PICKLE_STORAGE_TYPE
};

struct pickle_global {
    const char *module, *name;
    enum pickle_role role;
    const char *type; /* of a storage, in safetensors' spelling */
};

struct pickle_value {
    enum pickle_kind kind;
    bool is_ordered; /* DICT made by collections.OrderedDict: may have attributes */
    union {
        int64_t number;  /* BOOL, INT */
        struct str text; /* TEXT; points into the pickle */
        struct {
            struct pickle_value **v; /* DICT: key, value, key, value, … */
            size_t n, cap;
        } items; /* TUPLE, LIST, DICT */
        const struct pickle_global *global;
        struct {
            const struct tensor_type *type;
            struct str key;
            int64_t count;
        } storage;
        struct pickle_tensor *tensor;
    };
};

const char *pickle_kind_words(enum pickle_kind kind);

/* Errors: ERR_UNSUPPORTED naming the global. */
MUST_USE enum err_code pickle_find_global(struct str module, struct str name,
                                          const struct pickle_global **out, struct err *e);

/* *out = the storage that a persistent id ("storage", type, key, location, elements) stands for. */
MUST_USE enum err_code pickle_make_storage(const struct pickle_value *id, struct pickle_value *out,
                                           struct err *e);

/* *out = what calling `global` with the tuple `args` gives. Tensors are owned by `a`. */
MUST_USE enum err_code pickle_call(const struct pickle_global *global,
                                   const struct pickle_value *args, struct arena *a,
                                   struct pickle_value *out, struct err *e);

/* The tensors of a finished pickle's value, owned by `a` with all they point to. */
MUST_USE enum err_code pickle_state_dict(const struct pickle_value *top, struct arena *a,
                                         struct pickle_tensor **out, size_t *n, struct err *e);

#endif

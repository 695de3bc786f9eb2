/* Where the Hugging Face tools keep downloaded models on this machine. Only looks: nothing is downloaded, but the
 * error says how to. Start-up of a job; any thread, as long as nobody changes the environment. */
#ifndef ISOBIT_SCHEMA_HUB_H
#define ISOBIT_SCHEMA_HUB_H

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

struct hub_id {
    const char *repo;     /* "org/name" */
    const char *revision; /* branch, tag or commit; NULL: the default one, "main" */
};

/* "org/name[@revision]"; the strings are owned by `a`. Errors: ERR_FORMAT. */
MUST_USE enum err_code hub_parse(struct str text, struct arena *a, struct hub_id *out,
                                 struct err *e);

/* *dir = the snapshot's directory; caller frees with xfree. Errors: ERR_NOTFOUND with the `hf download …` command;
 * ERR_FORMAT for an id or a ref file that would lead out of the cache. */
MUST_USE enum err_code hub_find(const struct hub_id *id, char **dir, struct err *e);

/* `hf download org/name --revision … PATTERNS`: what fetches exactly the files needed; owned by `a`. */
char *hub_fetch_command(const struct hub_id *id, struct arena *a);

/* Puts "…; fetch them with: hf download …" after the text of `e`: for a snapshot that lacks files. Returns
 * e->code. */
enum err_code hub_explain(const struct hub_id *id, struct err *e);

#endif

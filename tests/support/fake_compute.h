/* A compute child that computes nothing: speaks schema/PROTOCOL.md section 8 and answers every job with numbers made from
 * the job itself. Give a test program's own path to `isobit-worker run --compute-program` and call fake_compute_main first
 * thing in its main. Behaviour comes from the environment, which the worker hands down:
 *
 *   ISOBIT_FAKE_MS=N      a job takes N ms (default 0)
 *   ISOBIT_FAKE_CRASH=N   kills itself at every job whose id is a multiple of N
 *   ISOBIT_FAKE_FAIL=N    answers FAIL FORMAT there
 *   ISOBIT_FAKE_MISSING=N answers FAIL NOTFOUND there
 *   ISOBIT_FAKE_LACKS=W   and says that W is what it lacks
 *   ISOBIT_FAKE_HANG=N    never answers there
 *   ISOBIT_FAKE_DEVICE=N  its device is broken from there on: this process answers FAIL DEVICE to everything
 *   ISOBIT_FAKE_PASSES=1  jobs of a checkpoint run together, and a crash or hang of one comes before all results
 *   ISOBIT_FAKE_READ=1    reads the data file: answers FAIL NOTFOUND without it, and tells its SHA-256 */
#ifndef ISOBIT_TESTS_SUPPORT_FAKE_COMPUTE_H
#define ISOBIT_TESTS_SUPPORT_FAKE_COMPUTE_H

#include <stdbool.h>

#include "base/json.h"

/* True when this process was started as a compute child; then it has served its parent to the end. */
bool fake_compute_main(int argc, char **argv);
/* This program's own path, for --compute-program; static. */
const char *fake_compute_path(void);

/* The result it gives for the model, configuration and evaluation of a START. New reference. */
json_t *fake_compute_result(const json_t *model, const json_t *config, const json_t *eval);

#endif

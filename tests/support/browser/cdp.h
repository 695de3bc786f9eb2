/* A headless Chromium that we started, spoken to in its DevTools protocol over a pair of pipes (`--remote-debugging-pipe`): each
 * message is one JSON object ended by a NUL. No network port, no library. One page per browser.
 *
 *   us -> fd 3 of Chromium   {"id": 7, "sessionId": "…", "method": "Page.navigate", "params": {…}}
 *   us <- fd 4 of Chromium   {"id": 7, "result": {…}} or {"id": 7, "error": {…}} or an event {"method": "…", "params": {…}} */
#ifndef ISOBIT_TESTS_SUPPORT_BROWSER_CDP_H
#define ISOBIT_TESTS_SUPPORT_BROWSER_CDP_H

#include <stdint.h>
#include <sys/types.h>

#include "base/json.h"

struct cdp;

/* Hears every event of the page; may call cdp_call itself. */
typedef enum err_code (*cdp_event_fn)(void *arg, const char *method, const json_t *params,
                                      struct err *e);

/* Starts the browser with an empty page; everything must be over before deadline_ns (monotonic). Errors: ERR_NOTFOUND when there is no
 * Chromium ($ISOBIT_CHROMIUM, chromium, chromium-browser, google-chrome); ERR_IO, ERR_TIMEOUT. Caller closes. */
MUST_USE enum err_code cdp_open(int64_t deadline_ns, cdp_event_fn fn, void *arg, struct cdp **out,
                                struct err *e);
void cdp_close(struct cdp *c); /* NULL is fine; ends the browser and removes its profile */

/* Sends a command (takes over `params`, which may be NULL) and waits for its answer; events that come meanwhile are told first.
 * *result may be NULL; else the caller releases it. Errors: ERR_FORMAT with the browser's own words, ERR_IO, ERR_TIMEOUT. */
MUST_USE enum err_code cdp_call(struct cdp *c, const char *method, json_t *params, json_t **result,
                                struct err *e);

/* Waits until an event of this name has been told (once more than before the call). */
MUST_USE enum err_code cdp_wait(struct cdp *c, const char *method, struct err *e);

#endif

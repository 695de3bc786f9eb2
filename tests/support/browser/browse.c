/* Opens a page in headless Chromium and does to it what a person would: a test tool.
 *
 *   browse open [options] FILE.html|URL
 *     --script F.js       runs the script in the page (repeatable, in order); see prelude.js for what it can do
 *     --screenshot F.png  of the window, after the scripts
 *     --pdf F.pdf         the page printed, after the scripts
 *     --width N --height N   of the window (1280 x 900)
 *     --dark              as for a reader who prefers dark pages
 *     --out DIR           where scripts write files (.)
 *     --timeout S         for everything together (60)
 *     --offline           a request for anything but the page itself is a failure
 *
 * Prints what the scripts say, one line a check. Exit: 0 every check held; 1 a check failed, the script or the page threw an error; 2
 * wrong usage; 4 the browser failed; 77 there is no Chromium here (a CTest test counts as skipped). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/support/browser/cdp.h"
#include "tests/support/support.h"

enum { EXIT_SKIPPED = 77, MAX_SCRIPT = 1 << 20 };

struct browse_opts {
    struct cli_list scripts;
    const char *screenshot, *pdf, *out;
    int64_t width, height, timeout_s;
    bool is_dark, is_offline;
};

struct visit {
    const struct browse_opts *o;
    struct cdp *cdp;
    const char *url;
    int n_failures;
};

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

static void decode_base64(struct buf *out, const char *text)
{
    unsigned bits = 0;
    int n_bits = 0;
    for (; base64_value(*text) >= 0; text++) {
        bits = bits << 6 | (unsigned)base64_value(*text);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            buf_addc(out, (char)(bits >> n_bits & 0xff));
        }
    }
}

static enum err_code save_data(const char *path, const json_t *result, struct err *e)
{
    struct buf bytes = {.max = (size_t)256 << 20};
    decode_base64(&bytes, json_opt_str(result, "data", ""));
    enum err_code rc = io_write_file(path, bytes.data, bytes.len, e);
    buf_release(&bytes);
    return rc;
}

/* Evaluates `source`; a promise is waited for, an error in the page is one here. */
static enum err_code evaluate(struct visit *v, const char *source, json_t **result, struct err *e)
{
    json_t *answer = NULL;
    TRY(cdp_call(
        v->cdp, "Runtime.evaluate",
        json_pack("{s:s,s:b,s:b}", "expression", source, "awaitPromise", 1, "returnByValue", 1),
        &answer, e));
    enum err_code rc = ERR_OK;
    const json_t *error = json_object_get(answer, "exceptionDetails");
    if (error != NULL)
        rc = err_set(e, ERR_FORMAT, "%s (line %lld)",
                     json_opt_str(json_object_get(error, "exception"), "description",
                                  json_opt_str(error, "text", "error")),
                     (long long)json_opt_int(error, "lineNumber", 0));
    else if (result != NULL)
        *result = json_incref(json_object_get(json_object_get(answer, "result"), "value"));
    json_decref(answer);
    return rc;
}

/* The page asks for a command: {"id", "method", "params", "file"}; the answer goes to window.__browserAnswer. */
static enum err_code answer_page(struct visit *v, const char *payload, struct err *e)
{
    json_t *ask = NULL;
    TRY(json_parse(str_of(payload), "a request of the script", &ask, e));
    json_t *result = NULL;
    struct err failed;
    enum err_code rc = cdp_call(v->cdp, json_opt_str(ask, "method", ""),
                                json_incref(json_object_get(ask, "params")), &result, &failed);
    const char *file = json_opt_str(ask, "file", NULL);
    if (rc == ERR_OK && file != NULL) {
        char *path = io_join(v->o->out, file);
        rc = save_data(path, result, &failed);
        xfree(path);
    }
    json_t *args = json_pack("[i,o,o]", (int)json_opt_int(ask, "id", 0),
                             rc == ERR_OK && file == NULL ? json_incref(result) : json_null(),
                             rc == ERR_OK ? json_null() : json_string(failed.text));
    struct buf call = {0};
    buf_adds(&call, "window.__browserAnswer(...");
    json_append(&call, args, false);
    buf_adds(&call, ")");
    rc = evaluate(v, call.data, NULL, e);
    buf_release(&call);
    json_decref(args);
    json_decref(result);
    json_decref(ask);
    return rc;
}

static void fail(struct visit *v, const char *what, const char *text)
{
    printf("FAILED: %s: %s\n", what, text);
    v->n_failures++;
}

static enum err_code on_event(void *arg, const char *method, const json_t *params, struct err *e)
{
    struct visit *v = arg;
    if (strcmp(method, "Runtime.bindingCalled") == 0)
        return answer_page(v, json_opt_str(params, "payload", ""), e);
    if (strcmp(method, "Runtime.exceptionThrown") == 0) {
        const json_t *details = json_object_get(params, "exceptionDetails");
        fail(v, "the page threw",
             json_opt_str(json_object_get(details, "exception"), "description",
                          json_opt_str(details, "text", "")));
    } else if (strcmp(method, "Network.requestWillBeSent") == 0 && v->o->is_offline) {
        const char *url = json_opt_str(json_object_get(params, "request"), "url", "");
        if (strcmp(url, v->url) != 0 && strncmp(url, "data:", 5) != 0 &&
            strncmp(url, "blob:", 5) != 0)
            fail(v, "the page asked the network for", url);
    }
    return ERR_OK;
}

static enum err_code open_page(struct visit *v, struct err *e)
{
    static const char *const domains[] = {"Page.enable", "Runtime.enable", "Network.enable"};
    for (size_t i = 0; i < ARRAY_LEN(domains); i++)
        TRY(cdp_call(v->cdp, domains[i], NULL, NULL, e));
    TRY(cdp_call(v->cdp, "Runtime.addBinding", json_pack("{s:s}", "name", "__browserAsk"), NULL,
                 e));
    TRY(cdp_call(v->cdp, "Emulation.setDeviceMetricsOverride",
                 json_pack("{s:I,s:I,s:i,s:b}", "width", (json_int_t)v->o->width, "height",
                           (json_int_t)v->o->height, "deviceScaleFactor", 1, "mobile",
                           v->o->width < 600),
                 NULL, e));
    if (v->o->is_dark)
        TRY(cdp_call(v->cdp, "Emulation.setEmulatedMedia",
                     json_pack("{s:[{s:s,s:s}]}", "features", "name", "prefers-color-scheme",
                               "value", "dark"),
                     NULL, e));
    json_t *answer = NULL;
    TRY(cdp_call(v->cdp, "Page.navigate", json_pack("{s:s}", "url", v->url), &answer, e));
    const char *refused = json_opt_str(answer, "errorText", NULL);
    enum err_code rc = refused != NULL ? err_set(e, ERR_IO, "%s does not open: %s", v->url, refused)
                                       : cdp_wait(v->cdp, "Page.loadEventFired", e);
    json_decref(answer);
    return rc;
}

static enum err_code run_script(struct visit *v, const char *prelude, const char *path,
                                struct err *e)
{
    struct buf script = {0};
    struct buf source = {0};
    json_t *result = NULL;
    TRY(io_read_file(path, MAX_SCRIPT, &script, e));
    buf_adds(&source, "(async () => {");
    buf_adds(&source, prelude);
    buf_adds(&source, "\ntry {\n");
    buf_add(&source, script.data, script.len);
    buf_adds(&source, "\n} catch (error) { check(false, error.stack || error); }\n"
                      "return browser.result();})()");
    enum err_code rc = evaluate(v, source.data, &result, e);
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(result, "lines"), i, line)
        printf("%s\n", json_string_value(line));
    v->n_failures += (int)json_opt_int(result, "failures", 0);
    json_decref(result);
    buf_release(&source);
    buf_release(&script);
    return rc == ERR_OK ? ERR_OK : err_wrap(e, "%s", path);
}

static enum err_code run_scripts(struct visit *v, struct err *e)
{
    struct buf prelude = {0};
    TRY(io_read_file(support_source("tests/support/browser/prelude.js"), MAX_SCRIPT, &prelude, e));
    enum err_code rc = ERR_OK;
    for (int i = 0; rc == ERR_OK && i < v->o->scripts.n; i++)
        rc = run_script(v, prelude.data, v->o->scripts.v[i], e);
    buf_release(&prelude);
    return rc;
}

static enum err_code save(struct visit *v, const char *method, const char *params, const char *path,
                          struct err *e)
{
    json_t *options = NULL;
    json_t *result = NULL;
    TRY(json_parse(str_of(params), method, &options, e));
    TRY(cdp_call(v->cdp, method, options, &result, e));
    enum err_code rc = save_data(path, result, e);
    json_decref(result);
    return rc;
}

static enum err_code visit_page(struct visit *v, struct err *e)
{
    TRY(open_page(v, e));
    TRY(run_scripts(v, e));
    if (v->o->screenshot != NULL)
        TRY(save(v, "Page.captureScreenshot", "{\"format\":\"png\",\"captureBeyondViewport\":true}",
                 v->o->screenshot, e));
    if (v->o->pdf != NULL)
        TRY(save(v, "Page.printToPDF", "{\"printBackground\":true,\"preferCSSPageSize\":true}",
                 v->o->pdf, e));
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    const struct browse_opts *o = opts;
    char *path = io_absolute(args[0]);
    char *url = strstr(args[0], "://") != NULL ? xstrdup(args[0]) : xasprintf("file://%s", path);
    struct visit v = {.o = o, .url = url};
    struct err e;
    enum err_code rc =
        cdp_open(clock_mono_ns() + o->timeout_s * CLOCK_NS_PER_S, on_event, &v, &v.cdp, &e);
    int status = EXIT_SUCCESS;
    if (rc == ERR_NOTFOUND) {
        fprintf(stderr, "SKIPPED: no Chromium here (%s); install the package chromium\n", e.text);
        status = EXIT_SKIPPED;
    } else if (rc != ERR_OK || (rc = visit_page(&v, &e)) != ERR_OK) {
        status = rc == ERR_FORMAT ? EXIT_FAILURE : 4;
        fprintf(stderr, "browse: %s\n", e.text);
    } else {
        status = v.n_failures > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    cdp_close(v.cdp);
    xfree(url);
    xfree(path);
    return status;
}

#define OPTION(field, option, kind, placeholder, text, standard)                                   \
    {                                                                                              \
        .name = (option), .type = (kind), .arg = (placeholder), .help = (text), .def = (standard), \
        .min = 1, .max = (kind) == CLI_INT ? 100000 : 0,                                           \
        .offset = offsetof(struct browse_opts, field)                                              \
    }

static const struct cli_opt options[] = {
    OPTION(scripts, "script", CLI_LIST, "F.js", "run in the page, in order", NULL),
    OPTION(screenshot, "screenshot", CLI_STRING, "F.png", "picture of the window", NULL),
    OPTION(pdf, "pdf", CLI_STRING, "F.pdf", "the page printed", NULL),
    OPTION(out, "out", CLI_STRING, "DIR", "folder for files that scripts write", "."),
    OPTION(width, "width", CLI_INT, "PIXELS", "of the window", "1280"),
    OPTION(height, "height", CLI_INT, "PIXELS", "of the window", "900"),
    OPTION(timeout_s, "timeout", CLI_INT, "SECONDS", "for everything", "60"),
    OPTION(is_dark, "dark", CLI_FLAG, NULL, "the reader prefers dark pages", NULL),
    OPTION(is_offline, "offline", CLI_FLAG, NULL, "requests to the network are failures", NULL),
};

static const struct cli_cmd cmd_open = {
    .name = "open",
    .args = "FILE.html|URL",
    .summary = "Open a page, run scripts in it, take pictures.",
    .doc = "  browse open --script tests/browser/report.js --out /tmp report/index.html",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct browse_opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

int main(int argc, char **argv)
{
    static const struct cli_cmd *const cmds[] = {&cmd_open, NULL};
    static const struct cli_program program = {
        .name = "browse", .summary = "A page in headless Chromium, for tests.", .cmds = cmds};
    return cli_main(&program, argc, argv);
}

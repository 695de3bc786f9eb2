/* The tool that other tests look at pages with: it sees what is there, and a check, a script or a page that fails makes it fail. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/support.h"

enum { EXIT_SKIPPED = 77 };

static const char page[] =
    "<!doctype html><meta charset=utf-8><meta name=viewport "
    "content='width=device-width'><title>t</title><button id=b>press</button>"
    "<p id=h>far</p><input id=i><script>b.onclick = () => b.textContent = 'pressed';"
    "h.onmouseenter = () => h.textContent = 'near';</script>";

static const struct {
    const char *name, *page, *script, *said;
    int status;
} cases[] = {
    {"clicks, hovers, types", page,
     "await browser.click('#b'); check(b.textContent === 'pressed', 'pressed');"
     "await browser.hover('#h'); check(h.textContent === 'near', 'hovered');"
     "await browser.click('#i'); await browser.type('abc'); check(i.value === 'abc', 'typed');"
     "await browser.resize(390, 800); check(innerWidth === 390, 'narrow');"
     "await browser.media({dark: true});"
     "check(matchMedia('(prefers-color-scheme: dark)').matches, 'dark');"
     "await browser.screenshot('a.png'); await browser.pdf('a.pdf');",
     "ok: dark\n", 0},
    {"a check that fails", page, "check(1 > 2, 'one is more than two');", "FAILED: one is more", 1},
    {"a script that throws", page, "await browser.click('#absent');", "nothing matches #absent", 1},
    {"a script that is no JavaScript", page, "const const", "", 1},
    {"a page that throws", "<script>missing()</script>", "", "FAILED: the page threw", 1},
    {"a page that asks the network", "<img src='http://127.0.0.1:9/x.png'>", "",
     "FAILED: the page asked the network for: http://127.0.0.1:9/x.png", 1},
};

static bool is_written(const char *dir, const char *name, const char *magic)
{
    char *path = io_join(dir, name);
    struct buf file = {0};
    struct err e;
    bool is_right = io_read_file(path, 16 << 20, &file, &e) == ERR_OK && file.len > 500 &&
                    memcmp(file.data, magic, strlen(magic)) == 0;
    buf_release(&file);
    xfree(path);
    return is_right;
}

int main(void)
{
    char *dir = support_tmpdir();
    char *html = io_join(dir, "page.html");
    char *script = io_join(dir, "script.js");
    char *command =
        xasprintf("browse open --offline --timeout 300 --out %s --script %s %s", dir, script, html);
    int n_failed = 0;
    bool is_skipped = false;
    for (size_t i = 0; i < ARRAY_LEN(cases) && !is_skipped; i++) {
        support_write(html, cases[i].page, strlen(cases[i].page));
        support_write(script, cases[i].script, strlen(cases[i].script));
        struct support_run r = support_shell(command);
        is_skipped = r.status == EXIT_SKIPPED;
        bool is_right = r.status == cases[i].status && strstr(r.out.data, cases[i].said) != NULL;
        if (!is_skipped)
            printf("%s: %s\n", is_right ? "ok" : "FAILED", cases[i].name);
        if (!is_right)
            printf("status %d\n%s%s", r.status, r.out.data, r.err.data);
        n_failed += !is_right;
        support_run_release(&r);
    }
    if (!is_skipped &&
        (!is_written(dir, "a.png", "\x89PNG") || !is_written(dir, "a.pdf", "%PDF"))) {
        printf("FAILED: no picture or no PDF\n");
        n_failed++;
    }
    xfree(command);
    xfree(script);
    xfree(html);
    support_tmpdir_remove(dir);
    return is_skipped ? EXIT_SKIPPED : n_failed != 0;
}

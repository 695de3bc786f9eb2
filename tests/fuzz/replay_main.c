/* Runs a fuzz target over the files of the folders or files named on the command line, without a fuzzer: how corpora are
 * replayed in every build. A missing or empty corpus is a failure, so that a test that runs nothing cannot pass. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>

#include "base/io.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    struct buf b = {0};
    struct err e;
    if (io_read_file(path, (size_t)64 << 20, &b, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)b.data, b.len);
    buf_release(&b);
    return 1;
}

static int replay_folder(const char *path)
{
    int n = 0;
    DIR *d = opendir(path);
    for (struct dirent *f = d != NULL ? readdir(d) : NULL; f != NULL && n >= 0; f = readdir(d)) {
        if (f->d_name[0] == '.')
            continue;
        char *full = xasprintf("%s/%s", path, f->d_name);
        int r = replay_file(full);
        n = r < 0 ? -1 : n + r;
        xfree(full);
    }
    if (d != NULL)
        closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc && n >= 0; i++) {
        int r = io_is_dir(argv[i]) ? replay_folder(argv[i]) : replay_file(argv[i]);
        n = r < 0 ? -1 : n + r;
    }
    printf("%d inputs replayed\n", n);
    return n > 0 ? 0 : 1;
}

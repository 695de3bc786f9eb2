/* The files of coordinator/page/, put into the program at build time (cmake/EmbedPage.cmake). */
#ifndef ISOBIT_COORDINATOR_PAGE_H
#define ISOBIT_COORDINATOR_PAGE_H

#include <stddef.h>

struct page_file {
    const char *path; /* "/page.js"; index.html is "/" */
    const char *type;
    const unsigned char *data;
    size_t n;
};
extern const struct page_file page_files[]; /* ends with path NULL */

#endif

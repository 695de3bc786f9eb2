/* What of a text fits into a terminal. */
#include <criterion/criterion.h>
#include <string.h>

#include "coordinator/screen.h"

static void expect_fit(const char *text, int rows, int columns, const char *expected)
{
    struct buf out = {0};
    screen_fit((struct str){text, strlen(text)}, rows, columns, &out);
    cr_expect_eq(out.len, strlen(expected), "%s", text);
    cr_expect_arr_eq(out.data, expected, out.len, "%s", text);
    buf_release(&out);
}

Test(screen, rows_are_cut_and_cleared_to_their_ends)
{
    expect_fit("one\ntwo\nthree\n", 5, 80, "one\033[K\r\ntwo\033[K\r\nthree\033[K");
    expect_fit("one\ntwo\nthree\n", 2, 80, "one\033[K\r\ntwo\033[K");
    expect_fit("abcdef\n", 1, 4, "abcd\033[K");
    expect_fit("\nx\n", 2, 4, "\033[K\r\nx\033[K");
}

Test(screen, columns_are_characters_not_bytes)
{
    expect_fit("\xc3\xa4\xe2\x80\xa6z!\n", 1, 3, "\xc3\xa4\xe2\x80\xa6z\033[K");
    expect_fit("\xc3\xa4\xc3\xa4\n", 1, 1, "\xc3\xa4\033[K");
}

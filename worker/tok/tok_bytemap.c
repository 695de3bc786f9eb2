#include "worker/tok/tok_bytemap.h"

/* The 68 bytes without a printable form of their own: 0-32, 127-160, 173. */
enum { N_LOW = 33, MIDDLE = 127, N_MIDDLE = 34, SOFT_HYPHEN = 173, FIRST_MOVED = 0x100 };

int32_t bytemap_code_point(unsigned char byte)
{
    if (byte < N_LOW)
        return FIRST_MOVED + byte;
    if (byte >= MIDDLE && byte < MIDDLE + N_MIDDLE)
        return FIRST_MOVED + N_LOW + (byte - MIDDLE);
    if (byte == SOFT_HYPHEN)
        return FIRST_MOVED + N_LOW + N_MIDDLE;
    return byte;
}

int bytemap_byte(int32_t code_point)
{
    if (code_point < 0 || code_point > FIRST_MOVED + N_LOW + N_MIDDLE)
        return -1;
    if (code_point < FIRST_MOVED)
        return bytemap_code_point((unsigned char)code_point) == code_point ? code_point : -1;
    int i = code_point - FIRST_MOVED;
    if (i < N_LOW)
        return i;
    return i < N_LOW + N_MIDDLE ? MIDDLE + (i - N_LOW) : SOFT_HYPHEN;
}

size_t bytemap_encode(struct str in, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        int32_t cp = bytemap_code_point((unsigned char)in.p[i]);
        if (cp >= 0x80)
            out[n++] = (char)(0xC0 | (cp >> 6));
        out[n++] = (char)(cp >= 0x80 ? 0x80 | (cp & 0x3F) : cp);
    }
    return n;
}

bool bytemap_decode(struct str in, char *out, size_t *n_out)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        int32_t cp = (unsigned char)in.p[i];
        if (cp >= 0x80) { /* the alphabet ends at U+0143: two bytes at most */
            if ((cp & 0xE0) != 0xC0 || i + 1 == in.n)
                return false;
            cp = ((cp & 0x1F) << 6) | ((unsigned char)in.p[++i] & 0x3F);
        }
        int byte = bytemap_byte(cp);
        if (byte < 0)
            return false;
        out[n++] = (char)byte;
    }
    *n_out = n;
    return true;
}

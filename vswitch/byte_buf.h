/* byte_buf: bytes at the end of a buffer that grows, for writers of records.
 *
 * Ownership: 'data' is malloc'ed, the user's to free or to hand on. */
#ifndef BYTE_BUF_H
#define BYTE_BUF_H

#include <stdint.h>
#include <string.h>

#include "util.h"

struct byte_buf {
    uint8_t *data;
    size_t len, allocated;
};

/* 'n' more bytes, zero; valid until the next call. */
static inline uint8_t *
byte_buf_put(struct byte_buf *b, size_t n)
{
    uint8_t *p;

    if (b->allocated - b->len < n) {
        b->allocated = MAX(b->allocated * 2, b->len + n + 4096);
        b->data = xrealloc(b->data, b->allocated);
    }
    p = b->data + b->len;
    memset(p, 0, n);
    b->len += n;
    return p;
}

#endif

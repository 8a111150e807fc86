/* cursor: what is left of some bytes from outside.
 *
 * Taking more than there is gives NULL, and so does all taking after that: a
 * parser may look at the end only.  The bytes are the caller's and must not
 * change meanwhile (guests' pages are copied first). */
#ifndef CURSOR_H
#define CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
    const uint8_t *p;
    size_t left;
    bool failed;
};

static inline struct cursor
cursor_on(const uint8_t *p, size_t len)
{
    return (struct cursor){.p = p, .left = len};
}

static inline const uint8_t *
cursor_take(struct cursor *c, size_t n)
{
    const uint8_t *p = c->p;

    if (c->failed || n > c->left) {
        c->failed = true;
        return NULL;
    }
    c->p += n;
    c->left -= n;
    return p;
}

/* Takes 'n' bytes and what pads them to a multiple of 'align' (a power of two),
 * which must be 0. */
static inline const uint8_t *
cursor_take_padded(struct cursor *c, size_t n, size_t align)
{
    const uint8_t *p = cursor_take(c, n), *zeros = cursor_take(c, -n & (align - 1));
    uint8_t any = 0;

    for (size_t i = 0; zeros && i < (-n & (align - 1)); i++) {
        any |= zeros[i];
    }
    c->failed |= any;
    return c->failed ? NULL : p;
}

#endif

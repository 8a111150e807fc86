/* wire: numbers in network order, and bytes that wait to be sent or understood.
 *
 * Threads: none of this locks. */
#ifndef PERF_WIRE_H
#define PERF_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint16_t
get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static inline uint32_t
get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline uint64_t
get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static inline void
put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static inline void
put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static inline void
put64(uint8_t *p, uint64_t v)
{
    put32(p, v >> 32);
    put32(p + 4, v);
}

struct bytes {
    uint8_t *p;
    size_t start, end, size; /* what is in use: p[start..end) */
};

static inline void *
must(void *p)
{
    if (!p) {
        perror("out of memory");
        exit(1);
    }
    return p;
}

/* Room for 'n' bytes at the end. */
static inline uint8_t *
bytes_room(struct bytes *b, size_t n)
{
    if (b->start == b->end) {
        b->start = b->end = 0;
    }
    if (b->end + n > b->size) {
        memmove(b->p, b->p + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->end + n > b->size) {
            b->size = 2 * (b->end + n);
            b->p = must(realloc(b->p, b->size));
        }
    }
    return b->p + b->end;
}

static inline uint8_t *
bytes_put(struct bytes *b, size_t n)
{
    uint8_t *p = bytes_room(b, n);

    memset(p, 0, n);
    b->end += n;
    return p;
}

static inline void
bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

#endif

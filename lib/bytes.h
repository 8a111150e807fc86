/* bytes: numbers in a byte order of their own, anywhere in memory. */
#ifndef BYTES_H
#define BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_ACCESS(ORDER, BITS)                                                                  \
    static inline uint##BITS##_t get_##ORDER##BITS(const uint8_t *p)                               \
    {                                                                                              \
        uint##BITS##_t v;                                                                          \
                                                                                                   \
        memcpy(&v, p, sizeof v);                                                                   \
        return ORDER##BITS##toh(v);                                                                \
    }                                                                                              \
                                                                                                   \
    static inline void put_##ORDER##BITS(uint8_t *p, uint##BITS##_t v)                             \
    {                                                                                              \
        v = hto##ORDER##BITS(v);                                                                   \
        memcpy(p, &v, sizeof v);                                                                   \
    }

BYTES_ACCESS(be, 16)
BYTES_ACCESS(be, 32)
BYTES_ACCESS(le, 16)
BYTES_ACCESS(le, 32)
BYTES_ACCESS(le, 64)

#undef BYTES_ACCESS

#endif

/* fold_hash: a hash of bytes for tables in memory.
 *
 * hash_bytes() of libopenvswitch takes four bytes at a time, each step of it waiting for the
 * one before: of a flow's 70 bytes that is as long as it takes to encode them.  This one
 * multiplies 16 bytes at a time into 128 bits and folds them, as wyhash does
 * (https://github.com/wangyi-fudan/wyhash).  Its values differ between machines of different
 * byte order, and are for no file and no wire.
 *
 * Threads: none of its own. */
#ifndef CTL_FOLD_HASH_H
#define CTL_FOLD_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
fold_hash_mul(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* 'n' bytes, at most 8. */
static inline uint64_t
fold_hash_read(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    memcpy(&v, p, n);
    return v;
}

static inline uint32_t
fold_hash(const void *bytes, size_t n, uint64_t basis)
{
    const uint64_t k0 = UINT64_C(0xa0761d6478bd642f), k1 = UINT64_C(0xe7037ed1a0b428db);
    const uint8_t *p = bytes;
    uint64_t h = fold_hash_mul(basis ^ k0, n ^ k1), a = 0, b = 0;

    for (; n > 16; n -= 16, p += 16) {
        h = fold_hash_mul(fold_hash_read(p, 8) ^ k0, fold_hash_read(p + 8, 8) ^ h);
    }
    /* What is left, the middle of it twice. */
    if (n >= 8) {
        a = fold_hash_read(p, 8);
        b = fold_hash_read(p + n - 8, 8);
    } else if (n >= 4) {
        a = fold_hash_read(p, 4);
        b = fold_hash_read(p + n - 4, 4);
    } else if (n) {
        a = p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16;
    }
    h = fold_hash_mul(a ^ k1, b ^ h);
    h = fold_hash_mul(h ^ k0, k1);
    return (uint32_t)(h ^ h >> 32);
}

#endif

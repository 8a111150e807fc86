#include "flow_block.h"

#include <errno.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* --- writing --------------------------------------------------------------------- */

#define GATHER(TYPE)                                                                               \
    for (size_t i = 0; i < n; i++) {                                                               \
        TYPE v;                                                                                    \
        memcpy(&v, (const uint8_t *)rows[i] + at, sizeof v);                                       \
        to[i] = (int64_t)v;                                                                        \
    }

static void
gather_address(const struct flow_row *const *rows, size_t n, size_t at, int64_t *to)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, (const uint8_t *)rows[i] + at, sizeof v);
        to[i] = (int64_t)be64toh(v);
    }
}

static void
gather_mac(const struct flow_row *const *rows, size_t n, size_t at, int64_t *to)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = (const uint8_t *)rows[i] + at;
        to[i] = (int64_t)((uint64_t)get_be16(p) << 32 | get_be32(p + 2));
    }
}

/* A number of each row; as flow_row_get() has it. */
static void
gather(const struct flow_row *const *rows, size_t n, const struct flow_column *c, int64_t *to)
{
    size_t at = c->offset;

    if (c->kind == FLOW_COL_MAC) {
        gather_mac(rows, n, at, to);
        return;
    }
    switch (c->size) {
    case 1:
        GATHER(uint8_t);
        break;
    case 2:
        GATHER(uint16_t);
        break;
    case 4:
        GATHER(uint32_t);
        break;
    default:
        GATHER(int64_t);
        for (size_t i = 0; c->kind == FLOW_COL_UINT && i < n; i++) {
            to[i] = to[i] < 0 ? INT64_MAX : to[i];
        }
    }
}

static unsigned
bytes_of(uint64_t v)
{
    return v ? (71 - (unsigned)__builtin_clzll(v)) / 8 : 0;
}

/* Of a signed number. */
static unsigned
base_bytes(int64_t v)
{
    return v ? bytes_of((uint64_t)(v < 0 ? ~v : v) << 1 | 1) : 0;
}

void
flow_block_begin(struct flow_block_writer *w, size_t n, uint8_t to[FLOW_BLOCK_BYTES])
{
    put_le16(to, (uint16_t)(FLOW_BLOCK_CHECKED | n));
    *w = (struct flow_block_writer){to, to + 2, n};
}

/* The values of a part: of all rows, or the one that all have. */
static void
put_column(struct flow_block_writer *w, unsigned part, const int64_t *v, size_t n)
{
    int64_t least = v[0], most = v[0];
    uint8_t *to = w->next;
    unsigned base, width;

    for (size_t i = 1; i < n; i++) {
        least = v[i] < least ? v[i] : least;
        most = v[i] > most ? v[i] : most;
    }
    if (!least && !most) {
        return;
    }
    base = base_bytes(least);
    width = bytes_of((uint64_t)most - (uint64_t)least);
    *to++ = (uint8_t)part;
    *to++ = (uint8_t)(base << 4 | width);
    put_le64(to, (uint64_t)least);
    to += base;
    if (width) {
        for (size_t i = 0; i < w->n; i++, to += width) {
            put_le64(to, (uint64_t)v[i] - (uint64_t)least);
        }
    }
    w->next = to;
}

void
flow_block_put(struct flow_block_writer *w, unsigned part, const int64_t *v)
{
    put_column(w, part, v, w->n);
}

size_t
flow_block_end(struct flow_block_writer *w)
{
    size_t len = (size_t)(w->next - w->to);

    put_le64(w->next, XXH3_64bits(w->to, len));
    return len + 8;
}

/* The bits in which the rows differ, as words of a row. */
union differences {
    uint64_t words[sizeof(struct flow_row) / sizeof(uint64_t)];
    uint8_t bytes[sizeof(struct flow_row)];
};
_Static_assert(sizeof(union differences) == sizeof(struct flow_row), "whole words");

static void
find_differences(const struct flow_row *const *rows, size_t n, union differences *d)
{
    enum { WORDS = sizeof d->words / sizeof d->words[0] };
    uint64_t first[WORDS];

    memset(d, 0, sizeof *d);
    memcpy(first, rows[0], sizeof first);
    for (size_t i = 1; i < n; i++) {
        const uint8_t *row = (const uint8_t *)rows[i];

        for (size_t w = 0; w < WORDS; w++) {
            uint64_t word;
            memcpy(&word, row + w * sizeof word, sizeof word);
            d->words[w] |= word ^ first[w];
        }
    }
}

static bool
differs(const union differences *d, size_t at, size_t size)
{
    uint8_t any = 0;

    for (size_t i = at; i < at + size; i++) {
        any |= d->bytes[i];
    }
    return any;
}

/* How many rows' values are to be gathered: of a column that is the same in all of
 * them, as most are, one. */
static size_t
to_gather(const union differences *d, size_t n, size_t at, size_t size)
{
    return differs(d, at, size) ? n : 1;
}

size_t
flow_block_encode(const struct flow_row *const *rows, size_t n, uint8_t to[FLOW_BLOCK_BYTES])
{
    struct flow_block_writer w;
    union differences d;
    int64_t v[FLOW_BLOCK_ROWS];

    find_differences(rows, n, &d);
    flow_block_begin(&w, n, to);
    v[0] = (int64_t)rows[0]->time_ms;
    for (size_t i = 1; i < n; i++) {
        v[i] = (int64_t)rows[i]->time_ms;
    }
    flow_block_put(&w, 0, v);
    for (unsigned c = 0; c < n_flow_columns; c++) {
        const struct flow_column *column = &flow_columns[c];
        size_t at = column->offset, k;

        if (column->kind == FLOW_COL_ADDRESS) {
            for (unsigned half = 0; half < 2; half++, at += sizeof *v) {
                k = to_gather(&d, n, at, sizeof *v);
                gather_address(rows, k, at, v);
                put_column(&w, flow_block_of(c) + half, v, k);
            }
        } else {
            k = to_gather(&d, n, at, column->size);
            gather(rows, k, column, v);
            put_column(&w, flow_block_of(c), v, k);
        }
    }
    return flow_block_end(&w);
}

/* --- reading ----------------------------------------------------------------------- */

static const uint8_t zero[8];

/* Takes a part from the bytes that are left; false: it is none. */
static bool
open_part(struct flow_block *b, const uint8_t **bytes, size_t *left)
{
    const uint8_t *p = *bytes;
    unsigned base = p[1] >> 4, width = p[1] & 15;
    size_t len = 2 + base + (size_t)b->n * width;
    struct flow_block_part *part;

    if (p[0] >= FLOW_BLOCK_PARTS || base > 8 || width > 8 || *left < len + 8) {
        return false;
    }
    part = &b->part[p[0]];
    part->base = base ? get_le64(p + 2) << (64 - 8 * base) : 0;
    part->base = base ? (uint64_t)((int64_t)part->base >> (64 - 8 * base)) : 0;
    part->mask = width ? UINT64_MAX >> (64 - 8 * width) : 0;
    part->width = width;
    part->at = width ? p + 2 + base : zero;
    *bytes += len;
    *left -= len;
    return true;
}

int
flow_block_open(struct flow_block *b, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    uint64_t check;

    if (len < 10) {
        return EPROTO;
    }
    b->n = get_le16(p) & ~(unsigned)FLOW_BLOCK_CHECKED;
    check = get_le16(p) & FLOW_BLOCK_CHECKED ? XXH3_64bits(p, len - 8) : 0;
    if (!b->n || b->n > FLOW_BLOCK_ROWS || get_le64(p + len - 8) != check) {
        return EPROTO;
    }
    for (unsigned i = 0; i < FLOW_BLOCK_PARTS; i++) {
        b->part[i] = (struct flow_block_part){.at = zero};
    }
    p += 2;
    len -= 2;
    while (len >= 10) {
        if (!open_part(b, &p, &len)) {
            return EPROTO;
        }
    }
    return len == 8 ? 0 : EPROTO;
}

void
flow_block_get(const struct flow_block *b, unsigned column, unsigned i, struct flow_value *v)
{
    unsigned part = flow_block_of(column);

    if (flow_columns[column].kind == FLOW_COL_ADDRESS) {
        uint64_t half[2] = {htobe64((uint64_t)flow_block_number(b, part, i)),
                            htobe64((uint64_t)flow_block_number(b, part + 1, i))};
        v->number = 0;
        memcpy(&v->address, half, sizeof v->address);
    } else {
        memset(&v->address, 0, sizeof v->address);
        v->number = flow_block_number(b, part, i);
    }
}

void
flow_block_row(const struct flow_block *b, unsigned i, struct flow_row *row)
{
    memset(row, 0, sizeof *row);
    row->time_ms = (uint64_t)flow_block_time(b, i);
    for (unsigned c = 0; c < n_flow_columns; c++) {
        struct flow_value v;

        flow_block_get(b, c, i, &v);
        flow_row_set(row, c, &v);
    }
}

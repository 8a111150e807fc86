/* flow_block: many flow rows as one string of bytes, column by column.
 *
 * A column's values are its least one and how far each is from that, in as many
 * bytes as the farthest needs; a column that is 0 in all rows takes none.  Any
 * value can be read without reading the others.
 *
 *     rows(16) { part(8) shape(8) base(0..8 bytes) rows * width bytes }* check(64)
 *
 * 'rows' has FLOW_BLOCK_CHECKED set; 'check' is the XXH3 of all before it, so that
 * what a disk has changed is not taken for rows.  Blocks of before there were checks
 * have neither: their last 8 bytes are 0.
 *
 * All little endian; 'shape' is the bytes of the base (signed) << 4 | the width.
 * Part 0 is the row's time; column c of flow_columns is part 1 + 2c, addresses
 * (two numbers, as on the wire) are 2 + 2c as well: so the order of flow_columns
 * is part of the format, and new ones go to its end.  The last part is of sums:
 * of how many rows one is.
 *
 * Plain data; a struct flow_block points into the bytes that it was opened on. */
#ifndef FLOW_BLOCK_H
#define FLOW_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "flow_row.h"

enum {
    FLOW_BLOCK_ROWS = 1024,
    FLOW_BLOCK_CHECKED = 1 << 15,
    FLOW_BLOCK_FLOWS = 1 + 2 * FLOW_COLUMNS_MAX, /* part */
    FLOW_BLOCK_PARTS,
    FLOW_BLOCK_BYTES = 2 + FLOW_BLOCK_PARTS * (10 + 8 * FLOW_BLOCK_ROWS) + 8, /* at most */
};

struct flow_block {
    unsigned n; /* rows */
    struct flow_block_part {
        const uint8_t *at; /* the first row's distance; 8 bytes can be read at each */
        uint64_t base, mask;
        size_t width;
    } part[FLOW_BLOCK_PARTS];
};

/* 1 to FLOW_BLOCK_ROWS rows; the length. */
size_t flow_block_encode(const struct flow_row *const *, size_t n, uint8_t to[FLOW_BLOCK_BYTES]);
/* The same part by part: of each at most one, not 'n' = 0. */
struct flow_block_writer {
    uint8_t *to, *next;
    size_t n; /* rows */
};
void flow_block_begin(struct flow_block_writer *, size_t n, uint8_t to[FLOW_BLOCK_BYTES]);
void flow_block_put(struct flow_block_writer *, unsigned part, const int64_t *v);
size_t flow_block_end(struct flow_block_writer *);
/* The bytes may be anything: EPROTO. */
int flow_block_open(struct flow_block *, const void *bytes, size_t len);
/* Those of row 'i' < n; what flow_row_get() says of the row. */
void flow_block_get(const struct flow_block *, unsigned column, unsigned i, struct flow_value *);
void flow_block_row(const struct flow_block *, unsigned i, struct flow_row *);

/* Of a part: column's (or the upper half of an address) is flow_block_of(column). */
static inline unsigned
flow_block_of(unsigned column)
{
    return 1 + 2 * column;
}

static inline int64_t
flow_block_number(const struct flow_block *b, unsigned part, unsigned i)
{
    const struct flow_block_part *p = &b->part[part];

    return (int64_t)(p->base + (get_le64(p->at + i * p->width) & p->mask));
}

static inline int64_t
flow_block_time(const struct flow_block *b, unsigned i)
{
    return flow_block_number(b, 0, i);
}

#endif

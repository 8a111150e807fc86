/* Blocks of flow rows: any bytes are refused, or are rows that can be read and
 * that come out the same when they are written again; and what was written is
 * refused once a bit of it is another.  Inputs are tried as they are and as blocks
 * without a check, whose insides no check keeps from being read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "flow_block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct flow_row rows[FLOW_BLOCK_ROWS];
static uint8_t again[FLOW_BLOCK_BYTES];

static void
try(const uint8_t *copy, size_t size)
{
    const struct flow_row *pointers[FLOW_BLOCK_ROWS];
    struct flow_block b, b2;
    size_t len;

    if (!flow_block_open(&b, copy, size)) {
        for (unsigned i = 0; i < b.n; i++) {
            flow_block_row(&b, i, &rows[i]);
            pointers[i] = &rows[i];
        }
        len = flow_block_encode(pointers, b.n, again);
        if (len > sizeof again || flow_block_open(&b2, again, len) || b2.n != b.n) {
            abort();
        }
        for (unsigned i = 0; i < b.n; i++) {
            struct flow_row row;

            flow_block_row(&b2, i, &row);
            for (unsigned c = 0; c < n_flow_columns; c++) {
                struct flow_value v, w;

                flow_row_get(&rows[i], c, &v);
                flow_row_get(&row, c, &w);
                if (v.number != w.number || memcmp(&v.address, &w.address, sizeof v.address)) {
                    abort();
                }
            }
        }
        again[size % len] ^= (uint8_t)(1 << copy[0] % 8);
        if (!flow_block_open(&b2, again, len)) {
            abort();
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* of its size: what reads beyond is caught */

    memcpy(copy, data, size);
    try(copy, size);
    if (size >= 10) {
        copy[1] &= 0x7f;
        memset(copy + size - 8, 0, 8);
        try(copy, size);
    }
    free(copy);
    return 0;
}

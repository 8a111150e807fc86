/* Blocks of flow rows: what goes in comes out, whatever its size; what was cut or
 * changed is refused, or without a check refused or read, but not beyond its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "flow_block.h"

static struct flow_row rows[FLOW_BLOCK_ROWS];
static uint8_t bytes[FLOW_BLOCK_BYTES];
static uint64_t state = 88172645463325252u;

static uint64_t
random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t
encode(size_t n)
{
    const struct flow_row *of[FLOW_BLOCK_ROWS];

    for (size_t i = 0; i < n; i++) {
        of[i] = &rows[i];
    }
    return flow_block_encode(of, n, bytes);
}

/* Whether row 'i' of the block is rows[i], by each way of reading. */
static bool
same(const struct flow_block *b, unsigned i)
{
    struct flow_row back;
    bool ok = flow_block_time(b, i) == (int64_t)rows[i].time_ms;

    flow_block_row(b, i, &back);
    ok &= back.time_ms == rows[i].time_ms;
    for (unsigned c = 0; c < n_flow_columns; c++) {
        struct flow_value was, is, got;

        flow_row_get(&rows[i], c, &was);
        flow_row_get(&back, c, &is);
        flow_block_get(b, c, i, &got);
        ok &= was.number == is.number && was.number == got.number &&
              !memcmp(&was.address, &is.address, sizeof was.address) &&
              !memcmp(&was.address, &got.address, sizeof was.address);
    }
    return ok;
}

static bool
round_trip(size_t n, size_t *len)
{
    struct flow_block *b = malloc(sizeof *b);
    uint8_t *copy;
    bool ok;

    *len = encode(n);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    ok = *len <= sizeof bytes && !flow_block_open(b, copy, *len) && b->n == n;
    for (unsigned i = 0; i < n && ok; i++) {
        ok = same(b, i);
    }
    free(copy);
    free(b);
    return ok;
}

static void
test_round_trip(void)
{
    size_t len;

    CASE("rows of nothing take nothing");
    memset(rows, 0, sizeof rows);
    CHECK(round_trip(FLOW_BLOCK_ROWS, &len) && len == 10);
    CHECK(round_trip(1, &len) && len == 10);

    CASE("rows of any bits come out as they went in");
    for (int round = 0; round < 12; round++) {
        size_t n = round < 4 ? (size_t)round + 1 : FLOW_BLOCK_ROWS;
        for (size_t i = 0; i < sizeof rows / 8; i++) {
            ((uint64_t *)rows)[i] = random64() & random64();
        }
        CHECK(round_trip(n, &len));
    }

    CASE("columns of each width, from each base");
    for (unsigned width = 0; width <= 64; width++) {
        memset(rows, 0, sizeof rows);
        for (unsigned i = 0; i < 100; i++) {
            uint64_t v = width ? random64() >> (64 - width) : 0;
            rows[i].time_ms = 1795300000000u + (v >> 24);
            rows[i].network = (int64_t)(v - (UINT64_C(1) << width % 64));
            rows[i].src.vif = width % 2 ? INT64_MIN + (int64_t)(v >> 1) : INT64_MAX;
            rows[i].r.bytes = v;
            rows[i].r.in_if = (uint32_t)v;
            memcpy(rows[i].r.src_mac, &v, 6);
            memcpy(rows[i].r.src.s6_addr + width % 9, &v, 8);
        }
        CHECK(round_trip(100, &len));
    }
}

static void
test_size(void)
{
    size_t len;

    CASE("rows of one router are small");
    memset(rows, 0, sizeof rows);
    for (unsigned i = 0; i < FLOW_BLOCK_ROWS; i++) {
        struct flow_record *r = &rows[i].r;
        memset(r->src.s6_addr + 10, 0xff, 2);
        memset(r->dst.s6_addr + 10, 0xff, 2);
        r->src.s6_addr32[3] = htobe32(0x0a000000 + random64() % 65536);
        r->dst.s6_addr32[3] = htobe32(0x0a010000 + random64() % 65536);
        r->sport = (uint16_t)random64();
        r->dport = 443;
        r->packets = random64() % 1000;
        r->bytes = random64() % 1000000;
        r->end_ms = rows[i].time_ms = 1795300000000u + random64() % 60000;
        r->start_ms = r->end_ms - 1000;
        r->proto = 6;
    }
    CHECK(round_trip(FLOW_BLOCK_ROWS, &len) && len < 24 * FLOW_BLOCK_ROWS);
}

static int
open_copy(size_t len, const uint8_t *from)
{
    struct flow_block *b = malloc(sizeof *b);
    uint8_t *copy = malloc(len + !len); /* of its size: what reads beyond is caught */
    int error;

    memcpy(copy, from, len);
    error = flow_block_open(b, copy, len);
    for (unsigned i = 0; !error && i < b->n; i++) {
        struct flow_row row;
        flow_block_row(b, i, &row);
    }
    free(copy);
    free(b);
    return error;
}

/* As blocks were written before they had checks. */
static void
uncheck(size_t len, uint8_t *block)
{
    block[1] &= 0x7f;
    put_le64(block + len - 8, 0);
}

static void
test_hostile(void)
{
    static uint8_t changed[FLOW_BLOCK_BYTES];
    size_t len, refused = 0;

    CASE("a block that was cut is refused");
    for (size_t i = 0; i < sizeof rows / 8; i++) {
        ((uint64_t *)rows)[i] = random64();
    }
    len = encode(3);
    CHECK(open_copy(len, bytes) == 0);
    for (size_t n = 0; n < len; n++) {
        CHECK(open_copy(n, bytes) == EPROTO);
    }
    memcpy(changed, bytes, len);
    changed[len] = 0;
    CHECK(open_copy(len + 1, changed) == EPROTO);

    CASE("a block of which any bit was changed is refused");
    for (size_t bit = 0; bit < 8 * len; bit++) {
        memcpy(changed, bytes, len);
        changed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(open_copy(len, changed) == EPROTO);
    }
    for (int i = 0; i < 20000; i++) {
        memcpy(changed, bytes, len);
        changed[random64() % len] = (uint8_t)random64();
        memset(changed + random64() % (len - 8), 0, 8);
        CHECK(open_copy(len, changed) == EPROTO || !memcmp(changed, bytes, len));
    }

    CASE("a block without a check that was changed is refused, or is other rows");
    uncheck(len, bytes);
    CHECK(open_copy(len, bytes) == 0);
    for (int i = 0; i < 20000; i++) {
        memcpy(changed, bytes, len);
        changed[random64() % len] = (uint8_t)random64();
        changed[random64() % 40] = (uint8_t)random64();
        refused += open_copy(len, changed) == EPROTO;
    }
    CHECK(refused > 1000 && refused < 20000);
    put_le16(changed, FLOW_BLOCK_ROWS + 1);
    CHECK(open_copy(len, changed) == EPROTO);
    put_le16(changed, 0);
    CHECK(open_copy(len, changed) == EPROTO);
}

int
main(void)
{
    test_round_trip();
    test_size();
    test_hostile();
    return check_done();
}

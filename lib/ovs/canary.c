#include <config.h>

#include "ovs/canary.h"

#include <stdint.h>
#include <string.h>

#include "dp-packet.h"
#include "util.h"

#ifndef DPDK_NETDEV
#error "Open vSwitch's config.h comes from a build without DPDK"
#endif

#define HEADROOM 40
#define SIZE 100

static void
expect(bool same, const char *what)
{
    if (!same) {
        ovs_fatal(0,
                  "this program and Open vSwitch's libraries were built differently (%s of struct "
                  "dp_packet): run 'make clean' and build again",
                  what);
    }
}

void
canary_check(void)
{
    /* Written through the library... */
    struct dp_packet *b = dp_packet_new_with_headroom(SIZE, HEADROOM);
    uint8_t *data = dp_packet_put_zeros(b, SIZE);
    struct dp_packet *clone;

    /* ...and read through the inline functions as compiled here. */
    expect(dp_packet_headroom(b) == HEADROOM, "headroom");
    expect(dp_packet_size(b) == SIZE, "size");
    expect(dp_packet_data(b) == data, "data");
    expect(dp_packet_get_allocated(b) >= HEADROOM + SIZE, "room");
    expect(b->source == DPBUF_MALLOC, "source");
    expect(b->l3_ofs == UINT16_MAX && b->l4_ofs == UINT16_MAX, "layer offsets");
    expect(b->packet_type == htonl(PT_ETH), "packet type");

    /* The library copies up to what it holds to be the end of the struct. */
    b->cutlen = 0x1234;
    memset(b->data, 0xa5, sizeof b->data);
    *((uint8_t *)(b + 1) - 1) = 0x5a;
    dp_packet_set_rss_hash(b, 0xcafe);
    clone = dp_packet_clone_with_headroom(b, 2 * HEADROOM);
    expect(clone->cutlen == 0x1234, "cut length");
    expect(!memcmp(clone->data, b->data, sizeof b->data), "context");
    expect(*((uint8_t *)(clone + 1) - 1) == 0x5a, "length");
    expect(dp_packet_rss_valid(clone) && dp_packet_get_rss_hash(clone) == 0xcafe, "hash");
    expect(dp_packet_headroom(clone) == 2 * HEADROOM, "headroom of a copy");

    dp_packet_delete(clone);
    dp_packet_delete(b);
}

/* Control ring: hash settings against the header's own Toeplitz, mapping
 * tables, static grants, refusals. */
#define XEN_NETIF_DEFINE_TOEPLITZ /* io/netif.h then has a reference function */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ring_guest.h"

#define TYPE(x) XEN_NETIF_CTRL_TYPE_##x
#define STATUS(x) XEN_NETIF_CTRL_STATUS_##x

static struct ring_guest g;
static uint8_t frame[2000];

static void
begin(const char *name)
{
    CASE(name);
    guest_init(&g);
}

static void
end(void)
{
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

static uint32_t
ask(uint16_t type, uint32_t d0, uint32_t d1, uint32_t d2)
{
    return guest_ctrl(&g, type, d0, d1, d2).status;
}

static void
test_toeplitz_vectors(void)
{
    /* Microsoft's RSS verification suite: 66.9.149.187:2794 -> 161.142.100.80:1766 */
    static const uint8_t key[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
    uint32_t hash;

    begin("ctrl/hash known values");
    memcpy(g.scratch_page, key, 40);
    CHECK(ask(TYPE(SET_HASH_ALGORITHM), 1, 0, 0) == STATUS(SUCCESS));
    CHECK(ask(TYPE(SET_HASH_KEY), g.scratch_ref, 40, 0) == STATUS(SUCCESS));
    CHECK(ask(TYPE(SET_HASH_FLAGS), 15, 0, 0) == STATUS(SUCCESS));
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 10});
    memcpy(frame + 14 + 12, "\x42\x09\x95\xbb\xa1\x8e\x64\x50\x0a\xea\x06\xe6", 12);
    CHECK(hash_frame(&g.hash, frame, len, &hash) == _XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP);
    CHECK(hash == 0x51ccc178);
    CHECK(ask(TYPE(SET_HASH_FLAGS), XEN_NETIF_CTRL_HASH_TYPE_IPV4, 0, 0) == STATUS(SUCCESS));
    CHECK(hash_frame(&g.hash, frame, len, &hash) == _XEN_NETIF_CTRL_HASH_TYPE_IPV4);
    CHECK(hash == 0x323e8fc2);
    CHECK(g.hash_changes == 4);
    end();
}

static void
test_toeplitz_reference(void)
{
    begin("ctrl/hash equals io/netif.h's reference, any key length");
    CHECK(ask(TYPE(SET_HASH_ALGORITHM), 1, 0, 0) == STATUS(SUCCESS));
    CHECK(ask(TYPE(SET_HASH_FLAGS), 15, 0, 0) == STATUS(SUCCESS));
    srandom(1);
    for (unsigned round = 0; round < 400; round++) {
        unsigned keylen = round % 41;
        bool v6 = random() & 1, udp = random() & 1;
        uint8_t key[40], input[36];
        uint32_t hash = 0;

        for (unsigned i = 0; i < 40; i++) {
            key[i] = random() >> 5;
        }
        memcpy(g.scratch_page, key, 40);
        CHECK(ask(TYPE(SET_HASH_KEY), g.scratch_ref, keylen, 0) == STATUS(SUCCESS));
        uint32_t len = frame_build(
            frame, &(struct frame_spec){.v6 = v6, .udp = udp, .payload = 9, .tags = round % 3});
        unsigned ip = 14 + 4 * (round % 3), ports = ip + (v6 ? 40 : 20);
        unsigned n = v6 ? 32 : 8, at = ip + (v6 ? 8 : 12);
        for (unsigned i = 0; i < n + 4; i++) {
            input[i] = random() >> 7;
        }
        memcpy(frame + at, input, n);
        memcpy(frame + ports, input + n, 4);
        CHECK(hash_frame(&g.hash, frame, len, &hash) >= 0);
        CHECK(hash == xen_netif_toeplitz_hash(key, keylen, input, udp ? n : n + 4));
    }
    end();
}

static void
test_hash_refusals(void)
{
    begin("ctrl/hash settings refused");
    CHECK(ask(TYPE(GET_HASH_FLAGS), 0, 0, 0) == STATUS(NOT_SUPPORTED));
    CHECK(ask(TYPE(SET_HASH_FLAGS), 1, 0, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_ALGORITHM), 2, 0, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_ALGORITHM), 1, 0, 0) == STATUS(SUCCESS));
    CHECK(guest_ctrl(&g, TYPE(GET_HASH_FLAGS), 0, 0, 0).data == 15);
    CHECK(ask(TYPE(SET_HASH_FLAGS), 16, 0, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_FLAGS), 0x80000001, 0, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_KEY), g.scratch_ref, 41, 0) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_KEY), g.scratch_ref, 0xffffffff, 0) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_KEY), g.scratch_ref, 0x10028, 0) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_KEY), 3, 40, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_KEY), 3, 0, 0) == STATUS(SUCCESS)); /* clears: needs no page */
    CHECK(g.hv->einval == 0);
    CHECK(ask(TYPE(INVALID), 0, 0, 0) == STATUS(NOT_SUPPORTED));
    CHECK(ask(11, 0, 0, 0) == STATUS(NOT_SUPPORTED));
    CHECK(ask(0xffff, 0, 0, 0) == STATUS(NOT_SUPPORTED));
    end();
}

static void
test_mapping(void)
{
    uint32_t *table = NULL;

    begin("ctrl/hash mapping: bounds, contents, steering (hash table overflow)");
    table = (uint32_t *)g.scratch_page;
    CHECK(guest_ctrl(&g, TYPE(GET_HASH_MAPPING_SIZE), 0, 0, 0).data == HASH_MAPPING_MAX);
    CHECK(ask(TYPE(SET_HASH_MAPPING_SIZE), HASH_MAPPING_MAX + 1, 0, 0) ==
          STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_MAPPING_SIZE), 100, 0, 0) == STATUS(SUCCESS));
    for (unsigned i = 0; i < 1024; i++) {
        table[i] = i % 4;
    }
    uint32_t ref = g.scratch_ref;
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 101, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 1, 100) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 2, 0xffffffff) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 0xffffffff, 2) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 0x80000000, 0x80000000) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 4096, 1) == STATUS(BUFFER_OVERFLOW));
    CHECK(ask(TYPE(SET_HASH_MAPPING), 3, 10, 0) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 50, 50) == STATUS(SUCCESS));
    CHECK(atomic_load(&g.hash.mapping[53]) == 3 && atomic_load(&g.hash.mapping[49]) == 0);
    table[40] = 4; /* one bad entry: none is used */
    table[3] = 1;
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 50, 50) == STATUS(INVALID_PARAMETER));
    CHECK(atomic_load(&g.hash.mapping[53]) == 3);
    CHECK(ask(TYPE(SET_HASH_MAPPING_SIZE), 4096, 0, 0) == STATUS(SUCCESS));
    CHECK(atomic_load(&g.hash.mapping[53]) == 0);
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 1025, 0) == STATUS(INVALID_PARAMETER));
    table[40] = 0;
    CHECK(ask(TYPE(SET_HASH_MAPPING), ref, 1024, 3072) == STATUS(SUCCESS));
    CHECK(g.hv->einval == 0);
    end();
}

/* Neither guest nor switch has a hash: connections spread, each keeps its queue. */
static void
check_flows_spread(const uint8_t *frame, uint32_t len)
{
    unsigned per_queue[4] = {0}, n;
    uint8_t other[256];

    memcpy(other, frame, len);
    for (unsigned port = 0; port < 256; port++) {
        other[35] = port; /* the low byte of the source port */
        unsigned q = hash_queue(&g.hash, other, len, 4, 0);
        per_queue[q]++;
        other[len - 1]++; /* payload */
        CHECK(hash_queue(&g.hash, other, len, 4, 0) == q);
    }
    for (unsigned q = 0; q < 4; q++) {
        CHECK(per_queue[q] >= 32);
    }
    other[20] = 0x20; /* a first fragment: as those without ports */
    n = hash_queue(&g.hash, other, len, 4, 0);
    other[35] ^= 0x5a;
    CHECK(hash_queue(&g.hash, other, len, 4, 0) == n);
    for (n = 0; n < len; n++) {
        CHECK(hash_queue(&g.hash, frame, n, 4, 0) < 4); /* no read past a short frame */
    }
}

static void
test_steering(void)
{
    uint32_t *table = NULL, hash = 0, len;

    begin("ctrl/steering: mapping, modulo, no hash");
    table = (uint32_t *)g.scratch_page;
    len = frame_build(frame, &(struct frame_spec){.payload = 9});
    CHECK(hash_queue(&g.hash, frame, len, 4, 7) == 3); /* no hash set: the switch's */
    CHECK(hash_queue(&g.hash, frame, len, 1, 7) == 0);
    check_flows_spread(frame, len);
    for (unsigned i = 0; i < 40; i++) {
        g.scratch_page[i] = i * 37 + 1;
    }
    ask(TYPE(SET_HASH_ALGORITHM), 1, 0, 0);
    ask(TYPE(SET_HASH_KEY), g.scratch_ref, 40, 0);
    CHECK(hash_queue(&g.hash, frame, len, 4, 7) == 3); /* no flags: still the switch's */
    ask(TYPE(SET_HASH_FLAGS), 15, 0, 0);
    CHECK(hash_frame(&g.hash, frame, len, &hash) == 1 && hash);
    CHECK(hash_queue(&g.hash, frame, len, 4, 7) == hash % 4);
    for (unsigned i = 0; i < 128; i++) {
        table[i] = (i * 5 + 2) % 4;
    }
    ask(TYPE(SET_HASH_MAPPING_SIZE), 128, 0, 0);
    CHECK(ask(TYPE(SET_HASH_MAPPING), g.scratch_ref, 128, 0) == STATUS(SUCCESS));
    CHECK(hash_queue(&g.hash, frame, len, 4, 7) == (hash % 128 * 5 + 2) % 4);
    CHECK(hash_queue(&g.hash, frame, len, 2, 7) < 2); /* fewer queues than at the time */
    memset(frame + 12, 0, 2);                         /* not IP: hash 0 */
    CHECK(hash_frame(&g.hash, frame, len, &hash) == -1);
    CHECK(hash_queue(&g.hash, frame, len, 4, 7) == 2);
    for (unsigned n = 0; n < 60; n++) {
        hash_frame(&g.hash, frame, n, &hash); /* no read past a short frame (sanitizer) */
    }
    end();
}

static unsigned
add(const struct xen_netif_gref *list, unsigned n)
{
    memcpy(g.scratch_page, list, n * sizeof *list);
    return ask(TYPE(ADD_GREF_MAPPING), 0, g.scratch_ref, n);
}

static void
test_grefs(void)
{
    struct xen_netif_gref list[4] = {{0}};

    begin("ctrl/static grants: all or none, deleted one by one");
    for (unsigned i = 0; i < 4; i++) {
        list[i].ref = g.rx_ref[i];
    }
    CHECK(guest_ctrl(&g, TYPE(GET_GREF_MAPPING_SIZE), 0, 0, 0).data == 1024);
    CHECK(ask(TYPE(GET_GREF_MAPPING_SIZE), 4, 0, 0) == STATUS(INVALID_PARAMETER));
    list[3].ref = list[0].ref;
    CHECK(add(list, 4) == STATUS(INVALID_PARAMETER) && g.hv->maps_held == 0);
    list[3].ref = 0xdead;
    CHECK(add(list, 4) == STATUS(INVALID_PARAMETER) && g.hv->maps_held == 0);
    list[3].ref = g.tx_ref[0]; /* granted read-only, asked for read-write */
    CHECK(add(list, 4) == STATUS(INVALID_PARAMETER) && g.hv->maps_held == 0);
    list[3].flags = 2; /* unknown */
    CHECK(add(list, 4) == STATUS(INVALID_PARAMETER) && g.hv->maps_held == 0);
    list[3].flags = XEN_NETIF_CTRLF_GREF_readonly;
    CHECK(add(list, 4) == STATUS(SUCCESS) && g.hv->maps_held == 4);
    CHECK(add(list, 1) == STATUS(INVALID_PARAMETER) && g.hv->maps_held == 4);
    CHECK(fake_revoke(g.hv, list[0].ref) == EBUSY);
    CHECK(gref_lookup(&g.grefs, list[3].ref, false) && !gref_lookup(&g.grefs, list[3].ref, true));

    list[1].ref = 0xbeef;
    memcpy(g.scratch_page, list, sizeof list);
    struct xen_netif_ctrl_response rsp =
        guest_ctrl(&g, TYPE(DEL_GREF_MAPPING), 0, g.scratch_ref, 4);
    memcpy(list, g.scratch_page, sizeof list);
    CHECK(rsp.status == STATUS(SUCCESS) && rsp.data == 3 && g.hv->maps_held == 1);
    CHECK(list[0].status == 0 && list[1].status == STATUS(INVALID_PARAMETER));
    CHECK(list[2].status == 0 && list[3].status == 0 && list[3].flags == 1);
    CHECK(fake_revoke(g.hv, list[0].ref) == 0);
    CHECK(g.hv->double_unmaps == 0);
    end();
}

/* While the guest's memory is on its way to another host. */
static void
test_grefs_unmapped(void)
{
    struct xen_netif_gref list[3] = {{0}};

    begin("ctrl/static grants: unmapped for a migration, the guest's list goes on");
    const struct hv_ops *ops = g.hv->hv.ops;
    for (unsigned i = 0; i < 3; i++) {
        list[i].ref = g.rx_ref[i];
    }
    CHECK(add(list, 2) == STATUS(SUCCESS) && g.hv->maps_held == 2);
    gref_table_unmap(&g.grefs, ops, g.hv->grants);
    CHECK(g.hv->maps_held == 0 && !gref_lookup(&g.grefs, list[0].ref, false));
    CHECK(add(list + 2, 1) == STATUS(SUCCESS) && g.hv->maps_held == 0);
    CHECK(add(list, 1) == STATUS(INVALID_PARAMETER)); /* still there */
    list[0].ref = 0xdead;
    CHECK(add(list, 1) == STATUS(INVALID_PARAMETER) && g.grefs.n == 3);
    CHECK(!gref_lookup(&g.grefs, list[2].ref, true));
    CHECK(gref_table_del(&g.grefs, ops, g.hv->grants, g.rx_ref[0]) == 0 && g.grefs.n == 2);

    CHECK(gref_table_map(&g.grefs, ops, g.hv->grants, g.hv->domid) == 0 && g.hv->maps_held == 2);
    CHECK(gref_lookup(&g.grefs, list[1].ref, true) && gref_lookup(&g.grefs, list[2].ref, true));
    gref_table_unmap(&g.grefs, ops, g.hv->grants);
    CHECK(fake_revoke(g.hv, list[1].ref) == 0);
    CHECK(gref_table_map(&g.grefs, ops, g.hv->grants, g.hv->domid) == 1 && g.hv->maps_held == 1);
    gref_table_clear(&g.grefs, ops, g.hv->grants);
    CHECK(g.hv->maps_held == 0 && g.hv->double_unmaps == 0);
    end();
}

static void
test_gref_bounds(void)
{
    struct xen_netif_gref one = {0};

    begin("ctrl/static grants: list size, limit, unreadable list");
    uint32_t ref = g.scratch_ref;
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 513) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 0x20000001) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(DEL_GREF_MAPPING), 0, ref, 0xffffffff) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 4, ref, 1) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, 2, 1) == STATUS(INVALID_PARAMETER));
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, 2, 0) == STATUS(SUCCESS));
    CHECK(g.hv->einval == 0);
    one.ref = g.rx_ref[0];
    g.grefs.limit = 0;
    CHECK(add(&one, 1) == STATUS(INVALID_PARAMETER));
    g.grefs.limit = 300; /* no power of two */
    struct xen_netif_gref *list = (void *)g.scratch_page;
    for (unsigned i = 0; i < 256; i++) {
        list[i] = (struct xen_netif_gref){g.rx_ref[i], 0, 0};
    }
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 256) == STATUS(SUCCESS));
    for (unsigned i = 0; i < 256; i++) {
        list[i] = (struct xen_netif_gref){g.tx_ref[i], 1, 0};
    }
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 45) == STATUS(INVALID_PARAMETER));
    g.hv->maps_left = 20; /* the mapping itself fails in the middle */
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 44) == STATUS(INVALID_PARAMETER));
    CHECK(g.hv->maps_held == 256 && g.grefs.n == 256);
    g.hv->maps_left = -1;
    CHECK(ask(TYPE(ADD_GREF_MAPPING), 0, ref, 44) == STATUS(SUCCESS));
    for (unsigned i = 0; i < 256; i++) { /* every entry is still found, then gone */
        CHECK(gref_lookup(&g.grefs, g.rx_ref[i], true));
        CHECK(gref_table_del(&g.grefs, g.hv->hv.ops, g.hv->grants, g.rx_ref[i]) == 0);
        CHECK(!gref_lookup(&g.grefs, g.rx_ref[i], false));
    }
    CHECK(g.hv->maps_held == 44);
    gref_table_clear(&g.grefs, g.hv->hv.ops, g.hv->grants);
    CHECK(g.hv->maps_held == 0 && g.hv->double_unmaps == 0);
    end();
}

static void
test_ring(void)
{
    bool notify = false;

    begin("ctrl/ring: budget, every byte, resume, index jumps");
    for (unsigned i = 0; i < 100; i++) {
        *RING_GET_REQUEST(&g.ctrl, g.ctrl.req_prod_pvt) =
            (struct xen_netif_ctrl_request){g.ctrl.req_prod_pvt, 99, {1, 2, 3}};
        g.ctrl.req_prod_pvt++;
    }
    RING_PUSH_REQUESTS(&g.ctrl);
    CHECK(ctrl_arm(&g.back_ctrl));
    CHECK(ctrl_run(&g.back_ctrl, 16, &notify) == 16 && notify);
    CHECK(ctrl_init(&g.back_ctrl, g.ctrl.sring) == 0);
    CHECK(ctrl_run(&g.back_ctrl, 200, &notify) == 84);
    CHECK(g.ctrl.sring->rsp_prod == 100 && !ctrl_arm(&g.back_ctrl));
    const uint8_t *slot = (const uint8_t *)g.ctrl.sring->ring;
    for (unsigned i = 0; i < 100; i++) {
        struct xen_netif_ctrl_response *rsp = (void *)(slot + 16 * i);
        CHECK(rsp->id == i && rsp->type == 99 && rsp->status == 1 && rsp->data == 0);
        CHECK(!memcmp(slot + 16 * i + 12, "\0\0\0\0", 4));
    }
    g.ctrl.sring->req_prod = 100 + 129;
    CHECK(ctrl_run(&g.back_ctrl, 16, &notify) == -EPROTO);
    CHECK(ctrl_init(&g.back_ctrl, g.ctrl.sring) == EPROTO);
    g.ctrl.sring->req_prod = 99;
    CHECK(ctrl_run(&g.back_ctrl, 16, &notify) == -EPROTO);
    end();
}

int
main(void)
{
    test_toeplitz_vectors();
    test_toeplitz_reference();
    test_hash_refusals();
    test_mapping();
    test_steering();
    test_grefs();
    test_grefs_unmapped();
    test_gref_bounds();
    test_ring();
    return check_done();
}

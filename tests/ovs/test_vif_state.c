/* The state of a vif as bytes: which connections are its own, there and back, and
 * hostile.  Settings and counters: tests/unit/test_move_bytes.c. */
#include <config.h>

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "conntrack.h"
#include "ct.h"
#include "ct_entry.h"
#include "ct_traffic.h"
#include "fatal-signal.h"
#include "ovs-rcu.h"
#include "random.h"
#include "timeval.h"
#include "util.h"
#include "vif_state.h"

static struct conntrack *present;

static struct conntrack *
lookup(const char *name OVS_UNUSED)
{
    return present;
}

/* 10.0.0.client > 10.0.9.1:80, of the vifs with these keys. */
static void
begin(struct conntrack *ct, uint16_t zone, uint8_t client, uint32_t from, uint32_t to)
{
    struct ct_entry e = {
        .proto = IPPROTO_UDP, .zone = zone, .state = 2, .left_ms = 30000, .mark = 9};
    ovs_u128 label = {.u64.lo = 5, .u64.hi = (uint64_t)to << 32 | from};

    memcpy(e.orig.addr[0], (uint8_t[]){10, 0, 0, client}, 4);
    memcpy(e.orig.addr[1], (uint8_t[]){10, 0, 9, 1}, 4);
    e.orig.l4[0][0] = 40;
    e.orig.l4[1][1] = 80;
    memcpy(e.reply.addr[0], e.orig.addr[1], 16);
    memcpy(e.reply.addr[1], e.orig.addr[0], 16);
    memcpy(e.reply.l4[0], e.orig.l4[1], 4);
    memcpy(e.reply.l4[1], e.orig.l4[0], 4);
    memcpy(e.label, &label, sizeof label);
    ovs_assert(!ct_entry_create(ct, &e, time_msec()));
}

static struct vif_scope
scope_of(const char *a, const char *b, const char *c)
{
    struct vif_scope s = {.n_zones = 0};

    CHECK(vif_scope_add(&s, a) && (!b || vif_scope_add(&s, b)) && (!c || vif_scope_add(&s, c)));
    return s;
}

static unsigned
count(struct conntrack *ct)
{
    uint32_t n;

    conntrack_get_nconns(ct, &n);
    return n;
}

static size_t
exported(struct vif_scope s)
{
    struct vif_state_result r;
    uint8_t *data;
    size_t len;

    CHECK(!vif_state_export(NULL, &s, &data, &len, &r));
    free(data);
    return r.connections;
}

static bool
is_marked(void *any, const struct ct_entry *e)
{
    *(bool *)any |= e->mark != 0;
    return false;
}

/* Does any connection carry a mark? */
static bool
marked(struct conntrack *ct)
{
    bool any = false;
    struct ct_filter filter = {.want = is_marked, .aux = &any};
    uint8_t *data;
    size_t len;

    ct_export(ct, &filter, &data, &len);
    free(data);
    return any;
}

static void
fill(struct conntrack *ct)
{
    begin(ct, 5, 1, 70, 0);  /* ours by its label, from us */
    begin(ct, 5, 2, 0, 70);  /* to us */
    begin(ct, 5, 3, 71, 72); /* others', in our zone */
    begin(ct, 6, 4, 70, 0);  /* another zone */
    begin(ct, 5, 5, 0, 0);   /* of nobody known */
}

static void
test_scope(void)
{
    struct vif_scope s = {.n_zones = 0};

    CASE("scope: words");
    CHECK(!vif_scope_add(&s, "zone=65536") && !vif_scope_add(&s, "zone=") &&
          !vif_scope_add(&s, "key=x") && !vif_scope_add(&s, "address=10.0.0") &&
          !vif_scope_add(&s, "nothing") && !vif_scope_add(&s, ""));
    CHECK(!vif_scope_add(&s, "address=10.0.0.0/33") && !vif_scope_add(&s, "address=10.0.0.0/") &&
          !vif_scope_add(&s, "address=2001:db8::/129") && !s.n_addresses);
    CHECK(vif_scope_add(&s, "address=2001:db8::1") && s.addresses[0].v6);
    CHECK(vif_scope_add(&s, "address=2001:db8::/32") && s.addresses[1].bits == 32);

    CASE("scope: by the keys in the label, by address, in the vif's zones only");
    CHECK(exported(scope_of("zone=5", "key=70", NULL)) == 2);
    CHECK(exported(scope_of("zone=5", "zone=6", "key=70")) == 3);
    CHECK(exported(scope_of("zone=5", "key=71", "key=70")) == 3);
    CHECK(exported(scope_of("zone=5", "address=10.0.0.5", NULL)) == 1);
    CHECK(exported(scope_of("zone=5", "address=10.0.9.1", NULL)) == 4);
    CHECK(exported(scope_of("zone=5", NULL, NULL)) == 0);
    CHECK(exported(scope_of("key=70", NULL, NULL)) == 0);
    CHECK(exported(scope_of("zone=5", "key=5", NULL)) == 0);

    CASE("scope: with a key and addresses both are needed; of addresses, one");
    CHECK(exported(scope_of("zone=5", "key=70", "address=10.0.0.2")) == 1);
    CHECK(exported(scope_of("zone=5", "key=70", "address=10.0.0.3")) == 0);
    CHECK(exported(scope_of("zone=5", "address=10.0.0.1", "address=10.0.0.5")) == 2);
    CHECK(exported(scope_of("zone=5", "address=10.0.0.0/30", NULL)) == 3);
    CHECK(exported(scope_of("zone=5", "address=10.0.0.4/31", NULL)) == 1);
    CHECK(exported(scope_of("zone=5", "address=0.0.0.0/0", NULL)) == 4);
}

static void
test_unmark(struct conntrack *here, struct conntrack *there)
{
    for (unsigned unmark = 0; unmark < 2; unmark++) {
        struct vif_scope s = scope_of("zone=5", "address=10.0.0.1", unmark ? "unmark" : NULL);
        struct vif_state_result r;
        char why[256] = "";
        uint8_t *data;
        size_t len;

        present = here;
        CHECK(!vif_state_export(NULL, &s, &data, &len, &r) && r.connections == 1);
        present = there;
        CHECK(!vif_state_import(NULL, &s, data, len, &r, why, sizeof why));
        CHECK(r.connections == 1 && marked(there) == !unmark);
        conntrack_flush(there, NULL);
        free(data);
    }
}

static void
test_travel(void)
{
    struct vif_scope s = scope_of("zone=5", "key=70", NULL), other;
    struct conntrack *here = present, *there = conntrack_init();
    struct vif_state_result r;
    char why[256] = "";
    uint8_t *data;
    size_t len;

    CASE("connections travel, and those out of the scope are refused there");
    CHECK(!vif_state_export(NULL, &s, &data, &len, &r) && r.connections == 2);
    present = there;
    CHECK(!vif_state_import(NULL, &s, data, len, &r, why, sizeof why));
    CHECK(r.connections == 2 && !r.refused && !r.existing && count(there) == 2);
    CHECK(!vif_state_import(NULL, &s, data, len, &r, why, sizeof why));
    CHECK(r.connections == 2 && !r.existing && count(there) == 2);
    conntrack_flush(there, NULL);
    other = scope_of("zone=5", "key=71", NULL);
    CHECK(!vif_state_import(NULL, &other, data, len, &r, why, sizeof why));
    CHECK(!r.connections && r.refused == 2 && !count(there));

    CASE("hostile: others' connections under our key: refused for a vif that has addresses");
    other = scope_of("zone=5", "key=70", "address=10.0.0.2");
    CHECK(!vif_state_import(NULL, &other, data, len, &r, why, sizeof why));
    CHECK(r.connections == 1 && r.refused == 1 && count(there) == 1);
    CHECK(exported(other) == 1);
    conntrack_flush(there, NULL);
    other = scope_of("zone=5", "key=70", "address=10.0.7.7");
    CHECK(!vif_state_import(NULL, &other, data, len, &r, why, sizeof why));
    CHECK(!r.connections && r.refused == 2 && !count(there));

    CASE("hostile: the mark, by which policy has passed it, is not taken over");
    CHECK(!vif_state_import(NULL, &s, data, len, &r, why, sizeof why) && count(there) == 2);
    CHECK(!marked(there));
    conntrack_flush(there, NULL);

    CASE("hostile: nor is a trunk's, whose vifs' connections have several keys");
    test_unmark(here, there);

    CASE("hostile: cut anywhere");
    bool good = true;
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = xmemdup(data, n ? n : 1);

        good &= vif_state_import(NULL, &s, cut, n, &r, why, sizeof why) && why[0] && !count(there);
        free(cut);
    }
    CHECK(good);

    CASE("hostile: any bytes changed: nothing out of the scope comes in");
    unsigned refused = 0;
    random_set_seed(9);
    for (int i = 0; i < 20000; i++) {
        uint8_t *bad = xmemdup(data, len);

        for (unsigned k = random_range(4) + 1; k; k--) {
            bad[random_range(len)] = random_range(3) ? random_uint32() : 0xff;
        }
        refused += vif_state_import(NULL, &s, bad, len, &r, why, sizeof why) != 0;
        good &= exported(scope_of("zone=5", "key=70", NULL)) == count(there);
        conntrack_flush(there, NULL);
        free(bad);
    }
    CHECK(good && refused > 5000 && refused < 20000);
    free(data);
    present = here;
    conntrack_destroy(there);
}

static bool
any_tcp(void *aux OVS_UNUSED, const struct ct_entry *e)
{
    return e->proto == IPPROTO_TCP;
}

/* A segment of one connection: what the tracker makes of it. */
static uint8_t
segment(struct conntrack *ct, bool reply, uint8_t flags, uint32_t seq, uint32_t ack,
        unsigned payload)
{
    const struct spec s = {.proto = IPPROTO_TCP,
                           .reply = reply,
                           .conn = 9,
                           .flags = flags,
                           .seq = seq,
                           .ack = ack,
                           .win = 8000,
                           .payload = payload};
    struct dp_packet *b = dp_packet_new(2048);
    struct dp_packet_batch batch;
    ovs_be16 dl_type;
    uint8_t frag, state;

    build(b, &s);
    parse_tcp_flags(b, &dl_type, &frag, NULL);
    dp_packet_batch_init_packet(&batch, b);
    conntrack_execute(ct, &batch, htons(ETH_TYPE_IP), false, true, 0, NULL, NULL, 0, 0, NULL, NULL,
                      time_msec(), 0);
    state = b->md.ct_state & (CS_INVALID | CS_ESTABLISHED);
    dp_packet_delete(b);
    return state;
}

/* The server's guest moves with a full window on its way. */
static void
test_late(void)
{
    struct conntrack *here = conntrack_init(), *exact = conntrack_init(), *there;
    struct ct_filter filter = {.want = any_tcp};
    struct ct_import_result r = {0};
    char why[256] = "";
    uint8_t *data;
    size_t len;

    CASE("what late frames acknowledge and carry is not out of window");
    segment(here, false, TCP_SYN, 100, 0, 0);
    segment(here, true, TCP_SYN | TCP_ACK, 5000, 101, 0);
    CHECK(segment(here, false, TCP_ACK, 101, 5001, 0) == CS_ESTABLISHED);
    for (unsigned i = 0; i < 8; i++) {
        CHECK(segment(here, true, TCP_ACK, 5001 + i * 1000, 101, 1000) == CS_ESTABLISHED);
    }
    CHECK(ct_export(here, &filter, &data, &len) == 1);

    CHECK(!ct_import(exact, data, len, &r, why, sizeof why) && r.imported == 1);
    CHECK(segment(exact, true, TCP_ACK, 13001, 101, 1000) == CS_INVALID);
    CHECK(segment(exact, true, TCP_ACK, 13001, 70101, 0) == CS_INVALID);

    there = conntrack_init();
    CHECK(!ct_import_only(there, &filter, data, len, &r, why, sizeof why) && r.imported == 2);
    CHECK(segment(there, true, TCP_ACK, 13001, 101, 1000) == CS_ESTABLISHED);
    CHECK(segment(there, false, TCP_ACK, 101, 14001, 0) == CS_ESTABLISHED);
    CHECK(segment(there, true, TCP_ACK, 14001, 101, 1000) == CS_ESTABLISHED);
    CHECK(segment(there, true, TCP_ACK, 1000000, 101, 1000) == CS_INVALID);
    conntrack_destroy(there);

    there = conntrack_init();
    CHECK(!ct_import_only(there, &filter, data, len, &r, why, sizeof why) && r.imported == 3);
    CHECK(segment(there, true, TCP_ACK, 13001, 70101, 0) == CS_ESTABLISHED);
    CHECK(segment(there, false, TCP_ACK, 70101, 13001, 1000) == CS_ESTABLISHED);
    CHECK(segment(there, true, TCP_ACK, 13001, 71101, 1000) == CS_ESTABLISHED);
    CHECK(segment(there, false, TCP_ACK, 1000000, 14001, 1000) == CS_INVALID);
    conntrack_destroy(there);
    conntrack_destroy(exact);
    conntrack_destroy(here);
    free(data);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    ovs_set_program_name(argv[0], "1");
    fatal_signal_init();
    ct_unixctl_init(lookup);
    present = conntrack_init();
    fill(present);
    test_scope();
    test_travel();
    conntrack_destroy(present);
    test_late();
    ovsrcu_exit();
    return check_done();
}

/* The collector's decoders on messages built by hand and on what Open vSwitch sends. */
#include "check.h"
#include "flow_wire.h"
#include "ie.h"
#include "replay.h"

static struct kept kept;
static struct wire w;

static struct collect *
fresh(void)
{
    return keep_in(&kept, &collect_limits_default);
}

/* --- NetFlow v5 ----------------------------------------------------------------- */

static void
build_v5(uint32_t sequence, uint32_t uptime_ms, unsigned n)
{
    w.n = 0;
    w16(&w, 5);
    w16(&w, n);
    w32(&w, uptime_ms);
    w32(&w, NOW / 1000);
    w32(&w, 500000000); /* ns */
    w32(&w, sequence);
    w16(&w, 0x0102); /* engine */
    w16(&w, 0x4000 | 10);
    for (unsigned i = 0; i < n; i++) {
        w32(&w, 0xc0a80001);
        w32(&w, 0xc0a80002);
        w32(&w, 0); /* next hop */
        w16(&w, 3);
        w16(&w, 4);
        w32(&w, 7);
        w32(&w, 700);
        w32(&w, uptime_ms - 3000);
        w32(&w, uptime_ms - 1000);
        w16(&w, 1234);
        w16(&w, 443);
        w8(&w, 0);
        w8(&w, 0x1b);
        w8(&w, 6);
        w8(&w, 0x10);
        w64(&w, 0); /* AS, masks, pad */
    }
}

static void
test_v5(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 2055, 0);
    struct collect *c = fresh();
    const struct flow_record *r = kept.r;

    CASE("collect/v5: every field, times from the uptime");
    build_v5(0, 100000, 2);
    CHECK(!wsend(&w, c, &peer, NOW));
    CHECK(kept.n == 2 && kept.last.protocol == FLOW_NETFLOW5 && kept.last.domain == 0x0102);
    CHECK(is_ip4(&r->src, 0xc0a80001) && is_ip4(&r->dst, 0xc0a80002));
    CHECK(r->start_ms == NOW + 500 - 3000 && r->end_ms == NOW + 500 - 1000);
    CHECK(r->packets == 7 && r->bytes == 700 && r->in_if == 3 && r->out_if == 4);
    CHECK(r->sport == 1234 && r->dport == 443 && r->proto == 6 && r->tcp_flags == 0x1b);
    CHECK(r->tos == 0x10 && r->sampling == 10 && r->eth_type == 0x0800);

    CASE("collect/v5: a gap in the numbers is flows lost, a late message makes it good");
    build_v5(7, 100500, 1);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 5 && counter(c, 0, "restarts") == 0);
    build_v5(2, 100400, 3);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 2 && counter(c, 0, "reordered") == 1);

    CASE("collect/v5: an uptime that goes back is a restart, not a loss");
    build_v5(0, 500, 1);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 2 && counter(c, 0, "restarts") == 1);

    CASE("collect/v5: ... and one that wraps, after 49.7 days, is neither");
    build_v5(1, UINT32_MAX - 500, 1);
    wsend(&w, c, &peer, NOW);
    build_v5(2, 500, 2);
    put_be32(w.b + 24 + 48 + 28, 5000); /* ends before it starts, by a clock that jumped */
    put_be32(w.b + 24 + 48 + 24, 6000);
    kept.n = 0;
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "restarts") == 1 && r->start_ms == NOW + 500 - 3000);
    CHECK(r[1].start_ms == r[1].end_ms && r[1].end_ms == NOW + 500 + 4500);
    CHECK(counter(c, 0, "lost") == 2);

    CASE("collect/v5: a count beyond the datagram is refused");
    build_v5(1, 600, 2);
    w.n -= 1;
    kept.n = 0;
    CHECK(wsend(&w, c, &peer, NOW) == EPROTO && kept.n == 0 && total(c, "malformed") == 1);
    collect_destroy(c);
}

/* --- NetFlow v9 ------------------------------------------------------------------- */

static void
test_v9(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 2055, 0);
    struct collect *c = fresh();
    const struct flow_record *r = kept.r;

    CASE("collect/v9: template and data in one message, padding, times from the uptime");
    wv9(&w, 50000, 1, 9);
    wset(&w, 0);
    w16(&w, 300);
    w16(&w, 9);
    wfield(&w, 27, 16, 0);
    wfield(&w, 28, 16, 0);
    wfield(&w, 22, 4, 0);
    wfield(&w, 21, 4, 0);
    wfield(&w, 1, 4, 0);
    wfield(&w, 2, 4, 0);
    wfield(&w, 4, 1, 0);
    wfield(&w, 139, 2, 0);
    wfield(&w, 48, 1, 0);
    wset_end(&w);
    wset(&w, 300);
    wbytes(&w, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    wbytes(&w, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2", 16);
    w32(&w, 20000);
    w32(&w, 30000);
    w32(&w, 1200);
    w32(&w, 10);
    w8(&w, IPPROTO_ICMPV6);
    w16(&w, 0x8000);
    w8(&w, 5);
    w32(&w, 0); /* padding, shorter than a record */
    wset_end(&w);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 1 && kept.last.domain == 9);
    CHECK(r->src.s6_addr[15] == 1 && r->dst.s6_addr[15] == 2 && r->eth_type == 0x86dd);
    CHECK(r->start_ms == NOW - 30000 && r->end_ms == NOW - 20000);
    CHECK(r->bytes == 1200 && r->packets == 10 && r->dport == 0x8000 && r->sport == 0);
    CHECK(r->sampling == 0);

    CASE("collect/v9: options tell samplers' rates and interfaces' names");
    wv9(&w, 50100, 2, 9);
    wset(&w, 1);
    w16(&w, 301);
    w16(&w, 4);
    w16(&w, 8);
    wfield(&w, 1, 4, 0); /* scope: system */
    wfield(&w, 48, 1, 0);
    wfield(&w, 34, 4, 0);
    w16(&w, 302);
    w16(&w, 4);
    w16(&w, 4);
    wfield(&w, 2, 4, 0); /* scope: interface */
    wfield(&w, 82, 8, 0);
    wset_end(&w);
    wset(&w, 301);
    w32(&w, 0);
    w8(&w, 5);
    w32(&w, 128);
    wset_end(&w);
    wset(&w, 302);
    w32(&w, 17);
    wbytes(&w, "vif1.0\0\0", 8);
    wset_end(&w);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.name_index == 17 && !strcmp(kept.name, "vif1.0"));
    CHECK(!strcmp(collect_interface(c, kept.last.id, 17), "vif1.0"));
    CHECK(counter(c, 0, "options") == 2 && counter(c, 0, "sampling") == 128);
    wv9(&w, 50200, 3, 9);
    wset(&w, 300);
    memset(w.b + w.n, 0, 16 + 16 + 16 + 4);
    w.b[w.n + 51] = 5;
    w.n += 52;
    wset_end(&w);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 2 && kept.r[1].sampling == 128);

    CASE("collect/v9: numbers count messages; after a restart old templates are void");
    CHECK(counter(c, 0, "lost") == 0);
    wv9(&w, 50300, 7, 9);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 3);
    wv9(&w, 100, 1, 9);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "restarts") == 1 && counter(c, 0, "templates") == 0);
    collect_destroy(c);
}

static void
v9_one_time(uint32_t sequence, uint32_t uptime_ms, unsigned id, unsigned element, unsigned other,
            unsigned other_len)
{
    wv9(&w, uptime_ms, sequence, 9);
    wset(&w, 0);
    w16(&w, id);
    w16(&w, 3);
    wfield(&w, element, 4, 0);
    wfield(&w, other, other_len, 0);
    wfield(&w, 2, 4, 0);
    wset_end(&w);
    wset(&w, id);
}

static void
test_v9_times(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 2055, 0);
    struct collect *c = fresh();
    const struct flow_record *r = kept.r;

    CASE("collect/v9: one time of uptime, the other of another kind");
    v9_one_time(1, 100000, 300, 22, 161, 4);
    w32(&w, 70000);
    w32(&w, 20000); /* lasted */
    w32(&w, 1);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(r->start_ms == NOW - 30000 && r->end_ms == NOW - 10000);
    v9_one_time(2, 100000, 301, 22, 153, 8);
    w32(&w, 70000);
    w64(&w, NOW - 5000);
    w32(&w, 1);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(r[1].start_ms == NOW - 30000 && r[1].end_ms == NOW - 5000);

    CASE("collect/v9: across the wrap of the uptime templates stay, and times are right");
    collect_destroy(c);
    c = fresh();
    v9_one_time(3, UINT32_MAX - 99, 302, 22, 21, 4);
    w32(&w, UINT32_MAX - 5099);
    w32(&w, UINT32_MAX - 1099);
    w32(&w, 1);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(r[0].start_ms == NOW - 5000 && r[0].end_ms == NOW - 1000);
    wv9(&w, 900, 4, 9);
    wset(&w, 302);
    w32(&w, UINT32_MAX - 99); /* a second before */
    w32(&w, 400);
    w32(&w, 1);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(kept.n == 2 && r[1].start_ms == NOW - 1000 && r[1].end_ms == NOW - 500);
    CHECK(counter(c, 0, "templates") == 1 && counter(c, 0, "restarts") == 0);
    collect_destroy(c);
}

/* --- IPFIX -------------------------------------------------------------------------- */

static void
ipfix_rich_template(void)
{
    wset(&w, 2);
    w16(&w, 256);
    w16(&w, 15);
    wfield(&w, 82, 65535, 0); /* a name, before what is of fixed length */
    wfield(&w, 8, 4, 0);
    wfield(&w, 12, 4, 0);
    wfield(&w, 152, 8, 0);
    wfield(&w, 153, 8, 0);
    wfield(&w, 2, 3, 0); /* of reduced size */
    wfield(&w, 1, 5, 0);
    wfield(&w, 58, 2, 0);
    wfield(&w, 351, 8, 0);
    wfield(&w, 89, 1, 0);
    wfield(&w, IE_WEFT_RULE_OUT, 4, IE_PEN_WEFT);
    wfield(&w, IE_WEFT_DROP, 2, IE_PEN_WEFT);
    wfield(&w, 2, 8, 29305); /* the other way */
    wfield(&w, 1, 8, 29305);
    wfield(&w, 999, 65535, 12345); /* nobody knows */
    wset_end(&w);
}

static void
ipfix_rich_record(const char *name, unsigned unknown)
{
    w8(&w, strlen(name));
    wbytes(&w, name, strlen(name));
    w32(&w, 0x0a010101);
    w32(&w, 0x0a020202);
    w64(&w, NOW - 9000);
    w64(&w, NOW - 8000);
    wbytes(&w, "\x01\x00\x02", 3);
    wbytes(&w, "\x01\x00\x00\x00\x03", 5);
    w16(&w, 0xe064);
    w64(&w, UINT64_C(0x0100000000001388));
    w8(&w, 0x83);
    w32(&w, 4711);
    w16(&w, 3);
    w64(&w, 5);
    w64(&w, 55);
    w8(&w, 255); /* the long form */
    w16(&w, unknown);
    memset(w.b + w.n, 0xaa, unknown);
    w.n += unknown;
}

static void
test_ipfix(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    struct collect *c = fresh();
    const struct flow_record *r = kept.r;

    CASE("collect/ipfix: variable lengths, reduced sizes, enterprise elements, both ways");
    wipfix(&w, 0, 3);
    ipfix_rich_template();
    wset(&w, 256);
    ipfix_rich_record("eth0", 300);
    ipfix_rich_record("", 0);
    wset_end(&w);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 4);
    CHECK(is_ip4(&r->src, 0x0a010101) && is_ip4(&r->dst, 0x0a020202));
    CHECK(r->packets == 0x010002 && r->bytes == UINT64_C(0x0100000003));
    CHECK(r->vlan == 0x64 && r->tunnel_key == 5000 && r->forwarding == 0x83);
    CHECK(r->rule_out == 4711 && r->drop == 3 && r->start_ms == NOW - 9000);
    CHECK(is_ip4(&r[1].src, 0x0a020202) && r[1].packets == 5 && r[1].bytes == 55);
    CHECK(r[2].packets == r[0].packets && r[3].packets == 5);
    CHECK(counter(c, 0, "malformed") == 0);

    CASE("collect/ipfix: numbers count records; two records sent two ways are two");
    wipfix(&w, 2, 3);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 0);
    wipfix(&w, 12, 3);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 10);
    wipfix(&w, 0, 3);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 10 && counter(c, 0, "restarts") == 1);

    CASE("collect/ipfix: a variable length beyond its set ends the set");
    wipfix(&w, 0, 3);
    wset(&w, 256);
    ipfix_rich_record("eth0", 10);
    w.n -= 4;
    wset_end(&w);
    kept.n = 0;
    wsend(&w, c, &peer, NOW);
    CHECK(kept.n == 0 && counter(c, 0, "malformed") == 1);

    CASE("collect/ipfix: domains have templates and numbers of their own");
    wipfix(&w, 0, 4);
    wset(&w, 256);
    ipfix_rich_record("eth0", 10);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(kept.n == 0 && counter(c, 0, "waiting_bytes") > 0 && counter(c, 1, "domain") == 3);
    collect_destroy(c);
}

/* Record number 'i'; of a template of variable length its last field, which nobody reads. */
static void
various_record(unsigned i, bool variable)
{
    w32(&w, 0x0a000000 + i);
    w32(&w, i % 3 ? 0x0b000000 + i : 0);
    w64(&w, i % 5 ? 0x20010db800000000 : 0);
    w64(&w, i % 5 ? i : 0);
    w8(&w, i % 2 ? IPPROTO_ICMP : IPPROTO_TCP);
    w16(&w, i);             /* source port */
    w8(&w, i % 7 ? 8 : 0);  /* icmpTypeIPv4 */
    w8(&w, i % 11 ? 3 : 0); /* icmpCodeIPv4 */
    w16(&w, i % 13);        /* of packets */
    w8(&w, i);              /* of bytes */
    w64(&w, NOW - i);
    w32(&w, i % 4 ? 1000 * i : 0); /* flowDurationMilliseconds */
    w32(&w, i % 6 ? 1 : 0);        /* samplingPacketInterval */
    w32(&w, i % 6 ? i : 0);
    wbytes(&w, "\x02\x00\x00\x00\x00", 5);
    w8(&w, i);
    w16(&w, 0xf000 + i); /* vlanId */
    if (variable) {
        w8(&w, i % 3);
        wbytes(&w, "xx", i % 3);
    }
}

static void
test_ipfix_many(void)
{
    static const uint16_t fields[][2] = {
        {8, 4}, {12, 4},  {28, 16}, {4, 1},   {7, 2},   {176, 1}, {177, 1}, {2, 2},
        {1, 1}, {153, 8}, {161, 4}, {305, 4}, {306, 4}, {56, 6},  {58, 2},  {371, 0xffff}};
    enum { N = 700, FIELDS = sizeof fields / sizeof fields[0] };
    static struct flow_record fixed[N];
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    struct collect *c = fresh();

    CASE("collect/ipfix: many records read at once are what they are one by one");
    for (int variable = 0; variable < 2; variable++) {
        unsigned n = FIELDS - !variable;

        wipfix(&w, variable * N, 3);
        wset(&w, 2);
        w16(&w, 256 + variable);
        w16(&w, n);
        for (unsigned i = 0; i < n; i++) {
            wfield(&w, fields[i][0], fields[i][1], 0);
        }
        wset_end(&w);
        wset(&w, 256 + variable);
        for (unsigned i = 0; i < N; i++) {
            various_record(i, variable);
        }
        w8(&w, 0); /* padding */
        wset_end(&w);
        kept.n = 0;
        CHECK(!wsend(&w, c, &peer, NOW) && kept.n == N);
        if (!variable) {
            memcpy(fixed, kept.r, sizeof fixed);
        }
    }
    CHECK(!memcmp(fixed, kept.r, sizeof fixed));
    CHECK(counter(c, 0, "malformed") == 0 && counter(c, 0, "lost") == 0);
    CHECK(is_ip4(&fixed[N - 1].src, 0x0a000000 + N - 1) && fixed[N - 1].bytes == (uint8_t)(N - 1));
    CHECK(fixed[5].end_ms == NOW - 5 && fixed[5].start_ms == NOW - 5005);
    CHECK(fixed[5].dport == 0x803 && fixed[5].sport == 0 && fixed[4].sport == 4);
    CHECK(fixed[5].sampling == 6 && fixed[5].vlan == 5 && fixed[5].src_mac[5] == 5);
    collect_destroy(c);
}

static void
test_ipfix_options(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    struct collect *c = fresh();
    json_t *status, *element;

    CASE("collect/ipfix: options: sampling, type information, statistics");
    wipfix(&w, 0, 3);
    wset(&w, 3);
    w16(&w, 300);
    w16(&w, 3);
    w16(&w, 1);
    wfield(&w, 149, 4, 0);
    wfield(&w, 305, 4, 0);
    wfield(&w, 306, 4, 0);
    w16(&w, 301);
    w16(&w, 4);
    w16(&w, 2);
    wfield(&w, 346, 4, 0);
    wfield(&w, 303, 2, 0);
    wfield(&w, 339, 1, 0);
    wfield(&w, 341, 65535, 0);
    w16(&w, 302);
    w16(&w, 3);
    w16(&w, 1);
    wfield(&w, 149, 4, 0);
    wfield(&w, 42, 8, 0);
    wfield(&w, 166, 8, 0);
    wset_end(&w);
    wset(&w, 300);
    w32(&w, 3);
    w32(&w, 1);
    w32(&w, 99);
    wset_end(&w);
    wset(&w, 301);
    w32(&w, IE_PEN_WEFT);
    w16(&w, 1);
    w8(&w, 3);
    w8(&w, 4);
    wbytes(&w, "x\ny\x80", 4); /* what cannot be printed is not */
    wset_end(&w);
    wset(&w, 302);
    w32(&w, 3);
    w64(&w, 12345);
    w64(&w, 6);
    wset_end(&w);
    wsimple_template(&w, 2, 256);
    wsimple_data(&w, 256, 1, 1);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 1 && kept.r[0].sampling == 100);
    CHECK(kept.r[0].end_ms == NOW && counter(c, 0, "options") == 3);
    CHECK(counter(c, 0, "exported_records") == 12345 && counter(c, 0, "not_sent") == 6);
    status = collect_status(c, NOW);
    element = json_array_get(
        json_object_get(json_array_get(json_object_get(status, "exporters"), 0), "elements"), 0);
    CHECK(element && !strcmp(json_string_value(json_object_get(element, "name")), "x?y?"));
    json_decref(status);
    collect_destroy(c);
}

static void
test_ipfix_templates(void)
{
    struct collect_peer udp = peer_of(0x0a000001, 4739, 0), tcp = peer_of(0x0a000001, 999, 1);
    struct collect_limits limits = collect_limits_default;
    struct collect *c;

    limits.template_ms = 60000;
    c = keep_in(&kept, &limits);
    CASE("collect/ipfix: data before its template waits for it, for a while");
    wipfix(&w, 0, 3);
    wsimple_data(&w, 256, 2, 7);
    wsend(&w, c, &udp, NOW);
    CHECK(kept.n == 0);
    wipfix(&w, 2, 3);
    wsimple_template(&w, 2, 256);
    wsend(&w, c, &udp, NOW + 1000);
    CHECK(kept.n == 2 && kept.packets == 14 && counter(c, 0, "waiting_bytes") == 0);
    CHECK(counter(c, 0, "lost") == 0);
    wipfix(&w, 2, 3);
    wsimple_data(&w, 257, 2, 7);
    wsend(&w, c, &udp, NOW + 1000);
    collect_tick(c, NOW + 1000 + limits.wait_ms);
    CHECK(counter(c, 0, "waiting_bytes") == 0 && counter(c, 0, "without_template") == 1);

    CASE("collect/ipfix: over UDP a template not announced again is forgotten");
    CHECK(counter(c, 0, "templates") == 0); /* a minute has gone */

    CASE("collect/ipfix: over UDP nobody withdraws");
    wipfix(&w, 2, 3);
    wsimple_template(&w, 2, 256);
    wset(&w, 2);
    w32(&w, 256 << 16);
    wset_end(&w);
    wsend(&w, c, &udp, NOW + 70000);
    CHECK(counter(c, 0, "templates") == 1 && counter(c, 0, "withdrawals") == 1);

    CASE("collect/ipfix: over TCP templates last until withdrawn, one or all");
    wipfix(&w, 0, 3);
    wsimple_template(&w, 2, 256);
    wsimple_template(&w, 2, 257);
    wsimple_template(&w, 2, 258);
    wsend(&w, c, &tcp, NOW + 70000);
    collect_tick(c, NOW + 100000000);
    CHECK(counter(c, 0, "templates") == 3);
    wipfix(&w, 0, 3);
    wset(&w, 2);
    w32(&w, 257 << 16);
    wset_end(&w);
    wsend(&w, c, &tcp, NOW);
    CHECK(counter(c, 0, "templates") == 2);
    wipfix(&w, 0, 3);
    wset(&w, 2);
    w32(&w, 2 << 16);
    wset_end(&w);
    wsend(&w, c, &tcp, NOW);
    CHECK(counter(c, 0, "templates") == 0);

    CASE("collect/ipfix: a connection's end takes its exporters along");
    CHECK(total(c, "exporters") == 1); /* the UDP one was silent too long */
    collect_closed(c, 1);
    CHECK(total(c, "exporters") == 0 && total(c, "state_bytes") == 0);

    CASE("collect/ipfix: an id may come to mean something else");
    wipfix(&w, 0, 3);
    wsimple_template(&w, 2, 256);
    wsend(&w, c, &udp, NOW);
    wipfix(&w, 0, 3);
    ipfix_rich_template();
    wsend(&w, c, &udp, NOW);
    CHECK(counter(c, 0, "templates") == 1 && counter(c, 0, "template_changes") == 1);
    collect_destroy(c);
}

static void
test_assumed(void)
{
    struct collect_peer known = peer_of(0x0a000101, 4739, 0), other = peer_of(0x0a000201, 4739, 0);
    struct collect_peer prefix = peer_of(0x0a000100, 0, 0);
    struct collect *c = fresh();

    CASE("collect: a rate is assumed of whom it is stated, until it says its own");
    CHECK(collect_assume(c, &prefix.address, 120, 400));
    for (unsigned i = 0; i < 2; i++) {
        wipfix(&w, 0, 1);
        wsimple_template(&w, 2, 256);
        wsimple_data(&w, 256, 1, 1);
        wsend(&w, c, i ? &other : &known, NOW);
        CHECK(counter(c, 0, "sampling") == (i ? 0 : 400));
    }
    CHECK(kept.n == 2 && kept.r[0].sampling == 400 && kept.r[1].sampling == 0);
    wipfix(&w, 1, 1);
    wset(&w, 3);
    w16(&w, 300);
    w32(&w, 2 << 16 | 1);
    wfield(&w, 149, 4, 0);
    wfield(&w, 34, 4, 0);
    wset_end(&w);
    wset(&w, 300);
    w32(&w, 1);
    w32(&w, 10);
    wset_end(&w);
    wsimple_data(&w, 256, 1, 1);
    wsend(&w, c, &known, NOW);
    CHECK(kept.n == 3 && kept.r[2].sampling == 10 && counter(c, 0, "sampling") == 10);
    build_v5(0, 100000, 1);
    put_be16(w.b + 22, 0); /* v5 has a place to say so */
    wsend(&w, c, &known, NOW);
    CHECK(kept.n == 4 && kept.r[3].sampling == 0);
    while (collect_assume(c, &prefix.address, 128, 2)) {
    }
    collect_destroy(c);
}

/* The clock of the collector's host is set by an hour, or back by one. */
static void
test_clock(void)
{
    struct collect_limits limits = collect_limits_default;
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    const int64_t hour = 3600000;
    struct collect *c;

    limits.records_per_s = 10;
    c = keep_in(&kept, &limits);
    CASE("collect: a clock set forward ends no template, no wait, no exporter");
    wipfix(&w, 0, 3);
    wsimple_template(&w, 2, 256);
    wsimple_data(&w, 257, 1, 7);
    wsend(&w, c, &peer, NOW);
    collect_clock_stepped(c, hour);
    collect_tick(c, NOW + hour + 1000);
    CHECK(counter(c, 0, "templates") == 1 && counter(c, 0, "without_template") == 0);
    collect_tick(c, NOW + hour + limits.wait_ms);
    CHECK(counter(c, 0, "without_template") == 1);

    CASE("collect: set back, records go on counting");
    collect_clock_stepped(c, -2 * hour);
    for (unsigned i = 1; i <= 5; i++) {
        wipfix(&w, 10 * i, 3);
        wsimple_data(&w, 256, 10, 1);
        wsend(&w, c, &peer, NOW - hour + 2000 * i);
    }
    CHECK(kept.n == 50 && counter(c, 0, "limited") == 0);
    collect_tick(c, NOW - hour + 10000 + limits.template_ms);
    CHECK(total(c, "exporters") == 1 && counter(c, 0, "templates") == 0);
    collect_destroy(c);
}

/* --- sFlow ---------------------------------------------------------------------------- */

static void
sflow_head(uint32_t sequence, uint32_t samples)
{
    w.n = 0;
    w32(&w, 5);
    w32(&w, 1);
    w32(&w, 0x0a0000fe);
    w32(&w, 2); /* sub-agent */
    w32(&w, sequence);
    w32(&w, 100000 + sequence);
    w32(&w, samples);
}

/* A TCP frame with a VLAN tag: 58 bytes, as much as the sample has of 1518. */
static void
sflow_frame(void)
{
    wbytes(&w, "\0\0\0\0\0\2\0\0\0\0\0\1\x81\0\x60\x05\x08\0", 18);
    wbytes(&w, "\x45\x02\x05\xdc\0\1\0\0\x3f\x06\0\0\x0a\1\1\1\x0a\2\2\2", 20);
    wbytes(&w, "\x30\x39\0\x50\0\0\0\0\0\0\0\0\x50\x12\0\0\0\0\0\0", 20);
}

static void
test_sflow(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 6343, 0);
    struct collect *c = fresh();
    const struct flow_record *r = kept.r;

    CASE("collect/sflow: a sample's header, its rate and ports; counters are skipped");
    sflow_head(1, 2);
    w32(&w, 2); /* counters */
    w32(&w, 12);
    w64(&w, 0);
    w32(&w, 0);
    w32(&w, 1); /* flow sample */
    w32(&w, 32 + 8 + 16 + 60);
    w32(&w, 1);
    w32(&w, 3);
    w32(&w, 512);
    w64(&w, 0);
    w32(&w, 3);
    w32(&w, 0x40000100); /* dropped */
    w32(&w, 1);
    w32(&w, 1); /* raw header */
    w32(&w, 16 + 60);
    w32(&w, 1);
    w32(&w, 1522);
    w32(&w, 4);
    w32(&w, 58);
    sflow_frame();
    w16(&w, 0);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 1 && kept.last.protocol == FLOW_SFLOW);
    CHECK(is_ip4(&kept.last.address, 0x0a0000fe) && kept.last.domain == 2);
    CHECK(r->packets == 1 && r->bytes == 1500 && r->sampling == 512 && r->end_ms == NOW);
    CHECK(is_ip4(&r->src, 0x0a010101) && r->sport == 12345 && r->dport == 80);
    CHECK(r->vlan == 5 && r->tcp_flags == 0x12 && r->tos == 2 && r->min_ttl == 63);
    CHECK(r->in_if == 3 && r->out_if == 0 && r->forwarding == 0x80 && r->src_mac[5] == 1);
    CHECK(counter(c, 0, "counter_samples") == 1);

    CASE("collect/sflow: expanded samples of IPv6 without the frame");
    sflow_head(2, 1);
    w32(&w, 3);
    w32(&w, 44 + 8 + 56);
    w32(&w, 1);
    w64(&w, 3);
    w32(&w, 1);
    w64(&w, 0);
    w64(&w, 70000);
    w64(&w, 80000);
    w32(&w, 1);
    w32(&w, 4);
    w32(&w, 56);
    w32(&w, 99);
    w32(&w, 17);
    wbytes(&w, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    wbytes(&w, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2", 16);
    w32(&w, 53);
    w32(&w, 1024);
    w64(&w, 0);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 2);
    CHECK(r[1].in_if == 70000 && r[1].out_if == 80000 && r[1].eth_type == 0x86dd);
    CHECK(r[1].bytes == 99 && r[1].proto == 17 && r[1].sport == 53 && r[1].dst.s6_addr[15] == 2);

    CASE("collect/sflow: a sample that passes the datagram's end is refused");
    sflow_head(3, 1);
    w32(&w, 1);
    w32(&w, 0xfffffffc);
    w64(&w, 0);
    CHECK(wsend(&w, c, &peer, NOW) == EPROTO && kept.n == 2);

    CASE("collect/sflow: numbers count datagrams");
    sflow_head(8, 0);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "lost") == 4);
    collect_destroy(c);
}

/* --- Open vSwitch ----------------------------------------------------------------------- */

struct sums {
    uint64_t packets[3], bytes[3]; /* by protocol */
    uint64_t ip6;
};

static void
add_up(void *sums_, const struct flow_source *from, const struct flow_record *r, size_t n)
{
    struct sums *s = sums_;
    unsigned p = from->protocol == FLOW_NETFLOW5 ? 0 : from->protocol == FLOW_IPFIX ? 1 : 2;

    for (size_t i = 0; i < n; i++) {
        /* IPFIX of Open vSwitch counts a packet as it comes and as it goes. */
        if (r[i].proto == 17 && r[i].direction == FLOW_INGRESS) {
            s->packets[p] += r[i].packets;
            s->bytes[p] += r[i].bytes;
            s->ip6 += r[i].eth_type == 0x86dd && r[i].vlan == 5 && r[i].dport == 9 &&
                      r[i].src.s6_addr[0] == 0xfc && r[i].src_mac[5] == 1;
        }
    }
}

static void
test_ovs(void)
{
    struct sums sums = {.ip6 = 0};
    struct flow_sink sink = {.context = &sums, .records = add_up};
    struct collect *c = collect_create(&collect_limits_default, &sink);
    struct replay_counts n = {0};
    char why[256];

    CASE("collect/ovs: a capture of what Open vSwitch 3.1 exports of known packets");
    /* Five times: UDP, IPv4 in frames of 100 bytes, IPv6 in frames of 120 with a tag. */
    CHECK(!replay_file(c, "tests/golden/flows_ovs.pcap", NULL, &n, why, sizeof why));
    CHECK(n.messages == 77 && total(c, "malformed") == 0 && total(c, "exporters") == 4);
    CHECK(sums.packets[0] == 5 && sums.bytes[0] == 500);
    CHECK(sums.packets[1] == 10 && sums.bytes[1] == 5 * (100 - 14) + 5 * (120 - 18));
    CHECK(sums.packets[2] == 10 && sums.bytes[2] == sums.bytes[1]);
    CHECK(sums.ip6 >= 6);
    collect_destroy(c);
}

int
main(void)
{
    test_v5();
    test_v9();
    test_v9_times();
    test_assumed();
    test_clock();
    test_ipfix();
    test_ipfix_many();
    test_ipfix_options();
    test_ipfix_templates();
    test_sflow();
    test_ovs();
    return check_done();
}

/* The exporter: bytes as the RFCs have them, and what our collector makes of
 * them again, over UDP and TCP; collectors that are slow or away. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "collect.h"
#include "drop.h"
#include "export.h"
#include "export_message.h"

#define NOW UINT64_C(1700000000123)

/* --- what the collector got ------------------------------------------------------- */

static struct flow_record got[4096];
static size_t n_got;
static char name_of_11[FLOW_NAME_MAX + 1];

static void
take(void *context, const struct flow_source *from, const struct flow_record *r, size_t n)
{
    (void)context, (void)from;
    for (size_t i = 0; i < n && n_got < 4096; i++) {
        got[n_got++] = r[i];
    }
}

static void
take_name(void *context, const struct flow_source *from, uint32_t index, const char *name)
{
    (void)context, (void)from;
    if (index == 11) {
        snprintf(name_of_11, sizeof name_of_11, "%s", name);
    }
}

static const struct flow_sink sink = {.records = take, .interface = take_name};

/* --- records ------------------------------------------------------------------------ */

static struct flow_record
make(unsigned i, uint16_t eth_type)
{
    struct flow_record r = {
        .start_ms = NOW - 5000,
        .end_ms = NOW - i,
        .packets = 1 + i,
        .bytes = 1000 * (1 + i),
        .in_if = 11,
        .out_if = 12,
        .rule_out = 7,
        .rule_in = 8,
        .network = 3,
        .tenant = 4,
        .in_vif = 701,
        .out_vif = 702,
        .sampling = 1,
        .domain = 77,
        .eth_type = eth_type,
        .vlan = 30,
        .customer_vlan = 40,
        .src_mac = {2, 0, 0, 0, 0, 1},
        .dst_mac = {2, 0, 0, 0, 0, 2},
        .direction = FLOW_INGRESS,
        .end = FLOW_END_IDLE,
        .forwarding = 64,
        .drop = i % 2 ? 1 + DROP_DP_POLICY : 0,
        .tunnel_key = 99,
    };

    if (eth_type == 0x0800 || eth_type == 0x86dd) {
        memset(&r.src, eth_type == 0x0800 ? 0 : 0xfd, 16);
        if (eth_type == 0x0800) {
            r.src.s6_addr[10] = r.src.s6_addr[11] = 0xff;
        }
        r.dst = r.src;
        put_be32(r.src.s6_addr + 12, 0x0a000001 + i);
        put_be32(r.dst.s6_addr + 12, 0x0a010001);
        r.sport = 1000 + i;
        r.dport = 80;
        r.proto = 6;
        r.tos = 0x10;
        r.tcp_flags = 0x13;
    }
    return r;
}

/* Any values, of as many bits as there are; the same in each run. */
static uint64_t
any(unsigned bits)
{
    static uint64_t x = 1;

    x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (x ^ x >> 29) >> (64 - bits);
}

static void
scramble(struct flow_record *r, enum export_version version)
{
    unsigned counter = version == EXPORT_V5 ? 31 : 64;

    r->packets = any(counter) | 1;
    r->bytes = any(counter) | 1;
    r->end_ms = NOW - any(21);
    r->start_ms = r->end_ms - any(20);
    r->in_if = any(version == EXPORT_V5 ? 16 : 32);
    r->out_if = any(version == EXPORT_V5 ? 16 : 32);
    r->vlan = any(12);
    r->customer_vlan = any(12);
    r->tunnel_key = any(56);
    r->forwarding = any(8);
    r->end = any(8);
    r->rule_out = any(32);
    r->rule_in = any(32);
    r->network = any(32);
    r->tenant = any(32);
    r->in_vif = any(32);
    r->out_vif = any(32);
    r->drop = any(16);
    if (r->proto) {
        r->proto = any(2) ? any(8) | 1 : IPPROTO_ICMP;
        r->tos = any(8);
        r->sport = r->proto == IPPROTO_ICMP || r->proto == IPPROTO_ICMPV6 ? 0 : any(16);
        r->dport = any(16) | 1;
        r->tcp_flags = any(16);
        put_be32(r->src.s6_addr + 12, any(32));
    }
}

/* --- sockets -------------------------------------------------------------------------- */

static int
open_port(int type, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), size = 4 << 20;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    CHECK(!bind(fd, (struct sockaddr *)&a, sizeof a));
    getsockname(fd, (struct sockaddr *)&a, &len);
    *port = ntohs(a.sin_port);
    if (type == SOCK_STREAM) {
        CHECK(!listen(fd, 4));
    }
    return fd;
}

static struct export *
start(enum export_version version, const char *transport, uint16_t port, size_t queue)
{
    struct export_config c = {
        .version = version, .domain = 77, .sampling = 1, .n_targets = 1, .queue_bytes = queue};
    struct export_interface i = {.index = 11, .name = "vif1.0", .vif = "uuid-of-vif"};
    struct export *e = NULL;
    char why[256];

    snprintf(c.targets[0], sizeof c.targets[0], "%s127.0.0.1:%u", transport, port);
    CHECK(!export_create(&c, &e, why, sizeof why));
    export_interfaces(e, &i, 1);
    return e;
}

static const struct collect_peer peer = {.transport = FLOW_UDP, .port = 9};

static void
collect_udp(struct collect *c, int fd)
{
    uint8_t bytes[2048];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        CHECK(n <= EXPORT_MESSAGE_MAX);
        CHECK(!collect_message(c, &peer, NOW, bytes, n));
    }
}

/* --- cases ------------------------------------------------------------------------------- */

static void
test_v5_bytes(void)
{
    static const uint8_t golden[] = {
        0,  5,    0, 1,  0,  0x36, 0xee, 0x80, 0x65, 0x53, 0xf1, 0,    7, 0x54, 0xd4, 0xc0,
        0,  0,    0, 42, 1,  7,    0,    1, /* header */
        10, 0,    0, 1,  10, 1,    0,    1,    0,    0,    0,    0,    0, 11,   0,    12,
        0,  0,    0, 1,  0,  0,    3,    0xe8, 0,    0x36, 0xda, 0xf8, 0, 0x36, 0xee, 0x80,
        3,  0xe8, 0, 80, 0,  0x13, 6,    0x10, 0,    0,    0,    0,    0, 0,    0,    0,
    };
    struct export_message m = {
        .version = EXPORT_V5, .domain = 1 << 8 | 7, .sampling = 1, .boot = NOW - 3600000};
    struct flow_record r = make(0, 0x0800), six = make(0, 0x86dd);
    bool cannot;

    CASE("export: v5, byte by byte");
    export_message_start(&m);
    CHECK(export_message_flow(&m, &r, &cannot) && !cannot);
    CHECK(export_message_flow(&m, &six, &cannot) && cannot);
    export_message_end(&m, NOW);
    export_message_sequence(&m, 42);
    CHECK(m.len == sizeof golden && !memcmp(m.bytes, golden, sizeof golden));
    CHECK(export_message_step(&m) == 1);

    CASE("export: v5 states at most the 14 bits that it has");
    m.sampling = 65535;
    export_message_end(&m, NOW);
    CHECK(get_be16(m.bytes + 22) == 0x7fff);
    m.sampling = 1000;
    export_message_end(&m, NOW);
    CHECK(get_be16(m.bytes + 22) == (0x4000 | 1000));

    CASE("export: v5, counters past 32 bits become several records");
    export_message_start(&m);
    r.bytes = UINT64_C(10000000007);
    r.packets = 1000001;
    CHECK(export_message_flow(&m, &r, &cannot) && m.records == 3);
    {
        uint64_t bytes = 0, packets = 0;
        for (unsigned i = 0; i < 3; i++) {
            packets += get_be32(m.bytes + 24 + 48 * i + 16);
            bytes += get_be32(m.bytes + 24 + 48 * i + 20);
        }
        CHECK(bytes == r.bytes && packets == r.packets);
    }
}

/* Half a terabyte within one period, at the edges of what messages hold. */
static void
test_v5_large(void)
{
    static const uint64_t sizes[] = {UINT64_C(28) * UINT32_MAX - 1, UINT64_C(28) * UINT32_MAX,
                                     UINT64_C(56) * UINT32_MAX - 1, UINT64_C(500000000007)};
    struct collect *c = collect_create(&collect_limits_default, &sink);
    uint16_t port;
    int fd = open_port(SOCK_DGRAM, &port);
    struct export *e = start(EXPORT_V5, "", port, 0);
    uint64_t bytes, packets;

    CASE("export: v5, counters past a message's become several messages");
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct flow_record r = make(i, 0x0800);

        n_got = bytes = packets = 0;
        r.bytes = sizes[i];
        r.packets = sizes[i] / 1000;
        export_run(e, NOW);
        export_records(e, &r, 1, NOW);
        export_run(e, NOW + 5000);
        collect_udp(c, fd);
        for (unsigned n = 0; n < n_got; n++) {
            bytes += got[n].bytes;
            packets += got[n].packets;
        }
        CHECK(bytes == r.bytes && packets == r.packets && n_got >= sizes[i] / UINT32_MAX);
    }
    export_destroy(e);
    collect_destroy(c);
    close(fd);
}

static void
test_ipfix_bytes(void)
{
    struct export_message m = {
        .version = EXPORT_IPFIX, .domain = 77, .sampling = 10, .boot = NOW - 3600000};
    static const uint8_t golden[] = {
        0, 10, 0, 39, 0x65, 0x53, 0xf1, 0,  0, 0, 0, 5,  0, 0, 0, 77, /* header */
        1, 3,  0, 23, 0,    0,    0,    77, 0, 0, 0, 10, 1, 0, 1, 0,  0, 0, 1, 0, 0, 0, 9,
    };

    CASE("export: IPFIX sampling options, byte by byte");
    export_message_start(&m);
    CHECK(export_message_sampling(&m));
    export_message_end(&m, NOW);
    export_message_sequence(&m, 5);
    CHECK(m.len == sizeof golden && !memcmp(m.bytes, golden, sizeof golden));

    CASE("export: templates fit one message");
    for (enum export_version v = EXPORT_V9; v <= EXPORT_IPFIX; v++) {
        m.version = v;
        export_message_start(&m);
        export_message_templates(&m);
        export_message_end(&m, NOW);
        CHECK(m.records == (v == EXPORT_V9 ? 6 : 8) && m.len < EXPORT_MESSAGE_MAX);
        CHECK(!m.data);
    }
}

/* What the exporter says of what it lost. */
static json_int_t
not_sent(const struct collect *c)
{
    json_t *status = collect_status(c, NOW);
    json_int_t n = json_integer_value(
        json_object_get(json_array_get(json_object_get(status, "exporters"), 0), "not_sent"));

    json_decref(status);
    return n;
}

static void
test_mediator(void)
{
    static const char *const originals[] = {"::ffff:192.0.2.1", "2001:db8::1"};
    struct export_message m = {.version = EXPORT_IPFIX, .mediator = true};
    uint64_t flows = 0, packets = 0, octets = 0;
    struct flow_record r;
    bool cannot;

    CASE("export: a mediator's templates fit a message, and what waits is counted");
    export_message_start(&m);
    export_message_templates(&m);
    export_message_end(&m, NOW);
    CHECK(m.len > 1000 && m.len <= EXPORT_MESSAGE_MAX);
    CHECK(m.records == 6 + 5); /* data of IPv4's and IPv6's exporters, options */
    export_message_start(&m);
    for (unsigned i = 0; i < 6; i++) {
        static const uint16_t types[] = {0x0800, 0x86dd, 0x0806};

        inet_pton(AF_INET6, originals[i % 2], &m.original);
        r = make(i, types[i / 2]);
        CHECK(export_message_flow(&m, &r, &cannot) && !cannot);
    }
    export_message_end(&m, NOW);
    CHECK(export_message_count(m.bytes, &flows, &packets, &octets) == m.len);
    CHECK(flows == 6 && packets == 21 && octets == 21000);
}

static void
test_back(const char *name, enum export_version version)
{
    static const uint16_t types[] = {0x0800, 0x86dd, 0x0806};
    struct collect *c = collect_create(&collect_limits_default, &sink);
    struct export_stats stats;
    struct flow_record sent[900];
    uint16_t port;
    int fd = open_port(SOCK_DGRAM, &port);
    struct export *e = start(version, version == EXPORT_V9 ? "udp:" : "", port, 0);
    unsigned types_n = version == EXPORT_V5 ? 1 : 3, wrong = 0;
    uint64_t now = time(NULL) * UINT64_C(1000) + 123; /* uptimes are since the exporter began */

    CASE(name);
    n_got = 0;
    name_of_11[0] = 0;
    export_losses(e, &(struct export_losses){5, 60, 700});
    for (unsigned i = 0; i < 900; i++) {
        sent[i] = make(i, types[i % types_n]);
        if (i >= 300) {
            scramble(&sent[i], version);
        }
        sent[i].start_ms += now - NOW;
        sent[i].end_ms += now - NOW;
    }
    for (unsigned i = 0; i < 900; i += 100) {
        export_records(e, sent + i, 100, now);
        export_run(e, now + i);
        collect_udp(c, fd);
    }
    export_run(e, now + 5000);
    collect_udp(c, fd);
    CHECK(n_got == 900);
    for (unsigned i = 0; i < n_got; i++) {
        struct flow_record *s = &sent[i], *g = &got[i];

        if (version != EXPORT_IPFIX) { /* no field for them */
            s->rule_out = s->rule_in = s->network = s->tenant = 0;
            s->in_vif = s->out_vif = s->drop = 0;
        }
        wrong += s->packets != g->packets || s->bytes != g->bytes || s->in_if != g->in_if ||
                 s->out_if != g->out_if || s->sport != g->sport || s->dport != g->dport ||
                 s->proto != g->proto || s->tos != g->tos || s->rule_out != g->rule_out ||
                 s->rule_in != g->rule_in || s->network != g->network || s->tenant != g->tenant ||
                 s->in_vif != g->in_vif || s->out_vif != g->out_vif || s->drop != g->drop ||
                 memcmp(&s->src, &g->src, 16) || memcmp(&s->dst, &g->dst, 16);
        if (version != EXPORT_V5) {
            wrong += s->vlan != g->vlan || s->customer_vlan != g->customer_vlan ||
                     memcmp(s->src_mac, g->src_mac, 6) || s->tcp_flags != g->tcp_flags ||
                     s->forwarding != g->forwarding || s->end != g->end ||
                     s->tunnel_key != g->tunnel_key || g->sampling != 1;
        }
        wrong += s->start_ms != g->start_ms || s->end_ms != g->end_ms;
    }
    CHECK(!wrong);
    CHECK(version != EXPORT_IPFIX || !strcmp(name_of_11, "vif1.0"));
    export_stats(e, &stats);
    CHECK(stats.records == 900 && !stats.dropped_messages);
    CHECK(not_sent(c) == (version == EXPORT_V5 ? 0 : 5));
    export_destroy(e);
    collect_destroy(c);
    close(fd);
}

/* Templates again once a minute, and to nobody who does not listen. */
static void
test_refresh(void)
{
    uint16_t port;
    int fd = open_port(SOCK_DGRAM, &port);
    struct export *e = start(EXPORT_IPFIX, "", port, 0);
    uint8_t bytes[2048];
    unsigned templates = 0;

    CASE("export: templates at least once a minute");
    for (uint64_t t = 0; t < 300; t++) {
        export_run(e, NOW + t * 1000);
        while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 20) {
            templates += get_be16(bytes + 16) == 2;
        }
    }
    CHECK(templates == 5);
    export_destroy(e);
    close(fd);
}

/* Reads what there is, whole messages only. */
static unsigned
collect_stream(struct collect *c, int fd, uint8_t *buf, size_t *len, size_t most)
{
    struct collect_peer p = {.transport = FLOW_TCP, .connection = 5};
    ssize_t n = recv(fd, buf + *len, most, MSG_DONTWAIT);
    size_t at = 0, m;

    *len += n > 0 ? n : 0;
    while (*len - at >= 4 && (m = collect_message_len(buf + at)) && at + m <= *len) {
        CHECK(!collect_message(c, &p, NOW, buf + at, m));
        at += m;
    }
    memmove(buf, buf + at, *len - at);
    *len -= at;
    return at;
}

static void
test_stream(void)
{
    struct collect *c = collect_create(&collect_limits_default, &sink);
    struct export_collector_stats s, before;
    uint16_t port;
    int listener = open_port(SOCK_STREAM, &port), fd = -1;
    static uint8_t buf[1 << 20];
    struct export *e;
    size_t len = 0;
    uint64_t now = NOW;

    /* So that a collector that does not read is soon felt, whatever the kernel's
     * idea of a good buffer. */
    CHECK(!setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int)));
    e = start(EXPORT_IPFIX, "tcp:", port, 65536);

    CASE("export: IPFIX over TCP");
    n_got = 0;
    for (unsigned i = 0; i < 50; i++) {
        export_run(e, now += 10);
    }
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    CHECK(fd >= 0);
    for (unsigned i = 0; i < 200; i++) {
        struct flow_record r = make(i, 0x0800);
        export_records(e, &r, 1, now);
        export_run(e, now += 100);
        collect_stream(c, fd, buf, &len, 16384);
    }
    for (unsigned i = 0; i < 20; i++) {
        export_run(e, now += 100);
        collect_stream(c, fd, buf, &len, 16384);
    }
    CHECK(n_got == 200);

    CASE("export: a collector that does not read costs its own records");
    for (unsigned i = 0; i < 60000; i++) {
        struct flow_record r = make(i, 0x0800);
        export_records(e, &r, 1, now);
        if (i % 100 == 0) {
            export_run(e, now += 10);
        }
    }
    export_collector_stats(e, 0, &s);
    CHECK(s.dropped_records > 10000 && s.connected && s.queued <= 65536);
    CHECK(s.records + s.dropped_records > 60000 - 20);
    for (unsigned i = 0; i < 20000 && n_got < 4096; i++) {
        export_run(e, now += 10);
        collect_stream(c, fd, buf, &len, 16384);
    }
    CHECK(n_got == 4096); /* whole messages, still */

    CASE("export: what waits for a collector that goes is lost, and counted");
    for (unsigned i = 0; i < 20000; i++) {
        struct flow_record r = make(0, 0x0800);
        export_records(e, &r, 1, now);
    }
    export_run(e, now += 1000);
    export_collector_stats(e, 0, &s);
    CHECK(s.connected && s.queued > 40000);
    before = s;
    close(fd);
    for (unsigned i = 0; i < 2000 && s.connected; i++) {
        export_run(e, now += 1);
        export_collector_stats(e, 0, &s);
    }
    CHECK(!s.connected && !s.queued);
    CHECK(s.records + s.dropped_records == before.records + before.dropped_records);
    CHECK(s.messages + s.dropped_messages == before.messages + before.dropped_messages);
    CHECK(s.dropped_records > before.dropped_records + 250);
    CHECK(s.dropped_bytes - before.dropped_bytes ==
          1000 * (s.dropped_packets - before.dropped_packets));
    CHECK(s.dropped_packets - before.dropped_packets >= s.dropped_records - before.dropped_records);

    CASE("export: a collector that comes again gets templates first");
    collect_closed(c, 5);
    len = n_got = 0;
    for (unsigned i = 0; i < 2000 && s.connects < 2; i++) {
        export_run(e, now += 100);
        export_collector_stats(e, 0, &s);
    }
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    CHECK(fd >= 0);
    for (unsigned i = 0; i < 50; i++) {
        struct flow_record r = make(i, 0x86dd);
        export_records(e, &r, 1, now);
        export_run(e, now += 300);
        collect_stream(c, fd, buf, &len, 16384);
    }
    CHECK(n_got >= 48 && got[0].rule_in == 8);
    close(fd);
    export_destroy(e);
    collect_destroy(c);
    close(listener);
}

static void
test_targets(void)
{
    static const char *const wrong[] = {
        "",       "1.2.3.4",        "1.2.3.4:",       "host:99",      "::1:9",
        "[::1:9", "1.2.3.4:99999x", "sctp:1.2.3.4:9", "tls:1.2.3.4:9"};
    struct export_config c = {.version = EXPORT_IPFIX, .n_targets = 1};
    struct export *e;
    char why[256];

    CASE("export: targets that are none");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(c.targets[0], sizeof c.targets[0], "%s", wrong[i]);
        why[0] = '\0';
        CHECK(export_create(&c, &e, why, sizeof why) == EINVAL && strlen(why) > 10);
    }
    strcpy(c.targets[0], "tcp:[::1]:4739");
    CHECK(!export_create(&c, &e, why, sizeof why));
    export_destroy(e);
    c.version = EXPORT_V9;
    CHECK(export_create(&c, &e, why, sizeof why) == EINVAL);
}

int
main(void)
{
    test_v5_bytes();
    test_v5_large();
    test_ipfix_bytes();
    test_mediator();
    test_back("export: v5 and back", EXPORT_V5);
    test_back("export: v9 and back", EXPORT_V9);
    test_back("export: IPFIX and back", EXPORT_IPFIX);
    test_refresh();
    test_stream();
    test_targets();
    return check_done();
}

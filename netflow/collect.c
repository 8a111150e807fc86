/* Which protocol a message is of; NetFlow v5; records on their way to the sink. */
#include "collect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "collect_priv.h"

#define V5_HEADER 24u
#define V5_RECORD 48u
#define V5_SAMPLING_MASK 0x3fffu

const struct collect_limits collect_limits_default = {
    .exporters = 4096,
    .exporters_per_host = 256,
    .templates = 1024,
    .fields = 256,
    .exporter_bytes = 1 << 20,
    .total_bytes = 64 << 20,
    .records_per_s = 1000000,
    .template_ms = 30 * 60 * 1000,
    .idle_ms = 60 * 60 * 1000,
    .wait_ms = 60 * 1000,
    .wait_bytes = 64 << 10,
};

struct collect *
collect_create(const struct collect_limits *limits, const struct flow_sink *sink)
{
    struct collect *c = calloc(1, sizeof *c);

    if (!c) {
        return NULL;
    }
    c->limits = *limits;
    c->sink = *sink;
    if (exporters_init(c)) {
        collect_destroy(c);
        return NULL;
    }
    return c;
}

void
collect_destroy(struct collect *c)
{
    if (c) {
        exporters_destroy(c);
        free(c);
    }
}

bool
collect_assume(struct collect *c, const struct in6_addr *a, unsigned bits, uint32_t rate)
{
    if (c->n_assumed == COLLECT_ASSUME_MAX) {
        return false;
    }
    c->assumed[c->n_assumed++] = (struct assumed){*a, bits, rate};
    return true;
}

/* --- records -------------------------------------------------------------------- */

void
collect_flush(struct collect *c)
{
    unsigned n = c->n_batch;

    c->n_batch = 0;
    if (n) {
        c->sink.records(c->sink.context, &c->batch_of->source, c->batch, n);
    }
}

struct flow_record *
collect_records(struct collect *c, struct exporter *e, unsigned *n)
{
    if (c->n_batch && (c->n_batch == BATCH || c->batch_of != e)) {
        collect_flush(c);
    }
    c->batch_of = e;
    *n = BATCH - c->n_batch;
    return &c->batch[c->n_batch];
}

struct flow_record *
collect_record(struct collect *c, struct exporter *e)
{
    unsigned n;

    return collect_records(c, e, &n);
}

void
collect_emit_many(struct collect *c, struct exporter *e, unsigned n)
{
    if (c->limits.records_per_s) {
        unsigned may = e->credit < n ? (unsigned)e->credit : n;

        e->n.limited += n - may;
        e->credit -= may;
        n = may;
    }
    e->n.records += n;
    c->n.records += n;
    c->n_batch += n;
}

void
collect_emit(struct collect *c, struct exporter *e)
{
    collect_emit_many(c, e, 1);
}

static void
refill(struct collect *c, struct exporter *e, uint64_t now_ms)
{
    uint64_t passed = now_ms > e->credit_ms ? now_ms - e->credit_ms : 0;

    if (passed >= 1000) {
        e->credit = c->limits.records_per_s;
        e->credit_ms = now_ms;
    } else if (passed * c->limits.records_per_s >= 1000) {
        uint64_t more = passed * c->limits.records_per_s / 1000;

        e->credit =
            e->credit + more < c->limits.records_per_s ? e->credit + more : c->limits.records_per_s;
        e->credit_ms = now_ms;
    }
}

struct exporter *
collect_exporter(struct collect *c, const struct collect_peer *peer, uint64_t now_ms,
                 uint8_t protocol, uint32_t domain, const struct in6_addr *agent)
{
    struct exporter_key k = {
        .address = peer->address,
        .connection = peer->connection,
        .domain = domain,
        .port = peer->port,
        .protocol = protocol,
        .transport = peer->transport,
    };
    struct exporter *e;

    if (agent) {
        k.agent = *agent;
    }
    e = exporter_get(c, &k, now_ms);
    if (e) {
        e->n.messages++;
        refill(c, e, now_ms);
    }
    return e;
}

/* --- NetFlow v5 ------------------------------------------------------------------- */

static void
map_ip4(struct in6_addr *a, const uint8_t *p)
{
    memset(a, 0, 10);
    memset(a->s6_addr + 10, 0xff, 2);
    memcpy(a->s6_addr + 12, p, 4);
}

static void
read_v5(const uint8_t *p, uint64_t export_ms, uint32_t uptime_ms, struct flow_record *r)
{
    *r = (struct flow_record){
        .in_if = get_be16(p + 12),
        .out_if = get_be16(p + 14),
        .packets = get_be32(p + 16),
        .bytes = get_be32(p + 20),
        .start_ms = export_ms - (int32_t)(uptime_ms - get_be32(p + 24)),
        .end_ms = export_ms - (int32_t)(uptime_ms - get_be32(p + 28)),
        .sport = get_be16(p + 32),
        .dport = get_be16(p + 34),
        .tcp_flags = p[37],
        .proto = p[38],
        .tos = p[39],
        .eth_type = 0x0800,
    };
    if (r->start_ms > r->end_ms) {
        r->start_ms = r->end_ms;
    }
    map_ip4(&r->src, p);
    map_ip4(&r->dst, p + 4);
    if (r->proto == IPPROTO_ICMP) {
        r->sport = 0;
    }
}

static int
decode_v5(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    const uint8_t *h = cursor_take(&in, V5_HEADER), *p;
    uint32_t uptime, sampling;
    uint64_t export_ms;
    struct exporter *e;
    unsigned n;

    if (!h) {
        return EPROTO;
    }
    n = get_be16(h + 2);
    uptime = get_be32(h + 4);
    export_ms = get_be32(h + 8) * UINT64_C(1000) + get_be32(h + 12) / 1000000;
    sampling = get_be16(h + 22) & V5_SAMPLING_MASK;
    if (in.left < n * V5_RECORD) {
        return EPROTO; /* who counts wrong is no exporter */
    }
    if (!(e = collect_exporter(c, peer, now_ms, FLOW_NETFLOW5, get_be16(h + 20), NULL))) {
        return ENOSPC;
    }
    sequence_check(e, get_be32(h + 16), n, false, uptime);
    e->sampling = sampling;
    while (n-- && (p = cursor_take(&in, V5_RECORD))) {
        struct flow_record *r = collect_record(c, e);

        read_v5(p, export_ms, uptime, r);
        r->sampling = sampling;
        r->domain = e->key.domain;
        collect_emit(c, e);
    }
    return 0;
}

/* --- messages ----------------------------------------------------------------------- */

static int
decode(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    unsigned version;

    if (in.left < 4) {
        return EPROTONOSUPPORT;
    }
    version = get_be16(in.p);
    if (peer->connection && version != 10) {
        return EPROTONOSUPPORT; /* streams are IPFIX's */
    }
    switch (version) {
    case 0: /* the upper half of sFlow's 32 bits */
        return get_be32(in.p) == 5 ? decode_sflow(c, peer, now_ms, in) : EPROTONOSUPPORT;
    case 5:
        return decode_v5(c, peer, now_ms, in);
    case 9:
    case 10:
        return decode_sets(c, peer, now_ms, in);
    default:
        return EPROTONOSUPPORT;
    }
}

int
collect_message(struct collect *c, const struct collect_peer *peer, uint64_t now_ms,
                const uint8_t *data, size_t len)
{
    int error = decode(c, peer, now_ms, cursor_on(data, len));

    collect_flush(c);
    c->n.messages++;
    c->n.bytes += len;
    c->n.malformed += error == EPROTO;
    c->n.unknown_protocol += error == EPROTONOSUPPORT;
    return error;
}

size_t
collect_message_len(const uint8_t data[4])
{
    return get_be16(data) == 10 && get_be16(data + 2) >= 16 ? get_be16(data + 2) : 0;
}

/* --- time ----------------------------------------------------------------------------- */

static struct exporter *
next_of(struct link *l)
{
    return (struct exporter *)((char *)l->next - offsetof(struct exporter, idle));
}

void
collect_closed(struct collect *c, uint64_t connection)
{
    struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        for (struct link *l = lists[i]; l->next != lists[i];) {
            struct exporter *e = next_of(l);

            if (e->key.connection == connection) {
                exporter_drop(c, e);
            } else {
                l = l->next;
            }
        }
    }
}

void
collect_tick(struct collect *c, uint64_t now_ms)
{
    struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        for (struct link *l = lists[i]; l->next != lists[i];) {
            struct exporter *e = next_of(l);

            if (!e->key.connection && e->seen_ms + c->limits.idle_ms <= now_ms) {
                exporter_drop(c, e);
                continue;
            }
            exporter_expire(c, e, now_ms);
            l = l->next;
        }
    }
}

void
collect_clock_stepped(struct collect *c, int64_t by_ms)
{
    struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        for (struct link *l = lists[i]; l->next != lists[i]; l = l->next) {
            exporter_shift(next_of(l), by_ms);
        }
    }
}

void
collect_kernel_drops(struct collect *c, uint64_t n)
{
    c->n.kernel_drops += n;
}

/* NetFlow v9 (RFC 3954) and IPFIX (RFC 7011): messages of sets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "collect_priv.h"

#define V9_HEADER 20u
#define IPFIX_HEADER 16u
#define SET_HEADER 4u
#define SET_FIRST_DATA 256u
#define ETH_TYPE_IP4 0x0800u
#define ETH_TYPE_IP6 0x86ddu
#define WAITING_FIXED sizeof(struct waiting)
#define WAITING_MAX 64u /* sets, each looked at when a template comes */
#define RUN_MAX 32u     /* records read at once: what fits into the innermost cache */

struct message {
    struct collect *c;
    struct exporter *e;
    uint64_t now_ms, export_ms;
    uint32_t uptime;
    enum template_dialect dialect;
    uint32_t n_records; /* of data, options included */
    bool unknown;       /* some set could not be counted */
};

/* --- data ----------------------------------------------------------------------- */

/* The Unix time of an uptime; 0: nobody says since when it is up. */
static uint64_t
of_uptime(const struct message *m, const struct template_extra *x, uint64_t uptime_ms)
{
    if (x->init_ms) {
        return x->init_ms + uptime_ms;
    }
    return m->dialect == TEMPLATE_V9 ? m->export_ms - (int32_t)(m->uptime - (uint32_t)uptime_ms)
                                     : 0;
}

static void
set_times(const struct message *m, const struct template *t, const struct template_extra *x,
          struct flow_record *r)
{
    if (t->start_uptime) {
        r->start_ms = of_uptime(m, x, r->start_ms);
    }
    if (t->end_uptime) {
        r->end_ms = of_uptime(m, x, r->end_ms);
    }
    if (!r->end_ms) {
        r->end_ms = r->start_ms ? r->start_ms + x->duration_ms : m->export_ms;
    }
    if (!r->start_ms || r->start_ms > r->end_ms) {
        r->start_ms = x->duration_ms < r->end_ms ? r->end_ms - x->duration_ms : r->end_ms;
    }
}

/* An IPv4 template's all-zero address is 0.0.0.0; one of both families has it for absence. */
static void
set_type(const struct template *t, const struct template_extra *x, struct flow_record *r)
{
    static const struct in6_addr none;

    if (r->eth_type || (!t->ip4 && !t->ip6)) {
        return;
    }
    if (x->ip_version == 4 || x->ip_version == 6) {
        r->eth_type = x->ip_version == 4 ? ETH_TYPE_IP4 : ETH_TYPE_IP6;
    } else if (t->ip4 && t->ip6) {
        bool ip4 = IN6_IS_ADDR_V4MAPPED(&r->src) || IN6_IS_ADDR_V4MAPPED(&r->dst);

        r->eth_type = ip4 ? ETH_TYPE_IP4 : memcmp(&r->src, &none, sizeof none) ? ETH_TYPE_IP6 : 0;
    } else {
        r->eth_type = t->ip4 ? ETH_TYPE_IP4 : ETH_TYPE_IP6;
    }
}

static void
set_ports(const struct template_extra *x, struct flow_record *r)
{
    if (r->proto == IPPROTO_ICMP || r->proto == IPPROTO_ICMPV6) {
        if (x->icmp) {
            r->dport = x->icmp;
        } else if (x->icmp_type || x->icmp_code) {
            r->dport = x->icmp_type << 8 | (x->icmp_code & 0xff);
        }
        r->sport = 0;
    }
    if (x->fragment) {
        r->fragments = 1;
    }
}

/* 'rate' is of all that does not name a sampler. */
static void
set_sampling(const struct exporter *e, const struct template_extra *x, uint32_t rate,
             struct flow_record *r)
{
    if (r->sampling) {
        return;
    }
    if (x->packet_interval) {
        uint64_t of = (uint64_t)x->packet_interval + x->packet_space;

        r->sampling = of / x->packet_interval < UINT32_MAX ? of / x->packet_interval : UINT32_MAX;
    } else {
        r->sampling = x->sampler ? exporter_rate(e, x->sampler) : rate;
    }
}

static void
emit_reverse(const struct message *m, const struct flow_record *forward,
             const struct template_extra *x)
{
    struct flow_record saved = *forward, *r = collect_record(m->c, m->e);

    *r = saved;
    r->src = saved.dst;
    r->dst = saved.src;
    if (saved.proto != IPPROTO_ICMP && saved.proto != IPPROTO_ICMPV6) {
        r->sport = saved.dport;
        r->dport = saved.sport;
    }
    r->in_if = saved.out_if;
    r->out_if = saved.in_if;
    memcpy(r->src_mac, saved.dst_mac, 6);
    memcpy(r->dst_mac, saved.src_mac, 6);
    r->packets = x->reverse_packets;
    r->bytes = x->reverse_bytes;
    collect_emit(m->c, m->e);
}

/* What the fields alone do not say. */
static inline void
complete(const struct message *m, const struct template *t, uint32_t rate, struct flow_record *r,
         const struct template_extra *x)
{
    set_times(m, t, x, r);
    set_type(t, x, r);
    set_ports(x, r);
    set_sampling(m->e, x, rate, r);
    if (!r->min_ttl) {
        r->min_ttl = r->max_ttl;
    } else if (!r->max_ttl) {
        r->max_ttl = r->min_ttl;
    }
    r->domain = m->e->key.domain;
}

static void
take_flow(const struct message *m, const struct template *t, struct flow_record *r,
          const struct template_extra *x)
{
    complete(m, t, exporter_rate(m->e, 0), r, x);
    if (x->reverse_packets || x->reverse_bytes) {
        struct flow_record forward = *r;

        if (r->packets || r->bytes) {
            collect_emit(m->c, m->e);
        }
        emit_reverse(m, &forward, x);
    } else {
        collect_emit(m->c, m->e);
    }
}

static void
take_names(const struct message *m, const struct template *t, struct cursor in)
{
    const uint8_t *p = in.p;
    struct template_layout at;

    if (template_layout(t, &in, &at)) {
        decode_names(m->c, m->e, t, p, &at);
    }
}

static bool
take_one_flow(const struct message *m, const struct template *t, struct cursor *in)
{
    struct template_extra x;
    struct flow_record *r;

    if (t->n_names) {
        take_names(m, t, *in);
    }
    r = collect_record(m->c, m->e);
    if (!template_read(t, in, m->export_ms, r, &x)) {
        return false;
    }
    take_flow(m, t, r, &x);
    return true;
}

/* Records of fixed length of flows that go one way. */
static uint32_t
take_runs(const struct message *m, const struct template *t, struct cursor in)
{
    static const struct template_extra none;
    struct template_extra extra[RUN_MAX];
    uint32_t rate = exporter_rate(m->e, 0), taken = 0;

    while (in.left >= t->min_len) {
        unsigned room, n;
        struct flow_record *r = collect_records(m->c, m->e, &room);

        n = template_read_many(t, &in, m->export_ms, r, extra, room < RUN_MAX ? room : RUN_MAX);
        for (unsigned i = 0; i < n; i++) {
            complete(m, t, rate, &r[i], t->extras ? &extra[i] : &none);
        }
        collect_emit_many(m->c, m->e, n);
        taken += n;
    }
    return taken;
}

/* Records of a template; what is left over is padding.  Returns how many. */
static uint32_t
take_records(const struct message *m, const struct template *t, struct cursor in)
{
    uint32_t n = 0;

    if (t->is_flow && !t->variable && !t->reverse && !t->n_names) {
        return take_runs(m, t, in);
    }
    while (in.left >= t->min_len && !in.failed) {
        const uint8_t *p = in.p;
        struct template_layout at;

        if (t->is_flow) {
            n += take_one_flow(m, t, &in);
        } else if (template_layout(t, &in, &at)) {
            n++;
            if (t->options) {
                decode_options(m->c, m->e, t, p, &at);
            } else {
                m->e->n.not_flows++;
            }
        }
    }
    m->e->n.malformed += in.failed;
    return n;
}

/* --- data before its template ----------------------------------------------------- */

static void
wait_for_template(struct message *m, uint16_t id, struct cursor in)
{
    struct exporter *e = m->e;
    size_t bytes = WAITING_FIXED + in.left;
    bool room = e->n_waiting < WAITING_MAX && e->waiting_bytes + bytes <= m->c->limits.wait_bytes;
    struct waiting *w = room ? exporter_alloc(m->c, e, bytes) : NULL;

    m->unknown = true;
    if (!w) {
        e->n.without_template++;
        return;
    }
    w->until_ms = m->now_ms + m->c->limits.wait_ms;
    w->export_ms = m->export_ms;
    w->uptime = m->uptime;
    w->id = id;
    w->len = in.left;
    memcpy(w->data, in.p, in.left);
    *e->waiting_end = w;
    e->waiting_end = &w->next;
    e->waiting_bytes += bytes;
    e->n_waiting++;
}

/* The template has come: what waited for it goes through. */
static void
take_waiting(const struct message *m, const struct template *t)
{
    struct exporter *e = m->e;

    for (struct waiting **at = &e->waiting; *at;) {
        struct waiting *w = *at;

        if (w->id == t->id) {
            struct message then = *m;

            then.export_ms = w->export_ms;
            then.uptime = w->uptime;
            take_records(&then, t, cursor_on(w->data, w->len));
            *at = w->next;
            e->waiting_bytes -= WAITING_FIXED + w->len;
            e->n_waiting--;
            exporter_free(m->c, e, w, WAITING_FIXED + w->len);
        } else {
            at = &w->next;
        }
    }
    for (e->waiting_end = &e->waiting; *e->waiting_end;) {
        e->waiting_end = &(*e->waiting_end)->next;
    }
}

/* --- templates ------------------------------------------------------------------- */

/* RFC 7011, 8: over TCP only; an id of a set means all of its kind. */
static void
withdraw(const struct message *m, uint16_t id, bool options)
{
    m->e->n.withdrawals++;
    if (!m->e->key.connection) {
        return;
    }
    if (id >= SET_FIRST_DATA) {
        exporter_remove_template(m->c, m->e, id);
        return;
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct template *next, *t = m->e->templates[i]; t; t = next) {
            next = t->next;
            if (t->options == options) {
                exporter_remove_template(m->c, m->e, t->id);
            }
        }
    }
}

/* False: what follows in the set cannot be found. */
static bool
take_template(const struct message *m, struct cursor *in, bool options)
{
    struct template *t;
    int error = template_parse(in, m->dialect, options, m->c->limits.fields, &t);
    uint16_t id;

    if (error) {
        m->e->n.refused += error == E2BIG || error == ENOMEM;
        m->e->n.malformed += error == EPROTO || error == EINVAL;
        return error != EPROTO;
    }
    id = t->id;
    if (!t->n_fields || id < SET_FIRST_DATA) {
        if (!t->n_fields) {
            withdraw(m, id, options);
        } else {
            m->e->n.malformed++;
        }
        free(t);
        return true;
    }
    t->seen_ms = m->now_ms;
    if (exporter_add_template(m->c, m->e, t) && m->e->waiting) {
        take_waiting(m, exporter_template(m->e, id));
    }
    return true;
}

static void
take_templates(const struct message *m, struct cursor in, bool options)
{
    while (in.left >= SET_HEADER && take_template(m, &in, options)) {
    }
}

/* --- messages --------------------------------------------------------------------- */

static void
take_set(struct message *m, uint16_t id, struct cursor in)
{
    unsigned first = m->dialect == TEMPLATE_V9 ? 0 : 2;

    if (id >= SET_FIRST_DATA) {
        const struct template *t = exporter_template(m->e, id);

        if (t) {
            m->n_records += take_records(m, t, in);
        } else {
            wait_for_template(m, id, in);
        }
    } else if (id == first || id == first + 1) {
        take_templates(m, in, id == first + 1);
    } else {
        m->e->n.malformed++;
    }
}

static int
take_sets(struct message *m, struct cursor in)
{
    while (in.left >= SET_HEADER) {
        const uint8_t *h = cursor_take(&in, SET_HEADER), *body;
        unsigned len = get_be16(h + 2);

        if (len < SET_HEADER || !(body = cursor_take(&in, len - SET_HEADER))) {
            m->e->n.malformed++;
            return EPROTO;
        }
        take_set(m, get_be16(h), cursor_on(body, len - SET_HEADER));
    }
    return 0;
}

static int
decode_v9(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    const uint8_t *h = cursor_take(&in, V9_HEADER);
    struct message m = {.c = c, .now_ms = now_ms, .dialect = TEMPLATE_V9};

    if (!h) {
        return EPROTO;
    }
    m.uptime = get_be32(h + 4);
    m.export_ms = get_be32(h + 8) * UINT64_C(1000);
    if (!(m.e = collect_exporter(c, peer, now_ms, FLOW_NETFLOW9, get_be32(h + 16), NULL))) {
        return ENOSPC;
    }
    if (sequence_check(m.e, get_be32(h + 12), 1, false, m.uptime)) {
        exporter_forget_templates(c, m.e); /* RFC 3954, 10: it may number them anew */
    }
    return take_sets(&m, in);
}

static int
decode_ipfix(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    const uint8_t *h = cursor_take(&in, IPFIX_HEADER);
    struct message m = {.c = c, .now_ms = now_ms, .dialect = TEMPLATE_IPFIX};
    unsigned len;
    int error;

    if (!h || (len = get_be16(h + 2)) < IPFIX_HEADER || len - IPFIX_HEADER > in.left) {
        return EPROTO;
    }
    in.left = len - IPFIX_HEADER;
    m.export_ms = get_be32(h + 4) * UINT64_C(1000);
    if (!(m.e = collect_exporter(c, peer, now_ms, FLOW_IPFIX, get_be32(h + 12), NULL))) {
        return ENOSPC;
    }
    error = take_sets(&m, in);
    sequence_check(m.e, get_be32(h + 8), m.n_records, m.unknown || error, 0);
    return error;
}

int
decode_sets(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    return get_be16(in.p) == 9 ? decode_v9(c, peer, now_ms, in) : decode_ipfix(c, peer, now_ms, in);
}

/* flow_wire: messages of exporters, built by hand, and a sink that keeps records.
 *
 * Header only, so that a test needs no more than the files that it tests. */
#ifndef FLOW_WIRE_H
#define FLOW_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "collect.h"

#define NOW UINT64_C(1700000000000)

struct wire {
    uint8_t b[65536];
    size_t n, set; /* 'set': where the open set began */
};

static inline void
w8(struct wire *w, unsigned v)
{
    w->b[w->n++] = v;
}

static inline void
w16(struct wire *w, unsigned v)
{
    put_be16(w->b + w->n, v);
    w->n += 2;
}

static inline void
w32(struct wire *w, uint32_t v)
{
    put_be32(w->b + w->n, v);
    w->n += 4;
}

static inline void
w64(struct wire *w, uint64_t v)
{
    w32(w, v >> 32);
    w32(w, v);
}

static inline void
wbytes(struct wire *w, const void *p, size_t n)
{
    memcpy(w->b + w->n, p, n);
    w->n += n;
}

static inline void
wfield(struct wire *w, unsigned element, unsigned len, uint32_t enterprise)
{
    w16(w, element | (enterprise ? 0x8000 : 0));
    w16(w, len);
    if (enterprise) {
        w32(w, enterprise);
    }
}

static inline void
wset(struct wire *w, unsigned id)
{
    w->set = w->n;
    w16(w, id);
    w16(w, 0);
}

static inline void
wset_end(struct wire *w)
{
    put_be16(w->b + w->set + 2, w->n - w->set);
}

static inline void
wipfix(struct wire *w, uint32_t sequence, uint32_t domain)
{
    w->n = 0;
    w16(w, 10);
    w16(w, 0);
    w32(w, NOW / 1000);
    w32(w, sequence);
    w32(w, domain);
}

static inline void
wv9(struct wire *w, uint32_t uptime_ms, uint32_t sequence, uint32_t domain)
{
    w->n = 0;
    w16(w, 9);
    w16(w, 1);
    w32(w, uptime_ms);
    w32(w, NOW / 1000);
    w32(w, sequence);
    w32(w, domain);
}

/* A template of IPFIX or v9 with a source, a destination, packets and bytes: 16 bytes. */
static inline void
wsimple_template(struct wire *w, unsigned set, unsigned id)
{
    wset(w, set);
    w16(w, id);
    w16(w, 4);
    wfield(w, 8, 4, 0);
    wfield(w, 12, 4, 0);
    wfield(w, 2, 4, 0);
    wfield(w, 1, 4, 0);
    wset_end(w);
}

static inline void
wsimple_data(struct wire *w, unsigned id, unsigned n, uint32_t packets)
{
    wset(w, id);
    for (unsigned i = 0; i < n; i++) {
        w32(w, 0x0a000001);
        w32(w, 0x0a000002 + i);
        w32(w, packets);
        w32(w, packets * 100);
    }
    wset_end(w);
}

/* --- the other side ------------------------------------------------------------ */

struct kept {
    struct flow_record r[4096];
    size_t n; /* more may have come */
    uint64_t packets, bytes;
    struct flow_source last;
    char name[64];
    uint32_t name_index;
};

static inline void
keep_records(void *kept_, const struct flow_source *from, const struct flow_record *r, size_t n)
{
    struct kept *k = kept_;

    k->last = *from;
    for (size_t i = 0; i < n; i++, k->n++) {
        k->packets += r[i].packets;
        k->bytes += r[i].bytes;
        if (k->n < sizeof k->r / sizeof k->r[0]) {
            k->r[k->n] = r[i];
        }
    }
}

static inline void
keep_interface(void *kept_, const struct flow_source *from, uint32_t index, const char *name)
{
    struct kept *k = kept_;

    k->name_index = index;
    snprintf(k->name, sizeof k->name, "%s", name);
}

static inline struct collect *
keep_in(struct kept *k, const struct collect_limits *limits)
{
    struct flow_sink sink = {k, keep_records, keep_interface};

    memset(k, 0, sizeof *k);
    return collect_create(limits, &sink);
}

static inline struct collect_peer
peer_of(uint32_t ip4, uint16_t port, uint64_t connection)
{
    struct collect_peer p = {
        .port = port, .connection = connection, .transport = connection ? FLOW_TCP : FLOW_UDP};

    p.address.s6_addr[10] = p.address.s6_addr[11] = 0xff;
    put_be32(p.address.s6_addr + 12, ip4);
    return p;
}

/* Sends what was built, from memory that ends where it ends; IPFIX gets its length. */
static inline int
wsend(struct wire *w, struct collect *c, const struct collect_peer *peer, uint64_t now_ms)
{
    uint8_t *exact = malloc(w->n ? w->n : 1);
    int error;

    if (w->n >= 16 && get_be16(w->b) == 10) {
        put_be16(w->b + 2, w->n);
    }
    memcpy(exact, w->b, w->n);
    error = collect_message(c, peer, now_ms, exact, w->n);
    free(exact);
    return error;
}

static inline int64_t
total(const struct collect *c, const char *key)
{
    json_t *s = collect_status(c, NOW);
    int64_t v = json_integer_value(json_object_get(json_object_get(s, "totals"), key));

    json_decref(s);
    return v;
}

/* Of the exporter heard last ('i' 0), the one before (1) ...; -1: there is none. */
static inline int64_t
counter(const struct collect *c, size_t i, const char *key)
{
    json_t *s = collect_status(c, NOW);
    json_t *e = json_array_get(json_object_get(s, "exporters"), i);
    int64_t v = e ? json_integer_value(json_object_get(e, key)) : -1;

    json_decref(s);
    return v;
}

static inline bool
is_ip4(const struct in6_addr *a, uint32_t ip4)
{
    return IN6_IS_ADDR_V4MAPPED(a) && get_be32(a->s6_addr + 12) == ip4;
}

#endif

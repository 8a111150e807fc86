/* upcall_rig: upcalls of test packets, from a worker to a handler of ofproto's, for
 * test_dp_upcall*.c.
 *
 *   dp_upcall() on a worker > queue of a handler > dp_upcall_recv() */
#ifndef UPCALL_RIG_H
#define UPCALL_RIG_H

#include "check.h"
#include "dp_rig.h"
#include "flow.h"
#include "odp-util.h"
#include "random.h"

static struct dp_worker *worker; /* upcall_begin() to upcall_end() */

static inline uint64_t
lost(void)
{
    uint64_t n;

    atomic_read_relaxed(&rig_dp->n_lost, &n);
    return n;
}

static inline uint64_t
port_lost(struct dp_port *port)
{
    uint64_t n;

    atomic_read_relaxed(&port->upcalls_lost, &n);
    return n;
}

/* A UDP packet of flow number 'id', whose payload starts with 'seq'. */
static inline struct dp_packet *
udp_packet(uint16_t in_port, uint32_t id, uint32_t seq, size_t payload)
{
    struct dp_packet *b = dp_packet_new_with_headroom(42 + payload, 64);
    struct flow flow = {
        .packet_type = htonl(PT_ETH),
        .dl_type = htons(ETH_TYPE_IP),
        .nw_proto = IPPROTO_UDP,
        .nw_ttl = 64,
        .nw_src = htonl(0x0a000000 + id),
        .nw_dst = htonl(0x0a010001),
        .tp_src = htons(1000),
        .tp_dst = htons(2000),
    };
    uint8_t *l7 = xzalloc(payload);

    memcpy(l7, &seq, MIN(sizeof seq, payload));
    flow_compose(b, &flow, l7, payload);
    free(l7);
    pkt_metadata_init(&b->md, u32_to_odp(in_port));
    return b;
}

static inline uint32_t
seq_of(const struct dp_packet *b)
{
    uint32_t seq;

    memcpy(&seq, (const uint8_t *)dp_packet_data(b) + 42, sizeof seq);
    return seq;
}

/* As the datapath does it; the packet stays the caller's. */
static inline void
upcall(struct dp_worker *w, struct dp_packet *b, enum dpif_upcall_type type,
       const struct nlattr *userdata, const struct nlattr *actions, const struct flow_tnl *tunnel)
{
    struct flow flow;

    flow_extract(b, &flow);
    dp_upcall(w, b, &flow, type, userdata, actions, tunnel);
}

static inline void
send_type(uint16_t in_port, uint32_t id, uint32_t seq, size_t payload, enum dpif_upcall_type type)
{
    struct dp_packet *b = udp_packet(in_port, id, seq, payload);

    worker_begin(worker->worker);
    upcall(worker, b, type, NULL, NULL, NULL);
    worker_end(worker->worker);
    dp_packet_delete(b);
}

static inline void
miss(uint16_t in_port, uint32_t id, uint32_t seq)
{
    send_type(in_port, id, seq, 20, DPIF_UC_MISS);
}

/* What ofproto's recv_upcalls() (ofproto-dpif-upcall.c) keeps for each upcall. */
struct received {
    struct dpif_upcall up;
    struct ofpbuf buf;
    uint64_t stub[512 / 8];
};

static inline bool
receive(uint32_t handler, struct received *r)
{
    ofpbuf_use_stub(&r->buf, r->stub, sizeof r->stub);
    if (dp_upcall_recv(RIG_DPIF, handler, &r->up, &r->buf)) {
        ofpbuf_uninit(&r->buf);
        return false;
    }
    return true;
}

static inline void
done(struct received *r)
{
    dp_packet_uninit(&r->up.packet);
    ofpbuf_uninit(&r->buf);
}

static inline unsigned
drain(uint32_t handler)
{
    struct received r;
    unsigned n = 0;

    while (receive(handler, &r)) {
        done(&r);
        n++;
    }
    return n;
}

static inline uint32_t
in_port_of(const struct received *r)
{
    struct flow flow;

    ovs_assert(odp_flow_key_to_flow(r->up.key, r->up.key_len, &flow, NULL) == ODP_FIT_PERFECT);
    return odp_to_u32(flow.in_port.odp_port);
}

static inline void
upcall_begin(char *argv[])
{
    set_program_name(argv[0]);
    random_set_seed(1);
    rig_start();
    worker = dp_worker_create(rig_dp, 0, false);
    dp_upcall_recv_set(RIG_DPIF, true);
}

static inline int
upcall_end(void)
{
    dp_worker_destroy(worker);
    rig_stop();
    return check_done();
}

#endif

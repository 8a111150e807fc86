/* diff_cases: random packets for test_dp_differential.c, and what the reference
 * says about each.
 *
 * A wrong cache or classifier shows when two packets that it takes for the
 * same get different treatment.  So most packets are twins of others, alike
 * but for a byte; and in most runs all are of one kind, so that rules for just
 * that kind are matched often. */
#ifndef DIFF_CASES_H
#define DIFF_CASES_H

#include "dp.h"
#include "of_table.h"

#define N_FRAMES 2000u /* in the pool that bursts are drawn from */
#define N_BASIC 500u   /* the first of them, that others are like */
#define MAX_STAGES OF_TABLES
#define OUT_MAX (FRAME_MAX + 16)

/* A frame, and what the reference says about it. */
struct case_ {
    struct frame frame;
    bool direct; /* not straight from a port: 'md' says whence */
    uint16_t in_port;
    struct pkt_metadata md;

    unsigned version; /* of the tables, for all that follows */
    unsigned n_stages;
    struct of_rule *rules[MAX_STAGES];
    uint32_t sizes[MAX_STAGES];
    uint16_t port; /* 0: dropped */
    uint32_t out_len;
    uint8_t out[OUT_MAX];
};

static struct frames rnd;
static struct case_ cases[N_FRAMES];

static struct dp_packet *
packet_of(const struct case_ *c)
{
    struct dp_packet *b = dp_packet_new_with_headroom(c->frame.len + 1, 128);

    dp_packet_put(b, c->frame.data, c->frame.len);
    b->packet_type = htonl(PT_ETH);
    b->md = c->md;
    dp_packet_complete(b);
    return b;
}

static void
flow_of(const struct case_ *c, struct flow *flow)
{
    struct dp_packet *b = packet_of(c);

    flow_extract(b, flow);
    dp_packet_delete(b);
}

static void
random_tunnel(struct flow_tnl *t)
{
    if (frames_chance(&rnd, 70)) {
        t->ip_src = htonl(0xc0a80001 + frames_below(&rnd, 3));
        t->ip_dst = htonl(0xc0a80101 + frames_below(&rnd, 2));
    } else {
        t->ipv6_src.s6_addr[15] = 1 + frames_below(&rnd, 3);
        t->ipv6_dst.s6_addr[0] = 0xfd;
        t->ipv6_dst.s6_addr[15] = 1 + frames_below(&rnd, 2);
    }
    t->tun_id = htonll(FRAMES_PICK(&rnd, 0, 5, 6, 0x500));
    t->flags = FLOW_TNL_F_KEY | FRAMES_PICK(&rnd, 0, FLOW_TNL_F_CSUM, FLOW_TNL_F_DONT_FRAGMENT);
    t->ip_ttl = FRAMES_PICK(&rnd, 64, 63);
    t->ip_tos = FRAMES_PICK(&rnd, 0, 0, 0xb8, 3);
    t->tp_src = htons(FRAMES_PICK(&rnd, 4789, 50000, 50001));
    t->tp_dst = htons(4789);
}

/* What conntrack leaves in the metadata of a packet: a tuple if it has a
 * connection, or else "invalid". */
static void
random_connection(struct pkt_metadata *md, const struct flow *flow)
{
    md->ct_mark = 0;
    memset(&md->ct_label, 0, sizeof md->ct_label);
    memset(&md->ct_orig_tuple, 0, sizeof md->ct_orig_tuple);
    md->ct_orig_tuple_ipv6 = false;
    if (!flow || !is_ip_any(flow) || frames_chance(&rnd, 20)) {
        md->ct_state = CS_TRACKED | CS_INVALID;
        md->ct_zone = FRAMES_PICK(&rnd, 0, 1, 2);
        return;
    }
    md->ct_state = CS_TRACKED | FRAMES_PICK(&rnd, CS_NEW, CS_ESTABLISHED,
                                            CS_ESTABLISHED | CS_REPLY_DIR, CS_NEW | CS_RELATED);
    md->ct_zone = FRAMES_PICK(&rnd, 0, 1, 2);
    md->ct_mark = FRAMES_PICK(&rnd, 0, 1, 0x10001);
    md->ct_label.u64.lo = FRAMES_PICK(&rnd, 0, 1);
    md->ct_label.u64.hi = FRAMES_PICK(&rnd, 0, 0x80);
    if (flow->dl_type == htons(ETH_TYPE_IPV6)) {
        md->ct_orig_tuple_ipv6 = true;
        md->ct_orig_tuple.ipv6.ipv6_src.s6_addr[15] = 1 + frames_below(&rnd, 2);
        md->ct_orig_tuple.ipv6.ipv6_dst.s6_addr[15] = 1 + frames_below(&rnd, 2);
        md->ct_orig_tuple.ipv6.ipv6_proto = FRAMES_PICK(&rnd, 6, 17, 58);
        md->ct_orig_tuple.ipv6.src_port = htons(FRAMES_PICK(&rnd, 80, 443));
        md->ct_orig_tuple.ipv6.dst_port = htons(80);
    } else {
        md->ct_orig_tuple.ipv4.ipv4_src = htonl(0x0a000001 + frames_below(&rnd, 2));
        md->ct_orig_tuple.ipv4.ipv4_dst = htonl(0x0a000001 + frames_below(&rnd, 2));
        md->ct_orig_tuple.ipv4.ipv4_proto = FRAMES_PICK(&rnd, 6, 17, 1);
        md->ct_orig_tuple.ipv4.src_port = htons(FRAMES_PICK(&rnd, 80, 443));
        md->ct_orig_tuple.ipv4.dst_port = htons(80);
    }
}

static void
mutate(struct frame *f)
{
    for (unsigned n = 1 + frames_below(&rnd, 3); n; n--) {
        unsigned bit = frames_below(&rnd, 8 * MIN(f->len, 90));
        f->data[bit / 8] ^= 1u << bit % 8;
    }
    if (frames_chance(&rnd, 10)) {
        f->len = frames_below(&rnd, f->len + 1);
    }
}

/* Makes the IP header, if there is one, say that there is less. */
static void
shorten(struct frame *f)
{
    size_t ofs = 2 * ETH_ADDR_LEN;
    uint16_t type, len;

    while (ofs + 6 < f->len && f->data[ofs + 1] != 0xdd &&
           (f->data[ofs] == 0x81 || f->data[ofs] == 0x88)) {
        ofs += 4;
    }
    if (ofs + 20 > f->len) {
        return;
    }
    type = f->data[ofs] << 8 | f->data[ofs + 1];
    ofs += type == ETH_TYPE_IPV6 ? 6 : 4;
    len = (f->data[ofs] << 8 | f->data[ofs + 1]) - 1 - frames_below(&rnd, 20);
    if (type == ETH_TYPE_IP || type == ETH_TYPE_IPV6) {
        f->data[ofs] = len >> 8;
        f->data[ofs + 1] = len;
    }
}

/* Like another one but for a byte of its headers, or its length: what a cache
 * may take for the same though a rule can tell them apart. */
static void
make_twin(struct case_ *c, const struct case_ *like)
{
    struct frame *f = &c->frame;

    *c = *like;
    if (frames_chance(&rnd, 15)) {
        frame_put(f, 0, 1 + frames_below(&rnd, 3));
    } else if (frames_chance(&rnd, 15)) {
        shorten(f);
    } else if (f->len > ETH_HEADER_LEN) {
        unsigned at = frames_chance(&rnd, 10)
                          ? frames_below(&rnd, f->len)
                          : ETH_HEADER_LEN + frames_below(&rnd, MIN(f->len, 78) - ETH_HEADER_LEN);
        f->data[at] ^= frames_chance(&rnd, 70) ? 1u << frames_below(&rnd, 8) : frames_random(&rnd);
    }
    if (f->len > FRAME_MAX - 16) {
        f->len = FRAME_MAX - 16;
    }
}

static void
make_any_case(struct case_ *c)
{
    memset(&c->md, 0, sizeof c->md);
    frame_random(&rnd, &c->frame);
    if (frames_chance(&rnd, 25)) {
        mutate(&c->frame);
    }
    c->in_port = 1 + frames_below(&rnd, 3);
    c->direct = frames_chance(&rnd, 25);
    if (c->direct) {
        if (c->frame.len < ETH_HEADER_LEN) {
            c->frame.len = ETH_HEADER_LEN;
        }
        c->in_port = FRAMES_PICK(&rnd, 1, 2, 10, 11);
    }
    pkt_metadata_init(&c->md, u32_to_odp(c->in_port));
    if (c->in_port >= 10) {
        /* What comes in on a tunnel's port has been in a tunnel. */
        random_tunnel(&c->md.tunnel);
        c->md.recirc_id = FRAMES_PICK(&rnd, 0, 0, 1);
    } else if (c->direct) {
        c->md.recirc_id = 1 + frames_below(&rnd, 2);
    }
    if (c->direct && c->md.recirc_id) {
        struct flow flow;

        flow_of(c, &flow);
        random_connection(&c->md, &flow);
        c->md.skb_priority = FRAMES_PICK(&rnd, 0, 7);
        c->md.pkt_mark = FRAMES_PICK(&rnd, 0, 0xff00);
        c->md.dp_hash = FRAMES_PICK(&rnd, 0, 0x12345678);
    }
}

/* After its bytes have changed.  Conntrack has no connections of packets whose
 * headers it cannot read. */
static void
check_case(struct case_ *c)
{
    struct flow flow;

    c->version = UINT32_MAX;
    if (c->md.ct_state && !(c->md.ct_state & CS_INVALID)) {
        flow_of(c, &flow);
        if (!flow.ct_nw_proto) {
            random_connection(&c->md, NULL);
        }
    }
}

static void
make_case(struct case_ *c, bool twins)
{
    if (twins && frames_chance(&rnd, 60)) {
        make_twin(c, &cases[frames_below(&rnd, N_BASIC)]);
    } else {
        make_any_case(c);
    }
    check_case(c);
}

/* What protocols a frame has, roughly. */
static uint32_t
kind_of(const struct case_ *c)
{
    struct flow flow;

    flow_of(c, &flow);
    return (uint32_t)ntohs(flow.dl_type) << 16 | flow.nw_proto << 8 |
           (is_icmpv4(&flow, NULL) || is_icmpv6(&flow, NULL) ? ntohs(flow.tp_src) : 0);
}

/* Frames of one kind, each kind as often as another. */
static unsigned
make_alike(struct case_ some[], unsigned n)
{
    struct case_ *c = xmalloc(sizeof *c);
    uint32_t kinds[64], wanted;
    unsigned n_kinds = 0, made = 0;

    for (unsigned i = 0; i < 1000 && n_kinds < ARRAY_SIZE(kinds); i++) {
        unsigned k = 0;
        make_any_case(c);
        wanted = kind_of(c);
        while (k < n_kinds && kinds[k] != wanted) {
            k++;
        }
        kinds[k] = wanted;
        n_kinds += k == n_kinds;
    }
    wanted = kinds[frames_below(&rnd, n_kinds)];
    for (unsigned i = 0; i < 3000 && made < n; i++) {
        make_any_case(c);
        if (kind_of(c) == wanted) {
            some[made++] = *c;
        }
    }
    free(c);
    return made;
}

static void
make_cases(void)
{
    static struct case_ alike[16];
    unsigned n_alike = frames_chance(&rnd, 65) ? make_alike(alike, ARRAY_SIZE(alike)) : 0;

    for (unsigned i = 0; i < N_FRAMES; i++) {
        if (i < N_BASIC && n_alike) {
            make_twin(&cases[i], &alike[frames_below(&rnd, n_alike)]);
            check_case(&cases[i]);
        } else {
            make_case(&cases[i], i >= N_BASIC);
        }
    }
}

#endif

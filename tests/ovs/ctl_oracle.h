/* ctl_oracle: what a pool (ctl_pool.h) says of a packet, decided directly.
 *
 * It reads the statements as a person would, and shares nothing with model or
 * compiler.  A packet goes from a vif to a vif, wherever both are: tables,
 * hosts and tunnels do not occur here, but for "is there a way". */
#ifndef CTL_ORACLE_H
#define CTL_ORACLE_H

#include "ctl_pool.h"
#include "flow.h"

/* --- what is in force ------------------------------------------------------------------ */

static inline bool
net_live(const struct pool *p, int n)
{
    return p->nets[n].there;
}

/* Whether a vif that is stated and older has what only one may have: its MAC in a
 * network, its tag or its network in a trunk. */
static inline bool
is_taken(const struct pool *p, int v)
{
    const struct p_vif *b = &p->vifs[v];

    for (int w = 0; w < v; w++) {
        const struct p_vif *a = &p->vifs[w];
        bool siblings = b->parent && a->parent == b->parent;

        if (a->there && ((a->net == b->net && eth_addr_equals(a->mac, b->mac)) ||
                         (siblings && (a->tag == b->tag || a->net == b->net)))) {
            return true;
        }
    }
    return false;
}

static inline bool
vif_live(const struct pool *p, int v)
{
    const struct p_vif *vif = &p->vifs[v];
    int root = vif_root(p, v);

    if (!vif->there || !p->vms[vif->vm] || !net_live(p, vif->net) || is_taken(p, v)) {
        return false;
    }
    return root == v || (!p->vifs[root].parent && p->vifs[root].vm == vif->vm &&
                         p->vifs[root].net != vif->net && vif_live(p, root));
}

/* The host it is plugged in, or NONE. */
static inline int
vif_host(const struct pool *p, int v)
{
    int h = p->vifs[vif_root(p, v)].host;

    return vif_live(p, v) && h != NONE && p->hosts[h].there ? h : NONE;
}

static inline enum model_locking
vif_mode(const struct pool *p, int v)
{
    if (p->vifs[v].locking != NONE) {
        return p->vifs[v].locking;
    }
    return p->nets[p->vifs[v].net].default_disabled ? MODEL_DISABLED : MODEL_UNLOCKED;
}

static inline bool
vif_isolated(const struct pool *p, int v)
{
    return p->vifs[v].isolated || p->nets[p->vifs[v].net].isolated;
}

static inline bool
policy_live(const struct pool *p, int i)
{
    const struct p_policy *q = &p->policies[i];

    if (!q->there) {
        return false;
    }
    switch (q->scope) {
    case MODEL_SCOPE_NETWORK:
        return net_live(p, q->object);
    case MODEL_SCOPE_GROUP:
        return p->groups[q->object].there;
    case MODEL_SCOPE_VM:
        return p->vms[q->object];
    case MODEL_SCOPE_VIF:
        return vif_live(p, q->object);
    default:
        return true;
    }
}

static inline bool
cidr_has(const struct cidr *c, const struct in6_addr *a)
{
    unsigned plen = c->plen + (c->v6 ? 0 : 96);

    if (c->v6 == !!IN6_IS_ADDR_V4MAPPED(a)) {
        return false;
    }
    for (unsigned i = 0; i < plen; i++) {
        if ((c->addr.s6_addr[i / 8] ^ a->s6_addr[i / 8]) & (0x80 >> (i % 8))) {
            return false;
        }
    }
    return true;
}

static inline bool
cidrs_have(const struct cidrs *l, const struct in6_addr *a)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (cidr_has(&l->c[i], a)) {
            return true;
        }
    }
    return false;
}

/* --- groups ------------------------------------------------------------------------------- */

static inline bool
group_has_vif(const struct pool *p, int g, int v)
{
    if (!p->groups[g].there || !vif_live(p, v)) {
        return false;
    }
    if (p->groups[g].vifs[v] || p->groups[g].vms[p->vifs[v].vm]) {
        return true;
    }
    for (int i = 0; i < N_GROUPS; i++) {
        if (p->groups[g].groups[i] && group_has_vif(p, i, v)) {
            return true;
        }
    }
    return false;
}

static inline bool
group_has_address(const struct pool *p, int g, const struct in6_addr *a)
{
    if (!p->groups[g].there) {
        return false;
    }
    if (cidrs_have(&p->groups[g].cidrs, a)) {
        return true;
    }
    for (int v = 0; v < N_VIFS; v++) {
        const struct p_vif *vif = &p->vifs[v];

        if (group_has_vif(p, g, v) &&
            (vif_mode(p, v) == MODEL_LOCKED ? cidrs_have(&vif->v4, a) || cidrs_have(&vif->v6, a)
                                            : cidrs_have(&vif->known, a))) {
            return true;
        }
    }
    for (int i = 0; i < N_GROUPS; i++) {
        if (p->groups[g].groups[i] && group_has_address(p, i, a)) {
            return true;
        }
    }
    return false;
}

/* --- rules ----------------------------------------------------------------------------------- */

/* What rules look at. */
struct subject {
    bool ip; /* else nothing but "any" fits */
    bool v6;
    struct in6_addr src, dst;
    int protocol;
    uint16_t dport;
    int icmp_type, icmp_code;
};

enum saying { SAYS_DENY, SAYS_STATEFUL, SAYS_STATELESS };

static inline bool
in_scope(const struct pool *p, const struct p_policy *q, int v)
{
    switch (q->scope) {
    case MODEL_SCOPE_NETWORK:
        return p->vifs[v].net == q->object;
    case MODEL_SCOPE_GROUP:
        return group_has_vif(p, q->object, v);
    case MODEL_SCOPE_VM:
        return p->vifs[v].vm == q->object;
    case MODEL_SCOPE_VIF:
        return v == q->object;
    default:
        return true;
    }
}

/* Whom the rule is about is not known: it is left out, or, if it denies, about
 * everybody. */
static inline bool
is_in_doubt(const struct pool *p, const struct p_rule *r)
{
    return r->remote_group != NONE && !p->groups[r->remote_group].there;
}

static inline bool
fits(const struct pool *p, const struct p_rule *r, const struct subject *s)
{
    bool any_remote = r->remote_group == NONE ? !r->remotes.n : is_in_doubt(p, r);
    const struct in6_addr *remote = r->in ? &s->src : &s->dst;

    if (!s->ip) {
        return r->ethertype == MODEL_ETH_ANY && r->protocol < 0 && any_remote;
    }
    if (r->ethertype == (s->v6 ? MODEL_ETH_IPV4 : MODEL_ETH_IPV6)) {
        return false;
    }
    if (r->protocol >= 0 && r->protocol != s->protocol) {
        return false;
    }
    if (r->n_ports) {
        bool found = false;

        for (unsigned i = 0; i < r->n_ports; i++) {
            found |= s->dport >= r->ports[i].first && s->dport <= r->ports[i].last;
        }
        if (!found) {
            return false;
        }
    }
    if ((r->icmp_type >= 0 && r->icmp_type != s->icmp_type) ||
        (r->icmp_code >= 0 && r->icmp_code != s->icmp_code)) {
        return false;
    }
    if (r->remote_group != NONE && !any_remote) {
        return group_has_address(p, r->remote_group, remote);
    }
    return any_remote || cidrs_have(&r->remotes, remote);
}

static inline enum saying
say(const struct pool *p, int v, bool in, const struct subject *s, int *decided_by)
{
    long best_rank = -1;
    enum saying best = p->allow ? SAYS_STATEFUL : SAYS_DENY;

    *decided_by = NONE;
    for (int i = 0; i < N_RULES; i++) {
        const struct p_rule *r = &p->rules[i];
        const struct p_policy *q = &p->policies[r->policy];

        if (!r->there || !policy_live(p, r->policy) || r->in != in ||
            (r->allow && is_in_doubt(p, r)) || !in_scope(p, q, v) || !fits(p, r, s)) {
            continue;
        }
        /* Mandatory from the widest scope down, then default from the narrowest up;
         * lower orders first; deny among equals. */
        long place = r->mandatory ? q->scope : 11 - (long)q->scope;
        long rank = (11 - place) * 10000 + (2499 - (long)r->order) * 2 + !r->allow;

        if (rank > best_rank) {
            best_rank = rank;
            best = !r->allow ? SAYS_DENY : r->stateful ? SAYS_STATEFUL : SAYS_STATELESS;
            *decided_by = i;
        }
    }
    return best;
}

/* --- what a vif may send ------------------------------------------------------------------------
 */

static inline struct in6_addr
link_local(struct eth_addr mac)
{
    struct in6_addr a = {.s6_addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac.ea[0] ^ 2, mac.ea[1],
                                     mac.ea[2], 0xff, 0xfe, mac.ea[3], mac.ea[4], mac.ea[5]}};

    return a;
}

static inline bool
may_claim6(const struct p_vif *v, const struct in6_addr *a)
{
    struct in6_addr ll = link_local(v->mac);

    return v->v6.n && (cidrs_have(&v->v6, a) || ipv6_addr_equals(a, &ll));
}

static inline bool
own_or_absent(struct eth_addr a, struct eth_addr own)
{
    return eth_addr_is_zero(a) || eth_addr_equals(a, own);
}

/* Neighbour discovery, whatever the mode ('locked': its targets, too). */
static inline bool
nd_ok(const struct p_net *n, const struct p_vif *v, const struct flow *f, bool locked)
{
    unsigned type = ntohs(f->tp_src);

    if (type >= 133 && type <= 137 && f->nw_frag) {
        return false;
    }
    switch (type) {
    case 134:
    case 137:
        return n->ra;
    case 135:
        return !ipv6_addr_equals(&f->nd_target, &in6addr_any) && own_or_absent(f->arp_sha, v->mac);
    case 136:
        return !ipv6_addr_equals(&f->nd_target, &in6addr_any) &&
               own_or_absent(f->arp_tha, v->mac) && (!locked || may_claim6(v, &f->nd_target));
    default:
        return true;
    }
}

static inline bool
locked_ok6(const struct p_vif *v, const struct flow *f)
{
    static const uint8_t solicited[13] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};

    if (!ipv6_addr_equals(&f->ipv6_src, &in6addr_any)) {
        return may_claim6(v, &f->ipv6_src);
    }
    if (!v->v6.n || f->nw_proto != IPPROTO_ICMPV6) {
        return false;
    }
    if (f->tp_src == htons(143)) {
        return true;
    }
    return f->tp_src == htons(135) && !memcmp(&f->ipv6_dst, solicited, sizeof solicited) &&
           eth_addr_is_zero(f->arp_sha) && may_claim6(v, &f->nd_target);
}

static inline bool
locked_ok4(const struct p_vif *v, const struct flow *f)
{
    struct in6_addr src;

    in6_addr_set_mapped_ipv4(&src, f->nw_src);
    if (cidrs_have(&v->v4, &src)) {
        return true;
    }
    return v->v4.n && !f->nw_src && f->nw_dst == OVS_BE32_MAX && f->nw_proto == IPPROTO_UDP &&
           f->tp_src == htons(68) && f->tp_dst == htons(67);
}

static inline bool
locked_ok_arp(const struct p_vif *v, const struct flow *f)
{
    struct in6_addr spa, tpa;

    in6_addr_set_mapped_ipv4(&spa, f->nw_src);
    in6_addr_set_mapped_ipv4(&tpa, f->nw_dst);
    return cidrs_have(&v->v4, &spa) ||
           (!f->nw_src && f->nw_proto == ARP_OP_REQUEST && cidrs_have(&v->v4, &tpa));
}

static inline bool
is_control(const struct flow *f)
{
    static const uint16_t types[] = {0x8808, 0x8809, 0x888e, 0x8902, 0x88cc};
    const uint8_t *d = f->dl_dst.ea;

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        if (f->dl_type == htons(types[i])) {
            return true;
        }
    }
    return (d[0] == 1 && d[1] == 0x80 && d[2] == 0xc2 && !d[3] && !d[4] && d[5] < 0x40) ||
           (d[0] == 1 && !d[1] && d[2] == 0xc && d[3] == 0xcc && d[4] == 0xcc &&
            (d[5] == 0xcc || d[5] == 0xcd));
}

static inline bool
may_send(const struct pool *p, int i, const struct flow *f)
{
    const struct p_vif *v = &p->vifs[i];
    const struct p_net *n = &p->nets[v->net];
    enum model_locking mode = vif_mode(p, i);
    bool locked = mode == MODEL_LOCKED;
    bool v4 = f->dl_type == htons(ETH_TYPE_IP), v6 = f->dl_type == htons(ETH_TYPE_IPV6);

    if (vif_host(p, i) == NONE || mode == MODEL_DISABLED || f->vlans[0].tci ||
        f->dl_type == htons(0x8100) || f->dl_type == htons(0x88a8) || is_control(f) ||
        !eth_addr_equals(f->dl_src, v->mac)) {
        return false;
    }
    if ((v4 || v6) && f->nw_proto == IPPROTO_UDP && !n->dhcp &&
        (f->tp_src == htons(v4 ? 67 : 547) || f->tp_dst == htons(v4 ? 68 : 546))) {
        return false;
    }
    if (f->dl_type == htons(ETH_TYPE_ARP)) {
        return eth_addr_equals(f->arp_sha, v->mac) && (!locked || locked_ok_arp(v, f));
    }
    if (v4) {
        return !locked || locked_ok4(v, f);
    }
    if (v6) {
        return (!locked || locked_ok6(v, f)) &&
               (f->nw_proto != IPPROTO_ICMPV6 || nd_ok(n, v, f, locked));
    }
    return !locked;
}

/* --- where it goes
 * ---------------------------------------------------------------------------------- */

static inline bool
is_free(const struct flow *f)
{
    unsigned type = ntohs(f->tp_src);

    return f->dl_type == htons(ETH_TYPE_ARP) || f->dl_type == htons(ETH_TYPE_RARP) ||
           (f->dl_type == htons(ETH_TYPE_IPV6) && f->nw_proto == IPPROTO_ICMPV6 &&
            ((type >= 130 && type <= 137) || type == 143));
}

static inline bool
is_tracked(const struct flow *f)
{
    return is_ip_any(f) && !eth_addr_is_multicast(f->dl_dst) && !is_free(f);
}

static inline struct subject
subject_of(const struct flow *f)
{
    bool icmp = is_ip_any(f) &&
                f->nw_proto == (f->dl_type == htons(ETH_TYPE_IP) ? IPPROTO_ICMP : IPPROTO_ICMPV6);
    struct subject s = {
        .ip = is_ip_any(f),
        .v6 = f->dl_type == htons(ETH_TYPE_IPV6),
        .src = f->ipv6_src,
        .dst = f->ipv6_dst,
        .protocol = f->nw_proto,
        .dport = ntohs(f->tp_dst),
        .icmp_type = icmp ? ntohs(f->tp_src) : -1,
        .icmp_code = icmp ? ntohs(f->tp_dst) : -1,
    };

    if (s.ip && !s.v6) {
        in6_addr_set_mapped_ipv4(&s.src, f->nw_src);
        in6_addr_set_mapped_ipv4(&s.dst, f->nw_dst);
    }
    return s;
}

/* Whether frames of the network pass between the hosts. */
static inline bool
is_way(const struct pool *p, const struct p_net *n, int a, int b)
{
    if (a == b) {
        return true;
    }
    if (n->overlay) {
        return p->hosts[a].tunnels && p->hosts[b].tunnels && p->hosts[a].v6 == p->hosts[b].v6;
    }
    return p->hosts[a].uplink && p->hosts[b].uplink;
}

/* Whether 'to' would take the frame if policy let it: same network, its address,
 * no isolation, a way. */
static inline bool
is_addressee(const struct pool *p, int from, int to, const struct flow *f)
{
    int here = vif_host(p, to);

    if (here == NONE || vif_host(p, from) == NONE || from == to ||
        vif_mode(p, to) == MODEL_DISABLED ||
        !(eth_addr_is_multicast(f->dl_dst) || eth_addr_equals(f->dl_dst, p->vifs[to].mac))) {
        return false;
    }
    return p->vifs[from].net == p->vifs[to].net &&
           !(vif_isolated(p, from) && vif_isolated(p, to)) &&
           is_way(p, &p->nets[p->vifs[from].net], vif_host(p, from), here);
}

/* --- connections --------------------------------------------------------------------------- */

/* A connection that a host knows: the packet that opened it. */
struct o_conn {
    int net;
    struct subject s;
    uint16_t sport;
};

struct o_conns {
    struct o_conn *c;
    size_t n;
};

static inline struct subject
reply_of(const struct subject *s, uint16_t sport)
{
    struct subject r = *s;

    r.src = s->dst;
    r.dst = s->src;
    if (s->icmp_type >= 0) {
        r.icmp_type = s->icmp_type == 8     ? 0
                      : s->icmp_type == 0   ? 8
                      : s->icmp_type == 128 ? 129
                                            : 128;
    } else {
        r.dport = sport;
    }
    return r;
}

static inline bool
same_conn(const struct o_conn *c, int net, const struct subject *s, uint16_t sport)
{
    return c->net == net && c->s.v6 == s->v6 && c->s.protocol == s->protocol &&
           ipv6_addr_equals(&c->s.src, &s->src) && ipv6_addr_equals(&c->s.dst, &s->dst) &&
           c->s.icmp_type == s->icmp_type && c->s.dport == s->dport && c->sport == sport;
}

/* What the sides that are here say; NONE has no side here.  SAYS_STATEFUL if
 * either says so. */
static inline enum saying
both_say(const struct pool *p, int src, int dst, const struct subject *s)
{
    int rule;
    enum saying out = src == NONE ? SAYS_STATELESS : say(p, src, false, s, &rule);
    enum saying in = dst == NONE ? SAYS_STATELESS : say(p, dst, true, s, &rule);

    if (out == SAYS_DENY || in == SAYS_DENY) {
        return SAYS_DENY;
    }
    return out == SAYS_STATEFUL || in == SAYS_STATEFUL ? SAYS_STATEFUL : SAYS_STATELESS;
}

/* Whether a host with these connections passes the packet from 'src' to 'dst',
 * NONE where that is elsewhere.  A packet of a known connection passes if policy,
 * as it is now, would pass the one that opened it. */
static inline bool
host_passes(const struct pool *p, struct o_conns *known, int net, const struct flow *f, int src,
            int dst)
{
    struct subject s = subject_of(f);
    uint16_t sport = s.icmp_type >= 0 ? 0 : ntohs(f->tp_src);
    struct subject r = reply_of(&s, sport);
    enum saying said;

    for (size_t i = 0; i < known->n; i++) {
        const struct o_conn *c = &known->c[i];

        if (same_conn(c, net, &s, sport)) {
            return both_say(p, src, dst, &c->s) != SAYS_DENY;
        }
        if (same_conn(c, net, &r, s.icmp_type >= 0 ? 0 : s.dport)) {
            return both_say(p, dst, src, &c->s) != SAYS_DENY;
        }
    }
    said = both_say(p, src, dst, &s);
    if (said == SAYS_STATEFUL) {
        known->c = xrealloc(known->c, (known->n + 1) * sizeof *known->c);
        known->c[known->n++] = (struct o_conn){.net = net, .s = s, .sport = sport};
    }
    return said != SAYS_DENY;
}

#endif

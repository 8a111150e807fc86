/* ctl_pool: small pools in plain structs: made up at random, changed at random,
 * and stated to a model.  What a pool means is ctl_oracle.h's business. */
#ifndef CTL_POOL_H
#define CTL_POOL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/types.h"
#include "openvswitch/uuid.h"
#include "packets.h"
#include "util.h"
#include "uuid.h"

#define N_HOSTS 3
#define N_NETS 4
#define N_VMS 5
#define N_VIFS 10
#define N_GROUPS 4
#define N_POLICIES 8
#define N_RULES 28
#define MAX_CIDRS 4
#define NONE (-1)

/* Ports of each host. */
#define PORT_UPLINK 1
#define PORT_TUNNEL(ENCAP) (2 + (ENCAP))
#define PORT_VIF(VIF) (10 + (VIF))

struct cidr {
    bool v6;
    struct in6_addr addr; /* IPv4 mapped */
    unsigned plen;        /* of its own family */
};

struct cidrs {
    struct cidr c[MAX_CIDRS];
    unsigned n;
};

struct p_host {
    bool there, uplink, tunnels;
    bool v6; /* the tunnels' ends */
};

struct p_net {
    bool there;
    bool overlay;
    unsigned id; /* tag or VNI */
    unsigned encap;
    bool default_disabled, isolated, dhcp, ra;
};

struct p_vif {
    bool there;
    int vm, net, host;  /* host NONE: plugged in nowhere */
    bool also[N_HOSTS]; /* other hosts that have a port of it */
    struct eth_addr mac;
    struct cidrs v4, v6, known;
    int locking; /* NONE: the network's default; else enum model_locking */
    bool isolated;
    /* Number of the vif in whose frames it is, from 1, and its tag there; 0: it has a
     * port of its own. */
    unsigned parent, tag;
};

struct p_group {
    bool there;
    struct cidrs cidrs;
    bool vifs[N_VIFS], vms[N_VMS], groups[N_GROUPS]; /* only groups behind it */
};

struct p_policy {
    bool there;
    enum model_scope scope;
    int object; /* index, or NONE */
};

struct p_rule {
    bool there;
    int policy;
    bool mandatory, in, allow, stateful;
    unsigned order;
    enum model_ethertype ethertype;
    int protocol; /* -1 any */
    int remote_group;
    struct cidrs remotes;
    struct model_ports ports[3];
    unsigned n_ports;
    int icmp_type, icmp_code;
    bool log;
    unsigned sample;
};

struct pool {
    bool allow; /* by default */
    struct p_host hosts[N_HOSTS];
    struct p_net nets[N_NETS];
    bool vms[N_VMS];
    /* Number of the host, from 1; 0: none is stated. */
    unsigned resident[N_VMS], destination[N_VMS];
    struct p_vif vifs[N_VIFS];
    struct p_group groups[N_GROUPS];
    struct p_policy policies[N_POLICIES];
    struct p_rule rules[N_RULES];
};

/* --- chance ----------------------------------------------------------------------- */

static uint64_t pool_seed = 1;

static inline unsigned
pick(unsigned n)
{
    pool_seed ^= pool_seed << 13;
    pool_seed ^= pool_seed >> 7;
    pool_seed ^= pool_seed << 17;
    return (pool_seed >> 20) % n;
}

static inline bool
chance(unsigned percent)
{
    return pick(100) < percent;
}

/* --- addresses ---------------------------------------------------------------------- */

/* 10.0.0.N and fd00::N; a vif's own N is its index and one. */
static inline struct in6_addr
address4(unsigned n)
{
    struct in6_addr a;

    in6_addr_set_mapped_ipv4(&a, htonl(0x0a000000 | n));
    return a;
}

static inline struct in6_addr
address6(unsigned n)
{
    struct in6_addr a = {.s6_addr = {0xfd}};

    a.s6_addr[15] = n;
    return a;
}

static inline struct cidr
make_cidr(struct in6_addr addr, unsigned plen)
{
    bool v6 = !IN6_IS_ADDR_V4MAPPED(&addr);
    struct in6_addr mask = ipv6_create_mask(v6 ? plen : 96 + plen);

    addr = ipv6_addr_bitand(&addr, &mask);
    return (struct cidr){.v6 = v6, .addr = addr, .plen = plen};
}

static inline struct cidr
random_cidr(bool v6)
{
    static const unsigned lens4[] = {0, 8, 24, 28, 29, 30, 31, 32, 32, 32};

    return v6 ? make_cidr(address6(pick(14)), lens4[pick(10)] + 96 * chance(90))
              : make_cidr(address4(pick(14)), lens4[pick(10)]);
}

static inline struct cidrs
random_cidrs(unsigned max, int family)
{
    struct cidrs l = {.n = pick(max + 1)};

    for (unsigned i = 0; i < l.n; i++) {
        l.c[i] = random_cidr(family == 6 || (!family && chance(40)));
    }
    return l;
}

static inline const char *
cidr_text(const struct cidr *c, char *buf, size_t size)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    ipv6_format_mapped(&c->addr, &ds);
    snprintf(buf, size, "%s/%u", ds_cstr(&ds), c->plen);
    ds_destroy(&ds);
    return buf;
}

/* --- objects at random ------------------------------------------------------------------ */

static inline void
random_host(struct p_host *h)
{
    *h = (struct p_host){
        .there = chance(95), .uplink = chance(85), .tunnels = chance(85), .v6 = chance(30)};
}

static inline void
random_net(struct p_net *n, unsigned i)
{
    *n = (struct p_net){
        .there = chance(95),
        .overlay = i & 1,
        .id = (i & 1 ? 5000 : 100) + i,
        .encap = pick(3),
        .default_disabled = chance(10),
        .isolated = chance(10),
        .dhcp = chance(20),
        .ra = chance(20),
    };
}

static inline void
random_vif(struct p_vif *v, unsigned i)
{
    *v = (struct p_vif){
        .there = chance(95),
        .vm = pick(N_VMS),
        .net = chance(60) ? pick(2) : pick(N_NETS),
        .host = chance(90) ? (int)pick(N_HOSTS) : NONE,
        .mac = ETH_ADDR_C(02, 00, 00, 00, 00, 01),
        .locking = chance(30)   ? NONE
                   : chance(45) ? MODEL_UNLOCKED
                   : chance(90) ? MODEL_LOCKED
                                : MODEL_DISABLED,
        .isolated = chance(20),
    };
    v->mac.ea[5] = i + 1;
    v->v4.n = chance(85);
    v->v4.c[0] = make_cidr(address4(i + 1), chance(90) ? 32 : 30);
    v->v6.n = chance(85);
    v->v6.c[0] = make_cidr(address6(i + 1), chance(90) ? 128 : 126);
    v->known = (struct cidrs){.c = {v->v4.c[0], v->v6.c[0]}, .n = pick(3)};
}

/* Of a trunk, mostly one that holds together.  Who has a MAC or a tag that another has,
 * too, has the other for itself: or frames would not say whose they are. */
static inline void
random_parent(struct pool *p, unsigned i)
{
    struct p_vif *v = &p->vifs[i];
    unsigned parent = pick(i);

    v->parent = parent + 1;
    v->tag = 300 + i;
    if (chance(85)) {
        v->vm = p->vifs[parent].vm;
    }
    if (chance(30)) {
        v->mac = p->vifs[parent].mac;
    } else if (chance(20)) {
        v->tag = 300 + pick(3);
    }
}

/* The vif whose port it has: itself, or its parent. */
static inline unsigned
vif_root(const struct pool *p, unsigned v)
{
    return p->vifs[v].parent ? p->vifs[v].parent - 1 : v;
}

static inline void
random_group(struct p_group *g, unsigned i)
{
    *g = (struct p_group){.there = chance(95), .cidrs = random_cidrs(3, 0)};
    for (unsigned j = 0; j < N_VIFS; j++) {
        g->vifs[j] = chance(20);
    }
    for (unsigned j = 0; j < N_VMS; j++) {
        g->vms[j] = chance(15);
    }
    for (unsigned j = i + 1; j < N_GROUPS; j++) {
        g->groups[j] = chance(20);
    }
}

static inline void
random_policy(struct p_policy *p)
{
    static const unsigned n[] = {1, 1, N_NETS, N_GROUPS, N_VMS, N_VIFS};

    *p = (struct p_policy){.there = chance(95), .scope = pick(6)};
    p->object = n[p->scope] > 1 ? (int)pick(n[p->scope]) : NONE;
}

static inline void
random_ports(struct p_rule *r)
{
    r->n_ports = pick(4);
    for (unsigned i = 0; i < r->n_ports; i++) {
        uint16_t first = chance(50) ? 76 + pick(12) : 1 + pick(chance(50) ? 65535 : 1100);
        uint16_t last = first + pick(chance(60) ? 1 : chance(60) ? 20 : 65536 - first);

        r->ports[i] = (struct model_ports){first, last};
    }
}

static inline void
random_rule(struct p_rule *r)
{
    static const int protocols[] = {-1, IPPROTO_TCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, 47};

    *r = (struct p_rule){
        .there = chance(95),
        .policy = pick(N_POLICIES),
        .mandatory = chance(40),
        .in = chance(50),
        .allow = chance(60),
        .order = pick(4),
        .protocol = protocols[pick(6)],
        .remote_group = chance(35) ? (int)pick(N_GROUPS) : NONE,
        .icmp_type = -1,
        .icmp_code = -1,
        .log = chance(20),
        .sample = chance(50) ? 1 : pick(3),
    };
    /* What one priority holds is one thing: see docs/controller.md. */
    r->stateful = r->order != 3;
    if (chance(12)) {
        r->protocol = chance(50) ? IPPROTO_ICMP : IPPROTO_ICMPV6;
        if (chance(60)) {
            r->icmp_type = r->protocol == IPPROTO_ICMP ? 8 : 128;
            r->icmp_code = chance(30) ? 0 : -1;
        }
    }
    r->ethertype = r->protocol == IPPROTO_ICMP     ? MODEL_ETH_IPV4
                   : r->protocol == IPPROTO_ICMPV6 ? MODEL_ETH_IPV6
                   : chance(50)                    ? MODEL_ETH_ANY
                   : chance(60)                    ? MODEL_ETH_IPV4
                                                   : MODEL_ETH_IPV6;
    if (r->remote_group == NONE) {
        r->remotes = random_cidrs(4, r->ethertype == MODEL_ETH_IPV4   ? 4
                                     : r->ethertype == MODEL_ETH_IPV6 ? 6
                                                                      : 0);
    }
    if (r->protocol == IPPROTO_TCP || r->protocol == IPPROTO_UDP || r->protocol == IPPROTO_SCTP) {
        random_ports(r);
    }
}

static inline void
random_pool(struct pool *p)
{
    memset(p, 0, sizeof *p);
    p->allow = chance(30);
    for (unsigned i = 0; i < N_HOSTS; i++) {
        random_host(&p->hosts[i]);
    }
    for (unsigned i = 0; i < N_NETS; i++) {
        random_net(&p->nets[i], i);
    }
    for (unsigned i = 0; i < N_VMS; i++) {
        p->vms[i] = chance(95);
    }
    for (unsigned i = 0; i < N_VIFS; i++) {
        random_vif(&p->vifs[i], i);
        if (i && chance(25)) {
            random_parent(p, i);
        }
    }
    for (unsigned i = 0; i < N_GROUPS; i++) {
        random_group(&p->groups[i], i);
    }
    for (unsigned i = 0; i < N_POLICIES; i++) {
        random_policy(&p->policies[i]);
    }
    for (unsigned i = 0; i < N_RULES; i++) {
        random_rule(&p->rules[i]);
    }
}

/* --- stating it --------------------------------------------------------------------------- */

static inline struct uuid
pool_uuid(enum rec_kind kind, unsigned i)
{
    return (struct uuid){.parts = {0xaa000000 | kind, 0, 0x80000000, i + 1}};
}

static inline const char *
pool_name(enum rec_kind kind, unsigned i)
{
    static char names[8][24];
    static unsigned n;
    char *name = names[n++ % 8];

    snprintf(name, sizeof names[0], "%s%u", rec_tables[kind].noun, i);
    return name;
}

/* How an object is referred to. */
static inline const char *
pool_ref(enum rec_kind kind, unsigned i)
{
    static char refs[8][UUID_LEN + 1];
    static unsigned n;
    struct uuid uuid = pool_uuid(kind, i);
    char *ref = refs[n++ % 8];

    snprintf(ref, sizeof refs[0], UUID_FMT, UUID_ARGS(&uuid));
    return ref;
}

static inline uint32_t
pool_key(enum rec_kind kind, unsigned i)
{
    return kind * 1000 + i + 1;
}

static inline void
add_cidrs(struct rec *r, unsigned field, const struct cidrs *l)
{
    char buf[64];

    for (unsigned i = 0; i < l->n; i++) {
        rec_add(r, field, cidr_text(&l->c[i], buf, sizeof buf));
    }
}

static inline void
host_rec(struct rec *r, const struct p_host *h, unsigned i)
{
    char ip[32];

    rec_set_string(r, REC_HOST_OVSDB, "unix:/nowhere");
    rec_set_string(r, REC_HOST_UPLINK, h->uplink ? "eth1" : "");
    snprintf(ip, sizeof ip, h->v6 ? "fd99::%u" : "192.0.2.%u", i + 1);
    rec_set_string(r, REC_HOST_TUNNEL_IP, h->tunnels ? ip : "");
}

static inline void
net_rec(struct rec *r, const struct p_net *n, unsigned i)
{
    static const char *const encaps[] = {"vxlan", "geneve", "gre"};

    r->zone = i + 1;
    rec_set_string(r, REC_NETWORK_TYPE, n->overlay ? "overlay" : "vlan");
    rec_set_int(r, n->overlay ? REC_NETWORK_VNI : REC_NETWORK_TAG, n->id);
    rec_set_string(r, REC_NETWORK_ENCAPSULATION, encaps[n->encap]);
    rec_set_string(r, REC_NETWORK_LOCKING, n->default_disabled ? "disabled" : "unlocked");
    rec_set_int(r, REC_NETWORK_ISOLATED, n->isolated);
    rec_set_int(r, REC_NETWORK_DHCP_SERVER, n->dhcp);
    rec_set_int(r, REC_NETWORK_RA, n->ra);
}

static inline void
vm_rec(struct rec *r, const struct pool *p, unsigned i)
{
    unsigned resident = p->resident[i], destination = p->destination[i];

    r->resident_on = resident ? xstrdup(pool_name(REC_HOST, resident - 1)) : NULL;
    r->destination = destination ? xstrdup(pool_name(REC_HOST, destination - 1)) : NULL;
}

static inline void
vif_rec(struct rec *r, const struct p_vif *v)
{
    static const char *const modes[] = {
        [MODEL_LOCKED] = "locked", [MODEL_UNLOCKED] = "unlocked", [MODEL_DISABLED] = "disabled"};
    char mac[32];

    snprintf(mac, sizeof mac, ETH_ADDR_FMT, ETH_ADDR_ARGS(v->mac));
    rec_set_string(r, REC_VIF_VM, pool_ref(REC_VM, v->vm));
    rec_set_string(r, REC_VIF_NETWORK, pool_ref(REC_NETWORK, v->net));
    rec_set_string(r, REC_VIF_MAC, mac);
    rec_set_string(r, REC_VIF_LOCKING, v->locking == NONE ? "network_default" : modes[v->locking]);
    add_cidrs(r, REC_VIF_IPV4, &v->v4);
    add_cidrs(r, REC_VIF_IPV6, &v->v6);
    add_cidrs(r, REC_VIF_ADDRESSES, &v->known);
    rec_set_int(r, REC_VIF_ISOLATED, v->isolated);
    if (v->parent) {
        rec_set_string(r, REC_VIF_PARENT, pool_ref(REC_VIF, v->parent - 1));
        rec_set_int(r, REC_VIF_TAG, v->tag);
    }
}

static inline void
group_rec(struct rec *r, const struct pool *p, const struct p_group *g)
{
    add_cidrs(r, REC_GROUP_ADDRESSES, &g->cidrs);
    for (unsigned i = 0; i < N_VIFS; i++) {
        if (g->vifs[i] && p->vifs[i].there) {
            rec_add(r, REC_GROUP_VIFS, pool_ref(REC_VIF, i));
        }
    }
    for (unsigned i = 0; i < N_VMS; i++) {
        if (g->vms[i] && p->vms[i]) {
            rec_add(r, REC_GROUP_VMS, pool_ref(REC_VM, i));
        }
    }
    for (unsigned i = 0; i < N_GROUPS; i++) {
        if (g->groups[i] && p->groups[i].there) {
            rec_add(r, REC_GROUP_GROUPS, pool_ref(REC_GROUP, i));
        }
    }
}

static inline void
policy_rec(struct rec *r, const struct p_policy *p)
{
    static const char *const scopes[] = {"global", "pool", "network", "group", "vm", "vif"};
    static const struct {
        unsigned field;
        enum rec_kind kind;
    } objects[] = {
        [MODEL_SCOPE_NETWORK] = {REC_POLICY_NETWORK, REC_NETWORK},
        [MODEL_SCOPE_GROUP] = {REC_POLICY_GROUP, REC_GROUP},
        [MODEL_SCOPE_VM] = {REC_POLICY_VM, REC_VM},
        [MODEL_SCOPE_VIF] = {REC_POLICY_VIF, REC_VIF},
    };

    rec_set_string(r, REC_POLICY_SCOPE, scopes[p->scope]);
    if (p->object != NONE) {
        rec_set_string(r, objects[p->scope].field, pool_ref(objects[p->scope].kind, p->object));
    }
}

static inline void
rule_rec(struct rec *r, const struct p_rule *p)
{
    static const char *const ethertypes[] = {"any", "ipv4", "ipv6"};
    char buf[32];

    rec_set_string(r, REC_RULE_POLICY, pool_ref(REC_POLICY, p->policy));
    rec_set_string(r, REC_RULE_PART, p->mandatory ? "mandatory" : "default");
    rec_set_int(r, REC_RULE_ORDER, p->order);
    rec_set_string(r, REC_RULE_DIRECTION, p->in ? "in" : "out");
    rec_set_string(r, REC_RULE_ACTION, p->allow ? "allow" : "deny");
    rec_set_string(r, REC_RULE_ETHERTYPE, ethertypes[p->ethertype]);
    snprintf(buf, sizeof buf, "%d", p->protocol);
    rec_set_string(r, REC_RULE_PROTOCOL, p->protocol < 0 ? "any" : buf);
    if (p->remote_group != NONE) {
        rec_set_string(r, REC_RULE_REMOTE_GROUP, pool_ref(REC_GROUP, p->remote_group));
    }
    add_cidrs(r, REC_RULE_REMOTE_CIDRS, &p->remotes);
    for (unsigned i = 0; i < p->n_ports; i++) {
        snprintf(buf, sizeof buf, "%u-%u", p->ports[i].first, p->ports[i].last);
        rec_add(r, REC_RULE_PORTS, buf);
    }
    if (p->icmp_type >= 0) {
        rec_set_int(r, REC_RULE_ICMP_TYPE, p->icmp_type);
    }
    if (p->icmp_code >= 0) {
        rec_set_int(r, REC_RULE_ICMP_CODE, p->icmp_code);
    }
    rec_set_int(r, REC_RULE_STATEFUL, p->stateful);
    rec_set_int(r, REC_RULE_LOG, p->log);
    rec_set_int(r, REC_RULE_SAMPLE, p->sample);
}

static inline bool
pool_is_there(const struct pool *p, enum rec_kind kind, unsigned i)
{
    switch (kind) {
    case REC_HOST:
        return p->hosts[i].there;
    case REC_NETWORK:
        return p->nets[i].there;
    case REC_VM:
        return p->vms[i];
    case REC_VIF:
        return p->vifs[i].there;
    case REC_GROUP:
        return p->groups[i].there;
    case REC_POLICY:
        return p->policies[i].there;
    default:
        return p->rules[i].there;
    }
}

static const unsigned pool_counts[REC_N_KINDS] = {
    [REC_HOST] = N_HOSTS,   [REC_NETWORK] = N_NETS,    [REC_VM] = N_VMS,     [REC_VIF] = N_VIFS,
    [REC_GROUP] = N_GROUPS, [REC_POLICY] = N_POLICIES, [REC_RULE] = N_RULES,
};

/* The object as the pool has it now, or its removal. */
static inline void
pool_state(const struct pool *p, struct model *m, enum rec_kind kind, unsigned i)
{
    struct uuid uuid = pool_uuid(kind, i);
    struct rec r;

    if (!pool_is_there(p, kind, i)) {
        model_remove(m, kind, &uuid);
        return;
    }
    rec_init(&r, kind);
    free(r.name);
    r.name = xstrdup(pool_name(kind, i));
    r.key = pool_key(kind, i);
    switch (kind) {
    case REC_HOST:
        host_rec(&r, &p->hosts[i], i);
        break;
    case REC_VM:
        vm_rec(&r, p, i);
        break;
    case REC_NETWORK:
        net_rec(&r, &p->nets[i], i);
        break;
    case REC_VIF:
        vif_rec(&r, &p->vifs[i]);
        break;
    case REC_GROUP:
        group_rec(&r, p, &p->groups[i]);
        break;
    case REC_POLICY:
        policy_rec(&r, &p->policies[i]);
        break;
    case REC_RULE:
        rule_rec(&r, &p->rules[i]);
        break;
    default:
        break;
    }
    rec_normalize(&r);
    model_put(m, &uuid, &r);
    rec_destroy(&r);
}

static inline void
pool_state_default(const struct pool *p, struct model *m)
{
    struct uuid uuid = pool_uuid(REC_POOL, 0);
    struct rec r;

    rec_init(&r, REC_POOL);
    free(r.name);
    r.name = xstrdup("pool");
    r.key = 999;
    rec_set_string(&r, REC_POOL_DEFAULT_ACTION, p->allow ? "allow" : "deny");
    model_put(m, &uuid, &r);
    rec_destroy(&r);
}

/* With two ports, and no word of where it is resident, it is where it was seen last:
 * that is nothing that a pool states. */
static inline bool
has_port(const struct pool *p, unsigned v, unsigned h)
{
    unsigned resident = p->resident[p->vifs[v].vm];

    return p->vifs[v].there && (p->vifs[v].host == (int)h ||
                                (p->vifs[v].also[h] && resident && p->hosts[resident - 1].there));
}

/* What each host's switch says of its ports.  Only a live host can say it. */
static inline void
pool_state_ports(const struct pool *p, struct model *m)
{
    static const char *const tunnels[] = {"weft-vxlan", "weft-geneve", "weft-gre"};

    for (unsigned i = 0; i < N_HOSTS; i++) {
        struct uuid uuid = pool_uuid(REC_HOST, i);
        struct model_host *mh = model_host(model_by_uuid(m, REC_HOST, &uuid));

        if (!mh) {
            continue;
        }
        model_ports_begin(m);
        if (p->hosts[i].uplink) {
            model_port_report(m, mh, "eth1", NULL, NULL, PORT_UPLINK);
        }
        for (unsigned e = 0; p->hosts[i].tunnels && e < 3; e++) {
            model_port_report(m, mh, tunnels[e], NULL, NULL, PORT_TUNNEL(e));
        }
        for (unsigned v = 0; v < N_VIFS; v++) {
            if (has_port(p, v, i)) {
                struct uuid vif = pool_uuid(REC_VIF, v);
                char name[16];

                snprintf(name, sizeof name, "vif%u.0", v);
                model_port_report(m, mh, name, &vif, NULL, PORT_VIF(v));
            }
        }
        model_ports_end(m, mh);
    }
}

static inline void
pool_state_all(const struct pool *p, struct model *m)
{
    pool_state_default(p, m);
    for (int k = REC_HOST; k <= REC_RULE; k++) {
        for (unsigned i = 0; i < pool_counts[k]; i++) {
            pool_state(p, m, k, i);
        }
    }
    model_settle(m);
    pool_state_ports(p, m);
    model_settle(m);
}

/* --- moves ------------------------------------------------------------------------------ */

static bool pool_moves; /* pool_change() moves VMs, too */

/* Anything that can be said of a VM's move, sensible or not. */
static inline unsigned
random_move(struct pool *p)
{
    unsigned i = pick(N_VMS);

    p->resident[i] = chance(75) ? pick(N_HOSTS + 1) : 0;
    p->destination[i] = chance(60) ? pick(N_HOSTS + 1) : 0;
    for (unsigned v = 0; v < N_VIFS; v++) {
        for (unsigned h = 0; h < N_HOSTS && p->vifs[v].vm == (int)i; h++) {
            p->vifs[v].also[h] = chance(40);
        }
    }
    return i;
}

/* --- changes ------------------------------------------------------------------------------- */

/* Some change of the kind that people make, stated to the model. */
static inline void
pool_change(struct pool *p, struct model *m)
{
    enum rec_kind kind = REC_RULE;
    unsigned i = 0;

    if (pool_moves && chance(25)) {
        pool_state(p, m, REC_VM, random_move(p));
    }
    switch (pick(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        i = pick(N_RULES);
        random_rule(&p->rules[i]);
        break;
    case 4:
        kind = REC_POLICY;
        i = pick(N_POLICIES);
        random_policy(&p->policies[i]);
        break;
    case 5:
    case 6:
        kind = REC_GROUP;
        i = pick(N_GROUPS);
        random_group(&p->groups[i], i);
        break;
    case 7:
    case 8:
        kind = REC_VIF;
        i = pick(N_VIFS);
        random_vif(&p->vifs[i], i);
        if (i && chance(25)) {
            random_parent(p, i);
        }
        break;
    case 9:
    case 10:
        kind = REC_VIF;
        i = pick(N_VIFS);
        p->vifs[i].host = chance(80) ? (int)pick(N_HOSTS) : NONE;
        break;
    case 11:
        kind = REC_VIF;
        i = pick(N_VIFS);
        p->vifs[i].locking = chance(50) ? MODEL_LOCKED : NONE;
        p->vifs[i].isolated ^= chance(50);
        break;
    case 12:
        kind = REC_HOST;
        i = pick(N_HOSTS);
        random_host(&p->hosts[i]);
        break;
    case 13:
        kind = REC_NETWORK;
        i = pick(N_NETS);
        random_net(&p->nets[i], i);
        break;
    case 14:
        kind = REC_VM;
        i = pick(N_VMS);
        p->vms[i] ^= true;
        break;
    default:
        p->allow ^= true;
        pool_state_default(p, m);
    }
    pool_state(p, m, kind, i);
    for (unsigned g = 0; g < N_GROUPS; g++) {
        pool_state(p, m, REC_GROUP, g);
    }
    model_settle(m);
    pool_state_ports(p, m);
    model_settle(m);
}

#endif

/* A packet from host to host.
 *
 * Each host that it reaches is a visit: its tables run once (eval.h), what comes
 * out of its ports are ends, and an end at another host's uplink or tunnel port
 * is that host's visit.  Over a VLAN a frame reaches the hosts where the pool
 * knows its destination, for the physical network has learned the same; over a
 * tunnel the one with the address. */
#include <config.h>

#include "trace.h"

#include <stdlib.h>

#include "compile_impl.h"
#include "eval.h"
#include "hash.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/ofp-actions.h"
#include "pflow.h"
#include "util.h"

/* Hosts that one packet is followed to. */
#define MAX_VISITS 16

struct tracer_host {
    struct hmap_node node; /* in tracer.hosts, by key */
    uint32_t key;
    struct eval eval;
};

struct tracer {
    struct model *model;
    struct compile *compile;
    struct hmap hosts;
    /* Of all vifs, these alone send: most of a host's flows are about what vifs may
     * send. */
    bool limited;
    uint32_t senders[2]; /* keys; 0: none */
};

/* What waits for its turn. */
struct arrival {
    uint32_t host, in_port;
    struct flow packet;
    char *in;
};

struct run {
    struct tracer *t;
    struct trace *trace;
    bool brief;
    const struct model_host *host; /* of the visit under way */
    struct arrival waiting[MAX_VISITS];
    size_t n_waiting, at;
};

static const struct model_port *port_of(const struct model_host *, uint32_t ofport);
static const struct model_port *vif_port_of(const struct model_host *, uint32_t ofport,
                                            const struct flow *);

/* Who may send: the vif where it starts, and that which may answer. */
static void
limit(struct tracer *t, const struct trace_start *s)
{
    const struct model_host *host = model_host(model_by_key(t->model, s->host));
    const struct model_port *port = host ? vif_port_of(host, s->in_port, &s->packet) : NULL;
    const struct model_vif *from = port ? port->vif : NULL, *to = NULL;

    if (from) {
        to = model_vif_by_mac(t->model, from->network, s->packet.dl_dst);
    }
    if (s->state == TRACE_REPLY && !to) {
        return;
    }
    t->limited = true;
    t->senders[0] = from ? from->obj.key : 0;
    t->senders[1] = to ? to->obj.key : 0;
}

struct tracer *
tracer_create(struct model *m, struct compile *c, const struct trace_start *only)
{
    struct tracer *t = xzalloc(sizeof *t);

    t->model = m;
    t->compile = c;
    hmap_init(&t->hosts);
    if (only) {
        limit(t, only);
    }
    return t;
}

static bool
is_needed(const struct pflow *f, const void *t_)
{
    const struct tracer *t = t_;
    uint32_t key = f->cookie;

    return !t->limited || (f->table != TBL_SPOOF && f->table != TBL_SPOOF_ND) ||
           flow_cookie_kind(f->cookie) != FLOW_VIF || key == t->senders[0] || key == t->senders[1];
}

void
tracer_destroy(struct tracer *t)
{
    struct tracer_host *h;

    if (!t) {
        return;
    }
    HMAP_FOR_EACH_POP (h, node, &t->hosts) {
        eval_destroy(&h->eval);
        free(h);
    }
    hmap_destroy(&t->hosts);
    free(t);
}

/* NULL: no flows have been computed for it. */
static struct eval *
eval_of(struct tracer *t, uint32_t key)
{
    struct ftable *flows = compile_host_flows(t->compile, key);
    struct tracer_host *h;

    HMAP_FOR_EACH_WITH_HASH (h, node, hash_int(key, 0), &t->hosts) {
        if (h->key == key) {
            return &h->eval;
        }
    }
    if (!flows) {
        return NULL;
    }
    h = xzalloc(sizeof *h);
    h->key = key;
    eval_init(&h->eval);
    eval_set_some_flows(&h->eval, flows, is_needed, t);
    hmap_insert(&t->hosts, &h->node, hash_int(key, 0));
    return &h->eval;
}

void
trace_uninit(struct trace *trace)
{
    for (size_t i = 0; i < trace->n_visits; i++) {
        struct trace_visit *v = &trace->visits[i];

        for (size_t j = 0; j < v->n_steps; j++) {
            free(v->steps[j].match);
            free(v->steps[j].actions);
        }
        for (size_t j = 0; j < v->n_ends; j++) {
            free(v->ends[j].text);
        }
        free(v->steps);
        free(v->ends);
        free(v->in);
    }
    free(trace->visits);
    memset(trace, 0, sizeof *trace);
}

const struct trace_end *
trace_first(const struct trace *trace, enum trace_end_kind kind)
{
    for (size_t i = 0; i < trace->n_visits; i++) {
        const struct trace_visit *v = &trace->visits[i];

        for (size_t j = 0; j < v->n_ends; j++) {
            if (v->ends[j].kind == kind) {
                return &v->ends[j];
            }
        }
    }
    return NULL;
}

/* --- one host ------------------------------------------------------------------------- */

/* Takes 'text'. */
static struct trace_end *
add_end(struct trace_visit *v, enum trace_end_kind kind, uint32_t key, char *text)
{
    if (v->n_ends == v->allocated_ends) {
        v->ends = x2nrealloc(v->ends, &v->allocated_ends, sizeof *v->ends);
    }
    v->ends[v->n_ends] = (struct trace_end){.kind = kind, .key = key, .text = text};
    return &v->ends[v->n_ends++];
}

static void
add_drop(struct run *r, struct trace_visit *v, const struct trace_step *step, const struct flow *f)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    const char *reason = explain_drop(r->t->model, r->host, step->table, step->miss, step->priority,
                                      step->cookie, f, &ds);
    bool denied = !strcmp(reason, "denied");
    uint32_t dst = f->regs[REG_DST];
    struct trace_end *end = add_end(v, TRACE_DROPPED,
                                    !denied                       ? 0
                                    : f->regs[REG_OUT] == REFUSED ? f->regs[REG_OUT_RULE]
                                                                  : f->regs[REG_IN_RULE],
                                    ds_steal_cstr(&ds));

    end->reason = reason;
    end->dst = dst < DST_UPLINK ? dst : 0;
}

static struct trace_side
side_of(const struct flow *f, unsigned verdict, unsigned rule)
{
    return (struct trace_side){
        .asked = f->regs[verdict] != NO_SIDE,
        .allowed = f->regs[verdict] == PASS_STATEFUL || f->regs[verdict] == PASS_STATELESS,
        .rule = f->regs[rule],
    };
}

static const char *
state_name(const struct flow *f, bool present)
{
    bool reply = f->ct_state & CS_REPLY_DIR;

    if (f->ct_state & CS_INVALID) {
        return "invalid";
    }
    if (f->ct_state & CS_RELATED) {
        return "related to a connection";
    }
    if (!(f->ct_state & CS_ESTABLISHED)) {
        return "new connection";
    }
    return present ? reply ? "established, reply" : "established"
           : reply ? "established under an older policy, reply"
                   : "established under an older policy";
}

static void
describe(struct trace_step *step, const struct eval_rule *rule)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    struct match match;

    minimatch_expand(&rule->cr.match, &match);
    match_format(&match, NULL, &ds, OFP_DEFAULT_PRIORITY);
    step->match = ds_steal_cstr(&ds);
    ds_init(&ds);
    ofpacts_format(rule->acts.data, rule->acts.size, &(struct ofpact_format_params){.s = &ds});
    step->actions = ds_steal_cstr(&ds);
}

static void
observe(void *run_, uint8_t table, const struct eval_rule *rule, const struct flow *f)
{
    struct run *r = run_;
    struct trace_visit *v = &r->trace->visits[r->trace->n_visits - 1];
    struct trace_step step = {
        .table = table,
        .miss = !rule,
        .priority = rule ? rule->cr.priority : 0,
        .cookie = rule ? rule->cookie : 0,
    };

    if (rule && !r->brief) {
        describe(&step, rule);
    }
    if (v->n_steps == v->allocated_steps) {
        v->steps = x2nrealloc(v->steps, &v->allocated_steps, sizeof *v->steps);
    }
    v->steps[v->n_steps++] = step;
    if (table == TBL_STATE) {
        v->state = state_name(f, rule && flow_cookie_kind(rule->cookie) == FLOW_NETWORK);
    } else if (table == TBL_REJUDGE && v->state && !strstr(v->state, "older")) {
        v->state = "established between other vifs";
    } else if (table == TBL_VERDICT) {
        v->out = side_of(f, REG_OUT, REG_OUT_RULE);
        v->into = side_of(f, REG_IN, REG_IN_RULE);
        v->into.asked = v->into.asked && !v->flooded; /* each copy has its own */
    } else if (table == TBL_FLOOD) {
        v->flooded = true;
    }
    if (!rule || !rule->acts.size) {
        add_drop(r, v, &step, f);
    }
}

/* --- from host to host ------------------------------------------------------------------ */

/* What is on the wire: no registers, no connection. */
static struct flow
outside(const struct flow *f)
{
    struct flow bare = *f;

    memset(&bare.tunnel, 0, sizeof bare.tunnel);
    memset(bare.regs, 0, sizeof bare.regs);
    bare.metadata = 0;
    bare.ct_state = bare.ct_mark = bare.ct_zone = 0;
    bare.ct_label = OVS_U128_ZERO;
    bare.ct_nw_proto = 0;
    memset(&bare.ct_ipv6_src, 0, sizeof bare.ct_ipv6_src);
    memset(&bare.ct_ipv6_dst, 0, sizeof bare.ct_ipv6_dst);
    bare.ct_nw_src = bare.ct_nw_dst = 0;
    bare.ct_tp_src = bare.ct_tp_dst = 0;
    return bare;
}

/* Takes 'in'.  False: there are too many already. */
static bool
arrive(struct run *r, uint32_t host, uint32_t in_port, const struct flow *packet, char *in)
{
    if (r->n_waiting == MAX_VISITS) {
        r->trace->more = true;
        free(in);
        return false;
    }
    r->waiting[r->n_waiting++] =
        (struct arrival){.host = host, .in_port = in_port, .packet = *packet, .in = in};
    return true;
}

static uint16_t
tag_of(const struct flow *f)
{
    return f->vlans[0].tci & htons(VLAN_CFI) ? vlan_tci_to_vid(f->vlans[0].tci) : 0;
}

static struct model_network *
network_of_tag(const struct model *m, uint16_t tag)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_NETWORK) {
        struct model_network *n = model_network(obj);

        if (obj->live && n->type == MODEL_VLAN && n->tag == tag) {
            return n;
        }
    }
    return NULL;
}

/* Whether a host gets a frame with this destination from its VLAN. */
static bool
is_on(const struct model *m, const struct model_network *n, const struct model_host *host,
      const struct flow *f)
{
    const struct model_vif *vif = model_vif_by_mac(m, n, f->dl_dst);

    return eth_addr_is_multicast(f->dl_dst) || (vif && model_vif_port(vif, host));
}

static void
to_wire(struct run *r, struct trace_visit *v, const struct flow *f)
{
    uint16_t tag = tag_of(f);
    struct model_network *n = tag ? network_of_tag(r->t->model, tag) : NULL;
    struct flow bare = outside(f);
    struct model_presence *p;
    size_t n_hosts = 0;

    if (n) {
        LIST_FOR_EACH (p, network_node, &n->presences) {
            const struct model_host *h = p->host;
            const struct model_port *uplink = model_port_by_name(r->t->model, h, h->uplink);

            if (h == r->host || !uplink || !is_on(r->t->model, n, h, f)) {
                continue;
            }
            n_hosts++;
            add_end(v, TRACE_TO_HOST, h->obj.key,
                    xasprintf("VLAN %u to host %s", tag, h->obj.name));
            arrive(r, h->obj.key, uplink->ofport, &bare,
                   xasprintf("by VLAN %u from host %s", tag, r->host->obj.name));
        }
    }
    if (!n_hosts || eth_addr_is_multicast(f->dl_dst)) {
        char *text = tag ? xasprintf("VLAN %u of the physical network", tag)
                         : xstrdup("the physical network, untagged");

        add_end(v, TRACE_TO_WIRE, 0, text);
    }
}

static struct model_host *
host_by_tunnel_ip(const struct model *m, const struct flow *f)
{
    struct in6_addr dst = flow_tnl_dst(&f->tunnel);
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        if (obj->live && ipv6_addr_equals(&model_host(obj)->tunnel_ip, &dst)) {
            return model_host(obj);
        }
    }
    return NULL;
}

static void
to_tunnel(struct run *r, struct trace_visit *v, const char *port_name, const struct flow *f)
{
    struct model_host *to = host_by_tunnel_ip(r->t->model, f);
    const struct model_port *port = to ? model_port_by_name(r->t->model, to, port_name) : NULL;
    const struct in6_addr *own = &r->host->tunnel_ip;
    uint64_t vni = ntohll(f->tunnel.tun_id);
    struct flow bare = outside(f);

    if (!port) {
        add_end(v, TRACE_LOST, 0,
                to ? xasprintf("tunnel to host %s, which has no port %s", to->obj.name, port_name)
                   : xstrdup("tunnel to an address that is no host's"));
        return;
    }
    bare.tunnel.tun_id = f->tunnel.tun_id;
    bare.tunnel.ip_dst = f->tunnel.ip_dst;
    bare.tunnel.ipv6_dst = f->tunnel.ipv6_dst;
    if (IN6_IS_ADDR_V4MAPPED(own)) {
        bare.tunnel.ip_src = in6_addr_get_mapped_ipv4(own);
    } else {
        bare.tunnel.ipv6_src = *own;
    }
    add_end(v, TRACE_TO_HOST, to->obj.key,
            xasprintf("%s, VNI %" PRIu64 ", to host %s", port_name, vni, to->obj.name));
    arrive(r, to->obj.key, port->ofport, &bare,
           xasprintf("by %s, VNI %" PRIu64 ", from host %s", port_name, vni, r->host->obj.name));
}

static const struct model_port *
port_of(const struct model_host *host, uint32_t ofport)
{
    const struct model_port *port, *any = NULL;

    LIST_FOR_EACH (port, host_node, &host->ports) {
        /* A bond's name may have its first member's number. */
        if (port->ofport == ofport && (!any || port->vif || !strcmp(port->name, host->uplink))) {
            any = port;
        }
    }
    return any;
}

/* The port, or what of a trunk has the packet's tag. */
static const struct model_port *
vif_port_of(const struct model_host *host, uint32_t ofport, const struct flow *f)
{
    const struct model_port *port = port_of(host, ofport);
    const struct model_port *sub = port ? model_port_tagged(port, tag_of(f)) : NULL;

    return sub ? sub : port;
}

void
trace_set_tag(struct flow *f, uint16_t tag)
{
    memset(f->vlans, 0, sizeof f->vlans);
    if (tag) {
        f->vlans[0].tpid = htons(ETH_TYPE_VLAN);
        f->vlans[0].tci = htons(tag | VLAN_CFI);
    }
}

static void
leave(struct run *r, struct trace_visit *v, const struct eval_out *out)
{
    static const char *const tunnels[] = COMPILE_TUNNEL_NAMES;
    const struct model_port *port = vif_port_of(r->host, out->port, &out->flow);

    if (out->port == ofp_to_u16(OFPP_LOCAL)) {
        add_end(v, TRACE_TO_STACK, 0, xstrdup("the host itself"));
        return;
    }
    if (!port) {
        add_end(v, TRACE_LOST, 0, xasprintf("port %" PRIu32 ", which is gone", out->port));
        return;
    }
    if (port->vif) {
        add_end(v, TRACE_TO_VIF, port->vif->obj.key, xasprintf("vif %s", port->vif->obj.name));
        return;
    }
    if (!strcmp(port->name, r->host->uplink)) {
        to_wire(r, v, &out->flow);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tunnels); i++) {
        if (!strcmp(port->name, tunnels[i])) {
            to_tunnel(r, v, port->name, &out->flow);
            return;
        }
    }
    add_end(v, TRACE_TO_PORT, 0, xasprintf("port %s", port->name));
}

/* A vif's key if the vif with this MAC is on the host; else 0. */
static uint32_t
key_on(const struct model *m, const struct trace_start *s, struct eth_addr mac, uint32_t host_key)
{
    const struct model_network *n = model_network(model_by_key(m, s->seen.network));
    const struct model_vif *vif = n ? model_vif_by_mac(m, n, mac) : NULL;
    const struct model_host *host = model_host(model_by_key(m, host_key));

    return vif && host && model_vif_port(vif, host) ? vif->obj.key : 0;
}

/* On the first host conntrack says what was seen.  On another one it knows the
 * connection just as well, passed by the policy of then or of now, between the
 * same vifs as far as they are there. */
static struct eval_ct
seen_on(const struct run *r, const struct arrival *a, const struct trace_start *s)
{
    uint32_t epoch = compile_network_epoch(r->t->compile, s->seen.network, s->host);
    struct eval_ct ct = {s->seen.ct_state & ~CS_TRACKED, s->seen.ct_mark, s->seen.ct_label};
    bool reply = ct.state & CS_REPLY_DIR;
    const struct flow *f = &s->packet;

    if (a->host != s->host) {
        uint32_t there = compile_network_epoch(r->t->compile, s->seen.network, a->host);
        uint64_t src = key_on(r->t->model, s, reply ? f->dl_dst : f->dl_src, a->host);
        uint64_t dst = key_on(r->t->model, s, reply ? f->dl_src : f->dl_dst, a->host);

        ct.mark = ct.state & CS_NEW ? 0 : ct.mark == epoch ? there : there ^ 1;
        ct.label.u64.hi = dst << 32 | src;
    }
    return ct;
}

static void
visit(struct run *r, const struct arrival *a, const struct trace_start *s, enum trace_state state)
{
    struct trace *trace = r->trace;
    struct eval *e = eval_of(r->t, a->host);
    struct eval_ct seen = seen_on(r, a, s);
    struct trace_visit *v;

    if (trace->n_visits == trace->allocated) {
        trace->visits = x2nrealloc(trace->visits, &trace->allocated, sizeof *trace->visits);
    }
    v = &trace->visits[trace->n_visits++];
    *v = (struct trace_visit){.host = a->host, .in = a->in};
    r->host = model_host(model_by_key(r->t->model, a->host));
    if (!e || !r->host) {
        add_end(v, TRACE_LOST, 0, xstrdup("this host is left alone, or in error"));
        return;
    }
    e->observe = observe;
    e->observe_aux = r; // cppcheck-suppress autoVariables ; taken back below
    e->force_state = state == TRACE_INVALID ? CS_INVALID : 0;
    e->force_ct = state == TRACE_SEEN ? &seen : NULL; // cppcheck-suppress autoVariables ; likewise
    eval_packet(e, &a->packet, a->in_port);
    e->observe = NULL;
    e->observe_aux = NULL;
    e->force_ct = NULL;
    v->broken = e->broken;
    for (size_t i = 0; i < e->n_out; i++) {
        leave(r, v, &e->out[i]);
    }
    if (!v->n_ends) {
        add_end(v, TRACE_DROPPED, 0, xstrdup("it would leave by the port by which it came"))
            ->reason = "hairpin";
    }
}

/* --- the whole way --------------------------------------------------------------------- */

static char *
entry(const struct model *m, const struct trace_start *s)
{
    const struct model_host *host = model_host(model_by_key(m, s->host));
    const struct model_port *port = host ? vif_port_of(host, s->in_port, &s->packet) : NULL;

    if (port && port->vif) {
        return xasprintf("from vif %s", port->vif->obj.name);
    }
    return port ? xasprintf("by port %s", port->name) : xasprintf("by port %" PRIu32, s->in_port);
}

static void
run_packet(struct tracer *t, const struct trace_start *s, enum trace_state state, bool brief,
           struct trace *trace)
{
    struct run *r = xzalloc(sizeof *r);

    memset(trace, 0, sizeof *trace);
    r->t = t;
    r->trace = trace;
    r->brief = brief;
    arrive(r, s->host, s->in_port, &s->packet, entry(t->model, s));
    while (r->at < r->n_waiting) {
        visit(r, &r->waiting[r->at++], s, state);
    }
    free(r);
}

/* The answer to a packet that arrived at a vif, from there. */
static bool
reply_to(const struct tracer *t, const struct trace_start *s, const struct trace *opening,
         struct trace_start *reply)
{
    const struct trace_end *end = trace_first(opening, TRACE_TO_VIF);
    const struct model_vif *vif = end ? model_vif(model_by_key(t->model, end->key)) : NULL;
    struct flow *f = &reply->packet;

    *reply = *s;
    for (size_t i = 0; vif && i < opening->n_visits; i++) {
        const struct trace_visit *v = &opening->visits[i];

        if (end >= v->ends && end < v->ends + v->n_ends) {
            reply->host = v->host;
        }
    }
    const struct model_host *host = model_host(model_by_key(t->model, reply->host));
    const struct model_port *port = vif && host ? model_vif_port(vif, host) : NULL;

    if (!port) {
        return false;
    }
    reply->in_port = port->ofport;
    trace_set_tag(f, port->tag);
    f->dl_src = s->packet.dl_dst;
    f->dl_dst = s->packet.dl_src;
    f->nw_src = s->packet.nw_dst;
    f->nw_dst = s->packet.nw_src;
    f->ipv6_src = s->packet.ipv6_dst;
    f->ipv6_dst = s->packet.ipv6_src;
    if (f->nw_proto == IPPROTO_ICMP && f->dl_type == htons(ETH_TYPE_IP)) {
        f->tp_src = htons(f->tp_src == htons(8) ? 0 : 8);
    } else if (f->nw_proto == IPPROTO_ICMPV6 && f->dl_type == htons(ETH_TYPE_IPV6)) {
        f->tp_src = htons(f->tp_src == htons(128) ? 129 : 128);
    } else {
        f->tp_src = s->packet.tp_dst;
        f->tp_dst = s->packet.tp_src;
    }
    f->tcp_flags = f->nw_proto == IPPROTO_TCP ? htons(TCP_SYN | TCP_ACK) : 0;
    return true;
}

/* Policy was asked when the connection opened. */
static void
take_sides(struct trace *trace, const struct trace *opening)
{
    for (size_t i = 0; i < trace->n_visits; i++) {
        for (size_t j = 0; j < opening->n_visits; j++) {
            struct trace_visit *v = &trace->visits[i];

            if (v->host == opening->visits[j].host && !v->out.asked && !v->into.asked) {
                v->out = opening->visits[j].out;
                v->into = opening->visits[j].into;
            }
        }
    }
}

bool
tracer_run(struct tracer *t, const struct trace_start *s, bool brief, struct trace *trace)
{
    struct trace_start second = *s;
    struct trace opening;
    struct tracer_host *h;
    bool arrives;

    HMAP_FOR_EACH (h, node, &t->hosts) {
        eval_forget_conns(&h->eval);
    }
    if (s->state == TRACE_NEW || s->state == TRACE_INVALID || s->state == TRACE_SEEN) {
        run_packet(t, s, s->state, brief, trace);
        return true;
    }
    run_packet(t, s, TRACE_NEW, brief, &opening);
    arrives = s->state == TRACE_REPLY
                  ? reply_to(t, s, &opening, &second)
                  : trace_first(&opening, TRACE_TO_VIF) || trace_first(&opening, TRACE_TO_WIRE);
    if (!arrives) {
        *trace = opening;
        return false;
    }
    if (s->state == TRACE_OLDER) {
        HMAP_FOR_EACH (h, node, &t->hosts) {
            for (size_t i = 0; i < h->eval.n_conns; i++) {
                h->eval.conns[i].mark ^= 1;
            }
        }
    }
    if (second.packet.nw_proto == IPPROTO_TCP && s->state != TRACE_REPLY) {
        second.packet.tcp_flags = htons(TCP_ACK);
    }
    run_packet(t, &second, s->state, brief, trace);
    take_sides(trace, &opening);
    trace_uninit(&opening);
    return true;
}

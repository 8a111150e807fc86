#include <config.h>

#include "eval.h"

#include <stdlib.h>

#include "openvswitch/meta-flow.h"
#include "ovs-rcu.h"
#include "packets.h"
#include "pflow.h"
#include "util.h"

void
eval_init(struct eval *e)
{
    memset(e, 0, sizeof *e);
    for (unsigned i = 0; i < 256; i++) {
        classifier_init(&e->cls[i], NULL);
    }
}

void
eval_forget_flows(struct eval *e)
{
    for (size_t i = 0; i < e->n_rules; i++) {
        struct eval_rule *r = e->rules[i];

        classifier_remove_assert(&e->cls[r->table], &r->cr);
    }
    ovsrcu_quiesce();
    for (size_t i = 0; i < e->n_rules; i++) {
        cls_rule_destroy(&e->rules[i]->cr);
        ofpbuf_uninit(&e->rules[i]->acts);
        free(e->rules[i]);
    }
    free(e->rules);
    e->rules = NULL;
    e->n_rules = e->allocated_rules = 0;
}

void
eval_destroy(struct eval *e)
{
    eval_forget_flows(e);
    eval_forget_conns(e);
    for (unsigned i = 0; i < 256; i++) {
        classifier_destroy(&e->cls[i]);
    }
    free(e->out);
}

void
eval_forget_conns(struct eval *e)
{
    free(e->conns);
    e->conns = NULL;
    e->n_conns = e->allocated_conns = 0;
}

static void
eval_add_flow(struct eval *e, const struct pflow *f)
{
    struct eval_rule *r = xzalloc(sizeof *r);
    struct cls_conjunction *conj = NULL;
    const struct ofpact *a;
    struct match match;
    size_t n_conj = 0;

    ofpbuf_init(&r->acts, 64);
    pflow_get_match(f, &match);
    pflow_get_ofpacts(f, &r->acts);
    r->cookie = f->cookie;
    r->table = f->table;
    OFPACT_FOR_EACH(a, r->acts.data, r->acts.size)
    {
        if (a->type == OFPACT_CONJUNCTION) {
            const struct ofpact_conjunction *oc = ofpact_get_CONJUNCTION(a);

            conj = xrealloc(conj, (n_conj + 1) * sizeof *conj);
            conj[n_conj++] = (struct cls_conjunction){oc->id, oc->clause, oc->n_clauses};
        }
    }
    cls_rule_init(&r->cr, &match, f->priority);
    classifier_insert(&e->cls[f->table], &r->cr, OVS_VERSION_MIN, conj, n_conj);
    free(conj);
    if (e->n_rules == e->allocated_rules) {
        e->rules = x2nrealloc(e->rules, &e->allocated_rules, sizeof *e->rules);
    }
    e->rules[e->n_rules++] = r;
}

static bool
keep_all(const struct pflow *f, const void *aux)
{
    return true;
}

void
eval_set_flows(struct eval *e, const struct ftable *ft)
{
    eval_set_some_flows(e, ft, keep_all, NULL);
}

void
eval_set_some_flows(struct eval *e, const struct ftable *ft,
                    bool (*keep)(const struct pflow *, const void *), const void *aux)
{
    const struct pflow *f;

    eval_forget_flows(e);
    FTABLE_FOR_EACH (f, ft) {
        if (keep(f, aux)) {
            eval_add_flow(e, f);
        }
    }
}

/* --- conntrack ------------------------------------------------------------------ */

struct eval_tuple
eval_tuple(const struct flow *f, uint16_t zone)
{
    bool v6 = f->dl_type == htons(ETH_TYPE_IPV6);
    struct eval_tuple t = {
        .zone = zone, .proto = f->nw_proto, .v6 = v6, .sport = f->tp_src, .dport = f->tp_dst};

    if (v6) {
        t.src = f->ipv6_src;
        t.dst = f->ipv6_dst;
    } else {
        in6_addr_set_mapped_ipv4(&t.src, f->nw_src);
        in6_addr_set_mapped_ipv4(&t.dst, f->nw_dst);
    }
    return t;
}

static struct eval_tuple
eval_reverse(const struct eval_tuple *t)
{
    struct eval_tuple r = *t;

    r.src = t->dst;
    r.dst = t->src;
    if (t->proto == IPPROTO_ICMP && !t->v6) {
        r.sport = t->sport == htons(8) ? htons(0) : htons(8);
    } else if (t->proto == IPPROTO_ICMPV6 && t->v6) {
        r.sport = t->sport == htons(128) ? htons(129) : htons(128);
    } else {
        r.sport = t->dport;
        r.dport = t->sport;
    }
    return r;
}

bool
eval_same_tuple(const struct eval_tuple *a, const struct eval_tuple *b)
{
    return a->zone == b->zone && a->proto == b->proto && a->v6 == b->v6 &&
           ipv6_addr_equals(&a->src, &b->src) && ipv6_addr_equals(&a->dst, &b->dst) &&
           a->sport == b->sport && a->dport == b->dport;
}

static struct eval_conn *
eval_find_conn(struct eval *e, const struct eval_tuple *t, bool *reply)
{
    struct eval_tuple r = eval_reverse(t);

    for (size_t i = 0; i < e->n_conns; i++) {
        *reply = eval_same_tuple(&e->conns[i].tuple, &r);
        if (*reply || eval_same_tuple(&e->conns[i].tuple, t)) {
            return &e->conns[i];
        }
    }
    return NULL;
}

static void
eval_set_orig(struct flow *f, const struct eval_tuple *t)
{
    f->ct_nw_proto = t->proto;
    f->ct_tp_src = t->sport;
    f->ct_tp_dst = t->dport;
    if (t->v6) {
        f->ct_ipv6_src = t->src;
        f->ct_ipv6_dst = t->dst;
    } else {
        f->ct_nw_src = in6_addr_get_mapped_ipv4(&t->src);
        f->ct_nw_dst = in6_addr_get_mapped_ipv4(&t->dst);
    }
}

static void
eval_track(struct eval *e, struct flow *f, uint16_t zone)
{
    struct eval_tuple t = eval_tuple(f, zone);
    struct eval_conn *conn;
    bool reply;

    f->ct_zone = zone;
    f->ct_state = CS_TRACKED;
    f->ct_mark = 0;
    f->ct_label = OVS_U128_ZERO;
    if (e->force_ct) {
        struct eval_tuple opening = e->force_ct->state & CS_REPLY_DIR ? eval_reverse(&t) : t;

        f->ct_state |= e->force_ct->state;
        f->ct_mark = e->force_ct->mark;
        f->ct_label = e->force_ct->label;
        if (!(f->ct_state & CS_INVALID)) {
            eval_set_orig(f, &opening);
        }
        return;
    }
    if (e->force_state & CS_INVALID) {
        f->ct_state |= CS_INVALID;
        return;
    }
    if (e->force_state & CS_RELATED) {
        conn = &e->conns[e->force_conn];
        reply = e->force_reply;
        f->ct_state |= CS_RELATED;
    } else {
        conn = eval_find_conn(e, &t, &reply);
        if (!conn) {
            f->ct_state |= CS_NEW;
            eval_set_orig(f, &t);
            return;
        }
        f->ct_state |= CS_ESTABLISHED;
    }
    f->ct_state |= reply ? CS_REPLY_DIR : 0;
    f->ct_mark = conn->mark;
    f->ct_label = conn->label;
    eval_set_orig(f, &conn->tuple);
}

/* --- actions --------------------------------------------------------------------- */

static void eval_actions(struct eval *, struct flow *, const struct ofpact *, size_t);

static void
eval_swap_ct(struct flow *f)
{
    struct flow was = *f;

    f->nw_proto = was.ct_nw_proto;
    f->ct_nw_proto = was.nw_proto;
    f->tp_src = was.ct_tp_src;
    f->ct_tp_src = was.tp_src;
    f->tp_dst = was.ct_tp_dst;
    f->ct_tp_dst = was.tp_dst;
    if (f->dl_type == htons(ETH_TYPE_IP)) {
        f->nw_src = was.ct_nw_src;
        f->ct_nw_src = was.nw_src;
        f->nw_dst = was.ct_nw_dst;
        f->ct_nw_dst = was.nw_dst;
    } else {
        f->ipv6_src = was.ct_ipv6_src;
        f->ct_ipv6_src = was.ipv6_src;
        f->ipv6_dst = was.ct_ipv6_dst;
        f->ct_ipv6_dst = was.ipv6_dst;
    }
}

static void
eval_table(struct eval *e, struct flow *f, uint8_t table, bool with_ct)
{
    const struct cls_rule *cr;

    if (++e->n_lookups > EVAL_MAX_LOOKUPS || e->depth >= EVAL_MAX_DEPTH) {
        e->broken = true;
        return;
    }
    if (with_ct) {
        if (!f->ct_nw_proto || !is_ip_any(f)) {
            e->broken = true;
            return;
        }
        eval_swap_ct(f);
    }
    cr = classifier_lookup(&e->cls[table], OVS_VERSION_MIN, f, NULL);
    if (with_ct) {
        eval_swap_ct(f);
    }

    struct eval_rule *r = cr ? CONTAINER_OF(cr, struct eval_rule, cr) : NULL;

    if (e->observe) {
        e->observe(e->observe_aux, table, r, f);
    }
    if (!r) {
        e->missed = table;
        return;
    }

    r->n_hits++;
    e->depth++;
    e->max_depth = MAX(e->max_depth, e->depth);
    eval_actions(e, f, r->acts.data, r->acts.size);
    e->depth--;
}

static void
eval_ct(struct eval *e, struct flow *f, const struct ofpact_conntrack *ct)
{
    union mf_subvalue v;
    uint16_t zone = ct->zone_imm;

    if (ct->zone_src.field) {
        mf_read_subfield(&ct->zone_src, f, &v);
        zone = ntohs(v.be16[ARRAY_SIZE(v.be16) - 1]);
    }
    e->broken |= !is_ip_any(f) || !zone;
    if (ct->flags & NX_CT_F_COMMIT) {
        struct eval_tuple t = eval_tuple(f, zone);
        struct flow copy = *f;
        struct eval_conn *conn;
        bool reply;

        e->broken |= !(f->ct_state & CS_TRACKED) || f->ct_state & CS_INVALID;
        eval_actions(e, &copy, ct->actions, ofpact_ct_get_action_len(ct));
        conn = eval_find_conn(e, &t, &reply);
        if (!conn) {
            if (e->n_conns == e->allocated_conns) {
                e->conns = x2nrealloc(e->conns, &e->allocated_conns, sizeof *e->conns);
            }
            conn = &e->conns[e->n_conns++];
            conn->tuple = t;
        }
        conn->mark = copy.ct_mark;
        conn->label = copy.ct_label;
    }
    if (ct->recirc_table != NX_CT_RECIRC_NONE) {
        struct flow copy = *f;

        eval_track(e, &copy, zone);
        eval_table(e, &copy, ct->recirc_table, false);
    }
}

static void
eval_output(struct eval *e, const struct flow *f, ofp_port_t port)
{
    if (port == f->in_port.ofp_port) {
        return;
    }
    if (e->n_out == e->allocated_out) {
        e->out = x2nrealloc(e->out, &e->allocated_out, sizeof *e->out);
    }
    e->out[e->n_out++] = (struct eval_out){.port = ofp_to_u16(port), .flow = *f};
}

static void
eval_actions(struct eval *e, struct flow *f, const struct ofpact *acts, size_t len)
{
    const struct ofpact *a;
    union mf_subvalue v;

    OFPACT_FOR_EACH(a, acts, len)
    {
        switch (a->type) {
        case OFPACT_SET_FIELD: {
            const struct ofpact_set_field *sf = ofpact_get_SET_FIELD(a);

            e->broken |= !mf_are_prereqs_ok(sf->field, f, NULL);
            mf_set_flow_value_masked(sf->field, sf->value, ofpact_set_field_mask(sf), f);
            break;
        }
        case OFPACT_REG_MOVE:
            memset(&v, 0, sizeof v);
            mf_read_subfield(&ofpact_get_REG_MOVE(a)->src, f, &v);
            mf_write_subfield_flow(&ofpact_get_REG_MOVE(a)->dst, &v, f);
            break;
        case OFPACT_STACK_PUSH:
            e->broken |= e->n_stack == EVAL_MAX_STACK;
            mf_read_subfield(&ofpact_get_STACK_PUSH(a)->subfield, f,
                             &e->stack[e->n_stack++ % EVAL_MAX_STACK]);
            break;
        case OFPACT_STACK_POP:
            e->broken |= !e->n_stack;
            mf_write_subfield_flow(&ofpact_get_STACK_POP(a)->subfield,
                                   &e->stack[--e->n_stack % EVAL_MAX_STACK], f);
            break;
        case OFPACT_RESUBMIT:
            eval_table(e, f, ofpact_get_RESUBMIT(a)->table_id,
                       ofpact_get_RESUBMIT(a)->with_ct_orig);
            break;
        case OFPACT_GOTO_TABLE:
            eval_table(e, f, ofpact_get_GOTO_TABLE(a)->table_id, false);
            break;
        case OFPACT_CT:
            eval_ct(e, f, ofpact_get_CT(a));
            break;
        case OFPACT_OUTPUT:
            eval_output(e, f, ofpact_get_OUTPUT(a)->port);
            break;
        case OFPACT_STRIP_VLAN:
            e->broken |= !(f->vlans[0].tci & htons(VLAN_CFI));
            flow_pop_vlan(f, NULL);
            break;
        case OFPACT_PUSH_VLAN:
            flow_push_vlan_uninit(f, NULL);
            f->vlans[0].tpid = ofpact_get_PUSH_VLAN(a)->ethertype;
            f->vlans[0].tci = htons(VLAN_CFI);
            break;
        case OFPACT_CLONE: {
            const struct ofpact_nest *clone = ofpact_get_CLONE(a);
            struct flow copy = *f;

            eval_actions(e, &copy, clone->actions, ofpact_nest_get_action_len(clone));
            break;
        }
        case OFPACT_METER: /* below its rate */
        case OFPACT_CONTROLLER:
        case OFPACT_SAMPLE:
            break;
        default:
            e->broken = true;
        }
    }
}

void
eval_packet(struct eval *e, const struct flow *packet, uint32_t in_port)
{
    struct flow f = *packet;

    e->n_out = e->n_lookups = e->depth = e->n_stack = 0;
    e->broken = false;
    e->missed = -1;
    f.in_port.ofp_port = u16_to_ofp(in_port);
    eval_table(e, &f, 0, false);
    e->broken |= e->n_stack != 0;
}

/* The predecessor's flows: read from its file, in service until ofproto is
 * back.
 *
 * All of them stay where they were read, in the image of the file; its bytes
 * are checked first.  A flow waits in the list of a port that is not there
 * yet; when that comes, it waits for the next one or, if all are there, is
 * translated to their numbers and enters the classifier.  When a port goes,
 * its flows leave the classifier for good: their bytes may still be looked at.
 *
 * Left out are flows that do what is not there any more or not yet: send to
 * the controller, meter, balance over a bond by the datapath's table, set a
 * tunnel's metadata.  Their packets are dropped like all that nobody knows.
 * A sample that is only told to user space (sFlow, IPFIX) is not taken. */
#include <config.h>

#include "shadow_file.h"

#include "shadow.h"

#include <stdlib.h>
#include <string.h>

#include "coverage.h"
#include "fast/classifier.h"
#include "hash.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "odp-util.h"
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(shadow_table);

COVERAGE_DEFINE(weft_shadow_hit);

/* Nested actions (clone, sample, check_pkt_len). */
#define NESTING_MAX 8u
/* Ports that one flow speaks of. */
#define FLOW_PORTS_MAX 64u

/* A port of the predecessor's. */
struct old_port {
    struct hmap_node by_number, by_name;
    const struct shadow_port_record *record;
    const char *name, *type, *options;
    odp_port_t now;          /* its number today; ODPP_NONE: not there */
    struct ovs_list waiting; /* struct shadow_flow */
};

struct shadow_flow {
    struct cls_rule rule; /* first; into the image, like the rest */
    struct ovs_list node; /* in old_port.waiting, or table->active */
    struct nlattr *actions;
    size_t actions_len;
    uint16_t n_ports;
    struct old_port *ports[]; /* the one it comes in by first */
};

struct shadow_table {
    struct shadow_image image;
    struct classifier *classifier;
    struct hmap by_number, by_name; /* struct old_port */
    struct ovs_list active;         /* in the classifier */
    struct ovs_list gone;           /* have been */
    size_t n_flows, n_skipped;
};

/* --- actions ------------------------------------------------------------------------ */

/* A walk over actions: first to check them and note their ports, then, with
 * 'translate', to put in today's numbers. */
struct walk {
    const struct shadow_table *table;
    uint64_t made;
    bool translate;
    struct old_port *ports[FLOW_PORTS_MAX];
    unsigned n_ports;
};

static struct old_port *
find_number(const struct shadow_table *t, uint32_t port_no)
{
    struct old_port *p;

    HMAP_FOR_EACH_WITH_HASH (p, by_number, hash_int(port_no, 0), &t->by_number) {
        if (p->record->port_no == port_no) {
            return p;
        }
    }
    return NULL;
}

/* The port a flow of time 'made' meant by 'port_no'. */
static struct old_port *
note_port(struct walk *w, uint32_t port_no)
{
    struct old_port *p = find_number(w->table, port_no);

    if (!p || p->record->born > w->made) {
        return NULL;
    }
    for (unsigned i = 0; i < w->n_ports; i++) {
        if (w->ports[i] == p) {
            return p;
        }
    }
    if (w->n_ports >= FLOW_PORTS_MAX) {
        return NULL;
    }
    w->ports[w->n_ports++] = p;
    return p;
}

static bool
walk_port(struct walk *w, uint32_t *port_no)
{
    struct old_port *p;

    if (!w->translate) {
        return note_port(w, *port_no) != NULL;
    }
    p = find_number(w->table, *port_no);
    *port_no = odp_to_u32(p->now);
    return true;
}

static bool
only_tells(const struct nlattr *nest)
{
    const struct nlattr *a;
    size_t left;

    NL_NESTED_FOR_EACH(a, left, nest)
    {
        if (nl_attr_type(a) != OVS_ACTION_ATTR_USERSPACE) {
            return false;
        }
    }
    return !left;
}

static bool walk_actions(struct walk *, struct nlattr *, size_t len, unsigned depth);

static bool
walk_nested(struct walk *w, struct nlattr *nest, unsigned depth)
{
    return depth < NESTING_MAX && walk_actions(w, CONST_CAST(void *, nl_attr_get(nest)),
                                               nl_attr_get_size(nest), depth + 1);
}

static bool
walk_sample(struct walk *w, struct nlattr *sample, unsigned depth)
{
    struct nlattr *a, *probability = NULL, *actions = NULL;
    size_t left;

    NL_ATTR_FOR_EACH(a, left, (struct nlattr *)CONST_CAST(void *, nl_attr_get(sample)),
                     nl_attr_get_size(sample))
    {
        if (nl_attr_type(a) == OVS_SAMPLE_ATTR_PROBABILITY && nl_attr_get_size(a) == 4) {
            probability = a;
        } else if (nl_attr_type(a) == OVS_SAMPLE_ATTR_ACTIONS) {
            actions = a;
        } else {
            return false;
        }
    }
    if (left || !probability || !actions) {
        return false;
    }
    if (only_tells(actions)) {
        memset(CONST_CAST(void *, nl_attr_get(probability)), 0, 4);
        return true;
    }
    return walk_nested(w, actions, depth);
}

static bool
walk_check_pkt_len(struct walk *w, struct nlattr *check, unsigned depth)
{
    bool len = false;
    struct nlattr *a;
    size_t left;

    NL_ATTR_FOR_EACH(a, left, (struct nlattr *)CONST_CAST(void *, nl_attr_get(check)),
                     nl_attr_get_size(check))
    {
        switch (nl_attr_type(a)) {
        case OVS_CHECK_PKT_LEN_ATTR_PKT_LEN:
            len = nl_attr_get_size(a) == sizeof(uint16_t);
            break;
        case OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_GREATER:
        case OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_LESS_EQUAL:
            if (!walk_nested(w, a, depth)) {
                return false;
            }
            break;
        default:
            return false;
        }
    }
    return !left && len;
}

static bool
walk_tunnel_push(struct walk *w, void *push_)
{
    struct ovs_action_push_tnl *push = push_;
    uint32_t tnl_port, out_port;

    memcpy(&tnl_port, &push->tnl_port, sizeof tnl_port);
    memcpy(&out_port, &push->out_port, sizeof out_port);
    if (push->header_len > sizeof push->header || !walk_port(w, &tnl_port) ||
        !walk_port(w, &out_port)) {
        return false;
    }
    memcpy(&push->tnl_port, &tnl_port, sizeof tnl_port);
    memcpy(&push->out_port, &out_port, sizeof out_port);
    return true;
}

static bool
ct_well_formed(const struct nlattr *ct)
{
    const struct nlattr *a;
    size_t left;

    NL_NESTED_FOR_EACH(a, left, ct)
    {
        size_t size = nl_attr_get_size(a);
        bool ok;

        switch ((enum ovs_ct_attr)nl_attr_type(a)) {
        case OVS_CT_ATTR_COMMIT:
        case OVS_CT_ATTR_FORCE_COMMIT:
            ok = true;
            break;
        case OVS_CT_ATTR_ZONE:
            ok = size == 2;
            break;
        case OVS_CT_ATTR_MARK:
            ok = size == 8;
            break;
        case OVS_CT_ATTR_LABELS:
            ok = size == 32;
            break;
        case OVS_CT_ATTR_EVENTMASK:
            ok = size == 4;
            break;
        case OVS_CT_ATTR_HELPER:
        case OVS_CT_ATTR_TIMEOUT:
            ok = memchr(nl_attr_get(a), 0, size) != NULL;
            break;
        case OVS_CT_ATTR_NAT:
            ok = true;
            break;
        case OVS_CT_ATTR_UNSPEC:
        case __OVS_CT_ATTR_MAX:
        default:
            ok = false;
            break;
        }
        if (!ok) {
            return false;
        }
    }
    return !left;
}

/* A field to set: not a tunnel's. */
static bool
settable(const struct nlattr *set)
{
    const struct nlattr *a = nl_attr_get(set);

    return nl_attr_get_size(set) >= NLA_HDRLEN && a->nla_len >= NLA_HDRLEN &&
           a->nla_len <= nl_attr_get_size(set) && nl_attr_type(a) != OVS_KEY_ATTR_TUNNEL &&
           nl_attr_type(a) != OVS_KEY_ATTR_TUNNEL_INFO;
}

static bool
walk_one(struct walk *w, struct nlattr *a, unsigned depth)
{
    void *value = CONST_CAST(void *, nl_attr_get(a));
    size_t size = nl_attr_get_size(a);

    switch ((enum ovs_action_attr)nl_attr_type(a)) {
    case OVS_ACTION_ATTR_OUTPUT:
    case OVS_ACTION_ATTR_TUNNEL_POP:
        return size == sizeof(uint32_t) && walk_port(w, value);
    case OVS_ACTION_ATTR_TUNNEL_PUSH:
        return size == sizeof(struct ovs_action_push_tnl) && walk_tunnel_push(w, value);
    case OVS_ACTION_ATTR_RECIRC:
        if (w->translate) {
            *(uint32_t *)value |= SHADOW_RECIRC;
        }
        return size == sizeof(uint32_t);
    case OVS_ACTION_ATTR_CLONE:
        return walk_nested(w, a, depth);
    case OVS_ACTION_ATTR_SAMPLE:
        return walk_sample(w, a, depth);
    case OVS_ACTION_ATTR_CHECK_PKT_LEN:
        return walk_check_pkt_len(w, a, depth);
    case OVS_ACTION_ATTR_SET:
    case OVS_ACTION_ATTR_SET_MASKED:
        return settable(a);
    case OVS_ACTION_ATTR_CT:
        return ct_well_formed(a);
    case OVS_ACTION_ATTR_PUSH_VLAN:
        return size == sizeof(struct ovs_action_push_vlan);
    case OVS_ACTION_ATTR_HASH:
        return size == sizeof(struct ovs_action_hash);
    case OVS_ACTION_ATTR_PUSH_MPLS:
        return size == sizeof(struct ovs_action_push_mpls);
    case OVS_ACTION_ATTR_ADD_MPLS:
        return size == sizeof(struct ovs_action_add_mpls);
    case OVS_ACTION_ATTR_POP_MPLS:
        return size == sizeof(ovs_be16);
    case OVS_ACTION_ATTR_TRUNC:
        return size == sizeof(struct ovs_action_trunc);
    case OVS_ACTION_ATTR_PUSH_ETH:
        return size == sizeof(struct ovs_action_push_eth);
    case OVS_ACTION_ATTR_DROP:
        return size == sizeof(uint32_t);
    case OVS_ACTION_ATTR_POP_VLAN:
    case OVS_ACTION_ATTR_POP_ETH:
    case OVS_ACTION_ATTR_PUSH_NSH:
    case OVS_ACTION_ATTR_POP_NSH:
    case OVS_ACTION_ATTR_CT_CLEAR:
        return true;
    case OVS_ACTION_ATTR_UNSPEC:
    case OVS_ACTION_ATTR_USERSPACE:
    case OVS_ACTION_ATTR_METER:
    case OVS_ACTION_ATTR_LB_OUTPUT:
    case __OVS_ACTION_ATTR_MAX:
        return false;
    }
    return false;
}

static bool
walk_actions(struct walk *w, struct nlattr *actions, size_t len, unsigned depth)
{
    struct nlattr *a;
    size_t left;

    NL_ATTR_FOR_EACH(a, left, actions, len)
    {
        if (!walk_one(w, a, depth)) {
            return false;
        }
    }
    return !left;
}

/* --- matches ------------------------------------------------------------------------- */

#define WORD_OF(FIELD) (offsetof(struct flow, FIELD) / sizeof(uint64_t))

/* Fields that name something of the process. */
static bool
match_valid(const struct cls_rule *r, uint32_t *in_port, struct walk *w)
{
    struct flow flow, mask;

    memset(&flow, 0, sizeof flow);
    memset(&mask, 0, sizeof mask);
    for (unsigned i = 0; i < r->n_words; i++) {
        if (r->idx[i] >= FLOW_U64S || (i && r->idx[i] <= r->idx[i - 1]) || !r->mask[i] ||
            r->value[i] & ~r->mask[i] ||
            (r->idx[i] >= WORD_OF(tunnel.metadata) &&
             r->idx[i] < WORD_OF(tunnel.metadata) + sizeof flow.tunnel.metadata / 8)) {
            return false;
        }
        ((uint64_t *)&flow)[r->idx[i]] = r->value[i];
        ((uint64_t *)&mask)[r->idx[i]] = r->mask[i];
    }
    *in_port = odp_to_u32(flow.in_port.odp_port);
    return mask.in_port.odp_port == ODPP_NONE && mask.recirc_id == UINT32_MAX &&
           !(flow.recirc_id & SHADOW_RECIRC) && note_port(w, *in_port);
}

/* Today's number of the port, and the shadow's recirculation id. */
static void
translate_match(struct shadow_flow *f)
{
    uint64_t *value = CONST_CAST(uint64_t *, f->rule.value);
    struct flow flow;

    for (unsigned i = 0; i < f->rule.n_words; i++) {
        uint64_t *word = (uint64_t *)&flow + f->rule.idx[i];

        *word = value[i];
        if (f->rule.idx[i] == WORD_OF(in_port)) {
            flow.in_port.odp_port = f->ports[0]->now;
        }
        if (f->rule.idx[i] == WORD_OF(recirc_id) && flow.recirc_id) {
            flow.recirc_id |= SHADOW_RECIRC;
        }
        value[i] = *word;
    }
}

/* --- flows ----------------------------------------------------------------------------- */

static bool
all_there(struct shadow_flow *f)
{
    for (unsigned i = 0; i < f->n_ports; i++) {
        if (f->ports[i]->now == ODPP_NONE) {
            ovs_list_push_back(&f->ports[i]->waiting, &f->node);
            return false;
        }
    }
    return true;
}

static void
enter(struct shadow_table *t, struct shadow_flow *f)
{
    struct walk w = {.table = t, .translate = true};

    translate_match(f);
    walk_actions(&w, f->actions, f->actions_len, 0);
    ovs_list_push_back(cls_insert(t->classifier, &f->rule) ? &t->gone : &t->active, &f->node);
}

/* True if the record is a flow's, as far as can be said without the ports. */
static bool
take_flow(struct shadow_table *t, struct shadow_flow_record *r, size_t len)
{
    struct walk w = {.table = t, .made = r->made};
    size_t n = r->n_words, idx_len = ROUND_UP(n, 4) * sizeof(uint16_t);
    size_t head = sizeof *r + n * 2 * sizeof r->words[0] + idx_len;
    struct shadow_flow *f;
    struct cls_rule rule;
    struct nlattr *actions;
    uint32_t in_port;

    if (n > FLOW_U64S || head + r->actions_len != len) {
        return false;
    }
    rule = (struct cls_rule){
        .n_words = n,
        .mask = r->words,
        .value = r->words + n,
        .idx = (uint16_t *)(r->words + 2 * n),
    };
    actions = (struct nlattr *)((uint8_t *)r + head);
    if (!match_valid(&rule, &in_port, &w) || !walk_actions(&w, actions, r->actions_len, 0)) {
        return false;
    }
    f = xzalloc(sizeof *f + w.n_ports * sizeof f->ports[0]);
    f->rule = rule;
    f->actions = actions;
    f->actions_len = r->actions_len;
    f->n_ports = w.n_ports;
    memcpy(f->ports, w.ports, w.n_ports * sizeof w.ports[0]);
    all_there(f); /* none is: it waits */
    return true;
}

/* --- the table ------------------------------------------------------------------------- */

static void
take_port(struct shadow_table *t, const struct shadow_port_record *r, size_t len)
{
    struct old_port *p = xzalloc(sizeof *p);

    p->record = r;
    p->now = ODPP_NONE;
    ovs_list_init(&p->waiting);
    if (!shadow_port_text(r, len, &p->name, &p->type, &p->options) || find_number(t, r->port_no)) {
        free(p);
        return;
    }
    hmap_insert(&t->by_number, &p->by_number, hash_int(r->port_no, 0));
    hmap_insert(&t->by_name, &p->by_name, hash_string(p->name, 0));
}

static void
take_records(struct shadow_table *t, enum shadow_record_type type)
{
    size_t pos = 0, len;
    uint32_t *record;

    while ((record = shadow_image_next(&t->image, &pos, &len))) {
        if (len < sizeof *record || *record != type) {
            continue;
        }
        if (type == SHADOW_PORT && len >= sizeof(struct shadow_port_record)) {
            take_port(t, (const struct shadow_port_record *)record, len);
        } else if (type == SHADOW_FLOW && len >= sizeof(struct shadow_flow_record)) {
            if (take_flow(t, (struct shadow_flow_record *)record, len)) {
                t->n_flows++;
            } else {
                t->n_skipped++;
            }
        }
    }
}

struct shadow_table *
shadow_table_create(struct shadow_image *image)
{
    struct shadow_table *t = xzalloc(sizeof *t);

    t->image = *image;
    t->classifier = cls_create(FLOW_U64S);
    if (!t->classifier) {
        out_of_memory();
    }
    hmap_init(&t->by_number);
    hmap_init(&t->by_name);
    ovs_list_init(&t->active);
    ovs_list_init(&t->gone);
    take_records(t, SHADOW_PORT);
    take_records(t, SHADOW_FLOW);
    if (t->n_skipped) {
        VLOG_INFO("%" PRIuSIZE " flows of the previous process need what is not there yet",
                  t->n_skipped);
    }
    if (!t->n_flows) {
        shadow_table_destroy(t);
        return NULL;
    }
    return t;
}

static void
free_flows(struct ovs_list *flows)
{
    struct shadow_flow *f;

    LIST_FOR_EACH_POP (f, node, flows) {
        free(f);
    }
}

void
shadow_table_destroy(void *t_)
{
    struct shadow_table *t = t_;
    struct shadow_flow *f;
    struct old_port *p;

    LIST_FOR_EACH (f, node, &t->active) {
        cls_remove(t->classifier, &f->rule);
    }
    cls_destroy(t->classifier);
    free_flows(&t->active);
    free_flows(&t->gone);
    HMAP_FOR_EACH_POP (p, by_number, &t->by_number) {
        free_flows(&p->waiting);
        free(p);
    }
    hmap_destroy(&t->by_number);
    hmap_destroy(&t->by_name);
    shadow_image_free(&t->image);
    free(t);
}

size_t
shadow_table_count(const struct shadow_table *t)
{
    return t->n_flows;
}

void
shadow_table_port_add(struct shadow_table *t, const struct dp_port *port)
{
    const char *name = netdev_get_name(port->netdev);
    struct ovs_list flows = OVS_LIST_INITIALIZER(&flows);
    char *options = shadow_port_options(port->netdev);
    struct shadow_flow *f;
    struct old_port *p;

    HMAP_FOR_EACH_WITH_HASH (p, by_name, hash_string(name, 0), &t->by_name) {
        if (!strcmp(p->name, name) && !strcmp(p->type, port->type) &&
            !strcmp(p->options, options)) {
            p->now = port->port_no;
            ovs_list_push_back_all(&flows, &p->waiting);
        }
    }
    LIST_FOR_EACH_POP (f, node, &flows) {
        if (all_there(f)) {
            enter(t, f);
        }
    }
    free(options);
}

void
shadow_table_port_del(struct shadow_table *t, const struct dp_port *port)
{
    struct shadow_flow *f;
    struct old_port *p, *gone = NULL;

    HMAP_FOR_EACH (p, by_number, &t->by_number) {
        if (p->now == port->port_no) {
            gone = p;
            p->now = ODPP_NONE;
        }
    }
    if (!gone) {
        return;
    }
    LIST_FOR_EACH_SAFE (f, node, &t->active) {
        for (unsigned i = 0; i < f->n_ports; i++) {
            if (f->ports[i] == gone) {
                cls_remove(t->classifier, &f->rule);
                ovs_list_remove(&f->node);
                ovs_list_push_back(&t->gone, &f->node);
                break;
            }
        }
    }
}

/* --- packets ----------------------------------------------------------------------------- */

unsigned
shadow_input(struct dp_worker *w, struct dp_packet *packets[], const struct flow *flows[],
             unsigned n)
{
    const struct shadow_table *t = atomic_load_explicit(&w->dp->shadow_table, memory_order_acquire);
    struct cls_rule *found[NETDEV_MAX_BURST] = {NULL};
    unsigned n_left = 0;

    ovs_assert(n <= NETDEV_MAX_BURST);
    if (!t) {
        return n;
    }
    dp_worker_rcu(w);
    cls_lookup_batch(t->classifier, (const uint64_t *const *)flows, n, found);
    for (unsigned i = 0, end; i < n; i = end) {
        const struct shadow_flow *f = CONTAINER_OF(found[i], struct shadow_flow, rule);

        for (end = i + 1; end < n && found[end] == found[i]; end++) {
            continue;
        }
        if (found[i]) {
            struct dp_packet_batch batch;

            dp_packet_batch_init(&batch);
            memcpy(batch.packets, packets + i, (end - i) * sizeof packets[0]);
            batch.count = end - i;
            COVERAGE_ADD(weft_shadow_hit, end - i);
            dp_execute(w, &batch, true, f->actions, f->actions_len);
        } else {
            for (unsigned j = i; j < end; j++) {
                packets[n_left] = packets[j];
                flows[n_left++] = flows[j];
            }
        }
    }
    return n_left;
}

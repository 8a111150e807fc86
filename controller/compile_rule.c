/* A rule's flows.
 *
 * A rule holds where three things do: the vif is in its scope, the other end's
 * address is among its remotes, and protocol and port are among its services.
 * Where at most one of them has several members, a flow per member does.  Else
 * the rule is a conjunction: a flow per member of each such dimension, which
 * makes n + m flows of n * m, and one that acts when each dimension has a
 * match.  Dimensions of one member are part of each of the flows, so that rules
 * that differ in them do not meet.
 *
 * Flows of a set of vifs (SCOPE_SET) depend on which are here; so that the rest
 * is the same on all hosts, such a scope is a dimension of its own however many
 * vifs are here, unless the remainder is one flow. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "compile_impl.h"
#include "hash.h"
#include "util.h"

/* Protocol and port, as far as they are stated. */
struct service {
    uint16_t dl_type; /* 0: not even IP */
    int protocol;     /* -1: any */
    uint16_t port, port_mask;
    int icmp_type, icmp_code;
};

struct dims {
    const struct model_rule *rule;
    bool out;
    uint16_t priority;
    const struct model_prefix **remotes; /* n_remotes 0: any */
    size_t n_remotes;
    struct service *services;
    size_t n_services, allocated;
    /* What most rules need of both: they are looked at for each vif of a group. */
    const struct model_prefix *few_remotes[8];
    struct service few_services[32];
};

static bool
remotes_of(struct compile *c, const struct model_rule *r, const struct model_prefixes **remotes)
{
    if (r->remote_group) {
        *remotes = model_group_prefixes(c->model, r->remote_group);
    } else {
        *remotes = &r->remote_cidrs;
    }
    return r->remote_group || r->remote_cidrs.n;
}

static void
add_service(struct dims *d, struct service s)
{
    if (d->n_services == d->allocated) {
        bool few = d->services == d->few_services;

        d->allocated *= 2;
        d->services = xrealloc(few ? NULL : d->services, d->allocated * sizeof *d->services);
        if (few) {
            memcpy(d->services, d->few_services, sizeof d->few_services);
        }
    }
    d->services[d->n_services++] = s;
}

/* A range as aligned blocks: values under masks. */
static void
add_range(struct dims *d, struct service s, const struct model_ports *range)
{
    uint32_t first = range->first, last = range->last;

    while (first <= last) {
        uint32_t size = first ? first & -first : 0x10000;

        while (first + size - 1 > last) {
            size >>= 1;
        }
        s.port = first;
        s.port_mask = ~(size - 1);
        add_service(d, s);
        first += size;
    }
}

static void
add_services(struct dims *d, uint16_t dl_type)
{
    const struct model_rule *r = d->rule;
    struct service s = {.dl_type = dl_type,
                        .protocol = r->protocol,
                        .icmp_type = r->icmp_type,
                        .icmp_code = r->icmp_code};

    if (!r->n_ports) {
        add_service(d, s);
    }
    for (size_t i = 0; i < r->n_ports; i++) {
        add_range(d, s, &r->ports[i]);
    }
}

/* False: no packet can be meant. */
static bool
dims_init(struct dims *d, struct compile *c, const struct model_rule *r)
{
    const struct model_prefixes *remotes;
    bool limited = remotes_of(c, r, &remotes);
    bool v4 = !limited && r->ethertype != MODEL_ETH_IPV6;
    bool v6 = !limited && r->ethertype != MODEL_ETH_IPV4;

    d->rule = r;
    d->out = !r->in;
    d->priority = model_rule_band(r) * 5000 + 2 * (MODEL_ORDER_MAX - r->order) +
                  (r->action == MODEL_DENY) + 1;
    d->n_remotes = d->n_services = 0;
    d->services = d->few_services;
    d->allocated = ARRAY_SIZE(d->few_services);
    d->remotes = limited && remotes->n > ARRAY_SIZE(d->few_remotes)
                     ? xmalloc(remotes->n * sizeof *d->remotes)
                     : d->few_remotes;
    for (size_t i = 0; limited && i < remotes->n; i++) {
        bool is_v4 = model_prefix_is_v4(&remotes->p[i]);

        if (r->ethertype != (is_v4 ? MODEL_ETH_IPV6 : MODEL_ETH_IPV4)) {
            d->remotes[d->n_remotes++] = &remotes->p[i];
            v4 |= is_v4;
            v6 |= !is_v4;
        }
    }
    if (limited && !d->n_remotes) {
        return false;
    }
    if (r->protocol < 0 && (limited || r->ethertype == MODEL_ETH_ANY)) {
        add_service(d, (struct service){.protocol = -1, .icmp_type = -1, .icmp_code = -1});
        return true;
    }
    if (v4) {
        add_services(d, ETH_TYPE_IP);
    }
    if (v6) {
        add_services(d, ETH_TYPE_IPV6);
    }
    return d->n_services > 0;
}

static void
dims_uninit(struct dims *d)
{
    if (d->remotes != d->few_remotes) {
        free(d->remotes);
    }
    if (d->services != d->few_services) {
        free(d->services);
    }
}

/* --- matches ------------------------------------------------------------------------ */

static void
match_service(struct fmatch *m, const struct service *s)
{
    if (s->dl_type) {
        fm_dl_type(m, htons(s->dl_type));
    }
    if (s->protocol >= 0) {
        fm_nw_proto(m, s->protocol);
    }
    if (s->port_mask) {
        fm_tp_dst_masked(m, htons(s->port), htons(s->port_mask));
    }
    if (s->icmp_type >= 0) {
        fm_icmp_type(m, s->icmp_type);
    }
    if (s->icmp_code >= 0) {
        fm_icmp_code(m, s->icmp_code);
    }
}

static void
match_remote(const struct dims *d, struct fmatch *m, const struct model_prefix *p)
{
    match_prefix(m, p, !d->out);
}

static void
match_vif(const struct dims *d, struct fmatch *m, uint32_t vif)
{
    fm_reg(m, d->out ? REG_SRC : REG_DST, vif);
}

static void
match_scope(const struct dims *d, struct fmatch *m, enum scope_type type, uint32_t key)
{
    if (type == SCOPE_NETWORK) {
        match_network(m, key);
    } else if (type == SCOPE_VIF) {
        match_vif(d, m, key);
    }
}

static bool
agree(const struct model_prefix *p, const struct service *s)
{
    return !s->dl_type || s->dl_type == (model_prefix_is_v4(p) ? ETH_TYPE_IP : ETH_TYPE_IPV6);
}

static uint8_t
table_of(const struct dims *d)
{
    return d->out ? TBL_POLICY_OUT : TBL_POLICY_IN;
}

/* Bytes of a packet that the log gets: enough for its headers. */
#define LOG_BYTES 128

static void
act_log(struct build *b)
{
    struct ofpact_controller *oc = ofpact_put_CONTROLLER(&b->acts);

    oc->max_len = LOG_BYTES;
    oc->reason = OFPR_ACTION;
    oc->meter_id = NX_CTLR_NO_METER;
    oc->provider_meter_id = UINT32_MAX;
}

/* A connection that is passed has its rules in ct_label; what is not one tells
 * the collectors by itself. */
static void
act_sample(struct build *b, const struct dims *d)
{
    struct ofpact_sample *os = ofpact_put_SAMPLE(&b->acts);

    os->probability = UINT16_MAX / d->rule->sample;
    os->collector_set_id = COMPILE_COLLECTOR_SET;
    os->obs_domain_id = d->out ? COMPILE_DOMAIN_OUT : COMPILE_DOMAIN_IN;
    os->obs_point_id = d->rule->obj.key;
    os->sampling_port = OFPP_NONE;
}

/* Ends the flow with the rule's verdict. */
static void
emit_verdict(struct build *b, const struct dims *d)
{
    const struct model_rule *r = d->rule;
    enum verdict v = r->action == MODEL_DENY ? REFUSED
                     : r->stateful           ? PASS_STATEFUL
                                             : PASS_STATELESS;

    act_reg(b, d->out ? REG_OUT : REG_IN, v);
    act_reg(b, d->out ? REG_OUT_RULE : REG_IN_RULE, r->obj.key);
    if (r->log) {
        act_log(b);
    }
    if (v != PASS_STATEFUL && r->sample) {
        act_sample(b, d);
    }
    emit(b, table_of(d), d->priority);
}

/* --- plain ---------------------------------------------------------------------------- */

/* Every pair of remote and service, in a scope. */
static void
emit_pairs(struct build *b, const struct dims *d, enum scope_type type, uint32_t scope)
{
    size_t n_remotes = MAX(d->n_remotes, 1);

    for (size_t i = 0; i < n_remotes; i++) {
        for (size_t j = 0; j < d->n_services; j++) {
            if (d->n_remotes && !agree(d->remotes[i], &d->services[j])) {
                continue;
            }
            match_scope(d, &b->m, type, scope);
            if (d->n_remotes) {
                match_remote(d, &b->m, d->remotes[i]);
            }
            match_service(&b->m, &d->services[j]);
            emit_verdict(b, d);
        }
    }
}

static size_t
n_pairs(const struct dims *d)
{
    return MAX(d->n_remotes, 1) * d->n_services;
}

/* --- conjunctions ----------------------------------------------------------------------- */

/* Which dimensions a conjunction has, and their numbers. */
struct conj {
    unsigned scope, remote, service, n; /* 0: not one of them */
};

static struct conj
conj_of(const struct dims *d, enum scope_type type)
{
    struct conj j = {0};

    j.scope = type == SCOPE_SET ? ++j.n : 0;
    j.remote = d->n_remotes > 1 ? ++j.n : 0;
    j.service = d->n_services > 1 ? ++j.n : 0;
    return j;
}

/* A conjunction of one dimension is none. */
static bool
is_conj(const struct dims *d, enum scope_type type)
{
    if (type == SCOPE_SET) {
        return n_pairs(d) > 1;
    }
    return d->n_remotes > 1 && d->n_services > 1 && n_pairs(d) > d->n_remotes + d->n_services + 1;
}

/* What each flow of the conjunction has. */
static void
match_singles(const struct dims *d, struct fmatch *m, enum scope_type type, uint32_t scope)
{
    match_scope(d, m, type, scope);
    if (d->n_remotes == 1) {
        match_remote(d, m, d->remotes[0]);
    }
    if (d->n_services == 1) {
        match_service(m, &d->services[0]);
    }
}

static void
emit_conj(struct build *b, const struct dims *d, enum scope_type type, uint32_t scope)
{
    struct conj j = conj_of(d, type);
    uint32_t id = d->rule->obj.key;

    for (size_t i = 0; j.remote && i < d->n_remotes; i++) {
        if (d->n_services == 1 && !agree(d->remotes[i], &d->services[0])) {
            continue;
        }
        match_singles(d, &b->m, type, scope);
        match_remote(d, &b->m, d->remotes[i]);
        act_conjunction(b, id, j.remote - 1, j.n);
        emit(b, table_of(d), d->priority);
    }
    for (size_t i = 0; j.service && i < d->n_services; i++) {
        if (d->n_remotes == 1 && !agree(d->remotes[0], &d->services[i])) {
            continue;
        }
        match_singles(d, &b->m, type, scope);
        match_service(&b->m, &d->services[i]);
        act_conjunction(b, id, j.service - 1, j.n);
        emit(b, table_of(d), d->priority);
    }
    fm_conj_id(&b->m, id);
    emit_verdict(b, d);
}

/* --- the rule -------------------------------------------------------------------------- */

void
make_rule(struct compile *c, const struct model_rule *r, enum scope_type type, uint32_t scope,
          struct flows *body)
{
    struct build b;
    struct dims d;

    build_init(&b, c, body, flow_cookie(FLOW_RULE, r->obj.key));
    if (dims_init(&d, c, r)) {
        if (is_conj(&d, type)) {
            emit_conj(&b, &d, type, scope);
        } else if (type != SCOPE_SET) {
            emit_pairs(&b, &d, type, scope);
        }
    }
    dims_uninit(&d);
    build_uninit(&b);
}

void
make_rule_vif(struct compile *c, const struct model_rule *r, uint32_t vif, struct flows *out)
{
    struct build b;
    struct dims d;

    build_init(&b, c, out, flow_cookie(FLOW_RULE, r->obj.key));
    if (dims_init(&d, c, r)) {
        if (!is_conj(&d, SCOPE_SET)) {
            emit_pairs(&b, &d, SCOPE_VIF, vif);
        } else {
            struct conj j = conj_of(&d, SCOPE_SET);

            match_singles(&d, &b.m, SCOPE_VIF, vif);
            act_conjunction(&b, r->obj.key, j.scope - 1, j.n);
            emit(&b, table_of(&d), d.priority);
        }
    }
    dims_uninit(&d);
    build_uninit(&b);
}

/* What the rule says, with its remotes resolved: the same for two rules only if
 * they decide the same. */
uint64_t
rule_content(struct compile *c, const struct model_rule *r)
{
    const struct model_prefixes *remotes;
    bool limited = remotes_of(c, r, &remotes);
    const uint32_t words[] = {
        r->obj.key,   model_rule_band(r), r->order,    r->in,
        r->action,    r->ethertype,       r->protocol, r->icmp_type,
        r->icmp_code, r->stateful,        limited,     limited ? remotes->n : 0,
    };
    ovs_u128 h;
    uint64_t sum;

    hash_bytes128(words, sizeof words, 0, &h);
    sum = mix64(h.u64.lo, h.u64.hi);
    for (size_t i = 0; limited && i < remotes->n; i++) {
        hash_bytes128(&remotes->p[i].addr, sizeof remotes->p[i].addr, remotes->p[i].plen, &h);
        sum = mix64(sum, h.u64.lo);
    }
    for (size_t i = 0; i < r->n_ports; i++) {
        sum = mix64(sum, (uint64_t)r->ports[i].first << 16 | r->ports[i].last);
    }
    return sum;
}

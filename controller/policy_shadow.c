#include <config.h>

#include "policy_shadow.h"

#include <stdlib.h>

#include "compile_impl.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "packets.h"
#include "record.h"
#include "trace_query.h"
#include "util.h"

/* Changes that are named in an answer. */
#define MAX_CHANGES 1000

/* The MAC of what is not the pool's. */
#define ELSEWHERE "02:ff:ff:ff:ff:fe"

/* --- a flow as a packet ------------------------------------------------------------------- */

struct seen {
    struct trace_packet packet;
    const char *network;
    long long int count;
};

static bool
take_number(const struct json *value, long long int max, long long int *n)
{
    *n = value->type == JSON_INTEGER ? json_integer(value) : -1;
    return *n >= 0 && *n <= max;
}

static bool
take_member(struct seen *s, const char *name, const struct json *value, struct trace_fault *fault)
{
    const struct {
        const char *name, **text;
        int *number;
    } members[] = {
        {"from", &s->packet.from},
        {"to", &s->packet.to},
        {"network", &s->network},
        {"source", &s->packet.source},
        {"destination", &s->packet.destination},
        {"protocol", &s->packet.protocol},
        {"port", NULL, &s->packet.port},
        {"source_port", NULL, &s->packet.source_port},
        {"icmp_type", NULL, &s->packet.icmp_type},
        {"icmp_code", NULL, &s->packet.icmp_code},
    };
    long long int n;

    if (!strcmp(name, "count")) {
        if (!take_number(value, LLONG_MAX, &s->count)) {
            trace_fault_set(fault, "flows", "count: must be a number");
            return false;
        }
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        if (strcmp(name, members[i].name)) {
            continue;
        }
        if (members[i].text ? value->type != JSON_STRING : !take_number(value, UINT16_MAX, &n)) {
            trace_fault_set(fault, "flows", "%s: must be a %s", name,
                            members[i].text ? "string" : "number up to 65535");
            return false;
        }
        if (members[i].text) {
            *members[i].text = json_string(value)[0] ? json_string(value) : NULL;
        } else {
            *members[i].number = n;
        }
        return true;
    }
    trace_fault_set(fault, "flows", "%.60s: nobody knows this member", name);
    return false;
}

static bool
parse_seen(const struct json *json, struct seen *s, struct trace_fault *fault)
{
    struct shash_node *node;

    *s = (struct seen){.packet = {.port = -1, .source_port = -1, .icmp_type = -1, .icmp_code = -1},
                       .count = 1};
    if (json->type != JSON_OBJECT) {
        trace_fault_set(fault, "flows", "one of them is not an object");
        return false;
    }
    SHASH_FOR_EACH (node, json_object(json)) {
        if (!take_member(s, node->name, node->data, fault)) {
            return false;
        }
    }
    return true;
}

/* From outside: by the VLAN of its network, on the receiver's host. */
static bool
start_outside(const struct model *m, const struct seen *s, struct trace_start *start,
              struct trace_fault *fault)
{
    struct trace_packet back = s->packet;
    const struct model_vif *to = model_vif(model_by_name(m, REC_VIF, s->packet.to));
    const struct model_port *uplink;
    struct flow *f = &start->packet;
    struct flow was;

    /* Built the other way round, for that begins at a vif. */
    back.from = s->packet.to;
    back.to = s->packet.source;
    back.source = s->packet.destination;
    back.destination = NULL;
    back.to_mac = ELSEWHERE;
    if (!back.to || !back.source || !trace_packet_start(m, &back, start, fault)) {
        return false;
    }
    uplink = to ? model_port_by_name(m, to->host, to->host->uplink) : NULL;
    if (!uplink || to->network->type != MODEL_VLAN) {
        trace_fault_set(fault, "flows", "nothing from outside reaches vif %s", s->packet.to);
        return false;
    }
    was = *f;
    f->dl_src = was.dl_dst;
    f->dl_dst = was.dl_src;
    f->nw_src = was.nw_dst;
    f->nw_dst = was.nw_src;
    f->ipv6_src = was.ipv6_dst;
    f->ipv6_dst = was.ipv6_src;
    trace_set_tag(f, to->network->tag);
    start->in_port = uplink->ofport;
    return true;
}

static bool
start_of(const struct model *m, const struct seen *s, struct trace_start *start,
         struct trace_fault *fault)
{
    struct trace_packet packet = s->packet;

    if (!packet.from) {
        if (!packet.to) {
            trace_fault_set(fault, "flows", "a flow needs from or to");
            return false;
        }
        return start_outside(m, s, start, fault);
    }
    if (!packet.to) {
        packet.to = packet.destination;
        packet.destination = NULL;
        packet.to_mac = ELSEWHERE;
    }
    return trace_packet_start(m, &packet, start, fault);
}

/* --- scoring ------------------------------------------------------------------------------- */

enum fate { ALLOWED, DENIED, LOST, UNKNOWN };
static const char *const fates[] = {
    [ALLOWED] = "allow", [DENIED] = "deny", [LOST] = "drop", [UNKNOWN] = "unknown"};

struct score {
    enum fate fate;
    uint32_t rule; /* that denied, or allowed at the destination's side, or at the source's */
    char *text;    /* why it does not arrive; else NULL */
};

static void
score_of(const struct model *m, struct tracer *t, const struct seen *s, struct score *score)
{
    const struct trace_end *drop;
    struct trace_fault fault = {"", ""};
    struct trace_start start;
    struct trace trace;

    *score = (struct score){.fate = UNKNOWN};
    if (!start_of(m, s, &start, &fault)) {
        score->text = xstrdup(fault.message);
        return;
    }
    tracer_run(t, &start, true, &trace);
    drop = trace_first(&trace, TRACE_DROPPED);
    if (trace_first(&trace, TRACE_TO_VIF) || trace_first(&trace, TRACE_TO_WIRE)) {
        score->fate = ALLOWED;
    } else if (drop) {
        score->fate = strcmp(drop->reason, "denied") ? LOST : DENIED;
        score->rule = drop->key;
        score->text = xstrdup(drop->text);
    } else {
        score->fate = LOST;
    }
    for (size_t i = 0; score->fate == ALLOWED && i < trace.n_visits; i++) {
        const struct trace_visit *v = &trace.visits[i];

        score->rule = v->into.asked ? v->into.rule : v->out.asked ? v->out.rule : score->rule;
    }
    trace_uninit(&trace);
}

static struct json *
side_json(const struct model *m, const struct score *s)
{
    const struct model_rule *r = model_rule(model_by_key(m, s->rule));
    struct json *json = json_object_create();
    struct ds ds = DS_EMPTY_INITIALIZER;

    json_object_put_string(json, "action", fates[s->fate]);
    if (s->text) {
        ds_put_cstr(&ds, s->text);
    } else {
        explain_rule_key(m, s->rule, &ds);
    }
    json_object_put_string(json, "by", ds_cstr(&ds));
    if (r) {
        json_object_put_format(json, "rule", "%s/%s", r->policy->obj.name, r->obj.name);
        json_object_put_string(json, "author", r->policy->author ? r->policy->author : "");
    }
    ds_destroy(&ds);
    return json;
}

/* What matters most is told of first. */
enum { NEWLY_DENIED, NEWLY_ALLOWED, OTHERWISE, N_CHANGES };

struct totals {
    long long int flows, same, changed[N_CHANGES], unknown;
    struct json *changes[N_CHANGES]; /* arrays of at most MAX_CHANGES */
};

static void
compare(struct totals *sum, const struct json *flow, const struct model *m, const struct score *now,
        const struct model *aside, const struct score *then)
{
    struct json *change;
    unsigned kind = OTHERWISE;

    sum->flows++;
    if (now->fate == UNKNOWN && then->fate == UNKNOWN) {
        sum->unknown++;
        return;
    }
    if (now->fate == then->fate && now->rule == then->rule) {
        sum->same++;
        return;
    }
    if (now->fate != then->fate && then->fate == ALLOWED) {
        kind = NEWLY_ALLOWED;
    } else if (now->fate != then->fate && now->fate == ALLOWED) {
        kind = NEWLY_DENIED;
    }
    sum->changed[kind]++;
    if (json_array(sum->changes[kind])->n >= MAX_CHANGES) {
        return;
    }
    change = json_object_create();
    json_object_put(change, "flow", json_deep_clone(flow));
    json_object_put(change, "now", side_json(m, now));
    json_object_put(change, "then", side_json(aside, then));
    json_array_add(sum->changes[kind], change);
}

/* The first MAX_CHANGES of all. */
static struct json *
all_changes(const struct totals *sum)
{
    struct json *all = json_array_create_empty();

    for (unsigned kind = 0; kind < N_CHANGES; kind++) {
        const struct json *changes = sum->changes[kind];

        for (size_t i = 0; i < json_array(changes)->n && json_array(all)->n < MAX_CHANGES; i++) {
            json_array_add(all, json_clone(json_array(changes)->elems[i]));
        }
    }
    return all;
}

static void
totals_free(struct totals *sum)
{
    for (unsigned kind = 0; kind < N_CHANGES; kind++) {
        json_destroy(sum->changes[kind]);
    }
}

static char *
totals_text(struct totals *sum)
{
    struct json *json = json_object_create();
    char *said;

    json_object_put(json, "flows", json_integer_create(sum->flows));
    json_object_put(json, "same", json_integer_create(sum->same));
    json_object_put(json, "newly_denied", json_integer_create(sum->changed[NEWLY_DENIED]));
    json_object_put(json, "newly_allowed", json_integer_create(sum->changed[NEWLY_ALLOWED]));
    json_object_put(json, "other_rule", json_integer_create(sum->changed[OTHERWISE]));
    json_object_put(json, "unknown", json_integer_create(sum->unknown));
    json_object_put(json, "changes", all_changes(sum));
    said = json_to_string(json, JSSF_SORT);
    json_destroy(json);
    return said;
}

char *
shadow_score(struct model *m, struct compile *c, struct model *aside, const char *text,
             struct trace_fault *fault)
{
    struct json *json = json_from_string(text);
    struct totals sum = {0};
    struct compile *then = NULL;
    struct tracer *t_now, *t_then;
    char *said;
    bool ok = json->type == JSON_ARRAY && json_array(json)->n <= SHADOW_FLOWS;

    if (!ok) {
        trace_fault_set(fault, "flows", "must be an array of at most %u", SHADOW_FLOWS);
        json_destroy(json);
        return NULL;
    }
    for (unsigned kind = 0; kind < N_CHANGES; kind++) {
        sum.changes[kind] = json_array_create_empty();
    }
    then = compile_create(aside);
    compile_run(then);
    model_changes_clear(aside);
    t_now = tracer_create(m, c, NULL);
    t_then = tracer_create(aside, then, NULL);
    for (size_t i = 0; ok && i < json_array(json)->n; i++) {
        const struct json *flow = json_array(json)->elems[i];
        struct score a, b;
        struct seen s;

        ok = parse_seen(flow, &s, fault);
        if (ok) {
            score_of(m, t_now, &s, &a);
            score_of(aside, t_then, &s, &b);
            compare(&sum, flow, m, &a, aside, &b);
            free(a.text);
            free(b.text);
        }
    }
    tracer_destroy(t_now);
    tracer_destroy(t_then);
    compile_destroy(then);
    json_destroy(json);
    said = ok ? totals_text(&sum) : NULL;
    totals_free(&sum);
    return said;
}

void
shadow_forget(struct model *aside)
{
    if (aside) {
        model_destroy(aside);
    }
}

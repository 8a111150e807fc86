/* A trace as JSON, and in lines for people. */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "packets.h"
#include "pflow.h"
#include "record.h"
#include "trace_query.h"
#include "util.h"

static const char *const end_names[] = {
    [TRACE_TO_VIF] = "vif",      [TRACE_TO_HOST] = "host", [TRACE_TO_WIRE] = "wire",
    [TRACE_TO_STACK] = "stack",  [TRACE_TO_PORT] = "port", [TRACE_LOST] = "lost",
    [TRACE_DROPPED] = "dropped",
};

static const char *
name_of(const struct model *m, uint32_t key)
{
    const struct model_obj *obj = model_by_key(m, key);

    return obj ? obj->name : "?";
}

/* --- the packet --------------------------------------------------------------------------- */

static void
put_ports(const struct flow *f, ovs_be16 port, struct ds *ds)
{
    if (f->nw_proto == IPPROTO_TCP || f->nw_proto == IPPROTO_UDP || f->nw_proto == IPPROTO_SCTP) {
        ds_put_format(ds, ":%u", ntohs(port));
    }
}

static void
put_protocol(const struct flow *f, struct ds *ds)
{
    bool v6 = f->dl_type == htons(ETH_TYPE_IPV6);

    if (f->nw_proto == IPPROTO_TCP) {
        ds_put_cstr(ds, "tcp");
    } else if (f->nw_proto == IPPROTO_UDP) {
        ds_put_cstr(ds, "udp");
    } else if (f->nw_proto == IPPROTO_SCTP) {
        ds_put_cstr(ds, "sctp");
    } else if (f->nw_proto == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        ds_put_format(ds, "%s type %u code %u", v6 ? "icmpv6" : "icmp", ntohs(f->tp_src),
                      ntohs(f->tp_dst));
    } else {
        ds_put_format(ds, "protocol %u", f->nw_proto);
    }
}

void
trace_put_packet(const struct flow *f, struct ds *ds)
{
    if (is_ip_any(f)) {
        bool v6 = f->dl_type == htons(ETH_TYPE_IPV6);

        put_protocol(f, ds);
        ds_put_char(ds, ' ');
        if (v6) {
            ipv6_format_addr_bracket(&f->ipv6_src, ds, f->tp_src != 0);
        } else {
            ds_put_format(ds, IP_FMT, IP_ARGS(f->nw_src));
        }
        put_ports(f, f->tp_src, ds);
        ds_put_cstr(ds, " > ");
        if (v6) {
            ipv6_format_addr_bracket(&f->ipv6_dst, ds, f->tp_dst != 0);
        } else {
            ds_put_format(ds, IP_FMT, IP_ARGS(f->nw_dst));
        }
        put_ports(f, f->tp_dst, ds);
    } else if (f->dl_type == htons(ETH_TYPE_ARP)) {
        ds_put_format(ds, "arp " IP_FMT " > " IP_FMT, IP_ARGS(f->nw_src), IP_ARGS(f->nw_dst));
    } else {
        ds_put_format(ds, "ethertype 0x%04x", ntohs(f->dl_type));
    }
    ds_put_format(ds, ", " ETH_ADDR_FMT " > " ETH_ADDR_FMT, ETH_ADDR_ARGS(f->dl_src),
                  ETH_ADDR_ARGS(f->dl_dst));
}

/* --- the outcome ---------------------------------------------------------------------------- */

static size_t
count_ends(const struct trace *t, enum trace_end_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < t->n_visits; i++) {
        for (size_t j = 0; j < t->visits[i].n_ends; j++) {
            n += t->visits[i].ends[j].kind == kind;
        }
    }
    return n;
}

static const char *
verdict_of(const struct trace *t)
{
    for (size_t i = 0; i < t->n_visits; i++) {
        if (t->visits[i].broken) {
            return "broken";
        }
    }
    return trace_first(t, TRACE_TO_VIF)     ? "delivered"
           : trace_first(t, TRACE_TO_WIRE)  ? "leaves"
           : trace_first(t, TRACE_TO_STACK) ? "delivered"
           : trace_first(t, TRACE_TO_PORT)  ? "delivered"
           : trace_first(t, TRACE_LOST)     ? "lost"
                                            : "dropped";
}

static void
put_outcome(const struct model *m, const struct trace *t, struct ds *ds)
{
    static const enum trace_end_kind order[] = {TRACE_TO_VIF,  TRACE_TO_STACK, TRACE_TO_PORT,
                                                TRACE_TO_WIRE, TRACE_LOST,     TRACE_DROPPED};
    const char *verdict = verdict_of(t);
    const struct trace_end *end = NULL;
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(order) && !end; i++) {
        end = trace_first(t, order[i]);
        n = count_ends(t, order[i]);
    }
    if (!strcmp(verdict, "broken")) {
        ds_put_cstr(ds, "broken: a switch gives up at this packet");
        return;
    }
    ds_put_format(ds, "%s%s %s", verdict,
                  !strcmp(verdict, "delivered") ? " to"
                  : !strcmp(verdict, "leaves")  ? " by"
                                                : ":",
                  end ? end->text : "nothing");
    if (n > 1) {
        ds_put_format(ds, ", and %" PRIuSIZE " more", n - 1);
    }
    for (size_t i = 0; end && i < t->n_visits; i++) {
        const struct trace_visit *v = &t->visits[i];

        if (v->n_ends && end >= v->ends && end < v->ends + v->n_ends) {
            ds_put_format(ds, ", on host %s", name_of(m, v->host));
        }
    }
}

/* --- JSON ---------------------------------------------------------------------------------------
 */

static void
put_text(struct json *json, const char *member,
         void (*put)(const struct model *, uint64_t, struct ds *), const struct model *m,
         uint64_t key)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    put(m, key, &ds);
    json_object_put(json, member, json_string_create_nocopy(ds_steal_cstr(&ds)));
}

static void
put_rule_key(const struct model *m, uint64_t key, struct ds *ds)
{
    explain_rule_key(m, key, ds);
}

static void
put_rule(struct json *json, const struct model *m, uint32_t key)
{
    const struct model_rule *r = model_rule(model_by_key(m, key));

    if (r) {
        json_object_put_format(json, "rule", "%s/%s", r->policy->obj.name, r->obj.name);
        json_object_put_string(json, "policy", r->policy->obj.name);
        json_object_put_string(json, "author", r->policy->author ? r->policy->author : "");
        json_object_put_string(json, "part", r->mandatory ? "mandatory" : "default");
    }
}

char *
trace_cookie(const struct model *m, const char *text, struct trace_fault *fault)
{
    const struct model_obj *obj;
    enum flow_kind kind;
    struct json *json;
    uint64_t cookie;
    char *said, *end;

    errno = 0;
    cookie = strtoull(text, &end, 0);
    if (errno || end == text || *end || !isdigit((unsigned char)*text)) {
        trace_fault_set(fault, "cookie", "\"%.60s\" is no number like 0xd505000000000007", text);
        return NULL;
    }
    kind = flow_cookie_kind(cookie);
    obj = kind ? model_by_key(m, (uint32_t)cookie) : NULL;
    json = json_object_create();
    json_object_put_format(json, "cookie", "0x%016" PRIx64, cookie);
    json_object_put_string(json, "kind", flow_kind_name(kind));
    put_text(json, "from", explain_cookie, m, cookie);
    if (kind == FLOW_RULE) {
        put_rule(json, m, cookie);
    }
    if (obj) {
        const struct model_rule *r = model_rule(obj);

        json_object_put_format(json, "object", "%s %s%s%s", rec_tables[obj->kind].noun,
                               r ? r->policy->obj.name : "", r ? "/" : "", obj->name);
    }
    said = json_to_string(json, JSSF_SORT);
    json_destroy(json);
    return said;
}

static struct json *
step_json(const struct model *m, const struct trace_step *s)
{
    struct json *json = json_object_create();
    const char *name = flow_table_name(s->table);

    json_object_put(json, "table", json_integer_create(s->table));
    json_object_put_string(json, "name", name ? name : "");
    if (s->miss) {
        return json;
    }
    json_object_put(json, "priority", json_integer_create(s->priority));
    json_object_put_format(json, "cookie", "0x%016" PRIx64, s->cookie);
    json_object_put_string(json, "kind", flow_kind_name(flow_cookie_kind(s->cookie)));
    put_text(json, "from", explain_cookie, m, s->cookie);
    if (flow_cookie_kind(s->cookie) == FLOW_RULE) {
        put_rule(json, m, s->cookie);
    }
    json_object_put_string(json, "match", s->match);
    json_object_put_string(json, "actions", s->actions);
    return json;
}

static struct json *
end_json(const struct model *m, const struct trace_end *e)
{
    struct json *json = json_object_create();

    json_object_put_string(json, "kind", end_names[e->kind]);
    json_object_put_string(json, "text", e->text);
    if (e->kind == TRACE_TO_VIF || e->kind == TRACE_TO_HOST) {
        json_object_put_string(json, "name", name_of(m, e->key));
    }
    if (e->reason) {
        json_object_put_string(json, "reason", e->reason);
        put_rule(json, m, e->key);
    }
    if (e->dst) {
        json_object_put_string(json, "for", name_of(m, e->dst));
    }
    return json;
}

static void
add_side(struct json *array, const struct model *m, const struct trace_visit *v, bool in)
{
    const struct trace_side *side = in ? &v->into : &v->out;
    struct json *json;

    if (!side->asked) {
        return;
    }
    json = json_object_create();
    json_object_put_string(json, "side", in ? "destination" : "source");
    json_object_put_string(json, "host", name_of(m, v->host));
    json_object_put_string(json, "action", side->allowed ? "allow" : "deny");
    put_text(json, "by", put_rule_key, m, side->rule);
    put_rule(json, m, side->rule);
    json_array_add(array, json);
}

/* Why a host's switch may do otherwise; false: it has what was looked at, as far as
 * is known. */
static bool
put_doubt(const struct model *m, const struct trace_visit *v, struct ds *ds)
{
    const struct model_host *h = model_host(model_by_key(m, v->host));

    if (!h || !h->led) { /* its status is not ours to know */
        return false;
    }
    if (!h->status.connected) {
        ds_put_cstr(ds, "it is not connected");
    } else if (h->status.applied_generation != m->generation) {
        ds_put_format(ds, "it has generation %" PRId64 ", not %" PRId64 " yet",
                      h->status.applied_generation, m->generation);
    } else if (h->status.error[0]) {
        ds_put_cstr(ds, h->status.error);
    } else {
        return false;
    }
    return true;
}

static struct json *
visit_json(const struct model *m, const struct trace_visit *v)
{
    struct json *json = json_object_create(), *steps = json_array_create_empty();
    struct json *ends = json_array_create_empty();
    struct ds doubt = DS_EMPTY_INITIALIZER;

    json_object_put_string(json, "host", name_of(m, v->host));
    json_object_put_string(json, "in", v->in);
    if (v->state) {
        json_object_put_string(json, "conntrack", v->state);
    }
    if (put_doubt(m, v, &doubt)) {
        json_object_put_string(json, "doubt", ds_cstr(&doubt));
    }
    ds_destroy(&doubt);
    for (size_t i = 0; i < v->n_steps; i++) {
        json_array_add(steps, step_json(m, &v->steps[i]));
    }
    for (size_t i = 0; i < v->n_ends; i++) {
        json_array_add(ends, end_json(m, &v->ends[i]));
    }
    json_object_put(json, "steps", steps);
    json_object_put(json, "ends", ends);
    return json;
}

/* --- lines
 * ----------------------------------------------------------------------------------------- */

static void
put_visit(const struct model *m, const struct trace_visit *v, struct ds *ds)
{
    struct ds doubt = DS_EMPTY_INITIALIZER;

    ds_put_format(ds, "\nhost %s, %s\n", name_of(m, v->host), v->in);
    if (put_doubt(m, v, &doubt)) {
        ds_put_format(ds, "  its switch may do otherwise: %s\n", ds_cstr(&doubt));
    }
    ds_destroy(&doubt);
    for (size_t i = 0; i < v->n_steps; i++) {
        const struct trace_step *s = &v->steps[i];

        ds_put_format(ds, "  %2u %-11s ", s->table, flow_table_name(s->table));
        if (s->miss) {
            ds_put_cstr(ds, "no flow matches\n");
            continue;
        }
        explain_cookie(m, s->cookie, ds);
        ds_put_format(ds, "\n                 %s => %s\n", s->match[0] ? s->match : "any",
                      s->actions);
        if (s->table == 40 && v->state) {
            ds_put_format(ds, "                 connection: %s\n", v->state);
        }
    }
    for (size_t i = 0; i < v->n_ends; i++) {
        const struct trace_end *e = &v->ends[i];

        ds_put_format(ds, "  %s %s", e->kind == TRACE_DROPPED ? "dropped:" : "->", e->text);
        if (e->dst) {
            ds_put_format(ds, " (for vif %s)", name_of(m, e->dst));
        }
        ds_put_char(ds, '\n');
    }
}

static void
put_sides(const struct model *m, const struct trace *t, struct ds *ds)
{
    for (size_t i = 0; i < t->n_visits; i++) {
        const struct trace_visit *v = &t->visits[i];

        for (int in = 0; in < 2; in++) {
            const struct trace_side *side = in ? &v->into : &v->out;

            if (side->asked) {
                ds_put_format(ds, "  %s's side: %s by ", in ? "destination" : "source",
                              side->allowed ? "allowed" : "denied");
                explain_rule_key(m, side->rule, ds);
                ds_put_char(ds, '\n');
            }
        }
    }
}

struct json *
trace_json(const struct model *m, const struct trace_start *s, const struct trace *t, bool as_asked)
{
    struct json *json = json_object_create(), *visits = json_array_create_empty();
    static const char *const followed[] = {
        [TRACE_NEW] = "",
        [TRACE_ESTABLISHED] = "; a later one of its connection",
        [TRACE_REPLY] = "; the reply to it",
        [TRACE_OLDER] = "; a later one of its connection, after a change of policy",
        [TRACE_INVALID] = "; invalid to connection tracking",
        [TRACE_SEEN] = "; as it was seen",
    };
    struct json *sides = json_array_create_empty();
    struct ds text = DS_EMPTY_INITIALIZER, line = DS_EMPTY_INITIALIZER;

    trace_put_packet(&s->packet, &line);
    json_object_put_string(json, "packet", ds_cstr(&line));
    ds_put_format(&text, "packet: %s%s\n", ds_cstr(&line), followed[s->state]);
    if (!as_asked) {
        ds_put_cstr(&text, "There is no such connection: the packet that would open it does not "
                           "arrive.  That packet:\n");
    }
    for (size_t i = 0; i < t->n_visits; i++) {
        json_array_add(visits, visit_json(m, &t->visits[i]));
        add_side(sides, m, &t->visits[i], false);
        add_side(sides, m, &t->visits[i], true);
        put_visit(m, &t->visits[i], &text);
    }
    if (t->more) {
        ds_put_cstr(&text, "\nIt goes to more hosts than are shown here.\n");
    }
    ds_clear(&line);
    put_outcome(m, t, &line);
    ds_put_format(&text, "\nverdict: %s\n", ds_cstr(&line));
    put_sides(m, t, &text);

    json_object_put(json, "connection", json_boolean_create(as_asked));
    json_object_put_string(json, "verdict", verdict_of(t));
    json_object_put_string(json, "outcome", ds_cstr(&line));
    json_object_put(json, "visits", visits);
    json_object_put(json, "sides", sides);
    json_object_put(json, "more", json_boolean_create(t->more));
    json_object_put_string(json, "text", ds_cstr(&text));
    ds_destroy(&text);
    ds_destroy(&line);
    return json;
}

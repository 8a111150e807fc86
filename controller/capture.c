#include <config.h>

#include "capture.h"

#include <stdlib.h>

#include "compile_impl.h"
#include "fleet.h"
#include "flow.h"
#include "host.h"
#include "openvswitch/json.h"
#include "openvswitch/match.h"
#include "openvswitch/shash.h"
#include "record.h"
#include "timeval.h"
#include "trace_query.h"
#include "util.h"

/* What conntrack says comes a moment after the packet. */
#define SETTLE_MS 200
#define READ_MAX 20
#define SECONDS_DEFAULT 10
#define SECONDS_MAX 300

struct captured {
    int64_t at_ms; /* wall clock */
    uint32_t host;
    struct flow packet;
    bool tracked;
    struct trace_seen seen;
};

struct capture {
    struct model *model;
    struct compile *compile;
    struct fleet *fleet;
    uint32_t vif; /* key; 0: none */
    struct match filter;
    long long int until;
    struct captured packets[CAPTURE_MAX]; /* the first ones */
    size_t n;
};

struct capture *
capture_create(struct model *m, struct compile *c, struct fleet *f)
{
    struct capture *capture = xzalloc(sizeof *capture);

    capture->model = m;
    capture->compile = c;
    capture->fleet = f;
    return capture;
}

void
capture_destroy(struct capture *c)
{
    free(c);
}

/* --- the question ---------------------------------------------------------------------- */

struct filter {
    const char *vif, *protocol, *family;
    long long int port, seconds;
};

static bool
take_member(struct filter *q, const char *name, const struct json *value, struct trace_fault *fault)
{
    const struct {
        const char *name, **text;
        long long int *number, max;
    } members[] = {
        {"vif", &q->vif},
        {"protocol", &q->protocol},
        {"family", &q->family},
        {"port", NULL, &q->port, UINT16_MAX},
        {"seconds", NULL, &q->seconds, SECONDS_MAX},
    };

    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        if (strcmp(name, members[i].name)) {
            continue;
        }
        if (members[i].text && value->type == JSON_STRING) {
            *members[i].text = json_string(value);
            return true;
        }
        if (!members[i].text && value->type == JSON_INTEGER && json_integer(value) >= 0 &&
            json_integer(value) <= members[i].max) {
            *members[i].number = json_integer(value);
            return true;
        }
        trace_fault_set(fault, name, "must be a %s", members[i].text ? "string" : "number");
        return false;
    }
    trace_fault_set(fault, name, "nobody knows this member");
    return false;
}

static bool
make_filter(const struct filter *q, struct match *match, struct trace_fault *fault)
{
    int protocol = q->protocol ? rec_parse_protocol(q->protocol) : -1;
    bool v6 = q->family && !strcmp(q->family, "ipv6");

    match_init_catchall(match);
    if (q->family && !v6 && strcmp(q->family, "ipv4")) {
        trace_fault_set(fault, "family", "must be ipv4 or ipv6");
        return false;
    }
    if (q->protocol && protocol < 0) {
        trace_fault_set(fault, "protocol", "\"%.40s\" is none", q->protocol);
        return false;
    }
    if (q->port >= 0 && protocol != IPPROTO_TCP && protocol != IPPROTO_UDP &&
        protocol != IPPROTO_SCTP) {
        trace_fault_set(fault, "port", "goes with tcp, udp and sctp");
        return false;
    }
    if (protocol >= 0 || q->family) {
        v6 = v6 || protocol == IPPROTO_ICMPV6;
        match_set_dl_type(match, htons(v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP));
    }
    if (protocol >= 0) {
        match_set_nw_proto(match, protocol);
    }
    if (q->port >= 0) {
        match_set_tp_dst(match, htons(q->port));
    }
    return true;
}

static void
stop(struct capture *c)
{
    const struct model_vif *vif = model_vif(model_by_key(c->model, c->vif));

    if (vif && time_msec() < c->until) {
        fleet_tap_vif(c->fleet, vif, &c->filter, 0);
    }
    c->until = 0;
}

static bool
start(struct capture *c, const struct filter *q, struct trace_fault *fault)
{
    const struct model_vif *vif =
        q->vif ? model_vif(model_by_name(c->model, REC_VIF, q->vif)) : NULL;
    struct match match;

    if (!vif) {
        trace_fault_set(fault, "vif", q->vif ? "there is no vif \"%.200s\"" : "must be given%s",
                        q->vif ? q->vif : "");
        return false;
    }
    if (!make_filter(q, &match, fault)) {
        return false;
    }
    stop(c);
    if (!q->seconds) {
        return true;
    }
    if (!fleet_tap_vif(c->fleet, vif, &match, q->seconds)) {
        trace_fault_set(fault, "vif", "its host cannot report packets now");
        return false;
    }
    c->vif = vif->obj.key;
    c->filter = match;
    c->until = time_msec() + 1000 * q->seconds;
    c->n = 0;
    return true;
}

char *
capture_start(struct capture *c, const char *text, struct trace_fault *fault)
{
    struct filter q = {.port = -1, .seconds = SECONDS_DEFAULT};
    struct json *json = json_from_string(text);
    struct shash_node *node;
    char *said = NULL;
    bool ok = json->type == JSON_OBJECT;

    if (!ok) {
        trace_fault_set(fault, "", "the question is not a JSON object");
    } else {
        SHASH_FOR_EACH (node, json_object(json)) {
            ok = ok && take_member(&q, node->name, node->data, fault);
        }
    }
    if (ok && start(c, &q, fault)) {
        said = xasprintf("{\"seconds\":%lld}", q.seconds);
    }
    json_destroy(json);
    return said;
}

/* --- packets ----------------------------------------------------------------------------- */

static void
note_state(struct capture *c, const struct host_packet *p)
{
    for (size_t i = c->n; i-- > 0;) {
        struct captured *one = &c->packets[i];
        struct flow bare = one->packet;

        trace_set_tag(&bare, 0); /* of a trunk: behind classification it is off */
        if (!one->tracked && flow_equal(&bare, p->packet)) {
            one->tracked = true;
            one->seen = (struct trace_seen){
                .ct_state = p->metadata->ct_state,
                .ct_mark = p->metadata->ct_mark,
                .ct_label = p->metadata->ct_label,
                .network = ntohll(p->metadata->metadata),
            };
            return;
        }
    }
}

void
capture_packet(struct capture *c, const char *host, const struct host_packet *p)
{
    const struct model_obj *obj = model_by_name(c->model, REC_HOST, host);

    if (!c->vif || p->cookie != flow_cookie(FLOW_TAP, c->vif) || !obj) {
        return;
    }
    if (p->table == TBL_STATE) {
        note_state(c, p);
    } else if (c->n < CAPTURE_MAX) {
        c->packets[c->n++] = (struct captured){
            .at_ms = time_wall_msec(),
            .host = obj->key,
            .packet = *p->packet,
        };
    }
}

static struct json *
captured_json(struct capture *c, struct tracer *tracer, const struct captured *one, size_t number)
{
    const struct model_vif *vif = model_vif(model_by_key(c->model, c->vif));
    const struct model_host *host = model_host(model_by_key(c->model, one->host));
    const struct model_port *port = vif && host ? model_vif_port(vif, host) : NULL;
    struct trace_start s = {
        .host = one->host,
        .in_port = port ? port->ofport : 0,
        .packet = one->packet,
        .state = one->tracked ? TRACE_SEEN : TRACE_NEW,
        .seen = one->seen,
    };
    struct json *json = json_object_create();
    struct trace trace;

    tracer_run(tracer, &s, false, &trace);
    json_object_put(json, "number", json_integer_create(number));
    json_object_put(json, "time", json_integer_create(one->at_ms));
    json_object_put(json, "trace", trace_json(c->model, &s, &trace, true));
    trace_uninit(&trace);
    return json;
}

char *
capture_read(struct capture *c, int64_t after)
{
    struct json *json = json_object_create(), *packets = json_array_create_empty();
    struct tracer *tracer = tracer_create(c->model, c->compile, NULL);
    size_t i = after > 0 ? MIN((uint64_t)after, c->n) : 0, end = MIN(c->n, i + READ_MAX);
    char *said;

    for (; i < end && c->packets[i].at_ms + SETTLE_MS <= time_wall_msec(); i++) {
        json_array_add(packets, captured_json(c, tracer, &c->packets[i], i + 1));
    }
    json_object_put(json, "packets", packets);
    json_object_put(json, "last", json_integer_create(i));
    json_object_put(json, "going",
                    json_boolean_create(i < c->n || time_msec() < c->until + SETTLE_MS));
    said = json_to_string(json, JSSF_SORT);
    json_destroy(json);
    tracer_destroy(tracer);
    return said;
}

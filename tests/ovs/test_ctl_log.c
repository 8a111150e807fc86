/* Rules with their log flag, and taps, on a real switch: what they decide is
 * reported, by name, a flood of it is not, and packets go where they would go
 * anyway. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "ctl_switch.h"
#include "doc.h"
#include "flow.h"
#include "host_priv.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-packet.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "pflow.h"
#include "plan.h"
#include "rule_log.h"
#include "samples.h"
#include "timeval.h"
#include "trace.h"
#include "util.h"

#define PORT_A 10
#define PORT_B 11
#define FLOOD 3000

static const char document[] =
    "{\"version\": 1,"
    " \"hosts\": [{\"name\":\"h1\",\"ovsdb\":\"unix:/x\"}],"
    " \"networks\": [{\"name\":\"front\",\"type\":\"vlan\",\"tag\":10}],"
    " \"vms\": [{\"name\":\"m\"}],"
    " \"vifs\": ["
    "  "
    "{\"name\":\"a\",\"vm\":\"m\",\"network\":\"front\",\"mac\":\"02:00:00:00:00:01\",\"host\":"
    "\"h1\"},"
    "  "
    "{\"name\":\"b\",\"vm\":\"m\",\"network\":\"front\",\"mac\":\"02:00:00:00:00:02\",\"host\":"
    "\"h1\"}],"
    " \"policies\": [{\"name\":\"base\",\"scope\":\"pool\",\"author\":\"alice\",\"rules\":["
    "  {\"name\":\"out\",\"order\":1,\"direction\":\"out\",\"action\":\"allow\"},"
    "  "
    "{\"name\":\"no-ssh\",\"order\":2,\"direction\":\"in\",\"action\":\"deny\",\"protocol\":"
    "\"tcp\","
    "   \"ports\":[\"22\"],\"log\":true},"
    "  "
    "{\"name\":\"web\",\"order\":3,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":\"tcp\","
    "   \"ports\":[\"80\"],\"log\":true},"
    "  "
    "{\"name\":\"quiet\",\"order\":4,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":"
    "\"tcp\","
    "   \"ports\":[\"81\"]},"
    "  "
    "{\"name\":\"dns\",\"order\":5,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":\"udp\","
    "   \"ports\":[\"53\"],\"stateful\":false,\"sample\":4}]}]}";

static struct ctl_switch sw;
static struct host *host;
static struct model *model;
static struct compile *compile;
static struct rule_log *rules_log;
static struct samples *samples;
static unsigned ports_seen, states_seen; /* by a port's taps */
static struct flow last_metadata, last_packet;
static int64_t generation;
static char ovsdb[96], openflow[96];

static void
take_packet(void *aux, struct host *h, const struct host_packet *p)
{
    rule_log_packet(rules_log, host_name(h), p);
    samples_packet(samples, p);
    if (flow_cookie_kind(p->cookie) == FLOW_TAP && (uint32_t)p->cookie) {
        ports_seen += p->table == TBL_CLASSIFY;
        if (p->table == TBL_STATE) {
            last_metadata = *p->metadata;
            last_packet = *p->packet;
            states_seen++;
        }
    }
}

static void
turn(void)
{
    host_run(host);
    host_wait(host);
    poll_timer_wait(20);
    poll_block();
}

#define UNTIL(cond, ms) CTL_UNTIL(cond, ms, turn(), (void)0)

/* --- the pool -------------------------------------------------------------------------- */

static void
load(void)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(document, strlen(document), &errors);
    struct model_obj *obj;

    model = model_create();
    CHECK(doc && model_load_doc(model, doc, &errors));
    doc_free(doc);
    doc_errors_clear(&errors);
    MODEL_FOR_EACH (obj, model, REC_VIF) {
        struct model_vif *vif = model_vif(obj);

        model_port_report(model, vif->stated_host, obj->name, &vif->xs_uuid, &vif->mac,
                          obj->name[0] == 'a' ? PORT_A : PORT_B);
    }
    model_settle(model);
    compile = compile_create(model);
    compile_run(compile);
    model_changes_clear(model);
    rules_log = rule_log_create(model);
    samples = samples_create(model);
}

static void
start(void)
{
    struct host_config c = {
        .name = "h1",
        .ovsdb = ovsdb,
        .openflow = openflow,
        .bridge = "xenbr0",
        .uplink = "",
        .enabled = true,
    };
    struct model_obj *h1 = model_by_name(model, REC_HOST, "h1");

    /* Before the host does it: a switch flushes its flows at that, maybe late. */
    ctl_sh(&sw,
           VSCTL "set-fail-mode xenbr0 secure -- add-port xenbr0 a -- set interface a type=dummy "
                 "ofport_request=%d -- "
                 "add-port xenbr0 b -- set interface b type=dummy ofport_request=%d",
           PORT_A, PORT_B);
    host_on_packet(take_packet, NULL);
    host = host_create("h1");
    host_set_table(host, compile_host_flows(compile, h1->key));
    host_configure(host, &c);
    host_set_epoch(host, 1);
}

/* --- packets and what is said of them --------------------------------------------------- */

static void
send_packets(const char *l4, unsigned n)
{
    ctl_sh(&sw,
           APPCTL "netdev-dummy/receive a $(yes 'in_port(1),eth(src=02:00:00:00:00:01,"
                  "dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,%s' "
                  "| head -n %u) 2>&1",
           l4, n);
    if (ctl_said[0]) {
        printf("# %s\n", ctl_said);
    }
}

/* Packets that have left by vif b. */
static unsigned
received(void)
{
    unsigned n = 0;

    ctl_sh(&sw, OFCTL "dump-ports xenbr0 b | sed -n 's/.*tx pkts=\\([0-9]*\\).*/\\1/p'");
    sscanf(ctl_said, "%u", &n);
    return n;
}

static unsigned
logged(void)
{
    char *said = rule_log_read(rules_log, 0, 0);
    struct json *json = json_from_string(said);
    unsigned n = json_integer(shash_find_data(json_object(json), "last"));

    json_destroy(json);
    free(said);
    return n;
}

static bool
last_says(const char *what)
{
    char *said = rule_log_read(rules_log, -1, 1);
    bool found = strstr(said, what);

    if (!found) {
        printf("# %s\n", said);
    }
    free(said);
    return found;
}

static bool
apply(void)
{
    host_commit(host, ++generation, MAX(1, host_get_ports_seqno(host)));
    return UNTIL(host_get_status(host)->applied_generation == generation, 20000);
}

static void
test_log(void)
{
    CASE("log: a switch takes it");
    CHECK(UNTIL(host_get_status(host)->connected, 10000));
    CHECK(apply());
    ctl_sh(&sw, OFCTL "dump-meters xenbr0");
    CHECK(strstr(ctl_said, "meter=controller pktps burst"));
    ctl_sh(&sw, OFCTL "dump-flows xenbr0 table=51");
    CHECK(strstr(ctl_said, "sample(probability=16383,collector_set_id=1,obs_domain_id=2,"));

    CASE("log: what is denied, by whom");
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40000,dst=22),tcp_flags(syn)", 1);
    CHECK(UNTIL(logged() == 1, 10000));
    CHECK(last_says("\"rule\":\"base/no-ssh\"") && last_says("\"action\":\"deny\"") &&
          last_says("\"author\":\"alice\"") && last_says("\"direction\":\"in\""));
    CHECK(last_says("\"from\":\"a\"") && last_says("\"to\":\"b\"") && last_says("\"host\":\"h1\""));
    CHECK(last_says("tcp 10.0.0.1:40000 > 10.0.0.2:22"));
    CHECK(received() == 0);

    CASE("log: a connection that is allowed, once");
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40001,dst=80),tcp_flags(syn)", 1);
    CHECK(UNTIL(logged() == 2, 10000));
    CHECK(last_says("\"rule\":\"base/web\"") && last_says("\"action\":\"allow\""));
    CHECK(received() == 1);

    CASE("log: rules without it say nothing, and their packets go");
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40002,dst=81),tcp_flags(syn)", 1);
    send_packets("proto=17,tos=0,ttl=64,frag=no),udp(src=40003,dst=53)", 50);
    CHECK(UNTIL(received() == 52, 10000));
    CHECK(logged() == 2);
}

static void
test_flood(void)
{
    long long int before = time_msec(), seconds;
    unsigned n;

    CASE("log: a flood is bounded at the switch");
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40000,dst=22),tcp_flags(syn)", FLOOD);
    UNTIL(false, 1000);
    n = logged() - 2;
    seconds = (time_msec() - before) / 1000 + 1;
    CHECK(n > 0 && n <= 100 + 100 * seconds);
    if (n == FLOOD) {
        CHECK(!"bounded");
    }
    CHECK(received() == 52);
    printf("# %u of %u packets were reported in %lld s\n", n, FLOOD, seconds);
}

/* --- taps -------------------------------------------------------------------------------- */

static bool
sampled(const char *what)
{
    char *said = samples_read(samples);
    bool found = strstr(said, what);

    free(said);
    return found;
}

static unsigned
n_taps(void)
{
    unsigned n = 0;

    ctl_sh(&sw, OFCTL "dump-flows xenbr0 table=40 | grep -c hard_timeout");
    sscanf(ctl_said, "%u", &n);
    return n;
}

static void
test_tap(void)
{
    uint64_t drift = host_get_status(host)->n_drift;
    unsigned before = received();

    CASE("tap: new connections are reported, and go where they go");
    CHECK(host_tap(host, 300));
    CHECK(UNTIL(n_taps() == 1, 10000));
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=41000,dst=81),tcp_flags(syn)", 1);
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=41001,dst=81),tcp_flags(syn)", 1);
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=41002,dst=23),tcp_flags(syn)", 1);
    CHECK(UNTIL(sampled("\"port\":81") && sampled("\"port\":23") && sampled("\"count\":2"), 10000));
    CHECK(sampled("\"from\":\"a\"") && sampled("\"to\":\"b\"") &&
          sampled("\"network\":\"front\"") && sampled("\"source\":\"10.0.0.1\"") &&
          sampled("\"protocol\":\"tcp\""));
    CHECK(received() == before + 2);

    CASE("tap: comparisons leave it alone");
    before = host_get_status(host)->drift.at_ms;
    host_audit(host);
    CHECK(UNTIL(host_get_status(host)->drift.at_ms != before, 10000));
    CHECK(n_taps() == 1 && host_get_status(host)->n_drift == drift);

    CASE("tap: it stops when told to, and by itself");
    CHECK(host_tap(host, 0));
    CHECK(UNTIL(n_taps() == 0, 10000));
    CHECK(host_tap(host, 1));
    CHECK(UNTIL(n_taps() == 1, 10000));
    CHECK(UNTIL(n_taps() == 0, 20000));
    samples_clear(samples);
    CHECK(sampled("[]"));
}

/* What a port's tap said last, traced. */
static const char *
traced_state(enum trace_end_kind kind)
{
    struct model_obj *h1 = model_by_name(model, REC_HOST, "h1");
    struct trace_start s = {
        .host = h1->key,
        .in_port = PORT_A,
        .packet = last_packet,
        .state = TRACE_SEEN,
        .seen = {last_metadata.ct_state, last_metadata.ct_mark, last_metadata.ct_label,
                 ntohll(last_metadata.metadata)},
    };
    struct tracer *tracer = tracer_create(model, compile, &s);
    const char *state;
    struct trace trace;

    tracer_run(tracer, &s, false, &trace);
    CHECK(trace_first(&trace, kind));
    state = trace.visits[0].state;
    trace_uninit(&trace);
    tracer_destroy(tracer);
    return state ? state : "";
}

/* A vif's packets: all of them as they enter, and conntrack's word on those that
 * it sees. */
static void
test_port(void)
{
    static const char opening[] =
        "proto=6,tos=0,ttl=64,frag=no),tcp(src=42000,dst=81),tcp_flags(syn)";
    static const char later[] =
        "proto=6,tos=0,ttl=64,frag=no),tcp(src=42000,dst=81),tcp_flags(ack)";
    struct match filter = MATCH_CATCHALL_INITIALIZER;
    unsigned before = received();

    CASE("tap: a vif's packets that fit, with what conntrack knows");
    match_set_dl_type(&filter, htons(ETH_TYPE_IP));
    match_set_nw_proto(&filter, IPPROTO_TCP);
    match_set_tp_dst(&filter, htons(81));
    CHECK(host_tap_port(host, PORT_A, 0, 77, &filter, 300));
    CHECK(UNTIL(n_taps() == 1, 10000)); /* and another one in table 0 */
    send_packets(opening, 1);
    CHECK(UNTIL(ports_seen == 1 && states_seen == 1, 10000));
    CHECK(last_metadata.ct_state & CS_NEW && last_metadata.in_port.ofp_port == PORT_A);
    CHECK(!strcmp(traced_state(TRACE_TO_VIF), "new connection"));
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=42000,dst=80),tcp_flags(syn)", 1);
    send_packets(later, 1);
    CHECK(UNTIL(ports_seen == 2 && states_seen == 2, 10000));
    CHECK(last_metadata.ct_state & CS_ESTABLISHED);
    CHECK(!strcmp(traced_state(TRACE_TO_VIF), "established"));
    last_metadata.ct_mark ^= 1;
    CHECK(!strcmp(traced_state(TRACE_TO_VIF), "established under an older policy"));
    last_metadata.ct_state = CS_TRACKED | CS_INVALID;
    CHECK(!strcmp(traced_state(TRACE_DROPPED), "invalid"));
    CHECK(received() == before + 3);
    CHECK(host_tap_port(host, PORT_A, 0, 77, &filter, 0));
    CHECK(UNTIL(n_taps() == 0, 10000));
}

/* A switch that has no meter, or ignores it. */
static void
test_hostile(void)
{
    uint8_t frame[64] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45};
    struct ofputil_packet_in_private pin = {
        .base = {.packet = frame,
                 .packet_len = sizeof frame,
                 .reason = OFPR_ACTION,
                 .table_id = TBL_STATE,
                 .cookie = htonll(flow_cookie(FLOW_TAP, 77))},
    };
    struct ofpbuf *msg;

    CASE("log: the controller has a bound of its own, and takes any packet");
    match_init_catchall(&pin.base.flow_metadata);
    match_set_in_port(&pin.base.flow_metadata, u16_to_ofp(PORT_A));
    states_seen = 0;
    for (unsigned i = 0; i < 20000; i++) {
        pin.base.packet_len = i % (sizeof frame + 1);
        msg = ofputil_encode_packet_in_private(&pin, OFPUTIL_P_OF15_OXM, OFPUTIL_PACKET_IN_STD);
        host_log_packet(host, msg->data);
        ofpbuf_delete(msg);
    }
    CHECK(states_seen > 100 && states_seen < 5000);
    UNTIL(false, 1000); /* the bound is a second's */
}

/* The switch that comes back has neither meter nor flows, and gets both. */
static void
test_restart(void)
{
    unsigned n;

    CASE("log: after the switch's restart");
    ctl_switch_kill(&sw);
    CHECK(UNTIL(!host_get_status(host)->connected, 20000));
    CHECK(ctl_switch_start(&sw));
    CHECK(UNTIL(host_get_status(host)->connected, 20000));
    CHECK(apply());
    n = logged();
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40004,dst=80),tcp_flags(syn)", 1);
    CHECK(UNTIL(logged() == n + 1, 10000));

    CASE("log: with OpenFlow 1.3");
    ctl_sh(&sw, VSCTL "set bridge xenbr0 protocols=OpenFlow13");
    CHECK(UNTIL(!host_get_status(host)->connected || host->of.version == OFP13_VERSION, 20000));
    CHECK(UNTIL(host_get_status(host)->connected && host->of.version == OFP13_VERSION, 20000));
    CHECK(UNTIL(host->of.reports, 10000));
    CHECK(apply());
    send_packets("proto=6,tos=0,ttl=64,frag=no),tcp(src=40005,dst=80),tcp_flags(syn)", 1);
    CHECK(UNTIL(logged() == n + 2, 10000) && host_tap(host, 1));

    CASE("log: a switch that takes no meter reports nothing");
    host_log_start(host);
    host_log_error(host, htonl(host->of.log_xid + 2), "OFPMMFC_OUT_OF_METERS");
    UNTIL(false, 500);
    CHECK(!host->of.reports && !host_tap(host, 1));
    CHECK(host_get_status(host)->connected);
}

/* Without a switch: what is kept. */
static void
test_ring(void)
{
    struct model_obj *rule = NULL, *obj;
    struct flow flow;
    struct host_packet p = {.metadata = &flow, .packet = &flow};
    char *said;

    CASE("log: the latest are kept, and what has gone is counted");
    MODEL_FOR_EACH (obj, model, REC_RULE) {
        rule = !strcmp(obj->name, "web") ? obj : rule;
    }
    memset(&flow, 0, sizeof flow);
    p.cookie = flow_cookie(FLOW_RULE, rule->key);
    rule_log_destroy(rules_log);
    rules_log = rule_log_create(model);
    for (unsigned i = 0; i < RULE_LOG_ENTRIES + 10; i++) {
        rule_log_packet(rules_log, "h1", &p);
    }
    said = rule_log_read(rules_log, 3, 5000);
    CHECK(strstr(said, "\"lost\":7") && strstr(said, "\"number\":11,") &&
          !strstr(said, "\"number\":10,") && strstr(said, "\"last\":2010"));
    free(said);
    said = rule_log_read(rules_log, 2010, 5000);
    CHECK(strstr(said, "\"entries\":[]") && strstr(said, "\"lost\":0"));
    free(said);
    said = rule_log_read(rules_log, 99999, 5000);
    CHECK(strstr(said, "\"entries\":[]"));
    free(said);
    p.cookie = flow_cookie(FLOW_VIF, rule->key);
    rule_log_packet(rules_log, "h1", &p);
    p.cookie = flow_cookie(FLOW_RULE, 0xffffff);
    rule_log_packet(rules_log, "h1", &p);
    p.cookie = 0;
    rule_log_packet(rules_log, "h1", &p);
    CHECK(logged() == 2010);
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    CASE("log: a pool and a switch");
    load();
    if (ctl_switch_create(&sw)) {
        snprintf(ovsdb, sizeof ovsdb, "unix:%s/db.sock", sw.dir);
        snprintf(openflow, sizeof openflow, "unix:%s/xenbr0.mgmt", sw.dir);
        start();
        test_log();
        test_flood();
        test_tap();
        test_port();
        test_hostile();
        test_restart();
        host_destroy(host);
        host_on_packet(NULL, NULL);
    } else {
        printf("# %s\n", ctl_said);
        CHECK(!"starts");
    }
    ctl_switch_destroy(&sw);
    test_ring();
    rule_log_destroy(rules_log);
    samples_destroy(samples);
    compile_destroy(compile);
    model_destroy(model);
    return check_done();
}

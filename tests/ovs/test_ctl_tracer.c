/* Traces: where packets end, who decided it, and why others end there. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "doc.h"
#include "model.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "plan.h"
#include "questions.h"
#include "util.h"

static const char document[] =
    "{\"version\": 1,"
    " \"hosts\": "
    "[{\"name\":\"h1\",\"ovsdb\":\"unix:/x\",\"uplink\":\"eth1\",\"tunnel_ip\":\"192.0.2.1\"},"
    "  {\"name\":\"h2\",\"ovsdb\":\"unix:/x\",\"uplink\":\"eth1\",\"tunnel_ip\":\"192.0.2.2\"}],"
    " \"networks\": [{\"name\":\"front\",\"type\":\"vlan\",\"tag\":10},"
    "  {\"name\":\"back\",\"type\":\"overlay\",\"vni\":5001},"
    "  {\"name\":\"quiet\",\"type\":\"vlan\",\"tag\":11,\"isolated_ports\":true}],"
    " \"vms\": [{\"name\":\"web\"},{\"name\":\"db\"}],"
    " \"vifs\": ["
    "  "
    "{\"name\":\"web-0\",\"vm\":\"web\",\"network\":\"front\",\"mac\":\"02:00:00:00:10:01\","
    "\"host\":\"h1\","
    "   "
    "\"locking_mode\":\"locked\",\"ipv4_allowed\":[\"10.1.0.1\"],\"ipv6_allowed\":[\"fd01::1\"]},"
    "  "
    "{\"name\":\"db-0\",\"vm\":\"db\",\"network\":\"front\",\"mac\":\"02:00:00:00:10:02\",\"host\":"
    "\"h2\","
    "   \"addresses\":[\"10.1.0.2\",\"fd01::2\"]},"
    "  "
    "{\"name\":\"off\",\"vm\":\"db\",\"network\":\"front\",\"mac\":\"02:00:00:00:10:03\",\"host\":"
    "\"h2\","
    "   \"locking_mode\":\"disabled\",\"addresses\":[\"10.1.0.3\"]},"
    "  "
    "{\"name\":\"web-1\",\"vm\":\"web\",\"network\":\"back\",\"mac\":\"02:00:00:00:20:01\","
    "\"host\":\"h1\","
    "   \"addresses\":[\"10.2.0.1\"]},"
    "  "
    "{\"name\":\"db-1\",\"vm\":\"db\",\"network\":\"back\",\"mac\":\"02:00:00:00:20:02\",\"host\":"
    "\"h2\","
    "   \"addresses\":[\"10.2.0.2\"]},"
    "  "
    "{\"name\":\"q-0\",\"vm\":\"web\",\"network\":\"quiet\",\"mac\":\"02:00:00:00:30:01\",\"host\":"
    "\"h1\","
    "   \"addresses\":[\"10.3.0.1\"]},"
    "  "
    "{\"name\":\"q-1\",\"vm\":\"db\",\"network\":\"quiet\",\"mac\":\"02:00:00:00:30:02\",\"host\":"
    "\"h2\","
    "   \"addresses\":[\"10.3.0.2\"]},"
    "  {\"name\":\"web-cloud\",\"vm\":\"web\",\"network\":\"back\",\"parent\":\"web-0\","
    "   \"tag\":100,\"mac\":\"02:00:00:00:10:01\",\"addresses\":[\"10.2.0.9\"]}],"
    " \"policies\": ["
    "  {\"name\":\"out\",\"scope\":\"pool\",\"author\":\"network team\",\"rules\":["
    "   {\"name\":\"all\",\"order\":100,\"direction\":\"out\",\"action\":\"allow\"}]},"
    "  {\"name\":\"house\",\"scope\":\"global\",\"author\":\"alice\",\"rules\":["
    "   "
    "{\"name\":\"no-ssh\",\"part\":\"mandatory\",\"order\":20,\"direction\":\"in\",\"action\":"
    "\"deny\","
    "    \"protocol\":\"tcp\",\"ports\":[\"22\"]},"
    "   "
    "{\"name\":\"no-mail\",\"part\":\"mandatory\",\"order\":21,\"direction\":\"out\",\"action\":"
    "\"deny\","
    "    \"protocol\":\"tcp\",\"ports\":[\"25\"]}]},"
    "  {\"name\":\"db\",\"scope\":\"vm\",\"vm\":\"db\",\"rules\":["
    "   "
    "{\"name\":\"sql\",\"order\":10,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":\"tcp\","
    "    \"ports\":[\"22\",\"5432\"]}]}]}";

static struct model *model;
static struct compile *compile;

static void
load(void)
{
    static const char *const tunnels[] = COMPILE_TUNNEL_NAMES;
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(document, strlen(document), &errors);
    struct model_obj *obj;

    model = model_create();
    CHECK(doc && model_load_doc(model, doc, &errors));
    doc_free(doc);
    doc_errors_clear(&errors);
    MODEL_FOR_EACH (obj, model, REC_HOST) {
        for (size_t i = 0; i < 3; i++) {
            model_port_report(model, model_host(obj), tunnels[i], NULL, NULL, 100 + i);
        }
        model_port_report(model, model_host(obj), "eth1", NULL, NULL, 1);
    }
    MODEL_FOR_EACH (obj, model, REC_VIF) {
        struct model_vif *vif = model_vif(obj);

        if (vif->tag) {
            continue;
        }
        model_port_report(model, vif->stated_host, obj->name, &vif->xs_uuid, &vif->mac, obj->key);
    }
    model_settle(model);
    compile = compile_create(model);
    compile_run(compile);
    model_changes_clear(model);
}

struct row {
    const char *question;
    const char *verdict;
    const char *says; /* in the text */
};

static const struct row rows[] = {
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "destination's side: allowed by rule db/sql of policy db; default part, scope VM db"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "source's side: allowed by rule out/all of policy out, by network team; default part, scope "
     "pool"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "host h2, by VLAN 10 from host h1"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"family\":\"ipv6\",\"protocol\":\"tcp\",\"port\":5432",
     "delivered", "tcp [fd01::1]:40000 > [fd01::2]:5432"},
    {"\"from\":\"web-1\",\"to\":\"db-1\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "weft-vxlan, VNI 5001, to host h2"},
    {"\"from\":\"web-1\",\"to\":\"10.2.0.2\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "verdict: delivered to vif db-1, on host h2"},
    {"\"from\":\"web-cloud\",\"to\":\"db-1\",\"protocol\":\"tcp\",\"port\":5432", "delivered",
     "host h1, from vif web-cloud"},
    {"\"from\":\"web-cloud\",\"to\":\"db-1\",\"protocol\":\"tcp\",\"port\":5432,"
     "\"state\":\"reply\"",
     "delivered", "verdict: delivered to vif web-cloud, on host h1"},
    {"\"from\":\"db-1\",\"to\":\"web-cloud\",\"protocol\":\"tcp\",\"port\":80", "dropped",
     "denied on the destination's side"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":22", "dropped",
     "denied on the destination's side by rule house/no-ssh of policy house, by alice; mandatory "
     "part, scope global, on host h2"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":25", "dropped",
     "denied on the source's side by rule house/no-mail of policy house, by alice; mandatory part, "
     "scope global, on host h1"},
    {"\"from\":\"db-0\",\"to\":\"web-0\",\"protocol\":\"tcp\",\"port\":80", "dropped",
     "denied on the destination's side by the pool's default action, on host h1"},
    {"\"from\":\"db-0\",\"to\":\"web-0\"", "dropped", "icmp type 8 code 0 10.1.0.2 > 10.1.0.1"},
    /* connections */
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432,\"state\":"
     "\"established\"",
     "delivered", "connection: established\n"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432,\"state\":\"reply\"",
     "delivered", "verdict: delivered to vif web-0, on host h1"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432,\"state\":\"reply\"",
     "delivered", "connection: established, reply\n"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432,\"state\":\"older\"",
     "delivered", "connection: established under an older policy\n"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":22,\"state\":"
     "\"established\"",
     "dropped", "There is no such connection"},
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432,\"state\":\"invalid\"",
     "dropped", "connection tracking calls it invalid"},
    /* what vifs may not */
    {"\"from\":\"web-0\",\"to\":\"db-0\",\"source\":\"10.9.9.9\",\"protocol\":\"tcp\",\"port\":"
     "5432",
     "dropped", "vif web-0 is locked: the source address is not among its own"},
    {"\"from\":\"off\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432", "dropped",
     "vif off is disabled"},
    {"\"from\":\"db-0\",\"to\":\"web-0\",\"protocol\":\"udp\",\"port\":68,\"source_port\":67",
     "dropped", "network front allows no DHCP servers"},
    {"\"from\":\"q-0\",\"to\":\"q-1\",\"protocol\":\"tcp\",\"port\":80", "dropped",
     "both vifs are isolated"},
    {"\"host\":\"h1\",\"flow\":\"in_port=web-0,dl_src=02:00:00:00:99:99,dl_dst=02:00:00:00:10:02,"
     "tcp,nw_src=10.1.0.1,tp_dst=80\"",
     "dropped", "vif web-0 sends from another MAC than its own"},
    {"\"host\":\"h1\",\"flow\":\"in_port=web-0,dl_src=02:00:00:00:10:01,dl_vlan=4,dl_vlan_pcp=0\"",
     "dropped", "a vif sends no VLAN tags"},
    {"\"host\":\"h1\",\"flow\":\"in_port=web-0,dl_src=02:00:00:00:10:01,dl_type=0x88cc\"",
     "dropped", "a vif speaks no protocols of bridges"},
    {"\"host\":\"h2\",\"flow\":\"in_port=db-0,dl_src=02:00:00:00:10:02,dl_dst=33:33:00:00:00:01,"
     "icmp6,icmpv6_type=134\"",
     "dropped", "network front allows no router advertisements"},
    {"\"host\":\"h2\",\"flow\":\"in_port=db-0,dl_src=02:00:00:00:10:02,dl_dst=33:33:00:00:00:01,"
     "icmp6,icmpv6_type=135,nd_target=fd01::9,nd_sll=02:00:00:00:77:77\"",
     "dropped", "neighbour discovery of vif db-0 claims what is not its own"},
    {"\"host\":\"h2\",\"flow\":\"in_port=db-0,arp,dl_src=02:00:00:00:10:02,"
     "dl_dst=ff:ff:ff:ff:ff:ff,arp_sha=02:00:00:00:77:77\"",
     "dropped", "its ARP claims what is not its own"},
    /* from outside */
    {"\"host\":\"h1\",\"flow\":\"in_port=eth1,dl_vlan=77,dl_vlan_pcp=0\"", "dropped",
     "no network on this host has VLAN tag 77"},
    {"\"host\":\"h1\",\"flow\":\"in_port=55\"", "dropped", "the port is no vif of the pool"},
    {"\"host\":\"h1\",\"flow\":\"in_port=weft-vxlan,tun_src=192.0.2.2,tun_id=77\"", "dropped",
     "no network on this host has VNI 77"},
    {"\"host\":\"h1\",\"flow\":\"in_port=LOCAL,dl_dst=02:00:00:00:77:01\"", "leaves",
     "the physical network, untagged"},
    {"\"host\":\"h1\",\"flow\":\"in_port=eth1,dl_vlan=10,dl_vlan_pcp=0,dl_dst=02:00:00:00:10:02\"",
     "dropped", "what came from another host does not go to others again"},
    /* to outside */
    {"\"from\":\"web-0\",\"to\":\"10.1.0.99\",\"to_mac\":\"02:00:00:00:77:01\"", "leaves",
     "leaves by VLAN 10 of the physical network, on host h1"},
    {"\"from\":\"web-1\",\"to\":\"10.2.0.99\",\"to_mac\":\"02:00:00:00:77:01\"", "dropped",
     "network back has no vif with this MAC, and no way out of this host"},
    {"\"from\":\"db-1\",\"to\":\"10.2.0.1\",\"to_mac\":\"02:00:00:00:20:02\",\"protocol\":\"tcp\","
     "\"port\":5432",
     "dropped", "it would leave by the port by which it came"},
    /* everywhere */
    {"\"from\":\"web-0\",\"to\":\"10.1.255.255\",\"to_mac\":\"ff:ff:ff:ff:ff:ff\",\"protocol\":"
     "\"tcp\","
     "\"port\":5432",
     "delivered", "VLAN 10 of the physical network"},
};

static void
test_rows(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *r = &rows[i];
        char *question = xasprintf("{%s}", r->question);
        struct trace_fault fault = {"", ""};
        char *said = trace_answer(model, compile, question, false, &fault);
        struct json *json = said ? json_from_string(said) : NULL;
        const char *verdict = "", *text = fault.message;

        if (json && json->type == JSON_OBJECT) {
            verdict = json_string(shash_find_data(json_object(json), "verdict"));
            text = json_string(shash_find_data(json_object(json), "text"));
        }
        if (strcmp(verdict, r->verdict) || !strstr(text, r->says)) {
            printf("# %s: %s\n%s\n", question, verdict, text);
            CHECK(!"as it should");
        }
        json_destroy(json);
        free(said);
        free(question);
    }
}

/* What a host is known not to have is said. */
static void
test_doubt(void)
{
    struct model_host *h2 = model_host(model_by_name(model, REC_HOST, "h2"));
    struct trace_fault fault = {"", ""};
    char *said;

    h2->led = true;
    said = trace_answer(model, compile,
                        "{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432}",
                        true, &fault);
    CHECK(strstr(said, "host h2, by VLAN 10 from host h1\n  its switch may do otherwise: it is not "
                       "connected"));
    free(said);
    h2->status.connected = true;
    h2->status.applied_generation = model->generation + 7;
    said = trace_answer(model, compile,
                        "{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":5432}",
                        false, &fault);
    CHECK(strstr(said, "\"doubt\":\"it has generation "));
    free(said);
    h2->led = false;
}

static void
test_faults(void)
{
    static const struct {
        const char *question, *field;
    } faults[] = {
        {"[]", ""},
        {"nonsense", ""},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"x\":1}", "x"},
        {"{\"from\":1}", "from"},
        {"{\"to\":\"db-0\"}", "from"},
        {"{\"from\":\"nobody\",\"to\":\"db-0\"}", "from"},
        {"{\"from\":\"web-0\"}", "to"},
        {"{\"from\":\"web-0\",\"to\":\"nobody\"}", "to"},
        {"{\"from\":\"web-0\",\"to\":\"db-1\"}", "to"},
        {"{\"from\":\"web-0\",\"to\":\"10.1.0.99\"}", "to"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"to_mac\":\"x\"}", "to_mac"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\"}", "port"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":70000}", "port"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"tcp\",\"port\":-1}", "port"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"protocol\":\"any\"}", "protocol"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"icmp_type\":300}", "icmp_type"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"state\":\"old\"}", "state"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"family\":\"ipx\"}", "family"},
        {"{\"from\":\"web-0\",\"to\":\"db-0\",\"source\":\"x\"}", "source"},
        {"{\"from\":\"web-0\",\"to\":\"10.1.0.2\",\"source\":\"fd01::1\"}", "source"},
        {"{\"from\":\"web-1\",\"to\":\"db-1\",\"family\":\"ipv6\"}", "destination"},
        {"{\"host\":\"h9\",\"flow\":\"tcp\"}", "host"},
        {"{\"flow\":\"tcp\"}", "host"},
        {"{\"host\":\"h1\",\"flow\":\"tcpp\"}", "flow"},
        {"{\"host\":\"h1\",\"flow\":\"tcp\",\"from\":\"web-0\"}", "flow"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        struct trace_fault fault = {"none", ""};
        char *said = trace_answer(model, compile, faults[i].question, true, &fault);

        if (said || strcmp(fault.field, faults[i].field) || !fault.message[0]) {
            printf("# %s: %s: %s\n", faults[i].question, fault.field, fault.message);
            CHECK(!"refused by its field");
        }
        free(said);
    }
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    CASE("tracer: a pool");
    load();
    CASE("tracer: where packets end, and by whom");
    test_rows();
    CASE("tracer: what a switch is known not to have");
    test_doubt();
    CASE("tracer: questions that are not");
    test_faults();
    compile_destroy(compile);
    model_destroy(model);
    return check_done();
}

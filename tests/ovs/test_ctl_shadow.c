/* Shadow policy: flows that were seen, scored by the policy that stands and by
 * another one. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "doc.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "plan.h"
#include "policy_shadow.h"
#include "timeval.h"
#include "util.h"

#define POOL                                                                                       \
    "{\"version\": 1,"                                                                             \
    " \"hosts\": [{\"name\":\"h1\",\"ovsdb\":\"unix:/x\",\"uplink\":\"eth1\"},"                    \
    "  {\"name\":\"h2\",\"ovsdb\":\"unix:/x\",\"uplink\":\"eth1\"}],"                              \
    " \"networks\": [{\"name\":\"front\",\"type\":\"vlan\",\"tag\":10}],"                          \
    " \"vms\": [{\"name\":\"m\"}],"                                                                \
    " \"vifs\": ["                                                                                 \
    "  {\"name\":\"a\",\"vm\":\"m\",\"network\":\"front\",\"mac\":\"02:00:00:00:00:01\","          \
    "   \"host\":\"h1\",\"addresses\":[\"10.0.0.1\",\"fd00::1\"]},"                                \
    "  {\"name\":\"b\",\"vm\":\"m\",\"network\":\"front\",\"mac\":\"02:00:00:00:00:02\","          \
    "   \"host\":\"h2\",\"addresses\":[\"10.0.0.2\",\"fd00::2\"]}],"                               \
    " \"policies\": [{\"name\":\"base\",\"scope\":\"pool\",\"author\":\"%s\",\"rules\":["          \
    "  {\"name\":\"out\",\"order\":1,\"direction\":\"out\",\"action\":\"allow\"},"                 \
    "  {\"name\":\"one\",\"order\":2,\"direction\":\"in\",\"action\":\"%s\",\"protocol\":\"tcp\"," \
    "   \"ports\":[\"22\"]},"                                                                      \
    "  {\"name\":\"two\",\"order\":3,\"direction\":\"in\",\"action\":\"%s\",\"protocol\":\"tcp\"," \
    "   \"ports\":[\"80\"]},"                                                                      \
    "  {\"name\":\"three\",\"order\":4,\"direction\":\"in\",\"action\":\"allow\","                 \
    "   \"protocol\":\"tcp\",\"ports\":[\"%s\"]}]}]}"

static struct model *
load(const char *author, const char *one, const char *two, const char *three)
{
    char *text = xasprintf(POOL, author, one, two, three);
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(text, strlen(text), &errors);
    struct model *m = model_create();
    struct model_obj *obj;

    CHECK(doc && model_load_doc(m, doc, &errors));
    doc_free(doc);
    doc_errors_clear(&errors);
    free(text);
    MODEL_FOR_EACH (obj, m, REC_HOST) {
        model_port_report(m, model_host(obj), "eth1", NULL, NULL, 1);
    }
    MODEL_FOR_EACH (obj, m, REC_VIF) {
        struct model_vif *vif = model_vif(obj);

        model_port_report(m, vif->stated_host, obj->name, &vif->xs_uuid, &vif->mac, obj->key);
    }
    model_settle(m);
    return m;
}

static struct model *now;
static struct compile *compiled;

static char *
score(const char *flows, struct trace_fault *fault)
{
    /* 22 and 443 are allowed now, 80 is not. */
    struct model *aside = load("bob", "deny", "allow", "80-443");
    char *said = shadow_score(now, compiled, aside, flows, fault);

    shadow_forget(aside);
    return said;
}

static long long
number(const char *said, const char *member)
{
    struct json *json = json_from_string(said);
    long long n = json_integer(shash_find_data(json_object(json), member));

    json_destroy(json);
    return n;
}

#define FLOW(FROM, TO, SRC, DST, PORT)                                                             \
    "{\"from\":\"" FROM "\",\"to\":\"" TO "\",\"source\":\"" SRC "\",\"destination\":\"" DST       \
    "\",\"protocol\":\"tcp\",\"port\":" PORT ",\"count\":3}"

static void
test_scores(void)
{
    static const struct {
        const char *flows;
        const char *counter; /* that is 1 */
        const char *says;
    } cases[] = {
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "22"), "newly_denied",
         "\"then\":{\"action\":\"deny\",\"author\":\"bob\",\"by\":\"denied on the destination's "
         "side "
         "by rule base/one of policy base, by bob; default part, scope pool\""},
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "22"), "newly_denied",
         "\"now\":{\"action\":\"allow\",\"author\":\"alice\",\"by\":\"rule base/one of policy "
         "base, "
         "by alice"},
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "80"), "newly_allowed", "base/two"},
        {FLOW("a", "b", "fd00::1", "fd00::2", "80"), "newly_allowed", "base/two"},
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "443"), "same", "\"changes\":[]"},
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "9"), "same", "\"changes\":[]"},
        {FLOW("a", "b", "10.0.0.1", "10.0.0.2", "100"), "newly_allowed", "base/three"},
        /* from and to what is not the pool's */
        {FLOW("", "b", "10.0.0.99", "10.0.0.2", "22"), "newly_denied", "base/one"},
        {FLOW("", "b", "fd00::99", "fd00::2", "80"), "newly_allowed", "base/two"},
        {FLOW("a", "", "10.0.0.1", "10.9.9.9", "22"), "same", "\"changes\":[]"},
        /* not the pool's any more */
        {FLOW("gone", "b", "10.0.0.1", "10.0.0.2", "22"), "unknown", "\"changes\":[]"},
        {FLOW("", "gone", "10.0.0.1", "10.0.0.2", "22"), "unknown", "\"changes\":[]"},
        {"{}", "unknown", "\"changes\":[]"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *flows = xasprintf("[%s]", cases[i].flows);
        struct trace_fault fault = {"", ""};
        char *said = score(flows, &fault);

        if (!said || number(said, cases[i].counter) != 1 || number(said, "flows") != 1 ||
            !strstr(said, cases[i].says)) {
            printf("# %s: %s %s\n", flows, said, fault.message);
            CHECK(!"scored");
        }
        free(said);
        free(flows);
    }
}

static void
test_faults(void)
{
    static const char *const bad[] = {
        "{}",
        "nonsense",
        "[1]",
        "[{\"x\":1}]",
        "[{\"from\":1}]",
        "[{\"port\":\"22\"}]",
        "[{\"port\":65536}]",
        "[{\"count\":-1}]",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct trace_fault fault = {"", ""};
        char *said = score(bad[i], &fault);

        CHECK(!said && !strcmp(fault.field, "flows") && fault.message[0]);
        free(said);
    }
}

/* Many: bounded, and fast enough for a main loop to wait for it. */
static void
test_many(void)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    struct trace_fault fault = {"", ""};
    long long int before;
    char *said;

    for (unsigned i = 0; i < SHADOW_FLOWS; i++) {
        ds_put_format(&ds, "%s" FLOW("a", "b", "10.0.0.1", "10.0.0.2", "%u"), i ? "," : "[", i);
    }
    ds_put_char(&ds, ']');
    before = time_usec();
    said = score(ds_cstr(&ds), &fault);
    printf("# %u flows in %lld ms\n", SHADOW_FLOWS, (time_usec() - before) / 1000);
    CHECK(said && number(said, "flows") == SHADOW_FLOWS && number(said, "newly_denied") == 1 &&
          number(said, "newly_allowed") == 363 && number(said, "other_rule") == 0);
    free(said);
    ds_truncate(&ds, ds.length - 1);
    ds_put_cstr(&ds, ",{}]");
    CHECK(!score(ds_cstr(&ds), &fault) && strstr(fault.message, "at most"));

    CASE("shadow: what would be denied is told of before what would be allowed");
    ds_clear(&ds);
    for (unsigned i = 0; i < 1100; i++) {
        ds_put_cstr(&ds, i ? "," : "[");
        ds_put_cstr(&ds, FLOW("a", "b", "10.0.0.1", "10.0.0.2", "80"));
    }
    ds_put_cstr(&ds, "," FLOW("a", "b", "10.0.0.1", "10.0.0.2", "22") "]");
    said = score(ds_cstr(&ds), &fault);
    CHECK(said && number(said, "newly_allowed") == 1100 && strstr(said, "by rule base/one"));
    free(said);
    ds_destroy(&ds);
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    CASE("shadow: a pool");
    now = load("alice", "allow", "deny", "443");
    compiled = compile_create(now);
    compile_run(compiled);
    model_changes_clear(now);
    CASE("shadow: what would be otherwise, by whom");
    test_scores();
    CASE("shadow: flows that are none");
    test_faults();
    CASE("shadow: as many as are taken");
    test_many();
    compile_destroy(compiled);
    model_destroy(now);
    return check_done();
}

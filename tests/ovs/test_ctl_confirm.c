/* VIF.confirmed_on against a real database and two real switches: which hosts have
 * said that they are ready for a VM that moves between them, and that none stands
 * there that has not. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "ctl_db.h"
#include "ctl_switch.h"
#include "fleet.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "pool_db.h"
#include "pool_row.h"
#include "timeval.h"
#include "util.h"

#define PATIENCE_MS 30000
#define PORT "vif1.0"

static struct ctl_db server;
static struct ctl_switch sw[2];

/* --- controllers ---------------------------------------------------------------------- */

/* One, or two that share the hosts: the second leads h2 then, and not the pool. */
static struct ctl {
    struct model *model;
    struct compile *compile;
    struct pool_db *db;
    struct fleet *fleet;
} ctls[2];
static unsigned n_ctls;

static struct ctl *const first = &ctls[0];

static void
start(void)
{
    struct ctl *c = &ctls[n_ctls++];

    c->model = model_create();
    c->compile = compile_create(c->model);
    c->db = pool_db_open(server.remote, c->model);
    c->fleet = fleet_create(c->model, c->compile);
}

static void
stop(void)
{
    struct ctl *c = &ctls[--n_ctls];

    fleet_destroy(c->fleet);
    pool_db_close(c->db);
    compile_destroy(c->compile);
    model_destroy(c->model);
}

/* 'c' stands for the share. */
static uint64_t
leads(const struct share *c_, const struct uuid *host)
{
    const struct ctl *c = (const struct ctl *)c_;
    const struct model_obj *obj = model_by_uuid(c->model, REC_HOST, host);
    bool second = obj && !strcmp(obj->name, "h2");

    return n_ctls == 1 || second == (c == &ctls[1]) ? n_ctls : 0;
}

static void
turn(void)
{
    for (struct ctl *c = ctls; c < ctls + n_ctls; c++) {
        pool_db_run(c->db);
        if (n_ctls > 1) {
            pool_db_share(c->db, c == ctls);
        }
        fleet_sync(c->fleet);
        fleet_lead(c->fleet, leads, (const struct share *)c);
        if (model_has_changes(c->model)) {
            compile_run(c->compile);
            model_changes_clear(c->model);
        }
        fleet_run(c->fleet);
        pool_db_wait(c->db);
        fleet_wait(c->fleet);
    }
    poll_timer_wait(100);
    poll_block();
}

#define UNTIL(cond) CTL_UNTIL(cond, PATIENCE_MS, turn(), explain(#cond))

/* What the database says of the vif, as "h1 h2 ". */
static const char *
confirmed(void)
{
    static char text[256];
    const struct model_obj *vif = model_any_by_name(first->model, REC_VIF, "a0", NULL);
    const struct ovsdb_idl_row *row =
        vif ? pool_row_find(pool_db_idl(first->db), REC_VIF, &vif->uuid) : NULL;
    size_t n;
    char **names = row ? pool_row_get_list(row, REC_VIF, "confirmed_on", &n) : NULL;

    text[0] = '\0';
    for (size_t i = 0; names && i < n; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", names[i]);
        free(names[i]);
    }
    free(names);
    return text;
}

static bool
confirmed_is(const char *names)
{
    return !strcmp(confirmed(), names);
}

static void
explain(const char *cond)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    fleet_format(first->fleet, NULL, &ds);
    printf("# %s; confirmed_on: %s\n# %s\n", cond, confirmed(), ds_cstr(&ds));
    ds_destroy(&ds);
}

/* --- the pool ------------------------------------------------------------------------- */

static void
take_answer(const struct pool_result *r, void *done)
{
    if (r->error && r->errors->n) {
        printf("# %s: %s\n", r->errors->e[0].object, r->errors->e[0].message);
    }
    *(int *)done = r->error ? -1 : 1;
}

/* Replaces the whole configuration. */
static bool
import(void)
{
    struct doc_errors errors = {NULL, 0, false};
    char *text =
        xasprintf("{\"version\":1,\"pool\":{\"default_action\":\"allow\"},"
                  "\"hosts\":[{\"name\":\"h1\",\"ovsdb\":\"unix:%s/db.sock\"},"
                  "{\"name\":\"h2\",\"ovsdb\":\"unix:%s/db.sock\"}],"
                  "\"networks\":[{\"name\":\"web\",\"type\":\"vlan\",\"tag\":10}],"
                  "\"vms\":[{\"name\":\"a\"}],\"vifs\":[{\"name\":\"a0\",\"vm\":\"a\","
                  "\"network\":\"web\",\"mac\":\"02:00:00:00:00:01\",\"rate_out_kbps\":1000}]}",
                  sw[0].dir, sw[1].dir);
    struct doc *doc = doc_parse(text, strlen(text), &errors);
    int done = 0;

    ovs_assert(doc);
    free(text);
    pool_db_apply(first->db, doc, POOL_REPLACE, false, NULL, take_answer, &done);
    return UNTIL(done) && done > 0;
}

static bool
say_vm(const char *resident, const char *destination)
{
    char *json = xasprintf("[\"Weft_Pool\",{\"op\":\"update\",\"table\":\"VM\",\"where\":[],"
                           "\"row\":{\"resident_on\":\"%s\",\"destination\":\"%s\"}}]",
                           resident, destination);
    bool ok = !ctl_db_transact(&server, json);

    free(json);
    return ok;
}

static bool
plug(unsigned host)
{
    return !ctl_sh(&sw[host], VSCTL "add-port xenbr0 " PORT " -- set interface " PORT
                                    " external_ids:attached-mac=02:00:00:00:00:01 2>&1");
}

static bool
unplug(unsigned host)
{
    return !ctl_sh(&sw[host], VSCTL "del-port xenbr0 " PORT " 2>&1");
}

/* The switch itself: what it does with what the port sends. */
static bool
port_is(unsigned host, const char *pattern)
{
    ctl_sh(&sw[host],
           "$BIN/ovs-ofctl -O OpenFlow15 dump-flows --no-stats unix:$DIR/xenbr0.mgmt "
           "table=0,in_port=$(" VSCTL "get interface " PORT " ofport) 2>&1 | grep in_port");
    return strstr(ctl_said, pattern);
}

static bool
has_vif_flows(unsigned host)
{
    ctl_sh(&sw[host], "$BIN/ovs-ofctl -O OpenFlow15 dump-flows unix:$DIR/xenbr0.mgmt "
                      "cookie=0xd502000000000000/0xffff000000000000 | grep -c table=");
    return atoi(ctl_said);
}

/* --- cases ------------------------------------------------------------------------------ */

static void
test_come(void)
{
    CASE("confirm: vifs of VMs of whose residence nobody speaks are not asked for");
    CHECK(UNTIL(pool_db_connected(first->db) && pool_db_ready(first->db)));
    CHECK(import() && plug(0));
    CHECK(UNTIL(model_vif(model_by_name(first->model, REC_VIF, "a0")) &&
                model_vif(model_by_name(first->model, REC_VIF, "a0"))->host));
    CHECK(UNTIL(port_is(0, "goto_table")) && confirmed_is(""));

    CASE("confirm: a resident VM's vif, when its host's switch has it");
    CHECK(say_vm("h1", ""));
    CHECK(UNTIL(confirmed_is("h1 ")));

    CASE("confirm: a destination, when it has the port, its limit and its flows");
    CHECK(say_vm("h1", "h2"));
    for (int i = 0; i < 10; i++) {
        turn();
    }
    CHECK(confirmed_is("h1 ") && plug(1));
    CHECK(UNTIL(strstr(confirmed(), "h2")));
    CHECK(port_is(1, "goto_table") && strstr(ctl_said, "meter:") && confirmed_is("h1 h2 "));

    CASE("confirm: not a port that went, and that came back only with its flows");
    CHECK(unplug(1) && UNTIL(confirmed_is("h1 ")));
    CHECK(plug(1) && UNTIL(confirmed_is("h1 h2 ")));
    CHECK(port_is(1, "goto_table"));
}

static void
test_disturbed(void)
{
    const struct model_vif *vif;
    bool stayed = true, known = false;

    CASE("confirm: a controller that starts takes nothing back that holds");
    stop();
    start();
    for (long long int end = time_msec() + PATIENCE_MS; !known && time_msec() < end;) {
        turn();
        vif = model_vif(model_by_name(first->model, REC_VIF, "a0"));
        stayed = stayed && (!vif || confirmed_is("h1 h2 "));
        known = vif && vif->host && model_vif_port(vif, vif->host) &&
                model_vif_port(vif, vif->host)->confirm == MODEL_CONFIRMED && vif->coming &&
                model_vif_port(vif, vif->coming) &&
                model_vif_port(vif, vif->coming)->confirm == MODEL_CONFIRMED;
    }
    CHECK(known && stayed);

    CASE("confirm: an import that replaces everything leaves residence and destination");
    CHECK(import());
    for (int i = 0; i < 5; i++) {
        turn();
    }
    CHECK(UNTIL(confirmed_is("h1 h2 ")));

    CASE("confirm: not a destination whose switch is gone, and again when it is back");
    ctl_switch_kill(&sw[1]);
    CHECK(UNTIL(confirmed_is("h1 ")));
    CHECK(ctl_switch_start(&sw[1]));
    CHECK(UNTIL(confirmed_is("h1 h2 ")));
    CHECK(port_is(1, "goto_table"));
}

static void
test_go(void)
{
    CASE("confirm: a move that is given up shuts the destination's port");
    CHECK(say_vm("h1", ""));
    CHECK(UNTIL(confirmed_is("h1 ")) && UNTIL(port_is(1, "actions=drop")));
    CHECK(say_vm("h1", "h2"));
    CHECK(UNTIL(confirmed_is("h1 h2 ")) && port_is(1, "goto_table"));

    CASE("confirm: after the commit the source's port is shut while it is there");
    CHECK(say_vm("h2", "h2"));
    CHECK(UNTIL(confirmed_is("h2 ")) && UNTIL(port_is(0, "actions=drop")));
    CHECK(has_vif_flows(0) && say_vm("h2", "") && unplug(0));
    CHECK(has_vif_flows(1) && UNTIL(!has_vif_flows(0)) && confirmed_is("h2 "));

    CASE("confirm: nothing stays behind of a VM that is nowhere");
    CHECK(say_vm("", ""));
    CHECK(UNTIL(confirmed_is("")));
}

static void
test_two(void)
{
    CASE("confirm: of two controllers each says it of the host that it leads");
    CHECK(say_vm("h2", "") && UNTIL(confirmed_is("h2 ")));
    start();
    CHECK(plug(0) && say_vm("h2", "h1"));
    CHECK(UNTIL(confirmed_is("h1 h2 ")));

    CASE("confirm: each takes away what is of its own host");
    CHECK(unplug(0) && UNTIL(confirmed_is("h2 ")));
    CHECK(plug(0) && UNTIL(confirmed_is("h1 h2 ")));
    ctl_switch_kill(&sw[1]);
    CHECK(UNTIL(confirmed_is("h1 ")));
    CHECK(ctl_switch_start(&sw[1]) && UNTIL(confirmed_is("h1 h2 ")));

    CASE("confirm: the pool's leader clears what has no business there");
    CHECK(say_vm("", "") && UNTIL(confirmed_is("")));
    stop();
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    if (ctl_db_start(&server) || !ctl_switch_create(&sw[0]) || !ctl_switch_create(&sw[1])) {
        printf("not ok confirm: no database or no switch\n");
        return 1;
    }
    start();
    test_come();
    test_disturbed();
    test_go();
    test_two();
    stop();
    ctl_switch_destroy(&sw[0]);
    ctl_switch_destroy(&sw[1]);
    ctl_db_stop(&server);
    return check_done();
}

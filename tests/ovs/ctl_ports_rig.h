/* ctl_ports_rig: what the model states of a host's ports, on a real switch: for test_ctl_ports.c
 * and test_ctl_uplink.c.  Their main() begins with ports_begin() and ends with ports_end(). */
#ifndef CTL_PORTS_RIG_H
#define CTL_PORTS_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "ctl_rig.h"
#include "ctl_switch.h"
#include "fatal-signal.h"
#include "fleet.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"

static struct ctl_switch sw;
static struct compile *compile;
static struct fleet *fleet;
static int64_t generation;

/* --- the loop ---------------------------------------------------------------------- */

static inline uint64_t
epoch(const struct share *share, const struct uuid *host)
{
    return host && !share;
}

/* All the rest would wait for it in vain. */
static inline void
need_switch(void)
{
    siginfo_t info;

    memset(&info, 0, sizeof info);
    if (!waitid(P_PID, sw.vswitchd, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
        ctl_sh(&sw, "tail -n 1 $DIR/vswitchd.log");
        printf("not ok ctl_ports: the switch ended: %s\n", ctl_said);
        ctl_switch_destroy(&sw);
        exit(1);
    }
}

static inline void
turn(void)
{
    need_switch();
    fleet_sync(fleet);
    fleet_lead(fleet, epoch, NULL);
    if (model_has_changes(m)) {
        compile_run(compile);
        model_changes_clear(m);
    }
    fleet_run(fleet);
    fleet_wait(fleet);
    poll_timer_wait(20);
    poll_block();
}

#define UNTIL(cond, ms) CTL_UNTIL(cond, ms, turn(), explain())

static inline void
explain(void)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    fleet_format(fleet, NULL, &ds);
    printf("# %s\n", ds_cstr(&ds));
    ds_destroy(&ds);
}

static inline const struct model_host_status *
status(void)
{
    return &model_host(obj(REC_HOST, 1))->status;
}

/* What was stated is on the switch. */
static inline bool
apply(void)
{
    model_settle(m);
    m->generation = ++generation;
    return UNTIL(status()->applied_generation == generation, 20000);
}

/* The number that a command prints. */
static inline int
number(const char *command)
{
    ctl_sh(&sw, "%s", command);
    return atoi(ctl_said);
}

static inline bool
says_now(const char *command, const char *expected)
{
    ctl_sh(&sw, "%s", command);
    return !strcmp(ctl_said, expected);
}

static inline bool
said(const char *command, const char *expected)
{
    bool same = says_now(command, expected);

    if (!same) {
        printf("# %s\n# said: %s# not: %s", command, ctl_said, expected);
    }
    return same;
}

static inline void
put_host(const char *uplink)
{
    struct rec *r = new_rec(REC_HOST, 1);
    char path[96];

    snprintf(path, sizeof path, "unix:%s/db.sock", sw.dir);
    rec_set_string(r, REC_HOST_OVSDB, path);
    rec_set_string(r, REC_HOST_UPLINK, uplink);
    put(r);
}

static inline void
start(void)
{
    begin();
    put_host("up");
    take(REC_HOST, 2);
    vif(3, 2, 2, 3);
    model_settle(m);
    compile = compile_create(m);
    fleet = fleet_create(m, compile);
    ctl_sh(&sw, VSCTL "add-port xenbr0 p1 -- set interface p1 ofport_request=11 "
                      "external_ids:attached-mac=02:00:00:00:00:01 -- add-port xenbr0 p2 -- "
                      "set interface p2 ofport_request=12 external_ids:attached-mac="
                      "02:00:00:00:00:02 -- add-port xenbr0 p3 -- set interface p3 "
                      "ofport_request=13 external_ids:attached-mac=02:00:00:00:00:03 -- add-port "
                      "xenbr0 up -- set interface up ofport_request=9");
}

/* Ports of vifs 1 to 3 are known. */
static inline bool
ports_known(void)
{
    for (unsigned n = 1; n <= 3; n++) {
        if (!model_vif_port(model_vif(obj(REC_VIF, n)), model_host(obj(REC_HOST, 1)))) {
            return false;
        }
    }
    return true;
}

/* Vif 5 is what p1 has with tag 100. */
static inline struct rec *
child_rec(int64_t tag)
{
    struct rec *r = vif_rec(5, 1, 2, 1);

    rec_set_string(r, REC_VIF_PARENT, ref(REC_VIF, 1));
    rec_set_int(r, REC_VIF_TAG, tag);
    return r;
}

static inline void
allow_all(void)
{
    struct rec *r = rule_rec(2, 1, 10, "allow");

    put(policy_rec(1, "pool"));
    put(rule_rec(1, 1, 10, "allow"));
    rec_set_string(r, REC_RULE_DIRECTION, "out");
    put(r);
}

/* False: said why not. */
static inline bool
ports_begin(int argc, char *argv[])
{
    set_program_name(argv[0]);
    fatal_ignore_sigpipe();
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    if (argc > 1 || !ctl_switch_create(&sw)) {
        printf("not ok ports: no switch: %s\n", ctl_said);
        ctl_switch_destroy(&sw);
        return false;
    }
    start();
    return true;
}

static inline int
ports_end(void)
{
    fleet_destroy(fleet);
    compile_destroy(compile);
    end();
    ctl_switch_destroy(&sw);
    return check_done();
}

#endif

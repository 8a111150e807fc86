/* weft: the command line for all of Weft. */
#include <stdio.h>
#include <string.h>

#include "cli_cmd.h"
#include "flow_cmd.h"
#include "lab_cmd.h"
#include "pki_cmd.h"
#include "pool_cmd.h"

static int
version(int argc, char **argv)
{
    puts("weft 0.1");
    return CLI_OK;
}

static const struct cli_cmd commands[] = {
    {"lab", "hosts and guests on this machine, for tests and trying out", lab_main},
    {"status", "the pool's hosts, and what is wrong", pool_status_main},
    {"pool", "what holds for the whole pool", pool_main},
    {"host", "hosts and their switches", pool_host_main},
    {"tenant", "who owns networks and VMs", pool_tenant_main},
    {"network", "VLANs and overlays", pool_network_main},
    {"vm", "virtual machines", pool_vm_main},
    {"vif", "virtual network interfaces", pool_vif_main},
    {"group", "addresses, vifs and VMs that rules name together", pool_group_main},
    {"policy", "rules by scope; check, commit, export, import", pool_policy_main},
    {"rule", "what a policy allows and denies", pool_rule_main},
    {"trace", "the way of a packet, and who decided what", pool_trace_main},
    {"mirror", "copies of vifs' packets", pool_mirror_main},
    {"pif", "hosts' physical interfaces", pool_pif_main},
    {"bond", "hosts' physical interfaces as one uplink", pool_bond_main},
    {"exporter", "what switches tell flow collectors", pool_exporter_main},
    {"flow", "recorded flows: top, list, graph, why-dropped ...", flow_main},
    {"user", "roles of certificates", pool_user_main},
    {"login", "a session: a token instead of a certificate", pool_login_main},
    {"logout", "end it", pool_logout_main},
    {"session", "who is logged in", pool_session_main},
    {"pki", "certificates for hosts, controllers and users", pki_main},
    {"audit", "check the controller's audit log", audit_main},
    {"version", "print the version", version},
};

static const struct cli_group weft = {
    .prefix = "weft",
    .about = "the network half of a virtualization pool",
    .examples = "  weft lab up --guests 4 --vlan 10,20    four guests on two VLANs\n"
                "  weft lab exec g1 -- ping 10.0.0.3      run something in a guest\n"
                "  weft lab status                        what is up\n"
                "  weft lab down                          take it all down\n"
                "  weft status                            the pool's hosts\n"
                "  weft network add blue type=vlan tag=10\n"
                "  weft policy commit pool.json --confirm 120s\n"
                "  weft trace --from web-0 --to db-0 --tcp 5432\n",
    .cmds = commands,
    .n_cmds = sizeof commands / sizeof commands[0],
};

int
main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        return version(0, NULL);
    }
    return cli_dispatch(&weft, argc - 1, argv + 1);
}

/* weft-vswitchd: Open vSwitch's switch daemon with guests' vifs as ports.
 *
 * It takes ovs-vswitchd's options, reads the same database and answers the
 * same tools, and so goes by its name: the pid file, log and control socket
 * are called ovs-vswitchd, where ovs-appctl looks for them. */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "bridge.h"
#include "command-line.h"
#include "confirm.h"
#include "daemon.h"
#include "dirs.h"
#include "dns-resolve.h"
#include "dp.h"
#include "dpdk.h"
#include "dpif.h"
#include "dummy.h"
#include "fatal-signal.h"
#include "flow_export.h"
#include "memory.h"
#include "netdev.h"
#include "netdev_netback.h"
#include "netdev_synth.h"
#include "ofstate.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-numa.h"
#include "ovs-rcu.h"
#include "ovs-router.h"
#include "ovs-thread.h"
#include "ovs/canary.h"
#include "ovsdb-idl.h"
#include "plug.h"
#include "shadow.h"
#include "simap.h"
#include "spare.h"
#include "stream-ssl.h"
#include "stream.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_vswitchd);

/* An orderly exit waits this long for OpenFlow state to be saved. */
#define SAVE_MS 30000
#define LOOK_MS 2

struct options {
    char *database; /* malloc'ed */
    char *unixctl;  /* NULL: the default */
    bool mlockall;
    bool dummy;
};

struct exit_request {
    bool exiting;
    bool cleanup;
};

OVS_NO_RETURN static void
usage(void)
{
    printf("weft-vswitchd: Open vSwitch's switch daemon, with Xen guests' vifs as ports\n"
           "usage: weft-vswitchd [OPTIONS] [DATABASE]\n"
           "DATABASE is the ovsdb-server to talk to (default: unix:%s/db.sock).\n",
           ovs_rundir());
    stream_usage("DATABASE", true, false, true);
    daemon_usage();
    vlog_usage();
    printf("\nDPDK and netback are configured in the database; see ovs-vswitchd.conf.db(5) and\n"
           "docs/vswitch.md for other_config of table Open_vSwitch.\n"
           "\nOther options:\n"
           "  --mlockall                keep all memory in RAM\n"
           "  --unixctl=SOCKET          name of the control socket\n"
           "  --enable-dummy[=LEVEL]    dummy datapaths and devices, for tests\n"
           "  --disable-system          no datapath of type \"system\"\n"
           "  --disable-system-route    ignore the kernel's routing table\n"
           "  --dummy-numa=LIST         pretend to have these CPUs, for tests\n"
           "  --enable-synth            interfaces of type \"synth\", for benchmarks\n"
           "  --spare                   a second process takes over when this one is killed\n"
           "  -h, --help                show this text\n"
           "  -V, --version             show versions\n");
    exit(EXIT_SUCCESS);
}

enum {
    OPT_PEER_CA_CERT = UCHAR_MAX + 1,
    OPT_BOOTSTRAP_CA_CERT,
    OPT_MLOCKALL,
    OPT_UNIXCTL,
    OPT_ENABLE_DUMMY,
    OPT_DISABLE_SYSTEM,
    OPT_DISABLE_SYSTEM_ROUTE,
    OPT_DPDK,
    OPT_DUMMY_NUMA,
    OPT_ENABLE_SYNTH,
    OPT_SPARE_FD,
    OPT_SPARE_PIDFILE,
    OPT_SPARE_DETACHED,
    VLOG_OPTION_ENUMS,
    DAEMON_OPTION_ENUMS,
    SSL_OPTION_ENUMS,
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"mlockall", no_argument, NULL, OPT_MLOCKALL},
    {"unixctl", required_argument, NULL, OPT_UNIXCTL},
    {"enable-dummy", optional_argument, NULL, OPT_ENABLE_DUMMY},
    {"disable-system", no_argument, NULL, OPT_DISABLE_SYSTEM},
    {"disable-system-route", no_argument, NULL, OPT_DISABLE_SYSTEM_ROUTE},
    {"dpdk", optional_argument, NULL, OPT_DPDK},
    {"dummy-numa", required_argument, NULL, OPT_DUMMY_NUMA},
    {"enable-synth", no_argument, NULL, OPT_ENABLE_SYNTH},
    {"spare-fd", required_argument, NULL, OPT_SPARE_FD},
    {"spare-pidfile", required_argument, NULL, OPT_SPARE_PIDFILE},
    {"spare-detached", no_argument, NULL, OPT_SPARE_DETACHED},
    {"peer-ca-cert", required_argument, NULL, OPT_PEER_CA_CERT},
    {"bootstrap-ca-cert", required_argument, NULL, OPT_BOOTSTRAP_CA_CERT},
    VLOG_LONG_OPTIONS,
    DAEMON_LONG_OPTIONS,
    STREAM_SSL_LONG_OPTIONS,
    {NULL, 0, NULL, 0},
};

static void
take_option(int c, struct options *o)
{
    switch (c) {
    case 'h':
        usage();
    case 'V':
        ovs_print_version(0, 0);
        print_dpdk_version();
        exit(EXIT_SUCCESS);
    case OPT_MLOCKALL:
        o->mlockall = true;
        break;
    case OPT_UNIXCTL:
        o->unixctl = optarg;
        break;
    case OPT_ENABLE_DUMMY:
        dummy_enable(optarg);
        o->dummy = true;
        dpif_weft_is_default = !optarg;
        break;
    case OPT_DISABLE_SYSTEM:
        dp_disallow_provider("system");
        break;
    case OPT_DISABLE_SYSTEM_ROUTE:
        ovs_router_disable_system_routing_table();
        break;
    case OPT_DPDK:
        ovs_fatal(0, "--dpdk is gone: set other_config:dpdk-init=true in the database");
    case OPT_DUMMY_NUMA:
        ovs_numa_set_dummy(optarg);
        break;
    case OPT_ENABLE_SYNTH:
        netdev_synth_register();
        break;
    case OPT_SPARE_FD:
        spare_set_fd(optarg);
        break;
    case OPT_SPARE_PIDFILE:
        spare_set_pidfile(optarg);
        break;
    case OPT_SPARE_DETACHED:
        spare_set_detached();
        break;
    case OPT_PEER_CA_CERT:
        stream_ssl_set_peer_ca_cert_file(optarg);
        break;
    case OPT_BOOTSTRAP_CA_CERT:
        stream_ssl_set_ca_cert_file(optarg, true);
        break;
        VLOG_OPTION_HANDLERS
        DAEMON_OPTION_HANDLERS
        STREAM_SSL_OPTION_HANDLERS
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
    }
}

static struct options
parse_options(int argc, char *argv[])
{
    char *short_options = ovs_cmdl_long_options_to_short_options(long_options);
    struct options o = {.database = NULL};
    int c;

    while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        take_option(c, &o);
    }
    free(short_options);

    if (argc - optind > 1) {
        ovs_fatal(0, "at most one DATABASE is accepted; use --help for usage");
    }
    o.database = optind < argc ? xstrdup(argv[optind]) : xasprintf("unix:%s/db.sock", ovs_rundir());
    return o;
}

static void
lock_memory(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
        VLOG_ERR("mlockall failed: %s", ovs_strerror(errno));
    } else {
        set_memory_locked();
    }
}

static void
handle_exit(struct unixctl_conn *conn, int argc, const char *argv[], void *request_)
{
    struct exit_request *request = request_;

    request->exiting = true;
    request->cleanup = argc == 2 && !strcmp(argv[1], "--cleanup");
    unixctl_command_reply(conn, NULL);
}

static void
report_memory(void)
{
    struct simap usage = SIMAP_INITIALIZER(&usage);

    bridge_get_memory_usage(&usage);
    memory_report(&usage);
    simap_destroy(&usage);
}

static void
run_once(struct unixctl_server *unixctl, const struct exit_request *request)
{
    memory_run();
    if (memory_should_report()) {
        report_memory();
    }
    bridge_run();
    confirm_run();
    backend_run();
    plug_run();
    flow_export_run();
    ofstate_run();
    unixctl_server_run(unixctl);
    netdev_run();

    memory_wait();
    bridge_wait();
    confirm_wait();
    backend_wait();
    plug_wait();
    flow_export_wait();
    ofstate_wait();
    unixctl_server_wait(unixctl);
    netdev_wait();
    if (request->exiting) {
        poll_timer_wait(LOOK_MS);
    }
    poll_block();
}

/* What controllers said last is worth a moment, on a machine without time for us a long one: who
 * comes next restores what was saved. */
static void
save_last(struct unixctl_server *unixctl, const struct exit_request *request)
{
    long long int until = time_msec() + SAVE_MS;

    for (ofstate_end(); !ofstate_ended(); run_once(unixctl, request)) {
        if (time_msec() >= until) {
            VLOG_ERR("the last changes of OpenFlow state could not be saved in %d s",
                     SAVE_MS / 1000);
            ofstate_give_up();
            until = LLONG_MAX;
        }
    }
}

int
main(int argc, char *argv[])
{
    struct exit_request request = {.exiting = false};
    struct unixctl_server *unixctl;
    struct options options;

    set_program_name("ovs-vswitchd");
    ovsthread_id_init();
    dns_resolve_init(true);
    ovs_cmdl_proctitle_init(argc, argv);
    service_start(&argc, &argv);
    spare_init(&argc, argv);
    options = parse_options(argc, argv);
    fatal_ignore_sigpipe();
    canary_check();
    daemonize_start(true);
    spare_supervise();

    if (options.mlockall) {
        lock_memory();
    }
    spare_wait();
    if (unixctl_server_create(options.unixctl, &unixctl)) {
        exit(EXIT_FAILURE);
    }
    unixctl_command_register("exit", "[--cleanup]", 0, 1, handle_exit, &request);
    netdev_netback_register();
    dpif_weft_register(options.dummy);
    confirm_init();
    bridge_init(options.database);
    plug_init(options.database);
    flow_export_init(options.database);
    if (!options.dummy) {
        ofstate_init(options.database);
    }
    free(options.database);
    spare_forward();

    while (!request.exiting && !should_service_stop()) {
        run_once(unixctl, &request);
    }

    save_last(unixctl, &request);
    ofstate_exit();
    plug_exit();
    flow_export_exit();
    /* Bridges close their ports as they go; what guests see of it is decided
     * below, for all vifs at once. */
    backend_keep_vifs();
    spare_exit();
    if (!request.cleanup) {
        shadow_keep();
    }
    bridge_exit(request.cleanup);
    netdev_netback_exit();
    backend_stop(request.cleanup);
    dpif_weft_exit();
    unixctl_server_destroy(unixctl);
    service_stop();
    vlog_disable_async();
    ovsrcu_exit();
    dns_resolve_destroy();
    return EXIT_SUCCESS;
}

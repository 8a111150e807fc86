/* weft-controllerd: programs every host's switch from the pool's database.
 *
 *   pool database -> model -> compiler -> hosts
 *                      ^---- ports, status --'
 *
 * One thread does all of it, turn by turn; only REST has threads of its own,
 * which parse and authenticate (rest.h). */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "command-line.h"
#include "compile.h"
#include "crowded.h"
#include "daemon.h"
#include "dirs.h"
#include "fatal-signal.h"
#include "fence.h"
#include "fleet.h"
#include "host.h"
#include "host_peer.h"
#include "leader.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "ovs/tls_files.h"
#include "ovsdb-idl.h"
#include "plan.h"
#include "pool_db.h"
#include "questions.h"
#include "rest_pool.h"
#include "rule_log.h"
#include "samples.h"
#include "share.h"
#include "stream-ssl.h"
#include "stream.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_controllerd);

#define MAX_LISTEN 8

struct options {
    const char *db, *id, *unixctl;
    const char *listen[MAX_LISTEN];
    size_t n_listen;
    const char *private_key, *certificate, *ca_cert, *crl;
    const char *rest_private_key, *rest_certificate, *rest_ca_cert, *rest_crl, *audit_log;
    const char *compile, *trace, *host, *fence;
};

struct controller {
    struct model *model;
    struct compile *compile;
    struct pool_db *db;
    struct leader *leader;
    struct share *share;
    struct fleet *fleet;
    struct rest_pool *rest;
    struct rule_log *log;
    struct samples *samples;
    struct capture *capture;
    struct tls_files tls; /* of streams; REST has its own */
    bool exiting;
};

OVS_NO_RETURN static void
usage(void)
{
    printf("weft-controllerd: programs every host's switch from the pool's database\n"
           "usage: weft-controllerd [OPTIONS]\n"
           "       weft-controllerd --compile FILE [--host NAME] [--trace QUESTION]\n"
           "\nThe pool:\n"
           "  --db=TARGET               pool database (default: unix:%s/pool.sock)\n"
           "                            several of one pool: ssl:IP:PORT,ssl:IP:PORT\n"
           "  --fence-file=FILE         remembers which of these is the newest\n"
           "                            (default: %s/weft-controllerd.fence)\n"
           "  --id=NAME                 tells this controller from the pool's others\n"
           "                            (default: the host's name)\n"
           "  --rest=ADDRESS            unix:PATH, ssl:PORT[:IP], token:PORT[:IP]; several\n"
           "                            (default: unix:%s/weft-controllerd.rest)\n"
           "  --rest-private-key=FILE, --rest-certificate=FILE, --rest-ca-cert=FILE,\n"
           "  --rest-crl=FILE           for REST, if others than those below\n"
           "  --audit-log=FILE          who changed what through REST\n"
           "                            (default: %s/weft-audit.log)\n"
           "\nHosts:\n"
           "  --crl=FILE                certificates that are revoked\n"
           "  --allow-tls12             TLS 1.2 is fine for hosts, too\n"
           "  --allow-plain             \"tcp:\" is fine for hosts on loopback; for tests\n"
           "  --audit-interval=SECONDS  compare each host's flows this often (default: 60;\n"
           "                            0: only when it connects)\n"
           "\nWithout a database:\n"
           "  --compile=FILE            print the flows that a document means, and end\n"
           "  --host=NAME               those of one host\n"
           "  --trace=QUESTION          instead, a packet's way; QUESTION as for POST /v1/trace:\n"
           "                            {\"from\": VIF, \"to\": VIF, \"protocol\": \"tcp\", "
           "\"port\": 80}\n",
           ovs_rundir(), ovs_dbdir(), ovs_rundir(), ovs_logdir());
    stream_usage("TARGET", true, false, false);
    daemon_usage();
    vlog_usage();
    printf("\nOther options:\n"
           "  --unixctl=SOCKET          name of the control socket\n"
           "  -h, --help                show this text\n"
           "  -V, --version             show versions\n");
    exit(EXIT_SUCCESS);
}

enum {
    OPT_DB = UCHAR_MAX + 1,
    OPT_FENCE_FILE,
    OPT_ID,
    OPT_REST,
    OPT_REST_PRIVATE_KEY,
    OPT_REST_CERTIFICATE,
    OPT_REST_CA_CERT,
    OPT_REST_CRL,
    OPT_AUDIT_LOG,
    OPT_CRL,
    OPT_ALLOW_TLS12,
    OPT_ALLOW_PLAIN,
    OPT_AUDIT_INTERVAL,
    OPT_COMPILE,
    OPT_HOST,
    OPT_TRACE,
    OPT_UNIXCTL,
    VLOG_OPTION_ENUMS,
    DAEMON_OPTION_ENUMS,
    SSL_OPTION_ENUMS,
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"db", required_argument, NULL, OPT_DB},
    {"fence-file", required_argument, NULL, OPT_FENCE_FILE},
    {"id", required_argument, NULL, OPT_ID},
    {"rest", required_argument, NULL, OPT_REST},
    {"rest-private-key", required_argument, NULL, OPT_REST_PRIVATE_KEY},
    {"rest-certificate", required_argument, NULL, OPT_REST_CERTIFICATE},
    {"rest-ca-cert", required_argument, NULL, OPT_REST_CA_CERT},
    {"rest-crl", required_argument, NULL, OPT_REST_CRL},
    {"audit-log", required_argument, NULL, OPT_AUDIT_LOG},
    {"crl", required_argument, NULL, OPT_CRL},
    {"allow-tls12", no_argument, NULL, OPT_ALLOW_TLS12},
    {"allow-plain", no_argument, NULL, OPT_ALLOW_PLAIN},
    {"audit-interval", required_argument, NULL, OPT_AUDIT_INTERVAL},
    {"compile", required_argument, NULL, OPT_COMPILE},
    {"host", required_argument, NULL, OPT_HOST},
    {"trace", required_argument, NULL, OPT_TRACE},
    {"unixctl", required_argument, NULL, OPT_UNIXCTL},
    VLOG_LONG_OPTIONS,
    DAEMON_LONG_OPTIONS,
    STREAM_SSL_LONG_OPTIONS,
    {NULL, 0, NULL, 0},
};

/* REST has its own TLS, with the same files unless told otherwise. */
static void
note_tls_file(int c, struct options *o)
{
    if (c == 'p') {
        o->private_key = optarg;
    } else if (c == 'c') {
        o->certificate = optarg;
    } else if (c == 'C') {
        o->ca_cert = optarg;
    }
}

static void
add_listen(struct options *o, const char *address)
{
    if (o->n_listen == MAX_LISTEN) {
        ovs_fatal(0, "--rest: at most %d addresses", MAX_LISTEN);
    }
    o->listen[o->n_listen++] = address;
}

static void
set_audit_interval(const char *text)
{
    int seconds;

    if (!str_to_int(text, 10, &seconds) || seconds < 0 || seconds > 86400) {
        ovs_fatal(0, "--audit-interval: %s is not a number of seconds up to a day", text);
    }
    host_set_audit_interval(seconds);
}

static void
take_option(int c, struct options *o)
{
    note_tls_file(c, o);
    switch (c) {
    case 'h':
        usage();
    case 'V':
        ovs_print_version(0, 0);
        exit(EXIT_SUCCESS);
    case OPT_DB:
        o->db = optarg;
        break;
    case OPT_FENCE_FILE:
        o->fence = optarg;
        break;
    case OPT_ID:
        o->id = optarg;
        break;
    case OPT_REST:
        add_listen(o, optarg);
        break;
    case OPT_REST_PRIVATE_KEY:
        o->rest_private_key = optarg;
        break;
    case OPT_REST_CERTIFICATE:
        o->rest_certificate = optarg;
        break;
    case OPT_REST_CA_CERT:
        o->rest_ca_cert = optarg;
        break;
    case OPT_REST_CRL:
        o->rest_crl = optarg;
        break;
    case OPT_AUDIT_LOG:
        o->audit_log = optarg;
        break;
    case OPT_CRL:
        o->crl = optarg;
        if (!host_peer_add_crl(optarg)) {
            ovs_fatal(0, "--crl: %d files at most", HOST_PEER_CRLS);
        }
        break;
    case OPT_ALLOW_TLS12:
        host_peer_allow_tls12();
        break;
    case OPT_ALLOW_PLAIN:
        host_allow_plain();
        break;
    case OPT_AUDIT_INTERVAL:
        set_audit_interval(optarg);
        break;
    case OPT_COMPILE:
        o->compile = optarg;
        break;
    case OPT_HOST:
        o->host = optarg;
        break;
    case OPT_TRACE:
        o->trace = optarg;
        break;
    case OPT_UNIXCTL:
        o->unixctl = optarg;
        break;
        VLOG_OPTION_HANDLERS
        DAEMON_OPTION_HANDLERS
        STREAM_SSL_OPTION_HANDLERS
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
    }
}

static const char *
host_name_of_machine(void)
{
    static char name[HOST_NAME_MAX + 1];

    if (gethostname(name, sizeof name) || !name[0]) {
        return "controller";
    }
    name[sizeof name - 1] = '\0';
    return name;
}

static struct options
parse_options(int argc, char *argv[])
{
    char *short_options = ovs_cmdl_long_options_to_short_options(long_options);
    struct options o = {.db = NULL};
    int c;

    while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        take_option(c, &o);
    }
    free(short_options);
    if (optind < argc) {
        ovs_fatal(0, "no arguments are accepted; use --help for usage");
    }
    if ((o.host || o.trace) && !o.compile) {
        ovs_fatal(0, "--host and --trace go with --compile");
    }
    if (!o.db) {
        o.db = xasprintf("unix:%s/pool.sock", ovs_rundir());
    }
    if (!o.id) {
        o.id = host_name_of_machine();
    }
    if (!o.n_listen) {
        add_listen(&o, xasprintf("unix:%s/weft-controllerd.rest", ovs_rundir()));
    }
    if (!o.fence) {
        o.fence = xasprintf("%s/weft-controllerd.fence", ovs_dbdir());
    }
    if (!o.audit_log) {
        o.audit_log = xasprintf("%s/weft-audit.log", ovs_logdir());
    }
    o.rest_private_key = o.rest_private_key ? o.rest_private_key : o.private_key;
    o.rest_certificate = o.rest_certificate ? o.rest_certificate : o.certificate;
    o.rest_ca_cert = o.rest_ca_cert ? o.rest_ca_cert : o.ca_cert;
    o.rest_crl = o.rest_crl ? o.rest_crl : o.crl;
    return o;
}

/* --- control socket ------------------------------------------------------------------ */

static void
handle_exit(struct unixctl_conn *conn, int argc, const char *argv[], void *ctl_)
{
    struct controller *ctl = ctl_;

    ctl->exiting = true;
    unixctl_command_reply(conn, NULL);
}

static void
handle_status(struct unixctl_conn *conn, int argc, const char *argv[], void *ctl_)
{
    const struct controller *ctl = ctl_;
    const struct compile_stats *stats = compile_get_stats(ctl->compile);
    struct ds ds = DS_EMPTY_INITIALIZER;

    leader_format(ctl->leader, &ds);
    share_format(ctl->share, &ds);
    ds_put_format(&ds, "pool database: %s, generation %" PRId64 "\n",
                  !pool_db_ready(ctl->db)      ? "not read yet"
                  : pool_db_connected(ctl->db) ? "connected"
                                               : "not connected",
                  ctl->model->generation);
    ds_put_format(&ds,
                  "compiler: %" PRIu64 " runs, %" PRIu64 " units and %" PRIu64
                  " flows computed, %" PRIu64 " changes of tables\n",
                  stats->runs, stats->units, stats->flows, stats->moves);
    fleet_format(ctl->fleet, argc > 1 ? argv[1] : NULL, &ds);
    unixctl_command_reply(conn, ds_cstr(&ds));
    ds_destroy(&ds);
}

static void
handle_audit(struct unixctl_conn *conn, int argc, const char *argv[], void *ctl_)
{
    struct controller *ctl = ctl_;

    if (fleet_audit(ctl->fleet, argc > 1 ? argv[1] : NULL)) {
        unixctl_command_reply(conn, NULL);
    } else {
        unixctl_command_reply_error(conn, "no such host");
    }
}

/* --- the loop ---------------------------------------------------------------------------- */

static void
run_once(struct controller *ctl, struct unixctl_server *unixctl)
{
    const struct uuid *stale;

    tls_files_refresh(&ctl->tls);
    pool_db_run(ctl->db);
    leader_run(ctl->leader);
    share_run(ctl->share);
    pool_db_share(ctl->db, leader_epoch(ctl->leader) > 0);
    fleet_sync(ctl->fleet);
    fleet_lead(ctl->fleet, share_epoch, ctl->share);
    if (model_has_changes(ctl->model)) {
        compile_run(ctl->compile);
        model_changes_clear(ctl->model);
    }
    fleet_run(ctl->fleet);
    if ((stale = fleet_stale(ctl->fleet))) {
        share_deposed(ctl->share, stale);
    }
    rest_pool_run(ctl->rest);
    unixctl_server_run(unixctl);

    pool_db_wait(ctl->db);
    leader_wait(ctl->leader);
    share_wait(ctl->share);
    fleet_wait(ctl->fleet);
    rest_pool_wait(ctl->rest);
    unixctl_server_wait(unixctl);
    if (ctl->exiting) {
        poll_immediate_wake();
    }
    poll_block();
}

/* --- without a database or hosts: what a document means ------------------------------------ */

/* As if each host had its uplink, its tunnels and the vifs that name it, each
 * port with its object's key as number. */
static void
invent_ports(struct model *model)
{
    static const char *const tunnels[] = COMPILE_TUNNEL_NAMES;
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, model, REC_HOST) {
        struct model_host *host = model_host(obj);

        for (size_t i = 0; obj->live && i < ARRAY_SIZE(tunnels); i++) {
            model_port_report(model, host, tunnels[i], NULL, NULL, 60000 + i);
        }
        if (obj->live && host->uplink[0]) {
            model_port_report(model, host, host->uplink, NULL, NULL, 60010);
        }
    }
    MODEL_FOR_EACH (obj, model, REC_VIF) {
        const struct model_vif *vif = model_vif(obj);

        if (obj->live && vif->stated_host) {
            model_port_report(model, vif->stated_host, obj->name, &vif->xs_uuid, &vif->mac,
                              obj->key);
        }
    }
    model_settle(model);
}

static bool
print_trace(struct model *model, struct compile *compile, const struct options *o)
{
    struct trace_fault fault;
    char *said = trace_answer(model, compile, o->trace, true, &fault);

    if (said) {
        fputs(said, stdout);
    } else {
        ovs_error(0, "--trace: %s%s%s", fault.field, fault.field[0] ? ": " : "", fault.message);
    }
    bool ok = said != NULL;

    free(said);
    return ok;
}

static bool
print_table(struct compile *compile, const struct options *o)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    bool ok = !compile_print(compile, o->host, &ds);

    if (ok) {
        fputs(ds_cstr(&ds), stdout);
    } else {
        ovs_error(0, "%s: there is no host %s", o->compile, o->host);
    }
    ds_destroy(&ds);
    return ok;
}

/* The flows are what a host would get, so this is no failure. */
static void
print_crowded(struct model *model, struct compile *compile, const struct options *o)
{
    struct crowded crowded = {.runs = 0};
    struct model_obj *obj;

    crowded_run(&crowded, model, compile);
    MODEL_FOR_EACH (obj, model, REC_POLICY) {
        if (obj->refused) {
            ovs_error(0, "%s: policy \"%s\": %s", o->compile, obj->name, obj->refused);
        }
    }
    crowded_destroy(&crowded);
}

static bool
print_flows(struct model *model, const struct options *o)
{
    struct compile *compile = compile_create(model);
    bool ok;

    invent_ports(model);
    compile_run(compile);
    model_changes_clear(model);
    print_crowded(model, compile, o);
    ok = o->trace ? print_trace(model, compile, o) : print_table(compile, o);
    compile_destroy(compile);
    return ok;
}

static int
compile_file(const struct options *o)
{
    struct model *model = model_create();
    bool ok = !model_load_file(model, o->compile) && print_flows(model, o);

    model_destroy(model);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void
take_packet(void *ctl_, struct host *host, const struct host_packet *packet)
{
    struct controller *ctl = ctl_;

    rule_log_packet(ctl->log, host_name(host), packet);
    samples_packet(ctl->samples, packet);
    capture_packet(ctl->capture, host_name(host), packet);
}

static void
open_all(struct controller *ctl, const struct options *o)
{
    struct rest_pool_options rest = {
        .listen = o->listen,
        .n_listen = o->n_listen,
        .private_key = o->rest_private_key,
        .certificate = o->rest_certificate,
        .ca_cert = o->rest_ca_cert,
        .crl = o->rest_crl,
        .audit = o->audit_log,
    };
    char why[256];

    ctl->tls = (struct tls_files){
        .private_key = o->private_key,
        .certificate = o->certificate,
        .ca_cert = o->ca_cert,
    };
    fence_open(o->fence);
    ctl->model = model_create();
    ctl->compile = compile_create(ctl->model);
    ctl->db = pool_db_open(o->db, ctl->model);
    pool_db_share(ctl->db, false);
    ctl->leader = leader_create(o->db, o->id);
    ctl->share = share_create(o->db, o->id);
    ctl->log = rule_log_create(ctl->model);
    ctl->samples = samples_create(ctl->model);
    host_on_packet(take_packet, ctl);
    ctl->fleet = fleet_create(ctl->model, ctl->compile);
    ctl->capture = capture_create(ctl->model, ctl->compile, ctl->fleet);
    rest.compile = ctl->compile;
    rest.log = ctl->log;
    rest.samples = ctl->samples;
    rest.fleet = ctl->fleet;
    rest.capture = ctl->capture;
    if (rest_pool_create(&rest, ctl->db, ctl->model, &ctl->rest, why, sizeof why)) {
        ovs_fatal(0, "--rest: %s", why);
    }
}

static void
close_all(struct controller *ctl)
{
    rest_pool_destroy(ctl->rest);
    /* Switches keep what they have. */
    fleet_destroy(ctl->fleet);
    host_on_packet(NULL, NULL);
    rule_log_destroy(ctl->log);
    samples_destroy(ctl->samples);
    capture_destroy(ctl->capture);
    share_destroy(ctl->share);
    leader_destroy(ctl->leader);
    pool_db_close(ctl->db);
    compile_destroy(ctl->compile);
    model_destroy(ctl->model);
}

int
main(int argc, char *argv[])
{
    struct controller ctl = {.exiting = false};
    struct unixctl_server *unixctl;
    static struct options options; /* its strings live as long as the program */

    set_program_name("weft-controllerd");
    ovsthread_id_init();
    ovs_cmdl_proctitle_init(argc, argv);
    service_start(&argc, &argv);
    /* A line for each attempt to reach each address would be too many. */
    vlog_set_levels(vlog_module_from_name("reconnect"), VLF_ANY_DESTINATION, VLL_WARN);
    options = parse_options(argc, argv);
    fatal_ignore_sigpipe();
    if (options.compile) {
        return compile_file(&options);
    }

    daemonize_start(false);
    if (unixctl_server_create(options.unixctl, &unixctl)) {
        exit(EXIT_FAILURE);
    }
    unixctl_command_register("exit", "", 0, 0, handle_exit, &ctl);
    unixctl_command_register("weft-controllerd/status", "[HOST]", 0, 1, handle_status, &ctl);
    unixctl_command_register("weft-controllerd/audit", "[HOST]", 0, 1, handle_audit, &ctl);
    open_all(&ctl, &options);
    daemonize_complete();

    while (!ctl.exiting && !should_service_stop()) {
        run_once(&ctl, unixctl);
    }

    close_all(&ctl);
    unixctl_server_destroy(unixctl);
    service_stop();
    return EXIT_SUCCESS;
}

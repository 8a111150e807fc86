/* weft-dbgate: where hosts' agents come to the pool's database.
 *
 *   weft-xapid, weft-migrate -- TLS, certificates of hosts --> weft-dbgate -- db.sock -->
 * ovsdb-server
 *
 * "weft pool db run" starts one beside each server that has a port for hosts.  With --relay it
 * is where all others come, of servers that have a list of certificates that are revoked. */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "command-line.h"
#include "dbgate.h"
#include "dbrelay.h"
#include "fatal-signal.h"
#include "host_peer.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs/tls_files.h"
#include "stream.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_dbgate);

enum { MAX_PORTS = 4 };

struct options {
    const char *listen[MAX_PORTS], *server[MAX_PORTS], *unixctl;
    size_t n_listen, n_server;
    bool relay;
    struct tls_files tls;
    int probe_ms;
};

/* One of both. */
struct gates {
    struct dbgate *hosts;
    struct dbrelay *relays[MAX_PORTS];
    size_t n_relays;
};

OVS_NO_RETURN static void
usage(void)
{
    printf("weft-dbgate: where hosts' agents come to the pool's database\n"
           "usage: weft-dbgate --listen=pssl:PORT:IP --server=unix:SOCKET [OPTIONS]\n"
           "       weft-dbgate --relay {--listen=TARGET --server=TARGET}... [OPTIONS]\n"
           "  --listen=TARGET           where hosts come; a certificate's common name is the host\n"
           "  --server=TARGET           the database's own server\n"
           "  --relay                   all who come to a --listen, or for whom we go to its\n"
           "                            --server, may do all while their certificate is good\n");
    stream_usage("TARGET", true, true, false);
    vlog_usage();
    printf("\nOther options:\n"
           "  --crl=FILE                certificates that are revoked (two such files at most)\n"
           "  --inactivity-probe=MS     a host that is silent so long is asked whether it is\n"
           "                            there (default: 30000)\n"
           "  --unixctl=SOCKET          name of the control socket\n"
           "  -h, --help                show this text\n"
           "  -V, --version             show versions\n");
    exit(EXIT_SUCCESS);
}

enum {
    OPT_LISTEN = UCHAR_MAX + 1,
    OPT_SERVER,
    OPT_UNIXCTL,
    OPT_CRL,
    OPT_RELAY,
    OPT_INACTIVITY_PROBE,
    VLOG_OPTION_ENUMS
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"server", required_argument, NULL, OPT_SERVER},
    {"unixctl", required_argument, NULL, OPT_UNIXCTL},
    {"private-key", required_argument, NULL, 'p'},
    {"certificate", required_argument, NULL, 'c'},
    {"ca-cert", required_argument, NULL, 'C'},
    {"crl", required_argument, NULL, OPT_CRL},
    {"relay", no_argument, NULL, OPT_RELAY},
    {"inactivity-probe", required_argument, NULL, OPT_INACTIVITY_PROBE},
    VLOG_LONG_OPTIONS,
    {NULL, 0, NULL, 0},
};

static int
parse_probe(const char *text)
{
    int ms;

    if (!str_to_int(text, 10, &ms) || ms < 100 || ms > 3600 * 1000) {
        ovs_fatal(0, "--inactivity-probe: from 100 to 3600000 ms");
    }
    return ms;
}

static void
add_target(const char *targets[MAX_PORTS], size_t *n)
{
    if (*n == MAX_PORTS) {
        ovs_fatal(0, "%s: %d ports at most", optarg, MAX_PORTS);
    }
    targets[(*n)++] = optarg;
}

static void
take_option(int c, struct options *o)
{
    switch (c) {
    case 'h':
        usage();
    case 'V':
        ovs_print_version(0, 0);
        exit(EXIT_SUCCESS);
    case OPT_LISTEN:
        add_target(o->listen, &o->n_listen);
        break;
    case OPT_SERVER:
        add_target(o->server, &o->n_server);
        break;
    case OPT_RELAY:
        o->relay = true;
        break;
    case OPT_UNIXCTL:
        o->unixctl = optarg;
        break;
    case 'p':
        o->tls.private_key = optarg;
        break;
    case 'c':
        o->tls.certificate = optarg;
        break;
    case 'C':
        o->tls.ca_cert = optarg;
        break;
    case OPT_CRL:
        if (!host_peer_add_crl(optarg)) {
            ovs_fatal(0, "--crl: %d files at most", HOST_PEER_CRLS);
        }
        break;
    case OPT_INACTIVITY_PROBE:
        o->probe_ms = parse_probe(optarg);
        break;
        VLOG_OPTION_HANDLERS
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
    }
}

static void
check_options(const struct options *o)
{
    if (!o->n_listen || !o->n_server || !o->tls.private_key || !o->tls.certificate ||
        !o->tls.ca_cert) {
        ovs_fatal(0, "--listen, --server, --private-key, --certificate and --ca-cert are needed");
    }
    if (o->n_listen != o->n_server) {
        ovs_fatal(0, "for each --listen one --server");
    }
    if (!o->relay && o->n_listen > 1) {
        ovs_fatal(0, "more than one --listen: only with --relay");
    }
    for (size_t i = 0; i < o->n_listen; i++) {
        /* Nobody has a name on any other, and nobody is to come or go without. */
        if (strncmp(o->listen[i], "pssl:", 5) != 0 &&
            (!o->relay || strncmp(o->listen[i], "punix:", 6) != 0)) {
            ovs_fatal(0, "--listen: %s is not \"pssl:...\"", o->listen[i]);
        }
        if (strncmp(o->server[i], "unix:", 5) != 0 &&
            (!o->relay || strncmp(o->server[i], "ssl:", 4) != 0)) {
            ovs_fatal(0, "--server: %s is not \"unix:...\"", o->server[i]);
        }
    }
}

static struct options
parse_options(int argc, char *argv[])
{
    char *short_options = ovs_cmdl_long_options_to_short_options(long_options);
    struct options o = {.probe_ms = 30000};
    int c;

    while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        take_option(c, &o);
    }
    free(short_options);
    if (optind < argc) {
        ovs_fatal(0, "no arguments are accepted; use --help for usage");
    }
    check_options(&o);
    return o;
}

/* Files that are new hold for the next who comes, and authorities and lists for all who are
 * here. */
static void
refresh(struct options *o, struct gates *g)
{
    bool authorities = tls_files_refresh(&o->tls) & TLS_FILES_CA;
    bool lists = host_peer_refresh();

    if (!authorities && !lists) {
        return;
    }
    if (g->hosts) {
        dbgate_recheck(g->hosts);
    }
    for (size_t i = 0; i < g->n_relays; i++) {
        dbrelay_recheck(g->relays[i]);
    }
}

static void
open_gates(const struct options *o, struct gates *g)
{
    for (size_t i = 0; i < o->n_listen; i++) {
        int error = o->relay ? dbrelay_open(o->listen[i], o->server[i], o->probe_ms, &g->relays[i])
                             : dbgate_open(o->listen[i], o->server[i], o->probe_ms, &g->hosts);

        if (error) {
            ovs_fatal(error, "%s", o->listen[i]);
        }
        g->n_relays += o->relay;
    }
}

static void
run_gates(struct gates *g)
{
    if (g->hosts) {
        dbgate_run(g->hosts);
    }
    for (size_t i = 0; i < g->n_relays; i++) {
        dbrelay_run(g->relays[i]);
    }
}

static void
wait_gates(struct gates *g)
{
    if (g->hosts) {
        dbgate_wait(g->hosts);
    }
    for (size_t i = 0; i < g->n_relays; i++) {
        dbrelay_wait(g->relays[i]);
    }
}

static void
raise_file_limit(void)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int
main(int argc, char *argv[])
{
    struct unixctl_server *unixctl = NULL;
    struct gates gates = {.n_relays = 0};
    struct options o;

    ovs_cmdl_proctitle_init(argc, argv);
    set_program_name(argv[0]);
    o = parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    fatal_signal_init();
    raise_file_limit();
    if (o.unixctl && unixctl_server_create(o.unixctl, &unixctl)) {
        exit(EXIT_FAILURE);
    }
    refresh(&o, &gates);
    open_gates(&o, &gates);
    for (;;) {
        refresh(&o, &gates);
        run_gates(&gates);
        unixctl_server_run(unixctl);
        wait_gates(&gates);
        tls_files_wait(&o.tls);
        unixctl_server_wait(unixctl);
        poll_block();
    }
}

/* weft-dbgate: where hosts' agents come to the pool's database.
 *
 *   weft-xapid, weft-migrate -- TLS, certificates of hosts --> weft-dbgate -- db.sock -->
 * ovsdb-server
 *
 * "weft pool db run" starts one beside each server that has a port for hosts. */
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
#include "fatal-signal.h"
#include "host_peer.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs/tls_files.h"
#include "stream.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_dbgate);

struct options {
    const char *listen, *server, *unixctl;
    struct tls_files tls;
    int probe_ms;
};

OVS_NO_RETURN static void
usage(void)
{
    printf("weft-dbgate: where hosts' agents come to the pool's database\n"
           "usage: weft-dbgate --listen=pssl:PORT:IP --server=unix:SOCKET [OPTIONS]\n"
           "  --listen=TARGET           where hosts come; a certificate's common name is the host\n"
           "  --server=TARGET           the database's own server\n");
    stream_usage("TARGET", false, true, false);
    vlog_usage();
    printf("\nOther options:\n"
           "  --crl=FILE                certificates that are revoked\n"
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
take_option(int c, struct options *o)
{
    switch (c) {
    case 'h':
        usage();
    case 'V':
        ovs_print_version(0, 0);
        exit(EXIT_SUCCESS);
    case OPT_LISTEN:
        o->listen = optarg;
        break;
    case OPT_SERVER:
        o->server = optarg;
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
        host_peer_set_crl(optarg);
        break;
    case OPT_INACTIVITY_PROBE:
        o->probe_ms = parse_probe(optarg);
        break;
        VLOG_OPTION_HANDLERS
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
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
    if (!o.listen || !o.server || !o.tls.private_key || !o.tls.certificate || !o.tls.ca_cert) {
        ovs_fatal(0, "--listen, --server, --private-key, --certificate and --ca-cert are needed");
    }
    /* Nobody has a name on any other. */
    if (strncmp(o.listen, "pssl:", 5) != 0) {
        ovs_fatal(0, "--listen: %s is not \"pssl:...\"", o.listen);
    }
    return o;
}

/* Files that are new hold for the next who comes, and authorities and lists for all who are
 * here. */
static void
refresh(struct options *o, struct dbgate *gate)
{
    bool authorities = tls_files_refresh(&o->tls) & TLS_FILES_CA;
    bool lists = host_peer_refresh();

    if (gate && (authorities || lists)) {
        dbgate_recheck(gate);
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
    struct options o;
    struct dbgate *gate;
    int error;

    ovs_cmdl_proctitle_init(argc, argv);
    set_program_name(argv[0]);
    o = parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    fatal_signal_init();
    raise_file_limit();
    if (o.unixctl && unixctl_server_create(o.unixctl, &unixctl)) {
        exit(EXIT_FAILURE);
    }
    refresh(&o, NULL);
    error = dbgate_open(o.listen, o.server, o.probe_ms, &gate);
    if (error) {
        ovs_fatal(error, "%s", o.listen);
    }
    for (;;) {
        refresh(&o, gate);
        dbgate_run(gate);
        unixctl_server_run(unixctl);
        dbgate_wait(gate);
        tls_files_wait(&o.tls);
        unixctl_server_wait(unixctl);
        poll_block();
    }
}

/* weft-xapid: XenAPI over JSON-RPC for the pool, and this host's part of it.
 *
 *   client > http (threads) > dispatch > rows of the pool's database > agent > processes
 *
 * One thread does all of it, turn by turn; only HTTP has threads of its own. */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "audit.h"
#include "command-line.h"
#include "daemon.h"
#include "dirs.h"
#include "dispatch.h"
#include "fatal-signal.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "ovs/tls_files.h"
#include "ovsdb-idl.h"
#include "stream-ssl.h"
#include "stream.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"
#include "xapi.h"

VLOG_DEFINE_THIS_MODULE(weft_xapid);

enum { MAX_LISTEN = 8 };

struct options {
    struct xapi_options xapi;
    const char *listen[MAX_LISTEN];
    struct http_config http;
    const char *unixctl, *lease;
};

OVS_NO_RETURN static void
usage(void)
{
    printf("weft-xapid: XenAPI (JSON-RPC) for the pool, and what it asks of this host\n"
           "usage: weft-xapid --host=NAME [OPTIONS]\n"
           "       weft-xapid --hash-password USER ROLE   password on standard input;\n"
           "                                              prints a line for --passwords\n"
           "\nThe pool:\n"
           "  --db=TARGET               pool database (default: unix:%s/pool.sock)\n"
           "  --host=NAME               this host, as the pool calls it\n"
           "  --lease=SECONDS           1 to 600, the same for all hosts (default: 3): when that\n"
           "                            and half as much has passed without a sign of the\n"
           "                            coordinator, another host takes its place\n"
           "  --agent-only              never the coordinator: for hosts that come to the database "
           "by\n"
           "                            its port for hosts (weft pool db hosts)\n"
           "  --advertise=URL           where others reach this host's API: https://IP[:PORT]\n"
           "\nThe API:\n"
           "  --listen=ADDRESS          ssl:PORT[:IP], unix:PATH; several\n"
           "                            (default: unix:%s/weft-xapid.sock, and ssl:443 with\n"
           "                            certificates)\n"
           "  --rest-private-key=FILE, --rest-certificate=FILE, --rest-ca-cert=FILE,\n"
           "  --rest-crl=FILE           for the API, if others than those below\n"
           "  --passwords=FILE          users with passwords\n"
           "  --audit-log=FILE          who asked for what (default: %s/weft-xapid-audit.log)\n"
           "\nThis host:\n"
           "  --run-dir=DIR             its processes' files (default: %s/xapi)\n"
           "  --switch-dir=DIR          run directory of its switch\n"
           "  --localxen-dir=DIR        of weft-localxen, for cells\n"
           "  --bin=DIR, --share=DIR    weft-cell and weft-migrate; cell.img\n"
           "                            (default: beside this program; ../share)\n"
           "  --bridge=NAME             where vifs are plugged (default: xenbr0)\n"
           "  --migration-address=IP    for migrations to this host (default: 127.0.0.1)\n"
           "  --stream-private-key=FILE, --stream-certificate=FILE, --stream-ca-cert=FILE\n"
           "                            of migrations, if others than those below\n"
           "  --plain-migration         migrations without TLS\n",
           ovs_rundir(), ovs_rundir(), ovs_logdir(), ovs_rundir());
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
    OPT_FIRST = UCHAR_MAX + 1, /* of string_options, in their order */
    OPT_LISTEN = OPT_FIRST + 32,
    OPT_PLAIN,
    OPT_AGENT_ONLY,
    OPT_HASH,
    VLOG_OPTION_ENUMS,
    DAEMON_OPTION_ENUMS,
    SSL_OPTION_ENUMS,
};

static struct options options; /* its strings live as long as the program */

static const struct {
    const char *name;
    const char **to;
} string_options[] = {
    {"db", &options.xapi.db},
    {"host", &options.xapi.host},
    {"advertise", &options.xapi.advertise},
    {"rest-private-key", &options.http.private_key},
    {"rest-certificate", &options.http.certificate},
    {"rest-ca-cert", &options.http.ca_cert},
    {"rest-crl", &options.http.crl},
    {"passwords", &options.xapi.passwords},
    {"audit-log", &options.xapi.audit},
    {"run-dir", &options.xapi.run_dir},
    {"switch-dir", &options.xapi.switch_dir},
    {"localxen-dir", &options.xapi.localxen_dir},
    {"bin", &options.xapi.bin},
    {"share", &options.xapi.share},
    {"bridge", &options.xapi.bridge},
    {"migration-address", &options.xapi.migration_address},
    {"stream-private-key", &options.xapi.stream_key},
    {"stream-certificate", &options.xapi.stream_certificate},
    {"stream-ca-cert", &options.xapi.stream_ca_cert},
    {"unixctl", &options.unixctl},
    {"lease", &options.lease},
};

static const struct option other_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"plain-migration", no_argument, NULL, OPT_PLAIN},
    {"agent-only", no_argument, NULL, OPT_AGENT_ONLY},
    {"hash-password", no_argument, NULL, OPT_HASH},
    VLOG_LONG_OPTIONS,
    DAEMON_LONG_OPTIONS,
    STREAM_SSL_LONG_OPTIONS,
    {NULL, 0, NULL, 0},
};

/* --- the command line ------------------------------------------------------------------ */

static int
hash_password(int argc, char *argv[])
{
    char password[200] = "", line[400];

    if (argc - optind != 2 || !fgets(password, sizeof password, stdin)) {
        ovs_fatal(0, "--hash-password USER ROLE, and a password on standard input");
    }
    password[strcspn(password, "\n")] = '\0';
    if (password_line(argv[optind], argv[optind + 1], password, line, sizeof line)) {
        ovs_fatal(0, "no such user or role: roles are admin, operator, viewer");
    }
    puts(line);
    return EXIT_SUCCESS;
}

static void
note_tls_file(int c)
{
    const char **to = c == 'p'   ? &options.xapi.private_key
                      : c == 'c' ? &options.xapi.certificate
                      : c == 'C' ? &options.xapi.ca_cert
                                 : NULL;
    if (to) {
        *to = optarg;
    }
}

static bool hash_wanted;

static void
take_option(int c)
{
    note_tls_file(c);
    if (c >= OPT_FIRST && c < OPT_FIRST + (int)ARRAY_SIZE(string_options)) {
        *string_options[c - OPT_FIRST].to = optarg;
        return;
    }
    switch (c) {
    case 'h':
        usage();
    case 'V':
        ovs_print_version(0, 0);
        exit(EXIT_SUCCESS);
    case OPT_LISTEN:
        if (options.http.n_listen == MAX_LISTEN) {
            ovs_fatal(0, "--listen: at most %d addresses", MAX_LISTEN);
        }
        options.listen[options.http.n_listen++] = optarg;
        break;
    case OPT_PLAIN:
        options.xapi.plain_migration = true;
        break;
    case OPT_AGENT_ONLY:
        options.xapi.agent_only = true;
        break;
    case OPT_HASH:
        hash_wanted = true;
        break;
        VLOG_OPTION_HANDLERS
        DAEMON_OPTION_HANDLERS
        STREAM_SSL_OPTION_HANDLERS
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
    }
}

static const char *
own_dir(void)
{
    static char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    char *slash;

    path[n > 0 ? n : 0] = '\0';
    slash = strrchr(path, '/');
    if (slash) {
        *slash = '\0';
    }
    return *path ? path : ".";
}

static void
or_else(const char **option, const char *otherwise)
{
    if (!*option) {
        *option = otherwise;
    }
}

static void
fill_in(void)
{
    struct xapi_options *x = &options.xapi;
    struct http_config *h = &options.http;

    if (!x->host) {
        ovs_fatal(0, "--host=NAME is needed; use --help for usage");
    }
    or_else(&options.lease, "3");
    if (!str_to_int(options.lease, 10, &x->lease_s) || x->lease_s < 1 || x->lease_s > 600) {
        ovs_fatal(0, "--lease: from 1 to 600 seconds");
    }
    or_else(&x->db, xasprintf("unix:%s/pool.sock", ovs_rundir()));
    or_else(&x->run_dir, xasprintf("%s/xapi", ovs_rundir()));
    or_else(&x->audit, xasprintf("%s/weft-xapid-audit.log", ovs_logdir()));
    or_else(&x->bin, own_dir());
    or_else(&x->share, xasprintf("%s/../share", own_dir()));
    or_else(&x->bridge, "xenbr0");
    or_else(&x->advertise, "");
    or_else(&x->migration_address, "127.0.0.1");
    or_else(&x->localxen_dir, "");
    or_else(&x->stream_key, x->private_key);
    or_else(&x->stream_certificate, x->certificate);
    or_else(&x->stream_ca_cert, x->ca_cert);
    or_else(&h->private_key, x->private_key);
    or_else(&h->certificate, x->certificate);
    or_else(&h->ca_cert, x->ca_cert);
    if (!h->n_listen) {
        options.listen[h->n_listen++] = xasprintf("unix:%s/weft-xapid.sock", ovs_rundir());
        if (h->certificate) {
            options.listen[h->n_listen++] = "ssl:443";
        }
    }
}

static void
parse_options(int argc, char *argv[])
{
    struct option all[ARRAY_SIZE(string_options) + ARRAY_SIZE(other_options)];
    char *short_options;
    size_t n = 0;
    int c;

    for (; n < ARRAY_SIZE(string_options); n++) {
        all[n] =
            (struct option){string_options[n].name, required_argument, NULL, OPT_FIRST + (int)n};
    }
    memcpy(all + n, other_options, sizeof other_options);
    short_options = ovs_cmdl_long_options_to_short_options(all);
    while ((c = getopt_long(argc, argv, short_options, all, NULL)) != -1) {
        take_option(c);
    }
    free(short_options);
    if (hash_wanted) {
        exit(hash_password(argc, argv));
    }
    if (optind < argc) {
        ovs_fatal(0, "no arguments are accepted; use --help for usage");
    }
    fill_in();
}

/* --- control socket ------------------------------------------------------------------------ */

static void
handle_exit(struct unixctl_conn *conn, int argc, const char *argv[], void *exiting)
{
    *(bool *)exiting = true;
    unixctl_command_reply(conn, NULL);
}

static void
handle_status(struct unixctl_conn *conn, int argc, const char *argv[], void *xapi_)
{
    struct xapi *x = xapi_;
    char *text = xasprintf("%s: %s; pool database: %s\n", x->options->host,
                           coord_is(x) ? "coordinator" : "not the coordinator",
                           !store_ready(x->store)     ? "not read yet"
                           : store_writable(x->store) ? "connected"
                                                      : "cannot be written");

    unixctl_command_reply(conn, text);
    free(text);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void
run_once(struct xapi *x, struct tls_files *tls, struct unixctl_server *unixctl, bool exiting)
{
    tls_files_refresh(tls); /* of the database's connection; the API's are http_tls.h's */
    store_run(x->store);
    events_run(x);
    coord_run(x);
    agent_run(x);
    http_run(x->http);
    dispatch_run(x);
    task_tidy(x);
    unixctl_server_run(unixctl);

    store_wait(x->store);
    coord_wait(x);
    agent_wait(x);
    dispatch_wait(x);
    poll_fd_wait(http_fd(x->http), POLLIN);
    poll_timer_wait_until(http_until_ms(x->http));
    unixctl_server_wait(unixctl);
    if (exiting) {
        poll_immediate_wake();
    }
    poll_block();
}

/* Any thread. */
static void
log_line(void *aux, bool warning, const char *line)
{
    VLOG(warning ? VLL_WARN : VLL_INFO, "%s", line);
}

static void
open_all(struct xapi *x)
{
    char why[300];
    int error;

    if (mkdir(options.xapi.run_dir, 0700) && errno != EEXIST) {
        ovs_fatal(errno, "--run-dir: %s", options.xapi.run_dir);
    }
    error = audit_open(options.xapi.audit);
    if (error) {
        ovs_fatal(error, "--audit-log: %s", options.xapi.audit);
    }
    x->options = &options.xapi;
    ovs_list_init(&x->waiting);
    error = password_begin(options.xapi.passwords);
    if (error) {
        ovs_fatal(error, "--passwords");
    }
    x->store = store_open(options.xapi.db);
    x->coord = coord_create();
    x->sessions = sessions_create();
    x->events = events_create();
    x->agent = agent_create(x);
    options.http.listen = options.listen;
    options.http.log = log_line;
    dispatch_config(&options.http);
    if (http_create(&options.http, &x->http, why, sizeof why)) {
        ovs_fatal(0, "--listen: %s", why);
    }
}

/* Cells and migrations go on. */
static void
close_all(struct xapi *x)
{
    store_close(x->store); /* ends transactions, whose ends need what follows */
    dispatch_end(x);
    password_end();
    http_destroy(x->http);
    agent_destroy(x->agent);
    events_destroy(x->events);
    sessions_destroy(x->sessions);
    coord_destroy(x->coord);
    audit_close();
}

int
main(int argc, char *argv[])
{
    struct unixctl_server *unixctl;
    struct tls_files tls = {.private_key = NULL};
    bool exiting = false;
    struct xapi xapi;

    memset(&xapi, 0, sizeof xapi);
    set_program_name("weft-xapid");
    ovsthread_id_init();
    ovs_cmdl_proctitle_init(argc, argv);
    service_start(&argc, &argv);
    vlog_set_levels(vlog_module_from_name("reconnect"), VLF_ANY_DESTINATION, VLL_WARN);
    parse_options(argc, argv);
    tls.private_key = options.xapi.private_key;
    tls.certificate = options.xapi.certificate;
    tls.ca_cert = options.xapi.ca_cert;
    fatal_ignore_sigpipe();

    daemonize_start(false);
    if (unixctl_server_create(options.unixctl, &unixctl)) {
        exit(EXIT_FAILURE);
    }
    unixctl_command_register("exit", "", 0, 0, handle_exit, &exiting);
    unixctl_command_register("weft-xapid/status", "", 0, 0, handle_status, &xapi);
    open_all(&xapi);
    daemonize_complete();

    while (!exiting && !should_service_stop()) {
        run_once(&xapi, &tls, unixctl, exiting);
    }
    close_all(&xapi);
    unixctl_server_destroy(unixctl);
    service_stop();
    return EXIT_SUCCESS;
}

/* weft-flowd: collects flow records of switches and routers, keeps them and answers for them.
 *
 *   UDP, TCP, TLS, captures -> decoders -> store, lines of JSON
 *
 * One thread receives and decodes; the store has threads of its own
 * (flow_service.h), which read what this one publishes once a second. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "collect.h"
#include "flow_service.h"
#include "receive.h"
#include "replay.h"
#include "sink_forward.h"
#include "sink_print.h"

#define LIST_MAX 16
#define LOG_LINES_PER_S 10
#define FLUSH_MS 60000
#define FORWARD_MS 100
#define SINKS_MAX 4

struct list {
    const char *v[LIST_MAX];
    size_t n;
};

struct options {
    struct list listen, allow, assume, read, http, forward;
    bool print, discard;
    struct flow_service_config service;
    struct collect_limits limits;
    struct receive_options receive;
};

struct flowd {
    struct options o;
    struct tls_config *tls;
    struct flow_service *service;
    struct forward *forward;
    struct collect *collect;
    struct receive *receive;
    struct flow_sink sinks[SINKS_MAX];
    unsigned n_sinks;
    int signals;
    bool exiting;
    uint64_t ticked_ms, forwarded_ms;
};

/* --- log: to standard error, where systemd keeps it -------------------------------- */

static void
log_line(const char *line)
{
    static time_t second;
    static unsigned n, lost;
    time_t now = time(NULL);

    if (now != second) {
        if (lost) {
            fprintf(stderr, "weft-flowd: %u more lines\n", lost);
        }
        second = now;
        n = lost = 0;
    }
    if (n++ < LOG_LINES_PER_S) {
        fprintf(stderr, "weft-flowd: %s\n", line);
    } else {
        lost++;
    }
}

__attribute__((noreturn, format(printf, 1, 2))) static void
fatal(const char *format, ...)
{
    va_list args;

    fputs("weft-flowd: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

/* --- options ----------------------------------------------------------------------- */

static void
usage(void)
{
    const struct collect_limits *d = &collect_limits_default;

    printf(
        "weft-flowd: collects flow records: NetFlow v5 and v9, IPFIX, sFlow v5\n"
        "usage: weft-flowd [OPTIONS]\n"
        "       weft-flowd --read=CAPTURE [--print] [OPTIONS]\n"
        "\nFrom where (any of the protocols on any UDP port):\n"
        "  --listen=ADDRESS        udp:PORT[:IP], tcp:PORT[:IP] or tls:PORT[:IP] (the last two "
        "for\n"
        "                          IPFIX); may be repeated (default: udp:2055, udp:4739, "
        "udp:6343,\n"
        "                          tcp:4739)\n"
        "  --allow=ADDRESS[/BITS]  hear nobody else; may be repeated\n"
        "  --assume-sampling=ADDRESS[/BITS]=N\n"
        "                          one packet in N was counted by these, where v9 and IPFIX do "
        "not\n"
        "                          say; may be repeated\n"
        "  --read=FILE             exporters' datagrams out of a capture; may be repeated; ends\n"
        "                          after the last, unless there is --listen\n"
        "  --buffer-mb=N           receive buffer of each UDP socket (default: 32)\n"
        "\nTo where:\n"
        "  --store=FILE            keep them in this SQLite database\n"
        "  --keep-raw=HOURS        records as they came, for so long (default: 168)\n"
        "  --keep-mb=N             what the store may take (default: no bound)\n"
        "  --forward=ADDRESS:PORT  to another collector, as IPFIX; with \"tcp:\" or \"tls:\" in\n"
        "                          front over these; may be repeated\n"
        "  --print                 a line of JSON for each record, to standard output\n"
        "  --discard               nowhere: to measure\n"
        "\nAnswers and names (with --store):\n"
        "  --http=ADDRESS          unix:PATH or ssl:PORT[:IP]; may be repeated\n"
        "  --controller=ADDRESS    unix:PATH or https://HOST:PORT of weft-controllerd, which\n"
        "                          knows what vifs, VMs and rules are called\n"
        "\nTLS (for tls:, ssl: and https:):\n"
        "  -p, --private-key=FILE, -c, --certificate=FILE, -C, --ca-cert=FILE, --crl=FILE\n"
        "\nLimits:\n"
        "  --max-exporters=N       known at once (default: %u)\n"
        "  --max-state-mb=N        templates and names of all of them (default: %zu)\n"
        "  --max-records=N         records per second of one exporter (default: %llu; 0: any)\n"
        "  --max-connections=N     TCP and TLS, in all (default: 512)\n"
        "  --template-minutes=N    over UDP, forget templates not announced for so long\n"
        "                          (default: %u)\n"
        "\nOther options:\n"
        "  -h, --help              show this text\n"
        "\nSIGTERM ends it, what it has taken is stored; SIGHUP reads certificates anew.\n",
        d->exporters, d->total_bytes >> 20, (unsigned long long)d->records_per_s,
        d->template_ms / 60000);
}

enum {
    OPT_LISTEN = UCHAR_MAX + 1,
    OPT_ALLOW,
    OPT_ASSUME,
    OPT_READ,
    OPT_BUFFER_MB,
    OPT_STORE,
    OPT_KEEP_RAW,
    OPT_KEEP_MB,
    OPT_FORWARD,
    OPT_PRINT,
    OPT_DISCARD,
    OPT_HTTP,
    OPT_CONTROLLER,
    OPT_CRL,
    OPT_MAX_EXPORTERS,
    OPT_MAX_STATE_MB,
    OPT_MAX_RECORDS,
    OPT_MAX_CONNECTIONS,
    OPT_TEMPLATE_MINUTES,
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"allow", required_argument, NULL, OPT_ALLOW},
    {"assume-sampling", required_argument, NULL, OPT_ASSUME},
    {"read", required_argument, NULL, OPT_READ},
    {"buffer-mb", required_argument, NULL, OPT_BUFFER_MB},
    {"store", required_argument, NULL, OPT_STORE},
    {"keep-raw", required_argument, NULL, OPT_KEEP_RAW},
    {"keep-mb", required_argument, NULL, OPT_KEEP_MB},
    {"forward", required_argument, NULL, OPT_FORWARD},
    {"print", no_argument, NULL, OPT_PRINT},
    {"discard", no_argument, NULL, OPT_DISCARD},
    {"http", required_argument, NULL, OPT_HTTP},
    {"controller", required_argument, NULL, OPT_CONTROLLER},
    {"private-key", required_argument, NULL, 'p'},
    {"certificate", required_argument, NULL, 'c'},
    {"ca-cert", required_argument, NULL, 'C'},
    {"crl", required_argument, NULL, OPT_CRL},
    {"max-exporters", required_argument, NULL, OPT_MAX_EXPORTERS},
    {"max-state-mb", required_argument, NULL, OPT_MAX_STATE_MB},
    {"max-records", required_argument, NULL, OPT_MAX_RECORDS},
    {"max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS},
    {"template-minutes", required_argument, NULL, OPT_TEMPLATE_MINUTES},
    {NULL, 0, NULL, 0},
};

static void
add(struct list *l, const char *v)
{
    if (l->n == LIST_MAX) {
        fatal("%s: at most %d of its kind", v, LIST_MAX);
    }
    l->v[l->n++] = v;
}

static uint64_t
number(const char *name, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(optarg, &end, 10);
    if (errno || end == optarg || *end || *optarg == '-' || v < min || v > max) {
        fatal("--%s: %s is not a number from %llu to %llu", name, optarg, (unsigned long long)min,
              (unsigned long long)max);
    }
    return v;
}

static void
take_limit(int c, struct options *o)
{
    switch (c) {
    case OPT_BUFFER_MB:
        o->receive.buffer_bytes = number("buffer-mb", 1, 1024) << 20;
        break;
    case OPT_KEEP_RAW:
        o->service.store.raw_hours = number("keep-raw", 1, 100000);
        break;
    case OPT_KEEP_MB:
        o->service.store.max_bytes = number("keep-mb", 1, 1 << 24) << 20;
        break;
    case OPT_MAX_EXPORTERS:
        o->limits.exporters = number("max-exporters", 1, 1 << 20);
        break;
    case OPT_MAX_STATE_MB:
        o->limits.total_bytes = number("max-state-mb", 1, 1 << 16) << 20;
        break;
    case OPT_MAX_RECORDS:
        o->limits.records_per_s = number("max-records", 0, UINT32_MAX);
        break;
    case OPT_MAX_CONNECTIONS:
        o->receive.connections = number("max-connections", 1, 1 << 16);
        break;
    case OPT_TEMPLATE_MINUTES:
        o->limits.template_ms = number("template-minutes", 1, 60 * 24) * 60000;
        break;
    default: /* '?': getopt has said why */
        exit(EXIT_FAILURE);
    }
}

static void
take_option(int c, struct options *o)
{
    switch (c) {
    case 'h':
        usage();
        exit(EXIT_SUCCESS);
    case OPT_LISTEN:
        add(&o->listen, optarg);
        break;
    case OPT_ALLOW:
        add(&o->allow, optarg);
        break;
    case OPT_ASSUME:
        add(&o->assume, optarg);
        break;
    case OPT_READ:
        add(&o->read, optarg);
        break;
    case OPT_HTTP:
        add(&o->http, optarg);
        break;
    case OPT_FORWARD:
        add(&o->forward, optarg);
        break;
    case OPT_STORE:
        o->service.store.path = optarg;
        break;
    case OPT_PRINT:
        o->print = true;
        break;
    case OPT_DISCARD:
        o->discard = true;
        break;
    case OPT_CONTROLLER:
        o->service.controller = optarg;
        break;
    case 'p':
        o->service.private_key = optarg;
        break;
    case 'c':
        o->service.certificate = optarg;
        break;
    case 'C':
        o->service.ca_cert = optarg;
        break;
    case OPT_CRL:
        o->service.crl = optarg;
        break;
    default:
        take_limit(c, o);
    }
}

static void
parse_options(int argc, char *argv[], struct options *o)
{
    int c;

    *o = (struct options){
        .limits = collect_limits_default,
        .receive = {.buffer_bytes = 32 << 20,
                    .connections = 512,
                    .connections_per_host = 64,
                    .log = log_line},
        .service.store = {.raw_hours = 168, .keep_hours = {168, 31 * 24, 400 * 24}},
    };
    while ((c = getopt_long(argc, argv, "hp:c:C:", long_options, NULL)) != -1) {
        take_option(c, o);
    }
    if (optind < argc) {
        fatal("%s: no arguments are accepted; use --help for usage", argv[optind]);
    }
    if (!o->service.store.path && !o->print && !o->discard && !o->forward.n) {
        fatal("where to put records? --store=FILE, --forward=ADDRESS:PORT, --print, or --discard");
    }
    if (!o->service.store.path && (o->http.n || o->service.controller)) {
        fatal("--http and --controller go with --store");
    }
    if (!o->listen.n && !o->read.n) {
        o->listen = (struct list){.v = {"udp:2055", "udp:4739", "udp:6343", "tcp:4739"}, .n = 4};
    }
    o->service.listen = o->http.v;
    o->service.n_listen = o->http.n;
}

/* --- status, for other threads -------------------------------------------------------- */

static pthread_mutex_t status_lock = PTHREAD_MUTEX_INITIALIZER;
static char *status_text; /* under the lock */

static char *
status_copy(void *aux)
{
    char *copy;

    pthread_mutex_lock(&status_lock);
    copy = strdup(status_text ? status_text : "{}");
    pthread_mutex_unlock(&status_lock);
    return copy;
}

static json_t *
status_json(const struct flowd *d)
{
    json_t *status = collect_status(d->collect, receive_now_ms());

    json_object_set_new(status, "receive", receive_status(d->receive));
    return status;
}

static void
publish_status(const struct flowd *d)
{
    json_t *status = status_json(d);
    char *text = json_dumps(status, JSON_COMPACT), *old;

    json_decref(status);
    pthread_mutex_lock(&status_lock);
    old = status_text;
    status_text = text;
    pthread_mutex_unlock(&status_lock);
    free(old);
}

/* --- sinks ------------------------------------------------------------------------------ */

static void
all_records(void *d_, const struct flow_source *from, const struct flow_record *records, size_t n)
{
    const struct flowd *d = d_;

    for (unsigned i = 0; i < d->n_sinks; i++) {
        d->sinks[i].records(d->sinks[i].context, from, records, n);
    }
}

static void
all_interface(void *d_, const struct flow_source *from, uint32_t index, const char *name)
{
    const struct flowd *d = d_;

    for (unsigned i = 0; i < d->n_sinks; i++) {
        if (d->sinks[i].interface) {
            d->sinks[i].interface(d->sinks[i].context, from, index, name);
        }
    }
}

static void
open_sinks(struct flowd *d)
{
    char why[256];

    if (d->o.print) {
        d->sinks[d->n_sinks++] = sink_print(stdout);
    }
    if (d->o.discard) {
        d->sinks[d->n_sinks++] = sink_discard();
    }
    if (d->o.forward.n) {
        if (forward_open(d->o.forward.v, d->o.forward.n, d->o.service.private_key,
                         d->o.service.certificate, d->o.service.ca_cert, &d->forward, why,
                         sizeof why)) {
            fatal("--forward: %s", why);
        }
        d->sinks[d->n_sinks++] = forward_sink(d->forward);
    }
    if (d->o.service.store.path) {
        d->o.service.status = status_copy;
        if (flow_service_open(&d->o.service, &d->service, why, sizeof why)) {
            fatal("%s", why);
        }
        d->sinks[d->n_sinks++] = *flow_service_sink(d->service);
    }
}

/* --- running ------------------------------------------------------------------------------ */

static void
load_tls(struct flowd *d)
{
    const struct flow_service_config *s = &d->o.service;
    struct tls_config *fresh;
    char why[256];

    if (!s->private_key || !s->certificate || !s->ca_cert) {
        return;
    }
    if (tls_config_create(s->private_key, s->certificate, s->ca_cert, s->crl, &fresh, why,
                          sizeof why)) {
        if (!d->tls) {
            fatal("%s", why);
        }
        log_line(why); /* the old ones stay */
        return;
    }
    if (d->forward && forward_reload_tls(d->forward, why, sizeof why)) {
        log_line(why);
    }
    tls_config_destroy(d->tls); /* open connections hold on to it */
    d->tls = fresh;
    if (d->receive) {
        receive_set_tls(d->receive, fresh);
    }
}

static void
open_sockets(struct flowd *d)
{
    char why[256];

    for (size_t i = 0; i < d->o.allow.n; i++) {
        if (receive_allow(d->receive, d->o.allow.v[i], why, sizeof why)) {
            fatal("--allow: %s", why);
        }
    }
    for (size_t i = 0; i < d->o.assume.n; i++) {
        if (receive_assume(d->receive, d->o.assume.v[i], why, sizeof why)) {
            fatal("--assume-sampling: %s", why);
        }
    }
    for (size_t i = 0; i < d->o.listen.n; i++) {
        if (receive_listen(d->receive, d->o.listen.v[i], why, sizeof why)) {
            fatal("--listen: %s", why);
        }
    }
}

static void
open_signals(struct flowd *d)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before there are threads */
    signal(SIGPIPE, SIG_IGN);
    d->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (d->signals < 0) {
        fatal("signalfd: %s", strerror(errno));
    }
}

static void
take_signals(struct flowd *d)
{
    struct signalfd_siginfo got;

    while (read(d->signals, &got, sizeof got) == sizeof got) {
        if (got.ssi_signo == SIGHUP) {
            load_tls(d);
        } else {
            d->exiting = true;
        }
    }
}

static void
tick(struct flowd *d)
{
    uint64_t now_ms = receive_now_ms();

    if (d->forward && now_ms / FORWARD_MS != d->forwarded_ms / FORWARD_MS) {
        d->forwarded_ms = now_ms;
        forward_run(d->forward, now_ms);
    }
    if (now_ms / 1000 != d->ticked_ms / 1000) {
        d->ticked_ms = now_ms;
        receive_tick(d->receive);
        publish_status(d);
        fflush(stdout);
        if (ferror(stdout)) {
            d->exiting = true; /* whoever read the lines is gone */
        }
    }
}

static void
serve(struct flowd *d)
{
    unsigned step_ms = d->forward ? FORWARD_MS : 1000;

    while (!d->exiting) {
        struct pollfd fds[] = {{.fd = d->signals, .events = POLLIN},
                               {.fd = receive_fd(d->receive), .events = POLLIN}};
        unsigned rest_ms;

        poll(fds, 2, step_ms - receive_now_ms() % step_ms);
        if (fds[0].revents) {
            take_signals(d);
        }
        if (fds[1].revents && (rest_ms = receive_run(d->receive))) {
            poll(fds, 1, rest_ms); /* for signals only */
        }
        tick(d);
    }
}

static struct flowd *replaying; /* for the one callback that has no argument */

static bool
replay_goes_on(void)
{
    take_signals(replaying);
    publish_status(replaying);
    return !replaying->exiting;
}

static int
replay(struct flowd *d)
{
    uint64_t lost;
    int error = 0;
    char why[256];

    replaying = d;
    for (size_t i = 0; i < d->o.read.n && !d->exiting; i++) {
        struct replay_counts n = {0};

        if (replay_file(d->collect, d->o.read.v[i], replay_goes_on, &n, why, sizeof why)) {
            fprintf(stderr, "weft-flowd: %s\n", why);
            error = EXIT_FAILURE;
        }
        fprintf(stderr, "weft-flowd: %s: %llu frames, %llu messages of exporters\n", d->o.read.v[i],
                (unsigned long long)n.frames, (unsigned long long)n.messages);
    }
    if (d->forward) {
        forward_run(d->forward, receive_now_ms());
    }
    if (d->service && flow_service_flush(d->service, FLUSH_MS)) {
        fprintf(stderr, "weft-flowd: the store does not take all of it\n");
        error = EXIT_FAILURE;
    }
    if (d->service && (lost = flow_service_damaged(d->service)) > 0) {
        fprintf(stderr, "weft-flowd: %llu records are lost, as their hours' tables are damaged\n",
                (unsigned long long)lost);
        error = EXIT_FAILURE;
    }
    return error;
}

/* The last word: totals, as JSON, to standard error. */
static void
report(const struct flowd *d)
{
    json_t *status = status_json(d);
    char *text = json_dumps(json_object_get(status, "totals"), JSON_COMPACT);

    fprintf(stderr, "weft-flowd: %s\n", text ? text : "");
    free(text);
    json_decref(status);
}

int
main(int argc, char *argv[])
{
    static struct flowd d;
    struct flow_sink all = {.context = &d, .records = all_records, .interface = all_interface};
    int status = EXIT_SUCCESS;

    parse_options(argc, argv, &d.o);
    open_signals(&d);
    load_tls(&d);
    open_sinks(&d);
    d.collect = collect_create(&d.o.limits, d.n_sinks == 1 ? &d.sinks[0] : &all);
    d.o.receive.tls = d.tls;
    if (!d.collect || receive_create(d.collect, &d.o.receive, &d.receive)) {
        fatal("out of memory");
    }
    open_sockets(&d);
    publish_status(&d);
    if (d.o.read.n) {
        status = replay(&d);
    }
    if (d.o.listen.n) {
        serve(&d);
    }
    fflush(stdout);
    report(&d);
    receive_destroy(d.receive);
    collect_destroy(d.collect);
    forward_close(d.forward);
    flow_service_close(d.service);
    tls_config_destroy(d.tls);
    free(status_text);
    close(d.signals);
    return status;
}

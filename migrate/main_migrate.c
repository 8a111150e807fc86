/* weft-migrate: moves one VM; one process per migration and end.
 *
 * Threads: the engine in the main one; a second one reads orders from stdin and
 * from signals; the transport's and the driver's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver_list.h"
#include "engine.h"
#include "ovs/jansson_ns.h"
#include "ovs/quiet.h"
#include "ovs/vm_claim.h"

enum { LINE_BYTES = 1 << 20, EVENT_BYTES = 4096 };

static int signal_pipe[2];

static void
usage(FILE *f)
{
    fputs(
        "weft-migrate: moves one running VM to another host; one process at each end\n"
        "\n"
        "usage: weft-migrate                          the job, one line of JSON, comes on stdin\n"
        "       weft-migrate send|receive|recover [OPTION]...\n"
        "       weft-migrate claim FILE VM HOST EPOCH   makes a file for --claim-file\n"
        "\n"
        "The job's keys are the options with \"_\" for \"-\" (\"tls\": {..} for --tls-..):\n"
        "  --vm UUID --migration UUID --vm-name TEXT --driver cell|xen\n"
        "  --from HOST --to HOST --epoch N          the VM's row in the pool, now\n"
        "  --database REMOTES [--private-key F --certificate F --ca-cert F]\n"
        "  --claim-file FILE                        instead of a pool's database\n"
        "  --connect IP:PORT | --listen IP:PORT     source | destination\n"
        "  --connections N                          2\n"
        "  --tls-private-key F --tls-certificate F --tls-ca-cert F --tls-peer-name NAME\n"
        "    [--tls-crl F], or --plain\n"
        "  --journal FILE                           needed for recover\n"
        "  --limit-mbps N --cpu-percent N           0: no limit\n"
        "  --congestion NAME                        of TCP; else the system's, but not BBR\n"
        "  --max-blackout-ms 50 --max-rounds 30 --max-throttle 99\n"
        "  --compress auto|none|lz4|zstd --delta-cache-bytes N\n"
        "  --offline                                stop and copy, no rounds\n"
        "  --postcopy                               allowed, when asked for\n"
        "  --answer-ms 10000 --accept-ms 60000      how long to wait for the other end\n"
        "  --option KEY=VALUE                       for the driver: cell: control=SOCKET;\n"
        "                                           xen: domid=N (source), config=TEXT\n"
        "  --vif JSON                               {\"uuid\", \"port\", \"mac\", \"zones\", "
        "\"addresses\",\n"
        "                                           \"pool_key\", \"switch_dir\", \"stock\",\n"
        "                                           \"any_address\", \"trunk\",\n"
        "                                           \"children\": [{\"tag\", \"mac\", "
        "\"addresses\"}]}; repeat\n"
        "  --capture DIR                            plain only: what is sent, for inspection\n"
        "  --pause-at PHASE                         stop there until {\"cmd\":\"continue\"} "
        "(tests):\n"
        "        connect prepare precopy pause final load ready commit run handover postcopy\n"
        "\n"
        "Orders on stdin, one JSON object a line: {\"cmd\":\"cancel\"}, {\"cmd\":\"postcopy\"},\n"
        "{\"cmd\":\"limit\",\"mbps\":N}, {\"cmd\":\"continue\"}.  SIGINT or SIGTERM: cancel; once "
        "more:\n"
        "leave everything as it is, for recover.  The end of stdin is no order.\n"
        "\n"
        "Events on stdout, one JSON object a line: phase, progress, listening, waiting, stopped,\n"
        "result.  Exit status: 0 if the result is \"ok\", else 1; 2: the job is wrong.\n",
        f);
}

/* --- events --------------------------------------------------------------------------- */

/* One line, one write: whoever tails the file sees whole lines. */
static void
emit(json_t *o)
{
    char line[EVENT_BYTES];
    size_t n = o ? json_dumpb(o, line, sizeof line - 1, JSON_COMPACT) : 0;

    if (n && n < sizeof line) {
        line[n++] = '\n';
        for (size_t at = 0; at < n;) {
            ssize_t done = write(STDOUT_FILENO, line + at, n - at);

            if (done < 0 && errno != EINTR) {
                break;
            }
            at += done > 0 ? done : 0;
        }
    }
    json_decref(o);
}

static json_t *
number_or_null(uint32_t n)
{
    return n == UINT32_MAX ? json_null() : json_integer(n);
}

static void
emit_progress(const struct mig_event *ev)
{
    const struct mig_progress *p = &ev->progress;

    emit(json_pack("{s:s,s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:i}", "event", "progress", "phase",
                   mig_phase_name(ev->phase), "round", (int)p->round, "bytes_wire",
                   (json_int_t)p->bytes_wire, "bytes_guest", (json_int_t)p->bytes_guest,
                   "rate_mbps", (json_int_t)p->rate_mbps, "dirty_mbps", (json_int_t)p->dirty_mbps,
                   "pages_left", (json_int_t)p->pages_left, "eta_s", number_or_null(p->eta_s),
                   "expected_blackout_ms", number_or_null(p->expected_blackout_ms), "throttle",
                   (int)p->throttle));
}

static void
on_event(void *aux, const struct mig_event *ev)
{
    const char *phase = mig_phase_name(ev->phase);

    switch (ev->kind) {
    case MIG_EVENT_PHASE:
        emit(json_pack("{s:s,s:s}", "event", "phase", "phase", phase));
        break;
    case MIG_EVENT_PROGRESS:
        emit_progress(ev);
        break;
    case MIG_EVENT_LISTENING:
        emit(json_pack("{s:s,s:s}", "event", "listening", "address", ev->text));
        break;
    case MIG_EVENT_WAITING:
        emit(json_pack("{s:s,s:s,s:s}", "event", "waiting", "phase", phase, "for", ev->text));
        break;
    case MIG_EVENT_STOPPED:
        emit(json_pack("{s:s,s:s}", "event", "stopped", "phase", phase));
        break;
    }
}

static json_t *
vifs_json(const struct mig_job *j, const struct mig_result *r)
{
    json_t *a = json_array(), *v;

    for (size_t i = 0; i < j->n_vifs; i++) {
        v = json_pack("{s:s,s:s}", "uuid", j->vifs[i].uuid, "port", j->vifs[i].port);
        if (r->vif_blackout_us[i]) {
            json_object_set_new(v, "blackout_ms", json_real(r->vif_blackout_us[i] / 1000.0));
        }
        json_array_append_new(a, v);
    }
    return a;
}

static json_t *
phases_json(const struct mig_result *r)
{
    json_t *o = json_object();

    for (int p = 0; p < MIG_PHASES; p++) {
        if (r->phase_us[p]) {
            json_object_set_new(o, mig_phase_name(p), json_real(r->phase_us[p] / 1000.0));
        }
    }
    return o;
}

static void
emit_result(const struct mig_job *j, const struct mig_result *r)
{
    static const char *const kinds[MIG_KINDS] = {"same", "zero", "raw", "delta", "lz4", "zstd"};
    json_t *pages = json_object(), *o;

    for (int k = 0; k < MIG_KINDS; k++) {
        json_object_set_new(pages, kinds[k], json_integer(r->pages_by_kind[k]));
    }
    o = json_pack("{s:s,s:s,s:s,s:b,s:I,s:s,s:f,s:f,s:o,s:i,s:I,s:I,s:I,s:I,s:b,s:I,s:o,s:o,s:s}",
                  "event", "result", "status", mig_status_name(r->status), "why", r->why, "running",
                  (int)r->running, "epoch", (json_int_t)r->epoch, "owner", r->owner, "blackout_ms",
                  r->blackout_us / 1000.0, "total_ms", r->total_us / 1000.0, "phases_ms",
                  phases_json(r), "rounds", (int)r->rounds, "bytes_wire", (json_int_t)r->bytes_wire,
                  "bytes_guest", (json_int_t)r->bytes_guest, "pages_sent",
                  (json_int_t)r->pages_sent, "late_packets", (json_int_t)r->late_packets,
                  "postcopy", (int)r->postcopy, "postcopy_pages", (json_int_t)r->postcopy_pages,
                  "pages", pages, "vifs", vifs_json(j, r), "lost", r->lost);
    emit(o);
}

/* --- orders ------------------------------------------------------------------------------ */

static void
obey(struct mig_control *c, const char *line)
{
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL), *mbps;
    const char *cmd = json_string_value(json_object_get(o, "cmd"));

    if (!cmd) {
        fprintf(stderr, "weft-migrate: an order is {\"cmd\": ..}\n");
    } else if (!strcmp(cmd, "cancel")) {
        mig_control_cancel(c);
    } else if (!strcmp(cmd, "postcopy")) {
        mig_control_postcopy(c);
    } else if (!strcmp(cmd, "continue")) {
        mig_control_continue(c);
    } else if (!strcmp(cmd, "limit")) {
        mbps = json_object_get(o, "mbps");
        if (json_is_integer(mbps) && json_integer_value(mbps) >= 0 &&
            json_integer_value(mbps) <= 10000000) {
            mig_control_limit(c, json_integer_value(mbps));
        }
    } else {
        fprintf(stderr, "weft-migrate: there is no order \"%s\"\n", cmd);
    }
    json_decref(o);
}

static void
on_signal(int number)
{
    char c = (char)number;
    int saved = errno;

    if (write(signal_pipe[1], &c, 1) < 0) {
        /* The pipe is full of earlier ones. */
    }
    errno = saved;
}

static void
watch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK)) {
        perror("weft-migrate: pipe");
        exit(2);
    }
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Lines of stdin, without buffering in libc: the job's reader leaves the rest here. */
struct lines {
    char *text;
    size_t n;
    bool end;
};

/* The next whole line, or NULL: none yet (or no more: `end`). */
static char *
next_line(struct lines *l, char *out)
{
    char *nl = memchr(l->text, '\n', l->n);
    size_t n;

    if (!nl) {
        return NULL;
    }
    n = nl - l->text;
    memcpy(out, l->text, n);
    out[n] = '\0';
    l->n -= n + 1;
    memmove(l->text, nl + 1, l->n);
    return out;
}

static void
read_more(struct lines *l)
{
    ssize_t n = l->n < LINE_BYTES ? read(STDIN_FILENO, l->text + l->n, LINE_BYTES - l->n) : 0;

    if (n > 0) {
        l->n += n;
    } else if (!n || (errno != EINTR && errno != EAGAIN)) {
        l->end = true;
    }
}

struct listener {
    struct mig_control *control;
    struct lines *lines;
};

static void *
listen_to_orders(void *arg)
{
    struct listener *l = arg;
    char *line = malloc(LINE_BYTES + 1), byte;
    bool told = false;

    while (line) {
        struct pollfd p[] = {{.fd = signal_pipe[0], .events = POLLIN},
                             {.fd = l->lines->end ? -1 : STDIN_FILENO, .events = POLLIN}};

        while (next_line(l->lines, line)) {
            obey(l->control, line);
        }
        if (poll(p, 2, -1) < 0 && errno != EINTR) {
            break;
        }
        if (p[1].revents) {
            read_more(l->lines);
        }
        while (read(signal_pipe[0], &byte, 1) == 1) {
            if (told) {
                mig_control_quit(l->control);
            } else {
                mig_control_cancel(l->control);
            }
            told = true;
        }
    }
    free(line);
    return NULL;
}

/* --- the job ---------------------------------------------------------------------------------- */

struct database {
    struct vm_claim *claim;
    const char *vm;
};

static int
database_read(void *aux, char host[MIG_HOST], uint64_t *epoch, int timeout_ms)
{
    struct database *d = aux;

    _Static_assert((int)MIG_HOST == (int)VM_CLAIM_HOST, "hosts are as long here as there");
    return vm_claim_read(d->claim, d->vm, host, epoch, timeout_ms);
}

static int
database_swap(void *aux, const char *from, uint64_t epoch, const char *to, uint64_t epoch2,
              int timeout_ms)
{
    struct database *d = aux;

    return vm_claim_swap(d->claim, d->vm, from, epoch, to, epoch2, timeout_ms);
}

static int
run(const struct mig_job *job, struct lines *lines)
{
    static struct listener listener; /* it may outlive this call */
    struct vm_claim_tls tls = {.private_key = job->database_tls.private_key,
                               .certificate = job->database_tls.certificate,
                               .ca_cert = job->database_tls.ca_cert};
    struct claim_file file = {.path = job->claim_file, .vm = job->vm};
    struct database database = {.vm = job->vm};
    struct mig_env env = {.job = job, .driver = mig_driver_find(job->driver), .event = on_event};
    struct mig_result result;
    pthread_t thread;

    env.control = mig_control_create();
    if (!env.driver || !env.control) {
        fprintf(stderr, "weft-migrate: %s\n", env.driver ? "no memory" : "there is no such driver");
        return 2;
    }
    if (job->database) {
        if (vm_claim_open(job->database, &tls, &database.claim)) {
            fprintf(stderr, "weft-migrate: \"database\" names no server\n");
            return 2;
        }
        env.claim = (struct mig_claim){database_read, database_swap, &database};
    } else {
        env.claim = claim_file(&file);
    }
    listener = (struct listener){.control = env.control, .lines = lines};
    if (pthread_create(&thread, NULL, listen_to_orders, &listener)) {
        return 2;
    }
    mig_run(&env, &result);
    emit_result(job, &result);
    /* The listener may be in a read; it goes with the process. */
    vm_claim_close(database.claim);
    return result.status == MIG_OK ? 0 : 1;
}

static int
read_job(struct mig_job *job, struct lines *lines, char why[MIG_WHY])
{
    char *line = malloc(LINE_BYTES + 1);
    int error = EINVAL;

    snprintf(why, MIG_WHY, "no job on stdin");
    while (line && !next_line(lines, line) && !lines->end) {
        read_more(lines);
        if (memchr(lines->text, '\n', lines->n)) {
            next_line(lines, line);
            error = mig_job_parse(job, line, why);
            break;
        }
    }
    free(line);
    return error;
}

static int
read_options(struct mig_job *job, int argc, char *argv[], char why[MIG_WHY])
{
    char role[64];
    int error;

    snprintf(role, sizeof role, "{\"role\":\"%.20s\"}", argv[1]);
    error = mig_job_parse(job, role, why);
    for (int i = 2; i < argc && !error; i++) {
        const char *option = argv[i] + 2;

        if (strncmp(argv[i], "--", 2)) {
            snprintf(why, MIG_WHY, "%.200s: not an option", argv[i]);
            error = EINVAL;
        } else if (mig_job_option_is_flag(option)) {
            error = mig_job_option(job, option, NULL, why);
        } else {
            error = mig_job_option(job, option, ++i < argc ? argv[i] : NULL, why);
        }
    }
    return error;
}

static int
make_claim(int argc, char *argv[])
{
    struct claim_file f;
    uint8_t uuid[16];
    int error;

    if (argc != 6) {
        usage(stderr);
        return 2;
    }
    f = (struct claim_file){.path = argv[2], .vm = argv[3]};
    error = mig_uuid_parse(argv[3], uuid);
    if (!error) {
        error = claim_file_create(&f, argv[4], strtoull(argv[5], NULL, 10));
    }
    if (error) {
        fprintf(stderr, "weft-migrate: %s: %s\n", argv[2], strerror(error));
    }
    return error ? 2 : 0;
}

int
main(int argc, char *argv[])
{
    struct lines lines = {.text = malloc(LINE_BYTES)};
    char why[MIG_WHY] = "";
    struct mig_job job;
    int error;

    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        usage(stdout);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "claim")) {
        return make_claim(argc, argv);
    }
    if (!lines.text) {
        return 2;
    }
    watch_signals();
    ovs_quiet();
    mig_job_init(&job);
    error = argc > 1 ? read_options(&job, argc, argv, why) : read_job(&job, &lines, why);
    if (!error) {
        error = mig_job_check(&job, why);
    }
    if (error) {
        fprintf(stderr, "weft-migrate: %s\n", why);
        return 2;
    }
    return run(&job, &lines);
}

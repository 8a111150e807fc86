/* Theory of Operation
 *
 * Each connection carries one stream of the pattern (cell/pattern.h), the seed being
 * the connection's own, so that bytes of one in another show.  'due' is how much of
 * the stream the cell owes us: what we sent to the echo port, or what we asked HTTP
 * for.  It is taken, and compared, up to there; anything beyond it differs.
 *
 * A tick serves a tenth of the connections, and takes one chunk of the download: the
 * rest of it waits in the cell, which TCP holds back. */
#include "lab_traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cell/pattern.h"
#include "cli_cmd.h"
#include "cli_opt.h"
#include "lab_build.h"
#include "lab_cmd.h"
#include "lab_proc.h"

#define TICK_MS 20
#define SLOTS 10u /* a connection's turn comes each so many ticks */
#define REPORT_MS 1000
#define MESSAGE_BYTES 128u
#define CHUNK_BYTES 20480u /* of the download, each tick */
#define WINDOW_BYTES 65536
#define WAITING_MS 2000   /* said of one that owes us something for so long */
#define PATIENCE_MS 30000 /* then it counts as broken */
#define ECHO_PORT 7
#define HTTP_PORT 80
#define DOWNLOAD_SEED "5"
#define DOWNLOAD_BYTES "100000000000000" /* three years of them */

enum conn_state { CONN_TO_OPEN, CONN_OPENING, CONN_OPEN, CONN_BROKEN };

struct conn {
    enum conn_state state;
    int fd;         /* -1: none */
    bool download;  /* else it echoes */
    unsigned blank; /* of the four characters that end HTTP's header */
    uint64_t seed, at, due;
    int64_t asked_ms; /* for what is due */
    int64_t since_ms; /* that, or when it last said something */
};

struct traffic {
    struct sockaddr_in cell;
    struct conn *conns; /* the last one is the download */
    unsigned n_conns;
    struct lab_traffic_state state;
    bool json;
    uint8_t pattern[2 * CELL_PATTERN_BYTES]; /* twice, so that a chunk never wraps */
};

/* Of a line of --json. */
#define STATE_FORMAT "{s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:s}"

/* --- its lines ------------------------------------------------------------------ */

bool
lab_traffic_whole(const struct lab_traffic_state *s)
{
    return !s->why[0];
}

bool
lab_traffic_good(const struct lab_traffic_state *s)
{
    return !s->why[0] && s->opened == s->connections + 1 && !s->waiting &&
           s->echoes >= s->connections && s->bytes;
}

void
lab_traffic_text(const struct lab_traffic_state *s, char *buf, size_t size)
{
    char waiting[24] = "";

    if (!s->why[0] && s->opened < s->connections + 1) {
        snprintf(buf, size, "%u of %u connections open", s->opened, s->connections + 1);
        return;
    }
    if (s->waiting) {
        snprintf(waiting, sizeof waiting, ", %u waiting", s->waiting);
    }
    snprintf(buf, size,
             "%u connections and a download: %u broken%s, %llu MB, %s; longest echo %u ms%s%s",
             s->connections, s->broken, waiting, (unsigned long long)(s->bytes / 1000000),
             s->differ ? "BYTES DIFFER" : "no byte differs", s->longest_ms, s->why[0] ? ": " : "",
             s->why);
}

static void
report(struct traffic *t)
{
    struct lab_traffic_state *s = &t->state;
    int64_t late_ms = lab_now_ms() - WAITING_MS;
    char text[320];

    s->waiting = 0;
    for (unsigned i = 0; i < t->n_conns; i++) {
        const struct conn *c = &t->conns[i];

        s->waiting += c->state == CONN_OPEN && c->at < c->due && c->since_ms < late_ms;
    }
    if (t->json) {
        json_t *line =
            json_pack(STATE_FORMAT, "connections", (int)s->connections, "opened", (int)s->opened,
                      "broken", (int)s->broken, "differ", (int)s->differ, "waiting",
                      (int)s->waiting, "longest_ms", (int)s->longest_ms, "echoes",
                      (json_int_t)s->echoes, "bytes", (json_int_t)s->bytes, "why", s->why);

        json_dumpf(line, stdout, JSON_COMPACT);
        json_decref(line);
        putchar('\n');
    } else {
        lab_traffic_text(s, text, sizeof text);
        puts(text);
    }
    fflush(stdout);
}

static void
take_line(struct lab_traffic_state *s, const char *text)
{
    json_t *line = json_loads(text, 0, NULL);
    struct lab_traffic_state now = {0};
    json_int_t echoes, bytes;
    const char *why;

    if (!json_unpack(line, STATE_FORMAT, "connections", &now.connections, "opened", &now.opened,
                     "broken", &now.broken, "differ", &now.differ, "waiting", &now.waiting,
                     "longest_ms", &now.longest_ms, "echoes", &echoes, "bytes", &bytes, "why",
                     &why)) {
        now.echoes = (uint64_t)echoes;
        now.bytes = (uint64_t)bytes;
        *s = now;
        snprintf(s->why, sizeof s->why, "%s", why);
    }
    json_decref(line);
}

/* --- a connection ----------------------------------------------------------------- */

static void
give_up(struct traffic *t, struct conn *c, const char *why)
{
    struct lab_traffic_state *s = &t->state;

    close(c->fd);
    c->fd = -1;
    if (c->state != CONN_OPEN) {
        c->state = CONN_TO_OPEN;
        return;
    }
    c->state = CONN_BROKEN;
    if (!s->broken++) {
        char which[24] = "the download";

        if (!c->download) {
            snprintf(which, sizeof which, "connection %u", (unsigned)(c - t->conns) + 1);
        }
        snprintf(s->why, sizeof s->why, "%s, after %llu bytes: %s", which,
                 (unsigned long long)c->at, why);
    }
    report(t);
}

static void
start_opening(struct traffic *t, struct conn *c)
{
    struct sockaddr_in to = t->cell;
    int bytes = WINDOW_BYTES;

    to.sin_port = htons(c->download ? HTTP_PORT : ECHO_PORT);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return;
    }
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    c->state = CONN_OPENING;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        give_up(t, c, strerror(errno));
    }
}

static void
send_all(struct traffic *t, struct conn *c, const void *data, size_t n)
{
    ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);

    c->asked_ms = c->since_ms = lab_now_ms();
    if (sent != (ssize_t)n) {
        give_up(t, c, sent < 0 ? strerror(errno) : "it takes nothing");
    }
}

static void
on_open(struct traffic *t, struct conn *c)
{
    static const char request[] =
        "GET /data/" DOWNLOAD_BYTES "?seed=" DOWNLOAD_SEED " HTTP/1.1\r\n\r\n";
    socklen_t size = sizeof(int);
    int error = 0;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        give_up(t, c, strerror(error));
        return;
    }
    c->state = CONN_OPEN;
    t->state.opened++;
    if (c->download) {
        c->due = strtoull(DOWNLOAD_BYTES, NULL, 10);
        send_all(t, c, request, sizeof request - 1);
    }
}

static const uint8_t *
pattern_at(const struct traffic *t, const struct conn *c, uint64_t at)
{
    return t->pattern + (at + c->seed * CELL_PATTERN_STEP) % CELL_PATTERN_BYTES;
}

/* True if bytes were read; else there are none, or it broke. */
static bool
receive(struct traffic *t, struct conn *c, uint8_t *data, size_t size, size_t *n)
{
    ssize_t got = recv(c->fd, data, size, 0);

    if (got > 0) {
        *n = (size_t)got;
        c->since_ms = lab_now_ms();
    } else if (!got) {
        give_up(t, c, "it was closed");
    } else if (errno != EAGAIN) {
        give_up(t, c, strerror(errno));
    }
    return got > 0;
}

static void
take_header(struct traffic *t, struct conn *c)
{
    uint8_t byte;
    size_t n;

    while (c->blank < 4 && receive(t, c, &byte, 1, &n)) {
        c->blank = byte == "\r\n\r\n"[c->blank] ? c->blank + 1 : byte == '\r';
    }
}

static void
take(struct traffic *t, struct conn *c)
{
    uint64_t owed = c->due - c->at;
    uint8_t data[CHUNK_BYTES];
    const uint8_t *right;
    size_t n;

    if (!receive(t, c, data, owed && owed < sizeof data ? owed : owed ? sizeof data : 1, &n)) {
        return;
    }
    right = pattern_at(t, c, c->at);
    for (size_t i = 0; i < n; i++) {
        if (!owed || data[i] != right[i]) {
            t->state.differ++;
            c->at += i;
            give_up(t, c, "a byte differs");
            return;
        }
    }
    c->at += n;
    if (c->download) {
        t->state.bytes += n;
    } else if (c->at == c->due) {
        unsigned ms = (unsigned)(c->since_ms - c->asked_ms);

        t->state.longest_ms = ms > t->state.longest_ms ? ms : t->state.longest_ms;
        t->state.echoes++;
    }
}

static void
serve(struct traffic *t, struct conn *c)
{
    if (c->state == CONN_TO_OPEN) {
        start_opening(t, c);
    } else if (c->state == CONN_OPEN && c->at == c->due) {
        c->due += MESSAGE_BYTES;
        send_all(t, c, pattern_at(t, c, c->at), MESSAGE_BYTES);
    } else if (c->state == CONN_OPEN && lab_now_ms() - c->since_ms > PATIENCE_MS) {
        give_up(t, c, "nothing came for half a minute");
    }
}

/* --- all of them ------------------------------------------------------------------ */

static void
tick(struct traffic *t, unsigned n)
{
    struct conn *download = &t->conns[t->n_conns - 1];

    for (unsigned i = n % SLOTS; i < t->n_conns; i += SLOTS) {
        serve(t, &t->conns[i]);
    }
    if (download->state == CONN_OPEN && download->blank < 4) {
        take_header(t, download);
    }
    if (download->state == CONN_OPEN && download->blank == 4) {
        take(t, download);
    }
}

static void
on_events(struct traffic *t, const struct pollfd *fds)
{
    for (unsigned i = 0; i < t->n_conns; i++) {
        if (fds[i].revents && t->conns[i].state == CONN_OPENING) {
            on_open(t, &t->conns[i]);
        } else if (fds[i].revents && t->conns[i].state == CONN_OPEN) {
            take(t, &t->conns[i]);
        }
    }
}

/* Until a signal. */
static void
run(struct traffic *t, struct pollfd *fds, int signal_fd)
{
    int64_t next_ms = lab_now_ms(), report_ms = next_ms + REPORT_MS;
    unsigned ticks = 0;

    for (;;) {
        int64_t now = lab_now_ms();

        if (now >= next_ms) {
            tick(t, ticks++);
            next_ms = now + TICK_MS;
        }
        if (now >= report_ms) {
            report(t);
            report_ms = now + REPORT_MS;
        }
        for (unsigned i = 0; i < t->n_conns; i++) {
            const struct conn *c = &t->conns[i];
            bool opening = c->state == CONN_OPENING;

            /* The download is taken by the tick. */
            fds[i] = (struct pollfd){.fd = opening || !c->download ? c->fd : -1,
                                     .events = opening ? POLLOUT : POLLIN};
        }
        fds[t->n_conns] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
        now = lab_now_ms();
        if (poll(fds, t->n_conns + 1, now < next_ms ? (int)(next_ms - now) : 0) > 0) {
            if (fds[t->n_conns].revents) {
                return;
            }
            on_events(t, fds);
        }
    }
}

static int
catch_end(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static int
traffic_main(struct traffic *t)
{
    struct pollfd *fds = calloc(t->n_conns + 1, sizeof *fds);
    int signal_fd = catch_end();

    t->conns = calloc(t->n_conns, sizeof *t->conns);
    if (!fds || !t->conns || signal_fd < 0) {
        lab_cmd_failed("traffic", strerror(errno));
    } else {
        cell_pattern_fill(t->pattern);
        memcpy(t->pattern + CELL_PATTERN_BYTES, t->pattern, CELL_PATTERN_BYTES);
        for (unsigned i = 0; i < t->n_conns; i++) {
            bool download = i == t->n_conns - 1;

            t->conns[i] = (struct conn){.fd = -1, .download = download, .seed = i};
            if (download) {
                t->conns[i].seed = strtoull(DOWNLOAD_SEED, NULL, 10);
            }
        }
        run(t, fds, signal_fd);
        report(t);
    }
    free(fds);
    free(t->conns);
    return lab_traffic_good(&t->state) ? CLI_OK : CLI_FAILED;
}

int
lab_traffic_main(int argc, char **argv)
{
    static struct traffic t = {.cell.sin_family = AF_INET};
    unsigned connections = LAB_TRAFFIC_CONNECTIONS;
    const struct cli_opt opts[] = {
        {"connections", CLI_UINT, &connections, "N", "to the echo port (50)", 1, 500},
        {"json", CLI_FLAG, &t.json, NULL, "a JSON object a line"}};
    int code;

    if (!lab_cmd_options(
            "traffic",
            "[OPTION...] IP\n\n"
            "Holds connections to a VM of the lab's (weft-cell) and a download without\n"
            "an end, compares every byte, and prints a line a second until Ctrl-C.\n"
            "What breaks stays broken.  Exit code 0 if all are open and answer, and no\n"
            "byte differed.",
            "  weft lab exec g1 -- weft lab traffic 10.1.200.1\n", opts,
            sizeof opts / sizeof opts[0], &argc, &argv, &code)) {
        return code;
    }
    if (argc != 1 || inet_pton(AF_INET, argv[0], &t.cell.sin_addr) != 1) {
        return cli_usage_error("weft lab traffic", "takes one IPv4 address");
    }
    t.state.connections = connections;
    t.n_conns = connections + 1;
    return traffic_main(&t);
}

/* --- the watcher's side ------------------------------------------------------------- */

void
lab_traffic_init(struct lab_traffic *t)
{
    memset(t, 0, sizeof *t);
    t->fd = t->proc.pidfd = -1;
}

void
lab_traffic_start(struct lab_traffic *t, const struct lab *lab, const struct lab_guest *guest,
                  const char *ip)
{
    const char *argv[] = {"weft", "lab", "traffic", "--json", ip, NULL};
    char program[LAB_PATH_MAX * 2];
    int error;

    t->state.connections = LAB_TRAFFIC_CONNECTIONS;
    lab_program(&lab->config, argv[0], program, sizeof program);
    error = lab_proc_spawn_read(&t->proc, &guest->netns, program, argv, NULL, &t->fd);
    if (error) {
        snprintf(t->state.why, sizeof t->state.why, "weft lab traffic: %s", strerror(error));
    }
}

bool
lab_traffic_event(struct lab_traffic *t)
{
    bool was = t->state.why[0];
    ssize_t n = -1;
    char *end;

    while (t->fd >= 0 &&
           (n = read(t->fd, t->line + t->n_line, sizeof t->line - 1 - t->n_line)) > 0) {
        t->n_line += (size_t)n;
        t->line[t->n_line] = '\0';
        while ((end = strchr(t->line, '\n'))) {
            *end = '\0';
            take_line(&t->state, t->line);
            t->n_line -= (size_t)(end + 1 - t->line);
            memmove(t->line, end + 1, t->n_line + 1);
        }
        if (t->n_line == sizeof t->line - 1) {
            t->n_line = 0; /* no line of ours */
        }
    }
    if (!n && !t->ending && !t->state.why[0]) {
        snprintf(t->state.why, sizeof t->state.why, "weft lab traffic has ended");
    }
    return !was && t->state.why[0];
}

void
lab_traffic_stop(struct lab_traffic *t)
{
    struct lab_proc *one = &t->proc;

    if (t->fd < 0) {
        return;
    }
    lab_traffic_event(t);
    t->ending = lab_proc_alive(one);
    lab_proc_end(&one, 1, SIGTERM, 2000);
    lab_traffic_event(t);
    close(t->fd);
    t->fd = -1;
}

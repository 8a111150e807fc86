/* The cell and its migration driver: boot, dirty log under a receive flood, a move
 * into a second process, post-copy, throttle, and guests and peers that misbehave.
 *
 *   weft-cell 50 (source) ==rings== netback ==bursts== this test, as the switch
 *   weft-cell 51 (--incoming) ==rings==/        and as the engine, through driver.h
 *
 * Both cells are processes; the guest's answers come as frames. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell/abi.h"
#include "cell_host.h"
#include "cell_proto.h"
#include "check.h"
#include "driver_list.h"
#include "nb_rig.h"

#define MAC "02:00:00:00:50:01"
#define WORDS(n_pages) (((n_pages) + 63) / 64)
#define ECHO 7
#define HTTP 80

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0x50, 1}, our_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t guest_ip[4] = {10, 0, 0, 2}, our_ip[4] = {10, 0, 0, 1};

struct host {
    uint16_t domid;
    pid_t pid;
    char control[128];
    struct netback_vif *vif;
    struct mig_guest *guest;
};

static struct mig_option options[1];
static char why[MIG_WHY];

/* --- processes ---------------------------------------------------------------------- */

static const char *
weft_bin(void)
{
    const char *dir = getenv("WEFT_BIN");

    return dir ? dir : "build/bin";
}

static void
start_cell(struct host *h, uint16_t domid, const char *cmdline, const char *dirty_log,
           bool incoming)
{
    char program[256], id[8], log[128];
    const char *argv[] = {program,
                          "--image",
                          "build/share/cell.img",
                          "--dir",
                          rig_dir(),
                          "--domid",
                          id,
                          "--control",
                          h->control,
                          "--memory",
                          "64M",
                          "--vif",
                          "mac=" MAC ",ip=10.0.0.2/24",
                          "--cmdline",
                          cmdline,
                          "--run-log",
                          log,
                          "--dirty-log",
                          dirty_log,
                          incoming ? "--incoming" : NULL,
                          NULL};

    h->domid = domid;
    h->guest = NULL;
    snprintf(program, sizeof program, "%s/weft-cell", weft_bin());
    snprintf(id, sizeof id, "%u", domid);
    snprintf(h->control, sizeof h->control, "%s/cell%u.sock", rig_dir(), domid);
    snprintf(log, sizeof log, "%s/run.log", rig_dir());
    h->vif = rig_attach(domid);
    h->pid = fork();
    if (!h->pid) {
        execv(program, (char **)argv);
        _exit(127);
    }
}

static struct mig_guest_config
config_of(const struct host *h)
{
    options[0] = (struct mig_option){"control", h->control};
    return (struct mig_guest_config){.options = options, .n_options = 1, .vm = "vm"};
}

static bool
attach(struct host *h)
{
    struct mig_guest_config config = config_of(h);

    return RIG_UNTIL(!mig_driver_cell.attach(&config, &h->guest, why), RIG_PATIENCE_MS);
}

static bool
ended(const struct host *h)
{
    int status;

    return RIG_UNTIL(waitpid(h->pid, &status, WNOHANG) == h->pid, RIG_PATIENCE_MS) &&
           WIFEXITED(status) && !WEXITSTATUS(status);
}

static void
end_cell(struct host *h)
{
    if (h->guest) {
        CHECK(!mig_driver_cell.destroy(h->guest));
        mig_driver_cell.detach(h->guest);
        CHECK(ended(h));
    } else {
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
    }
    netback_detach(h->vif);
}

/* --- frames -------------------------------------------------------------------------- */

static void
put16(uint8_t *at, unsigned v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static uint16_t
ip_sum(const uint8_t *ip)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < 20; i += 2) {
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

/* A UDP datagram to the guest, without a checksum. */
static uint32_t
make_udp(uint8_t *f, unsigned port, const void *data, size_t n)
{
    memset(f, 0, 42);
    memcpy(f, guest_mac, 6);
    memcpy(f + 6, our_mac, 6);
    put16(f + 12, 0x0800);
    f[14] = 0x45;
    put16(f + 16, (unsigned)(28 + n));
    f[22] = 64;
    f[23] = 17;
    memcpy(f + 26, our_ip, 4);
    memcpy(f + 30, guest_ip, 4);
    put16(f + 24, ip_sum(f + 14));
    put16(f + 34, 4000);
    put16(f + 36, port);
    put16(f + 38, (unsigned)(8 + n));
    memcpy(f + 42, data, n);
    return (uint32_t)(42 + n);
}

static void
send_udp(struct netback_vif *v, unsigned port, const void *data, size_t n)
{
    uint8_t f[1514];
    uint32_t len = make_udp(f, port, data, n);
    struct rte_mbuf *m = rig_mbuf(f, len < 60 ? 60 : len);

    netback_tx_burst(v, &m, 1);
}

/* Answers the guest's ARP requests for us; true if it was one. */
static bool
answer_arp(struct netback_vif *v, const uint8_t *f)
{
    uint8_t r[60] = {0};
    struct rte_mbuf *m;

    if (f[12] != 8 || f[13] != 6 || f[21] != 1 || memcmp(f + 38, our_ip, 4)) {
        return false;
    }
    memcpy(r, f + 6, 6);
    memcpy(r + 6, our_mac, 6);
    memcpy(r + 12, f + 12, 9);
    r[21] = 2;
    memcpy(r + 22, our_mac, 6);
    memcpy(r + 28, our_ip, 4);
    memcpy(r + 32, f + 22, 10);
    m = rig_mbuf(r, sizeof r);
    netback_tx_burst(v, &m, 1);
    return true;
}

/* Takes what the guest sends; true if a datagram from 'port' is among it that begins
 * with 'with', and is copied to 'text' then. */
static bool
take_udp(struct netback_vif *v, unsigned port, const char *with, char *text, size_t size)
{
    struct rte_mbuf *pkts[32];
    bool found = false;
    unsigned n = rig_collect(v, pkts, NULL, 32, 0);

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *f = rte_pktmbuf_mtod(pkts[i], uint8_t *);
        uint32_t len = pkts[i]->pkt_len;

        if (len >= 42 && !answer_arp(v, f) && f[12] == 8 && f[13] == 0 && f[23] == 17 &&
            (f[34] << 8 | f[35]) == (int)port &&
            !strncmp((const char *)f + 42, with, strlen(with))) {
            size_t data = (size_t)(f[38] << 8 | f[39]) - 8;
            data = data < size - 1 ? data : size - 1;
            memcpy(text, f + 42, data);
            text[data] = '\0';
            found = true;
        }
    }
    rig_free(pkts, n);
    return found;
}

/* Sends until the guest answers (it may not be connected yet), in words that begin
 * with 'with': what it still says to others does not count. */
static bool
ask(struct netback_vif *v, unsigned port, const char *text, const char *with, char *answer,
    size_t size)
{
    for (unsigned i = 0; i < 200; i++) {
        send_udp(v, port, text, strlen(text));
        if (RIG_UNTIL(take_udp(v, port, with, answer, size), RIG_PATIENCE_MS / 200)) {
            return true;
        }
    }
    return false;
}

static bool
echoes(struct netback_vif *v)
{
    char answer[64];

    return ask(v, ECHO, "are you there", "are you there", answer, sizeof answer);
}

/* A number of the guest's statistics. */
static unsigned long long
stat_of(struct netback_vif *v, const char *request, const char *key)
{
    char json[1400], name[32];

    snprintf(name, sizeof name, "\"%s\": ", key);
    if (!ask(v, HTTP, request, "{", json, sizeof json) || !strstr(json, name)) {
        return ~0ull;
    }
    /* The dirtier's come last. */
    const char *at = json, *last = json;
    while ((at = strstr(at, name))) {
        last = at++;
    }
    return strtoull(last + strlen(name), NULL, 10);
}

/* --- the engine's part ----------------------------------------------------------------- */

/* Copies the pages of 'bitmap' and clears it; how many there were. */
static uint64_t
copy_pages(const struct mig_memory *from, const struct mig_memory *to, uint64_t *bitmap)
{
    uint64_t n = 0;

    for (uint64_t p = 0; p < from->n_pages; p++) {
        if (bitmap[p / 64] >> p % 64 & 1) {
            memcpy(to->base + p * MIG_PAGE_BYTES, from->base + p * MIG_PAGE_BYTES, MIG_PAGE_BYTES);
            n++;
        }
    }
    memset(bitmap, 0, WORDS(from->n_pages) * sizeof *bitmap);
    return n;
}

struct flood {
    struct netback_vif *vif;
    atomic_bool stop;
    atomic_ulong sent;
    pthread_t thread;
};

/* Datagrams that the guest echoes, as fast as it takes them, and more. */
static void *
flood_main(void *flood_)
{
    struct flood *f = flood_;
    char data[1000];
    unsigned n = 0;

    while (!atomic_load(&f->stop)) {
        memset(data, (int)n++, sizeof data);
        for (unsigned i = 0; i < 16; i++) {
            send_udp(f->vif, ECHO, data, sizeof data);
        }
        atomic_fetch_add(&f->sent, 16);
        rig_discard(f->vif);
        rig_yield();
    }
    return NULL;
}

static bool
dest_create(struct host *from, struct host *to)
{
    struct mig_guest_config config = config_of(to);
    uint8_t identity[MIG_IDENTITY_MAX];
    size_t n = sizeof identity;

    return !mig_driver_cell.describe(from->guest, identity, &n) &&
           RIG_UNTIL(!mig_driver_cell.create(&config, identity, n, &to->guest, why),
                     RIG_PATIENCE_MS);
}

static bool
move_state(struct host *from, struct host *to)
{
    uint8_t *state = NULL;
    size_t n;

    int error = mig_driver_cell.state_save(from->guest, &state, &n);
    error = error ? error : mig_driver_cell.state_load(to->guest, state, n, why);
    free(state);
    return !error;
}

/* All of it, with rounds under a flood.  True if both memories are the same then. */
static bool
move(struct host *from, struct host *to, unsigned rounds)
{
    const struct mig_driver *d = &mig_driver_cell;
    struct flood flood = {.vif = from->vif};
    struct mig_memory source, dest;
    bool rx_in_every_round = true;

    if (d->memory(from->guest, &source) || d->memory(to->guest, &dest)) {
        return false;
    }
    uint64_t *bitmap = calloc(WORDS(source.n_pages), sizeof *bitmap);
    CHECK(!d->dirty_start(from->guest));
    memset(bitmap, 0xff, WORDS(source.n_pages) * sizeof *bitmap);
    copy_pages(&source, &dest, bitmap);
    pthread_create(&flood.thread, NULL, flood_main, &flood);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned long before = rig_stats(from->vif).tx_packets;
        rx_in_every_round &=
            RIG_UNTIL(rig_stats(from->vif).tx_packets >= before + 50, RIG_PATIENCE_MS);
        CHECK(!d->dirty_fetch(from->guest, bitmap));
        /* Rings, receive buffers, and what lwIP did with them. */
        CHECK(copy_pages(&source, &dest, bitmap) >= 10);
    }
    CHECK(rx_in_every_round);
    CHECK(!d->pause(from->guest));
    atomic_store(&flood.stop, true);
    pthread_join(flood.thread, NULL);
    CHECK(!netback_hold(from->vif));
    CHECK(!d->dirty_fetch(from->guest, bitmap));
    copy_pages(&source, &dest, bitmap);
    bool same = !memcmp(source.base, dest.base, source.n_pages * MIG_PAGE_BYTES);
    CHECK(!d->dirty_stop(from->guest));
    free(bitmap);
    return same;
}

/* --- cases -------------------------------------------------------------------------------- */

static bool
has_dirty_log(struct host *h)
{
    int error = mig_driver_cell.dirty_start(h->guest);

    mig_driver_cell.dirty_stop(h->guest);
    return !error;
}

static bool
run_log_has(const char *first, const char *second)
{
    char path[128], text[4096];

    snprintf(path, sizeof path, "%s/run.log", rig_dir());
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) {
        fclose(f);
    }
    text[n] = '\0';
    const char *at = strstr(text, first);
    return at && strstr(at, second);
}

/* The name of a case, which must stay for as long as the case. */
static const char *
named(const char *what, const char *dirty_log)
{
    static char names[2][96];
    static unsigned n;
    char *name = names[n++ % 2];

    snprintf(name, sizeof names[0], "%s (%s)", what, dirty_log);
    return name;
}

static void
test_move(const char *dirty_log, unsigned domid)
{
    struct host from, to;
    struct mig_guest_status status;
    start_cell(&from, (uint16_t)domid, "rate=200 set=20", dirty_log, false);
    start_cell(&to, (uint16_t)(domid + 1), "", dirty_log, true);
    CASE(named("boot: it echoes and dirties", dirty_log));
    CHECK(attach(&from));
    CHECK(echoes(from.vif));
    if (!has_dirty_log(&from)) {
        printf("skip move with dirty log %s: not with this kernel\n", dirty_log);
        CASE("the cells end");
        CHECK(attach(&to));
        goto out;
    }
    CASE(named("move: memory equal after rounds under a receive flood", dirty_log));
    CHECK(dest_create(&from, &to));
    CHECK(!mig_driver_cell.status(to.guest, &status) && status.state == MIG_GUEST_MADE);
    CHECK(move(&from, &to, 4));

    CASE(named("move: the guest goes on in the other process", dirty_log));
    CHECK(mig_driver_cell.run(to.guest, 2) == EINVAL); /* has no state */
    CHECK(move_state(&from, &to));
    CHECK(!mig_driver_cell.status(from.guest, &status) && status.state == MIG_GUEST_PAUSED);
    CHECK(!mig_driver_cell.status(to.guest, &status) && status.state == MIG_GUEST_LOADED);
    CHECK(!mig_driver_cell.run(to.guest, 2) && !mig_driver_cell.run(to.guest, 2));
    CHECK(mig_driver_cell.run(to.guest, 3) == EINVAL);
    CHECK(!mig_driver_cell.status(to.guest, &status) && status.state == MIG_GUEST_RUNNING &&
          status.epoch == 2);
    CHECK(echoes(to.vif));
    CHECK(stat_of(to.vif, "/stats", "moves") == 1);

    CASE(named("move: no page of the dirtier's is lost or stale", dirty_log));
    CHECK(stat_of(to.vif, "/stats", "written") > 0);
    stat_of(to.vif, "/check", "checks");
    CHECK(RIG_UNTIL(stat_of(to.vif, "/stats", "checks") == 1, RIG_PATIENCE_MS));
    CHECK(stat_of(to.vif, "/stats", "corrupt") == 0);

    CASE(named("move: the log of runs says who ran when", dirty_log));
    CHECK(run_log_has("start 1 ", "stop 1 "));
    CHECK(run_log_has("stop 1 ", "start 2 "));
out:
    end_cell(&from);
    end_cell(&to);
}

static void
test_resume(void)
{
    struct host h;
    struct mig_guest_status status;

    CASE("abort: a paused guest is resumed where it was");
    start_cell(&h, 60, "", "auto", false);
    CHECK(attach(&h));
    CHECK(echoes(h.vif));
    CHECK(!mig_driver_cell.pause(h.guest) && !mig_driver_cell.pause(h.guest));
    CHECK(!mig_driver_cell.status(h.guest, &status) && status.state == MIG_GUEST_PAUSED);
    rig_discard(h.vif);
    send_udp(h.vif, ECHO, "x", 1);
    CHECK(!mig_driver_cell.resume(h.guest, 5));
    CHECK(!mig_driver_cell.status(h.guest, &status) && status.state == MIG_GUEST_RUNNING &&
          status.epoch == 5);
    CHECK(echoes(h.vif));
    CHECK(stat_of(h.vif, "/stats", "moves") == 0);

    CASE("idle: a guest with nothing to do costs nothing");
    struct cell_client c;
    struct cell_status before, after;
    CHECK(!cell_connect(&c, h.control));
    CHECK(!cell_status(&c, &before));
    poll(NULL, 0, 500);
    CHECK(!cell_status(&c, &after));
    CHECK(after.cpu_ns - before.cpu_ns < 50 * 1000000);

    CASE("throttle: the guest gets its share at most, and all when its client is gone");
    stat_of(h.vif, "/dirty?rate=100000&set=10", "rate_mbps");
    CHECK(!cell_ask(&c, CELL_OP_THROTTLE, 90));
    CHECK(cell_ask(&c, CELL_OP_THROTTLE, 100) == EINVAL);
    uint64_t start = rig_now_ns();
    CHECK(!cell_status(&c, &before));
    poll(NULL, 0, 500);
    CHECK(!cell_status(&c, &after));
    CHECK((after.cpu_ns - before.cpu_ns) * 4 < rig_now_ns() - start);
    cell_disconnect(&c);
    CHECK(!cell_connect(&c, h.control));
    CHECK(!cell_status(&c, &before));
    uint64_t cpu = before.cpu_ns;
    CHECK(RIG_UNTIL(!cell_status(&c, &after) && after.cpu_ns > cpu + 200 * 1000000ull,
                    RIG_PATIENCE_MS));
    cell_disconnect(&c);

    CASE("shutdown: on request the guest ends by itself");
    CHECK(!cell_connect(&c, h.control) && !cell_ask(&c, CELL_OP_SHUTDOWN, 0));
    CHECK(ended(&h));
    CHECK(cell_ask(&c, CELL_OP_RUN, 9) == EPIPE);
    CHECK(mig_driver_cell.status(h.guest, &status) == ENOENT);
    CHECK(!mig_driver_cell.destroy(h.guest));
    mig_driver_cell.detach(h.guest);
    cell_disconnect(&c);
    netback_detach(h.vif);
}

struct fetcher {
    struct host *from, *to;
    const uint64_t *missing;
    int fault_fd;
    atomic_bool stop;
    atomic_ulong faults;
    pthread_t thread;
};

/* The network: pages that the guest waits for come from the source. */
static void *
fetch_main(void *fetcher_)
{
    struct fetcher *f = fetcher_;
    struct mig_memory source;
    uint64_t pfn;

    mig_driver_cell.memory(f->from->guest, &source);
    while (!atomic_load(&f->stop)) {
        struct pollfd p = {.fd = f->fault_fd, .events = POLLIN};
        poll(&p, 1, 10);
        while (!mig_driver_cell.fault_next(f->to->guest, &pfn)) {
            mig_driver_cell.place(f->to->guest, pfn, source.base + pfn * MIG_PAGE_BYTES);
            atomic_fetch_add(&f->faults, 1);
        }
    }
    return NULL;
}

static void
test_postcopy(void)
{
    const struct mig_driver *d = &mig_driver_cell;
    struct host from, to;
    struct mig_memory source, dest;
    struct fetcher f = {.from = &from, .to = &to};
    int again;

    CASE("post-copy: the guest runs before its pages are there");
    start_cell(&from, 70, "rate=100 set=20", "auto", false);
    start_cell(&to, 71, "", "auto", true);
    CHECK(attach(&from) && echoes(from.vif) && dest_create(&from, &to));
    CHECK(stat_of(from.vif, "/stats", "written") > 0);
    CHECK(!d->pause(from.guest));
    d->memory(from.guest, &source);
    d->memory(to.guest, &dest);
    uint64_t *pinned = calloc(WORDS(source.n_pages), sizeof *pinned);
    uint64_t *missing = calloc(WORDS(source.n_pages), sizeof *missing);
    CHECK(!d->postcopy_pinned(from.guest, pinned));
    /* A stale copy was there already: it must not be seen. */
    memset(dest.base, 0x5a, source.n_pages * MIG_PAGE_BYTES);
    for (uint64_t i = 0; i < WORDS(source.n_pages); i++) {
        missing[i] = ~pinned[i];
    }
    CHECK(copy_pages(&source, &dest, pinned) >= 500);
    CHECK(move_state(&from, &to));
    CHECK(!d->postcopy_start(to.guest, missing, &f.fault_fd));
    f.missing = missing;
    pthread_create(&f.thread, NULL, fetch_main, &f);
    CHECK(!d->run(to.guest, 2));
    CHECK(echoes(to.vif));
    CHECK(atomic_load(&f.faults) > 10);

    CASE("post-copy: begun again after a cut, then to its end");
    atomic_store(&f.stop, true);
    pthread_join(f.thread, NULL);
    CHECK(!d->postcopy_start(to.guest, missing, &again));
    f.fault_fd = again;
    atomic_store(&f.stop, false);
    pthread_create(&f.thread, NULL, fetch_main, &f);
    int error = 0;
    for (uint64_t p = 0; p < source.n_pages && !error; p++) {
        if (missing[p / 64] >> p % 64 & 1) {
            error = d->place(to.guest, p, source.base + p * MIG_PAGE_BYTES);
        }
    }
    CHECK(!error);
    atomic_store(&f.stop, true);
    pthread_join(f.thread, NULL);
    CHECK(!d->postcopy_end(to.guest));
    CHECK(echoes(to.vif));
    stat_of(to.vif, "/check", "checks");
    CHECK(RIG_UNTIL(stat_of(to.vif, "/stats", "checks") == 1, RIG_PATIENCE_MS));
    CHECK(stat_of(to.vif, "/stats", "corrupt") == 0);
    free(pinned);
    free(missing);
    end_cell(&from);
    end_cell(&to);
}

static void
test_postcopy_cut(void)
{
    const struct mig_driver *d = &mig_driver_cell;
    struct host from, to;
    struct mig_memory source, dest;
    int fault_fd;

    CASE("post-copy: a guest that waits for a page can still be looked at and destroyed");
    start_cell(&from, 75, "", "auto", false);
    start_cell(&to, 76, "", "auto", true);
    CHECK(attach(&from) && echoes(from.vif) && dest_create(&from, &to));
    CHECK(!d->pause(from.guest));
    d->memory(from.guest, &source);
    d->memory(to.guest, &dest);
    uint64_t *pinned = calloc(WORDS(source.n_pages), sizeof *pinned);
    uint64_t *missing = malloc(WORDS(source.n_pages) * sizeof *missing);
    CHECK(!d->postcopy_pinned(from.guest, pinned));
    for (uint64_t i = 0; i < WORDS(source.n_pages); i++) {
        missing[i] = ~pinned[i];
    }
    copy_pages(&source, &dest, pinned);
    CHECK(move_state(&from, &to));
    CHECK(!d->postcopy_start(to.guest, missing, &fault_fd));
    CHECK(!d->run(to.guest, 2));
    struct pollfd p = {.fd = fault_fd, .events = POLLIN};
    CHECK(poll(&p, 1, RIG_PATIENCE_MS) == 1);
    struct mig_guest_status status;
    CHECK(!d->status(to.guest, &status) && status.state == MIG_GUEST_RUNNING);
    CHECK(d->postcopy_pinned(to.guest, pinned) == EINVAL);
    CHECK(rig_stats(to.vif).rx_packets == 0);
    free(pinned);
    free(missing);
    end_cell(&to);
    CHECK(!d->resume(from.guest, 3)); /* which a real engine would not do */
    CHECK(echoes(from.vif));
    end_cell(&from);
}

/* --- what does not do as it should ------------------------------------------------------------ */

/* Sends raw bytes; true if the cell cuts the connection. */
static bool
is_cut_off(const struct host *h, const void *bytes, size_t n)
{
    struct cell_client c;
    char answer[16];

    if (cell_connect(&c, h->control)) {
        return false;
    }
    send(c.fd, bytes, n, MSG_NOSIGNAL);
    bool cut = recv(c.fd, answer, sizeof answer, 0) <= 0;
    cell_disconnect(&c);
    return cut;
}

static int
set_state(struct cell_client *c, const struct cell_state *s)
{
    return cell_call(c, CELL_OP_STATE_SET, 0, s, sizeof *s, -1, NULL, NULL, NULL);
}

static void
test_hostile_peer(void)
{
    struct host from, to;
    struct cell_client c, b;
    struct cell_state good, bad;
    size_t n = sizeof good;

    CASE("hostile peer: what is no request is cut off");
    start_cell(&from, 80, "", "auto", false);
    start_cell(&to, 81, "", "auto", true);
    CHECK(attach(&from) && attach(&to));
    struct cell_req req = {
        .magic = CELL_PROTO_MAGIC, .version = CELL_PROTO_VERSION, .op = CELL_OP_STATUS, .len = 8};
    CHECK(is_cut_off(&from, "x", 1));
    CHECK(is_cut_off(&from, &req, CELL_REQ_HDR)); /* says 8 bytes, has none */
    req.len = 0;
    req.magic++;
    CHECK(is_cut_off(&from, &req, CELL_REQ_HDR));
    CHECK(echoes(from.vif));

    CASE("hostile peer: operations out of order or out of range are refused");
    CHECK(!cell_connect(&c, from.control) && !cell_connect(&b, to.control));
    CHECK(cell_ask(&c, CELL_OP_STATE_GET, 0) == EINVAL); /* runs */
    CHECK(cell_ask(&c, CELL_OP_DIRTY_FETCH, 0) == EINVAL);
    CHECK(cell_ask(&c, CELL_OP_POSTCOPY_START, 0) == EINVAL);
    CHECK(cell_ask(&c, (enum cell_op)99, 0) == ENOSYS);
    CHECK(cell_ask(&b, CELL_OP_RUN, 1) == EINVAL);
    CHECK(cell_ask(&b, CELL_OP_PAUSE, 0) == EINVAL);

    CASE("hostile peer: a state that cannot be is refused");
    CHECK(!cell_ask(&c, CELL_OP_PAUSE, 0));
    CHECK(!cell_call(&c, CELL_OP_STATE_GET, 0, NULL, 0, -1, &good, &n, NULL) && n == sizeof good);
    bad = good;
    bad.sp = CELL_BASE + good.n_pages * CELL_PAGE_BYTES - 8;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad.sp = CELL_BASE - 8;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad = good;
    bad.n_pages++;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad = good;
    bad.build_id[3] ^= 1;
    CHECK(set_state(&b, &bad) == ENOEXEC);
    bad = good;
    bad.mac[5] ^= 1;
    CHECK(set_state(&b, &bad) == EADDRNOTAVAIL);
    CHECK(set_state(&b, &good) == 0);
    CHECK(set_state(&c, &good) == EINVAL); /* one that has run */

    CASE("hostile peer: a description that does not fit is refused");
    uint8_t identity[MIG_IDENTITY_MAX];
    size_t len = sizeof identity;
    struct mig_guest_config config = config_of(&to);
    struct mig_guest *g;
    CHECK(!mig_driver_cell.describe(from.guest, identity, &len));
    CHECK(mig_driver_cell.create(&config, identity, len - 1, &g, why) == EINVAL);
    identity[len - 10] ^= 1; /* in the build-id */
    CHECK(mig_driver_cell.create(&config, identity, len, &g, why) == EINVAL);
    CHECK(strstr(why, "build-id") != NULL);
    cell_disconnect(&c);
    cell_disconnect(&b);
    end_cell(&from);
    end_cell(&to);
}

/* Headers that lie, on the image's own file. */
static void
test_hostile_image(void)
{
    static const char *const bad_path = "build/share/cell.img";
    char path[128];
    uint8_t build_id[CELL_BUILD_ID_BYTES], *memory = malloc(64u << 20);
    uint8_t image[8192], whole[sizeof image];
    uint64_t entry;
    unsigned refused = 0;

    CASE("hostile image: headers that lie are refused, or do no harm");
    snprintf(path, sizeof path, "%s/bad.img", rig_dir());
    FILE *f = fopen(bad_path, "r");
    CHECK(f && memory && fread(whole, 1, sizeof whole, f) == sizeof whole);
    CHECK(!cell_image_load(bad_path, NULL, 64u << 20, build_id, &entry));
    CHECK(cell_image_load(bad_path, NULL, 1u << 20, build_id, &entry) == EINVAL); /* no room */
    if (f) {
        fclose(f);
    }
    srand(7);
    for (unsigned i = 0; i < 500; i++) {
        memcpy(image, whole, sizeof image);
        for (unsigned n = 1 + (unsigned)rand() % 4; n; n--) {
            /* ELF header and program headers; now and then the note. */
            unsigned at = rand() % 8 ? (unsigned)rand() % 176 : 0x1000 + (unsigned)rand() % 36;
            image[at] = (uint8_t)rand();
        }
        f = fopen(path, "w");
        CHECK(f && fwrite(image, 1, sizeof image, f) == sizeof image);
        fclose(f);
        refused += cell_image_load(path, memory, 64u << 20, build_id, &entry) != 0;
    }
    CHECK(refused == 500); /* if only because the file is cut short */
    free(memory);
}

/* Sends the guest to 'entry' at its next hypercall. */
static void
lead_astray(struct host *h, uint64_t entry)
{
    struct mig_memory m;

    mig_driver_cell.memory(h->guest, &m);
    __atomic_store_n(&((struct cell_info *)m.base)->entry, entry, __ATOMIC_SEQ_CST);
    send_udp(h->vif, ECHO, "x", 1);
}

static void
test_bad_guest(void)
{
    struct host h;
    struct mig_guest_status status;
    struct mig_memory m;

    CASE("dead guest: its process says so and can be ended");
    start_cell(&h, 90, "", "auto", false);
    CHECK(attach(&h) && echoes(h.vif));
    lead_astray(&h, 8);
    CHECK(RIG_UNTIL(mig_driver_cell.status(h.guest, &status) == ESRCH, RIG_PATIENCE_MS));
    CHECK(mig_driver_cell.pause(h.guest) == EINVAL);
    end_cell(&h);

    CASE("hung guest: it is told so, and its process can be ended");
    start_cell(&h, 91, "", "auto", false);
    CHECK(attach(&h) && echoes(h.vif));
    CHECK(!mig_driver_cell.memory(h.guest, &m));
    uint8_t *page = m.base + (m.n_pages - 1) * MIG_PAGE_BYTES;
    page[0] = 0xeb; /* jmp to itself */
    page[1] = 0xfe;
    struct cell_client c;
    struct cell_status before, now;
    CHECK(!cell_connect(&c, h.control) && !cell_status(&c, &before));
    lead_astray(&h, CELL_BASE + (m.n_pages - 1) * MIG_PAGE_BYTES);
    CHECK(RIG_UNTIL(!cell_status(&c, &now) && now.cpu_ns > before.cpu_ns + 50 * 1000000ull,
                    RIG_PATIENCE_MS));
    cell_disconnect(&c);
    CHECK(mig_driver_cell.pause(h.guest) == ETIMEDOUT);
    CHECK(!mig_driver_cell.status(h.guest, &status) && status.state == MIG_GUEST_RUNNING);
    end_cell(&h);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    test_move("async", 50);
    test_move("sync", 52);
    test_resume();
    test_postcopy();
    test_postcopy_cut();
    test_hostile_peer();
    test_hostile_image();
    test_bad_guest();
    rig_end();
    return check_done();
}

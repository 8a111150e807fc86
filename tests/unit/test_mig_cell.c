/* The cell and its migration driver: boot, dirty log under a receive flood, a move
 * into a second process, post-copy and throttle.
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
#include "cell_rig.h"
#include "check.h"
#include "driver_list.h"
#include "nb_rig.h"

#define WORDS(n_pages) (((n_pages) + 63) / 64)

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
    rig_end();
    return check_done();
}

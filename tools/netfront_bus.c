/* netfront_bus: see netfront_bus.h.
 *
 * Theory of Operation
 * ===================
 *
 * Three watches: on the backend's "state" and "carrier" nodes, and on our
 * own "backend" node, which a toolstack writes when it makes the device and
 * removes with it.  A watch says only that something changed, so every event
 * leads to the same place: read what is there, and let advance() take steps
 * until nothing moves.  Events may be lost, doubled or late without harm.
 *
 *   ABSENT --device made--> WAITING --backend 2--> OFFERED --backend 4--> CONNECTED
 *                              ^                      |                      |
 *                     backend 2, a boot      backend 5, 6, gone     backend 5, 6, gone
 *                              |                      |              or we close
 *                              |                      v                      v
 *      CLOSED <--backend 6, gone-- LEAVING <--backend 5, 6, gone-- CLOSING
 *
 * Rings exist from OFFERED to the end of LEAVING.  They are given up only
 * once the backend has shown that it let go: a page that is still granted
 * must not be used for anything else.  Its state 5 does not show that, for a
 * toolstack that unplugs writes it, too; and it may wait in 5 for our 6.  A
 * deadline ends both waits.
 *
 * A backend that dies and comes back re-attaches to the rings as they are:
 * no state changes, and nothing happens here. */
#include "netfront_bus.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xenstore.h>

#include "hv/xen_abi.h"

#define MAX_TRIES 100

static int64_t
now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const char *
nf_bus_phase_name(enum nf_bus_phase phase)
{
    static const char *const names[] = {
        [NF_BUS_ABSENT] = "absent",   [NF_BUS_WAITING] = "waiting for the backend",
        [NF_BUS_OFFERED] = "offered", [NF_BUS_CONNECTED] = "connected",
        [NF_BUS_CLOSING] = "closing", [NF_BUS_LEAVING] = "leaving",
        [NF_BUS_CLOSED] = "closed",
    };
    return names[phase];
}

static void __attribute__((format(printf, 2, 3))) bus_log(struct nf_bus *b, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    b->ops->log(b->aux, text);
}

/* --- reading ------------------------------------------------------------------ */

static bool
read_in(struct nf_bus *b, const char *dir, const char *key, char *value, size_t size)
{
    char path[2 * NF_BUS_PATH_MAX];
    unsigned len;

    snprintf(path, sizeof path, "%s/%s", dir, key);
    char *raw = xs_read(b->xs, XBT_NULL, path, &len);
    if (!raw) {
        b->store_lost |= errno != ENOENT && errno != EACCES;
        return false;
    }
    snprintf(value, size, "%.*s", (int)len, raw);
    free(raw);
    return true;
}

static unsigned
read_uint(struct nf_bus *b, const char *dir, const char *key, unsigned fallback)
{
    char value[16], *end;

    if (!read_in(b, dir, key, value, sizeof value)) {
        return fallback;
    }
    unsigned long n = strtoul(value, &end, 10);
    return end != value && !*end && n <= UINT32_MAX ? (unsigned)n : fallback;
}

static bool
read_flag(struct nf_bus *b, const char *key)
{
    return read_uint(b, b->backend, key, 0) == 1;
}

bool
nf_bus_read(struct nf_bus *b, const char *key, char *value, size_t size)
{
    return read_in(b, b->dir, key, value, size);
}

static void
read_features(struct nf_bus *b, struct nf_backend_features *f)
{
    *f = (struct nf_backend_features){
        .domid = (uint16_t)read_uint(b, b->dir, "backend-id", 0),
        .rx_copy = read_flag(b, "feature-rx-copy"),
        .sg = read_flag(b, "feature-sg"),
        .gso_tcpv4 = read_flag(b, "feature-gso-tcpv4"),
        .gso_tcpv6 = read_flag(b, "feature-gso-tcpv6"),
        .csum_v4 = !read_flag(b, "feature-no-csum-offload"),
        .csum_v6 = read_flag(b, "feature-ipv6-csum-offload"),
        .split_channels = read_flag(b, "feature-split-event-channels"),
        .ctrl_ring = read_flag(b, "feature-ctrl-ring"),
        .multicast_control = read_flag(b, "feature-multicast-control"),
        .max_queues = read_uint(b, b->backend, "multi-queue-max-queues", 1),
    };
    if (!f->max_queues) {
        f->max_queues = 1;
    }
}

/* --- writing ------------------------------------------------------------------ */

struct writer {
    struct nf_bus *bus;
    xs_transaction_t t;
    int error;   /* the first one sticks */
    char **have; /* keys in the directory, for drop() */
    unsigned n_have;
};

static void __attribute__((format(printf, 3, 4)))
put(struct writer *w, const char *key, const char *format, ...)
{
    char path[2 * NF_BUS_PATH_MAX], value[32];
    va_list args;

    if (w->error) {
        return;
    }
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    snprintf(path, sizeof path, "%s/%s", w->bus->dir, key);
    if (!xs_write(w->bus->xs, w->t, path, value, (unsigned)strlen(value))) {
        w->error = errno;
    }
}

/* Most are not there, and each would be a round trip to the store. */
static void
drop(struct writer *w, const char *key)
{
    char path[2 * NF_BUS_PATH_MAX];
    unsigned i = 0;

    while (i < w->n_have && strcmp(w->have[i], key)) {
        i++;
    }
    if (i == w->n_have) {
        return;
    }
    snprintf(path, sizeof path, "%s/%s", w->bus->dir, key);
    if (!w->error && !xs_rm(w->bus->xs, w->t, path) && errno != ENOENT) {
        w->error = errno;
    }
}

static int
set_state(struct nf_bus *b, int state)
{
    struct writer w = {.bus = b, .t = XBT_NULL};
    put(&w, "state", "%d", state);
    return w.error;
}

static void
put_queue(struct writer *w, const struct nf_offer *o, unsigned q, const char *prefix)
{
    char key[48];

    snprintf(key, sizeof key, "%stx-ring-ref", prefix);
    put(w, key, "%u", o->queue[q].tx_ref);
    snprintf(key, sizeof key, "%srx-ring-ref", prefix);
    put(w, key, "%u", o->queue[q].rx_ref);
    if (o->split) {
        snprintf(key, sizeof key, "%sevent-channel-tx", prefix);
        put(w, key, "%u", o->queue[q].tx_port);
        snprintf(key, sizeof key, "%sevent-channel-rx", prefix);
        put(w, key, "%u", o->queue[q].rx_port);
    } else {
        snprintf(key, sizeof key, "%sevent-channel", prefix);
        put(w, key, "%u", o->queue[q].tx_port);
    }
}

/* One queue and several are written differently; what an earlier connection
 * wrote the other way must not remain. */
static void
put_queues(struct writer *w, const struct nf_offer *o)
{
    static const char *const top_keys[] = {
        "tx-ring-ref",      "rx-ring-ref",      "event-channel",
        "event-channel-tx", "event-channel-rx", "multi-queue-num-queues",
    };
    char prefix[24];

    for (unsigned i = 0; i < sizeof top_keys / sizeof top_keys[0]; i++) {
        drop(w, top_keys[i]);
    }
    for (unsigned q = 0; q < NF_BUS_QUEUES_MAX; q++) {
        snprintf(prefix, sizeof prefix, "queue-%u", q);
        drop(w, prefix);
    }
    if (o->n_queues == 1) {
        put_queue(w, o, 0, "");
        return;
    }
    put(w, "multi-queue-num-queues", "%u", o->n_queues);
    for (unsigned q = 0; q < o->n_queues; q++) {
        snprintf(prefix, sizeof prefix, "queue-%u/", q);
        put_queue(w, o, q, prefix);
    }
}

static void
put_offer(struct writer *w, const struct nf_offer *o)
{
    put_queues(w, o);
    drop(w, "ctrl-ring-ref");
    drop(w, "event-channel-ctrl");
    if (o->ctrl) {
        put(w, "ctrl-ring-ref", "%u", o->ctrl_ref);
        put(w, "event-channel-ctrl", "%u", o->ctrl_port);
    }
    put(w, "request-rx-copy", "1");
    put(w, "feature-rx-notify", "1");
    put(w, "feature-sg", "%d", o->sg);
    put(w, "feature-gso-tcpv4", "%d", o->gso_tcpv4);
    put(w, "feature-gso-tcpv6", "%d", o->gso_tcpv6);
    put(w, "feature-no-csum-offload", "%d", !o->csum_v4);
    put(w, "feature-ipv6-csum-offload", "%d", o->csum_v6);
    put(w, "request-multicast-control", "%d", o->request_multicast);
    put(w, "state", "%d", XenbusStateConnected);
}

static int
write_offer(struct nf_bus *b, const struct nf_offer *o)
{
    int error = EAGAIN;

    for (int i = 0; i < MAX_TRIES && error == EAGAIN; i++) {
        struct writer w = {.bus = b, .t = xs_transaction_start(b->xs)};
        if (w.t == XBT_NULL) {
            return errno;
        }
        w.have = xs_directory(b->xs, w.t, b->dir, &w.n_have);
        if (!w.have) {
            w.error = errno;
            w.n_have = 0;
        }
        put_offer(&w, o);
        free(w.have);
        error = w.error;
        if (!xs_transaction_end(b->xs, w.t, error != 0) && !error) {
            error = errno;
        }
    }
    return error;
}

/* --- state machine -------------------------------------------------------------- */

static bool
backend_closes(int state)
{
    return state == XenbusStateUnknown || state == XenbusStateClosing || state == XenbusStateClosed;
}

static bool
backend_let_go(int state)
{
    return state <= XenbusStateInitWait || state == XenbusStateClosed;
}

static void
release(struct nf_bus *b)
{
    if (b->has_rings) {
        b->has_rings = false;
        b->ops->release(b->aux);
    }
}

static void
start_closing(struct nf_bus *b)
{
    if (b->phase == NF_BUS_CONNECTED) {
        b->ops->quiesce(b->aux);
    }
    set_state(b, XenbusStateClosing);
    b->phase = NF_BUS_CLOSING;
    b->close_by_ms = now_ms() + NF_BUS_CLOSE_MS;
}

/* 'b' has no rings, or the backend no use for them. */
static void
finish_closing(struct nf_bus *b)
{
    release(b);
    set_state(b, XenbusStateClosed);
    b->phase = NF_BUS_CLOSED;
}

static void
close_further(struct nf_bus *b)
{
    bool late = now_ms() >= b->close_by_ms;

    if (b->phase == NF_BUS_CLOSING && (backend_closes(b->backend_state) || late)) {
        set_state(b, XenbusStateClosed);
        b->phase = NF_BUS_LEAVING;
    } else if (b->phase == NF_BUS_LEAVING && backend_let_go(b->backend_state)) {
        release(b);
        b->phase = NF_BUS_CLOSED;
    } else if (b->phase == NF_BUS_LEAVING && late) {
        bus_log(b, "the backend (state %d) did not close within %d ms; giving up on it",
                b->backend_state, NF_BUS_CLOSE_MS);
        release(b);
        b->phase = NF_BUS_CLOSED;
    }
}

static void
make_offer(struct nf_bus *b)
{
    struct nf_offer offer = {0};

    b->has_features = false;
    int error = b->ops->offer(b->aux, &b->features, &offer);
    if (error) {
        bus_log(b, "cannot offer rings: %s", strerror(error));
        b->want_closed = true;
        finish_closing(b);
        return;
    }
    b->has_rings = true;
    error = write_offer(b, &offer);
    if (error) {
        bus_log(b, "cannot write the rings to %s: %s", b->dir, strerror(error));
        b->want_closed = true;
        start_closing(b);
        return;
    }
    b->phase = NF_BUS_OFFERED;
}

static bool
read_carrier(struct nf_bus *b)
{
    return read_uint(b, b->backend, "carrier", 1) != 0;
}

/* What the closed device waits for: a boot of ours, a backend that is ready
 * for a new connection, or a toolstack that made the device anew. */
static void
leave_closed(struct nf_bus *b)
{
    bool ready = b->backend_state == XenbusStateInitWait;
    bool anew = read_uint(b, b->dir, "state", XenbusStateClosed) == XenbusStateInitialising;
    bool boot = b->want_restart && b->backend_state == XenbusStateClosed;

    if (b->want_closed || !(ready || anew || boot)) {
        return;
    }
    b->want_restart = false;
    set_state(b, XenbusStateInitialising);
    b->phase = NF_BUS_WAITING;
}

static void
step(struct nf_bus *b)
{
    switch (b->phase) {
    case NF_BUS_ABSENT:
        if (b->backend[0] && !b->want_closed) {
            set_state(b, XenbusStateInitialising);
            b->phase = NF_BUS_WAITING;
        }
        break;
    case NF_BUS_WAITING:
        b->has_features &= b->backend_state == XenbusStateInitWait;
        if (b->backend_state == XenbusStateInitWait && !b->has_features) {
            read_features(b, &b->features);
            b->has_features = true;
        }
        if (b->backend_state == XenbusStateInitWait && !b->held) {
            make_offer(b);
        } else if (b->backend_state == XenbusStateInitialised ||
                   b->backend_state == XenbusStateConnected) {
            /* It still believes in a guest that was here before us. */
            b->want_restart = true;
            start_closing(b);
        }
        break;
    case NF_BUS_OFFERED:
        if (b->backend_state == XenbusStateConnected) {
            b->phase = NF_BUS_CONNECTED;
            b->ops->connected(b->aux);
            b->ops->carrier(b->aux, read_carrier(b));
        } else if (backend_closes(b->backend_state)) {
            start_closing(b);
        }
        break;
    case NF_BUS_CONNECTED:
        if (backend_closes(b->backend_state)) {
            b->ops->carrier(b->aux, false);
            start_closing(b);
        }
        break;
    case NF_BUS_CLOSING:
    case NF_BUS_LEAVING:
        close_further(b);
        break;
    case NF_BUS_CLOSED:
        leave_closed(b);
        break;
    }
}

static void
advance(struct nf_bus *b)
{
    enum nf_bus_phase before;

    do {
        before = b->phase;
        step(b);
    } while (b->phase != before);
}

/* --- watches -------------------------------------------------------------------- */

static void
watch_backend(struct nf_bus *b, bool on)
{
    static const char *const keys[] = {"state", "carrier"};
    char path[2 * NF_BUS_PATH_MAX];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", b->backend, keys[i]);
        if (on) {
            xs_watch(b->xs, path, keys[i]);
        } else {
            xs_unwatch(b->xs, path, keys[i]);
        }
    }
}

/* A toolstack removed the device and made it again before we looked: our
 * state is 1, though we never wrote that in this phase. */
static bool
was_remade(struct nf_bus *b)
{
    return (b->phase == NF_BUS_OFFERED || b->phase == NF_BUS_CONNECTED) &&
           read_uint(b, b->dir, "state", XenbusStateUnknown) == XenbusStateInitialising;
}

/* The device came, went, or moved to another backend. */
static void
refresh_device(struct nf_bus *b)
{
    char backend[NF_BUS_PATH_MAX] = "";

    read_in(b, b->dir, "backend", backend, sizeof backend);
    if (!strcmp(backend, b->backend) && !was_remade(b)) {
        return;
    }
    if (b->backend[0]) {
        watch_backend(b, false);
        if (b->phase == NF_BUS_CONNECTED) {
            b->ops->carrier(b->aux, false);
            b->ops->quiesce(b->aux);
        }
        release(b);
        b->phase = NF_BUS_ABSENT;
        bus_log(b, "the device was removed from the store");
    }
    snprintf(b->backend, sizeof b->backend, "%s", backend);
    if (b->backend[0]) {
        watch_backend(b, true);
    }
}

static void
refresh(struct nf_bus *b, bool carrier_changed)
{
    refresh_device(b);
    b->backend_state = b->backend[0] ? (int)read_uint(b, b->backend, "state", XenbusStateUnknown)
                                     : XenbusStateUnknown;
    if (carrier_changed && b->phase == NF_BUS_CONNECTED) {
        b->ops->carrier(b->aux, read_carrier(b));
    }
    advance(b);
}

int
nf_bus_init(struct nf_bus *b, struct xs_handle *xs, uint16_t domid, uint32_t handle,
            const struct nf_bus_ops *ops, void *aux)
{
    char path[2 * NF_BUS_PATH_MAX];

    memset(b, 0, sizeof *b);
    b->xs = xs;
    b->ops = ops;
    b->aux = aux;
    snprintf(b->dir, sizeof b->dir, "/local/domain/%u/device/vif/%u", domid, handle);
    snprintf(path, sizeof path, "%s/backend", b->dir);
    return xs_watch(xs, path, "backend") ? 0 : errno;
}

int
nf_bus_fd(const struct nf_bus *b)
{
    return xs_fileno(b->xs);
}

int
nf_bus_process(struct nf_bus *b)
{
    bool carrier_changed = false;
    char **event;

    while ((event = xs_check_watch(b->xs)) != NULL) {
        carrier_changed |= !strcmp(event[XS_WATCH_TOKEN], "carrier");
        free(event);
    }
    b->store_lost |= errno != EAGAIN;
    if (!b->store_lost) {
        refresh(b, carrier_changed);
    }
    return b->store_lost ? EPIPE : 0;
}

int
nf_bus_timeout_ms(const struct nf_bus *b)
{
    if (b->phase != NF_BUS_CLOSING && b->phase != NF_BUS_LEAVING) {
        return -1;
    }
    int64_t left = b->close_by_ms - now_ms();
    return left > 0 ? (int)left : 0;
}

void
nf_bus_hold(struct nf_bus *b, bool held)
{
    b->held = held;
    if (!held) {
        advance(b);
    }
}

void
nf_bus_close(struct nf_bus *b)
{
    b->want_closed = true;
    switch (b->phase) {
    case NF_BUS_OFFERED:
    case NF_BUS_CONNECTED:
        start_closing(b);
        break;
    case NF_BUS_WAITING:
        finish_closing(b);
        break;
    case NF_BUS_ABSENT:
    case NF_BUS_CLOSING:
    case NF_BUS_LEAVING:
    case NF_BUS_CLOSED:
        break;
    }
    advance(b);
}

void
nf_bus_restart(struct nf_bus *b)
{
    b->want_restart = true;
    if (b->phase == NF_BUS_OFFERED || b->phase == NF_BUS_CONNECTED) {
        start_closing(b);
    }
    advance(b);
}

bool
nf_bus_is_down(const struct nf_bus *b)
{
    return b->phase == NF_BUS_ABSENT ||
           (b->phase == NF_BUS_CLOSED &&
            (b->backend_state == XenbusStateUnknown || b->backend_state == XenbusStateClosed));
}

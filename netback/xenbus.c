/* xenbus: the thread that keeps every vif's connection in step with the store.
 *
 * Theory of operation
 * -------------------
 * The toolstack makes backend/vif/DOMID/HANDLE and the frontend's directory;
 * both ends then show their progress in a "state" node each (io/xenbus.h):
 *
 *     backend                          frontend
 *     1 Initialising                   1 Initialising
 *     2 InitWait, features written
 *                                      4 Connected (or 3), rings written
 *     4 Connected, rings mapped
 *     5/6 on the frontend's 5/6        5 Closing, 6 Closed
 *
 * One watch covers the backend directories, one per vif the frontend's nodes.
 * A watch only marks a vif dirty; run_vif() then reads what is there and
 * moves one step.  It keeps no memory of what it saw before, so events may
 * be merged, repeated or late.
 *
 * A vif connects only while the switch has it attached and, if the toolstack
 * runs a hotplug script, once that reported "connected" (libxl must see state
 * 2 before it).  A backend that finds itself in state 4 without rings mapped
 * is the successor of one that died: it maps the rings again and the guest
 * sees nothing.
 *
 * A guest that flips its state or rewrites its nodes spends its own credit: on
 * its account a vif is looked at RUN_BURST times at once and then every
 * RUN_PERIOD_NS.  What the toolstack and the switch do is never put off. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>

#include <xenstore.h>

#include "xenbus_priv.h"

#define RUN_BURST 20u
#define RUN_PERIOD_NS 100000000ull
#define WATCHES_PER_TURN 1024

struct xenbus_call {
    struct xenbus_call *next;
    int (*fn)(struct netback *, void *aux);
    void *aux;
    int result;
    sem_t done;
};

/* --- calls from other threads ---------------------------------------------- */

void
xenbus_kick(struct netback *nb)
{
    eventfd_write(nb->cmd_fd, 1);
}

int
xenbus_call(struct netback *nb, int (*fn)(struct netback *, void *aux), void *aux)
{
    struct xenbus_call c = {.fn = fn, .aux = aux};

    sem_init(&c.done, 0, 0);
    pthread_mutex_lock(&nb->lock);
    c.next = nb->calls;
    /* cppcheck-suppress autoVariables ; we wait below until it is served */
    nb->calls = &c;
    pthread_mutex_unlock(&nb->lock);
    xenbus_kick(nb);
    while (sem_wait(&c.done)) {
    }
    sem_destroy(&c.done);
    return c.result;
}

static void
serve_calls(struct netback *nb)
{
    pthread_mutex_lock(&nb->lock);
    struct xenbus_call *c = nb->calls, *fifo = NULL;
    nb->calls = NULL;
    pthread_mutex_unlock(&nb->lock);

    while (c) {
        struct xenbus_call *next = c->next;
        c->next = fifo;
        fifo = c;
        c = next;
    }
    while (fifo) {
        struct xenbus_call *next = fifo->next;
        fifo->result = fifo->fn(nb, fifo->aux);
        sem_post(&fifo->done);
        fifo = next;
    }
}

/* --- connecting ------------------------------------------------------------ */

/* Writes the carrier node if it says something else. */
static void
show_carrier(struct netback_vif *v)
{
    bool up = v->n_open && atomic_load(&v->admin_up) && !atomic_load(&v->n_stalled);
    const char *pairs[][2] = {{"carrier", up ? "1" : "0"}};
    uint64_t shown;
    char dir[96];

    xb_backend_dir(v, dir, sizeof dir);
    if (xb_number(v->nb, dir, "carrier", 1, &shown) || shown != up) {
        xb_write_backend(v, pairs, 1);
    }
}

static void
connect_vif(struct netback_vif *v, bool adopt)
{
    struct connection c;
    char why[256];

    if (!xb_read_connection(v, &c, why, sizeof why) || vif_connect(v, &c, adopt, why, sizeof why)) {
        vif_log(v, LOG_ERR, "not connected: %s", why);
        xb_set_state(v, XenbusStateClosing);
        return;
    }
    show_carrier(v);
    xb_set_state(v, XenbusStateConnected);
    vif_log(v, LOG_INFO, "%s with %u queue%s", adopt ? "adopted" : "connected", c.n_queues,
            c.n_queues > 1 ? "s" : "");
}

static void
offer_features(struct netback_vif *v)
{
    char queues[12];
    const char *pairs[][2] = {
        {"feature-sg", "1"},
        {"feature-gso-tcpv4", "1"},
        {"feature-gso-tcpv6", "1"},
        {"feature-ipv6-csum-offload", "1"},
        {"feature-rx-copy", "1"},
        {"feature-rx-flip", "0"},
        {"feature-multicast-control", "1"},
        {"feature-dynamic-multicast-control", "1"},
        {"feature-split-event-channels", "1"},
        {"feature-ctrl-ring", "1"},
        {"multi-queue-max-queues", queues},
        {"state", "2"},
    };

    snprintf(queues, sizeof queues, "%u", v->nb->config.max_queues);
    if (xb_write_backend(v, pairs, sizeof pairs / sizeof pairs[0])) {
        v->backend_state = XenbusStateInitWait;
    }
}

/* --- the state machine --------------------------------------------------------------- */

static void
watch_frontend(struct netback_vif *v, const char *dir)
{
    struct netback *nb = v->nb;
    char want[48], token[32], path[XENSTORE_ABS_PATH_MAX + 1];

    if (v->watched) {
        return;
    }
    free(v->frontend);
    v->frontend = xb_read(nb, dir, "frontend");
    /* The path is the toolstack's word; still, only this domain's own will do. */
    snprintf(want, sizeof want, "/local/domain/%u/", v->domid);
    if (!v->frontend || strncmp(v->frontend, want, strlen(want)) ||
        strlen(v->frontend) > XENSTORE_ABS_PATH_MAX / 2) {
        free(v->frontend);
        v->frontend = NULL;
        return;
    }
    snprintf(token, sizeof token, "%u/%u", v->domid, v->handle);
    snprintf(path, sizeof path, "%s/state", v->frontend);
    v->watched = xs_watch(nb->xs, path, token);
    snprintf(path, sizeof path, "%s/request-multicast-control", v->frontend);
    xs_watch(nb->xs, path, token);
}

static void
unwatch_frontend(struct netback_vif *v)
{
    char token[32], path[XENSTORE_ABS_PATH_MAX + 1];

    if (v->watched) {
        snprintf(token, sizeof token, "%u/%u", v->domid, v->handle);
        snprintf(path, sizeof path, "%s/state", v->frontend);
        xs_unwatch(v->nb->xs, path, token);
        snprintf(path, sizeof path, "%s/request-multicast-control", v->frontend);
        xs_unwatch(v->nb->xs, path, token);
    }
    v->watched = false;
    free(v->frontend);
    v->frontend = NULL;
}

/* What may change while connected. */
static void
refresh_connected(struct netback_vif *v)
{
    uint64_t bytes, usecs;

    vif_sample_mcast(v, xb_flag(v->nb, v->frontend, "request-multicast-control"));
    xb_read_rate(v, &bytes, &usecs);
    /* Setting it anew would give the guest new credit. */
    if (bytes != v->rate_bytes || usecs != v->rate_usecs) {
        for (unsigned i = 0; i < v->n_open; i++) {
            queue_set_rate(v->queues[i], bytes, usecs);
        }
        v->rate_bytes = bytes;
        v->rate_usecs = usecs;
    }
    show_carrier(v);
}

static void
switch_off(struct netback_vif *v, int state)
{
    if (v->n_open) {
        vif_disconnect(v);
        vif_log(v, LOG_INFO, "disconnected");
    }
    xb_set_state(v, state);
}

static bool
front_is_up(int front)
{
    return front == XenbusStateInitialised || front == XenbusStateConnected;
}

static void
run_present(struct netback_vif *v, const char *dir)
{
    int front = xb_state(v->nb, v->frontend);
    bool online = xb_flag(v->nb, dir, "online");

    if (atomic_exchange(&v->broken, false)) {
        switch_off(v, XenbusStateClosing);
        return;
    }
    if (v->n_open && v->backend_state != XenbusStateConnected &&
        v->backend_state != XenbusStateClosing) {
        /* The directory was made anew before we saw the old one go. */
        vif_disconnect(v);
    }
    switch (v->backend_state) {
    case XenbusStateUnknown:
    case XenbusStateInitialising:
        offer_features(v);
        break;
    case XenbusStateInitWait:
    case XenbusStateInitialised:
        if (front_is_up(front) && v->attached && xb_hotplug_done(v, dir)) {
            connect_vif(v, false);
        } else if (front == XenbusStateClosing || front == XenbusStateClosed) {
            /* A driver that ends before it connected waits for this. */
            switch_off(v, front);
        }
        break;
    case XenbusStateConnected:
        if (front_is_up(front)) {
            if (v->n_open) {
                refresh_connected(v);
            } else if (v->attached) {
                connect_vif(v, true);
            }
        } else if (front == XenbusStateInitialising || front == XenbusStateInitWait) {
            /* A guest that came back without closing first. */
            switch_off(v, XenbusStateClosed);
            v->dirty = true;
        } else {
            switch_off(v, front == XenbusStateClosing ? XenbusStateClosing : XenbusStateClosed);
        }
        break;
    case XenbusStateClosing:
        /* A frontend in Closing must find us there, not yet in Closed: Linux
         * waits for exactly that when it starts in a crashed kernel's place. */
        if (v->n_open || !online || (!front_is_up(front) && front != XenbusStateClosing)) {
            switch_off(v, XenbusStateClosed);
        }
        break;
    case XenbusStateClosed:
        if (online && (front == XenbusStateInitialising || front == XenbusStateInitWait)) {
            offer_features(v);
        }
        break;
    default:
        break;
    }
}

/* What was in the journal died with the vif.  An attached one keeps its file
 * for the next. */
static void
forget_journal(struct netback_vif *v)
{
    static const struct journal_connection none;

    if (v->attached) {
        journal_reset(v->journal, &none);
    } else {
        journal_remove(v->nb->config.journal_dir, v->domid, v->handle);
    }
}

/* The store has it no more, or not for us. */
static void
leave_vif(struct netback_vif *v, const char *why)
{
    if (v->present || v->n_open) {
        vif_disconnect(v);
        xb_publish(v, false, NULL);
        vif_log(v, LOG_INFO, "%s", why);
        forget_journal(v);
        v->run_credit = RUN_BURST;
    }
}

static void
run_vif(struct netback_vif *v)
{
    char dir[96];

    xb_backend_dir(v, dir, sizeof dir);
    v->backend_state = xb_state(v->nb, dir);
    watch_frontend(v, dir);
    if (!v->frontend) {
        v->foreign = false;
        leave_vif(v, "removed");
        return;
    }
    char *still_there = xb_read(v->nb, dir, "frontend");
    if (!still_there) {
        unwatch_frontend(v);
        v->dirty = true;
        return;
    }
    free(still_there);
    if (!xb_is_ours(v, dir)) {
        leave_vif(v, "another backend has it");
        if (!v->foreign) {
            vif_log(v, LOG_INFO, "left to the kernel's xen-netback, which is loaded");
        }
        v->foreign = true;
        return;
    }
    v->foreign = false;
    xb_read_info(v, dir);
    run_present(v, dir);
}

/* True if the guest may have the vif looked at now. */
static bool
take_run_credit(struct netback_vif *v, uint64_t now)
{
    uint64_t earned = (now - v->run_credit_at_ns) / RUN_PERIOD_NS;

    if (earned) {
        v->run_credit = earned > RUN_BURST - v->run_credit ? RUN_BURST : v->run_credit + earned;
        v->run_credit_at_ns = now;
    }
    if (!v->run_credit) {
        return false;
    }
    v->run_credit--;
    return true;
}

/* --- the list of vifs ------------------------------------------------------------------ */

static struct netback_vif *
find_vif(struct netback *nb, uint16_t domid, uint32_t handle)
{
    struct netback_vif *v = nb->vifs;

    while (v && (v->domid != domid || v->handle != handle)) {
        v = v->next;
    }
    return v;
}

static struct netback_vif *
find_or_add_vif(struct netback *nb, uint16_t domid, uint32_t handle)
{
    struct netback_vif *v = find_vif(nb, domid, handle);

    if (v) {
        return v;
    }
    if (posix_memalign((void **)&v, 64, sizeof *v)) {
        return NULL;
    }
    memset(v, 0, sizeof *v);
    v->nb = nb;
    v->domid = domid;
    v->handle = handle;
    v->run_credit = RUN_BURST;
    v->run_credit_at_ns = nb_now(nb);
    v->mtu = 1500;
    v->admin_up = true;
    vif_keep_init(v);
    pthread_mutex_lock(&nb->lock);
    v->next = nb->vifs;
    nb->vifs = v;
    pthread_mutex_unlock(&nb->lock);
    return v;
}

static void
free_vif(struct netback_vif *v)
{
    unwatch_frontend(v);
    vif_keep_done(v);
    free(v);
}

/* Forgets vifs that neither the store nor the switch knows. */
static void
sweep_vifs(struct netback *nb)
{
    for (struct netback_vif **p = &nb->vifs; *p;) {
        struct netback_vif *v = *p;

        if (v->present || v->attached || v->foreign || v->dirty || v->front_dirty) {
            p = &v->next;
            continue;
        }
        pthread_mutex_lock(&nb->lock);
        *p = v->next;
        pthread_mutex_unlock(&nb->lock);
        free_vif(v);
    }
}

static int
nothing(struct netback *nb, void *aux)
{
    return 0;
}

void
xenbus_wait_started(struct netback *nb)
{
    xenbus_call(nb, nothing, NULL);
}

struct attach {
    uint16_t domid;
    uint32_t handle;
    struct netback_vif *vif;
};

static int
attach(struct netback *nb, void *attach_)
{
    struct attach *a = attach_;
    struct netback_vif *v = find_or_add_vif(nb, a->domid, a->handle);

    if (!v) {
        return ENOMEM;
    }
    int error = vif_attach(v);
    if (!error) {
        a->vif = v;
    }
    v->dirty = true;
    return error;
}

int
netback_attach(struct netback *nb, uint16_t domid, uint32_t handle, struct netback_vif **vif)
{
    struct attach a = {domid, handle, NULL};
    int error = xenbus_call(nb, attach, &a);

    *vif = a.vif;
    return error;
}

static int
detach(struct netback *nb, void *v_)
{
    struct netback_vif *v = v_;

    bool connected = v->n_open;
    vif_detach(v);
    if (v->present && connected) {
        show_carrier(v);
    }
    v->dirty = true;
    return 0;
}

void
netback_detach(struct netback_vif *v)
{
    if (v) {
        xenbus_call(v->nb, detach, v);
    }
}

int
xenbus_close_all(struct netback *nb, void *aux)
{
    for (struct netback_vif *v = nb->vifs; v; v = v->next) {
        char dir[96];

        if (v->n_open) {
            xb_backend_dir(v, dir, sizeof dir);
            v->backend_state = xb_state(nb, dir);
            switch_off(v, XenbusStateClosing);
            switch_off(v, XenbusStateClosed);
        }
    }
    return 0;
}

/* --- the thread ------------------------------------------------------------------------- */

/* Nobody but us writes these, so they are no news. */
static bool
is_our_key(const char *path)
{
    const char *key = strrchr(path, '/') + 1;

    return !strncmp(key, "feature-", 8) || !strcmp(key, "carrier") ||
           !strcmp(key, "multi-queue-max-queues");
}

/* Those of domain 'domid', or all with -1. */
static void
mark_all_dirty(struct netback *nb, int domid)
{
    for (struct netback_vif *v = nb->vifs; v; v = v->next) {
        v->dirty |= domid < 0 || v->domid == domid;
    }
}

/* "BACKEND_ROOT/D/H..." or a frontend watch's token "D/H". */
static void
mark_dirty(struct netback *nb, const char *path, const char *token)
{
    const char *where = token;
    unsigned domid, handle;

    if (!strcmp(token, "backend")) {
        if (strncmp(path, BACKEND_ROOT, strlen(BACKEND_ROOT)) || is_our_key(path)) {
            return;
        }
        where = path + strlen(BACKEND_ROOT);
        where += *where == '/';
    }
    int n = sscanf(where, "%u/%u", &domid, &handle);
    if (n < 2) {
        /* A directory of many vifs came or went. */
        mark_all_dirty(nb, n == 1 ? (int)domid : -1);
        return;
    }
    if (domid > UINT16_MAX) {
        return;
    }
    /* Only the backend's directory brings a vif into being. */
    struct netback_vif *v =
        where == token ? find_vif(nb, domid, handle) : find_or_add_vif(nb, domid, handle);
    if (v && where == token) {
        v->front_dirty = true;
    } else if (v) {
        v->dirty = true;
    }
}

static void
read_watches(struct netback *nb)
{
    char **w;

    for (int i = 0; i < WATCHES_PER_TURN && (w = xs_check_watch(nb->xs)); i++) {
        mark_dirty(nb, w[XS_WATCH_PATH], w[XS_WATCH_TOKEN]);
        free(w);
    }
}

/* Vifs that were there before us. */
static void
adopt_existing(struct netback *nb)
{
    unsigned n_doms = 0, n_vifs;
    char **doms = xs_directory(nb->xs, XBT_NULL, BACKEND_ROOT, &n_doms);

    for (unsigned d = 0; doms && d < n_doms; d++) {
        char path[128];

        snprintf(path, sizeof path, BACKEND_ROOT "/%s", doms[d]);
        char **vifs = xs_directory(nb->xs, XBT_NULL, path, &n_vifs);
        for (unsigned i = 0; vifs && i < n_vifs; i++) {
            snprintf(path, sizeof path, BACKEND_ROOT "/%s/%s", doms[d], vifs[i]);
            mark_dirty(nb, path, "backend");
        }
        free(vifs);
    }
    free(doms);
}

/* Looks at every dirty vif.  Returns how long until one that had to wait may
 * be looked at, ms, or -1. */
static int
run_dirty(struct netback *nb)
{
    uint64_t now = nb_now(nb);
    int wait = -1;

    for (struct netback_vif *v = nb->vifs; v; v = v->next) {
        v->dirty |= atomic_exchange(&v->poked, false);
        if (!v->dirty && !v->front_dirty) {
            continue;
        }
        if (!v->dirty && !take_run_credit(v, now)) {
            wait = wait ? (int)(RUN_PERIOD_NS / 1000000) : 0;
            continue;
        }
        v->dirty = v->front_dirty = false;
        run_vif(v);
        if (v->dirty) {
            wait = 0;
        }
    }
    sweep_vifs(nb);
    return wait;
}

/* First all queue threads: one may be the switch, and deliver to any vif. */
static void
end_all(struct netback *nb)
{
    for (struct netback_vif *v = nb->vifs; v; v = v->next) {
        vif_disconnect(v);
    }
    while (nb->vifs) {
        struct netback_vif *v = nb->vifs;

        nb->vifs = v->next;
        if (v->attached) {
            vif_detach(v);
        }
        free_vif(v);
    }
}

void *
xenbus_main(void *nb_)
{
    struct netback *nb = nb_;
    int wait;

    if (!xs_watch(nb->xs, BACKEND_ROOT, "backend")) {
        netback_log(nb, LOG_ERR, "cannot watch " BACKEND_ROOT ": %s", strerror(errno));
    }
    adopt_existing(nb);
    /* netback_start() waits for this: the list is then complete. */
    wait = run_dirty(nb);
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = nb->cmd_fd, .events = POLLIN},
            {.fd = xs_fileno(nb->xs), .events = POLLIN},
        };
        eventfd_t ignored;

        poll(fds, 2, wait);
        if (fds[0].revents) {
            eventfd_read(nb->cmd_fd, &ignored);
        }
        pthread_mutex_lock(&nb->lock);
        bool stopping = nb->stopping;
        pthread_mutex_unlock(&nb->lock);
        if (stopping) {
            break;
        }
        serve_calls(nb);
        read_watches(nb);
        wait = run_dirty(nb);
    }
    end_all(nb);
    serve_calls(nb);
    return NULL;
}

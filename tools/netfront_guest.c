/* netfront_guest: the guest's life, on the main thread.
 *
 * Joins the parts: makes the domain, follows the state machine, starts the
 * workers when both ends are connected, stops them before anything is torn
 * down, and waits in one poll loop for signals, the store, the workers, the
 * multicast list and the clock. */
#include <errno.h>
#include <net/if_arp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "hex.h"
#include "netfront.h"

#define DEFAULT_MTU 1500u
/* Page 0 is no one's: a reference to it would hide a missing one. */
#define FIRST_PAGE 1u
#define MCAST_PERIOD_MS 1000
#define PROGRESS_MS 1000
/* How long --create waits for the backend to go before it removes the vif. */
#define UNPLUG_MS 5000

void
nf_log(const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "weft-netfront: %s\n", text);
}

/* --- state machine callbacks -------------------------------------------------------- */

static void
agree(struct nf_guest *g, const struct nf_backend_features *be)
{
    const struct nf_config *cfg = g->cfg;
    struct nf_link *l = &g->link;

    *l = (struct nf_link){
        .sg = be->sg && !cfg->no_sg,
        .csum_v4 = be->csum_v4 && !cfg->no_csum,
        .csum_v6 = be->csum_v6 && !cfg->no_csum && !cfg->no_csum_v6,
        .multicast_control = be->multicast_control && cfg->multicast,
        .n_queues = g->n_queues < be->max_queues ? g->n_queues : be->max_queues,
        .mtu = g->tap.n ? cfg->tap.mtu : cfg->mtu,
    };
    bool gso = l->sg && !cfg->no_gso;
    l->gso_v4 = gso && be->gso_tcpv4 && l->csum_v4;
    l->gso_v6 = gso && be->gso_tcpv6 && l->csum_v6;
    if (l->n_queues < g->n_queues) {
        nf_log("the backend offers %u queues, not %u", be->max_queues, g->n_queues);
    }
    if (cfg->multicast && !be->multicast_control) {
        nf_log("the backend offers no multicast control: every multicast frame will come");
    }
}

static void
fill_offer(struct nf_guest *g, bool split, bool ctrl, struct nf_offer *o)
{
    const struct nf_config *cfg = g->cfg;

    *o = (struct nf_offer){
        .n_queues = g->link.n_queues,
        .split = split,
        .ctrl = ctrl,
        .ctrl_ref = g->ctrl.ring_ref,
        .ctrl_port = g->ctrl.port,
        .sg = !cfg->no_sg,
        .gso_tcpv4 = !cfg->no_sg && !cfg->no_gso && !cfg->no_csum,
        .gso_tcpv6 = !cfg->no_sg && !cfg->no_gso && !cfg->no_csum && !cfg->no_csum_v6,
        .csum_v4 = !cfg->no_csum,
        .csum_v6 = !cfg->no_csum && !cfg->no_csum_v6,
        .request_multicast = g->link.multicast_control,
    };
    for (unsigned i = 0; i < o->n_queues; i++) {
        o->queue[i].tx_ref = nf_queue_tx_ref(&g->queue[i]);
        o->queue[i].rx_ref = nf_queue_rx_ref(&g->queue[i]);
        o->queue[i].tx_port = g->queue[i].tx_port;
        o->queue[i].rx_port = g->queue[i].rx_port;
    }
}

static void
drop_rings(struct nf_guest *g)
{
    unsigned held = 0;

    for (unsigned i = 0; i < g->n_queues; i++) {
        held += nf_queue_disconnect(&g->queue[i]);
    }
    nf_ctrl_disconnect(&g->ctrl);
    g->grants_held = held;
    if (held) {
        nf_log("the backend still holds %u pages after closing", held);
    }
}

static int
on_offer(void *aux, const struct nf_backend_features *be, struct nf_offer *offer)
{
    struct nf_guest *g = aux;
    bool split = be->split_channels && !g->cfg->no_split;
    int error = 0;

    if (!be->rx_copy) {
        nf_log("the backend does not offer feature-rx-copy, and flipping pages is not supported");
        return EOPNOTSUPP;
    }
    agree(g, be);
    for (unsigned i = 0; i < g->link.n_queues && !error; i++) {
        error = nf_queue_connect(&g->queue[i], be->domid, split);
    }
    if (!error && be->ctrl_ring) {
        error = nf_ctrl_connect(&g->ctrl, be->domid);
    }
    if (error) {
        drop_rings(g);
        return error;
    }
    fill_offer(g, split, be->ctrl_ring, offer);
    return 0;
}

static void
enable_hash(struct nf_guest *g)
{
    uint32_t flags = XEN_NETIF_CTRL_HASH_TYPE_IPV4 | XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP |
                     XEN_NETIF_CTRL_HASH_TYPE_IPV6 | XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP;
    uint32_t mapping[128];
    unsigned n = sizeof mapping / sizeof mapping[0];

    int error = nf_ctrl_hash_enable(&g->ctrl, g->cfg->hash_key, g->cfg->hash_key_len, &flags);
    if (error) {
        nf_log("the backend refused hashing (%s): it spreads packets its own way", strerror(error));
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        mapping[i] = i % g->link.n_queues;
    }
    error = nf_ctrl_hash_mapping(&g->ctrl, mapping, n);
    if (error) {
        nf_log("the backend refused the hash mapping (%s): hash modulo queues it is",
               strerror(error));
    }
}

/* Maps as many of a queue's pages as the backend keeps; grant copies serve the rest. */
static void
map_static_grants(struct nf_guest *g, unsigned queue)
{
    struct xen_netif_gref list[NF_QUEUE_PAGES];
    unsigned n = nf_queue_data_grefs(&g->queue[queue], list, NF_QUEUE_PAGES), done = 0;
    uint32_t limit = 0;

    int error = nf_ctrl_gref_limit(&g->ctrl, queue, &limit);
    if (!error && limit) {
        error = nf_ctrl_gref_add(&g->ctrl, queue, list, limit < n ? limit : n, &done);
    }
    g->mapped[queue] = done;
    if (done < n) {
        nf_log("queue %u: the backend keeps %u of %u pages mapped (%s); the others are copied by "
               "grant",
               queue, done, n, error ? strerror(error) : "its limit");
    }
}

unsigned
nf_guest_mapped(const struct nf_guest *g)
{
    unsigned n = 0;

    for (unsigned i = 0; i < NF_MAX_QUEUES; i++) {
        n += g->mapped[i];
    }
    return n;
}

/* Takes the backend's mappings back if there are any, else asks for them; traffic goes on. */
static void
toggle_static_grants(struct nf_guest *g)
{
    struct xen_netif_gref list[NF_QUEUE_PAGES];
    bool any = nf_guest_mapped(g) != 0;

    if (g->bus.phase != NF_BUS_CONNECTED || !g->ctrl.connected) {
        return;
    }
    for (unsigned i = 0; i < g->link.n_queues; i++) {
        unsigned done = 0;
        if (!any) {
            map_static_grants(g, i);
            continue;
        }
        nf_queue_data_grefs(&g->queue[i], list, NF_QUEUE_PAGES);
        int error = nf_ctrl_gref_del(&g->ctrl, i, list, g->mapped[i], &done);
        g->mapped[i] -= done;
        if (error) {
            nf_log("queue %u: the backend keeps %u pages mapped: %s", i, g->mapped[i],
                   strerror(error));
        }
    }
    if (g->cfg->verbose) {
        nf_log("%u pages mapped by the backend", nf_guest_mapped(g));
    }
}

static void
on_connected(void *aux)
{
    struct nf_guest *g = aux;

    memset(g->mapped, 0, sizeof g->mapped);
    if ((g->cfg->hash || g->cfg->static_grants) && !g->ctrl.connected) {
        nf_log("the backend offers no control ring: no hashing, no static grants");
    } else {
        if (g->cfg->hash) {
            enable_hash(g);
        }
        for (unsigned i = 0; g->cfg->static_grants && i < g->link.n_queues; i++) {
            map_static_grants(g, i);
        }
    }
    if (g->tap.n) {
        nf_tap_set_offload(&g->tap, g->link.csum_v4 || g->link.csum_v6, g->link.gso_v4,
                           g->link.gso_v6);
    }
    nf_mcast_reset(&g->mcast);
    for (unsigned i = 0; i < g->link.n_queues; i++) {
        int error = nf_worker_start(&g->worker[i]);
        if (error) {
            nf_log("cannot start a thread: %s", strerror(error));
        }
    }
    g->connects++;
    if (!g->connected_ns) {
        g->connected_ns = nf_now_ns();
    }
    if (g->cfg->ready_fd >= 0) {
        dprintf(g->cfg->ready_fd, "connected\n");
    }
    if (g->cfg->verbose) {
        nf_log("connected, %u queue(s)%s%s%s, %u pages mapped by the backend", g->link.n_queues,
               g->link.sg ? ", sg" : "", g->link.gso_v4 ? ", gso" : "",
               g->link.csum_v4 ? ", csum" : "", nf_guest_mapped(g));
    }
}

static void
on_quiesce(void *aux)
{
    struct nf_guest *g = aux;

    for (unsigned i = 0; i < g->n_queues; i++) {
        nf_worker_stop(&g->worker[i]);
    }
}

static void
on_release(void *aux)
{
    drop_rings(aux);
}

static void
on_carrier(void *aux, bool up)
{
    struct nf_guest *g = aux;

    nf_tap_set_carrier(&g->tap, up);
    if (g->cfg->verbose && up != g->carrier) {
        nf_log("carrier %s", up ? "up" : "down");
    }
    g->carrier = up;
}

static void
on_log(void *aux, const char *text)
{
    nf_log("%s", text);
}

static const struct nf_bus_ops bus_ops = {
    .offer = on_offer,
    .connected = on_connected,
    .quiesce = on_quiesce,
    .release = on_release,
    .carrier = on_carrier,
    .log = on_log,
};

/* --- opening -------------------------------------------------------------------------- */

static int
open_domain(struct nf_guest *g)
{
    uint32_t pages = FIRST_PAGE + NF_CTRL_PAGES + g->n_queues * NF_QUEUE_PAGES;

    int error = local_domain_create(g->cfg->dir, g->cfg->domid, pages, pages + 8, &g->dom);
    if (error) {
        nf_log("cannot create domain %u in %s: %s%s", g->cfg->domid, g->cfg->dir, strerror(error),
               error == EEXIST ? "; another guest has this --domid"
                               : "; is weft-localxen running with this --dir?");
        return error;
    }
    nf_ctrl_init(&g->ctrl, g->dom, FIRST_PAGE);
    for (unsigned i = 0; i < g->n_queues; i++) {
        nf_queue_init(&g->queue[i], g->dom, FIRST_PAGE + NF_CTRL_PAGES + i * NF_QUEUE_PAGES);
    }
    error = local_store_open(g->dom, &g->store);
    if (error) {
        nf_log("cannot open the store of domain %u: %s", g->cfg->domid, strerror(error));
    }
    return error;
}

static int
create_vif(struct nf_guest *g)
{
    struct nf_config *cfg = g->cfg;
    char mac[18];

    int error = toolstack_open(cfg->dir, &g->toolstack);
    if (error) {
        nf_log("cannot open the toolstack's store in %s: %s", cfg->dir, strerror(error));
        return error;
    }
    snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", g->mac[0], g->mac[1], g->mac[2],
             g->mac[3], g->mac[4], g->mac[5]);
    cfg->vif.mac = mac;
    error = toolstack_vif_create(g->toolstack, &cfg->vif);
    if (error == EEXIST) {
        /* Our domain is new, so this is what a guest left that died. */
        toolstack_vif_unplug(g->toolstack, cfg->domid, cfg->handle, UNPLUG_MS);
        error = toolstack_vif_create(g->toolstack, &cfg->vif);
    }
    cfg->vif.mac = NULL;
    g->vif_created = !error;
    if (error) {
        nf_log("cannot create vif %u/%u in the store: %s", cfg->domid, cfg->handle,
               strerror(error));
    }
    return error;
}

/* MAC and MTU: as told, else as the store says, else by default. */
static void
choose_identity(struct nf_guest *g)
{
    struct nf_config *cfg = g->cfg;
    const uint8_t fallback[6] = {
        0, 0x16, 0x3e, (uint8_t)(cfg->domid >> 8), (uint8_t)cfg->domid, (uint8_t)cfg->handle};
    char path[TOOLSTACK_PATH_MAX + 8], dir[TOOLSTACK_PATH_MAX];

    toolstack_frontend_path(cfg->domid, cfg->handle, dir);
    snprintf(path, sizeof path, "%s/mac", dir);
    char *mac = cfg->has_mac ? NULL : xs_read(g->store, XBT_NULL, path, NULL);
    if (cfg->has_mac) {
        memcpy(g->mac, cfg->mac, 6);
    } else if (!mac || !hex_mac(mac, g->mac)) {
        memcpy(g->mac, fallback, 6);
    }
    free(mac);
    if (!cfg->mtu) {
        snprintf(path, sizeof path, "%s/mtu", dir);
        char *mtu = xs_read(g->store, XBT_NULL, path, NULL);
        cfg->mtu = mtu ? (unsigned)atoi(mtu) : 0;
        free(mtu);
    }
    if (cfg->mtu < 68 || cfg->mtu > 65000) {
        cfg->mtu = DEFAULT_MTU;
    }
}

static int
open_tap(struct nf_guest *g)
{
    struct nf_config *cfg = g->cfg;
    char why[256];

    if (cfg->mode != &nf_mode_tap) {
        return 0;
    }
    cfg->tap.n_queues = g->n_queues;
    cfg->tap.mtu = cfg->mtu;
    if (cfg->no_sg && cfg->mtu > HV_PAGE_SIZE - NF_TX_OFFSET - 32) {
        nf_log("MTU %u needs scatter-gather: a frame must fit one page with --no-sg", cfg->mtu);
        return EINVAL;
    }
    memcpy(cfg->tap.mac, g->mac, 6);
    int error = nf_tap_open(&g->tap, &cfg->tap, why, sizeof why);
    if (error) {
        nf_log("%s", why);
    }
    return error;
}

static int
open_signals(struct nf_guest *g)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    /* Before any thread exists, so that all of them block these. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    g->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    g->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return g->signal_fd < 0 || g->event_fd < 0 ? errno : 0;
}

int
nf_guest_open(struct nf_guest *g, struct nf_config *cfg)
{
    memset(g, 0, sizeof *g);
    g->cfg = cfg;
    g->signal_fd = g->event_fd = -1;
    g->n_queues = cfg->queues;
    nf_mcast_init(&g->mcast);
    for (unsigned i = 0; i < NF_MAX_QUEUES; i++) {
        g->worker[i].wake_fd = -1;
    }

    int error = open_signals(g);
    error = error ? error : open_domain(g);
    if (!error) {
        choose_identity(g);
        memcpy(cfg->stream.src_mac, g->mac, 6);
        error = open_tap(g);
    }
    for (unsigned i = 0; i < g->n_queues && !error; i++) {
        error = nf_worker_init(&g->worker[i], g, i);
    }
    error = error || !cfg->create ? error : create_vif(g);
    if (!error) {
        error = nf_bus_init(&g->bus, g->store, cfg->domid, cfg->handle, &bus_ops, g);
    }
    if (error) {
        nf_guest_close(g);
    }
    return error;
}

void
nf_guest_close(struct nf_guest *g)
{
    on_quiesce(g);
    if (g->vif_created) {
        toolstack_vif_destroy(g->toolstack, g->cfg->domid, g->cfg->handle);
    }
    xs_close(g->toolstack);
    for (unsigned i = 0; i < NF_MAX_QUEUES; i++) {
        nf_worker_fini(&g->worker[i]);
    }
    nf_tap_close(&g->tap);
    if (g->store) {
        xs_close(g->store);
    }
    local_domain_destroy(g->dom);
    if (g->signal_fd >= 0) {
        close(g->signal_fd);
    }
    if (g->event_fd >= 0) {
        close(g->event_fd);
    }
}

/* --- running ----------------------------------------------------------------------------- */

/* The main loop's clocks, nanoseconds. */
struct clocks {
    uint64_t next_progress, next_mcast, close_at;
    bool closing;
};

static void
update_mcast(struct nf_guest *g)
{
    struct nf_mcast_set set = {0};

    if (!g->cfg->multicast) {
        return;
    }
    if (g->tap.mcast_fd >= 0 && g->tap.n) {
        nf_mcast_read_proc(g->tap.mcast_fd, g->tap.ifname, &set);
    }
    for (unsigned i = 0; i < g->cfg->n_mcast_join && set.n < NF_MCAST_MAX; i++) {
        memcpy(set.mac[set.n++], g->cfg->mcast_join[i], 6);
    }
    if (nf_mcast_set(&g->mcast, &set) && g->worker[0].started) {
        nf_worker_wake(&g->worker[0]);
    }
}

static void
start_close(struct nf_guest *g, struct clocks *c)
{
    if (c->closing) {
        return;
    }
    /* A backend that never looked at the vif will not close it either. */
    bool backend_acts = g->bus.backend_state > XenbusStateInitialising;
    c->closing = true;
    c->close_at = nf_now_ns() + (backend_acts ? UNPLUG_MS * 1000000ull : 0);
    if (g->vif_created) {
        toolstack_vif_offline(g->toolstack, g->cfg->domid, g->cfg->handle);
    }
    nf_bus_close(&g->bus);
}

static void
handle_signals(struct nf_guest *g, struct clocks *c)
{
    struct signalfd_siginfo info;

    while (read(g->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGUSR1) {
            nf_bus_restart(&g->bus);
        } else if (info.ssi_signo == SIGUSR2) {
            toggle_static_grants(g);
        } else {
            start_close(g, c);
        }
    }
}

static void
handle_workers(struct nf_guest *g, struct clocks *c)
{
    unsigned done = 0;
    eventfd_t value;

    eventfd_read(g->event_fd, &value);
    for (unsigned i = 0; i < g->link.n_queues; i++) {
        if (atomic_load(&g->worker[i].broken)) {
            nf_log("queue %u: the backend broke the ring protocol; closing", i);
            g->exit_status = 1;
            start_close(g, c);
            return;
        }
        done += atomic_load(&g->worker[i].done);
    }
    if (done && done == g->link.n_queues) {
        start_close(g, c);
    }
}

/* When --seconds are over, once connected. */
static uint64_t
end_ns(const struct nf_guest *g)
{
    return g->connected_ns + (uint64_t)((g->cfg->settle + g->cfg->seconds) * 1e9);
}

static void
handle_clocks(struct nf_guest *g, struct clocks *c)
{
    uint64_t now = nf_now_ns();

    if (g->cfg->progress && g->connected_ns && now >= c->next_progress) {
        c->next_progress = now + PROGRESS_MS * 1000000ull;
        nf_report_progress(g);
    }
    if (g->cfg->multicast && now >= c->next_mcast) {
        c->next_mcast = now + MCAST_PERIOD_MS * 1000000ull;
        update_mcast(g);
    }
    if (g->cfg->seconds > 0 && g->connected_ns && !atomic_load(&g->time_up) && now >= end_ns(g)) {
        atomic_store(&g->time_up, true);
        for (unsigned i = 0; i < g->link.n_queues; i++) {
            nf_worker_wake(&g->worker[i]);
        }
        if (g->cfg->mode != &nf_mode_blast && g->cfg->mode != &nf_mode_ping &&
            g->cfg->mode != &nf_mode_sink) {
            start_close(g, c);
        } else {
            /* A backend that answers nothing must not keep us. */
            c->close_at = now + 2000000000ull;
        }
    }
    if (!c->closing && c->close_at && now >= c->close_at) {
        start_close(g, c);
    }
}

static void
earliest(uint64_t *at, bool on, uint64_t when)
{
    if (on && when < *at) {
        *at = when;
    }
}

static int
poll_timeout_ms(struct nf_guest *g, const struct clocks *c)
{
    uint64_t at = UINT64_MAX, now = nf_now_ns();
    int bus_ms = nf_bus_timeout_ms(&g->bus);

    earliest(&at, g->cfg->progress && g->connected_ns, c->next_progress);
    earliest(&at, g->cfg->multicast, c->next_mcast);
    earliest(&at, g->cfg->seconds > 0 && g->connected_ns && !atomic_load(&g->time_up), end_ns(g));
    earliest(&at, c->close_at != 0, c->close_at);
    if (at == UINT64_MAX) {
        return bus_ms;
    }
    int ms = at > now ? (int)((at - now) / 1000000 + 1) : 0;
    return bus_ms >= 0 && bus_ms < ms ? bus_ms : ms;
}

static bool
is_over(struct nf_guest *g, const struct clocks *c)
{
    if (!c->closing) {
        return false;
    }
    return nf_bus_is_down(&g->bus) || (g->bus.phase == NF_BUS_CLOSED && nf_now_ns() >= c->close_at);
}

/* Group changes are only a hint to read the list again. */
static void
drain_groups(struct nf_guest *g)
{
    char buf[4096];

    while (read(g->tap.group_fd, buf, sizeof buf) > 0) {
    }
    update_mcast(g);
}

int
nf_guest_run(struct nf_guest *g)
{
    struct clocks c = {0};

    update_mcast(g);
    nf_bus_process(&g->bus);
    while (!is_over(g, &c)) {
        struct pollfd fds[4] = {
            {.fd = g->signal_fd, .events = POLLIN},
            {.fd = nf_bus_fd(&g->bus), .events = POLLIN},
            {.fd = g->event_fd, .events = POLLIN},
            {.fd = g->cfg->multicast && g->tap.n ? g->tap.group_fd : -1, .events = POLLIN},
        };
        poll(fds, 4, poll_timeout_ms(g, &c));
        if (fds[0].revents) {
            handle_signals(g, &c);
        }
        if (fds[2].revents) {
            handle_workers(g, &c);
        }
        if (fds[3].revents) {
            drain_groups(g);
        }
        if (nf_bus_process(&g->bus)) {
            nf_log("the store is gone: has weft-localxen ended?");
            g->exit_status = 1;
            break;
        }
        handle_clocks(g, &c);
    }
    on_quiesce(g);
    nf_report_final(g);
    return g->exit_status;
}

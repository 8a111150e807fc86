/* netfront_bus: the frontend's XenBus state machine.
 *
 * Follows the backend's state through store watches, offers rings, tells its
 * owner when to make them, use them and give them up.  As Linux's netfront:
 * 1, then 4 directly with the rings' keys, 5 and 6 to close.
 *
 * Threads: one.  Callbacks run inside nf_bus_process() and the requests.
 * Errors: 0 or a positive errno.
 * Source: xen/io/xenbus.h, xen/io/netif.h. */
#ifndef NETFRONT_BUS_H
#define NETFRONT_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xs_handle;

#define NF_BUS_PATH_MAX 128u
#define NF_BUS_QUEUES_MAX 8u
/* A backend that does not answer our closing within this is given up. */
#define NF_BUS_CLOSE_MS 5000

enum nf_bus_phase {
    NF_BUS_ABSENT,    /* no device directory: nothing to do */
    NF_BUS_WAITING,   /* our state 1; leaves when the backend is in 2 */
    NF_BUS_OFFERED,   /* our state 4, rings exist; leaves when the backend is in 4, or closes */
    NF_BUS_CONNECTED, /* both in 4: the only phase in which rings are used */
    NF_BUS_CLOSING,   /* our state 5, rings idle; leaves when the backend is in 5, 6 or gone */
    NF_BUS_LEAVING,   /* our state 6, rings idle; leaves when the backend is in 6 or gone */
    NF_BUS_CLOSED,    /* our state 6, no rings; leaves when the backend is back in 2 */
};

/* What the backend offers, read when we connect. */
struct nf_backend_features {
    uint16_t domid;
    bool rx_copy, sg, gso_tcpv4, gso_tcpv6, csum_v4, csum_v6;
    bool split_channels, ctrl_ring, multicast_control;
    unsigned max_queues;
};

/* What we offer: filled by the owner, written to the store. */
struct nf_offer {
    unsigned n_queues;
    bool split;
    struct {
        uint32_t tx_ref, rx_ref, tx_port, rx_port;
    } queue[NF_BUS_QUEUES_MAX];
    bool ctrl;
    uint32_t ctrl_ref, ctrl_port;
    bool sg, gso_tcpv4, gso_tcpv6, csum_v4, csum_v6;
    bool request_multicast;
};

struct nf_bus_ops {
    /* Makes rings for a backend with these features.  A failure closes. */
    int (*offer)(void *aux, const struct nf_backend_features *, struct nf_offer *);
    /* The backend uses the rings, so may we. */
    void (*connected)(void *aux);
    /* Stop using the rings now; they stay until release(). */
    void (*quiesce)(void *aux);
    /* The backend has let go, or is gone: give the rings up. */
    void (*release)(void *aux);
    /* The backend's link state; also called after connected(). */
    void (*carrier)(void *aux, bool up);
    /* Something worth a line. */
    void (*log)(void *aux, const char *text);
};

struct nf_bus {
    struct xs_handle *xs;
    const struct nf_bus_ops *ops;
    void *aux;
    enum nf_bus_phase phase;
    bool want_closed;  /* do not come back from NF_BUS_CLOSED */
    bool held;         /* stay in NF_BUS_WAITING: the guest does not run yet */
    bool want_restart; /* leave NF_BUS_CLOSED by ourselves, as a guest that boots */
    bool has_rings;
    bool store_lost;     /* nothing can be read or written any more */
    int backend_state;   /* as last read */
    int64_t close_by_ms; /* deadline in NF_BUS_CLOSING */
    bool has_features;   /* read in NF_BUS_WAITING, also while held */
    struct nf_backend_features features;
    char dir[NF_BUS_PATH_MAX];     /* /local/domain/D/device/vif/H */
    char backend[NF_BUS_PATH_MAX]; /* empty: unknown */
};

/* Watches the device; it need not exist yet.  'xs' has the guest's rights
 * and is the bus's alone; it stays the caller's to close. */
int nf_bus_init(struct nf_bus *, struct xs_handle *xs, uint16_t domid, uint32_t handle,
                const struct nf_bus_ops *, void *aux);
/* Readable when nf_bus_process() has something to do. */
int nf_bus_fd(const struct nf_bus *);
/* Takes all watch events and moves on.  EPIPE if the store is gone. */
int nf_bus_process(struct nf_bus *);
/* Milliseconds until nf_bus_process() must be called anyway; -1: never. */
int nf_bus_timeout_ms(const struct nf_bus *);
/* Keeps it in NF_BUS_WAITING, or lets it make its offer at once. */
void nf_bus_hold(struct nf_bus *, bool);
/* Closes for good (as a guest that shuts down). */
void nf_bus_close(struct nf_bus *);
/* Closes and comes back (as a guest that reboots). */
void nf_bus_restart(struct nf_bus *);
/* True when closed and the backend has closed as well (or is gone). */
bool nf_bus_is_down(const struct nf_bus *);
/* A value of the device directory ("mac", "mtu"); false if there is none. */
bool nf_bus_read(struct nf_bus *, const char *key, char *value, size_t size);
const char *nf_bus_phase_name(enum nf_bus_phase);

#endif

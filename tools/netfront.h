/* netfront: the guest that weft-netfront is.
 *
 * A guest is one domain of the local stand-in with one network interface: a
 * XenBus state machine (netfront_bus.h), up to 8 queues (netfront_ring.h), a
 * control ring (netfront_ctrl.h), and one thread per queue that runs a mode:
 *
 *   tap    joins the rings to a TAP in a network namespace
 *   blast  sends frames at full speed, or measures round trips (--ping)
 *   sink   counts frames, and checks them (--verify)
 *   echo   sends frames back to their sender
 *   idle   is connected and drops what it gets
 *
 * Threads: the main thread owns the guest, the state machine and the control
 * ring.  A worker owns its queue and its mode's state between start and join;
 * fields that others read are marked. */
#ifndef NETFRONT_H
#define NETFRONT_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "netfront_bus.h"
#include "netfront_ctrl.h"
#include "netfront_frame.h"
#include "netfront_mcast.h"
#include "netfront_ring.h"
#include "netfront_tapdev.h"
#include "toolstack.h"

#define NF_MAX_QUEUES NF_BUS_QUEUES_MAX
#define NF_MAX_BACKEND_KEYS 32u
#define NF_BACKEND_KEY_LEN 64u
#define NF_POLL_DEFAULT UINT32_MAX

struct nf_guest;
struct nf_worker;
struct nf_mode;

/* --- options (netfront_options.c) ------------------------------------------- */

struct nf_config {
    const char *dir;
    uint16_t domid;
    uint32_t handle;
    const struct nf_mode *mode;

    /* The interface. */
    bool has_mac;
    uint8_t mac[6];
    unsigned mtu; /* 0: what the store says, else 1,500 */
    unsigned queues;
    bool no_split, no_sg, no_gso, no_csum, no_csum_v6;
    bool static_grants, hash, multicast;
    uint8_t hash_key[40];
    unsigned hash_key_len;
    uint8_t mcast_join[NF_MCAST_MAX][6];
    unsigned n_mcast_join;
    unsigned poll_us; /* NF_POLL_DEFAULT: the mode's */
    bool poll;        /* never sleep: ask for no event */

    /* The toolstack's part, with --create. */
    bool create;
    struct toolstack_vif vif;
    struct toolstack_key backend_keys[NF_MAX_BACKEND_KEYS];
    char backend_key_name[NF_MAX_BACKEND_KEYS][NF_BACKEND_KEY_LEN];
    size_t n_backend_keys;

    /* tap */
    struct nf_tap_config tap;

    /* blast, sink, echo */
    struct nf_stream stream;
    bool has_dst_mac, has_src_ip, has_dst_ip;
    unsigned flows;
    uint64_t count, rate_pps;
    double seconds; /* 0: until stopped */
    double settle;  /* blast: seconds between connecting and the first frame */
    bool ping, verify;
    unsigned gaps_ms; /* sink: pauses to report; 0: none */

    bool json, progress, verbose;
    int ready_fd; /* -1: none */
};

/* Parses the command line.  Returns -1 to go on, or the exit status. */
int nf_options_parse(struct nf_config *, int argc, char **argv);

/* --- modes -------------------------------------------------------------------- */

/* What a worker waits for when it has nothing to do. */
struct nf_nap {
    struct pollfd fd[4]; /* [0] is the worker's wake descriptor */
    unsigned n;
    int64_t timeout_ns; /* -1: none */
};

struct nf_mode {
    const char *name;
    bool announces;   /* tells the switch its MAC when connected: no stack does */
    unsigned poll_us; /* default of --poll-us */
    /* Once, on the main thread, before any connection. */
    int (*open)(struct nf_worker *);
    void (*close)(struct nf_worker *);
    /* On the worker's thread, at the start and the end of each connection. */
    void (*begin)(struct nf_worker *);
    void (*end)(struct nf_worker *);
    /* Moves a bounded batch.  Returns how many frames moved, or -EPROTO. */
    int (*turn)(struct nf_worker *);
    /* Prepares to sleep: arms rings, adds descriptors, sets the timeout.
     * True if there is work after all. */
    bool (*arm)(struct nf_worker *, struct nf_nap *);
    /* Adds this mode's results; main thread, workers are joined. */
    void (*report_text)(struct nf_guest *, FILE *);
    void *(*report_json)(struct nf_guest *, const char **key); /* a json_t */
};

extern const struct nf_mode nf_mode_tap, nf_mode_blast, nf_mode_ping, nf_mode_sink, nf_mode_echo,
    nf_mode_idle;

/* --- workers (netfront_worker.c) --------------------------------------------- */

struct nf_worker {
    struct nf_guest *guest;
    unsigned index;
    struct nf_queue *q;
    void *mode_state;
    int wake_fd; /* any thread writes, the worker reads */

    bool started; /* main thread */
    pthread_t thread;
    _Atomic bool stop;       /* main thread writes */
    _Atomic bool done;       /* worker writes: nothing left to do */
    _Atomic bool broken;     /* worker writes: the backend broke the protocol */
    uint64_t announce_at_ns; /* worker's; UINT64_MAX: never */
    unsigned n_announced;    /* since connecting; worker's */

    /* Worker writes, any reads. */
    _Atomic uint64_t first_ns, last_ns; /* first and last moved frame, monotonic; 0: none */
    _Atomic uint64_t cpu_ns;            /* of ended threads */
};

int nf_worker_init(struct nf_worker *, struct nf_guest *, unsigned index);
void nf_worker_fini(struct nf_worker *);
int nf_worker_start(struct nf_worker *);
void nf_worker_stop(struct nf_worker *); /* and join */
void nf_worker_wake(struct nf_worker *); /* any thread */
/* Worker: this queue has done all it was asked to. */
void nf_worker_done(struct nf_worker *);
/* CPU time of this worker so far, ended threads included. */
uint64_t nf_worker_cpu_ns(struct nf_worker *);
uint64_t nf_now_ns(void);

/* Helpers for modes' arm(). */
void nf_nap_add(struct nf_nap *, int fd);
/* Drops what was received; as turn(). */
int nf_drain_rx(struct nf_queue *, unsigned budget);

/* --- the guest (netfront_guest.c) -------------------------------------------- */

/* What both sides agreed on for this connection. */
struct nf_link {
    bool sg, gso_v4, gso_v6, csum_v4, csum_v6; /* what we may send */
    bool multicast_control;
    unsigned n_queues;
    unsigned mtu;
};

struct nf_guest {
    struct nf_config *cfg;
    struct local_domain *dom;
    struct xs_handle *store;     /* the guest's */
    struct xs_handle *toolstack; /* dom0's, with --create */
    bool vif_created;
    struct nf_bus bus;
    struct nf_ctrl ctrl;
    struct nf_queue queue[NF_MAX_QUEUES];
    struct nf_worker worker[NF_MAX_QUEUES];
    unsigned n_queues; /* allocated */
    struct nf_link link;
    struct nf_tap tap;
    struct nf_mcast mcast;
    uint8_t mac[6];
    unsigned mapped[NF_MAX_QUEUES]; /* pages the backend keeps mapped, first ones first */

    int signal_fd;
    int event_fd;          /* workers tell the main thread */
    _Atomic bool time_up;  /* main thread writes: send no more */
    uint64_t connected_ns; /* first connection; 0: never */
    unsigned connects;
    bool carrier;         /* as the backend says */
    unsigned grants_held; /* pages a backend would not let go of, at the last close */
    int exit_status;
};

int nf_guest_open(struct nf_guest *, struct nf_config *);
/* Until stopped by a signal or done; returns the exit status. */
int nf_guest_run(struct nf_guest *);
void nf_guest_close(struct nf_guest *);
/* Pages the backend keeps mapped (static grants). */
unsigned nf_guest_mapped(const struct nf_guest *);
void nf_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- statistics (netfront_report.c) ------------------------------------------ */

struct nf_totals {
#define X(name) uint64_t name;
    NF_STATS(X)
#undef X
    double seconds;     /* from the first to the last moved frame */
    double cpu_seconds; /* of the whole process */
};
void nf_totals(struct nf_guest *, struct nf_totals *);
/* One line about the time since the last one. */
void nf_report_progress(struct nf_guest *);
/* The end: text on stderr, or JSON on stdout. */
void nf_report_final(struct nf_guest *);

#endif

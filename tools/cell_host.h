/* cell_host: weft-cell, the host process of one cell (tools/cell/abi.h).
 *
 *   cell_image.c    puts the image into the guest's memory
 *   cell_switch.c   the stack switch between host and guest
 *   cell_vcpu.c     the thread that runs the guest, and its hypercalls
 *   cell_net.c      its interface's state machine (netfront_bus.h), on that thread
 *   cell_dirty.c    which pages were written
 *   cell_fault.c    post-copy: pages that are fetched when they are touched
 *   cell_control.c  the control socket (lib/cell_proto.h), on the main thread
 *   main_cell.c     options, start and end
 *
 * Threads: the vcpu thread runs the guest and owns its bus, channels and clock;
 * the main thread owns the control socket, dirty log and post-copy.  They meet in
 * the fields under 'lock'.  The guest is stopped only where it yields; one that
 * does not cannot be stopped, but can still be looked at and destroyed. */
#ifndef CELL_HOST_H
#define CELL_HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cell/abi.h"
#include "cell_proto.h"
#include "hv/local.h"
#include "netfront_bus.h"
#include "toolstack.h"

#define CELL_CHANNELS 8u

struct xs_handle;

struct cell_config {
    const char *image, *dir, *control, *run_log, *cmdline;
    uint64_t memory_bytes;
    uint16_t domid;
    bool has_vif, incoming, verbose;
    uint8_t mac[6];
    uint32_t ip, netmask, gateway; /* network order */
    struct toolstack_vif vif;
    uint64_t epoch;
    int ready_fd;
    enum { CELL_DIRTY_AUTO, CELL_DIRTY_ASYNC, CELL_DIRTY_SYNC } dirty_log;
};

/* A hypercall as it was made, and where both sides stand (cell_switch.c knows
 * the offsets of the first two). */
struct cell_switch {
    uint64_t host_sp, guest_sp;
    uint64_t nr, args[3];
};

struct cell_dirty {
    uint64_t *map; /* shared with the client; only written here */
    int map_fd;    /* -1: off */
    int uffd;
    int pagemap_fd; /* async */
    bool async;
    /* sync: */
    uint64_t *noted;      /* under 'lock' */
    pthread_mutex_t lock; /* a page is noted and made writable, or taken and protected */
    pthread_t thread;
    int stop_fd;
};

struct cell {
    struct cell_config cfg;
    struct local_domain *dom;
    struct xs_handle *toolstack, *store;
    uint8_t *ram; /* at CELL_BASE */
    uint64_t n_pages;
    int memory_fd; /* the domain's */
    uint64_t memory_offset;
    uint8_t build_id[CELL_BUILD_ID_BYTES];
    int run_log_fd;

    /* --- main and vcpu threads --- */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum cell_run_state state;
    bool want_run, quit;
    uint64_t epoch, run_ns;
    char why[128];
    int wake_fd;           /* eventfd: the vcpu thread shall look */
    int event_fd;          /* eventfd: the main thread shall look */
    bool halted;           /* the guest shut itself down */
    atomic_bool attention; /* of the running guest: something is wanted */
    atomic_bool shutdown;  /* tell it */
    atomic_uint throttle;  /* per cent */
    atomic_uint vif_state;
    atomic_bool connected;
    _Atomic uint64_t connected_ns, first_rx_ns;

    /* --- the vcpu thread's --- */
    pthread_t thread;
    struct cell_switch sw;
    uint64_t pending;     /* events for the guest's next return */
    int64_t clock_offset; /* guest time less CLOCK_MONOTONIC */
    uint64_t clock_ns;    /* guest time when it was last stopped */
    uint64_t slice_ns, poll_ns;
    bool asking, answered, told; /* the guest is asked for a CELL_HC_NET_DONE */
    int answer;
    struct nf_bus bus;
    struct {
        uint32_t port; /* 0: free */
        int fd;
    } channel[CELL_CHANNELS];

    /* --- the main thread's --- */
    struct cell_dirty dirty;
    int postcopy_fd; /* userfaultfd; -1: none */
};

static inline struct cell_info *
cell_info(const struct cell *c)
{
    return (struct cell_info *)c->ram;
}

void cell_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t cell_now_ns(void);

/* cell_image.c: loads the image (into memory that is all zero) or, with 'memory'
 * NULL, only takes its build-id.  An image that does not fit is EINVAL. */
int cell_image_load(const char *path, uint8_t *memory, uint64_t bytes,
                    uint8_t build_id[CELL_BUILD_ID_BYTES], uint64_t *entry);

/* cell_switch.c */
/* Continues the guest with 'result' for its hypercall until its next one. */
void cell_enter(struct cell_switch *, uint64_t result);
/* What the guest calls. */
uint64_t cell_switch_entry(struct cell_switch *);
/* A stack on which cell_enter() starts the guest at 'entry'. */
uint64_t cell_switch_start(uint64_t stack_top, uint64_t entry);
/* True if 'sp' can be a stopped guest's. */
bool cell_switch_sp_ok(uint64_t sp, uint64_t bytes);
/* The thread that calls this survives what the guest does wrong: it is a
 * CELL_HC_FAULT of signal args[0] at args[1], address args[2], then. */
int cell_switch_catch_faults(void);
void cell_switch_release_faults(void); /* at the thread's end */

/* cell_vcpu.c */
int cell_vcpu_start(struct cell *);
/* Ends the thread; ETIMEDOUT if the guest does not yield. */
int cell_vcpu_end(struct cell *);
/* The main thread's requests; they return when it is so. */
int cell_vcpu_run(struct cell *, uint64_t epoch);
int cell_vcpu_pause(struct cell *, unsigned ms); /* ETIMEDOUT: it does not yield */
void cell_vcpu_wake(struct cell *);
/* On the vcpu thread: continues the guest with 'event' until it has answered
 * (CELL_HC_NET_DONE).  Its errno. */
int cell_vcpu_tell(struct cell *, enum cell_event);

/* cell_net.c, on the vcpu thread. */
int cell_net_init(struct cell *);
void cell_net_process(struct cell *);
/* The guest begins to run here: what was held back until now. */
void cell_net_start(struct cell *);

/* cell_dirty.c */
int cell_dirty_start(struct cell *);
int cell_dirty_fetch(struct cell *, uint64_t *n);
void cell_dirty_stop(struct cell *); /* accepts one that is off */
const char *cell_dirty_name(const struct cell *);

/* cell_fault.c */
int cell_postcopy_start(struct cell *, int missing_fd);
void cell_postcopy_end(struct cell *);

/* cell_control.c: serves the socket until the cell ends; the process's exit code. */
int cell_control_open(struct cell *);
int cell_control_run(struct cell *, int signal_fd);

#endif

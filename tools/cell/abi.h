/* abi: what a cell's guest and its host process share.
 *
 * Theory of Operation
 * ===================
 * A guest's whole memory is one region, mapped at CELL_BASE in its host process,
 * weft-cell.  The image (tools/cell, freestanding, linked at that address) lies
 * at its start; page 0 is struct cell_info.  The guest runs as a coroutine on a
 * stack of its own inside that region: a hypercall pushes the callee-saved
 * registers, and switches stacks.  So while the guest stands in a hypercall, its
 * memory and its stack pointer are all of it, and the two can be copied to
 * another process, of the same image, which continues it.  It is stopped nowhere
 * else than in CELL_HC_WAIT and CELL_HC_YIELD.
 *
 * It holds no address of the host's: 'entry' is written anew before each run.
 * Grants and event channels end with a move (CELL_EV_MOVED), as Xen's do at a
 * resume; the guest connects its interface anew.
 *
 * The clock is the guest's own, nanoseconds since it was made; it stands while
 * the guest does not run.
 *
 * Trust: guest code runs in the process of its host and with its rights, as any
 * program does; what the host takes from page 0 and from hypercalls it checks all
 * the same, so that a guest gone astray cannot take its control socket along. */
#ifndef CELL_ABI_H
#define CELL_ABI_H

#include <stdint.h>

#define CELL_BASE UINT64_C(0x10000000)
#define CELL_MAGIC UINT64_C(0x317473657567776c)
#define CELL_ABI_VERSION 1u
#define CELL_CMDLINE_MAX 512u
#define CELL_LOG_MAX 256u

enum cell_hypercall {
    CELL_HC_FAULT,        /* not the guest's: it made one */
    CELL_HC_WAIT,         /* until guest time 'a' or an event; -> enum cell_event bits */
    CELL_HC_YIELD,        /* -> bits */
    CELL_HC_CLOCK,        /* -> ns */
    CELL_HC_GRANT,        /* a: domain, b: page, c: read-only -> reference, 0: none left */
    CELL_HC_GRANT_END,    /* a: reference -> errno */
    CELL_HC_EVTCHN_ALLOC, /* a: domain -> port, 0: none left */
    CELL_HC_EVTCHN_CLOSE, /* a: port */
    CELL_HC_EVTCHN_NOTIFY,
    CELL_HC_NET_DONE, /* a: errno; answers CELL_EV_OFFER, _QUIESCE, _RELEASE */
    CELL_HC_LOG,      /* a: address, b: bytes */
    CELL_HC_HALT,     /* a: 0 clean, else it gives up */
};

enum cell_event {
    CELL_EV_RING = 1 << 0,      /* an event channel was notified */
    CELL_EV_MOVED = 1 << 1,     /* runs in another process: connections to the host are gone */
    CELL_EV_OFFER = 1 << 2,     /* make rings for info.backend and say so in info.offer */
    CELL_EV_CONNECTED = 1 << 3, /* the backend uses them */
    CELL_EV_QUIESCE = 1 << 4,   /* leave them alone */
    CELL_EV_RELEASE = 1 << 5,   /* give them up */
    CELL_EV_SHUTDOWN = 1 << 6,  /* close what is open, then CELL_HC_HALT */
};

/* Page 0.  Written by the host before the first run unless it says otherwise. */
struct cell_info {
    uint64_t magic;                /* image */
    uint32_t version;              /* image */
    uint32_t ip, netmask, gateway; /* network order */
    uint64_t stack_top;            /* image */
    uint64_t entry;                /* host, before each run */
    uint64_t memory_bytes;
    uint64_t net_start, net_bytes; /* image: whole pages that the backend gets to see */
    uint8_t mac[6];
    uint16_t mtu;
    struct {
        uint16_t domid;
        uint8_t csum_v4, gso_v4, sg, carrier;
    } backend; /* host, with CELL_EV_OFFER */
    struct {
        uint32_t tx_ref, rx_ref, port;
        uint8_t sg, gso_v4;
    } offer;            /* guest */
    uint64_t rx_frames; /* guest: received since the host cleared it at CELL_EV_CONNECTED */
    char cmdline[CELL_CMDLINE_MAX];
};
_Static_assert(sizeof(struct cell_info) <= 4096, "page 0");

#endif

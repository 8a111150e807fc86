/* cell_proto: the control protocol of weft-cell, and its client.
 *
 * A cell is a guest that is a process (tools/main_cell.c): its memory, and a
 * few registers, are all there is of it.  Whoever starts, moves or ends a cell
 * talks to it on a unix socket (SOCK_SEQPACKET): one struct cell_req a message,
 * answered in order by one struct cell_rep, both cut after the data in use;
 * a descriptor goes along where the operation says so.  Several clients may be
 * connected.  Dirty log and throttle end with the connection that asked for
 * them; that a cell is paused, or loaded, does not.
 *
 * Everything here is between processes of one host, in its byte order.
 *
 * Threads: a connection belongs to one thread at a time.
 * Errors: 0 or a positive errno. */
#ifndef CELL_PROTO_H
#define CELL_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CELL_PROTO_MAGIC 0x4c4c4543u /* "CELL" */
#define CELL_PROTO_VERSION 1u
#define CELL_PAGE_BYTES 4096u
#define CELL_BUILD_ID_BYTES 20u
#define CELL_DATA_MAX 1024u
#define CELL_PAGES_MAX (1u << 24) /* 64 GiB */
/* No operation takes longer; a guest that does not stop within
 * CELL_PAUSE_MS fails its pause with ETIMEDOUT and goes on running. */
#define CELL_CALL_TIMEOUT_MS 20000
#define CELL_PAUSE_MS 2000

enum cell_op {
    CELL_OP_STATUS = 1,  /* -> struct cell_status */
    CELL_OP_MEMORY,      /* -> struct cell_memory, memfd */
    CELL_OP_PAUSE,       /* running -> paused */
    CELL_OP_RESUME,      /* arg: epoch; paused -> running; running: sets the epoch */
    CELL_OP_RUN,         /* arg: epoch; loaded -> running; running under it already: 0 */
    CELL_OP_STATE_GET,   /* paused; -> struct cell_state */
    CELL_OP_STATE_SET,   /* struct cell_state (untrusted); made -> loaded */
    CELL_OP_DIRTY_START, /* -> memfd of the bitmap, (n_pages + 63) / 64 words */
    CELL_OP_DIRTY_FETCH, /* writes the bitmap of pages written since the last time;
                          * -> uint64_t, number of them */
    CELL_OP_DIRTY_STOP,
    CELL_OP_THROTTLE,       /* arg: per cent of the time in which the guest stands still, 0..99 */
    CELL_OP_PINNED,         /* -> struct cell_range: pages the backend may touch */
    CELL_OP_POSTCOPY_START, /* loaded; memfd with a bitmap of missing pages (they are dropped)
                             * -> userfaultfd of the cell's memory at cell_memory.base.
                             * Again (running, too; bitmap ignored): the same; faults not
                             * resolved yet are reported again */
    CELL_OP_POSTCOPY_END,
    CELL_OP_SHUTDOWN, /* clean: the guest closes its interface, then the process ends */
    CELL_OP_DESTROY,  /* at once; answered when the vif is gone; then the process ends */
};

enum cell_run_state {
    CELL_MADE = 1, /* --incoming: waits for memory and state */
    CELL_LOADED,   /* has them, never ran here */
    CELL_RUNNING,
    CELL_PAUSED,
    CELL_DEAD, /* crashed or halted by itself; 'why' says how */
};

struct cell_req {
    uint32_t magic;
    uint16_t version;
    uint16_t op; /* enum cell_op */
    uint32_t seq;
    uint32_t len; /* of data */
    uint64_t arg;
    uint8_t data[CELL_DATA_MAX];
};
#define CELL_REQ_HDR offsetof(struct cell_req, data)
_Static_assert(CELL_REQ_HDR == 24, "a wire format");

struct cell_rep {
    uint32_t magic;
    uint32_t seq;
    uint32_t error; /* 0 or an errno */
    uint32_t len;
    uint8_t data[CELL_DATA_MAX];
};
#define CELL_REP_HDR offsetof(struct cell_rep, data)
_Static_assert(CELL_REP_HDR == 16, "a wire format");

struct cell_memory {
    uint64_t base;   /* where the cell's process has it mapped */
    uint64_t offset; /* of page 0 in the memfd */
    uint64_t n_pages;
};

struct cell_range {
    uint64_t first, n; /* pages */
};

/* What moves besides the memory. */
struct cell_state {
    uint32_t magic;
    uint32_t version;
    uint8_t build_id[CELL_BUILD_ID_BYTES]; /* of the image */
    uint8_t mac[6];
    uint16_t zero;
    uint64_t base, n_pages;
    uint64_t sp;       /* stack pointer; callee-saved registers lie above it */
    uint64_t clock_ns; /* the guest's clock, which stands while it is moved */
};
_Static_assert(sizeof(struct cell_state) == 72, "a wire format");

struct cell_status {
    uint32_t state;     /* enum cell_run_state */
    uint32_t vif_state; /* the backend's XenBus state; 0: none */
    uint64_t epoch;     /* under which it last ran here; 0: never */
    uint64_t base, n_pages;
    uint8_t build_id[CELL_BUILD_ID_BYTES];
    uint32_t connected;    /* the interface, now */
    uint64_t run_ns;       /* CLOCK_MONOTONIC of the last start; 0: never */
    uint64_t connected_ns; /* ... when the interface connected after it; 0: not yet */
    uint64_t first_rx_ns;  /* ... of the first frame after that */
    uint64_t cpu_ns;       /* of the guest's thread */
    char dirty_log[16];    /* "", "async", "sync" */
    char why[128];         /* of CELL_DEAD */
};

struct cell_client {
    int fd;   /* -1: none */
    int lost; /* to what; 0: nothing */
    uint32_t seq;
};

/* ENOENT, ECONNREFUSED: no such cell (any more). */
int cell_connect(struct cell_client *, const char *path);
void cell_disconnect(struct cell_client *);
/* Without waiting: somebody does, or it is not known; false: there is no such cell. */
bool cell_listens(const char *path);

/* One operation.  'fd_in' (-1: none) goes along and stays the caller's.
 * '*n_reply' is the room in 'reply', then what came; NULL: nothing may come.
 * A descriptor that comes is '*fd_out's, which may be NULL if none does; -1 if
 * none did.  EPIPE once the cell is gone, and only then: one that did not answer in
 * time (ETIMEDOUT), which may still do what it was asked for, and one that answered
 * what is no answer are heard no more, and each further call says the same. */
int cell_call(struct cell_client *, enum cell_op, uint64_t arg, const void *data, size_t n,
              int fd_in, void *reply, size_t *n_reply, int *fd_out);
/* The same without data and descriptors. */
int cell_ask(struct cell_client *, enum cell_op, uint64_t arg);
int cell_status(struct cell_client *, struct cell_status *);

/* One message each way with at most one descriptor (-1: none); both ends use
 * them.  recv: EPIPE at the end, EPROTO if it was cut or carried more than one
 * descriptor, which are closed then. */
int cell_send(int sock, const void *bytes, size_t n, int fd);
int cell_recv(int sock, void *bytes, size_t room, size_t *n, int *fd);

#endif

/* transport_priv: what the transport's files share.
 *
 *   transport.c          queue, calls of the engine
 *   transport_send.c     a connection's sender thread
 *   transport_receive.c  its receiver thread
 *   transport_connect.c  listening, connecting, handshake
 *   transport_limit.c    limits of rate and CPU time
 *   transport_peer.c     gives up peers that are dead
 *
 * One lock guards the queues and what the threads tell each other; it is taken once
 * per record, chunk, barrier or set of pages, never per page. */
#ifndef WEFT_MIGRATE_TRANSPORT_PRIV_H
#define WEFT_MIGRATE_TRANSPORT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "page_choice.h"
#include "transport.h"
#include "transport_io.h"
#include "transport_limit.h"

enum {
    TX_QUEUE_BYTES = 8 << 20, /* of records and chunks that wait to be sent */
    TX_SMALL_BYTES = 1 << 20, /* beyond them, of records that nothing waits with */
    URGENT_MAX = 256,         /* pages asked for and not yet sent, of a connection */
    PAGES_PER_WORD = 64,      /* of a bitmap */
    WORDS_PER_HUGE_PAGE = MIG_HUGE_PAGE / MIG_PAGE / PAGES_PER_WORD,
    STRIPES_MIN = 4, /* of a huge page, for each connection; else stripes are a word */
    DEAD_PEER_MS = 5000,
    STALL_MS = 10000,
};

/* Pages to send; shared by the connections' items. */
struct page_set {
    atomic_uint refs;
    uint64_t first, n;
    bool all; /* no bitmap */
    uint64_t bitmap[];
};

enum tx_kind { TX_PAGES, TX_RECORD, TX_BARRIER, TX_END };

struct tx_item {
    struct tx_item *next;
    enum tx_kind kind;
    struct page_set *set;  /* PAGES */
    uint32_t round, flags; /* PAGES */
    uint64_t number;       /* BARRIER */
    uint32_t type;         /* RECORD */
    size_t len;
    uint8_t data[];
};

struct rx_item {
    struct rx_item *next;
    struct transport_message m;
};

struct connection {
    struct transport *t;
    unsigned index;
    struct io io;
    pthread_t sender, receiver;
    bool sender_on, receiver_on;

    /* Under the transport's lock. */
    struct tx_item *head, **tail;
    pthread_cond_t work;
    uint64_t urgent[URGENT_MAX];
    unsigned n_urgent;
    bool ended; /* the peer said so */

    /* The sender's. */
    struct mig_encoder *encoder;
    struct mig_batch tx_batch;
    const void *payload[MIG_BATCH_PAGES];
    uint8_t tx_head[MIG_BATCH_HEAD_MAX];
    uint32_t tx_sequence, tx_round, tx_flags;
    uint64_t tx_descriptors, tx_cpu;
    struct wire_cost wire;

    /* The receiver's. */
    struct mig_decoder *decoder;
    struct mig_batch rx_batch;
    uint8_t rx_head[MIG_BATCH_HEAD_MAX];
    uint8_t *scratch; /* RX_SLICE pages */
    struct mig_sum rx_sum;
    uint32_t rx_sequence;
    uint64_t rx_descriptors, rx_barrier;

    /* The watcher's. */
    uint64_t acked, acked_ns;

    /* Written by its threads, read by any. */
    _Atomic uint64_t pages_by_kind[MIG_KINDS], pages_received;
    atomic_uint urgent_waiting; /* n_urgent, to look without the lock */
};

struct transport {
    bool source, chunks;
    unsigned n;
    struct connection *c;
    struct mig_hello hello; /* ours; index of connection 0 */
    enum mig_compress compress;
    size_t delta_cache_bytes;
    uint8_t *memory; /* the destination's: set before rx_memory */
    uint64_t n_pages;
    _Atomic uint64_t *touched; /* a bit for each huge page of the memory */
    unsigned stripe_words;     /* the source's; transport_stripe() */
    struct mig_digest digest;
    atomic_bool rx_memory; /* memory and digest are there */
    int (*place)(void *aux, uint64_t pfn, const uint8_t *page);
    void *place_aux;
    atomic_bool rx_place; /* place is set */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* any of the following */
    atomic_int error;       /* the first one; written under lock */
    char why[TRANSPORT_WHY];
    uint32_t tx_round, tx_flags; /* of the pages handed over next */
    size_t tx_bytes;
    uint64_t tx_items; /* handed over, not yet sent */
    uint64_t tx_barriers, tx_chunks;
    uint64_t tx_cpu;  /* of the thread that hands over chunks: it has packed them */
    unsigned tx_next; /* connection of the next chunk */
    struct rx_item *rx_head, **rx_tail;
    size_t rx_bytes;
    unsigned rx_ended;
    uint64_t rx_chunk;                /* the next to be queued */
    uint64_t rx_barrier;              /* passed by all connections */
    unsigned rx_barrier_there;        /* connections that wait at the next */
    atomic_uint rx_since_barrier;     /* batches, not of post-copy */
    atomic_bool rx_final;             /* FINAL is there: only post-copy's pages follow */
    int rx_fd;                        /* eventfd */
    _Atomic uint64_t barriers_placed; /* by the far end */
    _Atomic int64_t pages_waiting;
    struct limit rate, cpu;

    unsigned dead_peer_ms, stall_ms;
    int closing_fd; /* eventfd, for the watcher */
    pthread_t watcher;
    bool watcher_on;
};

/* --- transport.c ---------------------------------------------------------- */

/* The first failure; cuts everything.  Without the lock. */
void transport_fail(struct transport *, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Queues a record without waiting for room (a receiver thread must not). */
int transport_push_record(struct transport *, unsigned index, uint32_t type, const void *, size_t);
/* A received body, which it takes over; waits for room.  'chunk' >= 0: when its turn comes. */
int transport_deliver(struct transport *, uint32_t type, uint8_t *data, size_t len, int64_t chunk);
/* With the lock: something for transport_rx(). */
void transport_signal_rx(struct transport *);
void transport_cond_init(pthread_cond_t *);
/* With the lock.  'deadline_ns' on CLOCK_MONOTONIC; 0: none.  False when it is over. */
bool transport_wait(struct transport *, pthread_cond_t *, uint64_t deadline_ns);
uint64_t transport_now(void);
void page_set_unref(struct page_set *);

/* So many words of a bitmap, neighbours, share a connection.  If two connections shared a huge
 * page, both would come to it at about the same time, both threads at the far end would find it
 * untouched and clear one for it, and one of these is thrown away.  In post-copy the far end has a
 * way of its own, and few pages are queued at once: those shall keep all connections busy. */
static inline unsigned
transport_stripe(const struct transport *t, uint32_t flags)
{
    return flags & MIG_BATCH_POSTCOPY ? 1 : t->stripe_words;
}

static inline unsigned
transport_connection_of(const struct transport *t, uint64_t word, unsigned stripe)
{
    return word / stripe % t->n;
}

/* --- the threads ---------------------------------------------------------- */

/* What the calling thread has computed since '*seen' counts against the limit. */
void transport_charge_cpu(struct transport *, uint64_t *seen);
void *transport_sender(void *connection);
void *transport_receiver(void *connection);
void *transport_peer_main(void *transport);
/* A transport of 'n' connections without sockets; the threads start afterwards. */
int transport_create(const struct transport_config *, bool source, struct transport **);
int transport_start(struct transport *);

#endif

/* transport: one migration's N connections between source and destination.
 *
 * Both ends run one sender and one receiver thread per connection.  What is
 * handed over is put into a bounded queue that the sender threads share; what
 * arrives is placed (pages) or queued (records, chunks) by the receiver threads.
 *
 *   pages    any connection, a page always the same.  The page codec (page.h) chooses how each is
 * sent; raw ones are written from where they lie and read into place. records  connection 0, in
 * order.  Both directions. chunks   (stream drivers) any connection; the destination gets them in
 * the order in which they were handed over. barrier  everything handed over before it has been
 * placed or queued at the far end before anything that was handed over after it is.
 *
 * So a record that must follow pages, and a page that was sent before (its older
 * content could still be under way on another connection), need a barrier in
 * between: the engine puts one at the end of each round.
 *
 * Nothing is lost or doubled on a transport that has not failed.  The first
 * failure of any thread fails all of it: the connections are shut down, blocked
 * callers return its errno, and so does every later call.
 *
 * The far end is hostile until it has proved who it is, and nothing of it is
 * believed after that: lengths, page numbers, counts, orders are checked, and
 * memory held for it is bounded (TRANSPORT_QUEUE_BYTES and one batch per thread).
 *
 * Threads: transport_tx_* of one transport from one thread, transport_rx_* from
 * one (maybe another), all else from any; transport_close when nobody else is in
 * a call.  Errors: 0 or a positive errno; ECONNRESET, ETIMEDOUT, EPIPE: the peer
 * is gone; EBADMSG: it sent what nobody may send; ECANCELED: transport_cancel;
 * EPROTO: refused at the handshake. */
#ifndef WEFT_MIGRATE_TRANSPORT_H
#define WEFT_MIGRATE_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"
#include "record.h"

enum {
    TRANSPORT_CONNECTIONS_MAX = 16,
    TRANSPORT_QUEUE_BYTES = 8 << 20, /* of received records and chunks not yet taken */
    TRANSPORT_WHY = 256,
};

/* Files in PEM.  Both ends show a certificate of this CA; the far end's must be
 * valid now, and for 'peer_name': an IP address, a DNS name, or the common name if it has none. */
struct transport_tls {
    const char *private_key, *certificate, *ca_cert;
    const char *crl; /* of that CA; or NULL: none is asked */
    const char *peer_name;
};

/* What both ends must agree on; bound into each TLS session. */
struct transport_identity {
    uint8_t vm[16], migration[16]; /* uuids */
    uint64_t epoch;                /* of the VM, before the switch-over */
};

struct transport_config {
    struct transport_identity identity;
    const struct transport_tls *tls; /* NULL: plain TCP.  Read during the call only. */
    unsigned n_connections;          /* 1 to TRANSPORT_CONNECTIONS_MAX; both ends the same */
    unsigned handshake_timeout_ms;   /* of all connections together; 0: 10,000 */
    unsigned dead_peer_ms;           /* a machine that does not answer is given up; 0: 5,000 */
    unsigned stall_ms;               /* a peer that takes nothing; 0: 10,000 */
    uint8_t *memory;                 /* source: the guest's; NULL with a stream driver */
    uint64_t n_pages;                /* source: of it */
    bool chunks;                     /* a stream driver; both ends the same */
    enum mig_compress compress;
    size_t delta_cache_bytes; /* of all connections together; 0: no deltas */
    const char *congestion; /* source: TCP's congestion control; NULL: the system's, but not BBR */
    const char *capture;    /* directory: what this end sends is also written to its
                             * files conn<index>.source or .destination; or NULL */
};

struct transport;
struct transport_listener;

/* 'address': "IP:PORT" or "[IP6]:PORT"; port 0 takes a free one. */
int transport_listen(const char *address, struct transport_listener **, char why[TRANSPORT_WHY]);
/* What it is bound to, as text; lives as long as the listener. */
const char *transport_listener_address(const struct transport_listener *);
void transport_listener_close(struct transport_listener *);
/* Somebody, friend or not, is waiting for transport_accept(). */
bool transport_listener_wait(const struct transport_listener *, int timeout_ms);

/* The destination; any number of times on one listener.  Returns when all n_connections of the
 * migration are there, or the time is over (ETIMEDOUT), or cancel_fd (an eventfd, or -1) is
 * readable (ECANCELED).  Strangers are refused meanwhile and do not delay it. */
int transport_accept(struct transport_listener *, const struct transport_config *, int timeout_ms,
                     int cancel_fd, struct transport **, char why[TRANSPORT_WHY]);
/* The source. */
int transport_connect(const char *address, const struct transport_config *, struct transport **,
                      char why[TRANSPORT_WHY]);
/* Ends all threads and connections, whatever their state.  What was queued and not
 * sent is lost: transport_flush first.  Accepts NULL. */
void transport_close(struct transport *);

/* --- sending --------------------------------------------------------------
 * Pages never block: they are read when a sender comes to them, and a page that is
 * written meanwhile must be sent again (it is dirty).  Records and chunks are copied,
 * and block while the queue is full. */

int transport_tx_run(struct transport *, uint64_t pfn, uint64_t n_pages);
/* All pages whose bit is set (bit pfn % 64 of word pfn / 64) among n_pages. */
int transport_tx_bitmap(struct transport *, const uint64_t *bitmap, uint64_t n_pages);
/* Of the pages handed over from here on: their round, and MIG_BATCH_EXACT while the
 * guest is paused, MIG_BATCH_POSTCOPY once it runs at the destination (page.h). */
void transport_tx_round(struct transport *, uint32_t round, uint32_t flags);
/* A page that is waited for (post-copy): goes before all that is queued. */
int transport_tx_urgent(struct transport *, uint64_t pfn);
/* 'type': enum mig_type, without PAGES, BARRIER, CHUNK, PLACED and END, which are the
 * transport's own.  'data': its body. */
int transport_tx_record(struct transport *, uint32_t type, const void *data, size_t len);
/* The same, without waiting: EAGAIN while the queue is full. */
int transport_tx_record_now(struct transport *, uint32_t type, const void *data, size_t len);
/* At most MIG_MAX_BLOB bytes. */
int transport_tx_chunk(struct transport *, const void *data, size_t len);
int transport_tx_barrier(struct transport *);
/* Nothing follows.  The far end then gets ENODATA; without it, the end of a connection
 * is a failure. */
int transport_tx_end(struct transport *);
/* That, and waits until all is sent and the far end has said the same.  What it sends
 * until then is thrown away.  Both ends, before transport_close(). */
int transport_finish(struct transport *, int timeout_ms);
/* Waits until all that was handed over has been given to the kernel; ETIMEDOUT. */
int transport_flush(struct transport *, int timeout_ms);
/* The same, and until the far end has passed all barriers. */
int transport_wait_placed(struct transport *, int timeout_ms);

/* --- receiving ------------------------------------------------------------ */

struct transport_message {
    uint32_t type; /* enum mig_type; MIG_CHUNK: 'data' are the chunk's own bytes */
    size_t len;
    uint8_t *data; /* the body, for mig_msg_get(); transport_message_done() frees it */
};

/* The next record or chunk.  Negative timeout: none.  ETIMEDOUT when it is over;
 * ENODATA when the peer closed in order and all was taken.  What was received
 * before a failure is still handed out before the failure is reported. */
int transport_rx(struct transport *, struct transport_message *, int timeout_ms);
void transport_message_done(struct transport_message *);
/* Readable while transport_rx would not block.  The transport's; do not read it. */
int transport_rx_fd(const struct transport *);
/* Pages of the guest, as the source's hello has it. */
uint64_t transport_n_pages(const struct transport *);
/* The destination's memory, all zeros, before it lets the source send pages.  ENOMEM;
 * EINVAL: not as many pages as the hello says. */
int transport_set_memory(struct transport *, uint8_t *memory, uint64_t n_pages);
/* Memory drivers: what the pages sent or placed add up to (digest.h); equal at both
 * ends when all is placed.  At the source: after transport_flush() of a barrier.  At the
 * destination: when a record arrived that was sent after a barrier. */
struct mig_sum transport_digest(const struct transport *);
/* The pages in 'bitmap' no longer count (post-copy: they are sent later, and what was sent of
 * them may have been torn).  When transport_digest() may be called. */
void transport_forget(struct transport *, const uint64_t *bitmap);
/* The destination's hashes, for checks: of page pfn at [pfn]. */
const struct mig_digest *transport_hashes(const struct transport *);
/* Post-copy: pages of such batches are handed to 'place' instead of being written into
 * memory, by any receiver thread; EEXIST: the page is there already.  Set before the far
 * end sends the first such page. */
void transport_rx_place(struct transport *,
                        int (*place)(void *aux, uint64_t pfn, const uint8_t *page), void *aux);

/* --- control -------------------------------------------------------------- */

/* All blocked calls return ECANCELED. */
void transport_cancel(struct transport *);
/* 0, or why it failed; the sentence, if wanted, lives as long as the transport. */
int transport_error(const struct transport *, const char **why);

/* Over all connections, of this end's sending.  0: no limit. */
void transport_limit_rate(struct transport *, uint64_t bytes_per_s);
/* Of one CPU, of this end's sender threads together; 0: no limit. */
void transport_limit_cpu(struct transport *, unsigned percent);

/* Since the start; each but one never decreases. */
struct transport_stats {
    uint64_t wire_bytes_sent, wire_bytes_received; /* as handed to and taken from the kernel */
    uint64_t pages_sent, pages_received;
    uint64_t pages_by_kind[MIG_KINDS]; /* of those sent, how; [0]: the far end had it */
    uint64_t pages_waiting;            /* handed over, not yet sent; may decrease */
    uint64_t barriers_placed;          /* passed by the far end */
};
void transport_get_stats(const struct transport *, struct transport_stats *);

#endif

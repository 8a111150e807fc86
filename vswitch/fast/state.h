/* state: the insides of engines and workers, for the files of this folder. */
#ifndef STATE_H
#define STATE_H

#include <rte_mbuf.h>

#include "counters.h"
#include "engine.h"
#include "exact.h"
#include "key.h"
#include "record.h"
#include "smc.h"

#define likely_(x) __builtin_expect(!!(x), 1)
#define unlikely_(x) __builtin_expect(!!(x), 0)

struct engine {
    const struct engine_ops *ops;
    void *aux;
    /* Replaced as a whole; the old one goes an epoch later. */
    struct key_masks *_Atomic masks;
    struct key_masks exact;           /* every bit: when there was no memory for others */
    struct fast_port *_Atomic *ports; /* ENGINE_PORTS_MAX */
    struct counters counters;
    struct recording recording;
};

/* Stands for "drop" where a port is expected, so that plain drops and plain
 * outputs take the same path. */
#define PORT_DROP ENGINE_PORTS_MAX

#define OUT_LISTS 32u
#define OUT_HASH 128u

/* Packets on their way to one port.  Twice a burst fits: one is what a list
 * may have between calls, another what a worker_run() may add, so that it need
 * not look. */
struct out_list {
    uint32_t key; /* port + 1; 0: the list is not in use */
    uint32_t n;
    struct rte_mbuf *pkts[2 * ENGINE_BURST];
};

#define HOT_PORTS 16u

struct worker_counts {
    _Atomic uint64_t packets, hits, misses, verdicts, odd, learned;
    _Atomic uint64_t drops[ENGINE_N_DROPS];
    _Atomic uint64_t evicted, entries, size; /* of the caches, as last looked at */
};

struct worker {
    struct epoch_reader reader;
    struct engine *engine;
    void *aux;
    int64_t now;                    /* ms */
    bool keys_differ, flows_differ; /* in the last burst: what to expect */
    bool records_differ;            /* likewise, in the last one that was recorded */
    bool partial;                   /* packets may be */
    struct smc smc;
    struct exact narrow, wide;
    uint16_t hot[HOT_PORTS]; /* by port: the entry in smc that its last burst was of */
    struct slots slots;
    struct worker_counts counts;
    const struct program *slow; /* what ops->slow() is running; NULL */
    /* Records: in use while the worker is online; else parked, for the collector, too. */
    struct record_table *records;
    struct record_table *_Atomic parked;
    uint32_t sample_left;       /* packets until the next that is recorded */
    uint32_t metered;           /* of sampled ports, by meters dropped */
    struct worker *next_worker; /* of recording.workers */
    /* Lists in use are those whose bit is set.  A port's list is where
     * out_of[] says, or anywhere, or nowhere yet. */
    uint32_t out_used;
    struct out_list *out_of[OUT_HASH];
    struct out_list out[OUT_LISTS];
};

/* The worker's own: no one else writes. */
#define WORKER_ADD(w, field, v)                                                                    \
    atomic_store_explicit(&(w)->counts.field,                                                      \
                          atomic_load_explicit(&(w)->counts.field, memory_order_relaxed) + (v),    \
                          memory_order_relaxed)

/* --- worker.c ------------------------------------------------------------- */

/* The caches' sizes, for who asks. */
void worker_publish(struct worker *);

/* Whole from here on; returns how many are left. */
static inline unsigned
worker_complete(const struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    return w->partial ? w->engine->ops->complete(pkts, n) : n;
}

/* --- out.c ---------------------------------------------------------------- */

void out_init(struct worker *);
/* The list of 'port'; may send others. */
struct out_list *out_list_slow(struct worker *, uint16_t port);
/* Sends what the list has; it is no longer in use. */
void out_list_flush(struct worker *, struct out_list *);

/* n <= ENGINE_BURST packets; where no list waits they go as they are. */
void out_burst(struct worker *, uint16_t port, struct rte_mbuf **, unsigned n);

static inline struct out_list *
out_list(struct worker *w, uint16_t port)
{
    struct out_list *l = w->out_of[port % OUT_HASH];

    return likely_(l->key == port + 1u) ? l : out_list_slow(w, port);
}

/* A packet of the burst that worker_run() is at. */
static inline void
out_one(struct worker *w, uint16_t port, struct rte_mbuf *m)
{
    struct out_list *l = out_list(w, port);

    l->pkts[l->n++] = m;
}

/* --- record_worker.c ------------------------------------------------------- */

/* At the start of a turn: takes or makes the table, or gives it up. */
void record_turn(struct worker *);
/* The table's next look, once a turn. */
void record_turn_end(struct worker *);
void record_park(struct worker *);
/* The record of a packet that the cache found in 'e'; NULL: no memory. */
struct record_hot *record_new(struct worker *, const struct key_wide *, __m128i id, uint8_t tos);
/* Where e's packets go is not where those of 'r' went. */
void record_other_way(struct worker *, struct record_hot *, const struct exact_entry *e);
void record_lost(struct worker *, unsigned packets, uint64_t bytes);
void record_add_worker(struct worker *);
void record_remove_worker(struct worker *);

static inline bool
record_wanted(const struct worker *w)
{
    return unlikely_(atomic_load_explicit(&w->engine->recording.on, memory_order_relaxed) ||
                     w->records);
}

/* --- act.c ------------------------------------------------------------------ */

/* Writes p's edits to the frame; false: no headroom, some may be done. */
bool act_edit(struct rte_mbuf *, const struct program *);

/* Runs a program on a burst; consumes it. */
void act_run(struct worker *, uint16_t in_port, const struct program *, struct rte_mbuf **,
             unsigned n);

/* Hands packets to ops->slow(). */
void act_slow(struct worker *, uint16_t in_port, const struct program *, struct rte_mbuf **,
              unsigned n);

#define ACT_TAG_LEN 4u
#define ACT_TX_OFFLOADS (RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IP_CKSUM)

void act_move_l2_len(struct rte_mbuf *, int by);

/* 'tag': TPID and TCI as in a frame.  False: no headroom. */
static inline bool
act_push_tag(struct rte_mbuf *m, uint32_t tag)
{
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *);
    uint64_t first;
    uint32_t rest;

    if (unlikely_(m->data_off < ACT_TAG_LEN || m->data_len > UINT16_MAX - ACT_TAG_LEN)) {
        return false;
    }
    memcpy(&first, d, sizeof first);
    memcpy(&rest, d + 8, sizeof rest);
    d -= ACT_TAG_LEN;
    memcpy(d, &first, sizeof first);
    memcpy(d + 8, &rest, sizeof rest);
    memcpy(d + 12, &tag, sizeof tag);
    m->data_off -= ACT_TAG_LEN;
    m->data_len += ACT_TAG_LEN;
    m->pkt_len += ACT_TAG_LEN;
    if (unlikely_(m->ol_flags & ACT_TX_OFFLOADS)) {
        act_move_l2_len(m, ACT_TAG_LEN);
    }
    return true;
}

/* What a program's VLAN push looks like on the wire. */
static inline uint32_t
act_tag(const struct edit *e)
{
    /* OVS marks in the action that there is a tag; on the wire that bit is 0. */
    return e->vlan.tpid | (uint32_t)(e->vlan.tci & RTE_BE16(0xefff)) << 16;
}

#endif

/* fast_rig: an engine with ports that keep what they are sent and an adapter
 * that is told which flow a packet is of.
 *
 * Single-threaded but for what its users make of it: each worker's 'miss' is
 * served on that worker's thread. */
#ifndef FAST_RIG_H
#define FAST_RIG_H

#include <rte_mbuf.h>

#include "fast/engine.h"
#include "fast_frames.h"

#define FAST_RIG_HEADROOM 64u

/* One of malloc's, of exactly 'len' bytes after the headroom. */
struct rte_mbuf *fast_rig_mbuf(const void *frame, unsigned len);
void fast_rig_mbuf_free(struct rte_mbuf **, unsigned n);
/* Made and not freed, since the start. */
long fast_rig_mbufs_alive(void);

struct fast_rig_port {
    struct fast_port port;
    uint16_t index;
    uint64_t _Atomic packets, bytes, sends;
    struct rte_mbuf *last; /* the newest packet, kept; if 'keep' */
    bool keep;
};

void fast_rig_port_init(struct fast_rig_port *, struct engine *, uint16_t index);
void fast_rig_port_done(struct fast_rig_port *, struct engine *);

/* Recording ends; 'take' is told of all that is left, and the worker is gone. */
void fast_rig_record_end(struct engine *, struct worker *, int64_t now,
                         void (*take)(const struct record_block *, void *aux));

/* Programs of malloc's. */
struct program *fast_rig_program(enum program_kind, uint16_t port);
struct program *fast_rig_program_push(uint16_t port, uint16_t tci); /* host order */

#endif

/* lane: a burst on its way through worker_run(), for the files that are its
 * steps: parse.c, burst.c, later.c. */
#ifndef LANE_H
#define LANE_H

#include "state.h"

/* Packets of one form of key. */
struct lane {
    unsigned n;
    bool same;   /* all keys are equal, or of 'hot' */
    bool hashed; /* hashes[] is set */
    /* If 'same': all keys are of this megaflow, equal or not; NULL: they are equal. */
    struct smc_entry *hot;
    uint16_t tcp_flags_or;
    uint64_t bytes;
    uint64_t l3_bytes; /* as the headers have them; parse.sized, and all frames are common ones */
    struct rte_mbuf **pkts;
    struct exact_entry *entries[ENGINE_BURST];
    const struct key *masks[ENGINE_BURST]; /* of entries' keys; narrow lanes only */
    uint32_t hashes[ENGINE_BURST];
    uint16_t tcp_flags[ENGINE_BURST];
};

struct narrow_lane {
    struct lane l;
    struct key keys[ENGINE_BURST];
};

struct wide_lane {
    struct lane l;
    struct rte_mbuf *pkts[ENGINE_BURST];
    struct key_wide keys[ENGINE_BURST];
};

/* The records of a lane's packets. */
struct record_lane {
    bool same;               /* all packets are of one record */
    bool hashed;             /* the parser has set 'ids', 'hashes' and 'bytes_of' */
    bool sampled;            /* not all are recorded: 'skip' */
    uint64_t bytes;          /* of all */
    uint64_t skip[2];        /* bits of packets that are not sampled */
    const struct key *whole; /* the lane's keys, as parsed */
    struct record_hot *records[ENGINE_BURST]; /* perhaps; record_none */
    __m128i ids[ENGINE_BURST];
    uint32_t hashes[ENGINE_BURST];
    uint16_t bytes_of[ENGINE_BURST];
    struct key_wide masked[ENGINE_BURST]; /* as the cache knows them, where they differ */
};

/* Packets for later. */
struct pile {
    unsigned n;
    struct rte_mbuf *pkts[ENGINE_BURST];
};

/* Packets whose entries want more than a plain output. */
struct entry_pile {
    unsigned n;
    struct rte_mbuf *pkts[ENGINE_BURST];
    struct exact_entry *entries[ENGINE_BURST];
    uint16_t tcp_flags[ENGINE_BURST];
};

static inline void
pile_add(struct pile *p, struct rte_mbuf *m)
{
    p->pkts[p->n++] = m;
}

/* --- parse.c ------------------------------------------------------------- */

/* Where frames go.  Lists are empty at first. */
struct parse {
    struct narrow_lane *narrow;
    struct wide_lane *wide;
    struct pile *odd, *brief;
    const struct key_masks *masks;
    struct record_lane *records; /* of the narrow lane, to be filled in; NULL */
    struct smc_entry *hot;       /* what the burst may be of; NULL */
    bool sized;                  /* without 'records': the narrow lane's l3_bytes are wanted */
    uint16_t in_port;
};

/* Parses frames of the common form into places of the narrow lane that are
 * their own in the burst.  The others' indices go to 'others'; returns how
 * many there are.  While there are none, the lane is the burst.
 *
 * 'diverse': keys are expected to differ, and are hashed at once; else they
 * are compared with what p->hot matches, or with each other, which is all it
 * takes if they are equal after all.  With p->records they are compared, and
 * their records' keys hashed. */
unsigned parse_common(const struct worker *, const struct parse *, struct rte_mbuf **, unsigned n,
                      uint8_t *others, bool diverse);
/* Gives each of the others its place, and closes the gaps in the narrow lane
 * ('kept', as large as the burst, is its new list of packets). */
void parse_others(const struct parse *, struct rte_mbuf **, unsigned n, const uint8_t *others,
                  unsigned n_others, struct rte_mbuf **kept);

/* --- later.c --------------------------------------------------------------- */

/* Packets whose flow is counted: edits them, asks verdicts, hands to the slow
 * path. */
void go_later(struct worker *, uint16_t in_port, const struct entry_pile *);

#endif

/* journal: a vif's control state, outside the process that serves it.
 *
 * Hash settings, static grants and the multicast list reach a backend through
 * the rings and are nowhere in xenstore; a successor of a killed backend must
 * know them.  They live in a file (of a tmpfs) that is mapped shared, so
 * every change is in the journal the moment it is made.
 *
 * No log and no transactions are needed: a control request counts as done
 * only when its response is in the ring.  One that was cut short is found
 * unanswered by the successor and carried out again; hash and multicast
 * requests are idempotent, and each grant entry names the request that made
 * or is removing it, so that unanswered ones are undone first.  Answers that
 * were being written are finished first of all (struct rsp_log, ring.h).
 *
 * Threads: fields follow the rules of what they hold (ring.h).  Grant
 * entries are changed by the thread that runs the control ring. */
#ifndef JOURNAL_H
#define JOURNAL_H

#include "ring.h"

#define JOURNAL_GREFS_MAX 4096u /* per queue */

enum jgref_state { JGREF_FREE, JGREF_MAPPED, JGREF_REMOVING };

struct jgref {
    uint32_t ref;
    uint32_t request; /* control ring index of the request that set 'state' */
    uint8_t state;    /* enum jgref_state; written last */
    uint8_t readonly;
};

/* What identifies one connection of a frontend.  State of another connection
 * is not replayed. */
struct journal_connection {
    uint32_t n_queues;
    uint32_t ctrl_ref, ctrl_port;
    struct {
        uint32_t tx_ref, rx_ref, tx_port, rx_port;
    } queue[NETBACK_MAX_QUEUES];
};

struct journal {
    uint64_t magic;
    uint32_t version, size;
    struct journal_connection connection;
    struct mcast_list mcast;
    struct ctrl_log ctrl_log;
    struct rsp_log tx_log[NETBACK_MAX_QUEUES], rx_log[NETBACK_MAX_QUEUES];
    struct hash_settings hash; /* its 'mapping' points below; set at each open */
    _Atomic uint32_t hash_mapping[HASH_MAPPING_MAX];
    /* Entries in use lie below; the rest of the file stays a hole. */
    uint32_t gref_top[NETBACK_MAX_QUEUES];
    struct jgref grefs[NETBACK_MAX_QUEUES][JOURNAL_GREFS_MAX];
};

/* Opens or creates DIR/vif-DOMID.HANDLE.  A file that is not a journal of
 * this version is replaced by an empty one. */
int journal_open(const char *dir, uint16_t domid, uint32_t handle, struct journal **);
void journal_close(struct journal *); /* accepts NULL; keeps the file */
void journal_remove(const char *dir, uint16_t domid, uint32_t handle);

/* Starts over for a new connection. */
void journal_reset(struct journal *, const struct journal_connection *);
/* True if the state belongs to this connection. */
bool journal_matches(const struct journal *, const struct journal_connection *);

/* Notes that 'ref' of queue 'q' is mapped, by request number 'request'. */
int journal_gref_add(struct journal *, unsigned q, uint32_t ref, bool readonly, uint32_t request);
void journal_gref_removing(struct journal *, unsigned q, uint32_t ref, uint32_t request);
/* Settles entries against the control ring's 'answered' index (rsp_prod): what an
 * unanswered request added is forgotten, what one was removing is kept. */
void journal_settle(struct journal *, uint32_t answered);

#endif

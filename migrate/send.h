/* send: the source's own state; private to the engine.
 *
 * Threads: the engine's. */
#ifndef WEFT_MIGRATE_SEND_H
#define WEFT_MIGRATE_SEND_H

#include "end.h"
#include "policy.h"

struct source {
    struct mig_end *e;
    uint64_t *bitmap; /* to be sent */
    size_t words;
    struct policy_memory policy;
    struct policy_decision decision;
    bool begun;   /* the guest was running when we came: what stopped it was us */
    bool logging; /* dirty log is on */
    unsigned int throttle;
    bool may_be_final; /* FINAL may have been sent: the row decides */
    bool ready;        /* READY has come: commit */
    uint64_t *pending; /* post-copy: what is owed; NULL: none */
    uint64_t n_chunks;
    struct policy_rates rates; /* of a stream driver's rounds */
    int hold_error;            /* of a stream driver's vifs; written before its last chunk */
    uint64_t carried;          /* pages with content, sent by the end of the last round */
};

/* --- send.c ---------------------------------------------------------------------- */

/* What the far end has said meanwhile, and the user: ECONNABORTED, ECANCELED, or why the
 * transport failed. */
int send_look(struct mig_end *);
/* Waits with one of the transport's two ways to wait, looking up meanwhile. */
int send_wait(struct mig_end *, int (*wait)(struct transport *, int timeout_ms));
/* The vifs' state; lost network state fails no migration. */
int send_network(struct mig_end *);

/* --- send_memory.c: memory drivers ------------------------------------------------- */

uint64_t send_count(const uint64_t *bitmap, size_t words);
/* Rounds until the policy says that it is time. */
int send_precopy(struct source *);
/* The guest stops; its last pages and all that is not memory go out. */
int send_stop_and_copy(struct source *);

/* --- send_stream.c: stream drivers --------------------------------------------------- */

/* All of it: rounds and pause are the toolstack's. */
int send_stream(struct source *);

#endif

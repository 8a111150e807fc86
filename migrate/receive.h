/* receive: the destination's own state; private to the engine.
 *
 * Threads: the engine's, except where stated. */
#ifndef WEFT_MIGRATE_RECEIVE_H
#define WEFT_MIGRATE_RECEIVE_H

#include "end.h"

struct destination {
    struct mig_end *e;
    struct mig_blob state, network;
    uint64_t n_chunks;
    bool ready; /* READY may have been sent: the row decides */
    uint64_t final_ns, ready_ns, running_ns, paused_before_ns;
    uint64_t last_ns[NETWORK_VIFS_MAX]; /* source's clock */
    int64_t clock_ahead_ns;             /* source's clock less ours */
    uint64_t clock_took_ns;             /* of the sample that says so */

    /* Post-copy.  `missing` is what the source owes; a page's bit in `there` is
     * set by whichever receiver thread has placed it. */
    uint64_t *missing, n_missing; /* NULL: none */
    _Atomic uint64_t *there;
    uint64_t *wanted; /* faults not yet answered; the engine's thread */
    _Atomic uint64_t n_there;
    int fault_fd;
    bool complete;      /* postcopy_end() was called */
    bool died;          /* the guest, before that */
    uint64_t looked_ns; /* whether it has */

    /* Announces, some times, and looks for each vif's first packet: a switch may be slow to answer,
     * and neither missing pages nor late frames wait for that. */
    pthread_t announcer;
    bool announces; /* it has to be joined */
    atomic_bool watches_no_more;
    atomic_bool all_heard;                       /* the announcer's: it has ended */
    _Atomic uint64_t first_ns[NETWORK_VIFS_MAX]; /* the announcer's; 0: not yet */
    size_t n_told;                               /* of network_lost(), to the source */
};

int mig_receive_listen(struct mig_end *, struct transport_listener **);
/* ECANCELED when told to cancel (`heed`) or quit.  0: *config is a CONFIG and `message` its
 * owner. */
int mig_receive_accept(struct mig_end *, struct transport_listener *, int timeout_ms, bool heed,
                       struct transport_message *message, struct mig_msg *config);
/* The row has decided (VERDICT_NONE: ask it). */
void mig_receive_settle(struct destination *, enum verdict, struct transport_listener *);
int mig_receive_run(struct destination *);
void mig_receive_discard(struct mig_end *);
void mig_receive_late(struct destination *, const struct mig_msg *);
/* Tells the source what has become known of the vifs. */
int mig_receive_arrived(struct destination *);
void mig_receive_free(struct destination *);

/* --- postcopy_receive.c ---------------------------------------------------------- */

/* d->missing is complete and the guest loaded: they are faults from now on. */
int postcopy_prepare(struct destination *, bool save);
/* The guest runs: until all is there, however often the wire is cut, or it has died. */
int postcopy_receive(struct destination *, struct transport_listener *);

#endif

/* engine: moves one VM from this host, or to it.
 *
 *
 * Theory of operation
 * ===================
 *
 * One process per end.  The pool has one row per VM, (host, epoch); it is changed
 * only by compare-and-swap.  With S the source, D the destination, e the epoch at
 * the start:
 *
 *     source                                  destination
 *     connect    row is (S, e)?      CONFIG ->
 *                                             prepare   makes a guest, row is (S, e)?
 *                                    <- ACCEPT
 *     precopy    rounds of pages     PAGES, ROUND, BARRIER ->
 *     pause      guest stops, network held, last pages, state
 *                                    PAGES, STATE, NETWORK, PENDING ->
 *     final                          FINAL (digest) ->
 *                                             load      digest equal, state loaded
 *                                    <- READY
 *     commit     (S, e) -> (D, e+1)  COMMITTED ->
 *                                             run       under e+1, switches told
 *                                    <- RUNNING
 *     handover   late packets        LATE ->
 *     postcopy   the pages still owed, those asked for first; FINAL -> , <- READY
 *     done       guest destroyed     END ->
 *
 * Who may run the guest
 * ---------------------
 * Up to FINAL: the source, under e, and nobody asks.  The destination cannot run
 * it: it commits only after READY, READY follows FINAL only.
 *
 * From FINAL on: nobody, until a row says so.  (D, e+1): the destination.
 * (S, e+1): the source.  Both ends may try either swap; exactly one of them can
 * succeed, because both start from (S, e).  Whoever loses reads the row and obeys.
 *
 *   - READY in hand, the source swaps to D.  That is the normal way, and the
 *     source's COMMITTED on the authenticated stream is proof enough for the
 *     destination: who sends it has given the guest up.
 *   - FINAL sent, but no READY (cut, refused, too late, cancelled): the source
 *     swaps to (S, e+1) and resumes under e+1.
 *   - READY sent, but nothing follows (cut, too late): the destination swaps to
 *     (D, e+1) itself and runs.
 *   - The database cannot be reached, or its answer was lost: paused, and asked
 *     again until there is one.  A row with epoch e may be an old view of it (a
 *     member that lost contact) and decides nothing; epochs above e do.
 *   - Above e+1, or another host: others have moved the VM on; what is here is a
 *     corpse and is destroyed.
 *   - No row at all decides nothing either: paused, until there is one.
 *
 * A destination that is told ABORT, or reads another's row, discards; it never
 * needs the database to refuse.  Epochs make late swaps harmless: any swap of this
 * migration that arrives after its decision finds an epoch above e.
 *
 * Two processes for one end (a supervisor that believed the first dead), and two
 * migrations of one VM, are kept apart by the journal's locks; and if these were on
 * different file systems, by the row: of two migrations from (S, e) one commits.
 *
 * Who has died, and when
 * ----------------------
 * The guest outlives the process that moves it, in the state in which it was (see
 * driver.h).  "Recover" is the same job again, with the journal.  Who dies in a phase,
 * and what the others do:
 *
 *   connect, prepare.  Source's process: the guest runs; the destination discards;
 *       recover: nothing to do.  Destination's: the source goes on with its guest,
 *       under e; recover discards.  Wire: both of it.
 *   precopy.  The same; recover at the source takes dirty log and throttle off.
 *   pause.  Source's: guest paused, no FINAL went out, but the journal cannot know:
 *       recover swaps to (S, e+1).  Destination's, wire: the source resumes under e:
 *       without FINAL there is no READY.
 *   final.  Source's: the destination discards, or if READY is out swaps to D; recover
 *       swaps to S.  The first one wins.  Destination's: the source swaps to S and
 *       resumes; recover reads the row and discards, or if READY was written swaps to
 *       D, and obeys who won.  Wire: both swap.
 *   commit.  As in final: the row decides.
 *   run, handover.  The row says D.  Source's: the destination runs; recover destroys.
 *       Destination's: recover runs it, or finds it running; late packets are lost.
 *       Wire: the source destroys.
 *   postcopy.  The guest at D waits for pages.  Source's: recover serves them.
 *       Destination's: recover listens again, and the source connects.  Wire: the
 *       source connects again.  The guest itself: the destination tells the source, which
 *       destroys what it has; one that is not told sees it by the row, once the VM's end
 *       is written there (an epoch above e+1).
 *
 * The source destroys what it has, paused, as soon as the row says D, whether it has
 * heard RUNNING or not (it waits a while, for late packets).  It may: READY says that
 * the destination's guest is whole, digest compared and state loaded, in the hands of
 * whatever outlives weft-migrate there, and its journal says so too, so that running
 * it needs nothing from here.  And it has to: no rule leads back from (D, e+1), so
 * that memory could only be held for ever.  What dies at D from here on died there,
 * as if it had been running for long.  Not so in post-copy: there the second READY
 * is waited for, as long as it takes.  A destination whose guest has died behind a
 * READY that is not yet decided swaps to S: the source has the last copy.
 *
 * A journal that is lost or empty (its end may have been anywhere): recover looks for
 * the guest, and at the row.  Decided: obeyed.  Not decided, and here is the source: a
 * guest that runs was never given up, one that is paused takes the way of "pause".
 * Not decided, at the destination: READY may be out, so what is there is neither run
 * nor discarded; failed, until the row has changed.  Where post-copy was allowed it is
 * not known which pages are owed: failed, and nothing destroyed.
 *
 * The one moment in which a *machine's* death loses the guest is post-copy (its
 * memory is on both): that is why post-copy is asked for, never chosen.
 *
 * What is not in the table: a database that goes back in time (restored from a
 * backup under the same fence).  docs/pool-db.md says how that is prevented.
 *
 *
 * Threads: mig_send/receive/recover block until done and own what they open;
 * mig_control_* from any thread. */
#ifndef WEFT_MIGRATE_ENGINE_H
#define WEFT_MIGRATE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "claim.h"
#include "job.h"
#include "page.h"

enum mig_phase {
    MIG_PHASE_CONNECT, /* destination: listens */
    MIG_PHASE_PREPARE,
    MIG_PHASE_PRECOPY,
    MIG_PHASE_PAUSE,
    MIG_PHASE_FINAL, /* source: FINAL is about to be sent */
    MIG_PHASE_LOAD,  /* destination: FINAL has come */
    MIG_PHASE_READY, /* destination: READY is about to be sent */
    MIG_PHASE_COMMIT,
    MIG_PHASE_RUN,
    MIG_PHASE_HANDOVER,
    MIG_PHASE_POSTCOPY,
    MIG_PHASE_DONE,
    MIG_PHASES
};
const char *mig_phase_name(enum mig_phase);
/* MIG_PHASES: there is none of that name. */
enum mig_phase mig_phase_find(const char *name);

enum mig_status {
    MIG_OK,          /* the VM is the destination's; this end has nothing left to do */
    MIG_ROLLED_BACK, /* the VM is the source's; nothing is left at the destination */
    MIG_FAILED,      /* this end is not finished: recover */
    MIG_GONE,        /* recover: others have moved the VM on */
};
const char *mig_status_name(enum mig_status);

struct mig_progress {
    uint32_t round;
    uint64_t bytes_wire, bytes_guest;
    uint64_t rate_mbps, dirty_mbps; /* of guest memory; wire rate is bytes_wire's slope */
    uint64_t pages_left;
    uint32_t eta_s, expected_blackout_ms; /* UINT32_MAX: unknown */
    uint32_t throttle;
};

struct mig_result {
    enum mig_status status;
    char why[MIG_WHY]; /* if ok: a remark, or "" */
    uint32_t rounds;
    uint64_t bytes_wire, bytes_guest;
    uint64_t pages_sent, pages_by_kind[MIG_KINDS]; /* page.h */
    uint64_t total_us;
    uint64_t phase_us[MIG_PHASES]; /* spent in each */
    uint64_t blackout_us; /* guest's last instruction here to its first there; 0: unknown */
    uint64_t late_packets;
    bool postcopy; /* the guest ran before all of its memory was there: these were missing */
    uint64_t postcopy_pages;
    uint64_t vif_blackout_us[NETWORK_VIFS_MAX]; /* 0: unknown */
    /* The row, as far as this end knows it. */
    uint64_t epoch;
    char owner[MIG_HOST]; /* "": not known */
    bool running;         /* the guest runs at this end */
    char lost[1024];      /* what of the network could not be carried; lines */
};

struct mig_event {
    enum {
        MIG_EVENT_PHASE,
        MIG_EVENT_PROGRESS,
        MIG_EVENT_LISTENING,
        MIG_EVENT_WAITING,
        MIG_EVENT_STOPPED
    } kind;
    enum mig_phase phase;
    struct mig_progress progress;
    const char *text; /* LISTENING: address.  WAITING: for what */
};

struct mig_control;
struct mig_control *mig_control_create(void);
void mig_control_destroy(struct mig_control *);
/* Before the commit: rolled back.  Later: no effect. */
void mig_control_cancel(struct mig_control *);
/* Leave everything as it is and return MIG_FAILED; recover goes on. */
void mig_control_quit(struct mig_control *);
void mig_control_postcopy(struct mig_control *);
void mig_control_limit(struct mig_control *, uint64_t mbps);
/* Go on after a stop at job->pause_at. */
void mig_control_continue(struct mig_control *);

struct mig_env {
    const struct mig_job *job;
    const struct mig_driver *driver;
    struct mig_claim claim;
    struct mig_control *control;
    void (*event)(void *aux, const struct mig_event *); /* from the engine's thread; may be NULL */
    void *aux;
};

/* By job->role.  Always fills the result. */
void mig_run(const struct mig_env *, struct mig_result *);

#endif

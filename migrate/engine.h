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
 * driver.h).  "Recover" is the same job again, with the journal.
 *
 *   in phase    source's process dies           destination's process dies       wire cut
 *   connect,    guest runs; destination         source goes on with its guest    both as left
 *   prepare     discards; recover: nothing      under e; recover: discards
 *   precopy     same; recover takes dirty       same                             same
 *               log and throttle off
 *   pause       guest paused, no FINAL went     source resumes under e: without  source resumes
 *               out, but the journal cannot     FINAL no READY                   under e
 *               know: recover swaps to (S,e+1)
 *   final       destination: no READY ->        source: (S, e+1), resumes;       source: (S, e+1);
 *               discards; READY -> swaps to D   recover reads the row and        destination: READY
 *               itself.  Recover swaps to S,    discards, or, if READY was       sent -> swaps to
 * D. obeys who won                   written, swaps to D; obeys       First wins commit      as in
 * final: row decides        row says D: source destroys;     both read the row recover reads it and
 * runs run,        destination runs; recover       recover runs it, or finds it     destination
 * runs; handover    reads the row and destroys      running.  Late packets lost      source
 * destroys postcopy    guest at D waits for pages;     guest at D waits; recover at D   guest
 * waits; source recover at S serves them        listens again, source comes      connects again
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
    char why[MIG_WHY]; /* "" if ok */
    uint32_t rounds;
    uint64_t bytes_wire, bytes_guest;
    uint64_t pages_sent, pages_by_kind[MIG_KINDS]; /* page.h */
    uint64_t total_us;
    uint64_t blackout_us; /* guest's last instruction here to its first there; 0: unknown */
    uint64_t late_packets;
    uint64_t vif_blackout_us[NETWORK_VIFS_MAX]; /* destination; 0: unknown */
    uint64_t epoch;                             /* of the row, as far as this end knows */
    bool running;                               /* the guest runs at this end */
    char lost[1024]; /* what of the network could not be carried; lines */
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

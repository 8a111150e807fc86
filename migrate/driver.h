/* What the migration engine asks of a hypervisor.
 *
 * One table of operations per hypervisor, one file per table: driver_cell.c,
 * driver_xen*.c.  A further one (`qemu`: QMP, its memory backend's descriptor,
 * its dirty ring) is one more file that fills the table and one more line in
 * drivers.c; engine, stream format, commit and network hand-over stay as they
 * are.
 *
 * Two kinds.  A *memory* driver maps the guest's memory into this process, and
 * the engine makes the rounds: pages are read where they lie, by the threads of
 * the transport.  A *stream* driver has a toolstack that makes the rounds itself
 * and yields a stream of chunks, which its counterpart takes in the same order.
 *
 * What a guest may be asked, by state (a driver refuses the rest with EINVAL):
 *
 *   source:       running --pause--> paused --resume--> running
 *                                    paused --destroy--> gone
 *   destination:  made --state_load, stream_finish--> loaded --run--> running
 *                 made, loaded --destroy--> gone
 *
 * A lost connection to the hypervisor, and the death of this process, change
 * nothing about whether the guest runs: what was paused or loaded stays so until
 * a later process (recover mode) attaches to it.  Dirty log and throttle end with
 * the process that asked for them, or are taken off by attach().
 *
 * Threads: one thread calls the operations of a guest, except where stated.
 * Ownership: attach() and create() make the handle, detach() frees it and leaves
 * the guest as it is.  Errors: 0 or a positive errno; `why`, where there is one,
 * gets a sentence for the user. */
#ifndef WEFT_MIGRATE_DRIVER_H
#define WEFT_MIGRATE_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MIG_PAGE_BYTES = 4096,
    MIG_IDENTITY_MAX = 4096,  /* of describe() */
    MIG_STATE_MAX = 16 << 20, /* of state_save() */
    MIG_CHUNK_MAX = 1 << 20,  /* of a stream */
    MIG_DIGEST_BYTES = 16,    /* of a stream */
    MIG_WHY = 256,
};

/* A guest as a driver has it; the driver's own struct starts with this. */
struct mig_guest {
    const struct mig_driver *ops;
};

struct mig_option {
    const char *key, *value;
};

/* What a driver is told: the object of the job that is named like the driver
 * ("cell": {"control": ..}), as text, and whom it is about. */
struct mig_guest_config {
    const struct mig_option *options; /* n_options of them */
    size_t n_options;
    const char *vm; /* uuid, for messages */
    uint64_t epoch; /* with which the guest runs at the source now */
};

/* The value of an option, or NULL. */
const char *mig_option(const struct mig_guest_config *, const char *key);

struct mig_memory {
    uint8_t *base;    /* page pfn is at base + pfn * MIG_PAGE_BYTES */
    uint64_t n_pages; /* pfns are below */
};

enum mig_guest_state {
    MIG_GUEST_MADE,   /* destination: waits for memory and state */
    MIG_GUEST_LOADED, /* destination: complete, has never run here */
    MIG_GUEST_RUNNING,
    MIG_GUEST_PAUSED, /* source: stopped where it was */
};

struct mig_guest_status {
    enum mig_guest_state state;
    uint64_t epoch; /* with which it last ran here, 0: never */
};

enum mig_driver_kind { MIG_MEMORY, MIG_STREAM };

/* What a stream driver tells about its stream, for the progress line. */
struct mig_stream_stats {
    unsigned int round;    /* 1: the first, of all pages */
    uint64_t bytes_guest;  /* of memory carried so far */
    uint64_t pages_total;  /* of the guest */
    uint64_t pages_left;   /* of this round */
    uint64_t pages_dirty;  /* found by the last look at the log */
    uint64_t paused_at_ns; /* CLOCK_MONOTONIC, 0: still runs */
};

struct mig_stream_start {
    unsigned int max_rounds;  /* then the guest is paused */
    unsigned int max_left_ms; /* so is it as soon as what is left takes no longer */
    void (*paused)(
        void *aux); /* called once, from any thread, when the guest has been paused and before
                     * its last pages are collected; blocks while the network is held */
    void *aux;
};

struct mig_driver {
    const char *name;
    enum mig_driver_kind kind;

    /* --- both ends, both kinds -------------------------------------------- */

    /* A guest that exists: the source's, or (recover mode) what a killed process
     * left at either end.  ENOENT: there is none (any more). */
    int (*attach)(const struct mig_guest_config *, struct mig_guest **, char why[MIG_WHY]);
    void (*detach)(struct mig_guest *); /* accepts NULL */
    int (*status)(struct mig_guest *, struct mig_guest_status *);
    /* The guest is gone for good, its memory freed, its vifs unplugged.  At the
     * destination, before run(): what was made is discarded.  Idempotent. */
    int (*destroy)(struct mig_guest *);

    /* --- source, both kinds ------------------------------------------------ */

    /* What the destination must have or make, opaque to the engine: memory size,
     * image build-id, CPU features.  At most MIG_IDENTITY_MAX bytes; compared or
     * used by create() at the far end. */
    int (*describe)(struct mig_guest *, uint8_t *bytes, size_t *n /* in: room, out: used */);
    /* Afterwards no instruction of the guest runs and nothing of its own writes
     * its memory.  The backend may go on writing granted pages until the network
     * is held; that is why the engine pauses, holds, and fetches the dirty log
     * last.  Stream drivers: NULL, their toolstack does. */
    int (*pause)(struct mig_guest *);
    /* Undo of pause, under `epoch` (written to whatever evidence the driver keeps
     * of who ran when).  Resuming a running guest is 0 and only sets the epoch. */
    int (*resume)(struct mig_guest *, uint64_t epoch);
    /* The guest gets at most 100 - percent of the time it could have, 0..99.
     * NULL: cannot. */
    int (*throttle)(struct mig_guest *, unsigned int percent);

    /* --- destination, both kinds ------------------------------------------- */

    /* A guest that does not run, as described by the source (untrusted bytes).
     * EINVAL with `why` if it cannot be made here. */
    int (*create)(const struct mig_guest_config *, const uint8_t *identity, size_t n,
                  struct mig_guest **, char why[MIG_WHY]);
    /* First instruction here.  Idempotent for one epoch. */
    int (*run)(struct mig_guest *, uint64_t epoch);
    /* The loaded guest's domain, after which its switch ports are called; NULL: they
     * have the names that the job says. */
    uint32_t (*domid)(struct mig_guest *);

    /* --- memory drivers ----------------------------------------------------- */

    /* The mapping; valid until detach().  Destination: writable, all zero. */
    int (*memory)(struct mig_guest *, struct mig_memory *);
    /* From the return of dirty_start() on every write, the guest's and the
     * backend's, is noted.  dirty_fetch() ORs what was noted into `bitmap` (bit
     * pfn % 64 of word pfn / 64) and forgets it: a write that it does not report
     * is one the next fetch reports, so a page may be read as soon as its bit has
     * been fetched. */
    int (*dirty_start)(struct mig_guest *);
    int (*dirty_fetch)(struct mig_guest *, uint64_t *bitmap);
    int (*dirty_stop)(struct mig_guest *);
    /* Everything that is not memory; the guest is paused.  *bytes is malloc()ed
     * for the caller, at most MIG_STATE_MAX. */
    int (*state_save)(struct mig_guest *, uint8_t **bytes, size_t *n);
    /* Checks (untrusted bytes) and takes it; the guest is MIG_GUEST_LOADED then. */
    int (*state_load)(struct mig_guest *, const uint8_t *bytes, size_t n, char why[MIG_WHY]);

    /* --- memory drivers: post-copy; NULL: cannot ----------------------------- */

    /* Source, paused: ORs the pages that must be at the destination before the
     * guest runs there (what a backend may write without a fault). */
    int (*postcopy_pinned)(struct mig_guest *, uint64_t *bitmap);
    /* Destination, loaded: the pages in `missing` are not there; the guest that
     * touches one waits until it has been placed.  *fault_fd, owned by the driver,
     * is readable while fault_next() has something.  After this the engine writes
     * none of these pages itself.  In recover mode: again, with what is still
     * missing; faults that were reported before are reported again. */
    int (*postcopy_start)(struct mig_guest *, const uint64_t *missing, int *fault_fd);
    /* A page that somebody waits for; EAGAIN: none.  Any one thread. */
    int (*fault_next)(struct mig_guest *, uint64_t *pfn);
    /* The page's content, atomically for who waits; 0 too if it is there already
     * (then it is not written again).  Any thread, several at once. */
    int (*place)(struct mig_guest *, uint64_t pfn, const uint8_t page[MIG_PAGE_BYTES]);
    /* Everything is there; no faults any more. */
    int (*postcopy_end)(struct mig_guest *);
    /* It has ended, for certain: false where that is not known.  Waits for nobody. */
    bool (*is_gone)(struct mig_guest *);

    /* --- stream drivers ------------------------------------------------------ */

    /* The stream is a sequence of opaque chunks of 1..MIG_CHUNK_MAX bytes; what is
     * in them (pages compressed, deduplicated) is between the two ends of the driver.
     *
     * Source: starts the toolstack, in threads of the driver's. */
    int (*stream_start)(struct mig_guest *, const struct mig_stream_start *);
    /* Blocks; valid until the next call.  EAGAIN: a round is over; what was yielded
     * shall have arrived before the next call, from which on the toolstack looks what is
     * dirty, or pauses the guest.  ENODATA: the stream is complete and the guest is paused.
     * ECANCELED: stream_cancel().  Anything else: failed; as after a cancel, status() tells whether
     * the guest still runs. */
    int (*stream_next)(struct mig_guest *, const uint8_t **bytes, size_t *n);
    void (*stream_cancel)(struct mig_guest *); /* either end, any thread */
    void (*stream_stats)(struct mig_guest *, struct mig_stream_stats *); /* any thread */
    /* Of everything that was yielded, after ENODATA. */
    int (*stream_digest)(struct mig_guest *, uint8_t digest[MIG_DIGEST_BYTES]);

    /* Destination: starts the toolstack. */
    int (*stream_open)(struct mig_guest *, char why[MIG_WHY]);
    /* The next chunk in the source's order, from one thread (not the engine's).
     * Blocks while the toolstack does not take it.  Untrusted bytes. */
    int (*stream_put)(struct mig_guest *, const uint8_t *bytes, size_t n, char why[MIG_WHY]);
    /* After the last: compares the digest (EBADMSG) and only then lets the
     * toolstack finish.  The guest is MIG_GUEST_LOADED then. */
    int (*stream_finish)(struct mig_guest *, const uint8_t digest[MIG_DIGEST_BYTES],
                         char why[MIG_WHY]);
};

/* By name, NULL: none.  drivers.c. */
const struct mig_driver *mig_driver_find(const char *name);

#endif

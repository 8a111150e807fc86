/* mig_journal: what one end of a migration has done, for whoever comes after it.
 *
 * A text file of one line per step, each with a checksum; what stands behind the
 * first line that does not fit its checksum was torn and is cut off.  The file is
 * locked as long as it is open, so that one process at a time acts for this end,
 * and so is a file beside it that is named after the VM and removed at the end, so
 * that one migration at a time is about that VM at this end.
 *
 * The journal needs to outlive the process, not the machine: a machine that went
 * down took the guest's memory along, and then the pool's row alone decides.  So
 * steps inside the blackout are written and not synced; begin and end are.
 *
 * Threads: one. */
#ifndef WEFT_MIGRATE_MIG_JOURNAL_H
#define WEFT_MIGRATE_MIG_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order in which they come; each end has those of its role. */
enum mig_journal_step {
    MIG_JOURNAL_NONE,
    MIG_JOURNAL_BEGIN,     /* both: nothing of the guest was touched */
    MIG_JOURNAL_PREPARED,  /* destination: a guest was made */
    MIG_JOURNAL_PAUSING,   /* source: from here on FINAL may have been sent */
    MIG_JOURNAL_READY,     /* destination: from here on READY may have been sent */
    MIG_JOURNAL_COMMITTED, /* both: the row says the destination */
    MIG_JOURNAL_ABORTED,   /* both: the row says the source again, or nothing was at stake */
    MIG_JOURNAL_RUNNING,   /* destination: runs (source: resumed) */
    MIG_JOURNAL_DONE,      /* both: nothing is left to do */
};

struct mig_journal_head {
    bool source;
    bool recovers; /* there should be a file: one that is new or empty was lost */
    char migration[37], vm[37];
    uint64_t epoch; /* before the migration */
};

/* What the lines said. */
struct mig_journal_past {
    enum mig_journal_step step; /* the last one; MIG_JOURNAL_NONE: the file is new */
    bool pausing, ready, committed, aborted, postcopy, complete;
    bool lost; /* what was done before some recovery is not known */
    struct mig_journal_head head;
};

struct mig_journal;

/* Opens or makes the file.  EBUSY: another process has it, or another migration
 * has the VM; ESTALE: it is about another migration, VM, epoch or end than `head`
 * says; EBADMSG: its first line is damaged.  `past` is what was found. */
int mig_journal_open(const char *path, const struct mig_journal_head *head, struct mig_journal **,
                     struct mig_journal_past *past);
void mig_journal_close(struct mig_journal *); /* accepts NULL */

/* Appends a step; `sync`: it is on the disk when this returns.  A NULL journal
 * takes everything. */
int mig_journal_write(struct mig_journal *, enum mig_journal_step, bool sync);

/* Which pages post-copy still owes: a file beside the journal.  At the source
 * before FINAL, at the destination before READY; marks the journal so. */
int mig_journal_save_pending(struct mig_journal *, const uint64_t *bitmap, uint64_t n_pages);
/* *bitmap is malloc()ed for the caller.  ENOENT, EBADMSG. */
int mig_journal_load_pending(struct mig_journal *, uint64_t **bitmap, uint64_t *n_pages);

/* Destination: nothing is owed any more; before the source hears of it. */
int mig_journal_complete(struct mig_journal *);

const char *mig_journal_step_name(enum mig_journal_step);

#endif

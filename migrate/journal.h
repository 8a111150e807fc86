/* journal: what one end of a migration has done, for whoever comes after it.
 *
 * A text file of one line per step, each with a checksum; what stands behind the
 * first line that does not fit its checksum was torn and is cut off.  The file is
 * locked as long as it is open, so that one process at a time acts for this end,
 * and so is a file beside it that is named after the VM, so that one migration at
 * a time is about that VM at this end.
 *
 * The journal needs to outlive the process, not the machine: a machine that went
 * down took the guest's memory along, and then the pool's row alone decides.  So
 * steps inside the blackout are written and not synced; begin and end are.
 *
 * Threads: one. */
#ifndef WEFT_MIGRATE_JOURNAL_H
#define WEFT_MIGRATE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order in which they come; each end has those of its role. */
enum journal_step {
    JOURNAL_NONE,
    JOURNAL_BEGIN,     /* both: nothing of the guest was touched */
    JOURNAL_PREPARED,  /* destination: a guest was made */
    JOURNAL_PAUSING,   /* source: from here on FINAL may have been sent */
    JOURNAL_READY,     /* destination: from here on READY may have been sent */
    JOURNAL_COMMITTED, /* both: the row says the destination */
    JOURNAL_ABORTED,   /* both: the row says the source again, or nothing was at stake */
    JOURNAL_RUNNING,   /* destination: runs (source: resumed) */
    JOURNAL_DONE,      /* both: nothing is left to do */
};

struct journal_head {
    bool source;
    char migration[37], vm[37];
    uint64_t epoch; /* before the migration */
};

/* What the lines said. */
struct journal_past {
    enum journal_step step; /* the last one; JOURNAL_NONE: the file is new */
    bool pausing, ready, committed, aborted, postcopy;
    struct journal_head head;
};

struct journal;

/* Opens or makes the file.  EBUSY: another process has it, or another migration
 * has the VM; ESTALE: it is about another migration, VM, epoch or end than `head`
 * says; EBADMSG: its first line is damaged.  `past` is what was found. */
int journal_open(const char *path, const struct journal_head *head, struct journal **,
                 struct journal_past *past);
void journal_close(struct journal *); /* accepts NULL */

/* Appends a step; `sync`: it is on the disk when this returns.  A NULL journal
 * takes everything. */
int journal_write(struct journal *, enum journal_step, bool sync);

/* Which pages post-copy still owes: a file beside the journal.  At the source
 * before FINAL, at the destination before READY; marks the journal so. */
int journal_save_pending(struct journal *, const uint64_t *bitmap, uint64_t n_pages);
/* *bitmap is malloc()ed for the caller.  ENOENT, EBADMSG. */
int journal_load_pending(struct journal *, uint64_t **bitmap, uint64_t *n_pages);

const char *journal_step_name(enum journal_step);

#endif

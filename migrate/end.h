/* end: what both ends of a migration share; private to the engine.
 *
 * Threads: the engine's, except struct mig_control. */
#ifndef WEFT_MIGRATE_END_H
#define WEFT_MIGRATE_END_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "engine.h"
#include "mig_journal.h"
#include "record.h"
#include "transport.h"

enum {
    CLAIM_TRY_MS = 3000,     /* one question to the database */
    CLAIM_RETRY_MIN_MS = 50, /* between two */
    CLAIM_RETRY_MAX_MS = 1000,
    PROGRESS_MS = 500,
    NEWS_MS = 100,      /* at the destination, however often the source has news */
    LOOK_MS = 50,       /* between two looks at the orders */
    TAKE_MOST = 64,     /* records that are taken before the orders are looked at */
    FINISH_MS = 1000,   /* for the last words */
    HANDOVER_MS = 5000, /* at most, for late packets and the last records */
    QUIET_MS = 300,     /* without a late packet: there will be none */
};

struct mig_control {
    int wake; /* eventfd, written by every order */
    atomic_bool cancel, quit, postcopy, go_on;
    _Atomic uint64_t limit_mbps;
    atomic_bool limit_set;
    pthread_mutex_t lock;     /* guards stream */
    struct mig_guest *stream; /* of a stream driver, while its toolstack may be waited for */
};

/* Who has the VM, by its row. */
enum verdict {
    VERDICT_NONE,        /* not known: quit was asked for */
    VERDICT_SOURCE,      /* (from, e + 1) */
    VERDICT_DESTINATION, /* (to, e + 1) */
    VERDICT_OTHER,
};

struct mig_end {
    const struct mig_env *env;
    const struct mig_job *job;
    const struct mig_driver *ops;
    struct mig_control *control;
    struct mig_result *result;
    bool source;

    struct mig_journal *journal;
    struct mig_journal_past past;
    struct network *network; /* NULL: no vifs */
    struct mig_guest *guest;
    struct mig_memory memory;
    struct transport *transport;
    uint8_t *body; /* room for any record's body that is sent */

    enum mig_phase phase;
    bool row_here;      /* the row that decided names this host */
    bool heard;         /* source: the guest runs at the destination */
    const char *corpse; /* source: why nobody waits for its memory any more; NULL */
    uint64_t start_ns, progress_ns;
    uint64_t phase_ns;  /* when the phase began */
    uint64_t paused_ns; /* source: when the guest was stopped; 0: it was not */
    struct mig_progress progress;
    uint64_t round_pages, round_ns; /* source: of the round under way, and since when; 0: none */
    uint64_t sent_before, received_before; /* bytes of transports that are closed */
};

uint64_t mig_now_ns(void);

/* Journal, network, guest's configuration.  Errors have their sentence in the result. */
int end_open(struct mig_end *, const struct mig_env *, struct mig_result *);
/* Closes what is open, fills the result's totals. */
void end_close(struct mig_end *);
struct mig_guest_config end_guest_config(const struct mig_end *);
/* Ports that are called after the guest's domain; once the guest is attached. */
void end_name_ports(struct mig_end *);
struct transport_config end_transport_config(const struct mig_end *, struct transport_tls *);

/* Enters a phase: tells, and stops there if the job says so. */
void end_phase(struct mig_end *, enum mig_phase);
void end_progress(struct mig_end *, bool now);
/* The sentence for the result, first one wins; returns `error`. */
int end_fail(struct mig_end *, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool end_cancelled(const struct mig_end *);

/* With the job's limits. */
void end_use_transport(struct mig_end *, struct transport *t);
/* Takes note of its statistics and closes it. */
void end_drop_transport(struct mig_end *);
/* Tells what this end waits for. */
void end_waiting(struct mig_end *, const char *what);
/* Nothing more is to be said, to whoever still listens. */
void end_finish(struct mig_end *);
/* Limits that were changed since. */
void end_apply_limits(struct mig_end *);

int end_put(struct mig_end *, const struct mig_msg *);
void end_put_abort(struct mig_end *, enum mig_abort_code, const char *text);
/* The next record, parsed; answers and drops clock samples itself.  `message` is
 * the owner of what `msg` points into.  Not negative: ETIMEDOUT when it is over, or after
 * TAKE_MOST questions. */
int end_take(struct mig_end *, struct transport_message *message, struct mig_msg *msg,
             int timeout_ms);
/* The far end's reason, or the error's name. */
const char *end_transport_why(const struct mig_end *, int error);
/* end_take(), looking at the orders meanwhile: ECANCELED when told to cancel
 * (`heed`) or quit. */
int end_wait(struct mig_end *, struct transport_message *message, struct mig_msg *msg,
             int timeout_ms, bool heed);
/* What was handed over is on the wire. */
int end_flush(struct mig_end *, bool heed);
/* Something longer than a record: the source cuts it (end_put_parts), the
 * destination puts it together, in order (EPROTO). */
struct mig_blob {
    uint8_t *p; /* malloc()ed; NULL: nothing has come */
    size_t n, total;
};
int end_put_parts(struct mig_end *, uint32_t type, const uint8_t *, size_t n);
int end_take_part(struct mig_blob *, const struct mig_part *, size_t max);

/* The NETWORK record's content.  `times` has one element per vif of the job;
 * `state` of end_network_get() points into the blob. */
int end_network_put(struct mig_end *, const struct network_times *times, const uint8_t *state,
                    size_t n);
int end_network_get(const struct mig_end *, const struct mig_blob *,
                    uint64_t last_ns[NETWORK_VIFS_MAX], const uint8_t **state, size_t *n);

/* Does the row say (from, epoch) now?  ESTALE, ETIMEDOUT.. */
int end_claim_check(struct mig_end *);
/* The row is known to say this. */
void end_note_row(struct mig_end *, const char *host, uint64_t epoch);
/* What the row says, read until there is an answer (VERDICT_NONE: told to quit, or
 * *undecided: it still says (from, epoch)). */
enum verdict end_read_row(struct mig_end *, bool *undecided);
/* The same, once: VERDICT_NONE also if there is no answer. */
enum verdict end_look_at_row(struct mig_end *, bool *undecided);
/* Tries to commit (or else to abort) until the row has decided. */
enum verdict end_decide(struct mig_end *, bool commit);
/* After VERDICT_OTHER: the VM has come back to this host since, and the guest that
 * answers here is the living one, not what we have left. */
bool end_lives_on(struct mig_end *);

void mig_send(struct mig_end *);
void mig_receive(struct mig_end *);
void mig_recover(struct mig_end *);

/* --- send.c, for recover.c and postcopy_send.c
 * ---------------------------------------------------- */

/* The row says that the guest is ours (under e + 1). */
void send_resume(struct mig_end *);
/* The row says that it is the destination's: what is left to do here. */
void send_destroy(struct mig_end *);
/* RUNNING has come. */
void send_running(struct mig_end *);
/* ARRIVED has come: what the destination knows of the vifs is known here. */
void send_arrived(struct mig_end *, const struct mig_msg *);
/* Late frames that are there; *left: more may come. */
int send_late(struct mig_end *, int *left);
/* A new connection, after a cut, up to ACCEPT. */
int send_reconnect(struct mig_end *);

/* --- postcopy_send.c ------------------------------------------------------------ */

/* Source, after the commit: hands over the pages in `pending`, however often the
 * wire is cut.  With no transport open, connects first. */
int postcopy_send(struct mig_end *, const uint64_t *pending);

#endif

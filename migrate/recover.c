/* What a process that died has left, by its journal and the row (engine.h has the
 * table). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "receive.h"

/* ENOENT: the guest is gone. */
static int
attach(struct mig_end *e)
{
    struct mig_guest_config config = end_guest_config(e);
    char why[MIG_WHY] = "";
    int error = e->ops->attach(&config, &e->guest, why);

    if (!error) {
        end_name_ports(e);
    }
    if (!error && e->ops->kind == MIG_MEMORY) {
        error = e->ops->memory(e->guest, &e->memory);
    }
    if (error && error != ENOENT) {
        return end_fail(e, error, "guest: %s", *why ? why : strerror(error));
    }
    return error;
}

/* --- source ---------------------------------------------------------------------- */

/* The destination has it, but for the pages that are owed. */
static void
serve_rest(struct mig_end *e)
{
    uint64_t *pending = NULL, n_pages;
    int error = mig_journal_load_pending(e->journal, &pending, &n_pages);

    if (!error && n_pages != e->memory.n_pages) {
        error = EBADMSG;
    }
    if (error) {
        end_fail(e, error, "what post-copy owes: %s", strerror(error));
    } else {
        end_phase(e, MIG_PHASE_POSTCOPY);
        error = postcopy_send(e, pending);
    }
    free(pending);
    if (!error) {
        end_finish(e);
        send_destroy(e);
    }
}

static void
obey_at_source(struct mig_end *e, enum verdict v)
{
    switch (v) {
    case VERDICT_SOURCE:
        send_resume(e);
        break;
    case VERDICT_DESTINATION:
        if (e->past.postcopy && e->guest) {
            serve_rest(e);
        } else {
            send_destroy(e);
        }
        break;
    case VERDICT_OTHER:
        if (end_lives_on(e)) {
            mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
            e->result->status = MIG_GONE;
            break;
        }
        send_destroy(e);
        if (e->result->status == MIG_OK) {
            e->result->status = MIG_GONE;
        }
        break;
    case VERDICT_NONE:
        end_fail(e, ECANCELED, "told to leave it as it is");
        break;
    }
}

/* There is nothing of it here.  Destroyed by us, after the commit; or it died by
 * itself: then the row still names this host, and who manages the host sees to it. */
static void
gone_at_source(struct mig_end *e)
{
    bool undecided;
    enum verdict v = end_read_row(e, &undecided);

    if (v == VERDICT_NONE && !undecided) {
        end_fail(e, ECANCELED, "told to leave it as it is");
        return;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->status = v == VERDICT_DESTINATION ? MIG_OK : MIG_GONE;
    if (v == VERDICT_SOURCE || undecided) {
        end_fail(e, ENOENT, "the VM is this host's, and no guest is here: it has died");
    }
}

static void
recover_source(struct mig_end *e)
{
    struct mig_guest_status status;
    int error = attach(e);

    if (error && error != ENOENT) {
        return;
    }
    if (error == ENOENT) {
        gone_at_source(e);
        return;
    }
    if (e->past.pausing) {
        end_phase(e, MIG_PHASE_COMMIT);
        obey_at_source(e, end_decide(e, false));
        return;
    }
    error = e->ops->status(e->guest, &status);
    if (error || status.state != MIG_GUEST_RUNNING) {
        end_fail(e, error ? error : EINVAL,
                 "the guest does not run, and it was not us who paused it");
        return;
    }
    if (e->network) {
        network_release(e->network);
    }
    end_note_row(e, e->job->from, e->job->epoch);
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->running = true;
    e->result->status = MIG_ROLLED_BACK;
}

/* --- destination -------------------------------------------------------------------- */

/* There is nothing of it here: it never was, or was discarded; or it has died.  If the
 * source may have READY, it may not commit: what it has is all there is. */
static void
gone_at_destination(struct mig_end *e)
{
    bool undecided = false;
    /* Without its journal it may have had READY, too. */
    enum verdict v =
        e->past.ready || e->past.lost ? end_decide(e, false) : end_read_row(e, &undecided);

    if (v == VERDICT_NONE && !undecided) {
        end_fail(e, ECANCELED, "told to leave it as it is");
        return;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->status = v == VERDICT_SOURCE || undecided ? MIG_ROLLED_BACK : MIG_GONE;
    if (v == VERDICT_DESTINATION) {
        end_fail(e, ENOENT, "the VM is this host's, and no guest is here: it has died");
    }
}

static void
recover_destination(struct mig_end *e)
{
    struct destination d = {.e = e, .clock_took_ns = UINT64_MAX};
    struct transport_listener *listener = NULL;
    struct mig_guest_status status;
    uint64_t n_pages = 0;
    int error = attach(e);

    if (error == ENOENT) {
        gone_at_destination(e);
        return;
    }
    if (error) {
        return;
    }
    if (!e->past.ready) {
        error = e->ops->status(e->guest, &status);
        if (!error && status.state == MIG_GUEST_RUNNING) {
            /* We never had one run: it came by a later migration. */
            mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
            e->result->status = MIG_GONE;
            return;
        }
        mig_receive_discard(e);
        return;
    }
    if (e->past.postcopy) {
        error = mig_journal_load_pending(e->journal, &d.missing, &n_pages);
        if (!error && n_pages != e->memory.n_pages) {
            error = EBADMSG;
        }
        if (error) {
            end_fail(e, error, "what post-copy owes: %s", strerror(error));
            goto out;
        }
        for (uint64_t i = 0; i < (n_pages + 63) / 64; i++) {
            d.n_missing += __builtin_popcountll(d.missing[i]);
        }
        if (postcopy_prepare(&d, false) || mig_receive_listen(e, &listener)) {
            goto out;
        }
    }
    mig_receive_settle(&d, VERDICT_NONE, listener);
out:
    end_drop_transport(e);
    mig_receive_free(&d);
    transport_listener_close(listener);
}

/* --- without a journal --------------------------------------------------------------- */

/* Its lines are lost, or nothing was ever begun: the row and the guest are all there
 * is.  What can be the end of something that the row does not know is left alone. */

static void
judge_source(struct mig_end *e, enum verdict v, bool undecided)
{
    struct mig_guest_status status;
    int error = e->ops->status(e->guest, &status);

    if (error) {
        end_fail(e, error, "guest: %s", strerror(error));
    } else if (undecided && status.state == MIG_GUEST_RUNNING) {
        e->result->running = true;
        e->result->status = MIG_ROLLED_BACK;
    } else if (undecided) {
        /* FINAL may have gone out. */
        end_phase(e, MIG_PHASE_COMMIT);
        obey_at_source(e, end_decide(e, false));
    } else {
        obey_at_source(e, v);
    }
}

static void
judge_destination(struct mig_end *e, enum verdict v, bool undecided)
{
    struct destination d = {.e = e, .clock_took_ns = UINT64_MAX};
    struct mig_guest_status status;

    if (!undecided) {
        mig_receive_settle(&d, v, NULL);
        mig_receive_free(&d);
    } else if (!e->ops->status(e->guest, &status) && status.state == MIG_GUEST_RUNNING) {
        e->result->status = MIG_GONE; /* we never had one run: it is another migration's */
    } else {
        end_fail(e, EBUSY,
                 "nothing is decided, and without the journal it is not known whether READY "
                 "went out: once the row has changed, recover again");
    }
}

static void
recover_without_journal(struct mig_end *e)
{
    bool undecided;
    int error = attach(e);
    enum verdict v;

    if (error == ENOENT) {
        if (e->source) {
            gone_at_source(e);
        } else {
            gone_at_destination(e);
        }
        return;
    }
    if (error) {
        return;
    }
    v = end_read_row(e, &undecided);
    if (v == VERDICT_NONE && !undecided) {
        end_fail(e, ECANCELED, "told to leave it as it is");
    } else if (v == VERDICT_DESTINATION && e->job->postcopy) {
        end_fail(e, EBADMSG, "without the journal it is not known which pages post-copy owes");
    } else if (e->source) {
        judge_source(e, v, undecided);
    } else {
        judge_destination(e, v, undecided);
    }
}

/* Everything was done here: how it ended is in the row, or if that does not answer in
 * the journal. */
static void
tell_end(struct mig_end *e)
{
    bool undecided;
    enum verdict v = end_look_at_row(e, &undecided);

    if (v == VERDICT_NONE && !undecided) {
        v = e->past.committed ? VERDICT_DESTINATION : VERDICT_SOURCE;
    }
    e->result->status = v == VERDICT_DESTINATION ? MIG_OK
                        : v == VERDICT_OTHER     ? MIG_GONE
                                                 : MIG_ROLLED_BACK;
    e->result->running = e->result->status == (e->source ? MIG_ROLLED_BACK : MIG_OK);
}

void
mig_recover(struct mig_end *e)
{
    if (e->past.step == MIG_JOURNAL_DONE) {
        tell_end(e);
        return;
    }
    if (e->past.lost) {
        recover_without_journal(e);
    } else if (e->source) {
        recover_source(e);
    } else {
        recover_destination(e);
    }
    end_phase(e, MIG_PHASE_DONE);
}

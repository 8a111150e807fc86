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

static void
recover_source(struct mig_end *e)
{
    struct mig_guest_status status;
    int error = attach(e);

    if (error && error != ENOENT) {
        return;
    }
    if (error == ENOENT) {
        /* Destroyed by us, after the commit; or it died by itself, then the row still
         * names this host, and who manages the host sees to it. */
        mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
        e->result->status = e->past.committed ? MIG_OK : MIG_GONE;
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
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->running = true;
    e->result->status = MIG_ROLLED_BACK;
}

/* --- destination -------------------------------------------------------------------- */

static void
recover_destination(struct mig_end *e)
{
    struct destination d = {.e = e, .clock_took_ns = UINT64_MAX};
    struct transport_listener *listener = NULL;
    struct mig_guest_status status;
    uint64_t n_pages = 0;
    int error = attach(e);

    if (error == ENOENT) {
        /* It never was, or was discarded; if it had been committed, it has died. */
        mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
        e->result->status = e->past.committed ? MIG_GONE : MIG_ROLLED_BACK;
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

void
mig_recover(struct mig_end *e)
{
    if (e->past.step == MIG_JOURNAL_NONE) {
        /* Nothing was ever begun here. */
        mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
        e->result->status = MIG_ROLLED_BACK;
        return;
    }
    if (e->past.step == MIG_JOURNAL_DONE) {
        e->result->status = e->past.committed ? MIG_OK : MIG_ROLLED_BACK;
        e->result->running = e->past.committed != e->source;
        return;
    }
    if (e->source) {
        recover_source(e);
    } else {
        recover_destination(e);
    }
    end_phase(e, MIG_PHASE_DONE);
}

/* Post-copy at the destination: the guest runs, and waits for pages that it touches
 * and that are not there yet.  Each is asked for as soon as it is missed.  Without
 * the source the guest waits, and this end listens. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "receive.h"

enum {
    LINGER_MS = 60000,  /* for a source that may not have heard that all is there */
    ACCEPT_MS = 30000,  /* once somebody has come: not less than a handshake may take */
    GONE_LOOK_MS = 200, /* between two looks whether the guest has ended */
    TELL_MS = 1000,     /* to a source that comes back that soon */
};

static bool
has(const uint64_t *bitmap, uint64_t pfn)
{
    return bitmap[pfn / 64] >> pfn % 64 & 1;
}

static bool
is_there(const struct destination *d, uint64_t pfn)
{
    return atomic_load(&d->there[pfn / 64]) >> pfn % 64 & 1;
}

/* Any receiver thread. */
static int
place(void *aux, uint64_t pfn, const uint8_t *page)
{
    struct destination *d = aux;
    uint64_t bit = 1ull << pfn % 64;
    int error;

    if (pfn >= d->e->memory.n_pages || !has(d->missing, pfn)) {
        return EBADMSG;
    }
    if (is_there(d, pfn)) {
        return 0; /* sent again after a cut; the guest may have written it since */
    }
    error = d->e->ops->place(d->e->guest, pfn, page);
    if (!error && !(atomic_fetch_or(&d->there[pfn / 64], bit) & bit)) {
        atomic_fetch_add(&d->n_there, 1);
    }
    return error;
}

int
postcopy_prepare(struct destination *d, bool save)
{
    struct mig_end *e = d->e;
    size_t words = (e->memory.n_pages + 63) / 64;
    int error;

    d->there = calloc(words, sizeof *d->there);
    d->wanted = calloc(words, sizeof *d->wanted);
    if (!d->there || !d->wanted) {
        return end_fail(e, ENOMEM, "no memory");
    }
    if (e->past.complete) {
        /* Only the source may not know. */
        for (size_t i = 0; i < words; i++) {
            atomic_store(&d->there[i], d->missing[i]);
        }
        atomic_store(&d->n_there, d->n_missing);
        d->complete = true;
        error = e->ops->postcopy_end(e->guest);
        return error ? end_fail(e, error, "post-copy: %s", strerror(error)) : 0;
    }
    error = e->ops->postcopy_start(e->guest, d->missing, &d->fault_fd);
    if (!error && save) {
        error = mig_journal_save_pending(e->journal, d->missing, e->memory.n_pages);
    }
    if (!error && e->transport) {
        transport_rx_place(e->transport, place, d);
    }
    return error ? end_fail(e, error, "post-copy: %s", strerror(error)) : 0;
}

/* --- faults ---------------------------------------------------------------------- */

struct asked {
    struct mig_msg m;
    uint8_t pfns[MIG_REQUEST_MAX * 8];
};

static int
ask(struct destination *d, struct asked *a)
{
    int error = 0;

    if (a->m.request.n) {
        a->m.type = MIG_REQUEST;
        a->m.request.data = (struct mig_bytes){.p = a->pfns, .n = 8 * a->m.request.n};
        error = end_put(d->e, &a->m);
        a->m.request.n = 0;
    }
    return error;
}

static int
want(struct destination *d, struct asked *a, uint64_t pfn)
{
    mig_request_put(a->pfns + 8 * a->m.request.n++, pfn);
    return a->m.request.n == MIG_REQUEST_MAX ? ask(d, a) : 0;
}

/* On a new connection: what was asked for on the last one. */
static int
ask_again(struct destination *d)
{
    struct asked a = {0};
    int error = 0;

    for (uint64_t pfn = 0; pfn < d->e->memory.n_pages && !error; pfn++) {
        if (has(d->wanted, pfn) && !is_there(d, pfn)) {
            error = want(d, &a, pfn);
        }
    }
    return error ? error : ask(d, &a);
}

static int
take_faults(struct destination *d)
{
    struct asked a = {0};
    uint64_t pfn;
    int error = 0;

    while (!error && !d->e->ops->fault_next(d->e->guest, &pfn)) {
        if (pfn < d->e->memory.n_pages && has(d->missing, pfn) && !has(d->wanted, pfn)) {
            d->wanted[pfn / 64] |= 1ull << pfn % 64;
            error = is_there(d, pfn) ? 0 : want(d, &a, pfn);
        }
    }
    return error ? error : ask(d, &a);
}

/* --- its end ---------------------------------------------------------------------- */

/* A guest that has ended waits for no memory, and what its source has is nobody's. */
static bool
has_died(struct destination *d)
{
    uint64_t now = mig_now_ns();

    if (!d->died && !d->complete && now - d->looked_ns >= GONE_LOOK_MS * 1000000ull) {
        d->died = d->e->ops->is_gone(d->e->guest);
        d->looked_ns = now; /* from then on: when it was found to be gone */
    }
    return d->died;
}

/* --- sessions ----------------------------------------------------------------------- */

/* The source says that this was all. */
static int
complete(struct destination *d, const struct mig_msg *final)
{
    struct mig_msg ready = {.type = MIG_READY, .ready.epoch = d->e->job->epoch};
    struct mig_sum sum = transport_digest(d->e->transport);
    int error = 0;

    mig_sum_put(ready.ready.digest, &sum);
    if (memcmp(ready.ready.digest, final->final.digest, 16) ||
        atomic_load(&d->n_there) != d->n_missing) {
        return EBADMSG;
    }
    if (!d->complete) {
        error = mig_journal_complete(d->e->journal);
        error = error ? error : d->e->ops->postcopy_end(d->e->guest);
    }
    d->complete = !error;
    return error ? error : end_put(d->e, &ready);
}

static int
hear(struct destination *d)
{
    struct transport_message message;
    struct mig_msg m;
    int error;

    for (int i = 0; i < TAKE_MOST && !(error = end_take(d->e, &message, &m, 0)); i++) {
        if (m.type == MIG_FINAL) {
            error = complete(d, &m);
        } else {
            mig_receive_late(d, &m);
        }
        transport_message_done(&message);
        if (error) {
            return error;
        }
    }
    return error == ETIMEDOUT ? 0 : error;
}

/* One connection's life.  ENODATA: the source has heard that all is there. */
static int
session(struct destination *d, uint64_t *complete_ns)
{
    struct mig_end *e = d->e;
    int error = ask_again(d);

    while (!error && !has_died(d)) {
        struct pollfd p[] = {{.fd = transport_rx_fd(e->transport), .events = POLLIN},
                             {.fd = d->complete ? -1 : d->fault_fd, .events = POLLIN}};

        poll(p, 2, LOOK_MS);
        e->progress.pages_left = d->n_missing - atomic_load(&d->n_there);
        end_progress(e, false);
        if (!d->complete) {
            error = take_faults(d);
        }
        if (!error) {
            error = hear(d);
        }
        if (!error) {
            error = mig_receive_arrived(d);
        }
        if (!error && e->control->quit) {
            error = ECANCELED;
        }
        if (d->complete && !*complete_ns) {
            *complete_ns = mig_now_ns();
        }
    }
    if (!error) {
        end_put_abort(e, MIG_ABORT_DIED, "the guest has died");
        error = ESRCH;
    }
    return error;
}

/* Until the source comes, or somebody who may be it.  The guest is looked at first: there may
 * always be somebody. */
static int
await_source(struct destination *d, struct transport_listener *listener)
{
    do {
        if (d->e->control->quit) {
            return ECANCELED;
        }
        if (has_died(d) && mig_now_ns() - d->looked_ns >= TELL_MS * 1000000ull) {
            return ESRCH;
        }
    } while (!transport_listener_wait(listener, GONE_LOOK_MS));
    return 0;
}

static int
accept_again(struct destination *d, struct transport_listener *listener)
{
    struct mig_end *e = d->e;
    struct mig_msg m, accept = {.type = MIG_ACCEPT, .accept.n_pages = e->memory.n_pages};
    struct transport_message message;
    int wait_ms = e->job->accept_ms < ACCEPT_MS ? (int)e->job->accept_ms : ACCEPT_MS;
    int error = d->complete ? 0 : await_source(d, listener);

    error = error ? error
                  : mig_receive_accept(e, listener, d->complete ? LINGER_MS : wait_ms, d->complete,
                                       &message, &m);
    if (error) {
        return error;
    }
    transport_message_done(&message);
    /* First: no page may go where the guest runs but by place(). */
    transport_rx_place(e->transport, place, d);
    error = transport_set_memory(e->transport, e->memory.base, e->memory.n_pages);
    if (!error) {
        error = end_put(e, &accept);
    }
    return error;
}

int
postcopy_receive(struct destination *d, struct transport_listener *listener)
{
    struct mig_end *e = d->e;
    uint64_t complete_ns = d->complete ? mig_now_ns() : 0;
    int error = e->transport ? session(d, &complete_ns) : ENOTCONN;

    while (error != ENODATA && !(d->died && error == ESRCH) && !e->control->quit &&
           (!complete_ns || mig_now_ns() - complete_ns < LINGER_MS * 1000000ull)) {
        end_drop_transport(e);
        if (!d->complete) {
            end_waiting(e, "the source: memory is missing");
        }
        error = accept_again(d, listener);
        if (!error) {
            error = session(d, &complete_ns);
        }
    }
    end_finish(e);
    *e->result->why = '\0';
    if (d->died) {
        e->result->running = false;
        end_fail(e, 0, "the guest has died before all of its memory was here");
        return 0;
    }
    if (!d->complete) {
        return end_fail(e, ECANCELED, "told to leave it as it is");
    }
    return 0;
}

/* Post-copy at the source: the guest runs at the destination, its last pages are
 * here.  Those that it waits for go first, the others in order beside them.  A
 * wire that was cut is connected again, and everything is sent again: the
 * destination knows what it has. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"

enum {
    AHEAD_PAGES = 128, /* queued and not sent; more would only delay what is waited for */
    RECONNECT_MIN_MS = 100,
    RECONNECT_MAX_MS = 2000,
    ASK_MS = 800, /* so long between two tries: the row may know more */
};

struct owed {
    struct mig_end *e;
    const uint64_t *pending;
    uint64_t *left; /* not yet handed over on this connection */
    uint64_t next;  /* no page below is left */
    bool final;     /* FINAL is out */
    bool done;      /* READY has come: all is there; or nobody waits for it */
};

static bool
has(const uint64_t *bitmap, uint64_t pfn)
{
    return bitmap[pfn / 64] >> pfn % 64 & 1;
}

static int
serve(struct owed *o, const struct mig_msg *m)
{
    uint64_t pfn;
    int error = 0;

    for (uint32_t i = 0; i < m->request.n && !error; i++) {
        pfn = mig_request_get(m, i);
        if (pfn >= o->e->memory.n_pages || !has(o->pending, pfn)) {
            return EPROTO;
        }
        if (has(o->left, pfn)) {
            o->left[pfn / 64] &= ~(1ull << pfn % 64);
            error = transport_tx_urgent(o->e->transport, pfn);
        }
    }
    return error;
}

/* What the destination has said. */
static int
hear(struct owed *o)
{
    struct transport_message message;
    struct mig_msg m;
    int error;

    for (int i = 0; i < TAKE_MOST && !(error = end_take(o->e, &message, &m, 0)); i++) {
        if (m.type == MIG_REQUEST) {
            error = serve(o, &m);
        } else if (m.type == MIG_RUNNING) {
            send_running(o->e);
        } else if (m.type == MIG_ARRIVED) {
            send_arrived(o->e, &m);
        } else if (m.type == MIG_READY && o->final) {
            o->done = true;
        } else if (m.type == MIG_ABORT && m.abort.code == MIG_ABORT_DIED) {
            o->e->corpse = "the guest has died at the destination";
            o->done = true;
        } else if (m.type == MIG_ABORT) {
            error = ECONNABORTED;
        }
        transport_message_done(&message);
        if (error || o->done) {
            return error;
        }
    }
    return error == ETIMEDOUT ? 0 : error;
}

/* Keeps the senders busy. */
static int
push(struct owed *o)
{
    struct transport *t = o->e->transport;
    uint64_t n_pages = o->e->memory.n_pages, n = 0;
    struct transport_stats stats;
    int error = 0;

    transport_get_stats(t, &stats);
    while (!error && o->next < n_pages && stats.pages_waiting + n < AHEAD_PAGES) {
        if (!(o->next % 64) && !o->left[o->next / 64]) {
            o->next += 64;
            continue;
        }
        if (has(o->left, o->next)) {
            o->left[o->next / 64] &= ~(1ull << o->next % 64);
            error = transport_tx_run(t, o->next, 1);
            n++;
        }
        o->next++;
    }
    return error;
}

/* Everything was handed over: says so, with the digest. */
static int
finish(struct owed *o)
{
    struct mig_msg m = {.type = MIG_FINAL, .final.epoch = o->e->job->epoch};
    struct mig_sum sum;
    int error = transport_tx_barrier(o->e->transport);

    if (!error) {
        error = end_flush(o->e, false);
    }
    if (!error) {
        sum = transport_digest(o->e->transport);
        mig_sum_put(m.final.digest, &sum);
        error = end_put(o->e, &m);
    }
    o->final = !error;
    return error;
}

/* One connection's life; 0: all is there. */
static int
session(struct owed *o)
{
    struct mig_end *e = o->e;
    int error = 0, late = e->network != NULL, fd = -1;

    if (late && network_late_fd(e->network, &fd)) {
        late = 0;
    }
    memcpy(o->left, o->pending, (e->memory.n_pages + 63) / 64 * sizeof *o->left);
    o->next = 0;
    o->final = false;
    transport_tx_round(e->transport, e->result->rounds + 1, MIG_BATCH_EXACT | MIG_BATCH_POSTCOPY);
    while (!error && !o->done) {
        struct pollfd p[] = {{.fd = transport_rx_fd(e->transport), .events = POLLIN},
                             {.fd = late ? fd : -1, .events = POLLIN}};

        poll(p, 2, o->final ? LOOK_MS : 1);
        if (e->control->quit) {
            return ECANCELED;
        }
        end_apply_limits(e);
        end_progress(e, false);
        error = hear(o);
        if (!error && late) {
            error = send_late(e, &late);
        }
        if (!error && !o->final) {
            error = push(o);
        }
        if (!error && !o->final && o->next >= e->memory.n_pages) {
            error = finish(o);
        }
    }
    return error;
}

/* The destination has been away for a while: is it that the VM is not there any more?  Others
 * cannot have taken it on before all of its memory was there, or it was dead. */
static bool
moved_on(struct mig_end *e)
{
    bool undecided;

    if (end_look_at_row(e, &undecided) != VERDICT_OTHER) {
        return false;
    }
    e->corpse = "others have moved the VM on since";
    return true;
}

int
postcopy_send(struct mig_end *e, const uint64_t *pending)
{
    struct owed o = {.e = e, .pending = pending};
    int error, wait_ms = RECONNECT_MIN_MS;

    o.left = malloc((e->memory.n_pages + 63) / 64 * sizeof *o.left);
    if (!o.left) {
        return end_fail(e, ENOMEM, "no memory");
    }
    for (;;) {
        error = e->transport ? session(&o) : send_reconnect(e);
        if ((!error && o.done) || e->control->quit) {
            break;
        }
        if (!error) {
            wait_ms = RECONNECT_MIN_MS;
            continue;
        }
        end_drop_transport(e);
        if (wait_ms >= ASK_MS && moved_on(e)) {
            o.done = true;
            break;
        }
        end_waiting(e, "the destination: it does not have all memory yet");
        poll(NULL, 0, wait_ms);
        wait_ms = 2 * wait_ms < RECONNECT_MAX_MS ? 2 * wait_ms : RECONNECT_MAX_MS;
    }
    free(o.left);
    return o.done ? 0 : end_fail(e, ECANCELED, "told to leave it as it is");
}

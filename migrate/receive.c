/* The destination (engine.h has the theory). */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "bytes.h"
#include "receive.h"

enum { WATCH_MS = 20, WATCH_MOST_MS = 200 };

/* --- connect, prepare -------------------------------------------------------------- */

int
mig_receive_listen(struct mig_end *e, struct transport_listener **listener)
{
    char why[TRANSPORT_WHY] = "";
    int error = transport_listen(e->job->listen, listener, why);

    if (error) {
        return end_fail(e, error, "%s: %s", e->job->listen, *why ? why : strerror(error));
    }
    if (e->env->event) {
        e->env->event(e->env->aux,
                      &(struct mig_event){.kind = MIG_EVENT_LISTENING,
                                          .text = transport_listener_address(*listener)});
    }
    return 0;
}

/* The source's connections; then what it needs. */
int
mig_receive_accept(struct mig_end *e, struct transport_listener *listener, int timeout_ms,
                   bool heed, struct transport_message *message, struct mig_msg *config)
{
    char why[TRANSPORT_WHY] = "";
    struct transport_config c;
    struct transport_tls tls;
    struct transport *t;
    eventfd_t count;
    int error;

    c = end_transport_config(e, &tls);
    /* Not in slices of time: whoever is in the middle of a handshake would be cut off. */
    do {
        error = transport_accept(listener, &c, timeout_ms, e->control->wake, &t, why);
        eventfd_read(e->control->wake, &count);
    } while (error == ECANCELED && !e->control->quit && !(heed && e->control->cancel));
    if (error) {
        return end_fail(e, error, "source: %s",
                        error == ECANCELED ? "cancelled"
                        : *why             ? why
                                           : strerror(error));
    }
    end_use_transport(e, t);
    error = end_wait(e, message, config, e->job->answer_ms, heed);
    if (error) {
        return end_fail(e, error, "source: %s", end_transport_why(e, error));
    }
    if (config->type == MIG_CONFIG) {
        return 0;
    }
    error = config->type == MIG_ABORT ? ECONNABORTED : EPROTO;
    end_fail(e, error, "the source: %.200s",
             config->type == MIG_ABORT ? config->abort.text : "does not begin with CONFIG");
    transport_message_done(message);
    return error;
}

static int
refuse(struct mig_end *e, int error)
{
    end_put_abort(e, MIG_ABORT_REFUSED, e->result->why);
    return error;
}

static int
create(struct mig_end *e, const struct mig_msg *m)
{
    struct mig_guest_config config = end_guest_config(e);
    struct mig_msg accept = {.type = MIG_ACCEPT};
    char why[MIG_WHY] = "";
    int error;

    if (strcmp(m->config.driver, e->ops->name)) {
        return refuse(e, end_fail(e, EINVAL, "the guest is of driver \"%s\", not \"%s\"",
                                  m->config.driver, e->ops->name));
    }
    error = end_claim_check(e);
    if (error) {
        return refuse(e, error);
    }
    error = e->ops->create(&config, m->config.data.p, m->config.data.n, &e->guest, why);
    if (error) {
        return refuse(e, end_fail(e, error, "guest: %s", *why ? why : strerror(error)));
    }
    mig_journal_write(e->journal, MIG_JOURNAL_PREPARED, false);
    if (e->ops->kind == MIG_STREAM) {
        error = e->ops->stream_open(e->guest, why);
    } else {
        error = e->ops->memory(e->guest, &e->memory);
        if (!error) {
            error = transport_set_memory(e->transport, e->memory.base, e->memory.n_pages);
        }
    }
    if (error) {
        return refuse(e, end_fail(e, error, "guest: %s", *why ? why : strerror(error)));
    }
    accept.accept.n_pages = e->memory.n_pages;
    error = end_put(e, &accept);
    return error ? end_fail(e, error, "source: %s", end_transport_why(e, error)) : 0;
}

/* --- precopy -------------------------------------------------------------------------- */

static void
ask_clock(struct mig_end *e)
{
    struct mig_msg m = {.type = MIG_CLOCK, .clock.asked_ns = mig_now_ns()};

    end_put(e, &m);
}

/* Of all samples the one that took least is believed. */
static void
note_clock(struct destination *d, const struct mig_msg *m)
{
    uint64_t now = mig_now_ns(), took = now - m->clock.asked_ns;

    if (took < d->clock_took_ns) {
        d->clock_took_ns = took;
        d->clock_ahead_ns = (int64_t)(m->clock.received_ns - m->clock.asked_ns) / 2 +
                            (int64_t)(m->clock.answered_ns - now) / 2;
    }
}

static int
note_pending(struct destination *d, const struct mig_msg *m)
{
    uint64_t n_pages = d->e->memory.n_pages;
    struct mig_range r;

    if (!d->missing) {
        d->missing = calloc((n_pages + 63) / 64 + 1, sizeof *d->missing);
        if (!d->missing) {
            return ENOMEM;
        }
    }
    for (uint32_t i = 0; i < m->pending.n; i++) {
        r = mig_range_get(m, i);
        if (r.count > n_pages || r.pfn > n_pages - r.count) {
            return EPROTO;
        }
        for (uint64_t pfn = r.pfn; pfn < r.pfn + r.count; pfn++) {
            d->n_missing += !(d->missing[pfn / 64] >> pfn % 64 & 1);
            d->missing[pfn / 64] |= 1ull << pfn % 64;
        }
    }
    return 0;
}

/* One record of what comes before FINAL. */
static int
take(struct destination *d, const struct mig_msg *m)
{
    struct mig_end *e = d->e;
    char why[MIG_WHY] = "";
    int error = 0;

    switch (m->type) {
    case MIG_ROUND:
        e->progress.round = e->result->rounds = m->round.round + 1;
        e->progress.pages_left = m->round.pages_dirty;
        end_progress(e, true);
        ask_clock(e);
        break;
    case MIG_CLOCK:
        note_clock(d, m);
        break;
    case MIG_CHUNK:
        if (e->ops->kind != MIG_STREAM) {
            return EPROTO;
        }
        d->n_chunks++;
        error = e->ops->stream_put(e->guest, m->chunk.data.p, m->chunk.data.n, why);
        if (error) {
            end_fail(e, error, "toolstack: %s", *why ? why : strerror(error));
        }
        break;
    case MIG_STATE:
        error = end_take_part(&d->state, &m->state, MIG_STATE_TOTAL_MAX);
        break;
    case MIG_NETWORK:
        error = end_take_part(&d->network, &m->network, MIG_NETWORK_TOTAL_MAX);
        break;
    case MIG_PENDING:
        error = e->job->postcopy && e->ops->postcopy_start ? note_pending(d, m) : EPROTO;
        break;
    case MIG_ABORT:
        return end_fail(e, ECONNABORTED, "the source: %.200s", m->abort.text);
    default:
        return end_fail(e, EPROTO, "a %s where none belongs", mig_type_name(m->type));
    }
    return error;
}

/* Everything up to FINAL, which is left in *m. */
static int
receive_all(struct destination *d, struct mig_msg *m)
{
    struct mig_end *e = d->e;
    struct transport_message message;
    int error;

    end_phase(e, MIG_PHASE_PRECOPY);
    for (;;) {
        error = end_cancelled(e) ? ECANCELED : end_wait(e, &message, m, LOOK_MS, true);
        end_progress(e, false);
        if (error == ETIMEDOUT) {
            continue;
        }
        if (error) {
            return end_fail(e, error, "source: %s", end_transport_why(e, error));
        }
        if (m->type == MIG_FINAL) {
            d->final_ns = mig_now_ns();
            transport_message_done(&message);
            return 0;
        }
        error = take(d, m);
        transport_message_done(&message);
        if (error) {
            end_put_abort(e, MIG_ABORT_PROTOCOL, e->result->why);
            return end_fail(e, error, "stream: %s", strerror(error));
        }
    }
}

/* --- load -------------------------------------------------------------------------------- */

static int
load_memory(struct destination *d, const struct mig_msg *final, uint8_t digest[16])
{
    struct mig_end *e = d->e;
    char why[MIG_WHY] = "";
    struct mig_sum sum;
    int error;

    if (d->missing) {
        transport_forget(e->transport, d->missing);
    }
    sum = transport_digest(e->transport);
    mig_sum_put(digest, &sum);
    if (memcmp(digest, final->final.digest, 16)) {
        return end_fail(e, EBADMSG, "memory differs from the source's");
    }
    if (!d->state.p || d->state.n != d->state.total || final->final.n_pending != d->n_missing) {
        return end_fail(e, EPROTO, "the state is not whole");
    }
    error = e->ops->state_load(e->guest, d->state.p, d->state.n, why);
    if (error) {
        return end_fail(e, error, "state: %s", *why ? why : strerror(error));
    }
    if (d->missing) {
        error = postcopy_prepare(d, true);
    }
    return error;
}

static int
load_stream(struct destination *d, const struct mig_msg *final, uint8_t digest[16])
{
    char why[MIG_WHY] = "";
    int error;

    if (final->final.n_chunks != d->n_chunks) {
        return end_fail(d->e, EPROTO, "the stream is not whole");
    }
    error = d->e->ops->stream_finish(d->e->guest, final->final.digest, why);
    memcpy(digest, final->final.digest, 16);
    return error ? end_fail(d->e, error, "%s", *why ? why : strerror(error)) : 0;
}

/* Lost network state fails no migration. */
static void
load_network(struct destination *d)
{
    struct mig_end *e = d->e;
    const uint8_t *state;
    size_t n;

    if (!e->network) {
        return;
    }
    end_name_ports(e);
    network_keep(e->network);
    if (d->network.p && !end_network_get(e, &d->network, d->last_ns, &state, &n) && n) {
        network_import(e->network, state, n);
    }
}

/* Checks all, loads all; READY is out then. */
static int
load(struct destination *d, const struct mig_msg *final)
{
    struct mig_end *e = d->e;
    struct mig_msg ready = {.type = MIG_READY, .ready.epoch = e->job->epoch};
    int error;

    end_phase(e, MIG_PHASE_LOAD);
    if (final->final.epoch != e->job->epoch) {
        error = end_fail(e, EPROTO, "FINAL of another epoch");
    } else if (e->ops->kind == MIG_STREAM) {
        error = load_stream(d, final, ready.ready.digest);
    } else {
        error = load_memory(d, final, ready.ready.digest);
    }
    if (!error && end_cancelled(e)) {
        error = end_fail(e, ECANCELED, "cancelled");
    }
    if (error) {
        end_put_abort(e, error == EBADMSG ? MIG_ABORT_DIGEST : MIG_ABORT_LOAD, e->result->why);
        return end_fail(e, error, "load: %s", strerror(error));
    }
    load_network(d);
    error = mig_journal_write(e->journal, MIG_JOURNAL_READY, false);
    if (error) {
        end_put_abort(e, MIG_ABORT_INTERNAL, "journal");
        return end_fail(e, error, "journal: %s", strerror(error));
    }
    end_phase(e, MIG_PHASE_READY);
    d->ready = true;
    d->ready_ns = mig_now_ns();
    d->paused_before_ns = final->final.paused_ns;
    error = end_put(e, &ready);
    return error ? end_fail(e, error, "source: %s", end_transport_why(e, error)) : 0;
}

/* --- commit -------------------------------------------------------------------------------- */

/* The source's word; VERDICT_NONE: none came. */
static enum verdict
await_commit(struct destination *d)
{
    struct mig_end *e = d->e;
    uint64_t deadline = mig_now_ns() + e->job->answer_ms * 1000000ull, now;
    struct transport_message message;
    enum verdict v = VERDICT_NONE;
    struct mig_msg m;
    int error;

    while (v == VERDICT_NONE) {
        now = mig_now_ns();
        error = e->control->quit ? ECANCELED
                : now >= deadline
                    ? ETIMEDOUT
                    : end_wait(e, &message, &m, (deadline - now) / 1000000 + 1, false);
        if (error) {
            end_fail(e, error, "source: %s", end_transport_why(e, error));
            break;
        }
        if (m.type == MIG_COMMITTED && m.committed.epoch == e->job->epoch + 1) {
            end_note_row(e, e->job->to, m.committed.epoch);
            v = VERDICT_DESTINATION;
        } else if (m.type == MIG_ABORT) {
            end_fail(e, ECONNABORTED, "the source: %.200s", m.abort.text);
            v = VERDICT_SOURCE;
        } else if (m.type == MIG_CLOCK) {
            note_clock(d, &m);
        }
        transport_message_done(&message);
    }
    return v;
}

void
mig_receive_discard(struct mig_end *e)
{
    int error = e->guest ? e->ops->destroy(e->guest) : 0;

    if (error) {
        end_fail(e, error, "discard: %s", strerror(error));
        return;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->status = MIG_ROLLED_BACK;
}

/* Has each vif moved a packet here? */
static bool
look_for_packets(struct destination *d)
{
    struct network_times times[NETWORK_VIFS_MAX] = {0};
    bool all = !network_times(d->e->network, times);

    for (size_t i = 0; i < d->e->job->n_vifs; i++) {
        atomic_store(&d->first_ns[i], times[i].first_ns);
        all &= times[i].first_ns || times[i].untold;
    }
    return all;
}

/* A frame may get lost, and a switch with packets of the guest's on their old way still to
 * account for learns that way once more: Open vSwitch does so for up to half a second.  Hence
 * the last one after that. */
static void *
announcer(void *destination)
{
    static const int again_ms[] = {50, 200, 700, INT_MAX};
    struct destination *d = destination;
    uint64_t began = mig_now_ns();
    int passed_ms = 0, watch_ms = WATCH_MS;
    const int *again = again_ms;
    bool heard = false;

    network_announce(d->e->network);
    while (!atomic_load(&d->watches_no_more)) {
        heard = heard || look_for_packets(d);
        passed_ms = (mig_now_ns() - began) / 1000000;
        if (passed_ms >= *again) {
            network_announce(d->e->network);
            while (passed_ms >= *again) {
                again++;
            }
        } else if (heard && *again == INT_MAX) {
            break;
        } else {
            poll(NULL, 0, watch_ms < *again - passed_ms ? watch_ms : *again - passed_ms);
            watch_ms = watch_ms * 2 < WATCH_MOST_MS ? watch_ms * 2 : WATCH_MOST_MS;
        }
    }
    atomic_store(&d->all_heard, true);
    return NULL;
}

static void
announce(struct destination *d)
{
    if (d->e->network) {
        d->announces = !pthread_create(&d->announcer, NULL, announcer, d);
        if (!d->announces) {
            network_announce(d->e->network);
        }
    }
}

static void
end_announce(struct destination *d)
{
    atomic_store(&d->watches_no_more, true);
    if (d->announces) {
        pthread_join(d->announcer, NULL);
        d->announces = false;
    }
}

int
mig_receive_run(struct destination *d)
{
    struct mig_end *e = d->e;
    struct mig_msg m = {.type = MIG_RUNNING, .running.epoch = e->job->epoch + 1};
    int error;

    mig_journal_write(e->journal, MIG_JOURNAL_COMMITTED, false);
    end_phase(e, MIG_PHASE_RUN);
    error = e->ops->run(e->guest, e->job->epoch + 1);
    if (error) {
        return end_fail(e, error, "run: %s", strerror(error));
    }
    d->running_ns = mig_now_ns();
    if (d->final_ns) {
        e->result->blackout_us = (d->paused_before_ns + d->running_ns - d->final_ns) / 1000;
    }
    m.running.waited_ns = d->ready_ns ? d->running_ns - d->ready_ns : 0;
    if (e->transport && !transport_error(e->transport, NULL)) {
        end_put(e, &m);
    }
    announce(d);
    mig_journal_write(e->journal, MIG_JOURNAL_RUNNING, false);
    e->result->running = true;
    *e->result->why = '\0';
    return 0;
}

/* --- handover -------------------------------------------------------------------------------- */

/* Each vif's first packet here against its last one there.  True: there is news. */
static bool
note_blackouts(struct destination *d)
{
    struct mig_end *e = d->e;
    bool news = false;

    for (size_t i = 0; i < e->job->n_vifs; i++) {
        uint64_t first_ns = atomic_load(&d->first_ns[i]);
        int64_t us = (int64_t)(first_ns + d->clock_ahead_ns - d->last_ns[i]) / 1000;

        if (first_ns && d->last_ns[i] && us > 0 && !e->result->vif_blackout_us[i]) {
            e->result->vif_blackout_us[i] = us;
            news = true;
        }
    }
    return news;
}

/* Lines of what could not be carried, as long as there is room for whole ones. */
static size_t
lost_text(struct destination *d, char text[MIG_ARRIVED_TEXT_MAX])
{
    size_t n = 0, len;
    const char *line;

    for (d->n_told = 0; (line = network_lost(d->e->network, d->n_told)); d->n_told++) {
        len = strlen(line);
        if (n + len + 1 > MIG_ARRIVED_TEXT_MAX) {
            continue;
        }
        for (size_t i = 0; i < len; i++) {
            text[n++] = line[i] >= ' ' && line[i] <= '~' ? line[i] : '?';
        }
        text[n++] = '\n';
    }
    return n;
}

int
mig_receive_arrived(struct destination *d)
{
    uint8_t body[24 * MIG_ARRIVED_MAX + MIG_ARRIVED_TEXT_MAX];
    const struct mig_job *job = d->e->job;
    struct mig_msg m = {.type = MIG_ARRIVED, .arrived.n = job->n_vifs};

    if (!d->e->network || (!note_blackouts(d) && !network_lost(d->e->network, d->n_told))) {
        return 0;
    }
    for (size_t i = 0; i < job->n_vifs; i++) {
        struct mig_arrival a = {.blackout_ns = d->e->result->vif_blackout_us[i] * 1000};

        mig_uuid_parse(job->vifs[i].uuid, a.vif);
        mig_arrival_put(body + 24 * i, &a);
    }
    m.arrived.data.p = body;
    m.arrived.data.n = 24 * job->n_vifs + lost_text(d, (char *)body + 24 * job->n_vifs);
    return end_put(d->e, &m);
}

/* One record of what comes after COMMITTED. */
void
mig_receive_late(struct destination *d, const struct mig_msg *m)
{
    if (m->type == MIG_LATE && d->e->network) {
        d->e->result->late_packets++;
        network_feed(d->e->network, m->late.data.p, m->late.data.n);
    } else if (m->type == MIG_CLOCK) {
        note_clock(d, m);
    }
}

/* Until the source has nothing more, and the vifs have been heard of. */
static void
hand_over(struct destination *d)
{
    struct mig_end *e = d->e;
    uint64_t deadline = mig_now_ns() + HANDOVER_MS * 1000000ull;
    struct transport_message message;
    bool open = e->transport != NULL;
    struct mig_msg m;
    int error;

    end_phase(e, MIG_PHASE_HANDOVER);
    while (mig_now_ns() < deadline && !e->control->quit) {
        if (!open && (!e->network || !d->announces || atomic_load(&d->all_heard))) {
            break;
        }
        if (!open) {
            poll(NULL, 0, LOOK_MS);
            continue;
        }
        error = end_take(e, &message, &m, LOOK_MS);
        if (!error) {
            mig_receive_late(d, &m);
            transport_message_done(&message);
        }
        open = !error || error == ETIMEDOUT;
        if (open) {
            mig_receive_arrived(d);
        } else {
            end_finish(e);
        }
    }
    end_announce(d);
    note_blackouts(d);
    *e->result->why = '\0';
}

static void
finish(struct destination *d, struct transport_listener *listener)
{
    struct mig_end *e = d->e;

    if (d->missing) {
        end_phase(e, MIG_PHASE_POSTCOPY);
        if (postcopy_receive(d, listener)) {
            return;
        }
        if (d->died) {
            mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
            e->result->status = MIG_GONE;
            return;
        }
    }
    if (!d->missing || e->network) {
        hand_over(d);
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    e->result->status = MIG_OK;
}

/* READY is out: the row decides, or the source's word. */
void
mig_receive_settle(struct destination *d, enum verdict v, struct transport_listener *listener)
{
    struct mig_end *e = d->e;

    if (v == VERDICT_NONE && !e->control->quit) {
        end_phase(e, MIG_PHASE_COMMIT);
        v = end_decide(e, true);
    }
    switch (v) {
    case VERDICT_DESTINATION:
        if (!mig_receive_run(d)) {
            finish(d, listener);
        }
        break;
    case VERDICT_SOURCE:
        end_fail(e, ECANCELED, "the source took the VM back");
        mig_journal_write(e->journal, MIG_JOURNAL_ABORTED, false);
        mig_receive_discard(e);
        break;
    case VERDICT_OTHER:
        end_fail(e, ESTALE, "the VM was moved on by others (epoch %llu)",
                 (unsigned long long)e->result->epoch);
        if (end_lives_on(e)) {
            mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
            e->result->status = MIG_GONE;
            break;
        }
        mig_receive_discard(e);
        e->result->status = e->result->status == MIG_ROLLED_BACK ? MIG_GONE : MIG_FAILED;
        break;
    case VERDICT_NONE:
        end_fail(e, ECANCELED, "told to leave it as it is");
        break;
    }
}

void
mig_receive_free(struct destination *d)
{
    end_announce(d);
    free(d->state.p);
    free(d->network.p);
    free(d->missing);
    free(d->wanted);
    free((void *)d->there);
}

void
mig_receive(struct mig_end *e)
{
    struct destination d = {.e = e, .clock_took_ns = UINT64_MAX};
    struct transport_listener *listener = NULL;
    struct transport_message message;
    struct mig_msg m;
    int error;

    end_phase(e, MIG_PHASE_CONNECT);
    error = mig_receive_listen(e, &listener);
    if (!error) {
        error = mig_receive_accept(e, listener, e->job->accept_ms, true, &message, &m);
    }
    if (!error) {
        end_phase(e, MIG_PHASE_PREPARE);
        error = create(e, &m);
        transport_message_done(&message);
    }
    if (!error && e->network) {
        network_find(e->network);
    }
    if (!error) {
        error = receive_all(&d, &m);
    }
    if (!error) {
        error = load(&d, &m);
    }
    if (d.ready) {
        mig_receive_settle(&d, error ? VERDICT_NONE : await_commit(&d), listener);
    } else if (!e->control->quit) {
        mig_receive_discard(e);
    }
    end_phase(e, MIG_PHASE_DONE);
    /* The driver's threads may still be placing pages. */
    end_drop_transport(e);
    mig_receive_free(&d);
    transport_listener_close(listener);
}

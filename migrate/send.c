/* The source (engine.h has the theory): from the first word to the last. */
#include "send.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The far end gave up: why. */
static int
aborted(struct mig_end *e, const struct mig_msg *m)
{
    return end_fail(e, ECONNABORTED, "the destination: %.200s", m->abort.text);
}

/* What the far end has said meanwhile, and the user. */
int
send_look(struct mig_end *e)
{
    struct transport_message message;
    struct mig_msg m;
    int error;

    if (end_cancelled(e)) {
        return ECANCELED;
    }
    end_apply_limits(e);
    end_progress(e, false);
    for (int i = 0; i < TAKE_MOST; i++) {
        error = end_take(e, &message, &m, 0);
        if (error) {
            return error == ETIMEDOUT ? 0 : error;
        }
        if (m.type == MIG_ABORT) {
            error = aborted(e, &m);
        }
        transport_message_done(&message);
        if (error) {
            return error;
        }
    }
    return 0;
}

/* Waits with one of the transport's two ways to wait, looking up meanwhile. */
int
send_wait(struct mig_end *e, int (*wait)(struct transport *, int timeout_ms))
{
    int error;

    while ((error = wait(e->transport, LOOK_MS)) == ETIMEDOUT) {
        error = send_look(e);
        if (error) {
            return error;
        }
    }
    return error;
}

/* --- connect, prepare ------------------------------------------------------------ */

static int
attach(struct mig_end *e)
{
    struct mig_guest_config config = end_guest_config(e);
    struct mig_guest_status status;
    char why[MIG_WHY] = "";
    int error;

    error = e->ops->attach(&config, &e->guest, why);
    if (error) {
        return end_fail(e, error, "guest: %s", *why ? why : strerror(error));
    }
    end_name_ports(e);
    error = e->ops->status(e->guest, &status);
    if (!error && status.state != MIG_GUEST_RUNNING) {
        return end_fail(e, EINVAL, "the guest is not running");
    }
    if (!error && e->ops->kind == MIG_MEMORY) {
        error = e->ops->memory(e->guest, &e->memory);
    }
    return error ? end_fail(e, error, "guest: %s", strerror(error)) : 0;
}

static int
open_stream(struct mig_end *e)
{
    struct transport_tls tls;
    struct transport_config config = end_transport_config(e, &tls);
    char why[TRANSPORT_WHY] = "";
    struct transport *t;
    int error = transport_connect(e->job->connect, &config, &t, why);

    if (error) {
        return end_fail(e, error, "%s: %s", e->job->connect, *why ? why : strerror(error));
    }
    end_use_transport(e, t);
    return 0;
}

/* What the guest needs, and the destination's word that it has it. */
static int
agree(struct mig_end *e)
{
    uint8_t identity[MIG_IDENTITY_MAX];
    struct mig_msg m = {.type = MIG_CONFIG};
    struct transport_message message;
    size_t n = sizeof identity;
    int error = e->ops->describe(e->guest, identity, &n);

    if (error) {
        return end_fail(e, error, "guest: %s", strerror(error));
    }
    snprintf(m.config.driver, sizeof m.config.driver, "%s", e->ops->name);
    m.config.n_pages = e->memory.n_pages;
    m.config.data = (struct mig_bytes){.p = identity, .n = n};
    error = end_put(e, &m);
    if (!error) {
        error = end_wait(e, &message, &m, e->job->answer_ms, !e->past.committed);
    }
    if (error) {
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    if (m.type == MIG_ABORT) {
        error = aborted(e, &m);
    } else if (m.type != MIG_ACCEPT || m.accept.n_pages != e->memory.n_pages) {
        error = end_fail(e, EPROTO, "the destination has not accepted the guest");
    }
    transport_message_done(&message);
    return error;
}

static int
prepare(struct mig_end *e)
{
    int error;

    end_phase(e, MIG_PHASE_CONNECT);
    error = attach(e);
    if (!error) {
        error = end_claim_check(e);
    }
    if (!error) {
        error = open_stream(e);
    }
    if (!error) {
        end_phase(e, MIG_PHASE_PREPARE);
        error = agree(e);
    }
    if (!error && e->network) {
        network_watch(e->network);
    }
    return error;
}

/* --- vifs ------------------------------------------------------------------------- */

/* Lost network state fails no migration. */
int
send_network(struct mig_end *e)
{
    struct network_times times[NETWORK_VIFS_MAX] = {0};
    uint8_t *state = NULL;
    size_t n = 0;
    int error;

    if (!e->network) {
        return 0;
    }
    network_times(e->network, times);
    if (network_export(e->network, &state, &n) ||
        n > MIG_NETWORK_TOTAL_MAX - 4 - 24 * NETWORK_VIFS_MAX) {
        n = 0;
    }
    error = end_network_put(e, times, state ? state : (const uint8_t *)"", n);
    free(state);
    return error;
}

/* --- final, commit --------------------------------------------------------------------- */

static int
put_final(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {.type = MIG_FINAL};
    struct mig_sum sum;
    int error = 0;

    if (e->ops->kind == MIG_STREAM) {
        error = e->ops->stream_digest(e->guest, m.final.digest);
    } else {
        if (s->pending) {
            transport_forget(e->transport, s->pending);
        }
        sum = transport_digest(e->transport);
        mig_sum_put(m.final.digest, &sum);
    }
    m.final.epoch = e->job->epoch;
    m.final.n_chunks = s->n_chunks;
    m.final.n_pending = s->pending ? send_count(s->pending, s->words) : 0;
    m.final.paused_ns = mig_now_ns() - e->paused_ns;
    return error ? error : end_put(e, &m);
}

/* The destination's word that it could run the guest. */
static int
await_ready(struct mig_end *e)
{
    uint64_t deadline = mig_now_ns() + e->job->answer_ms * 1000000ull, now;
    struct transport_message message;
    struct mig_msg m;
    int error;

    for (;;) {
        now = mig_now_ns();
        error = end_cancelled(e)  ? ECANCELED
                : now >= deadline ? ETIMEDOUT
                                  : end_wait(e, &message, &m, (deadline - now) / 1000000 + 1, true);
        if (error == ETIMEDOUT) {
            return end_fail(e, error, "the destination has not got ready in time");
        }
        if (error) {
            return end_fail(e, error, "%s", end_transport_why(e, error));
        }
        if (m.type == MIG_ABORT) {
            error = aborted(e, &m);
        }
        transport_message_done(&message);
        if (error || m.type == MIG_READY) {
            return error;
        }
    }
}

static int
finalise(struct source *s)
{
    struct mig_end *e = s->e;
    int error;

    end_phase(e, MIG_PHASE_FINAL);
    if (end_cancelled(e)) {
        return ECANCELED;
    }
    s->may_be_final = true;
    error = put_final(s);
    if (error) {
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    error = await_ready(e);
    if (!error) {
        end_phase(e, MIG_PHASE_COMMIT);
        s->ready = !end_cancelled(e);
        error = s->ready ? 0 : ECANCELED;
    }
    return error;
}

/* --- afterwards --------------------------------------------------------------------------- */

static void
quieten(struct source *s)
{
    struct mig_end *e = s->e;

    if (s->logging) {
        e->ops->dirty_stop(e->guest);
        s->logging = false;
    }
    if (s->throttle) {
        e->ops->throttle(e->guest, 0);
    }
}

/* The guest goes on here. */
static void
resume(struct mig_end *e, uint64_t epoch)
{
    struct mig_result *r = e->result;
    int error;

    if (e->network) {
        network_release(e->network);
    }
    error = e->ops->resume(e->guest, epoch);
    if (error) {
        end_fail(e, error, "resume: %s", strerror(error));
        return;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    r->running = true;
    end_note_row(e, e->job->from, epoch);
    r->status = MIG_ROLLED_BACK;
}

void
send_resume(struct mig_end *e)
{
    mig_journal_write(e->journal, MIG_JOURNAL_ABORTED, false);
    resume(e, e->job->epoch + 1);
}

void
send_destroy(struct mig_end *e)
{
    int error = e->guest ? e->ops->destroy(e->guest) : 0;

    if (error) {
        end_fail(e, error, "destroy: %s", strerror(error));
        return;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
    *e->result->why = '\0';
    e->result->status = MIG_OK;
    if (e->corpse) {
        end_fail(e, 0, "%s", e->corpse);
    } else if (!e->heard) {
        end_fail(e, 0, "the destination has all of the guest, but has not said that it runs");
    }
}

void
send_running(struct mig_end *e)
{
    e->heard = true;
    if (!e->result->blackout_us && e->paused_ns) {
        e->result->blackout_us = (mig_now_ns() - e->paused_ns) / 1000;
    }
}

/* One line of what was lost there; the last record has them all. */
static void
note_lost_there(struct mig_end *e, const char *line, size_t len)
{
    struct mig_result *r = e->result;
    size_t at = strlen(r->lost);
    int n = snprintf(r->lost + at, sizeof r->lost - at, "%s%s: %.*s", at ? "\n" : "", e->job->to,
                     (int)len, line);

    if (n < 0 || (size_t)n >= sizeof r->lost - at) {
        r->lost[at] = '\0';
    }
}

void
send_arrived(struct mig_end *e, const struct mig_msg *m)
{
    struct mig_bytes text = mig_arrived_text(m);
    uint8_t vif[16];

    for (uint32_t k = 0; k < m->arrived.n; k++) {
        struct mig_arrival a = mig_arrival_get(m, k);

        for (size_t i = 0; i < e->job->n_vifs; i++) {
            if (!mig_uuid_parse(e->job->vifs[i].uuid, vif) && !memcmp(vif, a.vif, sizeof vif)) {
                e->result->vif_blackout_us[i] = a.blackout_ns / 1000;
            }
        }
    }
    e->result->lost[0] = '\0';
    for (uint32_t at = 0, end; at < text.n; at = end + 1) {
        for (end = at; end < text.n && text.p[end] != '\n'; end++) {
        }
        note_lost_there(e, (const char *)text.p + at, end - at);
    }
}

int
send_late(struct mig_end *e, int *left)
{
    uint8_t frame[NETWORK_LATE_MAX];
    struct mig_msg m = {.type = MIG_LATE};
    size_t n = sizeof frame;
    int error;

    while (!(error = network_late(e->network, frame, &n))) {
        m.late.data = (struct mig_bytes){.p = frame, .n = n};
        e->result->late_packets++;
        error = end_put(e, &m);
        if (error) {
            return error;
        }
        n = sizeof frame;
    }
    *left = error == EAGAIN;
    return 0;
}

int
send_reconnect(struct mig_end *e)
{
    int error = open_stream(e);

    *e->result->why = '\0';
    if (!error) {
        error = agree(e);
    }
    return error;
}

/* Waits for RUNNING and forwards what still comes here.  RUNNING ends the blackout, which is known
 * by nothing else here: a peer that is there and slow has the time of any other answer, and one
 * that is gone ends the stream.  Who sends to the guest finds it at the destination as soon as his
 * switch has heard of it, from the announcement or the controller: when for a while nothing came
 * here, nothing will. */
static void
hand_over(struct mig_end *e)
{
    struct transport_message message;
    struct mig_msg m;
    uint64_t deadline = mig_now_ns() + (HANDOVER_MS + e->job->answer_ms) * 1000000ull;
    uint64_t quiet_ns = 0, n;
    int late = e->network ? 1 : 0, error = 0, fd = -1;
    bool destroyed = false;

    if (late && network_late_fd(e->network, &fd)) {
        late = 0;
    }
    while (!error && (!e->heard || (late && mig_now_ns() < quiet_ns)) && mig_now_ns() < deadline &&
           !e->control->quit) {
        struct pollfd p[] = {{.fd = transport_rx_fd(e->transport), .events = POLLIN},
                             {.fd = late ? fd : -1, .events = POLLIN}};

        poll(p, 2, LOOK_MS);
        n = e->result->late_packets;
        for (int i = 0; i < TAKE_MOST && !(error = end_take(e, &message, &m, 0)); i++) {
            if (m.type == MIG_RUNNING && !e->heard) {
                send_running(e);
                quiet_ns = mig_now_ns() + QUIET_MS * 1000000ull;
                deadline = mig_now_ns() + HANDOVER_MS * 1000000ull;
            } else if (m.type == MIG_ARRIVED) {
                send_arrived(e, &m);
            }
            transport_message_done(&message);
        }
        error = error == ETIMEDOUT ? 0 : error;
        if (e->heard && !destroyed) {
            destroyed = !e->ops->destroy(e->guest);
        }
        if (!error && late) {
            error = send_late(e, &late);
        }
        if (e->result->late_packets != n) {
            quiet_ns = mig_now_ns() + QUIET_MS * 1000000ull;
        }
    }
    if (destroyed && e->network) {
        network_release(e->network); /* the port may go */
    }
}

/* The row says: the destination's. */
static void
hand_away(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {.type = MIG_COMMITTED, .committed.epoch = e->job->epoch + 1};
    bool up = e->transport && !transport_error(e->transport, NULL);

    if (up) {
        end_put(e, &m);
    }
    mig_journal_write(e->journal, MIG_JOURNAL_COMMITTED, false);
    e->past.committed = true;
    quieten(s);
    if (s->pending) {
        end_phase(e, MIG_PHASE_POSTCOPY);
        if (postcopy_send(e, s->pending)) {
            return;
        }
    } else if (up) {
        end_phase(e, MIG_PHASE_HANDOVER);
        hand_over(e);
    }
    end_finish(e);
    send_destroy(e);
}

static enum mig_abort_code
abort_code(const struct mig_end *e, int error)
{
    return e->control->cancel                    ? MIG_ABORT_CANCELLED
           : error == EPROTO || error == EBADMSG ? MIG_ABORT_PROTOCOL
                                                 : MIG_ABORT_INTERNAL;
}

/* No FINAL went out: the guest is ours without asking anybody. */
static void
roll_back(struct source *s, int error)
{
    struct mig_end *e = s->e;
    struct mig_guest_status status;

    end_put_abort(e, abort_code(e, error), e->result->why);
    if (e->guest) {
        quieten(s);
        error = s->begun ? e->ops->status(e->guest, &status) : 0;
        if (error && error != ENOENT && error != ESRCH) {
            /* It may be paused: not done, whoever recovers asks again. */
            end_fail(e, error, "guest: %s", strerror(error));
            return;
        }
        if (s->begun && !error && status.state != MIG_GUEST_RUNNING) {
            resume(e, e->job->epoch);
            return;
        }
        if (e->network) {
            network_release(e->network);
        }
        e->result->running = s->begun && !error; /* it may have died */
        e->result->status = MIG_ROLLED_BACK;
    }
    mig_journal_write(e->journal, MIG_JOURNAL_DONE, true);
}

static void
settle(struct source *s, int error)
{
    struct mig_end *e = s->e;

    if (error) {
        end_fail(e, error, "%s", strerror(error));
    }
    switch (end_decide(e, s->ready)) {
    case VERDICT_DESTINATION:
        hand_away(s);
        break;
    case VERDICT_SOURCE:
        end_fail(e, ECANCELED, "the destination's commit was too late");
        end_put_abort(e, error ? abort_code(e, error) : MIG_ABORT_LOST, e->result->why);
        quieten(s);
        send_resume(e);
        break;
    case VERDICT_OTHER:
        end_fail(e, ESTALE, "the VM was moved on by others (epoch %llu)",
                 (unsigned long long)e->result->epoch);
        end_put_abort(e, MIG_ABORT_LOST, e->result->why);
        send_destroy(e);
        e->result->status = e->result->status == MIG_OK ? MIG_GONE : MIG_FAILED;
        break;
    case VERDICT_NONE:
        break;
    }
}

void
mig_send(struct mig_end *e)
{
    struct source s = {.e = e};
    int error = prepare(e);

    if (!error) {
        s.begun = true;
        if (e->ops->kind == MIG_STREAM) {
            error = send_stream(&s);
        } else {
            error = send_precopy(&s);
            if (!error) {
                error = send_stop_and_copy(&s);
            }
        }
    }
    if (!error) {
        error = finalise(&s);
    }
    if (e->control->cancel && error == ECANCELED) {
        end_fail(e, error, "cancelled");
    }
    if (e->control->quit) {
        end_fail(e, ECANCELED, "told to leave it as it is");
    } else if (s.may_be_final) {
        settle(&s, error);
    } else {
        roll_back(&s, error);
    }
    end_phase(e, MIG_PHASE_DONE);
    free(s.bitmap);
    free(s.pending);
}

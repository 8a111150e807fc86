#include "end.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "bytes.h"

static const char *const phase_names[MIG_PHASES] = {
    "connect", "prepare", "precopy", "pause",    "final",    "load",
    "ready",   "commit",  "run",     "handover", "postcopy", "done",
};

const char *
mig_phase_name(enum mig_phase p)
{
    return p < MIG_PHASES ? phase_names[p] : "?";
}

enum mig_phase
mig_phase_find(const char *name)
{
    int p = 0;

    while (p < MIG_PHASES && strcmp(phase_names[p], name)) {
        p++;
    }
    return p;
}

const char *
mig_status_name(enum mig_status s)
{
    static const char *const names[] = {"ok", "rolled_back", "failed", "gone"};

    return s <= MIG_GONE ? names[s] : "?";
}

uint64_t
mig_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int
mig_uuid_parse(const char *text, uint8_t out[16])
{
    int n = 0;

    if (strlen(text) != 36) {
        return EINVAL;
    }
    for (int i = 0; i < 36; i++) {
        char c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-') {
                return EINVAL;
            }
            continue;
        }
        if (v < 0) {
            return EINVAL;
        }
        out[n / 2] = n % 2 ? out[n / 2] | v : v << 4;
        n++;
    }
    return 0;
}

/* --- life ------------------------------------------------------------------------ */

int
end_fail(struct mig_end *e, int error, const char *format, ...)
{
    va_list args;

    if (!*e->result->why) {
        va_start(args, format);
        vsnprintf(e->result->why, sizeof e->result->why, format, args);
        va_end(args);
    }
    return error;
}

struct mig_guest_config
end_guest_config(const struct mig_end *e)
{
    return (struct mig_guest_config){.options = e->job->options,
                                     .n_options = e->job->n_options,
                                     .vm = e->job->vm,
                                     .epoch = e->job->epoch};
}

void
end_name_ports(struct mig_end *e)
{
    if (e->network && e->ops->domid) {
        network_name_ports(e->network, e->ops->domid(e->guest));
    }
}

struct transport_config
end_transport_config(const struct mig_end *e, struct transport_tls *tls)
{
    const struct mig_job *job = e->job;
    struct transport_config c = {.identity.epoch = job->epoch,
                                 .n_connections = job->connections,
                                 .stall_ms = job->answer_ms,
                                 .memory = e->source ? e->memory.base : NULL,
                                 .n_pages = e->source ? e->memory.n_pages : 0,
                                 .chunks = e->ops->kind == MIG_STREAM,
                                 .delta_cache_bytes = job->delta_cache_bytes,
                                 .compress = job->compress,
                                 .congestion = job->congestion,
                                 .capture = job->capture};

    mig_uuid_parse(job->vm, c.identity.vm);
    mig_uuid_parse(job->migration, c.identity.migration);
    *tls = (struct transport_tls){.private_key = job->tls.private_key,
                                  .certificate = job->tls.certificate,
                                  .ca_cert = job->tls.ca_cert,
                                  .crl = job->tls.crl,
                                  .peer_name = job->tls.peer_name};
    c.tls = job->plain ? NULL : tls;
    return c;
}

static int
open_journal(struct mig_end *e)
{
    struct mig_journal_head head = {
        .source = e->source, .recovers = e->job->role == MIG_RECOVER, .epoch = e->job->epoch};
    int error;

    if (!e->job->journal) {
        return 0;
    }
    snprintf(head.migration, sizeof head.migration, "%s", e->job->migration);
    snprintf(head.vm, sizeof head.vm, "%s", e->job->vm);
    error = mig_journal_open(e->job->journal, &head, &e->journal, &e->past);
    if (error == EBUSY) {
        return end_fail(e, error, "another migration of this VM is under way at this host");
    }
    if (error == ESTALE) {
        return end_fail(e, error, "%s is about another migration", e->job->journal);
    }
    return error ? end_fail(e, error, "%s: %s", e->job->journal, strerror(error)) : 0;
}

int
end_open(struct mig_end *e, const struct mig_env *env, struct mig_result *result)
{
    int error;

    *result = (struct mig_result){.status = MIG_FAILED, .epoch = env->job->epoch};
    *e = (struct mig_end){.env = env,
                          .job = env->job,
                          .ops = env->driver,
                          .control = env->control,
                          .result = result,
                          .source = mig_job_is_source(env->job),
                          .progress = {.eta_s = UINT32_MAX, .expected_blackout_ms = UINT32_MAX},
                          .start_ns = mig_now_ns()};
    e->phase_ns = e->start_ns;
    e->body = malloc(MIG_MAX_BLOB + 4096);
    if (!e->body) {
        return end_fail(e, ENOMEM, "no memory");
    }
    error = open_journal(e);
    if (!error && e->job->n_vifs) {
        error = network_open(e->job->vifs, e->job->n_vifs, &e->network);
        if (error) {
            end_fail(e, error, "vifs: %s", strerror(error));
        }
    }
    return error;
}

static void
note_lost(struct mig_end *e)
{
    struct mig_result *r = e->result;
    size_t at = strlen(r->lost);
    const char *s;

    for (size_t i = 0; e->network && (s = network_lost(e->network, i)); i++) {
        int n = snprintf(r->lost + at, sizeof r->lost - at, "%s%s", at ? "\n" : "", s);

        if (n < 0 || (size_t)n >= sizeof r->lost - at) {
            r->lost[at] = '\0';
            break;
        }
        at += n;
    }
}

void
end_close(struct mig_end *e)
{
    end_drop_transport(e);
    e->result->total_us = (mig_now_ns() - e->start_ns) / 1000;
    note_lost(e);
    network_close(e->network);
    pthread_mutex_lock(&e->control->lock);
    e->control->stream = NULL;
    pthread_mutex_unlock(&e->control->lock);
    if (e->guest) {
        e->ops->detach(e->guest);
    }
    mig_journal_close(e->journal);
    free(e->body);
}

bool
end_cancelled(const struct mig_end *e)
{
    return e->control->cancel || e->control->quit;
}

/* Waits until somebody says go on. */
static void
stop_here(struct mig_end *e)
{
    struct pollfd p = {.fd = e->control->wake, .events = POLLIN};
    eventfd_t count;

    if (e->env->event) {
        e->env->event(e->env->aux,
                      &(struct mig_event){.kind = MIG_EVENT_STOPPED, .phase = e->phase});
    }
    while (!e->control->go_on && !end_cancelled(e)) {
        poll(&p, 1, 1000);
        eventfd_read(e->control->wake, &count);
    }
}

void
end_phase(struct mig_end *e, enum mig_phase phase)
{
    uint64_t now = mig_now_ns();

    e->result->phase_us[e->phase] += (now - e->phase_ns) / 1000;
    e->phase_ns = now;
    e->phase = phase;
    if (e->env->event) {
        e->env->event(e->env->aux, &(struct mig_event){.kind = MIG_EVENT_PHASE, .phase = phase});
    }
    if (e->job->pause_at && mig_phase_find(e->job->pause_at) == phase) {
        stop_here(e);
    }
}

void
end_waiting(struct mig_end *e, const char *what)
{
    if (e->env->event) {
        e->env->event(e->env->aux, &(struct mig_event){
                                       .kind = MIG_EVENT_WAITING, .phase = e->phase, .text = what});
    }
}

/* In the middle of a round: of all of memory over a slow wire it is most of the time.  What is
 * written meanwhile is sent later, at the rate of the last look; at first nobody knows. */
static void
note_round(struct mig_end *e, const struct transport_stats *s, uint64_t t)
{
    struct mig_progress *p = &e->progress;
    uint64_t left = s->pages_waiting < e->round_pages ? s->pages_waiting : e->round_pages;
    uint64_t us = (t - e->round_ns) / 1000;

    p->pages_left = left;
    p->rate_mbps = us ? (e->round_pages - left) * MIG_PAGE_BYTES * 8 / us : 0;
    p->eta_s = p->rate_mbps > p->dirty_mbps
                   ? left * MIG_PAGE_BYTES * 8 / 1000000 / (p->rate_mbps - p->dirty_mbps)
                   : UINT32_MAX;
}

void
end_progress(struct mig_end *e, bool now)
{
    struct mig_event event = {.kind = MIG_EVENT_PROGRESS, .phase = e->phase};
    struct transport_stats s;
    uint64_t t = mig_now_ns();

    if (t - e->progress_ns < (now ? e->source ? 0 : NEWS_MS : PROGRESS_MS) * 1000000ull) {
        return;
    }
    e->progress_ns = t;
    if (e->transport) {
        transport_get_stats(e->transport, &s);
        e->progress.bytes_wire = e->source ? e->sent_before + s.wire_bytes_sent
                                           : e->received_before + s.wire_bytes_received;
        if (e->ops->kind == MIG_MEMORY) { /* a stream's are its driver's */
            e->progress.bytes_guest =
                (e->source ? s.pages_sent : s.pages_received) * MIG_PAGE_BYTES;
        }
        if (e->round_pages) {
            note_round(e, &s, t);
        }
    }
    event.progress = e->progress;
    if (e->env->event) {
        e->env->event(e->env->aux, &event);
    }
}

/* --- the stream --------------------------------------------------------------------- */

void
end_use_transport(struct mig_end *e, struct transport *t)
{
    e->transport = t;
    if (e->job->limit_mbps) {
        transport_limit_rate(t, e->job->limit_mbps * 125000);
    }
    if (e->job->cpu_percent) {
        transport_limit_cpu(t, e->job->cpu_percent);
    }
}

void
end_drop_transport(struct mig_end *e)
{
    struct mig_result *r = e->result;
    struct transport_stats s;

    if (!e->transport) {
        return;
    }
    transport_get_stats(e->transport, &s);
    e->sent_before += s.wire_bytes_sent;
    e->received_before += s.wire_bytes_received;
    r->bytes_wire = e->source ? e->sent_before : e->received_before;
    r->pages_sent += e->source ? s.pages_sent : s.pages_received;
    if (e->ops->kind == MIG_MEMORY) {
        r->bytes_guest = r->pages_sent * MIG_PAGE_BYTES;
    }
    for (int k = 0; k < MIG_KINDS; k++) {
        r->pages_by_kind[k] += s.pages_by_kind[k];
    }
    transport_close(e->transport);
    e->transport = NULL;
}

void
end_finish(struct mig_end *e)
{
    if (e->transport && !transport_error(e->transport, NULL)) {
        transport_finish(e->transport, FINISH_MS);
    }
}

void
end_apply_limits(struct mig_end *e)
{
    if (atomic_exchange(&e->control->limit_set, false) && e->transport) {
        transport_limit_rate(e->transport, e->control->limit_mbps * 125000);
    }
}

int
end_put(struct mig_end *e, const struct mig_msg *m)
{
    size_t n = mig_msg_put(e->body, MIG_MAX_BLOB + 4096, m);

    return n ? transport_tx_record(e->transport, m->type, e->body, n) : EINVAL;
}

void
end_put_abort(struct mig_end *e, enum mig_abort_code code, const char *text)
{
    struct mig_msg m = {.type = MIG_ABORT, .abort.code = code};

    if (e->transport && !transport_error(e->transport, NULL)) {
        snprintf(m.abort.text, sizeof m.abort.text, "%s", text);
        if (!end_put(e, &m)) {
            transport_flush(e->transport, 1000);
        }
    }
}

/* A question about this clock is answered, if there is room for it: no peer that asks without
 * end and reads nothing shall keep us waiting.  An answer is left to the caller. */
static bool
answer_clock(struct mig_end *e, const struct mig_msg *m, uint64_t now)
{
    uint8_t body[64];

    struct mig_msg answer = {
        .type = MIG_CLOCK,
        .clock = {
            .answer = true, .asked_ns = m->clock.asked_ns, .received_ns = now, .answered_ns = now}};

    if (m->clock.answer) {
        return false;
    }
    transport_tx_record_now(e->transport, MIG_CLOCK, body, mig_msg_put(body, sizeof body, &answer));
    return true;
}

int
end_take(struct mig_end *e, struct transport_message *message, struct mig_msg *m, int timeout_ms)
{
    uint64_t deadline = mig_now_ns() + timeout_ms * 1000000ull;
    const char *why = "";
    int error;

    for (unsigned asked = 0;; asked++) {
        error = asked == TAKE_MOST ? ETIMEDOUT : transport_rx(e->transport, message, timeout_ms);
        if (error) {
            return error;
        }
        if (message->type == MIG_CHUNK) {
            *m = (struct mig_msg){.type = MIG_CHUNK,
                                  .chunk.data = {.p = message->data, .n = message->len}};
            return 0;
        }
        error = mig_msg_get(message->type, message->data, message->len, m, &why);
        if (error) {
            end_fail(e, error, "%s", why);
        }
        if (error || m->type != MIG_CLOCK || !answer_clock(e, m, mig_now_ns())) {
            break;
        }
        transport_message_done(message);
        timeout_ms = mig_now_ns() < deadline ? timeout_ms : 0;
    }
    if (error) {
        transport_message_done(message);
    }
    return error;
}

const char *
end_transport_why(const struct mig_end *e, int error)
{
    const char *why = NULL;

    if (e->control->cancel && error == ECANCELED) {
        return "cancelled";
    }
    if (e->transport && transport_error(e->transport, &why) && why && *why) {
        return why;
    }
    return strerror(error);
}

int
end_wait(struct mig_end *e, struct transport_message *message, struct mig_msg *m, int timeout_ms,
         bool heed)
{
    uint64_t deadline = mig_now_ns() + (timeout_ms > 0 ? timeout_ms : 0) * 1000000ull;
    int error;

    while ((error = end_take(e, message, m, LOOK_MS)) == ETIMEDOUT) {
        if (e->control->quit || (heed && e->control->cancel)) {
            return ECANCELED;
        }
        end_apply_limits(e);
        if (timeout_ms >= 0 && mig_now_ns() >= deadline) {
            return ETIMEDOUT;
        }
    }
    return error;
}

int
end_flush(struct mig_end *e, bool heed)
{
    int error;

    while ((error = transport_flush(e->transport, LOOK_MS)) == ETIMEDOUT) {
        if (e->control->quit || (heed && e->control->cancel)) {
            return ECANCELED;
        }
        end_apply_limits(e);
        end_progress(e, false);
    }
    return error;
}

int
end_put_parts(struct mig_end *e, uint32_t type, const uint8_t *p, size_t n)
{
    struct mig_msg m = {.type = type};
    struct mig_part *part = type == MIG_STATE ? &m.state : &m.network;
    int error = 0;

    for (size_t at = 0; at < n && !error; at += part->data.n) {
        part->total = n;
        part->offset = at;
        part->data =
            (struct mig_bytes){.p = p + at, .n = n - at < MIG_MAX_BLOB ? n - at : MIG_MAX_BLOB};
        error = end_put(e, &m);
    }
    return error;
}

/* What parts have come together to. */
int
end_take_part(struct mig_blob *b, const struct mig_part *part, size_t max)
{
    if (!b->p) {
        if (part->total > max) {
            return EPROTO;
        }
        b->p = malloc(part->total);
        b->total = part->total;
        if (!b->p) {
            return ENOMEM;
        }
    }
    if (part->total != b->total || part->offset != b->n || part->data.n > b->total - b->n) {
        return EPROTO;
    }
    memcpy(b->p + b->n, part->data.p, part->data.n);
    b->n += part->data.n;
    return 0;
}

/* --- vifs -------------------------------------------------------------------------------- */

/* The network's record: when the last packet moved here, per vif, then the switch's
 * own bytes.  le32 n, n times { uuid, le64 ns }. */
enum { TIME_BYTES = 24 };

int
end_network_put(struct mig_end *e, const struct network_times *times, const uint8_t *state,
                size_t n)
{
    size_t head = 4 + e->job->n_vifs * TIME_BYTES;
    uint8_t *p = malloc(head + n);
    int error;

    if (!p) {
        return ENOMEM;
    }
    put_le32(p, e->job->n_vifs);
    for (size_t i = 0; i < e->job->n_vifs; i++) {
        mig_uuid_parse(e->job->vifs[i].uuid, p + 4 + i * TIME_BYTES);
        put_le64(p + 4 + i * TIME_BYTES + 16, times[i].last_ns);
    }
    memcpy(p + head, state, n);
    error = end_put_parts(e, MIG_NETWORK, p, head + n);
    free(p);
    return error;
}

int
end_network_get(const struct mig_end *e, const struct mig_blob *b,
                uint64_t last_ns[NETWORK_VIFS_MAX], const uint8_t **state, size_t *n)
{
    uint8_t uuid[16];
    uint32_t vifs;
    size_t head;

    if (b->n < 4 || b->n != b->total || (vifs = get_le32(b->p)) > NETWORK_VIFS_MAX) {
        return EPROTO;
    }
    head = 4 + (size_t)vifs * TIME_BYTES;
    if (b->n < head) {
        return EPROTO;
    }
    for (size_t i = 0; i < e->job->n_vifs; i++) {
        last_ns[i] = 0;
        mig_uuid_parse(e->job->vifs[i].uuid, uuid);
        for (uint32_t j = 0; j < vifs; j++) {
            if (!memcmp(b->p + 4 + j * TIME_BYTES, uuid, 16)) {
                last_ns[i] = get_le64(b->p + 4 + j * TIME_BYTES + 16);
            }
        }
    }
    *state = b->p + head;
    *n = b->n - head;
    return 0;
}

/* --- the row -------------------------------------------------------------------------- */

int
end_claim_check(struct mig_end *e)
{
    const struct mig_claim *c = &e->env->claim;
    char host[MIG_HOST];
    uint64_t epoch;
    int error = c->read(c->aux, host, &epoch, CLAIM_TRY_MS);

    if (error == ENOENT) {
        return end_fail(e, error, "the pool has no such VM");
    }
    if (error) {
        return end_fail(e, error, "the pool's database does not answer: %s", strerror(error));
    }
    if (epoch != e->job->epoch || strcmp(host, e->job->from)) {
        return end_fail(e, ESTALE, "the VM is on \"%s\" in epoch %llu, not on \"%s\" in epoch %llu",
                        host, (unsigned long long)epoch, e->job->from,
                        (unsigned long long)e->job->epoch);
    }
    return 0;
}

void
end_note_row(struct mig_end *e, const char *host, uint64_t epoch)
{
    e->result->epoch = epoch;
    snprintf(e->result->owner, sizeof e->result->owner, "%s", host);
}

enum verdict
end_look_at_row(struct mig_end *e, bool *undecided)
{
    const struct mig_claim *c = &e->env->claim;
    const struct mig_job *job = e->job;
    char host[MIG_HOST];
    uint64_t epoch;

    *undecided = false;
    /* An epoch below ours is an old view. */
    if (c->read(c->aux, host, &epoch, CLAIM_TRY_MS) || epoch < job->epoch) {
        return VERDICT_NONE;
    }
    end_note_row(e, host, epoch);
    e->row_here = !strcmp(host, e->source ? job->from : job->to);
    if (epoch == job->epoch) {
        *undecided = !strcmp(host, job->from);
        return VERDICT_NONE;
    }
    if (epoch == job->epoch + 1 && !strcmp(host, job->from)) {
        return VERDICT_SOURCE;
    }
    if (epoch == job->epoch + 1 && !strcmp(host, job->to)) {
        return VERDICT_DESTINATION;
    }
    return VERDICT_OTHER;
}

/* Between two questions to the database. */
static void
wait_for_row(struct mig_end *e, int *wait_ms)
{
    if (*wait_ms == CLAIM_RETRY_MIN_MS) {
        end_waiting(e, "the pool's database: the guest stays paused");
    }
    nanosleep(&(struct timespec){.tv_sec = *wait_ms / 1000, .tv_nsec = *wait_ms % 1000 * 1000000L},
              NULL);
    *wait_ms = 2 * *wait_ms < CLAIM_RETRY_MAX_MS ? 2 * *wait_ms : CLAIM_RETRY_MAX_MS;
}

enum verdict
end_read_row(struct mig_end *e, bool *undecided)
{
    int wait_ms = CLAIM_RETRY_MIN_MS;
    enum verdict v;

    while ((v = end_look_at_row(e, undecided)) == VERDICT_NONE && !*undecided &&
           !e->control->quit) {
        wait_for_row(e, &wait_ms);
    }
    return v;
}

enum verdict
end_decide(struct mig_end *e, bool commit)
{
    const struct mig_claim *c = &e->env->claim;
    const struct mig_job *job = e->job;
    const char *to = commit ? job->to : job->from;
    int error, wait_ms = CLAIM_RETRY_MIN_MS;
    bool undecided;
    enum verdict v;

    for (;;) {
        error = c->swap(c->aux, job->from, job->epoch, to, job->epoch + 1, CLAIM_TRY_MS);
        if (!error) {
            end_note_row(e, to, job->epoch + 1);
            return commit ? VERDICT_DESTINATION : VERDICT_SOURCE;
        }
        v = end_look_at_row(e, &undecided);
        if (v != VERDICT_NONE || e->control->quit) {
            return v;
        }
        wait_for_row(e, &wait_ms);
    }
}

bool
end_lives_on(struct mig_end *e)
{
    struct mig_guest_status status;

    return e->row_here && e->guest && !e->ops->status(e->guest, &status) &&
           status.state == MIG_GUEST_RUNNING;
}

/* --- all roles -------------------------------------------------------------------------- */

void
mig_run(const struct mig_env *env, struct mig_result *result)
{
    struct mig_end e;
    int error = end_open(&e, env, result);

    if (!error && env->job->role == MIG_RECOVER) {
        mig_recover(&e);
    } else if (!error && e.past.step != MIG_JOURNAL_NONE) {
        end_fail(&e, EEXIST, "this migration has begun already (%s): recover it",
                 mig_journal_step_name(e.past.step));
    } else if (!error && e.source) {
        mig_send(&e);
    } else if (!error) {
        mig_receive(&e);
    }
    end_close(&e);
}

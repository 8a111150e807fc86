/* The bodies of the records but PAGES: for each message what is written and, beside
 * it, what is checked (record.h).  docs/migration-stream.md has the tables.
 *
 * Every pair ends where the fixed part of the body ends; the bytes that some messages
 * carry behind it are appended and taken by mig_msg_put() and mig_msg_get(). */
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "cursor.h"
#include "record.h"

enum {
    CONFIG_FIXED = 24,
    ACCEPT_FIXED = 8,
    BARRIER_FIXED = 16,
    ROUND_FIXED = 16,
    CHUNK_FIXED = 8,
    PART_FIXED = 16,
    PENDING_FIXED = 8,
    FINAL_FIXED = 48,
    READY_FIXED = 24,
    COMMITTED_FIXED = 8,
    ABORT_FIXED = 4,
    PLACED_FIXED = 24,
    CLOCK_FIXED = 32,
    RUNNING_FIXED = 16,
    END_FIXED = 8,
    ARRIVED_FIXED = 8,
    ARRIVAL = 24,
};

/* --- CONFIG, ACCEPT ------------------------------------------------------------------------- */

static void
config_put(uint8_t *out, const struct mig_msg *m)
{
    memcpy(out, m->config.driver, strnlen(m->config.driver, 16));
    put_le64(out + 16, m->config.n_pages);
}

/* A name of letters and digits, zeros behind it. */
static bool
driver_name_ok(const char name[17])
{
    size_t n = strlen(name);

    for (size_t i = 0; i < 16; i++) {
        if (i < n ? !(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= '0' && name[i] <= '9')
                  : name[i] != 0) {
            return false;
        }
    }
    return n > 0;
}

static const char *
config_get(const uint8_t *p, struct mig_msg *m)
{
    memcpy(m->config.driver, p, 16);
    m->config.n_pages = get_le64(p + 16);
    return !driver_name_ok(m->config.driver)   ? "CONFIG: name of the driver"
           : m->config.n_pages > MIG_PAGES_MAX ? "CONFIG: number of pages"
                                               : NULL;
}

static void
accept_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->accept.n_pages);
}

static const char *
accept_get(const uint8_t *p, struct mig_msg *m)
{
    m->accept.n_pages = get_le64(p);
    return m->accept.n_pages > MIG_PAGES_MAX ? "ACCEPT: number of pages" : NULL;
}

/* --- BARRIER, ROUND --------------------------------------------------------------------------- */

static void
barrier_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->barrier.number);
    put_le64(out + 8, m->barrier.pages);
}

static const char *
barrier_get(const uint8_t *p, struct mig_msg *m)
{
    m->barrier.number = get_le64(p);
    m->barrier.pages = get_le64(p + 8);
    return m->barrier.number == 0 ? "BARRIER: number" : NULL;
}

static void
round_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->round.round);
    put_le64(out + 8, m->round.pages_dirty);
}

static const char *
round_get(const uint8_t *p, struct mig_msg *m)
{
    m->round.round = get_le32(p);
    m->round.pages_dirty = get_le64(p + 8);
    return get_le32(p + 4)                        ? "ROUND: reserved bytes are not zero"
           : m->round.pages_dirty > MIG_PAGES_MAX ? "ROUND: number of pages"
                                                  : NULL;
}

/* --- CHUNK, STATE, NETWORK -----------------------------------------------------------------------
 */

static void
chunk_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->chunk.sequence);
}

static const char *
chunk_get(const uint8_t *p, struct mig_msg *m)
{
    m->chunk.sequence = get_le64(p);
    return NULL;
}

static void
part_put(uint8_t *out, const struct mig_part *part)
{
    put_le64(out, part->total);
    put_le64(out + 8, part->offset);
}

/* Is it inside the whole, and that not too long? */
static bool
part_get(const uint8_t *p, struct mig_part *part, uint64_t max)
{
    part->total = get_le64(p);
    part->offset = get_le64(p + 8);
    return part->total <= max && part->offset <= part->total &&
           part->data.n <= part->total - part->offset;
}

static void
state_put(uint8_t *out, const struct mig_msg *m)
{
    part_put(out, &m->state);
}

static const char *
state_get(const uint8_t *p, struct mig_msg *m)
{
    return part_get(p, &m->state, MIG_STATE_TOTAL_MAX) ? NULL : "STATE: a part beyond the whole";
}

static void
network_put(uint8_t *out, const struct mig_msg *m)
{
    part_put(out, &m->network);
}

static const char *
network_get(const uint8_t *p, struct mig_msg *m)
{
    return part_get(p, &m->network, MIG_NETWORK_TOTAL_MAX) ? NULL
                                                           : "NETWORK: a part beyond the whole";
}

/* --- PENDING, REQUEST: page numbers
 * ---------------------------------------------------------------- */

void
mig_range_put(uint8_t out[16], struct mig_range r)
{
    put_le64(out, r.pfn);
    put_le64(out + 8, r.count);
}

struct mig_range
mig_range_get(const struct mig_msg *m, uint32_t i)
{
    const uint8_t *p = m->pending.data.p + (size_t)i * 16;

    return (struct mig_range){get_le64(p), get_le64(p + 8)};
}

static void
pending_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->pending.n);
    put_le32(out + 4, m->pending.last);
}

static const char *
pending_get(const uint8_t *p, struct mig_msg *m)
{
    uint32_t last = get_le32(p + 4);
    uint64_t next = 0;

    m->pending.n = get_le32(p);
    m->pending.last = last;
    if (last > 1 || (uint64_t)m->pending.n * 16 != m->pending.data.n || (!m->pending.n && !last)) {
        return "PENDING: number of ranges";
    }
    for (uint32_t i = 0; i < m->pending.n; i++) {
        struct mig_range r = mig_range_get(m, i);

        if (!r.count || r.pfn < next || r.pfn >= MIG_PAGES_MAX || r.count > MIG_PAGES_MAX - r.pfn) {
            return "PENDING: ranges are not ascending";
        }
        next = r.pfn + r.count;
    }
    return NULL;
}

void
mig_request_put(uint8_t out[8], uint64_t pfn)
{
    put_le64(out, pfn);
}

uint64_t
mig_request_get(const struct mig_msg *m, uint32_t i)
{
    return get_le64(m->request.data.p + (size_t)i * 8);
}

static const char *
request_get(const uint8_t *p, struct mig_msg *m)
{
    m->request.n = m->request.data.n / 8;
    if (m->request.data.n % 8) {
        return "REQUEST: length";
    }
    for (uint32_t i = 0; i < m->request.n; i++) {
        if (mig_request_get(m, i) >= MIG_PAGES_MAX) {
            return "REQUEST: page";
        }
    }
    return NULL;
}

/* --- FINAL, READY, COMMITTED, ABORT
 * ------------------------------------------------------------------ */

static void
final_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->final.epoch);
    memcpy(out + 8, m->final.digest, 16);
    put_le64(out + 24, m->final.n_chunks);
    put_le64(out + 32, m->final.n_pending);
    put_le64(out + 40, m->final.paused_ns);
}

static const char *
final_get(const uint8_t *p, struct mig_msg *m)
{
    m->final.epoch = get_le64(p);
    memcpy(m->final.digest, p + 8, 16);
    m->final.n_chunks = get_le64(p + 24);
    m->final.n_pending = get_le64(p + 32);
    m->final.paused_ns = get_le64(p + 40);
    return m->final.n_pending > MIG_PAGES_MAX ? "FINAL: number of pages" : NULL;
}

static void
ready_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->ready.epoch);
    memcpy(out + 8, m->ready.digest, 16);
}

static const char *
ready_get(const uint8_t *p, struct mig_msg *m)
{
    m->ready.epoch = get_le64(p);
    memcpy(m->ready.digest, p + 8, 16);
    return NULL;
}

static void
committed_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->committed.epoch);
}

static const char *
committed_get(const uint8_t *p, struct mig_msg *m)
{
    m->committed.epoch = get_le64(p);
    return NULL;
}

static void
abort_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->abort.code);
}

/* What is not a printable character of ASCII becomes a question mark: the text goes to logs
 * and screens. */
static void
copy_text(char *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = from[i] >= ' ' && from[i] <= '~' ? (char)from[i] : '?';
    }
    to[n] = 0;
}

static const char *
abort_get(const uint8_t *p, struct mig_msg *m)
{
    m->abort.code = get_le32(p);
    return NULL;
}

/* --- PLACED, CLOCK, RUNNING, END
 * ------------------------------------------------------------------------ */

static void
placed_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->placed.barrier);
    put_le64(out + 8, m->placed.pages);
    put_le64(out + 16, m->placed.chunks);
}

static const char *
placed_get(const uint8_t *p, struct mig_msg *m)
{
    m->placed.barrier = get_le64(p);
    m->placed.pages = get_le64(p + 8);
    m->placed.chunks = get_le64(p + 16);
    return NULL;
}

static void
clock_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->clock.answer);
    put_le64(out + 8, m->clock.asked_ns);
    put_le64(out + 16, m->clock.received_ns);
    put_le64(out + 24, m->clock.answered_ns);
}

static const char *
clock_get(const uint8_t *p, struct mig_msg *m)
{
    uint32_t answer = get_le32(p);

    m->clock.answer = answer;
    m->clock.asked_ns = get_le64(p + 8);
    m->clock.received_ns = get_le64(p + 16);
    m->clock.answered_ns = get_le64(p + 24);
    if (answer > 1 || get_le32(p + 4)) {
        return "CLOCK: reserved bytes are not zero";
    }
    if (!answer ? m->clock.received_ns || m->clock.answered_ns
                : m->clock.answered_ns < m->clock.received_ns) {
        return "CLOCK: times";
    }
    return NULL;
}

static void
running_put(uint8_t *out, const struct mig_msg *m)
{
    put_le64(out, m->running.epoch);
    put_le64(out + 8, m->running.waited_ns);
}

static const char *
running_get(const uint8_t *p, struct mig_msg *m)
{
    m->running.epoch = get_le64(p);
    m->running.waited_ns = get_le64(p + 8);
    return NULL;
}

static void
end_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->end.records);
}

static const char *
end_get(const uint8_t *p, struct mig_msg *m)
{
    m->end.records = get_le32(p);
    return get_le32(p + 4) ? "END: reserved bytes are not zero" : NULL;
}

/* --- ARRIVED -------------------------------------------------------------------------------------
 */

void
mig_arrival_put(uint8_t out[ARRIVAL], const struct mig_arrival *a)
{
    memcpy(out, a->vif, 16);
    put_le64(out + 16, a->blackout_ns);
}

struct mig_arrival
mig_arrival_get(const struct mig_msg *m, uint32_t i)
{
    const uint8_t *p = m->arrived.data.p + (size_t)i * ARRIVAL;
    struct mig_arrival a = {.blackout_ns = get_le64(p + 16)};

    memcpy(a.vif, p, 16);
    return a;
}

struct mig_bytes
mig_arrived_text(const struct mig_msg *m)
{
    uint32_t at = m->arrived.n * ARRIVAL;

    return (struct mig_bytes){m->arrived.data.p + at, m->arrived.data.n - at};
}

static void
arrived_put(uint8_t *out, const struct mig_msg *m)
{
    put_le32(out, m->arrived.n);
}

static const char *
arrived_get(const uint8_t *p, struct mig_msg *m)
{
    struct mig_bytes text;

    m->arrived.n = get_le32(p);
    if (get_le32(p + 4)) {
        return "ARRIVED: reserved bytes are not zero";
    }
    if (m->arrived.n > MIG_ARRIVED_MAX || m->arrived.n * ARRIVAL > m->arrived.data.n) {
        return "ARRIVED: number of vifs";
    }
    text = mig_arrived_text(m);
    for (uint32_t i = 0; i < text.n; i++) {
        if (text.p[i] != '\n' && (text.p[i] < ' ' || text.p[i] > '~')) {
            return "ARRIVED: text";
        }
    }
    return text.n > MIG_ARRIVED_TEXT_MAX ? "ARRIVED: text" : NULL;
}

/* --- all of them
 * ------------------------------------------------------------------------------------------ */

/* 'put' finds zeros to write over.  'get' finds the message's bytes set already. */
static const struct {
    void (*put)(uint8_t *out, const struct mig_msg *);
    const char *(*get)(const uint8_t *p, struct mig_msg *);
    uint32_t fixed;
} bodies[MIG_TYPES] = {
    [MIG_CONFIG] = {config_put, config_get, CONFIG_FIXED},
    [MIG_ACCEPT] = {accept_put, accept_get, ACCEPT_FIXED},
    [MIG_BARRIER] = {barrier_put, barrier_get, BARRIER_FIXED},
    [MIG_ROUND] = {round_put, round_get, ROUND_FIXED},
    [MIG_CHUNK] = {chunk_put, chunk_get, CHUNK_FIXED},
    [MIG_STATE] = {state_put, state_get, PART_FIXED},
    [MIG_NETWORK] = {network_put, network_get, PART_FIXED},
    [MIG_LATE] = {NULL, NULL, 0},
    [MIG_PENDING] = {pending_put, pending_get, PENDING_FIXED},
    [MIG_FINAL] = {final_put, final_get, FINAL_FIXED},
    [MIG_READY] = {ready_put, ready_get, READY_FIXED},
    [MIG_COMMITTED] = {committed_put, committed_get, COMMITTED_FIXED},
    [MIG_ABORT] = {abort_put, abort_get, ABORT_FIXED},
    [MIG_REQUEST] = {NULL, request_get, 0},
    [MIG_PLACED] = {placed_put, placed_get, PLACED_FIXED},
    [MIG_CLOCK] = {clock_put, clock_get, CLOCK_FIXED},
    [MIG_RUNNING] = {running_put, running_get, RUNNING_FIXED},
    [MIG_END] = {end_put, end_get, END_FIXED},
    [MIG_ARRIVED] = {arrived_put, arrived_get, ARRIVED_FIXED},
};

/* Where the bytes behind the fixed part are, or NULL if a message has none. */
static struct mig_bytes *
bytes_of(struct mig_msg *m)
{
    switch (m->type) {
    case MIG_CONFIG:
        return &m->config.data;
    case MIG_CHUNK:
        return &m->chunk.data;
    case MIG_STATE:
        return &m->state.data;
    case MIG_NETWORK:
        return &m->network.data;
    case MIG_LATE:
        return &m->late.data;
    case MIG_PENDING:
        return &m->pending.data;
    case MIG_REQUEST:
        return &m->request.data;
    case MIG_ARRIVED:
        return &m->arrived.data;
    default:
        return NULL;
    }
}

static bool
has_body(uint32_t type)
{
    return type < MIG_TYPES && type != MIG_PAGES && mig_record_min(type);
}

size_t
mig_msg_head_len(const struct mig_msg *m)
{
    return has_body(m->type) ? bodies[m->type].fixed : 0;
}

size_t
mig_msg_put(uint8_t *out, size_t room, const struct mig_msg *m)
{
    struct mig_msg copy = *m, parsed;
    const struct mig_bytes *bytes;
    struct mig_bytes tail = {NULL, 0};
    const char *why;
    size_t n;

    if (!has_body(m->type)) {
        return 0;
    }
    bytes = bytes_of(&copy);
    if (bytes) {
        tail = *bytes;
    } else if (m->type == MIG_ABORT) {
        tail = (struct mig_bytes){(const uint8_t *)copy.abort.text,
                                  (uint32_t)strnlen(copy.abort.text, MIG_TEXT_MAX)};
    }
    n = bodies[m->type].fixed + (size_t)tail.n;
    if (n > room) {
        return 0;
    }
    memset(out, 0, bodies[m->type].fixed);
    if (bodies[m->type].put) {
        bodies[m->type].put(out, m);
    }
    if (tail.n) {
        memcpy(out + bodies[m->type].fixed, tail.p, tail.n);
    }
    return mig_msg_get(m->type, out, n, &parsed, &why) ? 0 : n;
}

int
mig_msg_get(uint32_t type, const uint8_t *body, size_t length, struct mig_msg *m, const char **why)
{
    struct cursor c = cursor_on(body, length);
    struct mig_bytes *bytes, tail;
    const uint8_t *fixed;

    memset(m, 0, sizeof *m);
    m->type = type;
    if (!has_body(type)) {
        *why = "record: not a message";
        return EPROTO;
    }
    fixed = cursor_take(&c, bodies[type].fixed);
    if (c.failed || length < mig_record_min(type) || length > mig_record_max(type)) {
        *why = "record: length";
        return EPROTO;
    }
    tail = (struct mig_bytes){c.p, (uint32_t)c.left};
    bytes = bytes_of(m);
    if (bytes) {
        *bytes = tail;
    } else if (type == MIG_ABORT) {
        copy_text(m->abort.text, tail.p, tail.n);
    }
    *why = bodies[type].get ? bodies[type].get(fixed, m) : NULL;
    return *why ? EPROTO : 0;
}

/* A connection's receiver: nothing that it reads is believed before it was checked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transport_priv.h"

/* Descriptors whose payloads are read at once; they are hashed while they are in the
 * core's own cache. */
#define RX_SLICE 64u

static int
refuse(struct connection *c, const char *why)
{
    transport_fail(c->t, EBADMSG, "connection %u: %s", c->index, why);
    return EBADMSG;
}

static int
read_all(struct connection *c, struct iovec *iov, unsigned n)
{
    int error = io_read(&c->io, iov, n);

    if (error) {
        transport_fail(c->t, error, "connection %u: %s", c->index,
                       error == ECONNRESET ? "the peer is gone" : strerror(error));
    }
    return error;
}

static int
read_bytes(struct connection *c, void *p, size_t n)
{
    return read_all(c, &(struct iovec){.iov_base = p, .iov_len = n}, n ? 1 : 0);
}

/* --- pages ---------------------------------------------------------------- */

/* Where the payload of descriptor 'i' of a slice is read to. */
static uint8_t *
landing(const struct connection *c, const struct mig_desc *d, unsigned i, bool in_place)
{
    return in_place && d->kind == MIG_RAW ? c->t->memory + d->pfn * MIG_PAGE
                                          : c->scratch + (size_t)i * MIG_PAGE;
}

/* The kernel clears a huge page's small pages so that the one that is touched comes last.  Upwards
 * that takes half the time that it takes downwards, so the last one is touched before the first.
 * Memory without huge pages gets that small page for nothing. */
static void
touch_huge_page(struct transport *t, uint64_t pfn)
{
    uintptr_t first = (uintptr_t)t->memory, end = first + t->n_pages * MIG_PAGE;
    uintptr_t huge = (first + pfn * MIG_PAGE) & ~(uintptr_t)(MIG_HUGE_PAGE - 1);
    uint64_t n = (huge - first) / MIG_HUGE_PAGE, bit = 1ull << n % 64;

    if (huge < first || end - huge < MIG_HUGE_PAGE ||
        atomic_load_explicit(&t->touched[n / 64], memory_order_relaxed) & bit) {
        return;
    }
    if (!(atomic_fetch_or(&t->touched[n / 64], bit) & bit)) {
        /* Refused: then it comes when it is written. */
        madvise((void *)(huge + MIG_HUGE_PAGE - MIG_PAGE), MIG_PAGE, MADV_POPULATE_WRITE);
    }
}

static int
read_slice(struct connection *c, const struct mig_desc *d, unsigned n, bool in_place)
{
    struct iovec iov[RX_SLICE];
    unsigned k = 0;

    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = landing(c, &d[i], i, in_place);

        if (!d[i].length) {
            continue;
        }
        if (in_place) {
            touch_huge_page(c->t, d[i].pfn);
        }
        if (k && (uint8_t *)iov[k - 1].iov_base + iov[k - 1].iov_len == p) {
            iov[k - 1].iov_len += d[i].length;
        } else {
            iov[k++] = (struct iovec){.iov_base = p, .iov_len = d[i].length};
        }
    }
    return read_all(c, iov, k);
}

static int
place_slice(struct connection *c, const struct mig_desc *d, unsigned n)
{
    struct transport *t = c->t;
    const char *why = NULL;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *payload = landing(c, &d[i], i, true);

        for (uint64_t pfn = d[i].pfn; pfn < d[i].pfn + d[i].count; pfn++) {
            uint64_t hash;

            if (mig_decode(c->decoder, &d[i], payload, t->memory + pfn * MIG_PAGE, &hash, &why)) {
                return refuse(c, why);
            }
            mig_digest_set(&t->digest, &c->rx_sum, pfn, hash);
        }
    }
    return 0;
}

/* The guest runs: its pages appear whole, and only where there is none. */
static int
hand_over_slice(struct connection *c, const struct mig_desc *d, unsigned n)
{
    struct transport *t = c->t;
    uint8_t page[MIG_PAGE] __attribute__((aligned(64)));
    const char *why = NULL;

    for (unsigned i = 0; i < n; i++) {
        for (uint64_t pfn = d[i].pfn; pfn < d[i].pfn + d[i].count; pfn++) {
            uint64_t hash;
            int error;

            memset(page, 0, sizeof page);
            if (mig_decode(c->decoder, &d[i], c->scratch + (size_t)i * MIG_PAGE, page, &hash,
                           &why)) {
                return refuse(c, why);
            }
            error = t->place(t->place_aux, pfn, page);
            if (!error) {
                mig_digest_set(&t->digest, &c->rx_sum, pfn, hash);
            } else if (error != EEXIST) {
                transport_fail(t, error, "page %llu: %s", (unsigned long long)pfn, strerror(error));
                return error;
            }
        }
    }
    return 0;
}

static int
receive_payload(struct connection *c)
{
    const struct mig_batch *b = &c->rx_batch;
    bool postcopy = b->flags & MIG_BATCH_POSTCOPY;
    uint64_t pages = 0;
    int error = 0;

    if (postcopy && !atomic_load(&c->t->rx_place)) {
        return refuse(c, "pages of a guest that does not run here");
    }
    if (!postcopy && atomic_load(&c->t->rx_place)) {
        return refuse(c, "PAGES: over a guest that may run");
    }
    /* Counted before the look at FINAL, which looks at the count: one of us sees the other. */
    if (!postcopy) {
        atomic_fetch_add(&c->t->rx_since_barrier, 1);
        if (atomic_load(&c->t->rx_final)) {
            return refuse(c, "PAGES: behind FINAL");
        }
    }
    for (unsigned i = 0; i < b->n && !error; i += RX_SLICE) {
        unsigned n = b->n - i < RX_SLICE ? b->n - i : RX_SLICE;
        const struct mig_desc *d = &b->desc[i];

        error = read_slice(c, d, n, !postcopy);
        if (!error) {
            error = postcopy ? hand_over_slice(c, d, n) : place_slice(c, d, n);
        }
        for (unsigned k = 0; k < n; k++) {
            pages += d[k].count;
        }
    }
    c->rx_descriptors += b->n;
    atomic_fetch_add_explicit(&c->pages_received, pages, memory_order_relaxed);
    return error;
}

static int
receive_pages(struct connection *c, const uint8_t head[MIG_RECORD_HEAD], const struct mig_record *r)
{
    const char *why = "pages before there is memory for them";
    size_t n;
    int error;

    if (c->t->chunks || !atomic_load(&c->t->rx_memory) || r->length < MIG_BATCH_HEAD) {
        return refuse(c, why);
    }
    error = read_bytes(c, c->rx_head, MIG_BATCH_HEAD);
    if (error) {
        return error;
    }
    n = mig_batch_peek(c->rx_head, r->length, &why);
    if (!n || n > sizeof c->rx_head) {
        return refuse(c, why);
    }
    error = read_bytes(c, c->rx_head + MIG_BATCH_HEAD, n - MIG_BATCH_HEAD);
    if (error) {
        return error;
    }
    if (!mig_record_check_ok(head, c->rx_head, n)) {
        return refuse(c, "PAGES: damaged");
    }
    if (mig_batch_get(c->rx_head, n, r->length, c->t->n_pages, &c->rx_batch, &why)) {
        return refuse(c, why);
    }
    return receive_payload(c);
}

/* --- barriers and the end ------------------------------------------------- */

static int
answer_placed(struct connection *c, uint64_t barrier, uint64_t chunks)
{
    const struct mig_msg m = {
        .type = MIG_PLACED,
        .placed = {.barrier = barrier, .pages = c->rx_descriptors, .chunks = chunks},
    };
    uint8_t body[64];

    return transport_push_record(c->t, 0, MIG_PLACED, body, mig_msg_put(body, sizeof body, &m));
}

/* Goes on when all connections are there. */
static int
meet(struct connection *c, const struct mig_msg *m)
{
    struct transport *t = c->t;
    uint64_t chunks;
    int error;

    if (m->barrier.number != c->rx_barrier + 1 || m->barrier.pages != c->rx_descriptors) {
        return refuse(c, "BARRIER: not the next, or pages are missing");
    }
    c->rx_barrier++;
    if (atomic_load(&t->rx_memory)) {
        mig_digest_fold(&t->digest, &c->rx_sum);
    }
    pthread_mutex_lock(&t->lock);
    if (++t->rx_barrier_there == t->n) {
        t->rx_barrier_there = 0;
        atomic_store(&t->rx_since_barrier, 0);
        t->rx_barrier++;
        pthread_cond_broadcast(&t->changed);
    }
    while (!t->error && !t->rx_ended && t->rx_barrier < c->rx_barrier) {
        transport_wait(t, &t->changed, 0);
    }
    /* A toolstack's stream is placed when it has been taken. */
    while (!t->error && t->chunks && t->rx_bytes) {
        transport_wait(t, &t->changed, 0);
    }
    error = t->error ? t->error : t->rx_barrier < c->rx_barrier ? EBADMSG : 0;
    chunks = t->rx_chunk;
    pthread_mutex_unlock(&t->lock);
    if (error == EBADMSG) {
        return refuse(c, "BARRIER: behind the end of another connection");
    }
    return error || c->index ? error : answer_placed(c, c->rx_barrier, chunks);
}

static int
end(struct connection *c, const struct mig_msg *m)
{
    struct transport *t = c->t;

    if (m->end.records != c->rx_sequence - 1) {
        return refuse(c, "END: records are missing");
    }
    pthread_mutex_lock(&t->lock);
    c->ended = true;
    t->rx_ended++;
    transport_signal_rx(t);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static int
note_placed(struct connection *c, const struct mig_msg *m)
{
    struct transport *t = c->t;
    int error = 0;

    pthread_mutex_lock(&t->lock);
    if (m->placed.barrier < t->barriers_placed || m->placed.barrier > t->tx_barriers) {
        error = EBADMSG;
    } else {
        atomic_store(&t->barriers_placed, m->placed.barrier);
        pthread_cond_broadcast(&t->changed);
    }
    pthread_mutex_unlock(&t->lock);
    return error ? refuse(c, "PLACED: a barrier that was not sent") : 0;
}

/* --- records -------------------------------------------------------------- */

/* From here on the guest's memory is what its digest says. */
static int
note_final(struct connection *c)
{
    atomic_store(&c->t->rx_final, true);
    return atomic_load(&c->t->rx_since_barrier) ? refuse(c, "FINAL: pages and no BARRIER before it")
                                                : 0;
}

static int
deliver_chunk(struct connection *c, const struct mig_msg *m)
{
    uint8_t *data = malloc(m->chunk.data.n);
    int error;

    if (!c->t->chunks || m->chunk.sequence > INT64_MAX) {
        free(data);
        return refuse(c, "CHUNK: not of this stream");
    }
    if (!data) {
        return ENOMEM;
    }
    memcpy(data, m->chunk.data.p, m->chunk.data.n);
    error = transport_deliver(c->t, MIG_CHUNK, data, m->chunk.data.n, m->chunk.sequence);
    return error == EBADMSG ? refuse(c, "CHUNK: came before") : error;
}

/* Takes the body over. */
static int
handle(struct connection *c, uint32_t type, uint8_t *body, size_t len)
{
    struct mig_msg m;
    const char *why = NULL;
    int error;

    if (mig_msg_get(type, body, len, &m, &why)) {
        free(body);
        return refuse(c, why);
    }
    switch (type) {
    case MIG_FINAL:
        error = note_final(c);
        if (!error) {
            return transport_deliver(c->t, type, body, len, -1);
        }
        break;
    case MIG_BARRIER:
        error = meet(c, &m);
        break;
    case MIG_END:
        error = end(c, &m);
        break;
    case MIG_CHUNK:
        error = deliver_chunk(c, &m);
        break;
    case MIG_PLACED:
        error = note_placed(c, &m);
        break;
    default:
        return transport_deliver(c->t, type, body, len, -1);
    }
    free(body);
    return error;
}

static bool
any_connection(uint32_t type)
{
    return type == MIG_PAGES || type == MIG_BARRIER || type == MIG_CHUNK || type == MIG_END;
}

static int
receive_record(struct connection *c)
{
    uint8_t head[MIG_RECORD_HEAD], *body;
    struct mig_record r;
    const char *why = NULL;
    int error = read_bytes(c, head, sizeof head);

    if (error) {
        return error;
    }
    if (mig_record_get(head, !c->t->source, c->rx_sequence++, &r, &why)) {
        return refuse(c, why);
    }
    if (r.known && c->index && !any_connection(r.type)) {
        return refuse(c, "record: belongs on connection 0");
    }
    if (r.known && r.type == MIG_PAGES) {
        return receive_pages(c, head, &r);
    }
    body = malloc(r.length + 1);
    if (!body) {
        transport_fail(c->t, ENOMEM, "connection %u: no memory", c->index);
        return ENOMEM;
    }
    error = read_bytes(c, body, r.length);
    if (!error && !mig_record_check_ok(head, body, r.length)) {
        error = refuse(c, "record: damaged");
    }
    if (error || !r.known) {
        free(body);
        return error;
    }
    return handle(c, r.type, body, r.length);
}

void *
transport_receiver(void *connection)
{
    struct connection *c = connection;
    int error;

    do {
        error = receive_record(c);
    } while (!error && !c->ended);
    if (error) {
        transport_fail(c->t, error, "connection %u: %s", c->index, strerror(error));
    }
    return NULL;
}

/* A connection's sender: takes what is queued for it, in order, encodes and writes it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "transport_priv.h"

/* Pages of a batch: enough that system calls and heads do not matter, few enough that
 * what was hashed is still in the core's own cache when it is written. */
#define TX_BATCH_PAGES 128u

static uint64_t
thread_cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Sleeps, unless the transport fails.  Short at a time: the limit may be lifted. */
static void
pause_for(struct transport *t, struct limit *l, uint64_t ns)
{
    const uint64_t slice = 20 * 1000000;
    uint64_t now = transport_now(), end = now + ns;

    pthread_mutex_lock(&t->lock);
    while (!t->error && now < end) {
        transport_wait(t, &t->changed, end - now < slice ? end : now + slice);
        now = transport_now();
        ns = limit_take(l, 0, now);
        end = now + ns;
    }
    pthread_mutex_unlock(&t->lock);
}

static void
keep_to(struct transport *t, struct limit *l, double amount)
{
    uint64_t ns = limit_take(l, amount, transport_now());

    if (ns) {
        pause_for(t, l, ns);
    }
}

void
transport_charge_cpu(struct transport *t, uint64_t *seen)
{
    uint64_t cpu = thread_cpu();

    keep_to(t, &t->cpu, *seen ? cpu - *seen : 0);
    *seen = cpu;
}

static int
write_all(struct connection *c, struct iovec *iov, unsigned n)
{
    int error = io_write(&c->io, iov, n);

    if (error) {
        transport_fail(c->t, error, "connection %u: sending: %s", c->index, strerror(error));
    }
    return error;
}

static int
send_record(struct connection *c, uint32_t type, const void *body, size_t len)
{
    uint8_t head[MIG_RECORD_HEAD];
    struct iovec iov[2] = {
        {.iov_base = head, .iov_len = sizeof head},
        {.iov_base = (void *)body, .iov_len = len},
    };

    mig_record_put(head, type, len, c->tx_sequence++, body, len);
    return write_all(c, iov, len ? 2 : 1);
}

/* --- pages ---------------------------------------------------------------- */

static void
count_pages(struct connection *c)
{
    const struct mig_encoder_stats *s = mig_encoder_stats(c->encoder);

    for (unsigned k = 0; k < MIG_KINDS; k++) {
        atomic_store_explicit(&c->pages_by_kind[k], s->pages[k], memory_order_relaxed);
    }
}

/* Payloads behind the heads; neighbours in memory become one. */
static unsigned
gather(const struct connection *c, struct iovec *iov)
{
    const struct mig_batch *b = &c->tx_batch;
    unsigned n = 0;

    for (unsigned i = 0; i < b->n; i++) {
        uint8_t *p = (uint8_t *)c->payload[i];
        size_t len = b->desc[i].length;

        if (!len) {
            continue;
        }
        if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == p) {
            iov[n - 1].iov_len += len;
        } else {
            iov[n++] = (struct iovec){.iov_base = p, .iov_len = len};
        }
    }
    return n;
}

/* How often the processor was taken from this thread. */
static long
preemptions(void)
{
    struct rusage r;

    return getrusage(RUSAGE_THREAD, &r) ? 0 : r.ru_nivcsw;
}

/* Counts towards what the wire costs. */
static int
write_timed(struct connection *c, struct iovec *iov, unsigned n, size_t len)
{
    struct transport *t = c->t;
    long preempted = preemptions();
    uint64_t start = transport_now();
    int error;

    keep_to(t, &t->rate, len);
    error = write_all(c, iov, n);
    if (!error) {
        wire_cost_note(&c->wire, (double)(transport_now() - start) / len,
                       preemptions() != preempted);
        mig_encoder_wire(c->encoder, c->wire.ns_per_byte);
    }
    return error;
}

/* Sends what the batch has and begins another. */
static int
send_batch(struct connection *c)
{
    struct transport *t = c->t;
    struct mig_batch *b = &c->tx_batch;
    uint8_t head[MIG_RECORD_HEAD];
    struct iovec iov[IO_IOV_MAX];
    size_t head_len, len;
    int error;

    count_pages(c);
    if (b->n) {
        head_len = mig_batch_put(c->tx_head, b);
        len = head_len + b->payload;
        mig_record_put(head, MIG_PAGES, len, c->tx_sequence++, c->tx_head, head_len);
        iov[0] = (struct iovec){.iov_base = head, .iov_len = sizeof head};
        iov[1] = (struct iovec){.iov_base = c->tx_head, .iov_len = head_len};
        error = write_timed(c, iov, 2 + gather(c, iov + 2), len);
        if (error) {
            return error;
        }
        c->tx_descriptors += b->n;
    }
    transport_charge_cpu(t, &c->tx_cpu);
    mig_encoder_begin(c->encoder, b, c->tx_round, c->tx_flags);
    return t->error;
}

static int
add_page(struct connection *c, uint64_t pfn)
{
    struct mig_batch *b = &c->tx_batch;
    const uint8_t *page = c->t->memory + pfn * MIG_PAGE;
    int error;

    while (!mig_encode(c->encoder, b, c->payload, pfn, page)) {
        error = send_batch(c);
        if (error) {
            return error;
        }
    }
    return b->n >= TX_BATCH_PAGES ? send_batch(c) : 0;
}

/* Pages that somebody waits for, in batches of their own. */
static int
send_urgent(struct connection *c)
{
    struct transport *t = c->t;
    uint64_t pfns[URGENT_MAX];
    unsigned n;
    int error = c->tx_batch.n ? send_batch(c) : 0;

    pthread_mutex_lock(&t->lock);
    n = c->n_urgent;
    memcpy(pfns, c->urgent, n * sizeof *pfns);
    c->n_urgent = 0;
    atomic_store_explicit(&c->urgent_waiting, 0, memory_order_relaxed);
    c->tx_round = t->tx_round;
    c->tx_flags = t->tx_flags;
    pthread_mutex_unlock(&t->lock);

    for (unsigned i = 0; i < n && !error; i++) {
        /* One by one: descriptors ascend, requests do not. */
        mig_encoder_begin(c->encoder, &c->tx_batch, c->tx_round, c->tx_flags);
        error = add_page(c, pfns[i]);
        if (!error && c->tx_batch.n) {
            error = send_batch(c);
        }
    }
    pthread_mutex_lock(&t->lock);
    t->tx_items -= n;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return error;
}

/* The set's pages of bitmap word 'w'. */
static uint64_t
word_of(const struct page_set *s, uint64_t w)
{
    uint64_t at = w * PAGES_PER_WORD, end = s->first + s->n, mask = ~0ull;

    if (!s->all) {
        return s->bitmap[w];
    }
    if (s->first > at) {
        mask &= ~0ull << (s->first - at);
    }
    if (end < at + PAGES_PER_WORD) {
        mask &= (1ull << (end - at)) - 1;
    }
    return mask;
}

/* The connection's first word from 'w' on. */
static uint64_t
own_word(const struct connection *c, uint64_t w, unsigned stripe)
{
    const struct transport *t = c->t;
    unsigned ahead = (c->index + t->n - transport_connection_of(t, w, stripe)) % t->n;

    return ahead ? (w / stripe + ahead) * stripe : w;
}

static int
send_pages(struct connection *c, const struct tx_item *item)
{
    struct transport *t = c->t;
    const struct page_set *s = item->set;
    uint64_t last = s->n ? (s->first + s->n - 1) / PAGES_PER_WORD : 0;
    unsigned stripe = transport_stripe(t, item->flags);
    uint64_t w = own_word(c, s->first / PAGES_PER_WORD, stripe);
    int error = 0;

    c->tx_round = item->round;
    c->tx_flags = item->flags;
    mig_encoder_begin(c->encoder, &c->tx_batch, c->tx_round, c->tx_flags);
    for (; s->n && w <= last && !error; w = own_word(c, w + 1, stripe)) {
        uint64_t bits = word_of(s, w), n = __builtin_popcountll(bits);

        for (; bits && !error; bits &= bits - 1) {
            error = add_page(c, w * PAGES_PER_WORD + __builtin_ctzll(bits));
        }
        if (n) {
            atomic_fetch_sub_explicit(&t->pages_waiting, n, memory_order_relaxed);
        }
        if (!error) { /* of zeros there may be gigabytes before anything is sent */
            error = atomic_load_explicit(&t->error, memory_order_relaxed);
        }
        if (!error && atomic_load_explicit(&c->urgent_waiting, memory_order_relaxed)) {
            error = send_urgent(c);
            c->tx_round = item->round;
            c->tx_flags = item->flags;
            mig_encoder_begin(c->encoder, &c->tx_batch, c->tx_round, c->tx_flags);
        }
    }
    return error ? error : send_batch(c);
}

/* --- everything ----------------------------------------------------------- */

static int
send_barrier(struct connection *c, uint64_t number)
{
    const struct mig_msg m = {
        .type = MIG_BARRIER,
        .barrier = {.number = number, .pages = c->tx_descriptors},
    };
    uint8_t body[64];

    if (c->encoder) {
        mig_digest_fold(&c->t->digest, mig_encoder_sum(c->encoder));
    }
    return send_record(c, MIG_BARRIER, body, mig_msg_put(body, sizeof body, &m));
}

static int
send_end(struct connection *c)
{
    const struct mig_msg m = {.type = MIG_END, .end = {.records = c->tx_sequence}};
    uint8_t body[64];

    return send_record(c, MIG_END, body, mig_msg_put(body, sizeof body, &m));
}

static int
send_item(struct connection *c, const struct tx_item *item)
{
    switch (item->kind) {
    case TX_PAGES:
        return send_pages(c, item);
    case TX_BARRIER:
        return send_barrier(c, item->number);
    case TX_END:
        return send_end(c);
    case TX_RECORD:
        if (item->type == MIG_CHUNK) {
            keep_to(c->t, &c->t->rate, item->len);
            transport_charge_cpu(c->t, &c->tx_cpu);
        }
        return send_record(c, item->type, item->data, item->len);
    }
    return EINVAL;
}

static struct tx_item *
take(struct connection *c)
{
    struct tx_item *item = c->head;

    if (item) {
        c->head = item->next;
        c->tail = c->head ? c->tail : &c->head;
    }
    return item;
}

/* With the lock. */
static void
item_sent(struct transport *t, struct tx_item *item)
{
    t->tx_items--;
    t->tx_bytes -= item->len;
    pthread_cond_broadcast(&t->changed);
}

void *
transport_sender(void *connection)
{
    struct connection *c = connection;
    struct transport *t = c->t;
    struct tx_item *item;
    int error;

    pthread_mutex_lock(&t->lock);
    while (!t->error) {
        item = c->n_urgent ? NULL : take(c);
        if (!item && !c->n_urgent) {
            transport_wait(t, &c->work, 0);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        error = item ? send_item(c, item) : send_urgent(c);
        if (error) {
            transport_fail(t, error, "connection %u: %s", c->index, strerror(error));
        }
        pthread_mutex_lock(&t->lock);
        if (item) {
            item_sent(t, item);
            page_set_unref(item->set);
            free(item);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* The queues between the engine and the threads of the connections. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "transport_priv.h"

uint64_t
transport_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t
deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? 0 : transport_now() + timeout_ms * 1000000ull + 1;
}

void
transport_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool
transport_wait(struct transport *t, pthread_cond_t *cond, uint64_t deadline_ns)
{
    struct timespec at = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};

    if (!deadline_ns) {
        pthread_cond_wait(cond, &t->lock);
        return true;
    }
    return pthread_cond_timedwait(cond, &t->lock, &at) != ETIMEDOUT;
}

/* --- life ----------------------------------------------------------------- */

static int
connection_init(struct transport *t, unsigned i)
{
    struct connection *c = &t->c[i];
    struct mig_encoder_options options = {
        .digest = t->chunks ? NULL : &t->digest,
        .compress = t->compress,
        .cache_bytes = t->delta_cache_bytes / t->n,
    };

    c->t = t;
    c->index = i;
    c->io.fd = -1;
    c->tail = &c->head;
    transport_cond_init(&c->work);
    if (t->chunks) {
        return 0;
    }
    if (t->source) {
        return mig_encoder_create(&options, &c->encoder);
    }
    c->scratch = aligned_alloc(MIG_PAGE, MIG_BATCH_PAGES * MIG_PAGE);
    return c->scratch ? mig_decoder_create(&c->decoder) : ENOMEM;
}

static unsigned
stripe_of(uint64_t n_pages, unsigned n_connections)
{
    uint64_t huge = n_pages / (MIG_HUGE_PAGE / MIG_PAGE);

    return huge / n_connections >= STRIPES_MIN ? WORDS_PER_HUGE_PAGE : 1;
}

int
transport_create(const struct transport_config *config, bool source, struct transport **out)
{
    struct transport *t;
    int error;

    *out = NULL;
    if (!config->n_connections || config->n_connections > TRANSPORT_CONNECTIONS_MAX ||
        (source && config->chunks == !!config->memory)) {
        return EINVAL;
    }
    t = calloc(1, sizeof *t);
    if (!t) {
        return ENOMEM;
    }
    t->source = source;
    t->chunks = config->chunks;
    t->compress = config->compress;
    t->delta_cache_bytes = config->delta_cache_bytes;
    t->memory = source ? config->memory : NULL;
    t->n_pages = source && config->memory ? config->n_pages : 0;
    t->stripe_words = stripe_of(t->n_pages, config->n_connections);
    t->rx_tail = &t->rx_head;
    pthread_mutex_init(&t->lock, NULL);
    transport_cond_init(&t->changed);
    limit_init(&t->rate);
    limit_init(&t->cpu);
    t->dead_peer_ms = config->dead_peer_ms ? config->dead_peer_ms : DEAD_PEER_MS;
    t->stall_ms = config->stall_ms ? config->stall_ms : STALL_MS;
    t->rx_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    t->closing_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    t->c = calloc(config->n_connections, sizeof *t->c);
    error = t->rx_fd < 0 || t->closing_fd < 0 ? errno : t->c ? 0 : ENOMEM;
    for (unsigned i = 0; i < config->n_connections && !error; i++) {
        t->n = i + 1;
        error = connection_init(t, i);
    }
    if (error) {
        transport_close(t);
        return error;
    }
    *out = t;
    return 0;
}

int
transport_start(struct transport *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        struct connection *c = &t->c[i];

        c->sender_on = !pthread_create(&c->sender, NULL, transport_sender, c);
        c->receiver_on = !pthread_create(&c->receiver, NULL, transport_receiver, c);
        if (!c->sender_on || !c->receiver_on) {
            return EAGAIN;
        }
    }
    t->watcher_on = !pthread_create(&t->watcher, NULL, transport_peer_main, t);
    return t->watcher_on ? 0 : EAGAIN;
}

void
page_set_unref(struct page_set *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) {
        free(s);
    }
}

static void
connection_destroy(struct connection *c)
{
    while (c->head) {
        struct tx_item *next = c->head->next;

        page_set_unref(c->head->set);
        free(c->head);
        c->head = next;
    }
    io_destroy(&c->io);
    mig_encoder_destroy(c->encoder);
    mig_decoder_destroy(c->decoder);
    free(c->scratch);
    pthread_cond_destroy(&c->work);
}

void
transport_close(struct transport *t)
{
    if (!t) {
        return;
    }
    transport_fail(t, ECANCELED, "closed");
    if (t->watcher_on) {
        eventfd_write(t->closing_fd, 1);
        pthread_join(t->watcher, NULL);
    }
    for (unsigned i = 0; i < t->n; i++) {
        if (t->c[i].sender_on) {
            pthread_join(t->c[i].sender, NULL);
        }
        if (t->c[i].receiver_on) {
            pthread_join(t->c[i].receiver, NULL);
        }
    }
    for (unsigned i = 0; i < t->n; i++) {
        connection_destroy(&t->c[i]);
    }
    while (t->rx_head) {
        struct rx_item *next = t->rx_head->next;

        transport_message_done(&t->rx_head->m);
        free(t->rx_head);
        t->rx_head = next;
    }
    mig_digest_destroy(&t->digest);
    free(t->touched);
    if (t->rx_fd >= 0) {
        close(t->rx_fd);
    }
    if (t->closing_fd >= 0) {
        close(t->closing_fd);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->c);
    free(t);
}

/* --- failure -------------------------------------------------------------- */

void
transport_signal_rx(struct transport *t)
{
    eventfd_write(t->rx_fd, 1);
    pthread_cond_broadcast(&t->changed);
}

void
transport_fail(struct transport *t, int error, const char *fmt, ...)
{
    va_list args;

    pthread_mutex_lock(&t->lock);
    if (!t->error) {
        va_start(args, fmt);
        vsnprintf(t->why, sizeof t->why, fmt, args);
        va_end(args);
        atomic_store(&t->error, error);
    }
    for (unsigned i = 0; i < t->n; i++) {
        pthread_cond_broadcast(&t->c[i].work);
        io_cut(&t->c[i].io);
    }
    transport_signal_rx(t);
    pthread_mutex_unlock(&t->lock);
}

void
transport_cancel(struct transport *t)
{
    transport_fail(t, ECANCELED, "cancelled");
}

int
transport_error(const struct transport *t, const char **why)
{
    int error = atomic_load(&t->error);

    if (why) {
        *why = error ? t->why : "";
    }
    return error;
}

/* --- handing over --------------------------------------------------------- */

static struct tx_item *
item_new(enum tx_kind kind, size_t len)
{
    struct tx_item *item = calloc(1, sizeof *item + len);

    if (item) {
        item->kind = kind;
        item->len = len;
    }
    return item;
}

/* With the lock.  The queue takes the item. */
static void
push(struct connection *c, struct tx_item *item)
{
    *c->tail = item;
    c->tail = &item->next;
    c->t->tx_items++;
    c->t->tx_bytes += item->len;
    pthread_cond_signal(&c->work);
}

/* The same to every connection, or to none. */
static int
push_to_all(struct transport *t, enum tx_kind kind, struct page_set *set)
{
    struct tx_item *items[TRANSPORT_CONNECTIONS_MAX];
    int error;

    for (unsigned i = 0; i < t->n; i++) {
        items[i] = item_new(kind, 0);
        if (!items[i]) {
            while (i--) {
                free(items[i]);
            }
            return ENOMEM;
        }
    }
    pthread_mutex_lock(&t->lock);
    error = t->error;
    if (kind == TX_BARRIER && !error) {
        t->tx_barriers++;
    }
    for (unsigned i = 0; i < t->n; i++) {
        if (error) {
            free(items[i]);
            continue;
        }
        items[i]->number = t->tx_barriers;
        items[i]->round = t->tx_round;
        items[i]->flags = t->tx_flags;
        if (set) {
            atomic_fetch_add(&set->refs, 1);
            items[i]->set = set;
        }
        push(&t->c[i], items[i]);
    }
    pthread_mutex_unlock(&t->lock);
    return error;
}

static int
tx_set(struct transport *t, struct page_set *set, uint64_t n_pages)
{
    int error;

    atomic_fetch_add(&t->pages_waiting, n_pages);
    error = push_to_all(t, TX_PAGES, set);
    page_set_unref(set);
    return error;
}

int
transport_tx_run(struct transport *t, uint64_t pfn, uint64_t n_pages)
{
    struct page_set *set;

    if (!t->source || t->chunks || pfn > t->n_pages || n_pages > t->n_pages - pfn) {
        return EINVAL;
    }
    set = calloc(1, sizeof *set);
    if (!set) {
        return ENOMEM;
    }
    *set = (struct page_set){.refs = 1, .first = pfn, .n = n_pages, .all = true};
    return tx_set(t, set, n_pages);
}

int
transport_tx_bitmap(struct transport *t, const uint64_t *bitmap, uint64_t n_pages)
{
    size_t words = (n_pages + PAGES_PER_WORD - 1) / PAGES_PER_WORD;
    uint64_t n = 0;
    struct page_set *set;

    if (!t->source || t->chunks || n_pages > t->n_pages) {
        return EINVAL;
    }
    set = malloc(sizeof *set + words * sizeof *bitmap);
    if (!set) {
        return ENOMEM;
    }
    *set = (struct page_set){.refs = 1, .n = n_pages};
    memcpy(set->bitmap, bitmap, words * sizeof *bitmap);
    if (n_pages % PAGES_PER_WORD) {
        set->bitmap[words - 1] &= (1ull << n_pages % PAGES_PER_WORD) - 1;
    }
    for (size_t i = 0; i < words; i++) {
        n += __builtin_popcountll(set->bitmap[i]);
    }
    return tx_set(t, set, n);
}

void
transport_tx_round(struct transport *t, uint32_t round, uint32_t flags)
{
    pthread_mutex_lock(&t->lock);
    t->tx_round = round;
    t->tx_flags = flags;
    pthread_mutex_unlock(&t->lock);
}

int
transport_tx_urgent(struct transport *t, uint64_t pfn)
{
    struct connection *c =
        &t->c[transport_connection_of(t, pfn / PAGES_PER_WORD, 1)]; /* in post-copy */
    int error;

    if (!t->source || t->chunks || pfn >= t->n_pages) {
        return EINVAL;
    }
    pthread_mutex_lock(&t->lock);
    while (!t->error && c->n_urgent == URGENT_MAX) {
        transport_wait(t, &t->changed, 0);
    }
    error = t->error;
    if (!error) {
        c->urgent[c->n_urgent++] = pfn;
        atomic_store_explicit(&c->urgent_waiting, c->n_urgent, memory_order_relaxed);
        t->tx_items++;
        pthread_cond_signal(&c->work);
    }
    pthread_mutex_unlock(&t->lock);
    return error;
}

/* Takes the item.  With 'wait', only when there is room. */
static int
push_when_room(struct transport *t, unsigned index, struct tx_item *item, bool wait)
{
    int error;

    pthread_mutex_lock(&t->lock);
    while (wait && !t->error && t->tx_bytes && t->tx_bytes + item->len > TX_QUEUE_BYTES) {
        transport_wait(t, &t->changed, 0);
    }
    error = t->error;
    if (!error) {
        push(&t->c[index], item);
    }
    pthread_mutex_unlock(&t->lock);
    if (error) {
        free(item);
    }
    return error;
}

static int
push_record(struct transport *t, unsigned index, uint32_t type, const void *data, size_t len,
            bool wait)
{
    struct tx_item *item = item_new(TX_RECORD, len);

    if (!item) {
        return ENOMEM;
    }
    item->type = type;
    if (len) {
        memcpy(item->data, data, len);
    }
    return push_when_room(t, index, item, wait);
}

int
transport_push_record(struct transport *t, unsigned index, uint32_t type, const void *data,
                      size_t len)
{
    return push_record(t, index, type, data, len, false);
}

/* Not the transport's own. */
static bool
is_engines(uint32_t type, size_t len)
{
    switch (type) {
    case MIG_PAGES:
    case MIG_BARRIER:
    case MIG_CHUNK:
    case MIG_PLACED:
    case MIG_END:
        return false;
    }
    return type && type < MIG_TYPES && len <= mig_record_max(type);
}

int
transport_tx_record(struct transport *t, uint32_t type, const void *data, size_t len)
{
    return is_engines(type, len) ? push_record(t, 0, type, data, len, true) : EINVAL;
}

int
transport_tx_record_now(struct transport *t, uint32_t type, const void *data, size_t len)
{
    bool full;

    pthread_mutex_lock(&t->lock);
    full = t->tx_bytes + len > TX_QUEUE_BYTES + TX_SMALL_BYTES;
    pthread_mutex_unlock(&t->lock);
    return full                    ? EAGAIN
           : is_engines(type, len) ? push_record(t, 0, type, data, len, false)
                                   : EINVAL;
}

int
transport_tx_chunk(struct transport *t, const void *data, size_t len)
{
    const struct mig_msg m = {
        .type = MIG_CHUNK,
        .chunk = {.sequence = t->tx_chunks, .data = {.p = data, .n = len}},
    };
    size_t room = len + 64;
    struct tx_item *item;

    if (!t->chunks || !t->source || !len || len > MIG_MAX_BLOB) {
        return EINVAL;
    }
    transport_charge_cpu(t, &t->tx_cpu);
    item = item_new(TX_RECORD, room);
    if (!item) {
        return ENOMEM;
    }
    item->type = MIG_CHUNK;
    item->len = mig_msg_put(item->data, room, &m);
    if (!item->len) {
        free(item);
        return EINVAL;
    }
    t->tx_chunks++;
    return push_when_room(t, t->tx_next++ % t->n, item, true);
}

int
transport_tx_barrier(struct transport *t)
{
    return t->source ? push_to_all(t, TX_BARRIER, NULL) : EINVAL;
}

int
transport_tx_end(struct transport *t)
{
    return push_to_all(t, TX_END, NULL);
}

static int
wait_sent(struct transport *t, int timeout_ms, bool placed)
{
    uint64_t deadline = deadline_of(timeout_ms);
    bool in_time = true;
    int error;

    pthread_mutex_lock(&t->lock);
    while (!(error = t->error) &&
           (t->tx_items || (placed && t->barriers_placed < t->tx_barriers)) && in_time) {
        in_time = transport_wait(t, &t->changed, deadline);
    }
    error = error ? error : in_time ? 0 : ETIMEDOUT;
    pthread_mutex_unlock(&t->lock);
    return error;
}

int
transport_flush(struct transport *t, int timeout_ms)
{
    return wait_sent(t, timeout_ms, false);
}

int
transport_wait_placed(struct transport *t, int timeout_ms)
{
    return wait_sent(t, timeout_ms, true);
}

/* --- taking --------------------------------------------------------------- */

int
transport_deliver(struct transport *t, uint32_t type, uint8_t *data, size_t len, int64_t chunk)
{
    struct rx_item *item = malloc(sizeof *item);
    int error;

    if (!item) {
        free(data);
        return ENOMEM;
    }
    *item = (struct rx_item){.m = {.type = type, .len = len, .data = data}};
    pthread_mutex_lock(&t->lock);
    while (!t->error && ((chunk >= 0 && (uint64_t)chunk > t->rx_chunk) ||
                         (t->rx_bytes && t->rx_bytes + len > TRANSPORT_QUEUE_BYTES))) {
        transport_wait(t, &t->changed, 0);
    }
    error = t->error ? t->error : chunk >= 0 && (uint64_t)chunk != t->rx_chunk ? EBADMSG : 0;
    if (!error) {
        t->rx_chunk += chunk >= 0;
        t->rx_bytes += len;
        *t->rx_tail = item;
        t->rx_tail = &item->next;
        transport_signal_rx(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (error) {
        free(data);
        free(item);
    }
    return error;
}

/* With the lock: the descriptor says what transport_rx() would do. */
static void
settle_rx_fd(struct transport *t)
{
    eventfd_t v;

    if (!t->rx_head && !t->error && t->rx_ended < t->n) {
        eventfd_read(t->rx_fd, &v);
    }
}

int
transport_rx(struct transport *t, struct transport_message *m, int timeout_ms)
{
    uint64_t deadline = deadline_of(timeout_ms);
    bool in_time = true;
    struct rx_item *item;
    int error = 0;

    *m = (struct transport_message){0};
    pthread_mutex_lock(&t->lock);
    while (!t->rx_head && !t->error && t->rx_ended < t->n && in_time) {
        in_time = transport_wait(t, &t->changed, deadline);
    }
    item = t->rx_head;
    if (item) {
        *m = item->m;
        t->rx_head = item->next;
        t->rx_tail = t->rx_head ? t->rx_tail : &t->rx_head;
        t->rx_bytes -= m->len;
        pthread_cond_broadcast(&t->changed);
    } else {
        /* An end in order is one, also when the peer has closed since. */
        error = t->rx_ended == t->n ? ENODATA : t->error ? t->error : ETIMEDOUT;
    }
    settle_rx_fd(t);
    pthread_mutex_unlock(&t->lock);
    free(item);
    return error;
}

int
transport_finish(struct transport *t, int timeout_ms)
{
    uint64_t end = transport_now() + (timeout_ms > 0 ? timeout_ms : 0) * 1000000ull;
    struct transport_message m;
    int error = transport_tx_end(t);

    error = error ? error : transport_flush(t, timeout_ms);
    while (!error) {
        int64_t left_ms = ((int64_t)(end - transport_now()) + 999999) / 1000000;

        error = transport_rx(t, &m, timeout_ms < 0 ? -1 : left_ms > 0 ? left_ms : 0);
        transport_message_done(&m);
    }
    return error == ENODATA ? 0 : error;
}

void
transport_message_done(struct transport_message *m)
{
    free(m->data);
    m->data = NULL;
}

int
transport_rx_fd(const struct transport *t)
{
    return t->rx_fd;
}

uint64_t
transport_n_pages(const struct transport *t)
{
    return t->hello.n_pages;
}

int
transport_set_memory(struct transport *t, uint8_t *memory, uint64_t n_pages)
{
    int error;

    if (t->source || t->chunks || n_pages != t->hello.n_pages || atomic_load(&t->rx_memory)) {
        return EINVAL;
    }
    t->touched = calloc(n_pages / (MIG_HUGE_PAGE / MIG_PAGE) / 64 + 1, sizeof *t->touched);
    error = t->touched ? mig_digest_init(&t->digest, n_pages, t->hello.key) : ENOMEM;
    if (!error) {
        t->memory = memory;
        t->n_pages = n_pages;
        atomic_store(&t->rx_memory, true);
    }
    return error;
}

struct mig_sum
transport_digest(const struct transport *t)
{
    return mig_digest_value(&t->digest);
}

void
transport_forget(struct transport *t, const uint64_t *bitmap)
{
    struct mig_sum sum = {{0, 0}};

    for (uint64_t pfn = 0; pfn < t->n_pages; pfn++) {
        if (bitmap[pfn / 64] >> pfn % 64 & 1) {
            mig_digest_set(&t->digest, &sum, pfn, 0);
        }
    }
    mig_digest_fold(&t->digest, &sum);
}

const struct mig_digest *
transport_hashes(const struct transport *t)
{
    return &t->digest;
}

void
transport_rx_place(struct transport *t, int (*place)(void *, uint64_t, const uint8_t *), void *aux)
{
    t->place = place;
    t->place_aux = aux;
    atomic_store(&t->rx_place, true);
}

/* --- control -------------------------------------------------------------- */

void
transport_limit_rate(struct transport *t, uint64_t bytes_per_s)
{
    limit_set(&t->rate, bytes_per_s, transport_now());
}

void
transport_limit_cpu(struct transport *t, unsigned percent)
{
    limit_set(&t->cpu, percent * 1e7, transport_now()); /* nanoseconds of CPU per second */
}

static uint64_t
load(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

void
transport_get_stats(const struct transport *t, struct transport_stats *s)
{
    int64_t waiting = atomic_load_explicit(&t->pages_waiting, memory_order_relaxed);

    *s = (struct transport_stats){
        .pages_waiting = waiting > 0 ? waiting : 0,
        .barriers_placed = load(&t->barriers_placed),
    };
    for (unsigned i = 0; i < t->n; i++) {
        const struct connection *c = &t->c[i];

        s->wire_bytes_sent += load(&c->io.sent);
        s->wire_bytes_received += load(&c->io.received);
        s->pages_received += load(&c->pages_received);
        for (unsigned k = 0; k < MIG_KINDS; k++) {
            uint64_t n = load(&c->pages_by_kind[k]);

            s->pages_by_kind[k] += n;
            s->pages_sent += k ? n : 0;
        }
    }
}

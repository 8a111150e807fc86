#include "flow_service.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drop.h"
#include "flow_service_priv.h"
#include "http_flow.h"

enum {
    AHEAD_MS = 300000,
    RETRY_MS = 1000,
    TRIES = 5, /* of an hour that cannot be read */
    EXPIRE_MS = 10000,
    ROLL_MS = 10000,
    ROLL_ROWS = 262144,
    UNUSED_CHUNKS = 4 * FLOW_BATCH / FLOW_CHUNK, /* are kept */
    STORE_HOUR = 3600000,                        /* what of one is in a table of its own */
    BINDINGS = 4096,
    NAMES = 1024
};

int64_t
flow_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static struct timespec
after_ms(unsigned ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* --- the sink ------------------------------------------------------------------------ */

/* A chunk at the queue's end; NULL: no memory.  Under the mutex, as all of these. */
static struct flow_chunk *
append_chunk(struct flow_service *s)
{
    struct flow_chunk *c = s->unused;

    if (c) {
        s->unused = c->next;
        s->n_unused--;
    } else if (!(c = malloc(sizeof *c))) {
        return NULL;
    }
    c->next = NULL;
    c->n = 0;
    *s->queue_end = c;
    s->queue_end = &c->next;
    return c;
}

static struct flow_chunk *
take_chunk(struct flow_service *s)
{
    struct flow_chunk *c = s->queue;

    s->queue = c->next;
    if (!s->queue) {
        s->queue_end = &s->queue;
    }
    s->n -= c->n;
    return c;
}

static void
put_back(struct flow_service *s, struct flow_chunk *c)
{
    if (s->n_unused == UNUSED_CHUNKS) {
        free(c);
        return;
    }
    c->next = s->unused;
    s->unused = c;
    s->n_unused++;
}

static void
free_chunks(struct flow_chunk *c)
{
    for (struct flow_chunk *next; c; c = next) {
        next = c->next;
        free(c);
    }
}

/* The last chunk, if there is room in it, or one more. */
static struct flow_chunk *
chunk_with_room(struct flow_service *s)
{
    struct flow_chunk *last =
        s->queue ? (struct flow_chunk *)((char *)s->queue_end - offsetof(struct flow_chunk, next))
                 : NULL;

    return last && last->n < FLOW_CHUNK ? last : append_chunk(s);
}

static void
take_records(void *service, const struct flow_source *from, const struct flow_record *records,
             size_t n)
{
    struct flow_service *s = service;
    struct flow_chunk *c;
    size_t i = 0;

    pthread_mutex_lock(&s->mutex);
    while (i < n && s->n < FLOW_QUEUE && (c = chunk_with_room(s))) {
        for (; i < n && c->n < FLOW_CHUNK && s->n < FLOW_QUEUE; i++, s->n++) {
            c->records[c->n++] = (struct flow_queued){records[i], from->address};
        }
    }
    s->taken += i;
    s->dropped_full += n - i;
    if (s->n >= FLOW_BATCH) {
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->mutex);
}

const struct flow_sink *
flow_service_sink(struct flow_service *s)
{
    return &s->sink;
}

int
flow_service_flush(struct flow_service *s, unsigned timeout_ms)
{
    struct timespec end = after_ms(timeout_ms);
    int error = 0;

    pthread_mutex_lock(&s->mutex);
    uint64_t target = s->taken;
    s->hurry = true;
    pthread_cond_broadcast(&s->more);
    while (s->committed + s->damaged < target && !error) {
        error = pthread_cond_timedwait(&s->done, &s->mutex, &end);
        error = s->committed + s->damaged < target && s->error ? s->error : error;
    }
    pthread_mutex_unlock(&s->mutex);
    return error;
}

uint64_t
flow_service_damaged(struct flow_service *s)
{
    uint64_t n;

    pthread_mutex_lock(&s->mutex);
    n = s->damaged;
    pthread_mutex_unlock(&s->mutex);
    return n;
}

/* --- watchers -------------------------------------------------------------------------- */

int
flow_watch_add(struct flow_service *s, struct flow_filter *filter, struct flow_watcher **wp)
{
    struct flow_watcher *w = calloc(1, sizeof *w);
    int error = w ? 0 : ENOMEM;

    *wp = NULL;
    pthread_mutex_lock(&s->watch_mutex);
    if (w && s->n_watchers < FLOW_WATCHERS && !s->watch_closing) {
        w->filter = filter;
        w->names = -1;
        w->next = s->watchers;
        s->watchers = w;
        s->n_watchers++;
        *wp = w;
    } else if (w) {
        error = EAGAIN;
    }
    pthread_mutex_unlock(&s->watch_mutex);
    if (error) {
        flow_filter_free(filter);
        free(w);
    }
    return error;
}

void
flow_watch_remove(struct flow_service *s, struct flow_watcher *w)
{
    if (!w) {
        return;
    }
    pthread_mutex_lock(&s->watch_mutex);
    for (struct flow_watcher **p = &s->watchers; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            s->n_watchers--;
            break;
        }
    }
    pthread_mutex_unlock(&s->watch_mutex);
    flow_filter_free(w->filter);
    free(w);
}

int
flow_watch_take(struct flow_service *s, struct flow_watcher *w, unsigned ms, struct flow_row *rows,
                unsigned max, uint64_t *lost)
{
    struct timespec end = after_ms(ms);
    int n = 0, late = 0;

    pthread_mutex_lock(&s->watch_mutex);
    while (!w->n && !s->watch_closing && !late) {
        late = pthread_cond_timedwait(&s->watched, &s->watch_mutex, &end);
    }
    for (; w->n && n < max; n++) {
        rows[n] = w->rows[w->first];
        w->first = (w->first + 1) % FLOW_WATCH_ROWS;
        w->n--;
    }
    *lost = w->lost;
    w->lost = 0;
    n = s->watch_closing ? -1 : n;
    pthread_mutex_unlock(&s->watch_mutex);
    return n;
}

static void
show(struct flow_service *s, const struct flow_row *rows, size_t n)
{
    int64_t names = flow_names_count(s->names);

    pthread_mutex_lock(&s->watch_mutex);
    for (struct flow_watcher *w = s->watchers; w; w = w->next) {
        if (w->names != names && !flow_filter_resolve(w->filter, s->names)) {
            w->names = names;
        }
        for (size_t i = 0; i < n; i++) {
            if (!flow_filter_match(w->filter, &rows[i])) {
                continue;
            }
            if (w->n == FLOW_WATCH_ROWS) {
                w->lost++;
            } else {
                w->rows[(w->first + w->n++) % FLOW_WATCH_ROWS] = rows[i];
            }
        }
    }
    pthread_cond_broadcast(&s->watched);
    pthread_mutex_unlock(&s->watch_mutex);
}

/* --- the writer ------------------------------------------------------------------------- */

static void
make_row(struct flow_service *s, const struct flow_queued *q, int64_t now_ms, struct flow_row *row)
{
    const struct flow_record *r = &q->r;
    int64_t oldest = now_ms - s->config.store.raw_hours * INT64_C(3600000);

    *row = (struct flow_row){.r = *r, .exporter = q->exporter, .time_ms = r->end_ms};
    if (r->end_ms > (uint64_t)(now_ms + AHEAD_MS) || r->end_ms < (uint64_t)oldest) {
        row->time_ms = (uint64_t)now_ms;
        s->clock++;
    }
    row->duration_ms = r->end_ms > r->start_ms && r->start_ms ? r->end_ms - r->start_ms : 0;
    row->service = r->sport < r->dport ? r->sport : r->dport;
    if (r->proto == IPPROTO_ICMP || r->proto == IPPROTO_ICMPV6) {
        row->service = 0; /* its "port" is type and code */
    }
    if (!r->drop && r->forwarding == 129) { /* dropped by an ACL, in IANA's list */
        row->r.drop = DROP_DP_POLICY + 1;
    }
    row->dropped = r->drop || (r->forwarding & 0xc0) == 0x80;
}

static void
save_name(void *aux, const struct flow_name *name)
{
    flow_names_id(aux, name->class, name->text, name->extra);
}

/* The store must have the names before rows that name them. */
static int
save_names(struct flow_service *s, char *why, size_t size)
{
    struct flow_name names[NAMES];
    int64_t count = flow_names_count(s->names);
    int error = 0;

    while (s->names_saved < count && !error) {
        size_t n = 0;
        while (n < NAMES && flow_names_get(s->names, s->names_saved + 1 + (int64_t)n, &names[n])) {
            n++;
        }
        error = s->store->ops->save_names(s->store, s->names_saved + 1, names, n, why, size);
        s->names_saved += error ? 0 : (int64_t)n;
    }
    return error;
}

static int
save_bindings(struct flow_service *s, struct store_binding *scratch, char *why, size_t size)
{
    int64_t forget = flow_now_ms() - s->config.store.raw_hours * INT64_C(3600000) - 86400000;
    size_t n;
    int error = 0;

    do {
        n = enrich_changed(s->enrich, scratch, BINDINGS);
        if (n) {
            error = s->store->ops->save_bindings(s->store, scratch, n, forget, why, size);
        }
    } while (n == BINDINGS && !error);
    if (error) {
        enrich_changed_again(s->enrich);
    }
    return error;
}

struct writing {
    struct flow_chunk *chunks; /* of this batch */
    struct flow_row *rows;     /* FLOW_BATCH */
    struct store_binding *bindings;
    size_t n;
    unsigned tries; /* at hours of it that could not be read */
    int64_t expired_ms, rolled_ms;
    bool behind; /* rollups: there is more to be added up */
};

/* What waits, once it is a batch or has waited long enough.  False: the service
 * closes and nothing is left. */
static bool
gather(struct flow_service *s, struct writing *w)
{
    struct timespec end = after_ms(FLOW_BATCH_MS);
    bool more;

    pthread_mutex_lock(&s->mutex);
    while (s->n < FLOW_BATCH && !s->closing && !s->hurry) {
        if (pthread_cond_timedwait(&s->more, &s->mutex, &end) == ETIMEDOUT) {
            break;
        }
    }
    w->n = 0;
    for (struct flow_chunk **end = &w->chunks; w->n < FLOW_BATCH && s->n; end = &(*end)->next) {
        *end = take_chunk(s);
        w->n += (*end)->n;
        (*end)->next = NULL;
    }
    s->hurry &= s->n > 0;
    more = w->n || !s->closing;
    pthread_mutex_unlock(&s->mutex);
    return more;
}

/* Says so once when the store begins to refuse, and once when it takes again. */
static void
committed(struct flow_service *s, size_t n, int error, const char *why)
{
    pthread_mutex_lock(&s->mutex);
    if (error && !s->error) {
        fprintf(stderr, "weft-flowd: the store refuses records, trying again: %s\n", why);
    } else if (!error && s->error) {
        fprintf(stderr, "weft-flowd: the store takes records again\n");
    }
    s->error = error;
    s->refusals += error != 0;
    s->committed += n;
    snprintf(s->why, sizeof s->why, "%s", error ? why : "");
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->mutex);
}

/* Says so once when it begins to fail, and once when it does not any more. */
static void
upkept(struct flow_service *s, enum upkeep what, int error, const char *why)
{
    static const struct {
        const char *fails, *works;
    } say[] = {{"cannot add up all records", "adds up all records again"},
               {"cannot forget all records", "forgets all records again"},
               {"loses records", NULL}};
    char *was = s->upkeep[what];

    pthread_mutex_lock(&s->mutex);
    if (error && !*was) {
        fprintf(stderr, "weft-flowd: the store %s: %s\n", say[what].fails, why);
    } else if (!error && *was) {
        fprintf(stderr, "weft-flowd: the store %s\n", say[what].works);
    }
    snprintf(was, sizeof s->upkeep[what], "%s", error ? why : "");
    pthread_mutex_unlock(&s->mutex);
}

static int
by_hour(const void *a_, const void *b_)
{
    uint64_t a = ((const struct flow_row *)a_)->time_ms / STORE_HOUR,
             b = ((const struct flow_row *)b_)->time_ms / STORE_HOUR;

    return (a > b) - (a < b);
}

/* Hour by hour: what belongs to one that is damaged is lost, as else all that comes would
 * wait for it, and so it is with one that cannot be read, after a few tries.  What is
 * stored or lost leaves the batch; '*stored': so many. */
static int
put_hours(struct flow_service *s, struct writing *w, size_t *stored, char *why, size_t size)
{
    const unsigned tries = w->tries + 1;
    size_t at = 0, end, kept = 0, lost = 0;
    char text[200] = "", lost_text[200] = "";
    int error = 0;

    qsort(w->rows, w->n, sizeof *w->rows, by_hour);
    for (; at < w->n && (!error || error == EIO); at = end) {
        int failed;

        for (end = at + 1; end < w->n && !by_hour(&w->rows[at], &w->rows[end]); end++) {
        }
        failed = s->store->ops->put(s->store, w->rows + at, end - at, text, sizeof text);
        if (!failed) {
            *stored += end - at;
        } else if (failed == EBADMSG || (failed == EIO && tries >= TRIES)) {
            snprintf(lost_text, sizeof lost_text, "%s", text);
            lost += end - at;
        } else {
            memmove(w->rows + kept, w->rows + at, (end - at) * sizeof *w->rows);
            kept += end - at;
            w->tries = tries;
            error = failed;
            snprintf(why, size, "%s", text);
        }
    }
    memmove(w->rows + kept, w->rows + at, (w->n - at) * sizeof *w->rows);
    w->n = kept + (w->n - at);
    pthread_mutex_lock(&s->mutex);
    s->damaged += lost;
    pthread_mutex_unlock(&s->mutex);
    if (lost) {
        upkept(s, UPKEEP_DAMAGED, EBADMSG, lost_text);
    }
    return error;
}

/* True: committed. */
static bool
commit(struct flow_service *s, struct writing *w)
{
    char why[200] = "";
    size_t stored = 0, n = w->n;
    int error = save_names(s, why, sizeof why);

    error = error ? error : save_bindings(s, w->bindings, why, sizeof why);
    if (!error && n) {
        error = s->store->ops->put(s->store, w->rows, n, why, sizeof why);
        stored = error ? 0 : n;
        if (error == EBADMSG || error == EIO) { /* of what is of all hours it is a refusal */
            error = s->store->ops->check(s->store, why, sizeof why);
            error = error ? error : put_hours(s, w, &stored, why, sizeof why);
        }
    }
    if (error || n || s->error) {
        committed(s, stored, error, why);
    }
    return !error;
}

/* Rollups are made unless so much waits that there might be no room for more. */
static void
roll(struct flow_service *s, struct writing *w, int64_t now)
{
    char why[200] = "";
    bool due = w->behind || now - w->rolled_ms >= ROLL_MS || now < w->rolled_ms, busy;
    int error;

    pthread_mutex_lock(&s->mutex);
    busy = s->n > FLOW_QUEUE / 4;
    pthread_mutex_unlock(&s->mutex);
    if (busy || !due) {
        return;
    }
    w->rolled_ms = now;
    error = s->store->ops->roll(s->store, ROLL_ROWS, &w->behind, why, sizeof why);
    upkept(s, UPKEEP_ROLL, error, why);
}

static void
tidy(struct flow_service *s, struct writing *w)
{
    int64_t now = flow_now_ms();
    char why[200] = "";

    roll(s, w, now);
    if (now - w->expired_ms >= EXPIRE_MS || now < w->expired_ms) {
        w->expired_ms = now;
        enrich_forget(s->enrich, now - s->config.store.raw_hours * INT64_C(3600000) - 86400000);
        int error = s->store->ops->expire(s->store, now, why, sizeof why);
        upkept(s, UPKEEP_EXPIRE, error, why);
    }
}

/* Rows of the batch's records, whose chunks go back. */
static void
make_rows(struct flow_service *s, struct writing *w)
{
    int64_t now = flow_now_ms();
    size_t n = 0;

    w->tries = 0;
    for (const struct flow_chunk *c = w->chunks; c; c = c->next) {
        for (unsigned i = 0; i < c->n; i++) {
            make_row(s, &c->records[i], now, &w->rows[n++]);
        }
        enrich_rows(s->enrich, &w->rows[n - c->n], c->n, now);
    }
    pthread_mutex_lock(&s->mutex);
    for (struct flow_chunk *next; w->chunks; w->chunks = next) {
        next = w->chunks->next;
        put_back(s, w->chunks);
    }
    pthread_mutex_unlock(&s->mutex);
}

static void *
write_all(void *service)
{
    struct flow_service *s = service;
    struct writing w = {.rows = calloc(FLOW_BATCH, sizeof *w.rows),
                        .bindings = calloc(BINDINGS, sizeof *w.bindings)};

    while (w.rows && w.bindings && gather(s, &w)) {
        make_rows(s, &w);
        show(s, w.rows, w.n);
        while (!commit(s, &w)) {
            pthread_mutex_lock(&s->mutex);
            struct timespec end = after_ms(s->retry_ms);
            while (!s->closing && pthread_cond_timedwait(&s->more, &s->mutex, &end) == 0) {
            }
            bool give_up = s->closing;
            pthread_mutex_unlock(&s->mutex);
            tidy(s, &w); /* retention may make room */
            if (give_up) {
                goto out;
            }
        }
        tidy(s, &w);
    }
out:
    free(w.rows);
    free(w.bindings);
    return NULL;
}

/* --- opening and closing ------------------------------------------------------------------ */

static void
restore_binding(void *enrich, const struct store_binding *b)
{
    enrich_restore(enrich, b);
}

static int
open_store(struct flow_service *s, char *why, size_t size)
{
    int error = store_sqlite_open(&s->config.store, &s->store, why, size);
    char text[200];

    if (error) {
        return error;
    }
    error = s->store->ops->load_names(s->store, save_name, s->names, text, sizeof text);
    if (!error) {
        s->names_saved = flow_names_count(s->names);
        error =
            s->store->ops->load_bindings(s->store, restore_binding, s->enrich, text, sizeof text);
    }
    if (error) {
        snprintf(why, size, "%s: %s", s->config.store.path, text);
    }
    return error;
}

static void
init_threads(struct flow_service *s)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_mutex_init(&s->watch_mutex, NULL);
    pthread_cond_init(&s->more, &attr);
    pthread_cond_init(&s->done, &attr);
    pthread_cond_init(&s->watched, &attr);
    pthread_condattr_destroy(&attr);
}

int
flow_service_open(const struct flow_service_config *c, struct flow_service **sp, char *why,
                  size_t why_size)
{
    struct flow_service *s = calloc(1, sizeof *s);
    int error;

    *sp = NULL;
    snprintf(why, why_size, "out of memory");
    if (!s) {
        return ENOMEM;
    }
    s->config = *c;
    s->sink = (struct flow_sink){.context = s, .records = take_records};
    init_threads(s);
    s->queue_end = &s->queue;
    s->retry_ms = RETRY_MS;
    s->names = flow_names_create();
    s->enrich = s->names ? enrich_create(s->names) : NULL;
    error = s->enrich ? open_store(s, why, why_size) : ENOMEM;
    if (!error && c->controller) {
        struct enrich_poll_config poll = {c->controller, c->private_key, c->certificate,
                                          c->ca_cert};
        error = enrich_poll_start(&poll, s->enrich, &s->poll, why, why_size);
    }
    if (!error) {
        error = pthread_create(&s->writer, NULL, write_all, s);
        s->writing = !error;
    }
    if (!error) {
        error = http_flow_start(s, &s->http, why, why_size);
    }
    if (error) {
        flow_service_close(s);
        return error;
    }
    *sp = s;
    return 0;
}

void
flow_service_close(struct flow_service *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->watch_mutex);
    s->watch_closing = true;
    pthread_cond_broadcast(&s->watched);
    pthread_mutex_unlock(&s->watch_mutex);
    http_flow_stop(s->http);
    enrich_poll_stop(s->poll);
    pthread_mutex_lock(&s->mutex);
    s->closing = true;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->mutex);
    if (s->writing) {
        pthread_join(s->writer, NULL);
    }
    if (s->store) {
        s->store->ops->close(s->store);
    }
    enrich_destroy(s->enrich);
    flow_names_destroy(s->names);
    pthread_cond_destroy(&s->more);
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->watched);
    pthread_mutex_destroy(&s->mutex);
    pthread_mutex_destroy(&s->watch_mutex);
    free_chunks(s->queue);
    free_chunks(s->unused);
    free(s);
}

/* The table of exporters: who is there, what each may keep, and its sequence numbers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "collect_priv.h"

#define LASTING_MS 60000u /* an exporter lasts from this age on ... */
#define LASTING_MESSAGES 10u
#define LATE_UNITS 100000u     /* a sequence number so far behind is late, farther a restart */
#define LATE_MESSAGES 16u      /* more late ones in a row come from an exporter that began anew */
#define UPTIME_SLACK_MS 10000u /* a message may be late by so much */
#define JUMP_UNITS (UINT32_C(1) << 28) /* no loss is as large */

/* --- lists -------------------------------------------------------------------- */

static void
link_init(struct link *l)
{
    l->prev = l->next = l;
}

static void
link_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
}

static void
link_append(struct link *list, struct link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

static struct exporter *
exporter_of(struct link *l)
{
    return (struct exporter *)((char *)l - offsetof(struct exporter, idle));
}

/* --- the table ---------------------------------------------------------------- */

static uint64_t
mix(uint64_t h, uint64_t v)
{
    __uint128_t product = (__uint128_t)(h ^ v) * UINT64_C(0x9e3779b97f4a7c15);

    return (uint64_t)product ^ (uint64_t)(product >> 64) ^ h << 1;
}

static uint64_t
hash_address(const struct collect *c, const struct in6_addr *a)
{
    uint64_t half[2];

    memcpy(half, a, sizeof half);
    return mix(mix(c->seed, half[0]), half[1]);
}

static struct exporter **
bucket_of(struct collect *c, const struct exporter_key *k)
{
    uint64_t h = hash_address(c, &k->address);

    h = mix(h, k->connection);
    h = mix(h,
            (uint64_t)k->domain << 32 | (uint32_t)k->port << 16 | k->protocol << 8 | k->transport);
    return &c->table[h & c->table_mask];
}

static bool
same_key(const struct exporter_key *a, const struct exporter_key *b)
{
    return a->domain == b->domain && a->port == b->port && a->protocol == b->protocol &&
           a->transport == b->transport && a->connection == b->connection &&
           !memcmp(&a->address, &b->address, sizeof a->address) &&
           !memcmp(&a->agent, &b->agent, sizeof a->agent);
}

int
exporters_init(struct collect *c)
{
    unsigned n = 64;

    while (n < c->limits.exporters) {
        n *= 2;
    }
    link_init(&c->fresh);
    link_init(&c->lasting);
    c->table_mask = n - 1;
    c->table = calloc(n, sizeof(struct exporter *));
    c->hosts = calloc(n, sizeof(struct host *));
    if (getrandom(&c->seed, sizeof c->seed, GRND_NONBLOCK) != sizeof c->seed) {
        c->seed = (uintptr_t)c->table;
    }
    return c->table && c->hosts ? 0 : ENOMEM;
}

void
exporters_destroy(struct collect *c)
{
    struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        while (lists[i]->next && lists[i]->next != lists[i]) {
            exporter_drop(c, exporter_of(lists[i]->next));
        }
    }
    free(c->table);
    free(c->hosts);
}

static struct host *
host_get(struct collect *c, const struct in6_addr *a)
{
    struct host **at = &c->hosts[hash_address(c, a) & c->table_mask], *h;

    for (h = *at; h; h = h->next) {
        if (!memcmp(&h->address, a, sizeof *a)) {
            return h;
        }
    }
    if ((h = calloc(1, sizeof *h))) {
        h->address = *a;
        h->next = *at;
        *at = h;
        c->bytes += sizeof *h;
    }
    return h;
}

static void
host_put(struct collect *c, struct host *h)
{
    struct host **at = &c->hosts[hash_address(c, &h->address) & c->table_mask];

    if (h->n) {
        return;
    }
    while (*at != h) {
        at = &(*at)->next;
    }
    *at = h->next;
    c->bytes -= sizeof *h;
    free(h);
}

/* The one to go: the idlest, of one address or of all, but not 'keep'. */
static struct exporter *
victim(struct collect *c, const struct host *of, const struct exporter *keep)
{
    struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        for (struct link *l = lists[i]->next; l != lists[i]; l = l->next) {
            struct exporter *e = exporter_of(l);

            if (e != keep && (!of || e->host == of)) {
                return e;
            }
        }
    }
    return NULL;
}

static bool
evict(struct collect *c, const struct host *of, const struct exporter *keep)
{
    struct exporter *e = victim(c, of, keep);

    if (e) {
        c->n.evicted++;
        exporter_drop(c, e);
    }
    return e != NULL;
}

static bool
in_prefix(const struct in6_addr *a, const struct assumed *p)
{
    unsigned bytes = p->bits / 8, rest = p->bits % 8;

    return !memcmp(a, &p->address, bytes) &&
           (!rest || !((a->s6_addr[bytes] ^ p->address.s6_addr[bytes]) >> (8 - rest)));
}

static uint32_t
assumed_rate(const struct collect *c, const struct exporter_key *k)
{
    for (unsigned i = 0; i < c->n_assumed && k->protocol != FLOW_NETFLOW5; i++) {
        if (in_prefix(&k->address, &c->assumed[i])) {
            return c->assumed[i].rate;
        }
    }
    return 0;
}

static struct exporter *
exporter_create(struct collect *c, const struct exporter_key *k, struct exporter **bucket,
                uint64_t now_ms)
{
    struct host *h = host_get(c, &k->address);
    struct exporter *e = NULL;

    if (!h) {
        return NULL;
    }
    h->n++; /* holds it while others of its go */
    if ((h->n <= c->limits.exporters_per_host || evict(c, h, NULL)) &&
        (c->n_exporters < c->limits.exporters || evict(c, NULL, NULL)) &&
        exporter_reserve(c, NULL, sizeof *e)) {
        e = calloc(1, sizeof *e);
    }
    if (!e) {
        h->n--;
        host_put(c, h);
        return NULL;
    }
    *e = (struct exporter){.host = h, .key = *k, .first_ms = now_ms, .next = *bucket};
    e->odd = mix(c->seed, c->next_id) | 1;
    e->assumed = assumed_rate(c, k);
    e->waiting_end = &e->waiting;
    e->credit_ms = now_ms;
    e->credit = c->limits.records_per_s;
    e->bytes = sizeof *e;
    c->bytes += sizeof *e;
    c->n_exporters++;
    e->source = (struct flow_source){
        .id = ++c->next_id,
        .domain = k->domain,
        .address = k->protocol == FLOW_SFLOW ? k->agent : k->address,
        .port = k->port,
        .protocol = k->protocol,
        .transport = k->transport,
    };
    *bucket = e;
    link_append(&c->fresh, &e->idle);
    return e;
}

struct exporter *
exporter_get(struct collect *c, const struct exporter_key *k, uint64_t now_ms)
{
    struct exporter **bucket = bucket_of(c, k), *e = *bucket;

    while (e && !same_key(&e->key, k)) {
        e = e->next;
    }
    if (!e && !(e = exporter_create(c, k, bucket, now_ms))) {
        return NULL;
    }
    e->seen_ms = now_ms;
    e->lasting =
        e->lasting || (now_ms >= e->first_ms + LASTING_MS && e->n.messages >= LASTING_MESSAGES);
    link_remove(&e->idle);
    link_append(e->lasting ? &c->lasting : &c->fresh, &e->idle);
    return e;
}

/* --- memory ------------------------------------------------------------------- */

bool
exporter_reserve(struct collect *c, struct exporter *e, size_t bytes)
{
    if (e && e->bytes + bytes > c->limits.exporter_bytes) {
        e->n.refused++;
        return false;
    }
    while (c->bytes + bytes > c->limits.total_bytes) {
        if (!evict(c, NULL, e)) {
            return false;
        }
    }
    return true;
}

void *
exporter_alloc(struct collect *c, struct exporter *e, size_t bytes)
{
    void *p = exporter_reserve(c, e, bytes) ? calloc(1, bytes) : NULL;

    if (p) {
        e->bytes += bytes;
        c->bytes += bytes;
    }
    return p;
}

void
exporter_free(struct collect *c, struct exporter *e, void *p, size_t bytes)
{
    e->bytes -= bytes;
    c->bytes -= bytes;
    free(p);
}

#define FREE_LIST(C, E, TYPE, HEAD)                                                                \
    for (struct TYPE * next_, *at_ = (HEAD); at_; at_ = next_) {                                   \
        next_ = at_->next;                                                                         \
        exporter_free(C, E, at_, sizeof *at_);                                                     \
    }

static void
drop_waiting(struct collect *c, struct exporter *e, struct waiting **at)
{
    struct waiting *w = *at;

    *at = w->next;
    if (!w->next) {
        e->waiting_end = at;
    }
    e->waiting_bytes -= sizeof *w + w->len;
    e->n_waiting--;
    exporter_free(c, e, w, sizeof *w + w->len);
}

void
exporter_drop(struct collect *c, struct exporter *e)
{
    struct exporter **at = bucket_of(c, &e->key);

    if (c->batch_of == e) {
        collect_flush(c);
    }
    exporter_forget_templates(c, e);
    for (unsigned i = 0; i < BUCKETS; i++) {
        FREE_LIST(c, e, interface, e->interfaces[i]);
        FREE_LIST(c, e, sampler, e->samplers[i]);
    }
    FREE_LIST(c, e, element_type, e->types);
    while (e->waiting) {
        drop_waiting(c, e, &e->waiting);
    }
    while (*at != e) {
        at = &(*at)->next;
    }
    *at = e->next;
    link_remove(&e->idle);
    c->n_exporters--;
    e->host->n--;
    host_put(c, e->host);
    c->bytes -= e->bytes;
    free(e);
}

/* --- templates ---------------------------------------------------------------- */

static struct template **
template_slot(struct exporter *e, uint16_t id)
{
    struct template **at = &e->templates[bucket_in(e, id)];

    while (*at && (*at)->id != id) {
        at = &(*at)->next;
    }
    return at;
}

struct template *
exporter_template(const struct exporter *e, uint16_t id)
{
    struct template *t = e->templates[bucket_in(e, id)];

    while (t && t->id != id) {
        t = t->next;
    }
    return t;
}

static void
remove_at(struct collect *c, struct exporter *e, struct template **at)
{
    struct template *t = *at;

    *at = t->next;
    e->n_templates--;
    exporter_free(c, e, t, t->mem_bytes);
}

void
exporter_remove_template(struct collect *c, struct exporter *e, uint16_t id)
{
    struct template **at = template_slot(e, id);

    if (*at) {
        remove_at(c, e, at);
    }
}

void
exporter_forget_templates(struct collect *c, struct exporter *e)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (e->templates[i]) {
            remove_at(c, e, &e->templates[i]);
        }
    }
}

bool
exporter_add_template(struct collect *c, struct exporter *e, struct template *t)
{
    struct template **at = template_slot(e, t->id);

    if (*at && template_same(*at, t)) {
        (*at)->seen_ms = t->seen_ms;
        free(t);
        return true;
    }
    if (*at) {
        e->n.template_changes++;
        remove_at(c, e, at);
    }
    if (e->n_templates >= c->limits.templates) {
        e->n.refused++;
        free(t);
        return false;
    }
    if (!exporter_reserve(c, e, t->mem_bytes)) {
        free(t);
        return false;
    }
    e->bytes += t->mem_bytes;
    c->bytes += t->mem_bytes;
    e->n_templates++;
    at = &e->templates[bucket_in(e, t->id)];
    t->next = *at;
    *at = t;
    return true;
}

void
exporter_expire(struct collect *c, struct exporter *e, uint64_t now_ms)
{
    for (struct waiting **at = &e->waiting; *at;) {
        if ((*at)->until_ms <= now_ms) {
            e->n.without_template++;
            drop_waiting(c, e, at);
        } else {
            at = &(*at)->next;
        }
    }
    if (e->key.connection) {
        return; /* a connection's templates last as long as it */
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct template **at = &e->templates[i]; *at;) {
            if ((*at)->seen_ms + c->limits.template_ms <= now_ms) {
                remove_at(c, e, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
}

void
exporter_shift(struct exporter *e, int64_t by_ms)
{
    e->first_ms += by_ms;
    e->seen_ms += by_ms;
    e->credit_ms += by_ms;
    for (struct waiting *w = e->waiting; w; w = w->next) {
        w->until_ms += by_ms;
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct template *t = e->templates[i]; t; t = t->next) {
            t->seen_ms += by_ms;
        }
    }
}

uint32_t
exporter_rate(const struct exporter *e, uint32_t sampler)
{
    const struct sampler *s = e->samplers[bucket_in(e, sampler)];

    while (s && s->id != sampler) {
        s = s->next;
    }
    return s ? s->rate : e->sampling ? e->sampling : e->assumed;
}

/* --- sequence numbers ----------------------------------------------------------- */

bool
sequence_check(struct exporter *e, uint32_t number, uint32_t units, bool unknown,
               uint32_t uptime_ms)
{
    struct sequence *s = &e->sequence;
    int32_t gap = number - s->expected;
    bool restarted =
        s->known && uptime_ms && (int32_t)(uptime_ms - s->uptime_ms) < -(int32_t)UPTIME_SLACK_MS;

    if (s->known && !restarted && gap < 0 && gap >= -(int32_t)LATE_UNITS &&
        !(uptime_ms == 0 && number == 0) && s->n_late < LATE_MESSAGES) {
        /* Late: it had been taken for lost. */
        uint64_t found = units < (uint32_t)-gap ? units : (uint32_t)-gap;

        s->n_late++;
        e->n.reordered++;
        e->n.lost -= found < e->n.lost ? found : e->n.lost;
        return false;
    }
    restarted |= s->known && (gap < 0 || gap > (int32_t)JUMP_UNITS);
    if (restarted) {
        e->n.restarts++;
    } else if (s->known) {
        e->n.lost += gap;
    }
    s->expected = number + units;
    s->uptime_ms = uptime_ms;
    s->known = !unknown;
    s->n_late = 0;
    return restarted;
}

#include "enrich.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "enrich_priv.h"

enum { BUCKETS_FIRST = 1024, LATE_MS = 3000 };

struct binding {
    struct store_binding b;
    struct binding *next; /* in its bucket */
    bool dirty, taken;    /* not in the store yet; the last enrich_changed() took it */
    bool said;            /* by the state that is being read */
};

struct enrich {
    pthread_mutex_t mutex; /* guards all below */
    struct flow_names *names;
    struct binding **buckets;
    size_t n_buckets, n; /* n_buckets: a power of two */
    size_t of_kind[256]; /* so many of the n */
    bool any;            /* there has been a state */
    /* Hosts heard as exporters lately, by id of the name. */
    struct {
        int64_t host, ms;
    } heard[256];
};

/* --- the table ----------------------------------------------------------------------- */

static size_t
hash(uint8_t kind, const uint8_t key[STORE_KEY_SIZE])
{
    uint64_t h = kind, words[(STORE_KEY_SIZE + 7) / 8] = {0};

    memcpy(words, key, STORE_KEY_SIZE);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        h = (h ^ words[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

static struct binding **
bucket_of(const struct enrich *e, uint8_t kind, const uint8_t key[STORE_KEY_SIZE])
{
    return &e->buckets[hash(kind, key) & (e->n_buckets - 1)];
}

struct enrich *
enrich_create(struct flow_names *names)
{
    struct enrich *e = calloc(1, sizeof *e);

    if (!e || !(e->buckets = calloc(BUCKETS_FIRST, sizeof(struct binding *)))) {
        free(e);
        return NULL;
    }
    pthread_mutex_init(&e->mutex, NULL);
    e->n_buckets = BUCKETS_FIRST;
    e->names = names;
    return e;
}

void
enrich_destroy(struct enrich *e)
{
    if (!e) {
        return;
    }
    for (size_t i = 0; i < e->n_buckets; i++) {
        for (struct binding *b = e->buckets[i], *next; b; b = next) {
            next = b->next;
            free(b);
        }
    }
    free(e->buckets);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

static void
grow(struct enrich *e)
{
    size_t n = e->n_buckets * 4;
    struct binding **buckets = calloc(n, sizeof(struct binding *));

    if (!buckets) {
        return; /* slower, not wrong */
    }
    for (size_t i = 0; i < e->n_buckets; i++) {
        for (struct binding *b = e->buckets[i], *next; b; b = next) {
            struct binding **to = &buckets[hash(b->b.kind, b->b.key) & (n - 1)];
            next = b->next;
            b->next = *to;
            *to = b;
        }
    }
    free(e->buckets);
    e->buckets = buckets;
    e->n_buckets = n;
}

static struct binding *
insert(struct enrich *e, const struct store_binding *b)
{
    struct binding *new = calloc(1, sizeof *new);
    struct binding **to;

    if (e->n > e->n_buckets) {
        grow(e);
    }
    if (!new) {
        return NULL;
    }
    new->b = *b;
    to = bucket_of(e, b->kind, b->key);
    new->next = *to;
    *to = new;
    e->n++;
    e->of_kind[b->kind]++;
    return new;
}

/* What it was at 'ms'.  Keys are never used again, so that of a key the nearest
 * time will do.  What nothing is known of was what it is soon after: changes are
 * heard of a little late. */
static const struct store_binding *
find(struct enrich *e, uint8_t kind, const uint8_t key[STORE_KEY_SIZE], int64_t ms)
{
    const struct binding *nearest = NULL;
    int64_t distance = INT64_MAX;

    if (!e->of_kind[kind]) {
        return NULL;
    }
    for (const struct binding *b = *bucket_of(e, kind, key); b; b = b->next) {
        if (b->b.kind != kind || memcmp(b->b.key, key, STORE_KEY_SIZE)) {
            continue;
        }
        int64_t d = ms < b->b.since_ms    ? b->b.since_ms - ms
                    : ms >= b->b.until_ms ? ms - b->b.until_ms + 1
                                          : 0;
        if (d == 0) {
            return &b->b;
        }
        if ((kind < ENRICH_PORT || (ms < b->b.since_ms && d <= LATE_MS)) && d < distance) {
            distance = d;
            nearest = b;
        }
    }
    return nearest ? &nearest->b : NULL;
}

/* --- states --------------------------------------------------------------------------- */

int
enrich_say(struct enrich *e, uint8_t kind, const uint8_t key[STORE_KEY_SIZE],
           const int64_t value[STORE_BINDING_VALUES], int64_t since_ms, int64_t now_ms)
{
    struct store_binding b = {.kind = kind, .since_ms = since_ms, .until_ms = INT64_MAX};
    struct binding *new;

    for (struct binding *o = *bucket_of(e, kind, key); o; o = o->next) {
        if (o->b.kind != kind || memcmp(o->b.key, key, STORE_KEY_SIZE) ||
            o->b.until_ms != INT64_MAX) {
            continue;
        }
        if (o->said || !memcmp(o->b.value, value, sizeof b.value)) {
            o->said = true; /* of two that claim one thing, the first */
            return 0;
        }
        o->b.until_ms = now_ms;
        o->dirty = true;
    }
    memcpy(b.key, key, sizeof b.key);
    memcpy(b.value, value, sizeof b.value);
    new = insert(e, &b);
    if (!new) {
        return ENOMEM;
    }
    new->said = new->dirty = true;
    return 0;
}

static void
end_unsaid(struct enrich *e, int64_t now_ms)
{
    for (size_t i = 0; i < e->n_buckets; i++) {
        for (struct binding *b = e->buckets[i]; b; b = b->next) {
            if (!b->said && b->b.until_ms == INT64_MAX) {
                b->b.until_ms = now_ms;
                b->dirty = true;
            }
            b->said = false;
        }
    }
}

int
enrich_update(struct enrich *e, const json_t *pool, int64_t now_ms)
{
    int64_t since = now_ms;
    int error;

    pthread_mutex_lock(&e->mutex);
    if (!e->any && !e->n) {
        since -= ENRICH_FIRST_MS;
    }
    e->any = true;
    error = enrich_read(e, e->names, pool, since, now_ms);
    end_unsaid(e, now_ms);
    pthread_mutex_unlock(&e->mutex);
    return error;
}

/* --- the store's ---------------------------------------------------------------------- */

void
enrich_restore(struct enrich *e, const struct store_binding *b)
{
    pthread_mutex_lock(&e->mutex);
    insert(e, b);
    pthread_mutex_unlock(&e->mutex);
}

size_t
enrich_changed(struct enrich *e, struct store_binding *to, size_t max)
{
    size_t n = 0;

    pthread_mutex_lock(&e->mutex);
    for (size_t i = 0; i < e->n_buckets && n < max; i++) {
        for (struct binding *b = e->buckets[i]; b && n < max; b = b->next) {
            b->taken = b->dirty;
            if (b->dirty) {
                b->dirty = false;
                to[n++] = b->b;
            }
        }
    }
    pthread_mutex_unlock(&e->mutex);
    return n;
}

void
enrich_changed_again(struct enrich *e)
{
    pthread_mutex_lock(&e->mutex);
    for (size_t i = 0; i < e->n_buckets; i++) {
        for (struct binding *b = e->buckets[i]; b; b = b->next) {
            b->dirty |= b->taken;
        }
    }
    pthread_mutex_unlock(&e->mutex);
}

void
enrich_forget(struct enrich *e, int64_t before_ms)
{
    pthread_mutex_lock(&e->mutex);
    for (size_t i = 0; i < e->n_buckets; i++) {
        for (struct binding **p = &e->buckets[i], *b; (b = *p);) {
            if (b->b.until_ms < before_ms) {
                *p = b->next;
                e->of_kind[b->b.kind]--;
                e->n--;
                free(b);
            } else {
                p = &b->next;
            }
        }
    }
    pthread_mutex_unlock(&e->mutex);
}

size_t
enrich_count(struct enrich *e)
{
    size_t n;

    pthread_mutex_lock(&e->mutex);
    n = e->n;
    pthread_mutex_unlock(&e->mutex);
    return n;
}

/* --- rows -------------------------------------------------------------------------------- */

static const struct store_binding *
by_number(struct enrich *e, uint8_t kind, uint64_t high, uint64_t low, int64_t ms)
{
    uint8_t key[STORE_KEY_SIZE];

    enrich_key_numbers(key, high, low);
    return find(e, kind, key, ms);
}

static const struct store_binding *
by_address(struct enrich *e, uint8_t kind, uint32_t network, const struct in6_addr *a, int64_t ms)
{
    uint8_t key[STORE_KEY_SIZE];

    enrich_key_address(key, network, a);
    return find(e, kind, key, ms);
}

static uint64_t
mac_number(const uint8_t mac[6])
{
    uint64_t n = 0;

    for (int i = 0; i < 6; i++) {
        n = n << 8 | mac[i];
    }
    return n;
}

/* The vif of one end by what its switch says of it: its key, or its port. */
static const struct store_binding *
vif_there(struct enrich *e, uint32_t key, int64_t host, uint32_t port, int64_t ms)
{
    const struct store_binding *b = key ? by_number(e, ENRICH_VIF, 0, key, ms) : NULL;

    if (!b && !key && host > 0 && port) {
        b = by_number(e, ENRICH_PORT, (uint64_t)host, port, ms);
    }
    return b;
}

static void
fill_side(struct flow_side *side, const struct store_binding *vif, uint32_t key)
{
    if (vif) {
        *side = (struct flow_side){.vif = vif->value[ENRICH_NAME],
                                   .vm = vif->value[ENRICH_VM],
                                   .tenant = vif->value[ENRICH_TENANT],
                                   .network = vif->value[ENRICH_NETWORK],
                                   .groups = vif->value[ENRICH_GROUPS]};
    } else {
        *side = (struct flow_side){.vif = -(int64_t)key};
    }
}

/* The network that the packets were in, and its key. */
static int64_t
network_of(struct enrich *e, const struct flow_record *r, const struct store_binding *in,
           const struct store_binding *out, int64_t ms, uint32_t *key)
{
    const struct store_binding *b = NULL;

    *key = r->network;
    if (r->network) {
        b = by_number(e, ENRICH_NET, 0, r->network, ms);
        return b ? b->value[ENRICH_NAME] : -(int64_t)r->network;
    }
    if (in || out) {
        const struct store_binding *vif = in ? in : out;
        *key = (uint32_t)vif->value[ENRICH_NETWORK_KEY];
        return vif->value[ENRICH_NETWORK];
    }
    if (r->vlan) {
        b = by_number(e, ENRICH_TAG, 0, r->vlan, ms);
    } else if (r->tunnel_key) {
        b = by_number(e, ENRICH_VNI, 0, r->tunnel_key, ms);
    }
    *key = b ? (uint32_t)b->value[ENRICH_NETWORK_KEY] : 0;
    return b ? b->value[ENRICH_NAME] : 0;
}

static const struct store_binding *
vif_by_address(struct enrich *e, uint32_t network, const struct in6_addr *address,
               const uint8_t mac[6], int64_t ms)
{
    static const struct in6_addr none;
    const struct store_binding *b = NULL;
    uint64_t m = mac_number(mac);

    if (network && memcmp(address, &none, sizeof none)) {
        b = by_address(e, ENRICH_ADDRESS, network, address, ms);
    }
    return !b && network && m ? by_number(e, ENRICH_MAC, network, m, ms) : b;
}

static int64_t
rule_of(struct enrich *e, uint32_t key, int64_t ms)
{
    const struct store_binding *b = key ? by_number(e, ENRICH_RULE, 0, key, ms) : NULL;

    return b ? b->value[ENRICH_NAME] : -(int64_t)key;
}

/* Whether the host's own records come in: then it counts what its vifs send. */
static bool
exports(struct enrich *e, int64_t host, int64_t now_ms)
{
    unsigned i = (unsigned)host % (sizeof e->heard / sizeof e->heard[0]);

    return host > 0 && e->heard[i].host == host && now_ms - e->heard[i].ms < 300000;
}

/* Whether the host that sent the packets, by its vif 'src' or (outside the pool's
 * networks) itself, counts them as well. */
static bool
counted_elsewhere(struct enrich *e, const struct flow_row *row, bool here,
                  const struct store_binding *src, uint32_t network, int64_t ms, int64_t now_ms)
{
    int64_t host = 0;

    if (src) {
        host = here ? 0 : src->value[ENRICH_HOST];
    } else if (!network) {
        const struct store_binding *b = by_address(e, ENRICH_EXPORTER, 0, &row->r.src, ms);
        host = b ? b->value[ENRICH_NAME] : 0;
    }
    return host != row->host && exports(e, host, now_ms);
}

static void
fill_row(struct enrich *e, struct flow_row *row, int64_t now_ms)
{
    const struct flow_record *r = &row->r;
    /* By a clock that is wrong (it counts when it arrived) it was then, too. */
    bool known = row->time_ms == r->end_ms && r->start_ms && r->start_ms <= row->time_ms;
    int64_t ms = known ? (int64_t)r->start_ms : (int64_t)row->time_ms;
    const struct store_binding *b, *in, *out, *src, *dst;
    uint32_t network;

    b = by_address(e, ENRICH_EXPORTER, 0, &row->exporter, ms);
    row->host = b ? b->value[ENRICH_NAME] : 0;
    if (row->host > 0) {
        unsigned i = (unsigned)row->host % (sizeof e->heard / sizeof e->heard[0]);
        e->heard[i].host = row->host;
        e->heard[i].ms = now_ms;
    }
    in = vif_there(e, r->in_vif, row->host, r->in_if, ms);
    out = vif_there(e, r->out_vif, row->host, r->out_if, ms);
    row->network = network_of(e, r, in, out, ms, &network);
    src = in || r->in_vif ? in : vif_by_address(e, network, &r->src, r->src_mac, ms);
    dst = out || r->out_vif ? out : vif_by_address(e, network, &r->dst, r->dst_mac, ms);
    fill_side(&row->src, src, r->in_vif);
    fill_side(&row->dst, dst, r->out_vif);
    row->rule_out = rule_of(e, r->rule_out, ms);
    row->rule_in = rule_of(e, r->rule_in, ms);
    row->again = counted_elsewhere(e, row, in || r->in_vif, src, network, ms, now_ms);
}

void
enrich_rows(struct enrich *e, struct flow_row *rows, size_t n, int64_t now_ms)
{
    pthread_mutex_lock(&e->mutex);
    for (size_t i = 0; i < n; i++) {
        fill_row(e, &rows[i], now_ms);
    }
    pthread_mutex_unlock(&e->mutex);
}

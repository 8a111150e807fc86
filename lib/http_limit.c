#include "http_limit.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS 1024u

struct key {
    uint64_t word;
    bool v6;
};

struct peer {
    struct peer *next;
    struct key key;
    unsigned connections;
    double tokens;
    int64_t filled_ms;
};

struct http_limit {
    struct peer *buckets[BUCKETS];
    unsigned n;
    uint64_t seed;
};

struct http_limit *
http_limit_create(void)
{
    struct http_limit *l = calloc(1, sizeof *l);

    if (l && getrandom(&l->seed, sizeof l->seed, 0) != sizeof l->seed) {
        free(l);
        return NULL;
    }
    return l;
}

void
http_limit_destroy(struct http_limit *l)
{
    for (unsigned i = 0; l && i < BUCKETS; i++) {
        while (l->buckets[i]) {
            struct peer *p = l->buckets[i];
            l->buckets[i] = p->next;
            free(p);
        }
    }
    free(l);
}

/* All Unix sockets are one peer. */
static struct key
key_of(const struct sockaddr *sa)
{
    struct key k = {.word = 0};

    if (sa->sa_family == AF_INET) {
        k.word = ((const struct sockaddr_in *)sa)->sin_addr.s_addr;
    } else if (sa->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)sa)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a)) {
            uint32_t v4;
            memcpy(&v4, &a->s6_addr[12], sizeof v4);
            k.word = v4;
        } else {
            memcpy(&k.word, a, sizeof k.word);
            k.v6 = true;
        }
    }
    return k;
}

static bool
same(struct key a, struct key b)
{
    return a.word == b.word && a.v6 == b.v6;
}

bool
http_limit_same(const struct sockaddr *a, const struct sockaddr *b)
{
    return same(key_of(a), key_of(b));
}

static struct peer **
bucket_of(struct http_limit *l, struct key k)
{
    uint64_t h = (k.word ^ l->seed ^ k.v6) * 0x9e3779b97f4a7c15u;

    return &l->buckets[(h ^ h >> 32) % BUCKETS];
}

static void
fill(struct peer *p, int64_t now_ms)
{
    p->tokens += (double)(now_ms - p->filled_ms) * HTTP_PEER_RATE / 1000;
    p->tokens = p->tokens > HTTP_PEER_BURST ? HTTP_PEER_BURST : p->tokens;
    p->filled_ms = now_ms;
}

/* Forgets peers that are as good as new. */
static void
sweep(struct http_limit *l, int64_t now_ms)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct peer **pp = &l->buckets[i]; *pp;) {
            struct peer *p = *pp;
            fill(p, now_ms);
            if (!p->connections && p->tokens >= HTTP_PEER_BURST) {
                *pp = p->next;
                free(p);
                l->n--;
            } else {
                pp = &p->next;
            }
        }
    }
}

static struct peer *
find(struct http_limit *l, const struct sockaddr *sa)
{
    struct key k = key_of(sa);
    struct peer *p = *bucket_of(l, k);

    while (p && !same(p->key, k)) {
        p = p->next;
    }
    return p;
}

static struct peer *
find_or_add(struct http_limit *l, const struct sockaddr *sa, int64_t now_ms)
{
    struct peer *p = find(l, sa), **bucket = bucket_of(l, key_of(sa));

    if (p) {
        return p;
    }
    if (l->n >= HTTP_PEERS_MAX) {
        sweep(l, now_ms);
    }
    if (l->n >= HTTP_PEERS_MAX || !(p = calloc(1, sizeof *p))) {
        return NULL;
    }
    *p = (struct peer){*bucket, key_of(sa), 0, HTTP_PEER_BURST, now_ms};
    *bucket = p;
    l->n++;
    return p;
}

bool
http_limit_try(struct http_limit *l, const struct sockaddr *sa, int64_t now_ms)
{
    struct peer *p = find_or_add(l, sa, now_ms);

    if (!p) {
        return false;
    }
    fill(p, now_ms);
    if (p->tokens < 1) {
        return false;
    }
    p->tokens -= 1;
    return true;
}

unsigned
http_limit_enter(struct http_limit *l, const struct sockaddr *sa, int64_t now_ms)
{
    struct peer *p = find_or_add(l, sa, now_ms);

    return p ? ++p->connections : UINT32_MAX;
}

void
http_limit_leave(struct http_limit *l, const struct sockaddr *sa)
{
    struct peer *p = find(l, sa);

    if (p && p->connections) {
        p->connections--;
    }
}

/* The flows of one host, and differences between such sets. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "byte-order.h"
#include "openflow/openflow.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/ofpbuf.h"
#include "pflow.h"
#include "slab.h"
#include "svec.h"
#include "util.h"

/* --- tables ------------------------------------------------------------------- */

/* The flow itself will have left the cache when the table takes it. */
struct ffresh {
    struct pflow *flow;
    uint32_t hash;
};

/* The givers of a key that has, or had, several.  Its slot has its address and bit 0. */
struct fshare {
    struct ovs_list stale_node; /* in the table's 'stale', or empty */
    struct pflow *flow;         /* the table's: what came of those that are given */
    struct pflow **given;       /* references */
    size_t n_given, allocated;
    bool crowded;   /* is one of the table's n_crowded */
    uint64_t crowd; /* its part of the table's */
};

#define NOT_FOUND SIZE_MAX
#define MIN_SLOTS 16

void
ftable_init(struct ftable *ft)
{
    *ft = (struct ftable){.stale = OVS_LIST_INITIALIZER(&ft->stale)};
}

void
ftable_destroy(struct ftable *ft)
{
    ftable_track(ft, false);
    ftable_clear(ft);
}

/* --- slots --------------------------------------------------------------------- */

static uint32_t
slot_hash(uint32_t hash)
{
    return hash ? hash : 1;
}

static struct fshare *
share_at(const struct ftable *ft, size_t i)
{
    return ft->slots[i] & 1 ? (struct fshare *)(ft->slots[i] - 1) : NULL;
}

/* Where the table's reference is. */
static struct pflow **
place_of(const struct ftable *ft, size_t i)
{
    struct fshare *s = share_at(ft, i);

    return s ? &s->flow : (struct pflow **)&ft->slots[i];
}

static size_t
first_slot(const struct ftable *ft, uint32_t hash)
{
    return hash & (ft->n_slots - 1);
}

static size_t
next_slot(const struct ftable *ft, size_t i)
{
    return (i + 1) & (ft->n_slots - 1);
}

static size_t
find_hashed(const struct ftable *ft, const struct pflow *key, uint32_t hash)
{
    if (!ft->n) {
        return NOT_FOUND;
    }
    for (size_t i = first_slot(ft, hash); ft->hashes[i]; i = next_slot(ft, i)) {
        if (ft->hashes[i] == hash && pflow_same_key(*place_of(ft, i), key)) {
            return i;
        }
    }
    return NOT_FOUND;
}

static size_t
find_slot(const struct ftable *ft, const struct pflow *key)
{
    return find_hashed(ft, key, slot_hash(key->hash));
}

static void
put_slot(struct ftable *ft, uintptr_t slot, uint32_t hash)
{
    size_t i = first_slot(ft, hash);

    while (ft->hashes[i]) {
        i = next_slot(ft, i);
    }
    ft->slots[i] = slot;
    ft->hashes[i] = hash;
    ft->n++;
}

/* What held the flows given to one table is the next one's slots: of many tables that are
 * filled one after the other each would take new memory, which costs more than to fill it. */
static void *spare;
static size_t spare_bytes;

static void
keep_spare(void *p, size_t bytes)
{
    slab_resize(spare, spare_bytes, 0);
    spare = p;
    spare_bytes = bytes;
}

void
ftable_drop_spare(void)
{
    keep_spare(NULL, 0);
}

static size_t
slots_bytes(size_t n_slots)
{
    return n_slots * (sizeof(uintptr_t) + sizeof(uint32_t));
}

static void
new_slots(struct ftable *ft)
{
    size_t bytes = slots_bytes(ft->n_slots);
    bool fits = bytes / 2 <= spare_bytes && bytes > spare_bytes / 4;

    ft->slots = slab_resize(fits ? spare : NULL, fits ? spare_bytes : 0, bytes);
    if (fits) {
        spare = NULL;
        spare_bytes = 0;
    }
    ft->hashes = (uint32_t *)(ft->slots + ft->n_slots);
    memset(ft->hashes, 0, ft->n_slots * sizeof *ft->hashes);
}

static void
free_slots(struct ftable *ft)
{
    slab_resize(ft->slots, slots_bytes(ft->n_slots), 0);
}

static void
set_slots(struct ftable *ft, size_t n_slots)
{
    struct ftable old = *ft;

    ft->n = 0;
    ft->n_slots = n_slots;
    new_slots(ft);
    for (size_t i = 0; i < old.n_slots; i++) {
        if (old.hashes[i]) {
            put_slot(ft, old.slots[i], old.hashes[i]);
        }
    }
    free_slots(&old);
}

/* Room for so many flows: a fifth of the slots stays empty. */
static void
reserve(struct ftable *ft, size_t n)
{
    size_t n_slots = MAX(ft->n_slots, MIN_SLOTS);

    while (n > n_slots / 5 * 4) {
        n_slots *= 2;
    }
    if (n_slots != ft->n_slots) {
        set_slots(ft, n_slots);
    }
}

/* A host whose vifs have left keeps neither the memory nor what it costs to walk over it.
 * Half of the slots that stay are empty: it may grow again. */
static void
shrink(struct ftable *ft)
{
    size_t n_slots = ft->n_slots;

    while (n_slots > MIN_SLOTS && ft->n < n_slots / 8) {
        n_slots /= 4;
    }
    if (n_slots != ft->n_slots) {
        set_slots(ft, MAX(n_slots, MIN_SLOTS));
    }
}

/* Those behind move up to where they are found without it. */
static void
empty_slot(struct ftable *ft, size_t hole)
{
    for (size_t i = next_slot(ft, hole); ft->hashes[i]; i = next_slot(ft, i)) {
        size_t way = i - first_slot(ft, ft->hashes[i]), to_hole = i - hole;

        if ((way & (ft->n_slots - 1)) >= (to_hole & (ft->n_slots - 1))) {
            ft->slots[hole] = ft->slots[i];
            ft->hashes[hole] = ft->hashes[i];
            hole = i;
        }
    }
    ft->hashes[hole] = 0;
    ft->n--;
}

/* --- flows --------------------------------------------------------------------- */

struct pflow *
ftable_next(const struct ftable *ft, size_t *at)
{
    while (*at < ft->n_slots) {
        size_t i = (*at)++;

        if (ft->hashes[i]) {
            return *place_of(ft, i);
        }
    }
    return NULL;
}

struct pflow *
ftable_find(const struct ftable *ft, const struct pflow *key)
{
    size_t i = find_slot(ft, key);

    return i == NOT_FOUND ? NULL : *place_of(ft, i);
}

/* In front of a flow's statistics (OpenFlow 1.5, 7.2.4). */
struct oxs_header {
    ovs_be16 reserved;
    ovs_be16 length; /* with the header, without what it is padded with, to 8 bytes */
};

/* Of a flow in a switch's answer: a pflow's parts. */
struct reported {
    const struct ofp15_flow_desc *desc;
    const uint8_t *match, *actions;
    size_t match_len, actions_len, len; /* 'len': of all of it */
};

/* False: it is not all there, or is more than a flow of ours can be. */
static bool
parse_reported(const struct ofpbuf *msg, struct reported *r)
{
    const struct ofp11_match_header *omh = ofpbuf_at(msg, sizeof *r->desc, sizeof *omh);
    const struct oxs_header *oxs;
    size_t at, match_len;

    if (!omh || (uintptr_t)msg->data % 8) {
        return false;
    }
    r->desc = msg->data;
    r->len = ntohs(r->desc->length);
    match_len = ntohs(omh->length);
    at = sizeof *r->desc + ROUND_UP(match_len, 8);
    oxs = ofpbuf_at(msg, at, sizeof *oxs);
    if (omh->type != htons(OFPMT_OXM) || match_len < sizeof *omh || !oxs ||
        ntohs(oxs->length) < sizeof *oxs) {
        return false;
    }
    at += ROUND_UP(ntohs(oxs->length), 8);
    if (at > r->len || r->len > msg->size) {
        return false;
    }
    r->match = (const uint8_t *)(omh + 1);
    r->match_len = match_len - sizeof *omh;
    r->actions = (const uint8_t *)msg->data + at;
    r->actions_len = r->len - at;
    return !r->desc->idle_timeout && !r->desc->hard_timeout && !r->desc->importance &&
           !r->desc->flags;
}

static bool
is_reported(const struct pflow *f, const struct reported *r)
{
    return f->table == r->desc->table_id && f->priority == ntohs(r->desc->priority) &&
           f->match_len == r->match_len && f->actions_len == r->actions_len &&
           f->cookie == ntohll(r->desc->cookie) && !memcmp(f->bytes, r->match, r->match_len) &&
           !memcmp(f->bytes + f->match_len, r->actions, r->actions_len);
}

struct pflow *
ftable_pull(const struct ftable *ft, struct ofpbuf *msg)
{
    struct reported r;
    uint32_t hash;

    if (!ft->n || !parse_reported(msg, &r)) {
        return NULL;
    }
    hash =
        slot_hash(pflow_key_hash(r.desc->table_id, ntohs(r.desc->priority), r.match, r.match_len));
    for (size_t i = first_slot(ft, hash); ft->hashes[i]; i = next_slot(ft, i)) {
        struct pflow *f = *place_of(ft, i);

        if (ft->hashes[i] == hash && is_reported(f, &r)) {
            ofpbuf_pull(msg, r.len);
            return f;
        }
    }
    return NULL;
}

static void
free_share(struct fshare *s)
{
    if (s) {
        for (size_t i = 0; i < s->n_given; i++) {
            pflow_unref(s->given[i]);
        }
        ovs_list_remove(&s->stale_node);
        free(s->given);
        slab_free(s, sizeof *s);
    }
}

static void
note(struct ftable *ft, const struct pflow *before, const struct pflow *after)
{
    if (ft->delta) {
        fdelta_add(ft->delta, before, after);
    }
}

/* Takes over the caller's reference of 'f', as replace_flow() does. */
static void
insert_flow(struct ftable *ft, struct pflow *f, uint32_t hash)
{
    reserve(ft, ft->n + 1);
    put_slot(ft, (uintptr_t)f, hash);
    note(ft, NULL, f);
}

static void
replace_flow(struct ftable *ft, size_t i, struct pflow *f)
{
    struct pflow **place = place_of(ft, i), *old = *place;

    note(ft, old, f);
    *place = f;
    pflow_unref(old);
}

void
ftable_set(struct ftable *ft, const struct pflow *f)
{
    size_t i = find_slot(ft, f);

    if (i == NOT_FOUND) {
        insert_flow(ft, pflow_ref(f), slot_hash(f->hash));
    } else {
        replace_flow(ft, i, pflow_ref(f));
    }
}

static void
set_crowded(struct ftable *ft, struct fshare *s, bool crowded)
{
    ft->n_crowded += crowded - s->crowded;
    ft->crowd -= s->crowd;
    s->crowded = crowded;
    s->crowd = 0;
    for (size_t i = 0; crowded && i < s->n_given; i++) {
        s->crowd = (s->crowd ^ s->given[i]->cookie) * UINT64_C(0x9e3779b97f4a7c15);
        s->crowd ^= s->crowd >> 29;
    }
    ft->crowd += s->crowd;
}

/* Its slot is the caller's to empty. */
static void
drop_flow(struct ftable *ft, size_t i)
{
    struct fshare *s = share_at(ft, i);
    struct pflow *f = *place_of(ft, i);

    if (s) {
        set_crowded(ft, s, false);
    }
    note(ft, f, NULL);
    pflow_unref(f);
    free_share(s);
}

static void
remove_flow(struct ftable *ft, size_t i)
{
    drop_flow(ft, i);
    empty_slot(ft, i);
}

void
ftable_remove(struct ftable *ft, const struct pflow *key)
{
    size_t i = find_slot(ft, key);

    if (i != NOT_FOUND) {
        remove_flow(ft, i);
    }
}

static void
clear_fresh(struct ftable *ft)
{
    keep_spare(ft->fresh, ft->fresh_allocated * sizeof *ft->fresh);
    ft->fresh = NULL;
    ft->n_fresh = ft->fresh_allocated = 0;
}

void
ftable_clear(struct ftable *ft)
{
    for (size_t i = 0; i < ft->n_fresh; i++) {
        pflow_unref(ft->fresh[i].flow);
    }
    clear_fresh(ft);
    for (size_t i = 0; i < ft->n_slots; i++) {
        if (ft->hashes[i]) {
            drop_flow(ft, i);
        }
    }
    free_slots(ft);
    ft->slots = NULL;
    ft->hashes = NULL;
    ft->n = ft->n_slots = 0;
}

/* --- several givers ----------------------------------------------------------- */

/* Takes over the caller's reference. */
static void
share_add(struct fshare *s, struct pflow *f)
{
    if (s->n_given == s->allocated) {
        s->given = x2nrealloc(s->given, &s->allocated, sizeof *s->given);
    }
    s->given[s->n_given++] = f;
}

static void
share_stale(struct ftable *ft, struct fshare *s)
{
    if (ovs_list_is_empty(&s->stale_node)) {
        ovs_list_push_back(&ft->stale, &s->stale_node);
    }
}

/* Takes over the caller's reference. */
static void
give(struct ftable *ft, struct pflow *f, uint32_t hash)
{
    size_t i = find_hashed(ft, f, hash);
    struct fshare *s;

    if (i == NOT_FOUND) {
        insert_flow(ft, f, hash);
        return;
    }
    s = share_at(ft, i);
    if (!s) {
        s = slab_zalloc(sizeof *s);
        s->flow = *place_of(ft, i);
        ovs_list_init(&s->stale_node);
        s->allocated = 2;
        s->given = xmalloc(s->allocated * sizeof *s->given);
        share_add(s, pflow_ref(s->flow));
        ft->slots[i] = (uintptr_t)s | 1;
    }
    share_add(s, f);
    share_stale(ft, s);
}

/* Slots asked for before they are needed. */
#define AHEAD 16

/* One table after the other, of its final size: while they grow side by side, every
 * step misses the cache. */
static void
take_fresh(struct ftable *ft)
{
    size_t n = ft->n_fresh;

    if (!n) {
        return;
    }
    reserve(ft, n);
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            size_t slot = first_slot(ft, ft->fresh[i + AHEAD].hash);

            OVS_PREFETCH(&ft->hashes[slot]);
            OVS_PREFETCH_WRITE(&ft->slots[slot]);
        }
        give(ft, ft->fresh[i].flow, ft->fresh[i].hash);
    }
    clear_fresh(ft);
}

/* By at most 128 KiB, which are new memory. */
static void
grow_fresh(struct ftable *ft)
{
    size_t before = ft->fresh_allocated, n = before + MAX(MIN(before, 8192), MIN_SLOTS);

    ft->fresh = slab_resize(ft->fresh, before * sizeof *ft->fresh, n * sizeof *ft->fresh);
    ft->fresh_allocated = n;
}

void
ftable_give(struct ftable *ft, const struct pflow *f)
{
    if (ft->n) {
        give(ft, pflow_ref(f), slot_hash(f->hash));
        return;
    }
    if (ft->n_fresh == ft->fresh_allocated) {
        grow_fresh(ft);
    }
    ft->fresh[ft->n_fresh++] = (struct ffresh){pflow_ref(f), slot_hash(f->hash)};
}

void
ftable_withdraw(struct ftable *ft, const struct pflow *f)
{
    struct fshare *s;
    size_t i;

    take_fresh(ft);
    i = find_slot(ft, f);
    ovs_assert(i != NOT_FOUND);
    s = share_at(ft, i);
    if (!s) {
        ovs_assert(*place_of(ft, i) == f);
        remove_flow(ft, i);
        return;
    }
    for (size_t j = s->n_given; j-- > 0;) {
        if (s->given[j] == f) {
            s->given[j] = s->given[--s->n_given];
            share_stale(ft, s);
            pflow_unref(CONST_CAST(struct pflow *, f));
            return;
        }
    }
    OVS_NOT_REACHED();
}

/* Plain flows first, then by cookie; the rest only makes the order complete. */
static int
compare_given(const void *a_, const void *b_)
{
    const struct pflow *a = *(struct pflow *const *)a_, *b = *(struct pflow *const *)b_;

    if (a->clause != b->clause) {
        return a->clause ? 1 : -1;
    }
    if (a->cookie != b->cookie) {
        return a->cookie < b->cookie ? -1 : 1;
    }
    if (a->actions_len != b->actions_len) {
        return a->actions_len < b->actions_len ? -1 : 1;
    }
    return memcmp(a->bytes, b->bytes, a->match_len + a->actions_len);
}

/* Mostly of two, for which qsort() takes longer than all that is done to them else. */
static void
sort_given(struct pflow **given, size_t n)
{
    if (n > 8) {
        qsort(given, n, sizeof *given, compare_given);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        struct pflow *f = given[i];
        size_t j = i;

        for (; j && compare_given(&given[j - 1], &f) > 0; j--) {
            given[j] = given[j - 1];
        }
        given[j] = f;
    }
}

static bool
same_as_before(struct pflow *const *given, size_t i)
{
    return i && pflow_equal(given[i - 1], given[i]);
}

/* One flow with the actions of all.  Of too many it has none: it decides nothing,
 * and what is not decided is dropped.  crowded.h says so. */
static struct pflow *
join_clauses(struct pflow **given, size_t n)
{
    bool one_rule = given[0]->cookie == given[n - 1]->cookie;
    const struct pflow **unique = xmalloc(n * sizeof *unique);
    size_t n_unique = 0;
    struct pflow *f;

    for (size_t i = 0; i < n && n <= FTABLE_CLAUSES_MAX; i++) {
        if (!same_as_before(given, i)) {
            unique[n_unique++] = given[i];
        }
    }
    f = pflow_join(given[0], one_rule ? given[0]->cookie : flow_cookie(FLOW_RULE, 0), unique,
                   n_unique);
    free(unique);
    return f;
}

static size_t
slot_of(const struct ftable *ft, const struct fshare *s)
{
    size_t i = first_slot(ft, slot_hash(s->flow->hash));

    while (share_at(ft, i) != s) {
        i = next_slot(ft, i);
    }
    return i;
}

static void
settle(struct ftable *ft, struct fshare *s)
{
    size_t i = slot_of(ft, s);

    ovs_list_remove(&s->stale_node);
    ovs_list_init(&s->stale_node);
    if (!s->n_given) {
        remove_flow(ft, i);
        return;
    }
    sort_given(s->given, s->n_given);
    set_crowded(ft, s, s->given[0]->clause && s->n_given > FTABLE_CLAUSES_MAX);
    if (s->given[0]->clause && s->n_given > 1) {
        replace_flow(ft, i, join_clauses(s->given, s->n_given));
    } else {
        replace_flow(ft, i, pflow_ref(s->given[0]));
    }
    if (s->n_given == 1) {
        ft->slots[i] = (uintptr_t)s->flow;
        free_share(s);
    }
}

void
ftable_settle(struct ftable *ft)
{
    take_fresh(ft);
    while (!ovs_list_is_empty(&ft->stale)) {
        settle(ft, CONTAINER_OF(ovs_list_front(&ft->stale), struct fshare, stale_node));
    }
    shrink(ft);
}

size_t
ftable_crowded(const struct ftable *ft, uint64_t **cookies)
{
    size_t n_cookies = 0, allocated = 0;

    *cookies = NULL;
    for (size_t i = 0; ft->n_crowded && i < ft->n_slots; i++) {
        const struct fshare *s = ft->hashes[i] ? share_at(ft, i) : NULL;

        for (size_t j = 0; s && s->crowded && j < s->n_given; j++) {
            if (n_cookies == allocated) {
                *cookies = x2nrealloc(*cookies, &allocated, sizeof **cookies);
            }
            (*cookies)[n_cookies++] = s->given[j]->cookie;
        }
    }
    return n_cookies;
}

/* --- changes ------------------------------------------------------------------- */

void
ftable_track(struct ftable *ft, bool on)
{
    if (ft->delta) {
        fdelta_destroy(ft->delta);
        free(ft->delta);
        ft->delta = NULL;
    }
    if (on) {
        ft->delta = xmalloc(sizeof *ft->delta);
        fdelta_init(ft->delta);
    }
}

void
ftable_take(struct ftable *ft, struct fdelta *into)
{
    if (ft->delta) {
        fdelta_merge(into, ft->delta);
    }
}

void
ftable_format(const struct ftable *ft, struct ds *s)
{
    struct svec lines = SVEC_EMPTY_INITIALIZER;
    const struct pflow *f;
    const char *line;
    size_t i;

    FTABLE_FOR_EACH (f, ft) {
        struct ds d = DS_EMPTY_INITIALIZER;

        /* Sorted by table, then from the highest priority down. */
        ds_put_format(&d, "%03u%05u ", f->table, UINT16_MAX - f->priority);
        pflow_format(f, &d);
        svec_add_nocopy(&lines, ds_steal_cstr(&d));
    }
    svec_sort(&lines);
    SVEC_FOR_EACH(i, line, &lines)
    {
        ds_put_format(s, "%s\n", line + strlen("00000000 "));
    }
    svec_destroy(&lines);
}

/* --- differences -------------------------------------------------------------- */

void
fdelta_init(struct fdelta *d)
{
    hmap_init(&d->nodes);
}

void
fdelta_destroy(struct fdelta *d)
{
    fdelta_clear(d);
    hmap_destroy(&d->nodes);
}

static void
drop(struct fdelta *d, struct fchange *c)
{
    hmap_remove(&d->nodes, &c->node);
    pflow_unref(c->before);
    pflow_unref(c->after);
    slab_free(c, sizeof *c);
}

void
fdelta_clear(struct fdelta *d)
{
    struct fchange *c, *next;

    HMAP_FOR_EACH_SAFE (c, next, node, &d->nodes) {
        drop(d, c);
    }
}

void
fdelta_swap(struct fdelta *a, struct fdelta *b)
{
    hmap_swap(&a->nodes, &b->nodes);
}

static struct fchange *
find_change(struct fdelta *d, const struct pflow *key)
{
    struct fchange *c;

    HMAP_FOR_EACH_WITH_HASH (c, node, key->hash, &d->nodes) {
        if (pflow_same_key(c->before ? c->before : c->after, key)) {
            return c;
        }
    }
    return NULL;
}

static bool
same(const struct pflow *a, const struct pflow *b)
{
    return a && b ? pflow_equal(a, b) : a == b;
}

void
fdelta_add(struct fdelta *d, const struct pflow *before, const struct pflow *after)
{
    if (same(before, after)) {
        return;
    }

    const struct pflow *key = before ? before : after;
    struct fchange *c = find_change(d, key);

    if (!c) {
        c = slab_alloc(sizeof *c);
        c->before = pflow_ref(before);
        c->after = pflow_ref(after);
        hmap_insert(&d->nodes, &c->node, key->hash);
        return;
    }
    struct pflow *old = c->after;

    c->after = pflow_ref(after);
    if (same(c->before, c->after)) {
        drop(d, c);
    }
    pflow_unref(old); /* last: 'before' may be it */
}

void
fdelta_merge(struct fdelta *d, struct fdelta *later)
{
    struct fchange *c;

    if (fdelta_is_empty(d)) {
        fdelta_swap(d, later);
        return;
    }
    HMAP_FOR_EACH (c, node, &later->nodes) {
        fdelta_add(d, c->before, c->after);
    }
    fdelta_clear(later);
}

void
fdelta_diff(struct fdelta *d, const struct ftable *have, const struct ftable *want)
{
    const struct pflow *f;

    FTABLE_FOR_EACH (f, have) {
        fdelta_add(d, f, ftable_find(want, f));
    }
    FTABLE_FOR_EACH (f, want) {
        if (!ftable_find(have, f)) {
            fdelta_add(d, NULL, f);
        }
    }
}

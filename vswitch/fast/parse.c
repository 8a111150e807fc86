/* parse: a burst's frames to keys. */
#include "lane.h"

#define AHEAD 8u /* frames to prefetch ahead */

/* 'r': NULL, or p->records. */
static inline __attribute__((always_inline)) unsigned
parse_burst(const struct worker *w, const struct parse *p, struct rte_mbuf **pkts, unsigned n,
            uint8_t *others, bool diverse, bool sized, struct record_lane *r)
{
    const __m256i mask = _mm256_load_si256(&p->masks->narrow.v), port = key_port(p->in_port);
    const struct smc_bucket *near = w->smc.mask ? w->smc.buckets : (void *)w->narrow.buckets;
    const uint32_t near_mask = w->smc.mask ? w->smc.mask : w->narrow.mask;
    struct key *keys = p->narrow->keys;
    struct smc_entry *hot = r ? NULL : p->hot;
    const struct key *like = hot ? &hot->e.key : &keys[0];
    const __m256i like_mask = hot ? _mm256_load_si256(&hot->mask.v) : _mm256_set1_epi8((char)0xff);
    const struct record_view view = r ? *record_view(w->records) : (struct record_view){0};
    const __m256i record_mask = _mm256_load_si256(&record_masks.narrow.v);
    uint16_t *tcp_flags = p->narrow->l.tcp_flags, flags_or = 0, l3_bytes;
    __m256i differ = _mm256_setzero_si256();
    unsigned n_others = 0;
    uint64_t bytes = 0, l3_sum = 0;

    for (unsigned i = 0; i < n && i < AHEAD; i++) {
        __builtin_prefetch(rte_pktmbuf_mtod(pkts[i], void *));
    }
    for (unsigned i = 0; i < n; i++) {
        const struct rte_mbuf *m = pkts[i];
        uint32_t len = m->data_len;

        if (i + AHEAD < n) {
            __builtin_prefetch(rte_pktmbuf_mtod(pkts[i + AHEAD], void *));
        }
        if (likely_(key_parse_sized(rte_pktmbuf_mtod(m, const uint8_t *), len, port, mask, &keys[i],
                                    &tcp_flags[i], &l3_bytes))) {
            if (r) {
                __m256i v = _mm256_and_si256(keys[i].v, record_mask);
                __m128i id = record_id(v, v, false);
                uint32_t hash = record_id_hash(id);
                record_prefetch(&view, hash);
                r->ids[i] = id;
                r->hashes[i] = hash;
                r->bytes_of[i] = l3_bytes;
            }
            if (sized) {
                l3_sum += l3_bytes;
            }
            if (diverse) {
                uint32_t hash = key_hash(&keys[i]);
                __builtin_prefetch(&near[hash & near_mask]);
                p->narrow->l.hashes[i] = hash;
            } else {
                bytes += len;
                flags_or |= tcp_flags[i];
                differ = _mm256_or_si256(
                    differ, _mm256_xor_si256(_mm256_and_si256(keys[i].v, like_mask), like->v));
            }
        } else {
            others[n_others++] = i;
        }
    }
    p->narrow->l.n = n;
    p->narrow->l.pkts = pkts;
    p->narrow->l.same = !diverse && _mm256_testz_si256(differ, differ);
    p->narrow->l.hot = diverse ? NULL : hot;
    p->narrow->l.hashed = diverse;
    p->narrow->l.bytes = bytes;
    if (sized) {
        p->narrow->l.l3_bytes = l3_sum;
    }
    p->narrow->l.tcp_flags_or = flags_or;
    if (r) {
        const struct key_masks *masks =
            atomic_load_explicit(&w->engine->masks, memory_order_acquire);

        p->narrow->l.same = _mm256_testz_si256(differ, masks->narrow.v);
        r->same = _mm256_testz_si256(differ, record_mask);
        r->hashed = !n_others;
    }
    return n_others;
}

unsigned
parse_common(const struct worker *w, const struct parse *p, struct rte_mbuf **pkts, unsigned n,
             uint8_t *others, bool diverse)
{
    if (p->records) {
        return parse_burst(w, p, pkts, n, others, false, false, p->records);
    }
    if (p->sized) {
        return parse_burst(w, p, pkts, n, others, false, true, NULL);
    }
    return diverse ? parse_burst(w, p, pkts, n, others, true, false, NULL)
                   : parse_burst(w, p, pkts, n, others, false, false, NULL);
}

static void
parse_other(const struct parse *p, struct rte_mbuf *m, unsigned *to)
{
    struct narrow_lane *narrow = p->narrow;
    struct wide_lane *wide = p->wide;
    struct key_wide *k = &wide->keys[wide->l.n];
    const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
    uint16_t tcp_flags;

    if (m->data_len < 14) {
        pile_add(p->brief, m);
        return;
    }
    if (likely_(key_parse_common6(frame, m->data_len, p->in_port, &p->masks->wide, k,
                                  &wide->l.tcp_flags[wide->l.n]))) {
        wide->pkts[wide->l.n++] = m;
        return;
    }
    switch (key_parse(frame, m->data_len, p->in_port, p->masks, k, &tcp_flags)) {
    case SHAPE_L2:
    case SHAPE_IPV4:
        narrow->keys[*to] = k->key;
        narrow->l.tcp_flags[*to] = tcp_flags;
        narrow->l.pkts[(*to)++] = m;
        break;
    case SHAPE_IPV6:
        wide->pkts[wide->l.n] = m;
        wide->l.tcp_flags[wide->l.n++] = tcp_flags;
        break;
    case SHAPE_ODD:
        pile_add(p->odd, m);
        break;
    }
}

static void
sum_up(struct lane *l)
{
    l->bytes = l->tcp_flags_or = 0;
    for (unsigned i = 0; i < l->n; i++) {
        l->bytes += l->pkts[i]->data_len;
        l->tcp_flags_or |= l->tcp_flags[i];
    }
}

void
parse_others(const struct parse *p, struct rte_mbuf **pkts, unsigned n, const uint8_t *others,
             unsigned n_others, struct rte_mbuf **kept)
{
    struct narrow_lane *narrow = p->narrow;
    struct wide_lane *wide = p->wide;
    struct key_wide differ = {0};
    unsigned to = 0, at = 0;

    narrow->l.pkts = kept;
    for (unsigned i = 0; i < n; i++) {
        if (at < n_others && others[at] == i) {
            at++;
            parse_other(p, pkts[i], &to);
        } else {
            narrow->keys[to] = narrow->keys[i];
            narrow->l.tcp_flags[to] = narrow->l.tcp_flags[i];
            kept[to++] = pkts[i];
        }
    }
    narrow->l.n = to;
    narrow->l.same = narrow->l.hashed = false;
    wide->l.hashed = false;
    wide->l.pkts = wide->pkts;
    for (unsigned i = 0; i < wide->l.n; i++) {
        const struct key_wide *k = &wide->keys[i];
        differ.key.v |= k->key.v ^ wide->keys[0].key.v;
        differ.ip6.v |= k->ip6.v ^ wide->keys[0].ip6.v;
    }
    differ.key.v |= differ.ip6.v;
    wide->l.same = _mm256_testz_si256(differ.key.v, differ.key.v);
    sum_up(&wide->l);
}

/* Packets that no cache knows: classifier, then the flow's program, or an
 * upcall.
 *
 * Batches of up to NETDEV_MAX_BURST.  Consecutive packets of one flow are
 * treated together, so that the general path's batches stay as long as the
 * traffic allows.  All packets of a batch are looked up before any is treated:
 * what one does to the tables (it recirculates, say) does not matter to the
 * lookups of the others, and what a flow found is stays valid while the worker
 * is online.
 *
 * The cache learns from a packet before anything changes it, and only from
 * packets that came straight from a port.  When keys do not come again, or more
 * than it can hold, each entry that it learns makes one leave that was never used,
 * which costs more than the classifier does: then it learns from few packets,
 * until it is of use again. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "dp.h"
#include "dp_record.h"
#include "flow.h"
#include "packets.h"
#include "shadow.h"
#include "util.h"

#define BATCH_MAX NETDEV_MAX_BURST
BUILD_ASSERT_DECL(BATCH_MAX <= 32);

/* One after another in a batch, of one flow (NULL: none) and one port. */
struct run {
    struct dp_flow *flow;
    odp_port_t in_port; /* ODPP_NONE: a packet that ofproto made */
    unsigned n;
    uint64_t bytes;
    uint16_t tcp_flags;
};

/* --- keys ----------------------------------------------------------------------- */

/* Packets' flows, expanded for the classifier.  A struct flow has 672 bytes of
 * which a packet sets some 100: so they are kept, all zero between batches,
 * and only what was set is cleared.  One per worker and level of
 * recirculation; deeper levels, which are rare, take theirs from the stack. */
struct keys {
    struct flow flows[BATCH_MAX];
    struct flowmap maps[BATCH_MAX]; /* which words of them are set */
};

#define KEPT_LEVELS 2u

/* How much the cache learns; decided anew every TEACH_LOOK packets that it did
 * not know. */
#define TEACH_LOOK 4096u
#define TEACH_SKIP 31u /* between two packets that it learns from when it was good for little */

struct teaching {
    unsigned packets;                /* since the last look */
    unsigned skip;                   /* now; 0: it learns from all */
    unsigned left;                   /* to skip */
    uint64_t hits, learned, evicted; /* at the last look */
};

struct scratch {
    struct teaching teaching;
    struct keys keys[KEPT_LEVELS];
    unsigned level; /* in use */
};

static struct scratch *
scratch_get(struct dp_worker *w)
{
    if (OVS_UNLIKELY(!w->miss_scratch)) {
        size_t size = ROUND_UP(sizeof(struct scratch), CACHE_LINE_SIZE);

        w->miss_scratch = aligned_alloc(CACHE_LINE_SIZE, size);
        if (!w->miss_scratch) {
            out_of_memory();
        }
        memset(w->miss_scratch, 0, size);
    }
    return w->miss_scratch;
}

BUILD_ASSERT_DECL(FLOWMAP_UNITS == 2 && MAP_T_BITS == 64);

static const uint64_t *
spread(uint64_t *words, uint64_t map, const uint64_t *values)
{
    for (; map; map &= map - 1) {
        words[raw_ctz(map)] = *values++;
    }
    return values;
}

static void
clear(uint64_t *words, uint64_t map)
{
    for (; map; map &= map - 1) {
        words[raw_ctz(map)] = 0;
    }
}

static void
key_extract(struct dp_packet *packet, struct flow *flow, struct flowmap *map)
{
    struct {
        struct miniflow mf;
        uint64_t values[FLOW_U64S];
    } m;
    uint64_t *words = (uint64_t *)flow;
    const uint64_t *values = m.values;

    miniflow_extract(packet, &m.mf);
    /* One by one: read together so soon, they would have to wait until both
     * have left the store buffer. */
    map->bits[0] = m.mf.map.bits[0];
    values = spread(words, map->bits[0], values);
    map->bits[1] = m.mf.map.bits[1];
    spread(words + MAP_T_BITS, map->bits[1], values);
}

static void
key_clear(struct flow *flow, const struct flowmap *map)
{
    uint64_t *words = (uint64_t *)flow;

    clear(words, map->bits[0]);
    clear(words + MAP_T_BITS, map->bits[1]);
}

/* --- learning --------------------------------------------------------------------- */

/* Keys do not come again; or entries leave as others come, and fewer packets find
 * theirs than do not. */
static void
look_at_cache(struct dp_worker *w, struct teaching *t)
{
    struct worker_stats s;
    bool churns, helps;

    worker_stats(w->worker, &s);
    churns = s.evicted - t->evicted > (s.learned - t->learned) / 2;
    helps = s.cache_hits - t->hits > t->packets;
    t->skip = worker_learns_in_vain(w->worker) || (churns && !helps) ? TEACH_SKIP : 0;
    t->packets = 0;
    t->hits = s.cache_hits;
    t->learned = s.learned;
    t->evicted = s.evicted;
}

/* 'packets' are of flow 'f'. */
static void
teach(struct dp_worker *w, struct fast_flow *f, uint16_t in_port, struct dp_packet *packets[],
      unsigned n)
{
    struct teaching *t = &scratch_get(w)->teaching;

    t->packets += n;
    if (t->packets >= TEACH_LOOK) {
        look_at_cache(w, t);
    }
    for (unsigned i = 0; i < n; i++) {
        if (t->left) {
            t->left--;
            continue;
        }
        worker_learn(w->worker, in_port, &packets[i]->mbuf, f);
        t->left = t->skip;
    }
}

/* --- flows ------------------------------------------------------------------------ */

static void
batch_of(struct dp_packet_batch *batch, struct dp_packet *const packets[], unsigned n)
{
    dp_packet_batch_init(batch);
    memcpy(batch->packets, packets, n * sizeof packets[0]);
    batch->count = n;
}

static void
run_general(struct dp_worker *w, const struct run *run, const struct dp_actions *da,
            struct dp_packet *const packets[], bool first)
{
    struct dp_packet_batch batch;

    dp_worker_rcu(w);
    batch_of(&batch, packets, run->n);
    if (first && da->program->kind == PROGRAM_TRACK) {
        dp_ct_run(w, odp_to_u32(run->in_port), da, &batch);
    } else {
        dp_execute(w, &batch, true, da->actions, da->len);
    }
}

/* Whether the engine may edit the packets: it takes them for Ethernet frames. */
static bool
all_ethernet(struct dp_packet *const packets[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (packets[i]->packet_type != htonl(PT_ETH)) {
            return false;
        }
    }
    return true;
}

/* Packets straight from a port are counted; later ones are known, but what
 * came out of a tunnel is new. */
static void
record(struct dp_worker *w, const struct run *run, struct dp_packet *const packets[], bool first)
{
    uint16_t in_port = odp_to_u32(run->in_port);

    if (first || (!packets[0]->md.recirc_id && flow_tnl_dst_is_set(&packets[0]->md.tunnel))) {
        dp_record_packets(w, in_port, run->flow, packets, run->n);
        dp_record_remember(w, in_port, packets, run->n);
    } else {
        dp_record_outcome(w, in_port, run->flow, packets, run->n);
    }
}

static void
run_flow(struct dp_worker *w, const struct run *run, struct dp_packet *packets[], bool first)
{
    struct fast_flow *f = &run->flow->fast;
    const struct program *p;

    if (first) {
        teach(w, f, odp_to_u32(run->in_port), packets, run->n);
    }
    if (worker_records(w->worker, odp_to_u32(run->in_port))) {
        record(w, run, packets, first);
    }
    worker_count_n(w->worker, f, run->n, run->bytes, run->tcp_flags);

    p = atomic_load_explicit(&f->program, memory_order_acquire);
    if (p->kind == PROGRAM_SLOW || p->kind == PROGRAM_TRACK ||
        (p->kind == PROGRAM_EDIT && !all_ethernet(packets, run->n))) {
        run_general(w, run, p->slow, packets, first);
    } else {
        worker_act(w->worker, odp_to_u32(run->in_port), f, (struct rte_mbuf **)packets, run->n);
    }
}

static void
miss(struct dp_worker *w, struct dp_packet *packets[], const struct flow *flows[], unsigned n,
     bool first)
{
    uint16_t in_port = odp_to_u32(flows[0]->in_port.odp_port);
    bool records = worker_records(w->worker, in_port);
    uint64_t orig;

    if (records && (first || (!flows[0]->recirc_id && flow_tnl_dst_is_set(&flows[0]->tunnel)))) {
        dp_record_packets(w, in_port, NULL, packets, n);
        dp_record_remember(w, in_port, packets, n);
    }

    if (OVS_UNLIKELY(shadow_active(w->dp))) {
        n = shadow_input(w, packets, flows, n);
    }
    dp_worker_rcu(w);
    atomic_add_relaxed(&w->dp->n_missed, n, &orig);
    for (unsigned i = 0; i < n; i++) {
        if (records && flows[i]->recirc_id) {
            dp_record_again(w, packets[i]);
        }
        if (!dp_upcall(w, packets[i], flows[i], DPIF_UC_MISS, NULL, NULL, NULL) && records) {
            dp_record_lost(w, in_port, packets[i]);
        }
    }
    dp_packets_free((struct rte_mbuf **)packets, n);
}

static uint16_t
tcp_flags_of(const struct flow *flow)
{
    /* The field has another meaning in ND. */
    return flow->nw_proto == IPPROTO_TCP ? ntohs(flow->tcp_flags) : 0;
}

/* --- batches --------------------------------------------------------------------- */

/* 'keys' is all zero, and is so again afterwards. */
static void
process(struct dp_worker *w, struct dp_packet *packets[], unsigned n, bool first, struct keys *keys)
{
    const struct flow *flows[BATCH_MAX] = {NULL};
    struct dp_flow *found[BATCH_MAX];
    unsigned n_hit = 0;
    uint64_t orig;

    for (unsigned i = 0; i < n; i++) {
        if (i + 1 < n) {
            OVS_PREFETCH(dp_packet_data(packets[i + 1]));
        }
        flows[i] = &keys->flows[i];
        key_extract(packets[i], &keys->flows[i], &keys->maps[i]);
    }
    dp_flow_classify_batch(w->dp, flows, n, found);

    for (unsigned i = 0, end; i < n; i = end) {
        struct run run = {.flow = found[i], .in_port = flows[i]->in_port.odp_port};

        for (end = i;
             end < n && found[end] == run.flow && flows[end]->in_port.odp_port == run.in_port;
             end++) {
            run.bytes += dp_packet_size(packets[end]);
            run.tcp_flags |= tcp_flags_of(flows[end]);
        }
        run.n = end - i;
        if (run.flow) {
            n_hit += run.n;
            run_flow(w, &run, packets + i, first);
        } else {
            miss(w, packets + i, flows + i, run.n, first);
        }
    }
    if (n_hit) {
        atomic_add_relaxed(&w->dp->n_hit, n_hit, &orig);
    }
    for (unsigned i = 0; i < n; i++) {
        key_clear(&keys->flows[i], &keys->maps[i]);
    }
}

static __attribute__((noinline)) void
process_deep(struct dp_worker *w, struct dp_packet *packets[], unsigned n, bool first)
{
    struct keys keys;

    memset(&keys, 0, sizeof keys);
    process(w, packets, n, first, &keys);
}

static void
process_level(struct dp_worker *w, struct dp_packet *packets[], unsigned n, bool first)
{
    struct scratch *scratch = scratch_get(w);

    if (scratch->level < KEPT_LEVELS) {
        process(w, packets, n, first, &scratch->keys[scratch->level++]);
        scratch->level--;
    } else {
        process_deep(w, packets, n, first);
    }
}

void
dp_input(struct dp_worker *w, struct dp_packet_batch *batch, bool first)
{
    process_level(w, batch->packets, dp_packet_batch_size(batch), first);
}

void
dp_miss(struct worker *worker, uint16_t in_port, struct rte_mbuf **mbufs, unsigned n)
{
    struct dp_worker *w = dp_worker_of(worker);

    for (unsigned i = 0; i < n; i += BATCH_MAX) {
        struct dp_packet **packets = (struct dp_packet **)mbufs + i;
        unsigned m = MIN(n - i, BATCH_MAX);

        for (unsigned j = 0; j < m; j++) {
            pkt_metadata_prefetch_init(&packets[j]->md);
        }
        for (unsigned j = 0; j < m; j++) {
            dp_packet_adopt(packets[j], u32_to_odp(in_port));
        }
        process_level(w, packets, m, true);
    }
}

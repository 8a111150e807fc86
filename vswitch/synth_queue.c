#include <config.h>

#include "synth_queue.h"

#include <immintrin.h>

#include <rte_cycles.h>
#include <rte_mbuf.h>

#include "netback.h"
#include "unaligned.h"
#include "util.h"

/* A stamp's upper 16 bits, above 48 of the time stamp counter. */
#define STAMP_MARK (UINT64_C(0x5eed) << 48)
#define STAMP_MASK (UINT64_MAX >> 16)

bool
synth_queue_init(struct synth_queue *q, const struct synth_flows *flows, unsigned i, unsigned n,
                 unsigned n_desc, bool stamp)
{
    memset(q, 0, sizeof *q);
    q->flows = flows;
    q->stamp = stamp;
    q->share = n;
    q->pace.rate = q->attack.rate = SYNTH_STOPPED;
    synth_source_init(&q->source, flows, i, n);
    q->buffers = flows->n ? synth_buffers_create(n_desc, flows->frame, flows->size) : NULL;
    return q->buffers || !flows->n;
}

void
synth_queue_uninit(struct synth_queue *q)
{
    synth_buffers_retire(q->buffers);
    q->buffers = NULL;
}

/* How many packets have arrived and were not taken yet. */
static uint64_t
arrived(struct synth_pace *p, uint64_t rate, unsigned share, uint64_t now)
{
    uint64_t due;

    if (rate != p->rate) {
        p->rate = rate;
        p->start = now;
        p->done = 0;
        p->per_cycle = rate / (double)share / rte_get_tsc_hz();
    }
    due = (now - p->start) * p->per_cycle;
    return due > p->done ? due - p->done : 0;
}

static void
put_stamp(const struct synth_queue *q, struct dp_packet *b, uint64_t nth, uint64_t now)
{
    uint64_t arrival =
        q->pace.rate == SYNTH_UNLIMITED ? now : q->pace.start + (uint64_t)(nth / q->pace.per_cycle);

    put_unaligned_u64((uint64_t *)dp_packet_tail(b) - 1, STAMP_MARK | (arrival & STAMP_MASK));
}

bool
synth_queue_age(const struct dp_packet *b, uint64_t now, uint64_t *cycles)
{
    uint64_t stamp;

    if (dp_packet_size(b) < SYNTH_SIZE_MIN - VLAN_HEADER_LEN) {
        return false;
    }
    stamp = get_unaligned_u64((const uint64_t *)dp_packet_tail(b) - 1);
    *cycles = (now - stamp) & STAMP_MASK;
    return (stamp & ~STAMP_MASK) == STAMP_MARK;
}

/* Makes a buffer a packet that has just come, as a NIC and its driver would:
 * one store of 8 bytes to arm it, one of 16 for what the descriptor says. */
static inline void
receive(const struct synth_flows *f, struct dp_packet *b, struct synth_tuple t, uint32_t hash)
{
    const uint64_t armed = NETBACK_HEADROOM | UINT64_C(1) << 16 | UINT64_C(1) << 32 |
                           (uint64_t)RTE_MBUF_PORT_INVALID << 48;
    struct rte_mbuf *m = &b->mbuf;

    BUILD_ASSERT_DECL(offsetof(struct rte_mbuf, refcnt) == offsetof(struct rte_mbuf, data_off) + 2);
    BUILD_ASSERT_DECL(offsetof(struct rte_mbuf, nb_segs) ==
                      offsetof(struct rte_mbuf, data_off) + 4);
    BUILD_ASSERT_DECL(offsetof(struct rte_mbuf, port) == offsetof(struct rte_mbuf, data_off) + 6);
    BUILD_ASSERT_DECL(offsetof(struct rte_mbuf, hash) ==
                      offsetof(struct rte_mbuf, packet_type) + 12);
    *(uint64_t *)((char *)m + offsetof(struct rte_mbuf, data_off)) = armed;
    m->ol_flags =
        RTE_MBUF_F_RX_RSS_HASH | RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    /* From the top: hash.rss, data_len (and no vlan_tci), pkt_len, packet_type. */
    _mm_storeu_si128((__m128i *)m->rx_descriptor_fields1, _mm_set_epi32(hash, f->size, f->size, 0));
    synth_write(f, t, (uint8_t *)m->buf_addr + NETBACK_HEADROOM);
}

unsigned
synth_queue_burst(struct synth_queue *q, uint64_t rate, struct dp_packet **out, unsigned max)
{
    const struct synth_flows *f = q->flows;
    uint64_t now = 0, waiting = max;
    struct synth_source source;
    unsigned n;

    if (rate != SYNTH_UNLIMITED || q->stamp || f->attack_rate) {
        now = rte_rdtsc();
        waiting = rate != SYNTH_UNLIMITED ? arrived(&q->pace, rate, q->share, now) : max;
        if (waiting > q->buffers->n) {
            synth_bump(&q->missed, waiting - q->buffers->n);
            q->pace.done += waiting - q->buffers->n;
        }
    }
    q->pace.rate = rate;
    n = synth_buffers_take(q->buffers, out, MIN(waiting, max));
    source = q->source;
    for (unsigned i = 0; i < n; i++) {
        uint32_t flow = synth_next(&source, f);

        receive(f, out[i], synth_tuple(f, flow), synth_hash(f, flow));
    }
    q->source = source;
    if (OVS_UNLIKELY(f->attack_rate) && n && arrived(&q->attack, f->attack_rate, q->share, now)) {
        uint32_t nth = q->attack.done++;

        receive(f, out[n - 1], synth_attack_tuple(f, source.random, nth), source.random >> 32);
    }
    for (unsigned i = 0; OVS_UNLIKELY(q->stamp) && i < n; i++) {
        put_stamp(q, out[i], q->pace.done + i + 1, now);
    }
    q->pace.done += n;
    synth_bump(&q->packets, n);
    return n;
}

uint64_t
synth_queue_packets(const struct synth_queue *q)
{
    return synth_peek(&q->packets);
}

uint64_t
synth_queue_missed(const struct synth_queue *q)
{
    return synth_peek(&q->missed);
}

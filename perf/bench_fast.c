/* bench_fast: what the fast path costs by itself.
 *
 *   frames written in memory > worker_run() > ports that only count
 *
 * Bursts of 128 frames of 64 bytes, flows in random order, each frame in a
 * buffer of its own; buffers are an odd number of cache lines apart, as those
 * of a mempool should be.  "cold": a frame is written 1,024 packets before it
 * is received, as a NIC does.  Ports' own cost is measured alone and shown.
 *
 * usage: bench_fast [ROUNDS [PACKETS_PER_ROUND [ROW]]]     ROW: from 0
 *
 * Many short rounds find the least between two interruptions of a busy machine.
 *
 * Prints a line a row: TSC cycles a packet, the least and the median of the
 * rounds, ports included and without, with all flows recorded (fast/record.h),
 * and misses in the measured rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <rte_cycles.h>
#include <rte_mbuf.h>

#include "fast/engine.h"
#include "fast_frames.h"

#define N_BUFFERS 4096u
#define STRIDE 2112u
#define FRAME_OFS 256u
#define FRAME_LEN 64u
#define N_PORTS 4u
#define SEQ (1u << 20)
#define MAX_ROUNDS 2001u

struct row {
    const char *name;
    unsigned keys, flows; /* keys: different frames; flows: megaflows they belong to */
    bool l4;              /* masks look at addresses and ports */
    bool ip6, push, acl;
    unsigned burst;
};

static const struct row rows[] = {
    {"1 wildcard flow", 1, 1},
    {"L4 match, 1 key", 1, 1, .l4 = true},
    {"L4 match, 1 key, bursts of 32", 1, 1, .l4 = true, .burst = 32},
    {"L4 match, 1,000 keys", 1000, 1, .l4 = true},
    {"L4 match, 10 k keys", 10000, 1, .l4 = true},
    {"L4 match, 100 k keys", 100000, 1, .l4 = true},
    {"L4 match, 100 k keys, bursts of 32", 100000, 1, .l4 = true, .burst = 32},
    {"L4 match, 1 M keys", 1000000, 1, .l4 = true},
    {"100 k keys, a megaflow each", 100000, 100000, .l4 = true},
    {"ACL, 100 k keys, 1,000 programs", 100000, 1000, .l4 = true, .acl = true},
    {"VLAN push, 1 key", 1, 1, .l4 = true, .push = true},
    {"VLAN push, 100 k keys", 100000, 1, .l4 = true, .push = true},
    {"IPv6, 1 key", 1, 1, .l4 = true, .ip6 = true},
    {"IPv6, 100 k keys", 100000, 1, .l4 = true, .ip6 = true},
    {"1 wildcard flow, 10 k keys", 10000, 1},
    {"1 wildcard flow, 1 M keys", 1000000, 1},
    {"1 wildcard flow, IPv6, 10 k keys", 10000, 1, .ip6 = true},
};

static struct engine *engine;
static struct worker *worker;
static struct fast_flow *flows;
static unsigned n_flows;
static uint64_t n_missed;

/* --- ports ------------------------------------------------------------------ */

static char *buffers;
static struct rte_mbuf *ring[N_BUFFERS];
static uint32_t *sequence; /* keys, in the order they come */
static unsigned ring_at, sequence_at, ahead;
static bool ip6;
static struct fast_port ports[N_PORTS];
static uint64_t sent, sent_bytes;
static struct rte_mbuf *tx_ring[1024];
static unsigned tx_at;

static void
write_key(uint8_t *frame, uint32_t key)
{
    uint32_t src = 0x0a + (key * 2654435761u & 0xffffff00);
    uint16_t sport = key * 40503u + 1 + (key >> 16);

    memcpy(frame + (ip6 ? 34 : 26), &src, 4);
    memcpy(frame + (ip6 ? 54 : 34), &sport, 2);
}

static inline uint8_t *
frame_of(struct rte_mbuf *m)
{
    return (uint8_t *)m + FRAME_OFS;
}

static inline void
receive(struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = ring[(ring_at + i) % N_BUFFERS];
        write_key(frame_of(ring[(ring_at + i + ahead) % N_BUFFERS]), sequence[sequence_at + i]);
        m->data_off = FRAME_OFS - sizeof *m;
        m->data_len = m->pkt_len = ip6 ? FRAME_LEN + 14 : FRAME_LEN;
        m->ol_flags = 0;
        pkts[i] = m;
    }
    ring_at = (ring_at + n) % N_BUFFERS;
    sequence_at = (sequence_at + n) % SEQ;
}

static void
count_sent(struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        sent_bytes += pkts[i]->data_len;
        tx_ring[(tx_at + i) % RTE_DIM(tx_ring)] = pkts[i];
    }
    tx_at += n;
    sent += n;
}

static void
port_send(struct fast_port *p, struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    (void)p, (void)w;
    count_sent(pkts, n);
}

static void
make_buffers(void)
{
    static const struct frame_udp like = {.src = 1, .dst = 0xc0a80101, .sport = 1, .dport = 53};
    struct frame_udp f = like;
    uint64_t seed = 3;
    uint8_t d[FRAME_MAX];

    if (!buffers) {
        buffers = mmap(NULL, N_BUFFERS * STRIDE + (2 << 20), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(buffers, N_BUFFERS * STRIDE + (2 << 20), MADV_HUGEPAGE);
    }
    f.ip6 = ip6;
    frame_build_udp(d, &f);
    for (unsigned i = 0; i < N_BUFFERS; i++) {
        struct rte_mbuf *m = (struct rte_mbuf *)(buffers + (size_t)i * STRIDE);
        memset(m, 0, sizeof *m);
        m->buf_addr = m + 1;
        m->buf_len = STRIDE - sizeof *m;
        m->nb_segs = 1;
        memcpy(frame_of(m), d, 128);
        ring[i] = m;
    }
    for (unsigned i = N_BUFFERS - 1; i > 0; i--) {
        unsigned j = frame_random(&seed) % (i + 1);
        struct rte_mbuf *m = ring[i];
        ring[i] = ring[j], ring[j] = m;
    }
    ring_at = 0;
}

/* --- the adapter --------------------------------------------------------------- */

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t src;
        memcpy(&src, rte_pktmbuf_mtod(pkts[i], uint8_t *) + (ip6 ? 34 : 26), 4);
        struct fast_flow *f = &flows[(uint64_t)(src * 0x9e3779b1u) * n_flows >> 32];
        worker_learn(w, in_port, pkts[i], f);
        worker_count(w, f, pkts[i]);
        if (worker_records(w, in_port)) {
            worker_record(w, in_port, pkts[i], NULL);
        }
        worker_act(w, in_port, f, &pkts[i], 1);
    }
    n_missed += n;
}

static void
forget(const struct record_block *b, void *aux)
{
    (void)b, (void)aux;
}

/* 'on': with room for all; off: all are told, and forgotten. */
static void
record(bool on)
{
    static const struct record_settings settings = {15000, 60000, 1u << 21, 1};

    engine_record_port(engine, 1, on);
    engine_record(engine, on ? &settings : NULL);
    worker_run(worker, 1, NULL, 0, 0);
    for (unsigned i = 0; i < 8 && !on; i++) {
        engine_record_collect(engine, 0, forget, NULL);
    }
}

static void
never(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
      unsigned n)
{
    (void)w, (void)in_port, (void)p, (void)pkts, (void)n;
    abort();
}

static const struct engine_ops ops = {.miss = miss, .slow = never, .free = count_sent};

static struct program *
make_program(const struct row *r, unsigned i)
{
    struct program *p = calloc(1, sizeof *p + sizeof p->edits[0]);

    p->kind = r->push ? PROGRAM_EDIT : r->acl && i % 4 == 3 ? PROGRAM_DROP : PROGRAM_OUTPUT;
    p->port = i % N_PORTS;
    p->n_edits = r->push;
    p->edits[0] = (struct edit){.type = EDIT_PUSH_VLAN, .vlan = {RTE_BE16(0x8100), RTE_BE16(100)}};
    return p;
}

static void
set_up(const struct row *r)
{
    struct key_mask mask = {0};
    uint64_t seed = 9;

    engine = engine_create(&ops, NULL);
    for (unsigned i = 0; i < N_PORTS; i++) {
        ports[i].send = port_send;
        engine_port_set(engine, i, &ports[i]);
    }
    if (r->l4) {
        memset(&mask, 0xff, sizeof mask);
        memset(&mask.eth_dst, 0, 12);
        mask.nw_tos = 0;
    }
    engine_set_mask(engine, &mask);
    n_flows = r->flows;
    flows = calloc(n_flows, sizeof *flows);
    for (unsigned i = 0; i < n_flows; i++) {
        flows[i].covers = 7;
        engine_flow_add(engine, &flows[i], make_program(r, i));
    }
    worker = worker_create(engine, 2000000, NULL);
    for (unsigned i = 0; i < SEQ + ENGINE_BURST; i++) {
        sequence[i] = i < r->keys ? i : frame_random(&seed) % r->keys;
    }
    sequence_at = 0;
    ip6 = r->ip6;
    make_buffers();
}

/* Another order than the one that caches and records have seen. */
static void
shuffle(void)
{
    static uint64_t seed = 17;

    for (unsigned i = SEQ - 1; i > 0; i--) {
        unsigned j = frame_random(&seed) % (i + 1);
        uint32_t key = sequence[i];

        sequence[i] = sequence[j], sequence[j] = key;
    }
}

static void
tear_down(void)
{
    worker_destroy(worker);
    for (unsigned i = 0; i < n_flows; i++) {
        free(atomic_load(&flows[i].program));
    }
    free(flows);
    engine_destroy(engine);
    epoch_reclaim();
}

/* --- measuring ------------------------------------------------------------------- */

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void
turn(bool whole, unsigned burst, int64_t now)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    receive(pkts, burst);
    if (whole) {
        worker_run(worker, 1, pkts, burst, now);
    } else {
        count_sent(pkts, burst);
    }
}

struct result {
    double least, median;
};

static struct result
measure(bool whole, unsigned burst, unsigned rounds, unsigned packets)
{
    static double cycles[MAX_ROUNDS];
    int64_t now = 1;

    for (unsigned r = 0; r < rounds; r++) {
        uint64_t start = rte_rdtsc_precise();
        for (unsigned i = 0; i < packets; i += burst) {
            turn(whole, burst, now += i % 4096 == 0);
        }
        cycles[r] = (double)(rte_rdtsc_precise() - start) / packets;
    }
    qsort(cycles, rounds, sizeof *cycles, by_value);
    return (struct result){cycles[0], cycles[rounds / 2]};
}

int
main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? atoi(argv[1]) : 501, packets = argc > 2 ? atoi(argv[2]) : 16384;

    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    packets = RTE_ALIGN_CEIL(packets, ENGINE_BURST);
    sequence = malloc((SEQ + ENGINE_BURST) * sizeof *sequence);
    printf("%-36s %5s %6s %13s %13s %13s %8s\n", "cycles a packet: least (median)", "", "ports",
           "whole", "net of ports", "recorded, net", "misses");
    for (unsigned i = 0; i < RTE_DIM(rows); i++) {
        if (argc > 3 && i != (unsigned)atoi(argv[3])) {
            continue;
        }
        const struct row *r = &rows[i];
        unsigned burst = r->burst ? r->burst : ENGINE_BURST;

        set_up(r);
        worker_begin(worker);
        for (unsigned cold = 0; cold < 2; cold++) {
            struct result io, whole, recorded;
            ahead = cold ? 1024 : 0;
            for (unsigned warm = 0; warm < 2 * SEQ; warm += burst) {
                turn(true, burst, 0);
            }
            shuffle();
            n_missed = 0;
            io = measure(false, burst, rounds, packets);
            whole = measure(true, burst, rounds, packets);
            record(true);
            for (unsigned warm = 0; warm < 2 * SEQ; warm += burst) {
                turn(true, burst, 0);
            }
            shuffle();
            recorded = measure(true, burst, rounds, packets);
            record(false);
            printf("%-36s %5s %6.1f %5.1f (%5.1f) %5.1f (%5.1f) %5.1f (%5.1f) %8.5f\n", r->name,
                   cold ? "cold" : "hot", io.least, whole.least, whole.median,
                   whole.least - io.least, whole.median - io.median, recorded.least - io.least,
                   recorded.median - io.median, (double)n_missed / rounds / packets);
            fflush(stdout);
        }
        worker_end(worker);
        tear_down();
    }
    free(sequence);
    return 0;
}

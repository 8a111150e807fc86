/* Records of flows: every packet is counted once, in the record of its
 * 5-tuple, whatever way it takes through the engine, however small the table,
 * and whoever collects. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "fast/record.h"
#include "fast_rig.h"

#define KEYS_MAX 262144u

/* --- what should be, and what was told -------------------------------------------- */

struct sum {
    struct key_wide key;
    uint64_t packets, bytes, told_packets, told_bytes;
    uint16_t tcp_flags, told_flags;
};

static struct sum sums[KEYS_MAX];
static unsigned n_sums;
static uint64_t told_records, ended[8], told_packets;
static bool bad_times;

static struct sum *
sum_of(const struct key_wide *k)
{
    unsigned i = key_hash_wide(k) % KEYS_MAX;

    for (;; i = (i + 1) % KEYS_MAX) {
        if (!sums[i].packets && !sums[i].told_packets) {
            sums[i].key = *k;
            n_sums++;
            return &sums[i];
        }
        if (!memcmp(&sums[i].key, k, sizeof *k)) {
            return &sums[i];
        }
    }
}

static void
expect(const uint8_t *frame, unsigned len, uint16_t in_port)
{
    struct key_wide k;
    uint16_t flags;
    uint8_t tos;
    uint32_t bytes;
    struct sum *s;

    if (len < 14) {
        return;
    }
    bytes = record_parse(frame, len, in_port, 0, false, &k, &flags, &tos);
    s = sum_of(&k);
    s->packets++;
    s->bytes += bytes;
    s->tcp_flags |= flags;
}

static void
take(const struct record_block *b, void *aux)
{
    (void)aux;
    for (unsigned i = 0; i < b->n; i++) {
        const struct record *r = &b->records[i];
        struct key_wide k = {.key = r->key};
        struct sum *s;

        if (record_is_wide(&r->key)) {
            k.ip6 = r->ip6;
        }
        s = sum_of(&k);
        s->told_packets += r->packets;
        s->told_bytes += r->bytes;
        s->told_flags |= r->tcp_flags;
        told_packets += r->packets;
        told_records++;
        ended[r->end & 7]++;
        bad_times |= (uint32_t)b->now - r->last > 1u << 30 || r->last - r->first > 1u << 30;
    }
}

static bool
all_equal(void)
{
    for (unsigned i = 0; i < KEYS_MAX; i++) {
        const struct sum *s = &sums[i];
        if (s->packets != s->told_packets || s->bytes != s->told_bytes ||
            s->tcp_flags != s->told_flags) {
            return false;
        }
    }
    return true;
}

static void
forget(void)
{
    memset(sums, 0, sizeof sums);
    memset(ended, 0, sizeof ended);
    told_records = told_packets = n_sums = 0;
    bad_times = false;
}

/* --- an engine that records ----------------------------------------------------------- */

#define N_FLOWS 3u
static struct engine *engine;
static struct fast_rig_port ports[2];
static struct fast_flow flows[N_FLOWS];
static struct program *programs[N_FLOWS];
static bool learns;

/* Which flow: by the destination address' last byte, which masks look at. */
static struct fast_flow *
flow_of(const struct rte_mbuf *m)
{
    return &flows[m->data_len > 33 ? rte_pktmbuf_mtod(m, const uint8_t *)[33] % N_FLOWS : 0];
}

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct fast_flow *f = flow_of(pkts[i]);

        if (learns) {
            worker_learn(w, in_port, pkts[i], f);
        }
        worker_count(w, f, pkts[i]);
        if (worker_records(w, in_port)) {
            worker_record(w, in_port, pkts[i], NULL);
        }
        worker_act(w, in_port, f, &pkts[i], 1);
    }
}

static const struct engine_ops ops = {.miss = miss, .free = fast_rig_mbuf_free};

static void
start(bool whole_masks)
{
    struct key_mask mask = {0};

    engine = engine_create(&ops, NULL);
    memset(&mask, whole_masks ? 0xff : 0, sizeof mask);
    mask.ip4_dst = 0xffffffff;
    memset(mask.ip6_dst, 0xff, 16);
    memset(mask.ip6_src, 0xff, 16);
    memset(mask.eth_src, 0xff, 6);
    engine_set_mask(engine, &mask);
    for (unsigned i = 0; i < 2; i++) {
        fast_rig_port_init(&ports[i], engine, 2 + i);
    }
    for (unsigned i = 0; i < N_FLOWS; i++) {
        programs[i] = fast_rig_program(i ? PROGRAM_OUTPUT : PROGRAM_DROP, 2 + i % 2);
        flows[i] = (struct fast_flow){.covers = 7};
        engine_flow_add(engine, &flows[i], programs[i]);
    }
    for (unsigned i = 0; i < 64; i++) {
        engine_record_port(engine, i, true);
    }
    learns = true;
    forget();
}

static void
end(void)
{
    for (unsigned i = 0; i < 2; i++) {
        fast_rig_port_done(&ports[i], engine);
    }
    engine_destroy(engine);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        free(programs[i]);
    }
    epoch_reclaim();
}

static void
run_random(struct worker *w, uint64_t *seed, unsigned bursts, int64_t *now)
{
    for (unsigned b = 0; b < bursts; b++) {
        unsigned n = 1 + frame_random(seed) % ENGINE_BURST;
        uint16_t in_port = frame_random(seed) % 3;
        struct rte_mbuf *pkts[ENGINE_BURST];
        bool plain = frame_chance(seed, 2);

        for (unsigned i = 0; i < n; i++) {
            uint8_t d[FRAME_MAX];
            unsigned len;

            if (plain) {
                const struct frame_udp f = {.src = frame_random(seed) % 5,
                                            .dst = frame_random(seed) % 4,
                                            .sport = frame_random(seed) % 50,
                                            .dport = 53,
                                            .ip6 = frame_chance(seed, 4)};
                len = frame_build_udp(d, &f);
            } else {
                len = frame_build_random(seed, d);
            }
            expect(d, len, in_port);
            pkts[i] = fast_rig_mbuf(d, len);
        }
        worker_run(w, in_port, pkts, n, *now += frame_random(seed) % 3);
        if (frame_chance(seed, 8)) {
            worker_end(w);
            if (frame_chance(seed, 3)) {
                engine_record_collect(engine, *now, take, NULL);
            }
            worker_begin(w);
        }
    }
}

static const struct record_settings usual = {
    .idle_ms = 1000, .active_ms = 2000, .max = 4096, .sampling = 1};

static void
test_counts(const char *name, bool whole_masks, unsigned cache, uint32_t max, bool learn)
{
    struct record_settings settings = usual;
    struct record_stats stats;
    struct worker *w;
    uint64_t seed = 77;
    int64_t now = 100000;

    CASE(name);
    start(whole_masks);
    learns = learn;
    settings.max = max;
    settings.active_ms = 400;
    engine_record(engine, &settings);
    w = worker_create(engine, cache, NULL);
    worker_begin(w);
    run_random(w, &seed, 1500, &now);
    fast_rig_record_end(engine, w, now, take);
    engine_record_stats(engine, &stats);
    CHECK(n_sums > 200);
    CHECK(all_equal());
    CHECK(!bad_times);
    CHECK(!stats.lost_packets && !stats.lost_records);
    CHECK(max > 1000 ? !ended[RECORD_END_RESOURCES] : ended[RECORD_END_RESOURCES] > 100);
    CHECK(stats.pushed_out == ended[RECORD_END_RESOURCES]);
    CHECK(max < 1000 || ended[RECORD_END_ACTIVE] > 0);
    end();
}

/* --- one at a time ----------------------------------------------------------------------- */

static void
send(struct worker *w, uint16_t sport, uint8_t proto, uint8_t tcp_flags, unsigned n, int64_t now)
{
    const struct frame_udp f = {
        .src = 1, .dst = 1, .sport = sport, .dport = 9, .proto = proto, .tcp_flags = tcp_flags};
    struct rte_mbuf *pkts[ENGINE_BURST];
    uint8_t d[FRAME_MAX];
    unsigned len = frame_build_udp(d, &f);

    for (unsigned i = 0; i < n; i++) {
        expect(d, len, 1);
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(w, 1, pkts, n, now);
}

static void
rest(struct worker *w, int64_t from, int64_t to)
{
    for (; from <= to; from += 10) {
        worker_run(w, 1, NULL, 0, from);
    }
    worker_end(w);
    engine_record_collect(engine, to, take, NULL);
    worker_begin(w);
}

static void
test_times(void)
{
    struct worker *w;

    start(true);
    engine_record(engine, &(struct record_settings){1500, 4000, 1000, 1});
    w = worker_create(engine, 100, NULL);
    worker_begin(w);

    CASE("records: silence ends one");
    send(w, 1, 0, 0, 5, 10000);
    rest(w, 10000, 11400);
    CHECK(!told_records);
    rest(w, 11400, 12000);
    CHECK(told_records == 1 && ended[RECORD_END_IDLE] == 1 && all_equal());

    CASE("records: one that lasts is told of");
    for (int64_t now = 20000; now < 29000; now += 100) {
        send(w, 2, 0, 0, 1, now);
    }
    rest(w, 29000, 29010);
    CHECK(ended[RECORD_END_ACTIVE] == 2);
    rest(w, 29010, 31500);
    CHECK(ended[RECORD_END_IDLE] == 2 && all_equal());

    CASE("records: TCP's end is the record's");
    send(w, 3, 6, 0x02, 1, 40000);
    send(w, 3, 6, 0x11, 1, 40010);
    rest(w, 40010, 41300);
    CHECK(ended[RECORD_END_DETECTED] == 1 && all_equal());

    CASE("records: of a worker that sleeps");
    send(w, 4, 0, 0, 2, 50000);
    worker_end(w);
    engine_record_collect(engine, 51000, take, NULL);
    CHECK(told_records == 5);
    engine_record_collect(engine, 52000, take, NULL);
    CHECK(told_records == 6 && all_equal());
    worker_begin(w);

    CASE("records: another way is another record");
    send(w, 5, 0, 0, 3, 60000);
    send(w, 5, 0, 0, 3, 60001); /* the cache has its round, and learns again */
    send(w, 5, 0, 0, 3, 60002);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        struct program *p = fast_rig_program(PROGRAM_OUTPUT, 2);
        p->port = programs[i]->kind == PROGRAM_OUTPUT && programs[i]->port == 2 ? 3 : 2;
        free(engine_flow_set_program(engine, &flows[i], p));
        programs[i] = p;
    }
    send(w, 5, 0, 0, 1, 60003);
    send(w, 5, 0, 0, 4, 60004);
    rest(w, 60003, 62500);
    CHECK(ended[RECORD_END_FORCED] == 1);
    CHECK(told_records == 8);
    CHECK(all_equal());

    CASE("records: off ends all");
    send(w, 6, 0, 0, 2, 70000);
    fast_rig_record_end(engine, w, 70001, take);
    CHECK(told_records == 9 && all_equal());
    CHECK(fast_rig_mbufs_alive() == 0);
    end();
}

static void
test_sampling(void)
{
    struct record_settings settings = usual;
    struct worker *w;
    uint64_t sent = 0, seed = 5;
    int64_t now = 1000;

    CASE("records: one packet in 7");
    start(false);
    settings.sampling = 7;
    engine_record(engine, &settings);
    w = worker_create(engine, 1000, NULL);
    worker_begin(w);
    for (unsigned i = 0; i < 700; i++) {
        unsigned n = 1 + frame_random(&seed) % 40;
        send(w, i % 9, 0, 0, n, now++);
        sent += n;
    }
    fast_rig_record_end(engine, w, now, take);
    CHECK(told_packets == (sent + 6) / 7);
    end();

    CASE("records: one packet in 7, at once after one in 60,000");
    start(false);
    settings.sampling = 60000;
    engine_record(engine, &settings);
    w = worker_create(engine, 1000, NULL);
    worker_begin(w);
    for (unsigned i = 0; i < 20; i++) { /* its flow is in the cache after the first */
        send(w, 1, 0, 0, 35, now++);
    }
    settings.sampling = 7;
    engine_record(engine, &settings);
    for (unsigned i = 0; i < 20; i++) {
        send(w, 1, 0, 0, 35, now++);
    }
    fast_rig_record_end(engine, w, now, take);
    CHECK(told_packets >= 100 && told_packets <= 101);
    end();
}

/* --- many ----------------------------------------------------------------------------------- */

#define MANY 40000u

/* A burst of the common form: from the 'at'-th on, 'stride' apart. */
static void
send_many(struct worker *w, unsigned at, unsigned stride, bool ip6, int64_t now)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    uint8_t d[FRAME_MAX];

    for (unsigned i = 0; i < ENGINE_BURST; i++) {
        unsigned id = (at + i * stride) % MANY;
        const struct frame_udp f = {.src = id / 100,
                                    .dst = id % 2,
                                    .sport = id % 100,
                                    .dport = 80,
                                    .tci = id % 3 ? 0 : 0x6000 | (1 + id % 5),
                                    .proto = id % 2 ? 6 : 17,
                                    .tcp_flags = 8u << id % 5,
                                    .ip6 = ip6};
        unsigned len = frame_build_udp(d, &f);

        expect(d, len, 1);
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(w, 1, pkts, ENGINE_BURST, now);
}

/* Bursts in which every frame is of the common form and of another flow, while the
 * table grows; in between bursts of one flow. */
static void
test_many(const char *name, bool whole_masks, bool ip6, uint32_t max)
{
    struct record_settings settings = {.idle_ms = 60000, .active_ms = 60000, .sampling = 1};
    struct record_stats stats;
    struct worker *w;
    int64_t now = 1000;

    CASE(name);
    start(whole_masks);
    settings.max = max;
    engine_record(engine, &settings);
    w = worker_create(engine, 65536, NULL);
    worker_begin(w);
    for (unsigned pass = 0; pass < 3; pass++) {
        for (unsigned at = 0; at < MANY; at += ENGINE_BURST) {
            /* New ones among those that were there. */
            send_many(w, at, pass ? 317 : 1, ip6, now++);
            if (at % 16 == 0) {
                send_many(w, at, 0, ip6, now++);
            }
        }
    }
    fast_rig_record_end(engine, w, now, take);
    engine_record_stats(engine, &stats);
    CHECK(n_sums == MANY);
    CHECK(all_equal());
    CHECK(!bad_times && !stats.lost_packets);
    if (max >= MANY) {
        CHECK(told_records == MANY && !stats.pushed_out);
    } else {
        CHECK(told_records > MANY && stats.pushed_out == ended[RECORD_END_RESOURCES]);
    }
    end();
}

/* A burst of one 5-tuple whose packets are of 28 to 155 bytes, some of them with
 * something behind them. */
static void
send_lengths(struct worker *w, uint16_t tci, int64_t now)
{
    const struct frame_udp f = {.src = 5, .dst = 1, .sport = 5, .dport = 80, .tci = tci};
    const unsigned l3 = tci ? 18 : 14;
    struct rte_mbuf *pkts[ENGINE_BURST];
    uint8_t d[FRAME_MAX];

    for (unsigned i = 0; i < ENGINE_BURST; i++) {
        unsigned len = l3 + 28 + i;

        frame_build_udp(d, &f);
        frame_put16(d + l3 + 2, 28 + i);
        len = (len < 60 ? 60 : len) + (i % 3 ? 0 : 7);
        expect(d, len, 1);
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(w, 1, pkts, ENGINE_BURST, now);
}

static void
test_lengths(const char *name, bool whole_masks, uint16_t tci)
{
    struct record_settings settings = {
        .idle_ms = 60000, .active_ms = 60000, .max = MANY, .sampling = 1};
    struct worker *w;

    CASE(name);
    start(whole_masks);
    engine_record(engine, &settings);
    w = worker_create(engine, 65536, NULL);
    worker_begin(w);
    send_lengths(w, tci, 1000); /* learned */
    send_lengths(w, tci, 1001);
    send_lengths(w, tci, 1002);
    send_many(w, 0, 1, false, 1003);
    send_many(w, 0, 1, false, 1004);
    send_lengths(w, tci, 1005);
    fast_rig_record_end(engine, w, 1006, take);
    CHECK(n_sums == 1 + ENGINE_BURST && told_records == n_sums);
    CHECK(all_equal());
    end();
}

static void
test_many_sampled(void)
{
    struct record_settings settings = {.idle_ms = 60000, .active_ms = 60000, .max = MANY};
    struct worker *w;
    unsigned bursts = 0;

    CASE("records: one packet in 5 of many flows");
    start(false);
    settings.sampling = 5;
    engine_record(engine, &settings);
    w = worker_create(engine, 1000, NULL);
    worker_begin(w);
    for (; bursts < 100; bursts++) {
        send_many(w, bursts * 131, 1, false, 1000 + bursts);
    }
    fast_rig_record_end(engine, w, 2000, take);
    CHECK(told_packets == (bursts * ENGINE_BURST + 4) / 5);
    end();
}

/* --- sums ----------------------------------------------------------------------------------- */

/* 'n' times 'bytes' of the key with that port in a table's record. */
static void
count_many(struct recording *r, struct record_table *t, uint16_t sport, unsigned n,
           uint32_t packets, uint32_t bytes)
{
    struct key_wide k = {.key = {.eth_type = 0x0008, .tp_src = sport, .in_port = 1}};

    for (unsigned i = 0; i < n; i++) {
        struct record_hot *h = record_get(r, t, &k, record_id_of(&k), 1000);
        struct sum *s = sum_of(&k);

        record_begin(h, record_cold(record_view(t), h), 1000);
        if (record_count(h, packets, bytes, 0, 1000)) {
            record_carry(t, h);
        }
        s->packets += packets;
        s->bytes += bytes;
    }
}

/* Records have 32 bits at hand for each sum, and more elsewhere. */
static void
test_sums(void)
{
    struct recording *r;
    struct record_table *t;

    CASE("records: sums beyond 32 bits");
    start(false);
    r = malloc(sizeof *r);
    CHECK(!recording_init(r));
    t = record_table_create(64);
    count_many(r, t, 1, 3, 1, 0x7fffffff);
    count_many(r, t, 2, 1000, 1, 0x7fffffff);
    count_many(r, t, 3, 1000, 0x7fffffff, 1);
    count_many(r, t, 4, 1000, 0x7fffffff, 0x7fffffff);
    count_many(r, t, 5, 1, 1, 60);
    record_table_end(r, t, 1000, RECORD_END_FORCED);
    for (struct record_block *b = atomic_load(&r->ended); b; b = b->next) {
        take(b, NULL);
    }
    CHECK(told_records == 5 && n_sums == 5);
    CHECK(all_equal());
    recording_done(r);
    free(r);
    end();
}

/* --- keys ----------------------------------------------------------------------------------- */

static void
test_keys(void)
{
    uint64_t seed = 4242;
    unsigned same = 0, odd = 0;

    CASE("records: both parsers agree");
    for (unsigned i = 0; i < 300000; i++) {
        _Alignas(64) struct key_wide a, b;
        uint8_t d[FRAME_MAX], tos;
        uint16_t fa, fb;
        unsigned len = frame_build_random(&seed, d);
        uint8_t *copy = malloc(len ? len : 1);
        enum shape shape;

        memcpy(copy, d, len);
        if (len >= 14) {
            shape = key_parse(copy, len, 3, &record_masks, &a, &fa);
            record_parse(copy, len, 3, 0, false, &b, &fb, &tos);
            if (shape == SHAPE_ODD) {
                odd++;
            } else {
                same++;
                if (shape != SHAPE_IPV6) {
                    memset(&a.ip6, 0, sizeof a.ip6);
                }
                CHECK(!memcmp(&a, &b, sizeof a) && fa == fb);
            }
        }
        free(copy);
    }
    CHECK(same > 100000 && odd > 50000);
}

static bool
ids_are_equal(__m128i a, __m128i b)
{
    return _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) == 0xffff;
}

/* A record is known by its key's fingerprint alone. */
static void
test_fingerprints(void)
{
    _Alignas(64) struct key_wide k = {.key = {.eth_type = 0x0008}};
    __m128i narrow[257], wide[513];
    unsigned equal = 0;

    CASE("records: each bit of a key is in its fingerprint");
    narrow[256] = record_id(k.key.v, k.ip6.v, false);
    wide[512] = record_id(k.key.v, k.ip6.v, true);
    for (unsigned bit = 0; bit < 512; bit++) {
        uint64_t *word = bit < 256 ? &k.key.w[bit / 64] : &k.ip6.w[bit / 64 - 4];

        *word ^= UINT64_C(1) << bit % 64;
        wide[bit] = record_id(k.key.v, k.ip6.v, true);
        if (bit < 256) {
            narrow[bit] = record_id(k.key.v, k.ip6.v, false);
            CHECK(record_id_hash(narrow[bit]) == key_hash(&k.key));
        }
        CHECK(record_id_hash(wide[bit]) == key_hash_wide(&k));
        *word ^= UINT64_C(1) << bit % 64;
    }
    for (unsigned i = 0; i < 513; i++) {
        for (unsigned j = 0; j < i; j++) {
            equal += ids_are_equal(wide[i], wide[j]);
            /* Neither half is of one kind for both. */
            equal += _mm_cvtsi128_si64(wide[i]) == _mm_extract_epi64(wide[j], 1);
            equal += i < 257 && ids_are_equal(narrow[i], narrow[j]);
        }
        equal += i < 257 && ids_are_equal(narrow[i], wide[i]);
    }
    CHECK(!equal);
}

/* --- threads -------------------------------------------------------------------------------- */

#define THREADS 3u
#define ROUNDS 1500u
static _Atomic uint64_t sent_packets;
static _Atomic int64_t clock_ms = 1000;
static atomic_bool workers_end;

static void *
worker_main(void *aux)
{
    uint64_t seed = 1 + (uintptr_t)aux;
    struct worker *w = worker_create(engine, 256, NULL);

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned n = 1 + frame_random(&seed) % 32;
        struct rte_mbuf *pkts[32];
        uint8_t d[FRAME_MAX];

        for (unsigned j = 0; j < n; j++) {
            const struct frame_udp f = {.src = frame_random(&seed) % 20,
                                        .dst = 1,
                                        .sport = frame_random(&seed) % 20,
                                        .dport = 53};
            pkts[j] = fast_rig_mbuf(d, frame_build_udp(d, &f));
        }
        worker_begin(w);
        worker_run(w, 1, pkts, n, atomic_fetch_add(&clock_ms, 1));
        worker_end(w);
        atomic_fetch_add(&sent_packets, n);
    }
    worker_destroy(w);
    return NULL;
}

static void *
collect_main(void *aux)
{
    (void)aux;
    while (!atomic_load(&workers_end)) {
        engine_record_collect(engine, atomic_load(&clock_ms), take, NULL);
    }
    return NULL;
}

static void
test_threads(void)
{
    struct record_settings settings = {300, 500, 128, 1};
    pthread_t threads[THREADS], collector;
    struct record_stats stats;

    CASE("records: workers and a collector");
    start(false);
    engine_record(engine, &settings);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, worker_main, (void *)i);
    }
    pthread_create(&collector, NULL, collect_main, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&workers_end, true);
    pthread_join(collector, NULL);
    engine_record_collect(engine, atomic_load(&clock_ms), take, NULL);
    engine_record_stats(engine, &stats);
    CHECK(told_packets + stats.lost_packets == atomic_load(&sent_packets));
    end();
}

int
main(void)
{
    test_keys();
    test_fingerprints();
    test_sums();
    test_counts("records: where the cache knows whole 5-tuples", true, 8192, 60000, true);
    test_counts("records: where many share an entry", false, 8192, 60000, true);
    test_counts("records: of packets the cache never knows", false, 64, 60000, false);
    test_counts("records: a full table", false, 512, 64, true);
    test_times();
    test_sampling();
    test_many("records: many flows of one entry", false, false, MANY);
    test_many("records: many flows, an entry each", true, false, MANY);
    test_many("records: many flows, IPv6", false, true, MANY);
    test_many("records: more flows than records", false, false, MANY / 4);
    test_lengths("records: a burst of one flow, of many lengths", false, 0);
    test_lengths("records: a burst of one flow with a tag, of many lengths", false, 0x6005);
    test_lengths("records: a burst of one entry, of many lengths", true, 0);
    test_lengths("records: a burst of one entry with a tag, of many lengths", true, 0x6005);
    test_many_sampled();
    test_threads();
    return check_done();
}

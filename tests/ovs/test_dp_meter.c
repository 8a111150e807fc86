/* Meters: rates, bursts, bands and their counters, against a plain model; the
 * class's functions; and threads. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>

#include "check.h"
#include "dp_rig.h"
#include "openvswitch/ofp-meter.h"
#include "openvswitch/ofp-protocol.h"
#include "ovs-thread.h"
#include "random.h"
#include "timeval.h"
#include "vif_state.h"

#define SIZE 100u

static struct dp_worker *worker;
static long long start; /* ms; later than any meter was made */

static ofproto_meter_id
id_of(uint32_t n)
{
    return (ofproto_meter_id){n};
}

static int
set(uint32_t id, uint16_t flags, unsigned n_bands, const uint32_t rates[], const uint32_t bursts[])
{
    struct ofputil_meter_band bands[16] = {{0}};
    struct ofputil_meter_config config = {.flags = flags, .n_bands = n_bands, .bands = bands};
    int error;

    for (unsigned i = 0; i < n_bands && i < ARRAY_SIZE(bands); i++) {
        bands[i] = (struct ofputil_meter_band){
            .type = OFPMBT13_DROP, .rate = rates[i], .burst_size = bursts ? bursts[i] : 0};
    }
    error = dp_meter_set(RIG_DPIF, id_of(id), &config);
    start = time_msec();
    return error;
}

static int
set1(uint32_t id, uint16_t flags, uint32_t rate, uint32_t burst)
{
    return set(id, flags, 1, &rate, &burst);
}

struct stats {
    struct ofputil_meter_stats s;
    struct ofputil_meter_band_stats bands[8];
};

static int
get(uint32_t id, struct stats *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->s.bands = stats->bands;
    return dp_meter_get(RIG_DPIF, id_of(id), &stats->s, ARRAY_SIZE(stats->bands));
}

/* Offers 'n' packets of 'size' bytes; returns how many pass. */
static unsigned
offer(struct dp_worker *w, uint32_t id, unsigned n, unsigned size, long long now)
{
    unsigned passed = 0;

    while (n) {
        unsigned m = MIN(n, NETDEV_MAX_BURST);
        struct dp_packet_batch batch;

        dp_packet_batch_init(&batch);
        for (unsigned i = 0; i < m; i++) {
            struct dp_packet *b = dp_packet_new(size);

            dp_packet_put_zeros(b, size);
            dp_packet_batch_add(&batch, b);
        }
        dp_meter_run(w, &batch, id, now);
        passed += dp_packet_batch_size(&batch);
        dp_packet_delete_batch(&batch, true);
        n -= m;
    }
    return passed;
}

/* --- one thread ----------------------------------------------------------------- */

static void
test_packets(void)
{
    struct stats s;

    CASE("meter-packets");
    CHECK(set1(1, OFPMF13_PKTPS | OFPMF13_STATS, 1000, 0) == 0);
    /* Full at first, of one second's rate. */
    CHECK(offer(worker, 1, 3000, SIZE, start) == 1000);
    CHECK(offer(worker, 1, 10, SIZE, start) == 0);
    /* One a millisecond. */
    CHECK(offer(worker, 1, 10, SIZE, start + 1) == 1);
    CHECK(offer(worker, 1, 100, SIZE, start + 51) == 50);
    /* Never more than full. */
    CHECK(offer(worker, 1, 5000, SIZE, start + 1000000) == 1000);
    CHECK(get(1, &s) == 0);
    CHECK(s.s.packet_in_count == 3000 + 10 + 10 + 100 + 5000);
    CHECK(s.s.byte_in_count == s.s.packet_in_count * SIZE);
    CHECK(s.s.n_bands == 1);
    CHECK(s.bands[0].packet_count == s.s.packet_in_count - 1000 - 1 - 50 - 1000);
    CHECK(s.bands[0].byte_count == s.bands[0].packet_count * SIZE);
}

static void
test_order(void)
{
    struct dp_packet_batch batch;
    struct dp_packet *b;

    /* In one burst, each packet that fits passes: a small one after a large
     * one that does not. */
    CASE("meter-mixed-sizes");
    CHECK(set1(1, OFPMF13_KBPS | OFPMF13_BURST, 8, 8) == 0); /* 8,000 bits: 1,000 bytes */
    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < 8; i++) {
        b = dp_packet_new(1500);
        dp_packet_put_zeros(b, i & 1 ? 100 : 400);
        b->mbuf.port = i;
        dp_packet_batch_add(&batch, b);
    }
    dp_meter_run(worker, &batch, 1, start);
    /* 400, 100, 400, 100 of 1,000. */
    CHECK(dp_packet_batch_size(&batch) == 4);
    DP_PACKET_BATCH_FOR_EACH (i, b, &batch) {
        CHECK(b->mbuf.port == i);
    }
    dp_packet_delete_batch(&batch, true);

    CHECK(set1(1, OFPMF13_KBPS | OFPMF13_BURST, 8, 8) == 0);
    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < 4; i++) {
        b = dp_packet_new(1500);
        dp_packet_put_zeros(b, i & 1 ? 300 : 800);
        b->mbuf.port = i;
        dp_packet_batch_add(&batch, b);
    }
    dp_meter_run(worker, &batch, 1, start);
    /* 800 passes, of the other 200 bytes nothing fits. */
    CHECK(dp_packet_batch_size(&batch) == 1);
    dp_packet_delete_batch(&batch, true);
    CHECK(offer(worker, 1, 1, 200, start) == 1);
    CHECK(offer(worker, 1, 1, 64, start) == 0);
    CHECK(offer(worker, 1, 1, 64, start + 63) == 0); /* 8 bits a ms: 504 */
    CHECK(offer(worker, 1, 1, 64, start + 64) == 1);
}

static void
test_bands(void)
{
    struct stats s;

    /* The slow band overflows first; when both do, the faster one acts. */
    CASE("meter-bands");
    CHECK(set(1, OFPMF13_PKTPS | OFPMF13_BURST, 2, (uint32_t[]){10, 100}, (uint32_t[]){10, 25}) ==
          0);
    CHECK(offer(worker, 1, 32, SIZE, start) == 10);
    CHECK(get(1, &s) == 0);
    CHECK(s.bands[0].packet_count == 15);
    CHECK(s.bands[1].packet_count == 7);
    CHECK(s.s.n_bands == 2);
}

static void
test_clock(void)
{
    /* A worker whose clock is behind neither gains nor loses. */
    CASE("meter-clock-behind");
    CHECK(set1(1, OFPMF13_PKTPS, 1000, 10) == 0);
    CHECK(offer(worker, 1, 100, SIZE, start + 500) == 10);
    CHECK(offer(worker, 1, 10, SIZE, start + 503) == 3);
    CHECK(offer(worker, 1, 10, SIZE, start + 100) == 0);
    CHECK(offer(worker, 1, 10, SIZE, start - 100000) == 0);
    CHECK(offer(worker, 1, 10, SIZE, start + 505) == 2);

    /* The axis of volume wraps within 35 days here. */
    CASE("meter-years");
    CHECK(set1(1, OFPMF13_PKTPS, UINT32_MAX, 1) == 0);
    CHECK(offer(worker, 1, 5, SIZE, start) == 1);
    for (int year = 1; year < 20; year++) {
        CHECK(offer(worker, 1, 5, SIZE, start + year * 31556952000LL + year * 777) == 1);
    }
}

/* Against arithmetic that is nothing but the definition. */
static void
test_model(void)
{
    static const uint16_t kinds[] = {OFPMF13_PKTPS, OFPMF13_KBPS};

    CASE("meter-model");
    for (unsigned run = 0; run < 200; run++) {
        bool packets = run & 1;
        uint32_t rate = 1 + random_range(packets ? 20000 : 200000);
        uint32_t burst = 1 + random_range(packets ? 100 : 2000);
        uint64_t full = burst * 1000ull, level = full;
        long long now;

        ovs_assert(!set1(1, kinds[!packets] | OFPMF13_BURST, rate, burst));
        now = start;
        for (unsigned i = 0; i < 50; i++) {
            unsigned n = 1 + random_range(NETDEV_MAX_BURST), size = 60 + random_range(1400);
            unsigned step = random_range(4), passed = 0;
            uint64_t volume = packets ? 1000 : size * 8;

            now += i ? step : 0;
            level = MIN(full, level + (i ? (uint64_t)step * rate : 0));
            for (unsigned k = 0; k < n && level >= volume; k++) {
                level -= volume;
                passed++;
            }
            CHECK(offer(worker, 1, n, size, now) == passed);
        }
    }
}

static void
test_class(void)
{
    struct ofputil_meter_features features;
    uint32_t rate = 1;
    struct stats s;

    CASE("meter-class");
    dp_meter_get_features(RIG_DPIF, &features);
    CHECK(features.max_meters >= 65536);
    CHECK(features.max_bands == 8);
    CHECK(features.band_types == 1u << OFPMBT13_DROP);
    CHECK(set1(features.max_meters - 1, OFPMF13_PKTPS, 1, 1) == 0);
    CHECK(set1(features.max_meters, OFPMF13_PKTPS, 1, 1) == EFBIG);
    CHECK(set(1, OFPMF13_PKTPS, 9, (uint32_t[9]){0}, NULL) == EINVAL);
    CHECK(set1(1, 1 << 7, 1, 1) == EBADF);
    CHECK(get(features.max_meters, &s) == EFBIG);
    CHECK(get(77, &s) == ENOENT);

    /* A meter that is not there lets all pass; one with a rate of 0, none. */
    CHECK(offer(worker, 77, 40, SIZE, start) == 40);
    rate = 0;
    CHECK(set(2, OFPMF13_PKTPS, 1, &rate, NULL) == 0);
    CHECK(offer(worker, 2, 40, SIZE, start + 1000) == 0);
    CHECK(set(2, OFPMF13_KBPS, 0, NULL, NULL) == 0);
    CHECK(offer(worker, 2, 40, SIZE, start) == 40);

    /* A changed meter starts over. */
    CHECK(get(2, &s) == 0 && s.s.packet_in_count == 40);
    CHECK(set1(2, OFPMF13_PKTPS, 5, 5) == 0);
    CHECK(get(2, &s) == 0 && s.s.packet_in_count == 0);
    CHECK(offer(worker, 2, 40, SIZE, start) == 5);
    memset(&s, 0, sizeof s);
    s.s.bands = s.bands;
    CHECK(dp_meter_del(RIG_DPIF, id_of(2), &s.s, 8) == 0);
    CHECK(s.s.packet_in_count == 40 && s.bands[0].packet_count == 35);
    CHECK(dp_meter_del(RIG_DPIF, id_of(2), NULL, 0) == ENOENT);
    CHECK(offer(worker, 2, 40, SIZE, start) == 40);
}

/* --- threads ------------------------------------------------------------------------ */

#define N_THREADS 4u
#define N_TICKS 200u
#define PER_TICK 64u

static _Atomic unsigned n_passed;

/* Time as each thread sees it goes on at its own pace. */
static void *
thread_main(void *aux OVS_UNUSED)
{
    struct dp_worker *w = dp_worker_create(rig_dp, 0, false);
    unsigned passed = 0;

    for (unsigned tick = 0; tick < N_TICKS; tick++) {
        passed += offer(w, 1, PER_TICK, SIZE, start + tick);
    }
    atomic_fetch_add(&n_passed, passed);
    dp_worker_destroy(w);
    return NULL;
}

static void *
changer_main(void *stop_)
{
    _Atomic bool *stop = stop_;

    while (!atomic_load(stop)) {
        uint32_t rate = 7;
        struct ofputil_meter_band band = {.type = OFPMBT13_DROP, .rate = rate};
        struct ofputil_meter_config config = {.flags = OFPMF13_KBPS, .n_bands = 1, .bands = &band};
        struct stats s;

        dp_meter_set(RIG_DPIF, id_of(3), &config);
        get(3, &s);
        dp_meter_del(RIG_DPIF, id_of(3), NULL, 0);
        ovsrcu_quiesce();
    }
    return NULL;
}

static void *
user_main(void *stop_)
{
    _Atomic bool *stop = stop_;
    struct dp_worker *w = dp_worker_create(rig_dp, 0, false);

    while (!atomic_load(stop)) {
        offer(w, 3, 64, SIZE, start);
        ovsrcu_quiesce();
    }
    dp_worker_destroy(w);
    return NULL;
}

static void
test_threads(void)
{
    pthread_t threads[N_THREADS];
    _Atomic bool stop = false;
    struct stats s;
    /* What was in the bucket and what came in over the ticks; more was
     * offered.  Exactly that passes, whoever came first. */
    const unsigned expected = 100 + (N_TICKS - 1) * 10;

    CASE("meter-threads");
    CHECK(set1(1, OFPMF13_PKTPS | OFPMF13_BURST, 10000, 2500) == 0);
    offer(worker, 1, 2400, SIZE, start);
    for (unsigned i = 0; i < N_THREADS; i++) {
        threads[i] = ovs_thread_create("meter", thread_main, NULL);
    }
    ovsrcu_quiesce_start();
    for (unsigned i = 0; i < N_THREADS; i++) {
        xpthread_join(threads[i], NULL);
    }
    ovsrcu_quiesce_end();
    CHECK(atomic_load(&n_passed) == expected);
    CHECK(get(1, &s) == 0);
    CHECK(s.s.packet_in_count == 2400 + N_THREADS * N_TICKS * PER_TICK);
    CHECK(s.bands[0].packet_count == N_THREADS * N_TICKS * PER_TICK - expected);

    CASE("meter-changes");
    threads[0] = ovs_thread_create("changer", changer_main, &stop);
    threads[1] = ovs_thread_create("user", user_main, &stop);
    threads[2] = ovs_thread_create("user", user_main, &stop);
    ovsrcu_quiesce_start();
    xnanosleep(300000000);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        xpthread_join(threads[i], NULL);
    }
    ovsrcu_quiesce_end();
}

/* --- of a vif that moves ----------------------------------------------------------- */

/* A bucket of 100 packets that gets one a second, at first full. */
static void
set_openflow(uint32_t id, uint32_t openflow_id)
{
    struct ofputil_meter_band band = {.type = OFPMBT13_DROP, .rate = 1, .burst_size = 100};
    struct ofputil_meter_config config = {.meter_id = openflow_id,
                                          .flags = OFPMF13_PKTPS | OFPMF13_BURST,
                                          .n_bands = 1,
                                          .bands = &band};

    CHECK(!dp_meter_set(RIG_DPIF, id_of(id), &config));
}

/* Moves the meters of one port to another, as the vif's state; 0 if that is refused. */
static size_t
move(const char *from, const char *to, size_t *len, uint8_t **data)
{
    struct vif_scope there = {.n_zones = 0}, here = {.n_zones = 0};
    struct vif_state_result r;
    char why[256];

    CHECK(vif_scope_add(&there, from) && vif_scope_add(&here, to));
    if (!*data) {
        CHECK(!vif_state_export(NULL, &there, data, len, &r));
    }
    return vif_state_import(NULL, &here, *data, *len, &r, why, sizeof why) ? 0 : r.meters;
}

/* How many of 100 packets pass now; as many as there are, and a few that time brought. */
static bool
holds(uint32_t id, unsigned n)
{
    unsigned passed = offer(worker, id, 100, SIZE, time_msec());

    return passed >= n && passed < n + 30;
}

static void
test_moves(void)
{
    struct dp *other;
    uint8_t *data = NULL;
    size_t len = 0;

    CASE("meter-moves-with-its-vif");
    set_openflow(50, 0xd5000007); /* port 7, in; out; in with tag 3; of port 8 */
    set_openflow(51, 0xd5010007);
    set_openflow(52, 0xa0030007);
    set_openflow(53, 0xd5000008);
    set_openflow(60, 0xd5000009);
    set_openflow(61, 0xd5010009);
    set_openflow(62, 0xa0030009);
    CHECK(offer(worker, 50, 60, SIZE, time_msec()) == 60);
    CHECK(offer(worker, 51, 10, SIZE, time_msec()) == 10);
    CHECK(offer(worker, 62, 80, SIZE, time_msec()) == 80); /* has less already */
    CHECK(move("ofport=7", "ofport=9", &len, &data) == 3);
    CHECK(holds(60, 40) && holds(62, 20) && offer(worker, 61, 88, SIZE, time_msec()) == 88);
    CHECK(holds(53, 100)); /* another's */
    CHECK(move("ofport=7", "ofport=12", &len, &data) == 0 &&
          move("zone=1", "zone=1", &len, &data) == 0);

    CASE("meter-of-two-bridges-stays");
    set_openflow(63, 0xd5000009);
    CHECK(move("ofport=7", "ofport=9", &len, &data) == 2);

    CASE("meter-of-several-datapaths-stays");
    other = dp_create(&dpif_weft_class, "other");
    CHECK(other);
    CHECK(move("ofport=7", "ofport=9", &len, &data) == 0);
    dp_destroy(other);
    CHECK(move("ofport=7", "ofport=9", &len, &data) == 2);

    CASE("meter-hostile");
    for (size_t i = 32; i < len; i++) { /* behind the header */
        for (unsigned bit = 0; bit < 8; bit++) {
            data[i] ^= 1u << bit;
            CHECK(move("ofport=7", "ofport=9", &len, &data) <= 3);
            data[i] ^= 1u << bit;
        }
    }
    data[32 + 8 + 2] = data[32 + 8 + 3] = 0; /* a number that is not the controller's */
    CHECK(move("ofport=7", "ofport=9", &len, &data) == 0);
    free(data);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    set_program_name(argv[0]);
    random_set_seed(1);
    rig_start();
    worker = dp_worker_create(rig_dp, 0, false);
    test_packets();
    test_order();
    test_bands();
    test_clock();
    test_model();
    test_class();
    test_moves();
    test_threads();
    dp_worker_destroy(worker);
    rig_stop();
    return check_done();
}

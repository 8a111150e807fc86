/* Theory of Operation
 * ===================
 *
 * A meter has bands; a band is a token bucket.  Every packet takes its volume
 * from each band's bucket; of the bands that had too little, the one with the
 * highest rate acts, which means that the packet is dropped.
 *
 * Vif threads meter packets at once and may be preempted anywhere, so nobody
 * holds a lock here.  A bucket is one 64-bit number that is replaced by
 * compare-and-swap, once a burst: the point on the band's own axis of volume
 * up to which everything has been spent.  On that axis the band has offered
 * (time * rate + bucket size) so far; the difference is what the bucket
 * holds, and it is at most the bucket size, because the spent point is pulled
 * along.  The axis may wrap around, because only differences count and they
 * are small; a meter that has been idle for so long that they might not be
 * (decades, at 10 Gbit/s) starts over with full buckets.
 *
 * Time never goes back for a meter: whose clock is behind takes the latest
 * that anybody had.
 *
 * Units, as in Open vSwitch's own datapath: rates are packets or kilobits a
 * second, that is 1/1000 packets or bits a millisecond, and volumes are 1/1000
 * packets or bits. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>

#include "coverage.h"
#include "dp.h"
#include "dp_record.h"
#include "meter_level.h"
#include "openvswitch/list.h"
#include "openvswitch/ofp-meter.h"
#include "ovs-rcu.h"
#include "timeval.h"
#include "util.h"

COVERAGE_DEFINE(weft_drop_meter);

#define METERS_MAX (1u << 18)
#define BANDS_MAX 8u
#define FLAGS_SUPPORTED (OFPMF13_STATS | OFPMF13_PKTPS | OFPMF13_KBPS | OFPMF13_BURST)
#define PACKET_VOLUME 1000u

struct band {
    uint32_t rate;
    uint64_t size; /* volume that the bucket holds when full */
    _Atomic uint64_t spent;
    _Atomic uint64_t packets, bytes; /* that it dropped */
};

struct meter {
    bool per_packet; /* rather than per bit */
    uint16_t n_bands;
    uint32_t openflow_id;
    long long created;     /* ms */
    uint64_t wrap_ms;      /* idle for so long: the axes may have wrapped */
    _Atomic uint64_t used; /* ms since 'created' */
    _Atomic uint64_t packets, bytes;
    struct band bands[];
};

struct dp_meters {
    struct ovs_list node; /* in 'tables' */
    /* By id.  A meter lives under OVS's RCU.  Most of the table is never
     * touched, so most of it takes no memory. */
    struct meter *_Atomic *slots;
    uint32_t end; /* no meter ever had this id or a higher one; main thread */
};

static void
count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t
load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Of all datapaths.  Main thread. */
static struct ovs_list tables = OVS_LIST_INITIALIZER(&tables);

/* --- the table ---------------------------------------------------------------- */

static struct meter *
find(const struct dp_meters *meters, uint32_t id)
{
    return id < METERS_MAX ? atomic_load_explicit(&meters->slots[id], memory_order_acquire) : NULL;
}

/* Puts 'm', or nothing, where a meter may have been. */
static void
replace(struct dp_meters *meters, uint32_t id, struct meter *m)
{
    struct meter *old = atomic_exchange_explicit(&meters->slots[id], m, memory_order_acq_rel);

    if (old) {
        ovsrcu_postpone(free, old);
    }
}

void
dp_meters_init(struct dp *dp)
{
    dp->meters = xzalloc(sizeof *dp->meters);
    dp->meters->slots = xcalloc(METERS_MAX, sizeof *dp->meters->slots);
    ovs_list_push_back(&tables, &dp->meters->node);
}

void
dp_meters_destroy(struct dp *dp)
{
    if (dp->meters) {
        for (uint32_t id = 0; id < dp->meters->end; id++) {
            replace(dp->meters, id, NULL);
        }
        ovs_list_remove(&dp->meters->node);
        free(dp->meters->slots);
        free(dp->meters);
        dp->meters = NULL;
    }
}

/* --- metering ----------------------------------------------------------------- */

static uint64_t
volume_of(const struct meter *m, const struct dp_packet *b)
{
    return m->per_packet ? PACKET_VOLUME : (uint64_t)dp_packet_size(b) * 8;
}

/* Which packets 'level' suffices for, a bit each; '*left' is what remains. */
static uint32_t
pass_some(const struct meter *m, const struct dp_packet_batch *batch, uint64_t level,
          uint64_t *left)
{
    const struct dp_packet *b;
    uint32_t passed = 0;

    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        uint64_t volume = volume_of(m, b);

        if (level >= volume) {
            level -= volume;
            passed |= UINT32_C(1) << i;
        }
    }
    *left = level;
    return passed;
}

/* The time of this burst, in ms since the meter was created.  '*wrapped' for
 * the first burst after too long a pause. */
static uint64_t
advance(struct meter *m, long long now, bool *wrapped)
{
    uint64_t t = now > m->created ? now - m->created : 0;
    uint64_t used = load(&m->used);

    while (t > used) {
        if (atomic_compare_exchange_weak_explicit(&m->used, &used, t, memory_order_release,
                                                  memory_order_relaxed)) {
            *wrapped = t - used >= m->wrap_ms;
            return t;
        }
    }
    *wrapped = false;
    return used;
}

/* Takes the volume of all packets from the bucket, or of as many of them as it
 * suffices for, and returns which those are, a bit each. */
static uint32_t
band_take(const struct meter *m, struct band *band, const struct dp_packet_batch *batch,
          uint64_t volume, uint64_t t, bool wrapped)
{
    uint64_t spent = atomic_load_explicit(&band->spent, memory_order_acquire);
    uint64_t offered, level, left;
    uint32_t passed;

    do {
        /* Whoever spent what we see may have had a later time than ours. */
        t = MAX(t, load(&m->used));
        offered = t * band->rate + band->size;
        level = wrapped ? band->size : MIN(offered - spent, band->size);
        if (level >= volume) {
            left = level - volume;
            passed = UINT32_MAX;
        } else {
            passed = pass_some(m, batch, level, &left);
            if (!passed) {
                break;
            }
        }
        wrapped = false;
    } while (!atomic_compare_exchange_weak_explicit(&band->spent, &spent, offered - left,
                                                    memory_order_acq_rel, memory_order_acquire));
    return passed;
}

/* Drops what a band said no to. */
static void
drop_exceeding(struct dp_worker *w, struct meter *m, struct dp_packet_batch *batch,
               const int8_t acting[])
{
    const size_t n = dp_packet_batch_size(batch);
    struct dp_packet *b;
    size_t i;

    DP_PACKET_BATCH_REFILL_FOR_EACH (i, n, b, batch) {
        if (acting[i] < 0) {
            dp_packet_batch_refill(batch, b, i);
        } else {
            struct band *band = &m->bands[acting[i]];

            count(&band->packets, 1);
            count(&band->bytes, dp_packet_size(b));
            COVERAGE_INC(weft_drop_meter);
            dp_record_metered(w, b);
            dp_packet_delete(b);
        }
    }
}

/* 'now' in ms. */
void
dp_meter_run(struct dp_worker *w, struct dp_packet_batch *batch, uint32_t meter_id, long long now)
{
    struct meter *m = find(w->dp->meters, meter_id);
    const size_t n = dp_packet_batch_size(batch);
    int8_t acting[NETDEV_MAX_BURST];
    uint32_t all = n < 32 ? (UINT32_C(1) << n) - 1 : UINT32_MAX;
    uint64_t bytes = 0, volume, t;
    struct dp_packet *b;
    uint32_t exceeded = 0;
    bool wrapped;

    BUILD_ASSERT_DECL(NETDEV_MAX_BURST <= 32);
    if (!m || !n) {
        return;
    }
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        bytes += dp_packet_size(b);
    }
    count(&m->packets, n);
    count(&m->bytes, bytes);
    volume = m->per_packet ? n * PACKET_VOLUME : bytes * 8;
    t = advance(m, now, &wrapped);
    memset(acting, -1, sizeof acting);

    for (int i = 0; i < m->n_bands; i++) {
        uint32_t no = all & ~band_take(m, &m->bands[i], batch, volume, t, wrapped);

        exceeded |= no;
        for (uint32_t rest = no; rest; rest = zero_rightmost_1bit(rest)) {
            int8_t *act = &acting[raw_ctz(rest)];

            if (*act < 0 || m->bands[i].rate > m->bands[*act].rate) {
                *act = i;
            }
        }
    }
    if (exceeded) {
        drop_exceeding(w, m, batch, acting);
    }
}

/* --- of a vif that moves ------------------------------------------------------------ */

/* The one datapath's; NULL: there are several, or none. */
static const struct dp_meters *
only_table(void)
{
    return ovs_list_is_singleton(&tables)
               ? CONTAINER_OF(ovs_list_front(&tables), struct dp_meters, node)
               : NULL;
}

/* The only one that has this number. */
static struct meter *
find_openflow(uint32_t openflow_id)
{
    const struct dp_meters *only = only_table();
    struct meter *found = NULL;

    for (uint32_t id = 0; only && id < only->end; id++) {
        struct meter *m = find(only, id);

        if (m && m->openflow_id == openflow_id) {
            if (found) {
                return NULL;
            }
            found = m;
        }
    }
    return found;
}

static uint64_t
level_of(const struct band *band, uint64_t t, uint64_t spent)
{
    return MIN(t * band->rate + band->size - spent, band->size);
}

size_t
meter_levels_get(uint16_t ofport, struct meter_level *levels, size_t max)
{
    const struct dp_meters *only = only_table();
    size_t n = 0;

    for (uint32_t id = 0; only && id < only->end && n < max; id++) {
        struct meter *m = find(only, id);
        uint64_t t, spent;
        bool wrapped;

        if (!m || m->openflow_id < METER_LEVEL_FIRST || (uint16_t)m->openflow_id != ofport ||
            !m->n_bands || find_openflow(m->openflow_id) != m) {
            continue;
        }
        t = advance(m, time_msec(), &wrapped);
        spent = atomic_load_explicit(&m->bands[0].spent, memory_order_acquire);
        t = MAX(t, load(&m->used)); /* as in band_take() */
        levels[n++] = (struct meter_level){
            .id = m->openflow_id - ofport,
            .level = wrapped ? m->bands[0].size : level_of(&m->bands[0], t, spent),
        };
    }
    return n;
}

size_t
meter_levels_lower(uint16_t ofport, const struct meter_level *levels, size_t n)
{
    size_t done = 0;

    for (size_t i = 0; i < n; i++) {
        struct meter *m = find_openflow(levels[i].id | ofport);
        struct band *band = m && m->n_bands ? &m->bands[0] : NULL;
        uint64_t t, spent, have;
        bool wrapped;

        if (!band) {
            continue;
        }
        t = advance(m, time_msec(), &wrapped);
        spent = atomic_load_explicit(&band->spent, memory_order_acquire);
        do {
            t = MAX(t, load(&m->used)); /* as in band_take() */
            have = wrapped ? band->size : level_of(band, t, spent);
        } while (have > levels[i].level &&
                 !atomic_compare_exchange_weak_explicit(
                     &band->spent, &spent, t * band->rate + band->size - levels[i].level,
                     memory_order_acq_rel, memory_order_acquire));
        done++;
    }
    return done;
}

/* --- the class's functions ------------------------------------------------------ */

void
dp_meter_get_features(const struct dpif *dpif OVS_UNUSED, struct ofputil_meter_features *features)
{
    *features = (struct ofputil_meter_features){
        .max_meters = METERS_MAX,
        .band_types = 1u << OFPMBT13_DROP,
        .capabilities = FLAGS_SUPPORTED,
        .max_bands = BANDS_MAX,
    };
}

static int
check_config(uint32_t id, const struct ofputil_meter_config *config)
{
    if (id >= METERS_MAX) {
        return EFBIG;
    }
    if (config->flags & ~FLAGS_SUPPORTED) {
        return EBADF;
    }
    if (config->n_bands > BANDS_MAX) {
        return EINVAL;
    }
    for (int i = 0; i < config->n_bands; i++) {
        if (config->bands[i].type != OFPMBT13_DROP) {
            return ENODEV;
        }
    }
    return 0;
}

int
dp_meter_set(struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_config *config)
{
    struct dp_meters *meters = dp_of(dpif)->meters;
    int error = check_config(id.uint32, config);
    uint32_t fastest = 1;
    struct meter *m;

    if (error) {
        return error;
    }
    m = xzalloc(sizeof *m + config->n_bands * sizeof m->bands[0]);
    m->per_packet = config->flags & OFPMF13_PKTPS;
    m->n_bands = config->n_bands;
    m->openflow_id = config->meter_id;
    m->created = time_msec();
    for (int i = 0; i < config->n_bands; i++) {
        const struct ofputil_meter_band *from = &config->bands[i];

        m->bands[i].rate = from->rate;
        m->bands[i].size = UINT64_C(1000) * (from->burst_size ? from->burst_size : from->rate);
        fastest = MAX(fastest, from->rate);
    }
    m->wrap_ms = (UINT64_C(1) << 62) / fastest;

    meters->end = MAX(meters->end, id.uint32 + 1);
    replace(meters, id.uint32, m);
    return 0;
}

static void
get_stats(const struct meter *m, struct ofputil_meter_stats *stats, uint16_t n_bands)
{
    stats->packet_in_count = load(&m->packets);
    stats->byte_in_count = load(&m->bytes);
    stats->n_bands = MIN(n_bands, m->n_bands);
    for (int i = 0; i < stats->n_bands; i++) {
        stats->bands[i].packet_count = load(&m->bands[i].packets);
        stats->bands[i].byte_count = load(&m->bands[i].bytes);
    }
}

int
dp_meter_get(const struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_stats *stats,
             uint16_t n_bands)
{
    const struct meter *m;

    if (id.uint32 >= METERS_MAX) {
        return EFBIG;
    }
    m = find(dp_of(dpif)->meters, id.uint32);
    if (!m) {
        return ENOENT;
    }
    if (stats) {
        get_stats(m, stats, n_bands);
    }
    return 0;
}

int
dp_meter_del(struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_stats *stats,
             uint16_t n_bands)
{
    int error = dp_meter_get(dpif, id, stats, n_bands);

    if (!error) {
        replace(dp_of(dpif)->meters, id.uint32, NULL);
    }
    return error;
}

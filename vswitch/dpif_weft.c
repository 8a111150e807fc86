/* The dpif class "weft": what ofproto and dpctl call, one line each where the
 * work is done elsewhere, and the datapath's life from open to the last close.
 *
 * A datapath lives as long as somebody has it open, plus, until it is
 * destroyed, a reference of its own. */
#include <config.h>

#include "dpif_weft.h"

#include <errno.h>

#include "conntrack.h"
#include "ctlog.h"
#include "dp.h"
#include "hash.h"
#include "odp-util.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovs-router.h"
#include "packets.h"
#include "seq.h"
#include "shadow.h"
#include "sset.h"
#include "tnl-neigh-cache.h"
#include "tnl-ports.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_weft);

static struct ovs_mutex dps_lock = OVS_MUTEX_INITIALIZER;
static struct shash dps OVS_GUARDED_BY(dps_lock) = SHASH_INITIALIZER(&dps);

static struct dpif_class dummy_class;

bool dpif_weft_is_default = true;

static bool
class_is_dummy(const struct dpif_class *class)
{
    return class == &dummy_class;
}

bool
dpif_is_weft(const struct dpif *dpif)
{
    return dpif->dpif_class == &dpif_weft_class || class_is_dummy(dpif->dpif_class);
}

static struct dpif_weft *
dpif_weft_cast(const struct dpif *dpif)
{
    ovs_assert(dpif_is_weft(dpif));
    return CONTAINER_OF(dpif, struct dpif_weft, dpif);
}

struct dp *
dp_of(const struct dpif *dpif)
{
    return dpif_weft_cast(dpif)->dp;
}

/* --- life ---------------------------------------------------------------- */

/* Takes it away from whoever might find it, and all it has beside its parts. */
static void
stop_dp(struct dp *dp) OVS_REQUIRES(dps_lock)
{
    shash_find_and_delete(&dps, dp->name);
    dp_ports_clear(dp);
    pollers_destroy(dp);
    shadow_close(dp);
    ctlog_close(dp->ctlog, shadow_kept());
    dp_destroy(dp);
}

static const char *
weft_port_open_type(const struct dpif_class *class, const char *type)
{
    return strcmp(type, "internal") ? type : class_is_dummy(class) ? "dummy-internal" : "tap";
}

static int
add_local_port(struct dp *dp)
{
    odp_port_t local = ODPP_LOCAL;
    struct netdev *netdev;
    int error;

    error = netdev_open(dp->name, weft_port_open_type(dp->class, "internal"), &netdev);
    if (error) {
        return error;
    }
    error = dp_port_add(dp, netdev, &local);
    netdev_close(netdev);
    return error;
}

static int
start_dp(const struct dpif_class *class, const char *name, struct dp **dpp) OVS_REQUIRES(dps_lock)
{
    struct dp *dp = dp_create(class, name);
    int error;

    if (!dp) {
        return ENOMEM;
    }
    dp->last_tnl_conf_seq = seq_read(tnl_conf_seq);
    if (!class_is_dummy(class)) {
        shadow_open(dp);
        dp->ctlog = ctlog_open(dp->name, dp->conntrack);
    }
    shash_add(&dps, name, dp);
    error = pollers_create(dp);
    if (!error) {
        error = add_local_port(dp);
    }
    if (error) {
        stop_dp(dp);
        return error;
    }
    *dpp = dp;
    return 0;
}

static void
dp_unref(struct dp *dp)
{
    /* Under the lock, so that nobody finds it in 'dps' as it goes. */
    ovs_mutex_lock(&dps_lock);
    if (ovs_refcount_unref_relaxed(&dp->refs) == 1) {
        stop_dp(dp);
    }
    ovs_mutex_unlock(&dps_lock);
}

static int
weft_enumerate(struct sset *names, const struct dpif_class *class)
{
    struct shash_node *node;

    ovs_mutex_lock(&dps_lock);
    SHASH_FOR_EACH (node, &dps) {
        const struct dp *dp = node->data;

        if (dp->class == class) {
            sset_add(names, node->name);
        }
    }
    ovs_mutex_unlock(&dps_lock);
    return 0;
}

static struct dpif *
make_dpif(struct dp *dp)
{
    struct dpif_weft *dpif = xmalloc(sizeof *dpif);
    uint16_t id = hash_string(dp->name, 0);

    ovs_refcount_ref(&dp->refs);
    dpif_init(&dpif->dpif, dp->class, dp->name, id >> 8, id);
    dpif->dp = dp;
    dpif->last_port_seq = seq_read(dp->port_seq);
    return &dpif->dpif;
}

static int
weft_open(const struct dpif_class *class, const char *name, bool create, struct dpif **dpifp)
{
    struct dp *dp;
    int error;

    ovs_mutex_lock(&dps_lock);
    dp = shash_find_data(&dps, name);
    if (dp) {
        error = dp->class != class ? EINVAL : create ? EEXIST : 0;
    } else {
        error = create ? start_dp(class, name, &dp) : ENODEV;
    }
    if (!error) {
        *dpifp = make_dpif(dp);
    }
    ovs_mutex_unlock(&dps_lock);
    return error;
}

static void
weft_close(struct dpif *dpif)
{
    dp_unref(dp_of(dpif));
    free(dpif_weft_cast(dpif));
}

static int
weft_destroy(struct dpif *dpif)
{
    struct dp *dp = dp_of(dpif);

    if (!atomic_flag_test_and_set(&dp->destroyed)) {
        /* Never the last one: the caller has it open. */
        ovs_refcount_unref_relaxed(&dp->refs);
    }
    return 0;
}

void
dpif_weft_exit(void)
{
    struct shash_node *node;

    ovs_mutex_lock(&dps_lock);
    SHASH_FOR_EACH_SAFE (node, &dps) {
        struct dp *dp = node->data;

        if (!atomic_flag_test_and_set(&dp->destroyed) &&
            ovs_refcount_unref_relaxed(&dp->refs) == 1) {
            stop_dp(dp);
        }
    }
    ovs_mutex_unlock(&dps_lock);
}

bool
dpif_weft_for_each(const char *name, void (*cb)(struct dp *, void *aux), void *aux)
{
    struct shash_node *node;
    bool found = false;

    ovs_mutex_lock(&dps_lock);
    SHASH_FOR_EACH (node, &dps) {
        if (!name || !strcmp(name, node->name)) {
            cb(node->data, aux);
            found = true;
        }
    }
    ovs_mutex_unlock(&dps_lock);
    return found;
}

/* --- the main loop's part ------------------------------------------------- */

static bool
weft_run(struct dpif *dpif)
{
    struct dp *dp = dp_of(dpif);
    uint64_t seq;

    dp_ports_run(dp);
    epoch_reclaim();
    tnl_neigh_cache_run();
    tnl_port_map_run();

    /* Routes and tunnel neighbours changed: translate everything again. */
    seq = seq_read(tnl_conf_seq);
    if (dp->last_tnl_conf_seq != seq) {
        dp->last_tnl_conf_seq = seq;
        return true;
    }
    return false;
}

static void
weft_wait(struct dpif *dpif)
{
    struct dp *dp = dp_of(dpif);

    dp_ports_wait(dp);
    seq_wait(tnl_conf_seq, dp->last_tnl_conf_seq);
}

static int
weft_get_stats(const struct dpif *dpif, struct dpif_dp_stats *stats)
{
    struct dp *dp = dp_of(dpif);
    struct worker_stats w;
    uint64_t hit;

    dp_workers_stats(dp, &w);
    atomic_read_relaxed(&dp->n_hit, &hit);
    atomic_read_relaxed(&dp->n_missed, &stats->n_missed);
    atomic_read_relaxed(&dp->n_lost, &stats->n_lost);
    stats->n_hit = w.cache_hits + hit;
    stats->n_flows = dp_flow_count(dp);
    /* Unlike the kernel's, ours are not probed one by one: see weft/show. */
    stats->n_masks = UINT32_MAX;
    stats->n_mask_hit = UINT64_MAX;
    stats->n_cache_hit = UINT64_MAX;
    return 0;
}

static int
weft_set_config(struct dpif *dpif, const struct smap *other_config)
{
    pollers_set_config(dp_of(dpif), other_config);
    return 0;
}

static int
weft_queue_to_priority(const struct dpif *dpif OVS_UNUSED, uint32_t queue_id, uint32_t *priority)
{
    *priority = queue_id;
    return 0;
}

static char *
weft_get_datapath_version(void)
{
    return xstrdup("<built-in>");
}

/* --- ports ------------------------------------------------------------------ */

static int
weft_port_add(struct dpif *dpif, struct netdev *netdev, odp_port_t *port_no)
{
    return dp_port_add(dp_of(dpif), netdev, port_no);
}

static int
weft_port_del(struct dpif *dpif, odp_port_t port_no)
{
    return port_no == ODPP_LOCAL ? EINVAL : dp_port_del(dp_of(dpif), port_no);
}

static int
weft_port_set_config(struct dpif *dpif, odp_port_t port_no, const struct smap *config OVS_UNUSED)
{
    /* Open vSwitch's settings per port are about polling threads and caches
     * that are not ours. */
    return dp_port_query_by_number(dpif, port_no, NULL);
}

static int
weft_port_poll(const struct dpif *dpif_, char **name OVS_UNUSED)
{
    struct dpif_weft *dpif = dpif_weft_cast(dpif_);
    uint64_t seq = seq_read(dpif->dp->port_seq);

    if (dpif->last_port_seq == seq) {
        return EAGAIN;
    }
    dpif->last_port_seq = seq;
    return ENOBUFS;
}

static void
weft_port_poll_wait(const struct dpif *dpif_)
{
    struct dpif_weft *dpif = dpif_weft_cast(dpif_);

    seq_wait(dpif->dp->port_seq, dpif->last_port_seq);
}

/* --- flows ------------------------------------------------------------------ */

static int
weft_flow_flush(struct dpif *dpif)
{
    dp_flow_flush(dp_of(dpif));
    return 0;
}

/* How many there are of that kind in front: deletions, which wait for the
 * workers together, or others. */
static size_t
ops_of_kind(struct dpif_op **ops, size_t n, bool dels)
{
    size_t i = 0;

    while (i < n && (ops[i]->type == DPIF_OP_FLOW_DEL) == dels) {
        i++;
    }
    return i;
}

static void
weft_operate(struct dpif *dpif, struct dpif_op **ops, size_t n,
             enum dpif_offload_type offload OVS_UNUSED)
{
    struct dp *dp = dp_of(dpif);
    size_t n_dels, n_others;

    for (; n; n -= n_dels + n_others) {
        n_dels = ops_of_kind(ops, n, true);
        if (n_dels) {
            dp_flow_del_batch(dp, ops, n_dels);
            ops += n_dels;
        }
        n_others = ops_of_kind(ops, n - n_dels, false);
        /* A handler's flows, then the packets that asked for them. */
        for (size_t i = 0; i < n_others; i++) {
            if (ops[i]->type == DPIF_OP_FLOW_PUT) {
                ops[i]->error = dp_flow_put(dp, &ops[i]->flow_put);
            } else if (ops[i]->type == DPIF_OP_FLOW_GET) {
                ops[i]->error = dp_flow_get(dp, &ops[i]->flow_get);
            }
        }
        dp_execute_ops(dp, ops, n_others);
        ops += n_others;
    }
}

/* The handlers are about to start: misses are theirs. */
static int
weft_handlers_set(struct dpif *dpif, uint32_t n)
{
    int error = dp_upcall_handlers_set(dpif, n);

    shadow_retire(dp_of(dpif));
    return error;
}

static int
weft_init(void)
{
    dpif_weft_show_init();
    return 0;
}

const struct dpif_class dpif_weft_class = {
    .type = DP_TYPE,
    .cleanup_required = true,
    .init = weft_init,
    .enumerate = weft_enumerate,
    .port_open_type = weft_port_open_type,
    .open = weft_open,
    .close = weft_close,
    .destroy = weft_destroy,
    .run = weft_run,
    .wait = weft_wait,
    .get_stats = weft_get_stats,
    .port_add = weft_port_add,
    .port_del = weft_port_del,
    .port_set_config = weft_port_set_config,
    .port_query_by_number = dp_port_query_by_number,
    .port_query_by_name = dp_port_query_by_name,
    .port_dump_start = dp_port_dump_start,
    .port_dump_next = dp_port_dump_next,
    .port_dump_done = dp_port_dump_done,
    .port_poll = weft_port_poll,
    .port_poll_wait = weft_port_poll_wait,
    .flow_flush = weft_flow_flush,
    .flow_dump_create = dp_flow_dump_create,
    .flow_dump_destroy = dp_flow_dump_destroy,
    .flow_dump_thread_create = dp_flow_dump_thread_create,
    .flow_dump_thread_destroy = dp_flow_dump_thread_destroy,
    .flow_dump_next = dp_flow_dump_next,
    .operate = weft_operate,
    /* Upcalls go to ofproto's handler threads, as the kernel's do: no
     * register_upcall_cb and the like. */
    .recv_set = dp_upcall_recv_set,
    .handlers_set = weft_handlers_set,
    .recv = dp_upcall_recv,
    .recv_wait = dp_upcall_recv_wait,
    .recv_purge = dp_upcall_recv_purge,
    .set_config = weft_set_config,
    .queue_to_priority = weft_queue_to_priority,
    .get_datapath_version = weft_get_datapath_version,
    .ct_dump_start = weft_ct_dump_start,
    .ct_dump_next = weft_ct_dump_next,
    .ct_dump_done = weft_ct_dump_done,
    .ct_flush = weft_ct_flush,
    .ct_set_maxconns = weft_ct_set_maxconns,
    .ct_get_maxconns = weft_ct_get_maxconns,
    .ct_get_nconns = weft_ct_get_nconns,
    .ct_set_tcp_seq_chk = weft_ct_set_tcp_seq_chk,
    .ct_get_tcp_seq_chk = weft_ct_get_tcp_seq_chk,
    .ct_set_limits = weft_ct_set_limits,
    .ct_get_limits = weft_ct_get_limits,
    .ct_del_limits = weft_ct_del_limits,
    .ct_set_timeout_policy = weft_ct_set_timeout_policy,
    .ct_get_timeout_policy = weft_ct_get_timeout_policy,
    .ct_del_timeout_policy = weft_ct_del_timeout_policy,
    .ct_get_timeout_policy_name = weft_ct_get_timeout_policy_name,
    .ct_get_features = weft_ct_get_features,
    .ipf_set_enabled = weft_ipf_set_enabled,
    .ipf_set_min_frag = weft_ipf_set_min_frag,
    .ipf_set_max_nfrags = weft_ipf_set_max_nfrags,
    .ipf_get_status = weft_ipf_get_status,
    .ipf_dump_start = weft_ipf_dump_start,
    .ipf_dump_next = weft_ipf_dump_next,
    .ipf_dump_done = weft_ipf_dump_done,
    .meter_get_features = dp_meter_get_features,
    .meter_set = dp_meter_set,
    .meter_get = dp_meter_get,
    .meter_del = dp_meter_del,
    .bond_add = dp_bond_add,
    .bond_del = dp_bond_del,
    .bond_stats_get = dp_bond_stats_get,
};

void
dpif_weft_register(bool dummy)
{
    dp_register_provider(&dpif_weft_class);
    if (dummy) {
        dummy_class = dpif_weft_class;
        dummy_class.type = DP_TYPE "-dummy";
        dummy_class.init = NULL;
        dp_register_provider(&dummy_class);
    }
}

/* A datapath's parts, put together and taken apart. */
#include <config.h>

#include "dp.h"

#include <stdlib.h>

#include "dp_record.h"
#include "netback.h"
#include "odp-util.h"
#include "util.h"

static const struct engine_ops engine_ops = {
    .miss = dp_miss,
    .slow = dp_slow,
    .track = dp_track,
    .track_soon = dp_track_soon,
    .verdict_free = dp_verdict_free,
    .way = dp_record_way,
    .free = dp_packets_free,
    .complete = netback_complete,
};

const struct odp_support dp_odp_support = {
    .max_vlan_headers = SIZE_MAX,
    .max_mpls_depth = SIZE_MAX,
    .recirc = true,
    .ct_state = true,
    .ct_zone = true,
    .ct_mark = true,
    .ct_label = true,
    .ct_state_nat = true,
    .ct_orig_tuple = true,
    .ct_orig_tuple6 = true,
    .nd_ext = true,
};

struct dp *
dp_create(const struct dpif_class *class, const char *name)
{
    struct dp *dp = xzalloc(sizeof *dp);

    dp->engine = engine_create(&engine_ops, dp);
    if (!dp->engine) {
        free(dp);
        return NULL;
    }
    dp->class = class;
    dp->name = xstrdup(name);
    ovs_refcount_init(&dp->refs);
    atomic_flag_clear(&dp->destroyed);
    atomic_init(&dp->n_hit, 0);
    atomic_init(&dp->n_missed, 0);
    atomic_init(&dp->n_lost, 0);

    dp_workers_init(dp);
    dp_upcalls_init(dp);
    dp_meters_init(dp);
    dp_bonds_init(dp);
    dp_ct_init(dp);
    dp_masks_init(dp);
    dp_flows_init(dp);
    dp_ports_init(dp);
    return dp;
}

void
dp_destroy(struct dp *dp)
{
    if (!dp) {
        return;
    }
    dp_flows_destroy(dp);
    dp_masks_destroy(dp);
    dp_ct_destroy(dp);
    dp_bonds_destroy(dp);
    dp_meters_destroy(dp);
    dp_upcalls_destroy(dp);
    dp_workers_destroy(dp);
    dp_ports_destroy(dp);
    /* What was deferred refers to the engine. */
    epoch_synchronize();
    engine_destroy(dp->engine);
    free(dp->name);
    free(dp);
}

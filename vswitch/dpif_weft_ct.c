/* Connection tracking and IP fragments, as ofproto and dpctl ask for them:
 * Open vSwitch's own tracker has it all. */
#include <config.h>

#include <errno.h>

#include "conntrack.h"
/* Needs the one above. */
#include "conntrack-tp.h"
#include "dp.h"
#include "dpif_weft.h"
#include "ipf.h"
#include "util.h"

struct ct_dump {
    struct ct_dpif_dump_state up;
    struct conntrack_dump dump;
};

static struct conntrack *
tracker(const struct dpif *dpif)
{
    return dp_of(dpif)->conntrack;
}

static struct ipf *
fragments(const struct dpif *dpif)
{
    return conntrack_ipf_ctx(tracker(dpif));
}

/* --- connections --------------------------------------------------------- */

int
weft_ct_dump_start(struct dpif *dpif, struct ct_dpif_dump_state **state, const uint16_t *zone,
                   int *n_buckets)
{
    struct ct_dump *dump = xzalloc(sizeof *dump);

    conntrack_dump_start(tracker(dpif), &dump->dump, zone, n_buckets);
    *state = &dump->up;
    return 0;
}

int
weft_ct_dump_next(struct dpif *dpif OVS_UNUSED, struct ct_dpif_dump_state *state,
                  struct ct_dpif_entry *entry)
{
    return conntrack_dump_next(&CONTAINER_OF(state, struct ct_dump, up)->dump, entry);
}

int
weft_ct_dump_done(struct dpif *dpif OVS_UNUSED, struct ct_dpif_dump_state *state)
{
    struct ct_dump *dump = CONTAINER_OF(state, struct ct_dump, up);
    int error = conntrack_dump_done(&dump->dump);

    free(dump);
    return error;
}

int
weft_ct_flush(struct dpif *dpif, const uint16_t *zone, const struct ct_dpif_tuple *tuple)
{
    return tuple ? conntrack_flush_tuple(tracker(dpif), tuple, zone ? *zone : 0)
                 : conntrack_flush(tracker(dpif), zone);
}

int
weft_ct_set_maxconns(struct dpif *dpif, uint32_t n)
{
    return conntrack_set_maxconns(tracker(dpif), n);
}

int
weft_ct_get_maxconns(struct dpif *dpif, uint32_t *n)
{
    return conntrack_get_maxconns(tracker(dpif), n);
}

int
weft_ct_get_nconns(struct dpif *dpif, uint32_t *n)
{
    return conntrack_get_nconns(tracker(dpif), n);
}

int
weft_ct_set_tcp_seq_chk(struct dpif *dpif, bool enabled)
{
    return conntrack_set_tcp_seq_chk(tracker(dpif), enabled);
}

int
weft_ct_get_tcp_seq_chk(struct dpif *dpif, bool *enabled)
{
    *enabled = conntrack_get_tcp_seq_chk(tracker(dpif));
    return 0;
}

/* --- limits per zone -------------------------------------------------------- */

int
weft_ct_set_limits(struct dpif *dpif, const uint32_t *default_limit, const struct ovs_list *zones)
{
    struct ct_dpif_zone_limit *z;
    int error = 0;

    if (default_limit) {
        error = zone_limit_update(tracker(dpif), DEFAULT_ZONE, *default_limit);
    }
    LIST_FOR_EACH (z, node, zones) {
        if (error) {
            break;
        }
        error = zone_limit_update(tracker(dpif), z->zone, z->limit);
    }
    return error;
}

static void
push_limit(struct ovs_list *out, uint16_t zone, struct conntrack_zone_limit *l)
{
    ct_dpif_push_zone_limit(out, zone, l->limit, atomic_count_get(&l->count));
}

int
weft_ct_get_limits(struct dpif *dpif, uint32_t *default_limit, const struct ovs_list *in,
                   struct ovs_list *out)
{
    struct conntrack_zone_limit l = zone_limit_get(tracker(dpif), DEFAULT_ZONE);
    struct ct_dpif_zone_limit *z;

    if (l.zone != DEFAULT_ZONE) {
        return EINVAL;
    }
    *default_limit = l.limit;

    LIST_FOR_EACH (z, node, in) {
        l = zone_limit_get(tracker(dpif), z->zone);
        if (l.zone != z->zone && l.zone != DEFAULT_ZONE) {
            return EINVAL;
        }
        push_limit(out, z->zone, &l);
    }
    if (ovs_list_is_empty(in)) {
        for (int32_t zone = MIN_ZONE; zone <= MAX_ZONE; zone++) {
            l = zone_limit_get(tracker(dpif), zone);
            if (l.zone == zone) {
                push_limit(out, zone, &l);
            }
        }
    }
    return 0;
}

int
weft_ct_del_limits(struct dpif *dpif, const struct ovs_list *zones)
{
    struct ct_dpif_zone_limit *z;
    int error = 0;

    LIST_FOR_EACH (z, node, zones) {
        error = zone_limit_delete(tracker(dpif), z->zone);
        if (error) {
            break;
        }
    }
    return error;
}

/* --- timeout policies --------------------------------------------------------- */

int
weft_ct_set_timeout_policy(struct dpif *dpif, const struct ct_dpif_timeout_policy *policy)
{
    struct timeout_policy tp = {.policy = *policy};

    return timeout_policy_update(tracker(dpif), &tp);
}

int
weft_ct_get_timeout_policy(struct dpif *dpif, uint32_t id, struct ct_dpif_timeout_policy *policy)
{
    const struct timeout_policy *tp = timeout_policy_get(tracker(dpif), id);

    if (!tp) {
        return ENOENT;
    }
    *policy = tp->policy;
    return 0;
}

int
weft_ct_del_timeout_policy(struct dpif *dpif, uint32_t id)
{
    return timeout_policy_delete(tracker(dpif), id);
}

int
weft_ct_get_timeout_policy_name(struct dpif *dpif OVS_UNUSED, uint32_t id,
                                uint16_t dl_type OVS_UNUSED, uint8_t nw_proto OVS_UNUSED,
                                char **name, bool *is_generic)
{
    *name = xasprintf("%" PRIu32, id);
    *is_generic = true;
    return 0;
}

int
weft_ct_get_features(struct dpif *dpif OVS_UNUSED, enum ct_features *features)
{
    if (features) {
        *features = CONNTRACK_F_ZERO_SNAT;
    }
    return 0;
}

/* --- fragments ------------------------------------------------------------------ */

int
weft_ipf_set_enabled(struct dpif *dpif, bool v6, bool enable)
{
    return ipf_set_enabled(fragments(dpif), v6, enable);
}

int
weft_ipf_set_min_frag(struct dpif *dpif, bool v6, uint32_t bytes)
{
    return ipf_set_min_frag(fragments(dpif), v6, bytes);
}

int
weft_ipf_set_max_nfrags(struct dpif *dpif, uint32_t n)
{
    return ipf_set_max_nfrags(fragments(dpif), n);
}

static void
copy_proto(struct dpif_ipf_proto_status *to, const struct ipf_proto_status *from)
{
    *to = (struct dpif_ipf_proto_status){
        .nfrag_accepted = from->nfrag_accepted,
        .nfrag_completed_sent = from->nfrag_completed_sent,
        .nfrag_expired_sent = from->nfrag_expired_sent,
        .nfrag_too_small = from->nfrag_too_small,
        .nfrag_overlap = from->nfrag_overlap,
        .nfrag_purged = from->nfrag_purged,
        .min_frag_size = from->min_frag_size,
        .enabled = from->enabled,
    };
}

int
weft_ipf_get_status(struct dpif *dpif, struct dpif_ipf_status *status)
{
    struct ipf_status s;

    ipf_get_status(fragments(dpif), &s);
    copy_proto(&status->v4, &s.v4);
    copy_proto(&status->v6, &s.v6);
    status->nfrag = s.nfrag;
    status->nfrag_max = s.nfrag_max;
    return 0;
}

int
weft_ipf_dump_start(struct dpif *dpif OVS_UNUSED, struct ipf_dump_ctx **ctx)
{
    return ipf_dump_start(ctx);
}

int
weft_ipf_dump_next(struct dpif *dpif, void *ctx, char **text)
{
    return ipf_dump_next(fragments(dpif), ctx, text);
}

int
weft_ipf_dump_done(struct dpif *dpif OVS_UNUSED, void *ctx)
{
    return ipf_dump_done(ctx);
}

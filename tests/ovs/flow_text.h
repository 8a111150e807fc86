/* flow_text: megaflows in dpctl's notation. */
#ifndef FLOW_TEXT_H
#define FLOW_TEXT_H

#include "dp.h"
#include "odp-util.h"
#include "openvswitch/ofpbuf.h"
#include "util.h"

struct flow_text {
    struct ofpbuf key, mask, actions;
};

static inline void
flow_text_init(struct flow_text *t, const char *flow, const char *actions)
{
    char *error = NULL;

    ofpbuf_init(&t->key, 0);
    ofpbuf_init(&t->mask, 0);
    ofpbuf_init(&t->actions, 0);
    if (odp_flow_from_string(flow, NULL, &t->key, &t->mask, &error) ||
        odp_actions_from_string(actions, NULL, &t->actions)) {
        ovs_abort(0, "%s; %s: %s", flow, actions, error ? error : "");
    }
}

static inline void
flow_text_uninit(struct flow_text *t)
{
    ofpbuf_uninit(&t->key);
    ofpbuf_uninit(&t->mask);
    ofpbuf_uninit(&t->actions);
}

/* dp_flow_put(); 'ufid' and 'stats' may be NULL. */
static inline int
flow_text_put(struct dp *dp, enum dpif_flow_put_flags flags, const ovs_u128 *ufid, const char *flow,
              const char *actions, struct dpif_flow_stats *stats)
{
    struct flow_text t;
    int error;

    flow_text_init(&t, flow, actions);
    error = dp_flow_put(dp, &(struct dpif_flow_put){
                                .flags = flags,
                                .key = t.key.data,
                                .key_len = t.key.size,
                                .mask = t.mask.data,
                                .mask_len = t.mask.size,
                                .actions = t.actions.data,
                                .actions_len = t.actions.size,
                                .ufid = ufid,
                                .pmd_id = PMD_ID_NULL,
                                .stats = stats,
                            });
    flow_text_uninit(&t);
    return error;
}

#endif

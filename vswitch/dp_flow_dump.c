/* Megaflows: dumps.
 *
 * Several threads share a dump, each asks for a handful of flows at a time.
 * While it describes them it is an online reader of its own, so that a flow
 * that somebody deletes in the meantime keeps its id, and thereby its
 * statistics, until it is done with (see dp_flow.c). */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "dp_flow_entry.h"
#include "odp-util.h"
#include "openvswitch/ofpbuf.h"
#include "util.h"

#define BATCH_MAX 50

struct dump {
    struct dpif_flow_dump up;
    struct dp *dp;
    struct ovs_mutex mutex;
    struct cmap_position pos OVS_GUARDED_BY(mutex);
    bool ended OVS_GUARDED_BY(mutex);
};

struct dump_thread {
    struct dpif_flow_dump_thread up;
    struct dump *dump;
    struct epoch_reader reader;
    struct odputil_keybuf keys[BATCH_MAX], masks[BATCH_MAX];
};

/* For people: which packets' lookups end in the exact-match cache, and how
 * their actions are carried out.  The strings are shown beside the flow long
 * after it is gone, so they are constant. */
static const char *
extra_info(const struct dp_flow *flow, const struct program *program)
{
    static const char *const texts[][PROGRAM_SLOW + 1] = {
        {"cached:no,actions:drop", "cached:no,actions:output", "cached:no,actions:edit",
         "cached:no,actions:track", "cached:no,actions:general"},
        {"cached:yes,actions:drop", "cached:yes,actions:output", "cached:yes,actions:edit",
         "cached:yes,actions:track", "cached:yes,actions:general"},
        {"cached:by-connection,actions:drop", "cached:by-connection,actions:output",
         "cached:by-connection,actions:edit", "cached:by-connection,actions:track",
         "cached:by-connection,actions:general"},
    };
    unsigned cached = flow->fast.covers ? 1 : flow->covers_tracked ? 2 : 0;

    return texts[cached][program->kind];
}

void
dp_flow_describe(const struct dp_flow *flow, struct ofpbuf *key, struct ofpbuf *mask, bool terse,
                 struct dpif_flow *out)
{
    /* First: what else there is of a flow was set before its program. */
    const struct dp_actions *actions = dp_flow_actions(flow);

    memset(out, 0, sizeof *out);
    if (!terse) {
        struct flow unmasked;
        struct odp_flow_key_parms parms = {
            .flow = &unmasked,
            .mask = &dp_match_wc(flow)->masks,
            .support = dp_odp_support,
        };
        size_t key_ofs = key->size, mask_ofs;

        miniflow_expand(&dp_flow_entry_of(flow)->key, &unmasked);
        odp_flow_key_from_flow(&parms, key);
        out->key_len = key->size - key_ofs;

        mask_ofs = mask->size;
        parms.key_buf = key;
        odp_flow_key_from_mask(&parms, mask);
        out->mask_len = mask->size - mask_ofs;

        /* Now that the buffers will not move any more. */
        out->key = ofpbuf_at_assert(key, key_ofs, out->key_len);
        out->mask = ofpbuf_at_assert(mask, mask_ofs, out->mask_len);
        out->actions = actions->actions;
        out->actions_len = actions->len;
    }
    out->ufid = flow->ufid;
    out->ufid_present = true;
    out->pmd_id = PMD_ID_NULL;
    out->attrs.offloaded = false;
    out->attrs.dp_layer = "ovs";
    out->attrs.dp_extra_info = extra_info(flow, actions->program);
    dp_flow_stats(flow, &out->stats);
}

struct dpif_flow_dump *
dp_flow_dump_create(const struct dpif *dpif, bool terse, struct dpif_flow_dump_types *types)
{
    struct dump *dump = xzalloc(sizeof *dump);

    dpif_flow_dump_init(&dump->up, dpif);
    dump->up.terse = terse;
    dump->dp = dp_of(dpif);
    ovs_mutex_init(&dump->mutex);
    return &dump->up;
}

int
dp_flow_dump_destroy(struct dpif_flow_dump *dump_)
{
    struct dump *dump = CONTAINER_OF(dump_, struct dump, up);

    ovs_mutex_destroy(&dump->mutex);
    free(dump);
    return 0;
}

struct dpif_flow_dump_thread *
dp_flow_dump_thread_create(struct dpif_flow_dump *dump_)
{
    struct dump *dump = CONTAINER_OF(dump_, struct dump, up);
    struct dump_thread *thread = xmalloc_cacheline(sizeof *thread);

    dpif_flow_dump_thread_init(&thread->up, &dump->up);
    thread->dump = dump;
    memset(&thread->reader, 0, sizeof thread->reader);
    epoch_register(&thread->reader);
    return &thread->up;
}

void
dp_flow_dump_thread_destroy(struct dpif_flow_dump_thread *thread_)
{
    struct dump_thread *thread = CONTAINER_OF(thread_, struct dump_thread, up);

    epoch_unregister(&thread->reader);
    free_cacheline(thread);
}

/* Up to 'max' flows that nobody else is given. */
static int
next_flows(struct dump *dump, const struct dp_flow *flows[], int max)
{
    int n = 0;

    ovs_mutex_lock(&dump->mutex);
    while (n < max && !dump->ended) {
        struct cmap_node *node = cmap_next_position(&dump->dp->flows, &dump->pos);

        if (node) {
            flows[n++] = CONTAINER_OF(node, struct dp_flow, ufid_node);
        } else {
            dump->ended = true;
        }
    }
    ovs_mutex_unlock(&dump->mutex);
    return n;
}

int
dp_flow_dump_next(struct dpif_flow_dump_thread *thread_, struct dpif_flow *out, int max_flows)
{
    struct dump_thread *thread = CONTAINER_OF(thread_, struct dump_thread, up);
    struct dump *dump = thread->dump;
    const struct dp_flow *flows[BATCH_MAX];
    int n;

    epoch_online(&thread->reader);
    n = next_flows(dump, flows, MIN(max_flows, BATCH_MAX));
    for (int i = 0; i < n; i++) {
        struct ofpbuf key, mask;

        ofpbuf_use_stack(&key, &thread->keys[i], sizeof thread->keys[i]);
        ofpbuf_use_stack(&mask, &thread->masks[i], sizeof thread->masks[i]);
        dp_flow_describe(flows[i], &key, &mask, dump->up.terse, &out[i]);
    }
    epoch_offline(&thread->reader);
    return n;
}

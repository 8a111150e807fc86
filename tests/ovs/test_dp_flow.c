/* Megaflows: put, get, del, dumps, what their actions compile to, and their
 * statistics, also while workers count and others put, change and delete. */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "coverage.h"
#include "dp_rig.h"
#include "fast/program.h"
#include "flow_text.h"
#include "frames.h"
#include "odp-util.h"
#include "openvswitch/dynamic-string.h"
#include "timeval.h"

/* --- putting and looking -------------------------------------------------------- */

static ovs_u128
ufid_of(uint64_t n)
{
    return (ovs_u128){.u64 = {.hi = n, .lo = n * UINT64_C(0x9e3779b97f4a7c15)}};
}

/* 'id' 0: without a ufid. */
static int
put(enum dpif_flow_put_flags flags, uint64_t id, const char *flow, const char *actions,
    struct dpif_flow_stats *stats)
{
    ovs_u128 ufid = ufid_of(id);

    return flow_text_put(rig_dp, flags, id ? &ufid : NULL, flow, actions, stats);
}

static int
del(uint64_t id, const char *flow, struct dpif_flow_stats *stats)
{
    ovs_u128 ufid = ufid_of(id);
    struct flow_text t;
    int error;

    flow_text_init(&t, flow, "drop");
    error = dp_flow_del(rig_dp, &(struct dpif_flow_del){
                                    .key = t.key.data,
                                    .key_len = t.key.size,
                                    .ufid = id ? &ufid : NULL,
                                    .pmd_id = PMD_ID_NULL,
                                    .stats = stats,
                                });
    flow_text_uninit(&t);
    return error;
}

static char *
describe(const struct dpif_flow *f)
{
    struct ds s = DS_EMPTY_INITIALIZER;

    odp_flow_format(f->key, f->key_len, f->mask, f->mask_len, NULL, &s, false);
    ds_put_cstr(&s, " actions:");
    format_odp_actions(&s, f->actions, f->actions_len, NULL);
    return ds_steal_cstr(&s);
}

/* Whether a get finds the flow described as 'want'; NULL: not at all. */
static bool
shows(uint64_t id, const char *flow, const char *want)
{
    uint64_t stub[DPIF_FLOW_BUFSIZE / 8];
    ovs_u128 ufid = ufid_of(id);
    struct dpif_flow found;
    struct ofpbuf buf;
    struct flow_text t;
    int error;
    char *got;
    bool same;

    ofpbuf_use_stub(&buf, stub, sizeof stub);
    flow_text_init(&t, flow, "drop");
    error = dp_flow_get(rig_dp, &(struct dpif_flow_get){
                                    .key = t.key.data,
                                    .key_len = t.key.size,
                                    .ufid = id ? &ufid : NULL,
                                    .pmd_id = PMD_ID_NULL,
                                    .buffer = &buf,
                                    .flow = &found,
                                });
    flow_text_uninit(&t);
    if (error) {
        return error == ENOENT && !want;
    }
    got = describe(&found);
    same = want && !strcmp(got, want) && found.ufid_present && found.pmd_id == PMD_ID_NULL &&
           (!id || ovs_u128_equals(found.ufid, ufid));
    if (!same) {
        printf("# got: %s\n", got);
    }
    free(got);
    ofpbuf_uninit(&buf);
    return same;
}

#define UDP "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=53)"
#define WIDE "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)"
#define OTHER "recirc_id(0),in_port(2),eth_type(0x0806),arp(op=1/0)"
/* As dumps show them. */
#define UDP_SHOWN "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=53)"
#define WIDE_SHOWN "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)"
#define OTHER_SHOWN "recirc_id(0),in_port(2),eth_type(0x0806)"

static void
test_put(void)
{
    CASE("flow-put-get-del");
    CHECK(!put(DPIF_FP_CREATE, 1, UDP, "2", NULL));
    CHECK(dp_flow_count(rig_dp) == 1);
    CHECK(shows(1, UDP, UDP_SHOWN " actions:2"));
    CHECK(shows(2, UDP, NULL));
    CHECK(shows(0, UDP, NULL)); /* it has a ufid that is no hash of its key */
    CHECK(put(DPIF_FP_CREATE, 1, UDP, "3", NULL) == EEXIST);
    CHECK(put(DPIF_FP_CREATE, 1, OTHER, "3", NULL) == EEXIST);
    CHECK(shows(1, UDP, UDP_SHOWN " actions:2"));
    CHECK(del(2, UDP, NULL) == ENOENT);
    CHECK(!del(1, UDP, NULL));
    CHECK(del(1, UDP, NULL) == ENOENT);
    CHECK(shows(1, UDP, NULL));
    CHECK(dp_flow_count(rig_dp) == 0 && dp_masks_count(rig_dp) == 0);

    CASE("flow-put-without-ufid");
    CHECK(!put(DPIF_FP_CREATE, 0, UDP, "2", NULL));
    CHECK(shows(0, UDP, UDP_SHOWN " actions:2"));
    CHECK(put(DPIF_FP_CREATE, 0, UDP, "3", NULL) == EEXIST);
    CHECK(!put(DPIF_FP_MODIFY, 0, UDP, "3", NULL));
    CHECK(shows(0, UDP, UDP_SHOWN " actions:3"));
    CHECK(!del(0, UDP, NULL));
    CHECK(del(0, UDP, NULL) == ENOENT);

    CASE("flow-put-flags");
    CHECK(put(DPIF_FP_MODIFY, 1, UDP, "2", NULL) == ENOENT);
    CHECK(put(0, 1, UDP, "2", NULL) == ENOENT);
    CHECK(!put(DPIF_FP_CREATE | DPIF_FP_MODIFY, 1, UDP, "2", NULL));
    CHECK(!put(DPIF_FP_CREATE | DPIF_FP_MODIFY, 1, UDP, "3,4", NULL));
    CHECK(shows(1, UDP, UDP_SHOWN " actions:3,4"));
    CHECK(put(0, 1, UDP, "2", NULL) == EINVAL);
    CHECK(put(DPIF_FP_MODIFY, 2, UDP, "2", NULL) == ENOENT);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "push_vlan(vid=5,pcp=0),2", NULL));
    CHECK(shows(1, UDP, UDP_SHOWN " actions:push_vlan(vid=5,pcp=0),2"));
    CHECK(!del(1, UDP, NULL));

    /* Packets that miss together lead to the same flow by several names. */
    CASE("flow-put-overlap");
    CHECK(!put(DPIF_FP_CREATE, 1, WIDE, "2", NULL));
    CHECK(put(DPIF_FP_CREATE, 2, UDP, "2", NULL) == EEXIST);
    CHECK(!put(DPIF_FP_CREATE, 3, OTHER, "2", NULL));
    CHECK(dp_flow_count(rig_dp) == 2 && dp_masks_count(rig_dp) == 2);
    CHECK(shows(1, WIDE, WIDE_SHOWN " actions:2"));
    CHECK(shows(3, OTHER, OTHER_SHOWN " actions:2"));
    dp_flow_flush(rig_dp);
    CHECK(dp_flow_count(rig_dp) == 0 && dp_masks_count(rig_dp) == 0);
    CHECK(shows(1, WIDE, NULL));

    CASE("flow-put-refused");
    CHECK(put(DPIF_FP_CREATE | DPIF_FP_PROBE, 1,
              "recirc_id(0),in_port(1/0x1),eth_type(0x0800),ipv4(frag=no)", "2", NULL) == EINVAL);
    CHECK(put(DPIF_FP_CREATE | DPIF_FP_PROBE, 1, "recirc_id(0),in_port(1),eth_type(0x0800)", "2",
              NULL) == EINVAL);
    CHECK(dp_flow_count(rig_dp) == 0 && dp_masks_count(rig_dp) == 0);
}

/* What an upcall's key says of a neighbour discovery comes back from a dump. */
static void
test_nd(void)
{
    static const char nd[] = "recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(proto=58,frag=no),"
                             "icmpv6(type=135,code=0),nd(target=fe80::1),"
                             "nd_ext(nd_reserved=0x5,nd_options_type=2)";
    char *shown = xasprintf("%s actions:2", nd);

    CASE("flow-nd-extensions");
    CHECK(!put(DPIF_FP_CREATE, 1, nd, "2", NULL));
    CHECK(shows(1, nd, shown));
    CHECK(!del(1, nd, NULL));
    free(shown);
}

/* A tag that is not mentioned is one that is not there. */
static void
test_vlan(void)
{
    struct flow flow;
    struct dp_flow *found;

    CASE("flow-put-vlan");
    memset(&flow, 0, sizeof flow);
    flow.in_port.odp_port = u32_to_odp(1);
    flow.dl_type = htons(ETH_TYPE_IP);
    CHECK(!put(DPIF_FP_CREATE, 1, WIDE, "2", NULL));
    found = dp_flow_classify(rig_dp, &flow);
    CHECK(found && ovs_u128_equals(found->ufid, ufid_of(1)));
    flow.vlans[0].tpid = htons(ETH_TYPE_VLAN_8021Q);
    flow.vlans[0].tci = htons(VLAN_CFI | 5);
    CHECK(!dp_flow_classify(rig_dp, &flow));
    CHECK(!put(DPIF_FP_CREATE, 2,
               "recirc_id(0),in_port(1),eth_type(0x8100),vlan(vid=5,pcp=0/0),"
               "encap(eth_type(0x0800),ipv4(frag=no))",
               "pop_vlan,2", NULL));
    found = dp_flow_classify(rig_dp, &flow);
    CHECK(found && ovs_u128_equals(found->ufid, ufid_of(2)));
    dp_flow_flush(rig_dp);
}

/* --- actions ----------------------------------------------------------------------- */

static const struct program *
program_of(uint64_t id)
{
    struct dp_flow *flow;
    ovs_u128 ufid = ufid_of(id);

    CMAP_FOR_EACH(flow, ufid_node, &rig_dp->flows)
    {
        if (ovs_u128_equals(flow->ufid, ufid)) {
            return atomic_load(&flow->fast.program);
        }
    }
    return NULL;
}

static const struct program *
compiles(const char *actions, enum program_kind kind)
{
    const struct program *p;

    if (put(DPIF_FP_CREATE | DPIF_FP_MODIFY, 1, UDP, actions, NULL)) {
        return NULL;
    }
    p = program_of(1);
    if (p->kind != kind) {
        printf("# %s: kind %d\n", actions, p->kind);
        return NULL;
    }
    return p;
}

static void
test_actions(void)
{
    static const uint8_t macs[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};
    static const char many[] = "pop_vlan,pop_vlan,pop_vlan,pop_vlan,pop_vlan,pop_vlan,pop_vlan,"
                               "pop_vlan,pop_vlan,3";
    const struct program *p;
    const struct dp_actions *da;

    CASE("flow-actions");
    CHECK(compiles("drop", PROGRAM_DROP));
    p = compiles("7", PROGRAM_OUTPUT);
    CHECK(p && p->port == 7);
    p = compiles("push_vlan(vid=5,pcp=3),7", PROGRAM_EDIT);
    CHECK(p && p->port == 7 && p->n_edits == 1 && p->edits[0].type == EDIT_PUSH_VLAN);
    CHECK(p && p->edits[0].vlan.tpid == htons(0x8100) && p->edits[0].vlan.tci == htons(0x6005));
    p = compiles("push_vlan(tpid=0x88a8,vid=5,pcp=0),7", PROGRAM_EDIT);
    CHECK(p && p->edits[0].vlan.tpid == htons(0x88a8) && p->edits[0].vlan.tci == htons(5));
    p = compiles("pop_vlan,set(eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02)),7", PROGRAM_EDIT);
    CHECK(p && p->n_edits == 2 && p->edits[0].type == EDIT_POP_VLAN);
    CHECK(p && p->edits[1].type == EDIT_SET_ETH && !memcmp(p->edits[1].eth.value, macs, 12));
    CHECK(p && p->edits[1].eth.mask[0] == 0xff && p->edits[1].eth.mask[11] == 0xff);
    p = compiles("set(eth(dst=02:00:00:00:00:02/ff:00:00:00:00:ff)),7", PROGRAM_EDIT);
    CHECK(p && p->edits[0].eth.mask[0] == 0xff && !p->edits[0].eth.mask[1] &&
          p->edits[0].eth.mask[5] == 0xff && !p->edits[0].eth.mask[6]);
    p = compiles("ct(zone=4),recirc(9)", PROGRAM_TRACK);
    da = p ? p->slow : NULL;
    CHECK(da && da->ct && nl_attr_type(da->ct) == OVS_ACTION_ATTR_CT && da->recirc_id == 9);
    CHECK(da && ovs_u128_equals(da->flow->ufid, ufid_of(1)));
    p = compiles("ct,recirc(9)", PROGRAM_TRACK);

    CASE("flow-actions-slow");
    CHECK(compiles("7,8", PROGRAM_SLOW));
    CHECK(compiles("7,pop_vlan", PROGRAM_SLOW));
    CHECK(compiles("pop_vlan", PROGRAM_SLOW));
    CHECK(compiles("trunc(100),7", PROGRAM_SLOW));
    CHECK(compiles("65535", PROGRAM_SLOW));
    CHECK(compiles("set(ipv4(src=1.1.1.1)),7", PROGRAM_SLOW));
    CHECK(compiles(many, PROGRAM_SLOW));
    CHECK(compiles("recirc(1)", PROGRAM_SLOW));
    CHECK(compiles("ct(commit),recirc(9)", PROGRAM_SLOW));
    CHECK(compiles("ct(zone=1,nat),recirc(9)", PROGRAM_SLOW));
    CHECK(compiles("ct(commit,mark=1/1),recirc(9)", PROGRAM_SLOW));
    CHECK(compiles("ct(zone=1),7", PROGRAM_SLOW));
    CHECK(compiles("ct(zone=1),recirc(9),7", PROGRAM_SLOW));
    CHECK(compiles("pop_vlan,ct(zone=1),recirc(9)", PROGRAM_SLOW));
    CHECK(compiles("ct(zone=1),ct(zone=2),recirc(9)", PROGRAM_SLOW));
    CHECK(compiles("userspace(pid=1)", PROGRAM_SLOW));
    CHECK(compiles("sample(sample=50.0%,actions(7))", PROGRAM_SLOW));
    dp_flow_flush(rig_dp);
}

/* --- statistics ----------------------------------------------------------------------- */

static void
count(struct dp_worker *w, uint64_t id, unsigned packets, uint16_t tcp_flags, int64_t now)
{
    struct dp_flow *flow;

    worker_begin(w->worker);
    worker_set_now(w->worker, now);
    CMAP_FOR_EACH(flow, ufid_node, &rig_dp->flows)
    {
        if (ovs_u128_equals(flow->ufid, ufid_of(id))) {
            worker_count_n(w->worker, &flow->fast, packets, packets * 100, tcp_flags);
        }
    }
    worker_end(w->worker);
}

static bool
stats_are(const struct dpif_flow_stats *s, uint64_t packets, long long used, uint16_t tcp_flags)
{
    bool same = s->n_packets == packets && s->n_bytes == packets * 100 && s->used == used &&
                s->tcp_flags == tcp_flags;

    if (!same) {
        printf("# %" PRIu64 " packets, %" PRIu64 " bytes, used %lld, flags %x\n", s->n_packets,
               s->n_bytes, s->used, s->tcp_flags);
    }
    return same;
}

static void
test_stats(void)
{
    struct dp_worker *a = dp_worker_create(rig_dp, 0, false);
    struct dp_worker *b = dp_worker_create(rig_dp, 0, false);
    struct dpif_flow_stats s;

    CASE("flow-stats");
    CHECK(!put(DPIF_FP_CREATE, 1, UDP, "2", &s));
    CHECK(stats_are(&s, 0, 0, 0));
    count(a, 1, 3, 0x02, 1000);
    count(b, 1, 4, 0x10, 2000);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "3", &s));
    CHECK(stats_are(&s, 7, 2000, 0x12));
    count(a, 1, 1, 0, 3000);
    CHECK(!put(DPIF_FP_MODIFY | DPIF_FP_ZERO_STATS, 1, UDP, "3", &s));
    CHECK(stats_are(&s, 8, 3000, 0x12));
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "3", &s));
    CHECK(stats_are(&s, 0, 0, 0));
    count(b, 1, 2, 0x10, 4000);
    dp_worker_destroy(b); /* what it counted stays */
    CHECK(!del(1, UDP, &s));
    CHECK(stats_are(&s, 2, 4000, 0x12));
    /* The next flow's are its own. */
    CHECK(!put(DPIF_FP_CREATE, 1, UDP, "2", NULL));
    CHECK(!del(1, UDP, &s));
    CHECK(stats_are(&s, 0, 0, 0));
    dp_worker_destroy(a);
}

/* odp-execute.c's */
extern struct coverage_counter counter_drop_action_of_pipeline;
extern struct coverage_counter counter_drop_action_congestion;

static void
test_drops(void)
{
    struct dp_worker *w = dp_worker_create(rig_dp, 0, false);
    unsigned (*pipeline)(void) = counter_drop_action_of_pipeline.count;
    struct ofpbuf congestion;
    ovs_u128 ufid = ufid_of(2);
    struct dpif_flow_stats s;
    struct flow_text t;

    /* Both forget what they return. */
    CASE("flow-explicit-drops");
    pipeline();
    CHECK(!put(DPIF_FP_CREATE, 1, UDP, "2", NULL));
    count(w, 1, 5, 0, 1);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "drop", NULL));
    count(w, 1, 1000, 0, 2);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "drop", &s));
    CHECK(s.n_packets == 1005 && pipeline() == 1000);
    count(w, 1, 1, 0, 3);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "3", NULL));
    CHECK(pipeline() == 1);
    count(w, 1, 7, 0, 3);
    CHECK(!put(DPIF_FP_MODIFY, 1, UDP, "drop", NULL));
    CHECK(!del(1, UDP, NULL));
    CHECK(pipeline() == 0);

    counter_drop_action_congestion.count();
    flow_text_init(&t, OTHER, "drop");
    ofpbuf_init(&congestion, 0);
    nl_msg_put_u32(&congestion, OVS_ACTION_ATTR_DROP, XLATE_CONGESTION_DROP);
    CHECK(!dp_flow_put(rig_dp, &(struct dpif_flow_put){
                                   .flags = DPIF_FP_CREATE,
                                   .key = t.key.data,
                                   .key_len = t.key.size,
                                   .mask = t.mask.data,
                                   .mask_len = t.mask.size,
                                   .actions = congestion.data,
                                   .actions_len = congestion.size,
                                   .ufid = &ufid,
                               }));
    count(w, 2, 9, 0, 4);
    CHECK(!del(2, OTHER, NULL));
    CHECK(counter_drop_action_congestion.count() == 9 && pipeline() == 0);
    ofpbuf_uninit(&congestion);
    flow_text_uninit(&t);
    dp_worker_destroy(w);
}

/* --- dumps ---------------------------------------------------------------------------- */

#define N_DUMPED 300u

static void
flow_text(char *s, size_t size, unsigned i)
{
    snprintf(s, size,
             "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(dst=10.0.%u.%u,proto=17,frag=no),"
             "udp(dst=%u)",
             i >> 8, i & 0xff, i % 7 + 1);
}

/* Dumps with threads that take turns; counts how often each flow came. */
static bool
dump_all(bool terse, unsigned n_threads, unsigned times[])
{
    struct dpif_flow_dump *dump = dp_flow_dump_create(RIG_DPIF, terse, NULL);
    struct dpif_flow_dump_thread *threads[4];
    struct dpif_flow flows[64];
    bool right = true, more = true;

    for (unsigned i = 0; i < n_threads; i++) {
        threads[i] = dp_flow_dump_thread_create(dump);
    }
    while (more) {
        more = false;
        for (unsigned i = 0; i < n_threads; i++) {
            int n = dp_flow_dump_next(threads[i], flows, i ? 7 : 64);
            more |= n > 0;
            for (int k = 0; k < n; k++) {
                uint64_t id = flows[k].ufid.u64.hi;
                char want[256], *got;

                times[id]++;
                right &= flows[k].ufid_present && flows[k].pmd_id == PMD_ID_NULL;
                right &= !strcmp(flows[k].attrs.dp_layer, "ovs") && !flows[k].attrs.offloaded;
                if (terse) {
                    right &= !flows[k].key_len && !flows[k].mask_len && !flows[k].actions_len;
                    continue;
                }
                flow_text(want, sizeof want, id);
                ovs_strzcpy(want + strlen(want), " actions:2", sizeof want - strlen(want));
                got = describe(&flows[k]);
                right &= !strcmp(got, want);
                free(got);
            }
        }
    }
    for (unsigned i = 0; i < n_threads; i++) {
        dp_flow_dump_thread_destroy(threads[i]);
    }
    return !dp_flow_dump_destroy(dump) && right;
}

static void
test_dump(void)
{
    for (unsigned i = 1; i <= N_DUMPED; i++) {
        char text[256];

        flow_text(text, sizeof text, i);
        ovs_assert(!put(DPIF_FP_CREATE, i, text, "2", NULL));
    }
    CASE("flow-dump");
    CHECK(dp_flow_count(rig_dp) == N_DUMPED && dp_masks_count(rig_dp) == 1);
    for (unsigned threads = 1; threads <= 3; threads++) {
        for (unsigned terse = 0; terse < 2; terse++) {
            unsigned times[N_DUMPED + 1] = {0};

            CHECK(dump_all(terse, threads, times));
            for (unsigned i = 1; i <= N_DUMPED; i++) {
                CHECK(times[i] == 1);
            }
        }
    }
    dp_flow_flush(rig_dp);
}

static void
test_batch(void)
{
    struct dpif_op ops[4], *pops[4] = {&ops[0], &ops[1], &ops[2], &ops[3]};
    ovs_u128 ufids[4] = {ufid_of(1), ufid_of(9), ufid_of(2), ufid_of(1)};

    CASE("flow-del-batch");
    CHECK(!put(DPIF_FP_CREATE, 1, UDP, "2", NULL) && !put(DPIF_FP_CREATE, 2, OTHER, "2", NULL));
    for (unsigned i = 0; i < 4; i++) {
        ops[i] = (struct dpif_op){.type = DPIF_OP_FLOW_DEL, .flow_del.ufid = &ufids[i]};
    }
    dp_flow_del_batch(rig_dp, pops, 4);
    CHECK(!ops[0].error && ops[1].error == ENOENT && !ops[2].error && ops[3].error == ENOENT);
    CHECK(dp_flow_count(rig_dp) == 0);
}

/* --- all at once ------------------------------------------------------------------------ */

#define N_KEYS 64u
#define N_WRITERS 2u
#define N_WORKERS 2u
#define N_LIVES (1u << 20) /* more than are ever put */

static struct {
    atomic_bool stop;
    atomic_uint next_id;
    uint64_t counted[N_WORKERS], deleted[N_WRITERS];
    uint64_t seen[N_LIVES];  /* most that a dump has shown of this flow; dumper's */
    uint64_t final[N_LIVES]; /* what its deletion said; its writer's */
    bool decreased;          /* dumper's */
    atomic_bool bytes_wrong;
    atomic_uint n_dumped;
} all;

static bool
stopped(void)
{
    return atomic_load(&all.stop);
}

static void *
count_all(void *index_)
{
    unsigned index = (uintptr_t)index_;
    struct dp_worker *w = dp_worker_create(rig_dp, 0, false);
    struct frames rnd = {index + 1};
    struct flow flows[32];
    const struct flow *keys[32];

    ovsrcu_quiesce_start(); /* nothing of OVS's is used */
    while (!stopped()) {
        struct dp_flow *found[32];

        worker_begin(w->worker);
        worker_set_now(w->worker, time_msec());
        for (unsigned i = 0; i < 32; i++) {
            unsigned k = frames_below(&rnd, N_KEYS);

            memset(&flows[i], 0, sizeof flows[i]);
            flows[i].in_port.odp_port = u32_to_odp(1);
            flows[i].dl_type = htons(ETH_TYPE_IP);
            flows[i].nw_proto = IPPROTO_UDP;
            flows[i].nw_dst = htonl(0x0a000000 + k);
            flows[i].tp_dst = htons(k % 7 + 1);
            keys[i] = &flows[i];
        }
        dp_flow_classify_batch(rig_dp, keys, 32, found);
        for (unsigned i = 0; i < 32; i++) {
            if (found[i]) {
                worker_count_n(w->worker, &found[i]->fast, 1, 100, 0);
                all.counted[index]++;
            }
        }
        worker_end(w->worker);
    }
    ovsrcu_quiesce_end();
    dp_worker_destroy(w);
    return NULL;
}

static void
delete_keys(unsigned writer, uint64_t ids[], const unsigned keys[], unsigned n)
{
    struct dpif_flow_stats stats[N_KEYS];
    struct dpif_op ops[N_KEYS], *pops[N_KEYS];
    ovs_u128 ufids[N_KEYS];

    for (unsigned i = 0; i < n; i++) {
        ufids[i] = ufid_of(ids[keys[i]]);
        ops[i] = (struct dpif_op){
            .type = DPIF_OP_FLOW_DEL,
            .flow_del = {.ufid = &ufids[i], .stats = &stats[i]},
        };
        pops[i] = &ops[i];
    }
    dp_flow_del_batch(rig_dp, pops, n);
    for (unsigned i = 0; i < n; i++) {
        ovs_assert(!ops[i].error);
        all.deleted[writer] += stats[i].n_packets;
        all.final[ids[keys[i]]] = stats[i].n_packets;
        if (stats[i].n_bytes != stats[i].n_packets * 100) {
            atomic_store(&all.bytes_wrong, true);
        }
        ids[keys[i]] = 0;
    }
}

/* Each writer has keys of its own. */
static void *
write_all(void *writer_)
{
    unsigned writer = (uintptr_t)writer_, n;
    struct frames rnd = {writer + 100};
    uint64_t ids[N_KEYS] = {0};
    unsigned keys[N_KEYS];

    while (!stopped()) {
        char text[256];

        n = 0;
        for (unsigned k = writer; k < N_KEYS; k += N_WRITERS) {
            flow_text(text, sizeof text, k);
            if (!ids[k]) {
                ids[k] = atomic_fetch_add(&all.next_id, 1);
                ovs_assert(ids[k] < N_LIVES);
                ovs_assert(!put(DPIF_FP_CREATE, ids[k], text, "2", NULL));
            } else if (frames_chance(&rnd, 30)) {
                ovs_assert(!put(DPIF_FP_MODIFY, ids[k], text,
                                frames_chance(&rnd, 50) ? "3" : "drop", NULL));
            } else if (frames_chance(&rnd, 30)) {
                keys[n++] = k;
            }
        }
        delete_keys(writer, ids, keys, n);
        ovsrcu_quiesce();
    }
    n = 0;
    for (unsigned k = writer; k < N_KEYS; k += N_WRITERS) {
        if (ids[k]) {
            keys[n++] = k;
        }
    }
    delete_keys(writer, ids, keys, n);
    return NULL;
}

static void *
dump_always(void *aux OVS_UNUSED)
{
    while (!stopped()) {
        struct dpif_flow_dump *dump = dp_flow_dump_create(RIG_DPIF, false, NULL);
        struct dpif_flow_dump_thread *thread = dp_flow_dump_thread_create(dump);
        struct dpif_flow flows[16];
        int n;

        while ((n = dp_flow_dump_next(thread, flows, 16))) {
            for (int i = 0; i < n; i++) {
                uint64_t id = flows[i].ufid.u64.hi, packets = flows[i].stats.n_packets;

                all.decreased |= packets < all.seen[id];
                all.seen[id] = packets;
                all.n_dumped++;
            }
            ovsrcu_quiesce();
        }
        dp_flow_dump_thread_destroy(thread);
        dp_flow_dump_destroy(dump);
    }
    return NULL;
}

static void
test_all(void)
{
    pthread_t threads[N_WORKERS + N_WRITERS + 1];
    unsigned n = 0, lives;
    uint64_t counted = 0, deleted = 0;

    CASE("flow-all-at-once");
    atomic_store(&all.next_id, 1);
    for (uintptr_t i = 0; i < N_WORKERS; i++) {
        threads[n++] = ovs_thread_create("worker", count_all, (void *)i);
    }
    for (uintptr_t i = 0; i < N_WRITERS; i++) {
        threads[n++] = ovs_thread_create("writer", write_all, (void *)i);
    }
    threads[n++] = ovs_thread_create("dump", dump_always, NULL);
    /* More on a busy machine, until everybody had a turn. */
    for (unsigned i = 0; i < 15 || (i < 600 && (atomic_load(&all.next_id) < 200 ||
                                                atomic_load(&all.n_dumped) < 200));
         i++) {
        xnanosleep(100 * 1000 * 1000LL);
    }
    atomic_store(&all.stop, true);
    while (n) {
        xpthread_join(threads[--n], NULL);
    }

    lives = atomic_load(&all.next_id);
    for (unsigned i = 0; i < N_WORKERS; i++) {
        counted += all.counted[i];
    }
    for (unsigned i = 0; i < N_WRITERS; i++) {
        deleted += all.deleted[i];
    }
    printf("# %u flows, %" PRIu64 " packets, %u shown in dumps\n", lives - 1, counted,
           all.n_dumped);
    CHECK(lives > 100 && counted > 1000 && all.n_dumped > 100);
    CHECK(counted == deleted);
    CHECK(!all.decreased && !atomic_load(&all.bytes_wrong));
    for (unsigned i = 1; i < lives; i++) {
        CHECK(all.seen[i] <= all.final[i]);
    }
    CHECK(dp_flow_count(rig_dp) == 0 && dp_masks_count(rig_dp) == 0);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    set_program_name(argv[0]);
    rig_start();

    test_put();
    test_vlan();
    test_nd();
    test_actions();
    test_stats();
    test_drops();
    test_dump();
    test_batch();
    test_all();

    ovsrcu_exit();
    epoch_synchronize();
    rig_stop();
    return check_done();
}

/* Actions through Open vSwitch's libraries: what leaves by which port, what
 * becomes of the packet, and that nothing leaks or is used twice (run it under
 * AddressSanitizer).
 *
 *   packet > dp_execute(), dp_slow() or dp_execute_ops() > ports 1..8, upcalls */
#include <config.h>

#include <errno.h>

#include "check.h"
#include "dp_rig.h"
#include "fast/program.h"
#include "flow.h"
#include "netdev-vport.h"
#include "netdev.h"
#include "odp-execute.h"
#include "odp-util.h"
#include "openvswitch/ofp-meter.h"
#include "timeval.h"

#define N_PORTS 9u /* 1 to 8 */
#define TUNNEL 7u
#define MAX_SENT 4096u

static struct dp_worker *worker;
static struct dp_port *ports[N_PORTS];

/* What left, in order. */
static struct {
    uint16_t port;
    struct dp_packet *b;
} sent[MAX_SENT];
static unsigned n_sent, n_incomplete;

static void
capture(struct fast_port *fast, struct worker *w OVS_UNUSED, struct rte_mbuf **pkts, unsigned n)
{
    struct dp_port *port = CONTAINER_OF(fast, struct dp_port, fast);

    for (unsigned i = 0; i < n; i++) {
        struct dp_packet *b = dp_packet_of(pkts[i]);

        ovs_assert(n_sent < MAX_SENT);
        /* What the engine and ports tell a malloc'ed packet by. */
        n_incomplete +=
            pkts[i]->pool || pkts[i]->next || pkts[i]->nb_segs != 1 || dp_packet_get_cutlen(b);
        sent[n_sent].port = odp_to_u32(port->port_no);
        sent[n_sent++].b = b;
    }
}

static void
forget_sent(void)
{
    while (n_sent) {
        dp_packet_delete(sent[--n_sent].b);
    }
}

static unsigned
n_sent_to(uint16_t port)
{
    unsigned n = 0;

    for (unsigned i = 0; i < n_sent; i++) {
        n += sent[i].port == port;
    }
    return n;
}

static struct dp_packet *
sent_to(uint16_t port)
{
    for (unsigned i = 0; i < n_sent; i++) {
        if (sent[i].port == port) {
            return sent[i].b;
        }
    }
    return NULL;
}

static bool
same_frame(const struct dp_packet *a, const struct dp_packet *b)
{
    return a && b && dp_packet_size(a) == dp_packet_size(b) &&
           !memcmp(dp_packet_data(a), dp_packet_data(b), dp_packet_size(a));
}

/* --- packets and actions ----------------------------------------------------------- */

static struct dp_packet *
udp_packet(uint32_t id)
{
    struct dp_packet *b = dp_packet_new_with_headroom(200, 128);
    struct flow flow = {
        .packet_type = htonl(PT_ETH),
        .dl_src = ETH_ADDR_C(02, 00, 00, 00, 00, 01),
        .dl_dst = ETH_ADDR_C(02, 00, 00, 00, 00, 02),
        .dl_type = htons(ETH_TYPE_IP),
        .nw_proto = IPPROTO_UDP,
        .nw_ttl = 64,
        .nw_src = htonl(0x0a000000 + id),
        .nw_dst = htonl(0x0a010001),
        .tp_src = htons(1000),
        .tp_dst = htons(2000),
    };

    flow_compose(b, &flow, NULL, 158);
    dp_packet_complete(b);
    dp_packet_adopt(b, u32_to_odp(8));
    flow_extract(b, &flow); /* the layers */
    return b;
}

static void
actions_init(struct ofpbuf *actions, const char *text)
{
    ofpbuf_init(actions, 0);
    if (odp_actions_from_string(text, NULL, actions)) {
        ovs_abort(0, "%s", text);
    }
}

static void
run_actions(struct dp_packet_batch *batch, bool steal, const struct ofpbuf *actions)
{
    worker_begin(worker->worker);
    worker_set_now(worker->worker, time_msec());
    dp_execute(worker, batch, steal, actions->data, actions->size);
    ovs_assert(worker->depth == 0);
    worker_end(worker->worker);
}

/* Runs actions on a batch; stolen, it is gone. */
static void
run_batch(struct dp_packet_batch *batch, bool steal, const char *text)
{
    struct ofpbuf actions;

    actions_init(&actions, text);
    run_actions(batch, steal, &actions);
    ofpbuf_uninit(&actions);
}

/* On one packet that is stolen. */
static void
run(struct dp_packet *b, const char *text)
{
    struct dp_packet_batch batch;

    dp_packet_batch_init_packet(&batch, b);
    run_batch(&batch, true, text);
}

static void
put_flow(const char *key, const char *text)
{
    struct ofpbuf k, m, actions;
    char *error = NULL;

    ofpbuf_init(&k, 0);
    ofpbuf_init(&m, 0);
    actions_init(&actions, text);
    if (odp_flow_from_string(key, NULL, &k, &m, &error) ||
        dp_flow_put(rig_dp, &(struct dpif_flow_put){.flags = DPIF_FP_CREATE,
                                                    .key = k.data,
                                                    .key_len = k.size,
                                                    .mask = m.data,
                                                    .mask_len = m.size,
                                                    .actions = actions.data,
                                                    .actions_len = actions.size,
                                                    .pmd_id = PMD_ID_NULL})) {
        ovs_abort(0, "%s: %s", key, error ? error : "");
    }
    ofpbuf_uninit(&k);
    ofpbuf_uninit(&m);
    ofpbuf_uninit(&actions);
}

/* --- cases ------------------------------------------------------------------------- */

static void
test_output(void)
{
    struct dp_packet *b = udp_packet(1), *like = udp_packet(1);
    struct dp_packet_batch batch;

    CASE("exec-output");
    run(b, "1,2");
    CHECK(n_sent == 2);
    CHECK(same_frame(sent_to(1), like));
    CHECK(same_frame(sent_to(2), like));
    CHECK(sent_to(2) == b);
    forget_sent();

    CASE("exec-output-kept");
    dp_packet_batch_init_packet(&batch, like);
    run_batch(&batch, false, "1,2");
    CHECK(n_sent == 2 && dp_packet_batch_size(&batch) == 1 && batch.packets[0] == like);
    CHECK(sent_to(1) != like && sent_to(2) != like);
    CHECK(same_frame(sent_to(2), like));
    forget_sent();

    CASE("exec-no-such-port");
    run(udp_packet(1), "70,1,71");
    CHECK(n_sent == 1);
    run(udp_packet(1), "4294967295");
    run(udp_packet(1), "65535");
    CHECK(n_sent == 1);
    forget_sent();

    CASE("exec-drop");
    run(udp_packet(1), "drop");
    run(udp_packet(1), "push_vlan(vid=5,pcp=0)");
    CHECK(n_sent == 0);
    dp_packet_delete(like);
}

static void
test_order(void)
{
    struct dp_packet_batch batch;
    struct dp_packet *in[32];

    CASE("exec-order");
    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < 32; i++) {
        in[i] = udp_packet(i);
        dp_packet_batch_add(&batch, in[i]);
    }
    run_batch(&batch, true, "push_vlan(vid=5,pcp=0),3");
    CHECK(n_sent == 32);
    for (unsigned i = 0; i < 32; i++) {
        CHECK(sent[i].b == in[i]);
    }
    forget_sent();
}

static void
test_edits(void)
{
    struct dp_packet *like = udp_packet(1), *tagged = udp_packet(1);

    CASE("exec-clone");
    eth_push_vlan(tagged, htons(ETH_TYPE_VLAN), htons(5 | VLAN_CFI));
    run(udp_packet(1), "clone(push_vlan(vid=5,pcp=0),1),2");
    CHECK(same_frame(sent_to(1), tagged));
    CHECK(same_frame(sent_to(2), like));
    forget_sent();

    CASE("exec-check-pkt-len");
    run(udp_packet(1), "check_pkt_len(size=100,gt(1),le(2))");
    run(udp_packet(1), "check_pkt_len(size=300,gt(1),le(2))");
    CHECK(n_sent_to(1) == 1 && n_sent_to(2) == 1);
    forget_sent();
    dp_packet_delete(like);
    dp_packet_delete(tagged);
}

static void
test_trunc(void)
{
    struct dp_packet_batch batch;
    struct dp_packet *b;

    CASE("exec-trunc");
    run(udp_packet(1), "trunc(100),1,2");
    CHECK(dp_packet_size(sent_to(1)) == 100);
    CHECK(dp_packet_size(sent_to(2)) == 200);
    forget_sent();
    run(udp_packet(1), "2,trunc(100),1");
    CHECK(dp_packet_size(sent_to(1)) == 100);
    CHECK(dp_packet_size(sent_to(2)) == 200);
    forget_sent();
    run(udp_packet(1), "trunc(100),70,2");
    CHECK(dp_packet_size(sent_to(2)) == 200);
    forget_sent();

    b = udp_packet(1);
    dp_packet_batch_init_packet(&batch, b);
    run_batch(&batch, false, "trunc(100),1");
    CHECK(dp_packet_size(b) == 200 && !batch.trunc);
    CHECK(dp_packet_size(sent_to(1)) == 100);
    dp_packet_delete(b);
    forget_sent();
}

static bool
receive(struct dpif_upcall *up, struct ofpbuf *buf)
{
    ofpbuf_init(buf, 0);
    return !dp_upcall_recv(RIG_DPIF, 0, up, buf);
}

static void
test_userspace(void)
{
    static const char *text = "userspace(pid=0,userdata(0102030405060708),actions),2";
    struct dpif_upcall up;
    struct ofpbuf buf, actions;

    CASE("exec-userspace");
    run(udp_packet(1), text);
    CHECK(n_sent == 1);
    CHECK(receive(&up, &buf));
    CHECK(up.type == DPIF_UC_ACTION);
    CHECK(nl_attr_get_size(up.userdata) == 8 && *(uint8_t *)nl_attr_get(up.userdata) == 1);
    actions_init(&actions, text);
    CHECK(up.actions && nl_attr_get_size(up.actions) == actions.size &&
          !memcmp(nl_attr_get(up.actions), actions.data, actions.size));
    CHECK(same_frame(&up.packet, sent_to(2)));
    dp_packet_uninit(&up.packet);
    ofpbuf_uninit(&buf);
    ofpbuf_uninit(&actions);
    forget_sent();

    CASE("exec-userspace-trunc");
    run(udp_packet(1), "trunc(100),userspace(pid=0,userdata(0102030405060708)),2");
    CHECK(receive(&up, &buf));
    CHECK(dp_packet_size(&up.packet) == 100 && !up.actions);
    CHECK(dp_packet_size(sent_to(2)) == 200);
    dp_packet_uninit(&up.packet);
    ofpbuf_uninit(&buf);
    forget_sent();
    run(udp_packet(1), "userspace(pid=0)");
    CHECK(n_sent == 0 && receive(&up, &buf));
    dp_packet_uninit(&up.packet);
    ofpbuf_uninit(&buf);
}

static void
test_meter(void)
{
    struct ofputil_meter_band band = {.type = OFPMBT13_DROP, .rate = 1, .burst_size = 10};
    struct ofputil_meter_config config = {
        .flags = OFPMF13_PKTPS | OFPMF13_BURST, .n_bands = 1, .bands = &band};
    struct dp_packet_batch batch;

    CASE("exec-meter");
    ovs_assert(!dp_meter_set(RIG_DPIF, (ofproto_meter_id){3}, &config));
    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < 32; i++) {
        dp_packet_batch_add(&batch, udp_packet(i));
    }
    run_batch(&batch, true, "meter(3),1");
    CHECK(n_sent == 10);
    forget_sent();
    run(udp_packet(1), "meter(3)");
    CHECK(n_sent == 0);
}

/* --- hashes ---------------------------------------------------------------------------- */

static void
test_bond(void)
{
    odp_port_t members[BOND_BUCKETS];
    uint64_t bytes[BOND_BUCKETS] = {0}, sum = 0;
    struct dp_packet_batch batch;
    unsigned of_1;

    CASE("exec-bond");
    for (unsigned i = 0; i < BOND_BUCKETS; i++) {
        members[i] = u32_to_odp(1 + i % 2);
    }
    dp_bond_add(RIG_DPIF, 9, members);
    for (unsigned i = 0; i < 10; i++) {
        dp_packet_batch_init(&batch);
        for (unsigned k = 0; k < 32; k++) {
            dp_packet_batch_add(&batch, udp_packet(i * 32 + k));
        }
        run_batch(&batch, true, "lb_output(9)");
    }
    of_1 = n_sent_to(1);
    CHECK(n_sent == 320 && of_1 > 80 && of_1 < 240);
    forget_sent();
    CHECK(dp_bond_stats_get(RIG_DPIF, 9, bytes) == 0);
    for (unsigned i = 0; i < BOND_BUCKETS; i++) {
        sum += bytes[i];
    }
    CHECK(sum == 320 * 200);

    /* A flow stays where it is, kept or stolen, and counters live on when
     * buckets move. */
    CASE("exec-bond-moves");
    for (unsigned i = 0; i < 5; i++) {
        struct dp_packet *b = udp_packet(77);

        run(udp_packet(77), "lb_output(9)");
        dp_packet_batch_init_packet(&batch, b);
        run_batch(&batch, false, "lb_output(9)");
        dp_packet_delete(b);
    }
    CHECK(n_sent == 10 && (n_sent_to(1) == 10 || n_sent_to(2) == 10));
    forget_sent();
    for (unsigned i = 0; i < BOND_BUCKETS; i++) {
        members[i] = u32_to_odp(3);
    }
    dp_bond_add(RIG_DPIF, 9, members);
    run(udp_packet(77), "trunc(64),lb_output(9)");
    CHECK(n_sent_to(3) == 1 && dp_packet_size(sent_to(3)) == 64);
    forget_sent();
    memset(bytes, 0, sizeof bytes);
    CHECK(dp_bond_stats_get(RIG_DPIF, 9, bytes) == 0);
    for (sum = 0, of_1 = 0; of_1 < BOND_BUCKETS; of_1++) {
        sum += bytes[of_1];
    }
    CHECK(sum == 330 * 200 + 64);

    CASE("exec-bond-gone");
    members[0] = u32_to_odp(99);
    for (unsigned i = 0; i < BOND_BUCKETS; i++) {
        members[i] = members[0];
    }
    dp_bond_add(RIG_DPIF, 9, members);
    run(udp_packet(77), "lb_output(9)");
    CHECK(dp_bond_del(RIG_DPIF, 9) == 0);
    CHECK(dp_bond_del(RIG_DPIF, 9) == ENOENT);
    CHECK(dp_bond_stats_get(RIG_DPIF, 9, bytes) == ENOENT);
    run(udp_packet(77), "lb_output(9)");
    run(udp_packet(77), "lb_output(9),1");
    CHECK(n_sent == 1);
    forget_sent();
}

/* The dp_hash that a packet has when it comes back from a recirculation that
 * no flow waits for. */
static uint32_t
recirculated_hash(void)
{
    struct dpif_upcall up;
    struct ofpbuf buf;
    struct flow flow;

    ovs_assert(receive(&up, &buf));
    odp_flow_key_to_flow(up.key, up.key_len, &flow, NULL);
    ovs_assert(flow.recirc_id == 0x99 && up.type == DPIF_UC_MISS);
    dp_packet_uninit(&up.packet);
    ofpbuf_uninit(&buf);
    return flow.dp_hash;
}

static int
execute_actions(struct dp_packet *b, const struct ofpbuf *actions, bool probe)
{
    struct flow flow;
    struct dpif_op op = {.type = DPIF_OP_EXECUTE,
                         .execute = {.actions = actions->data,
                                     .actions_len = actions->size,
                                     .probe = probe,
                                     .flow = &flow,
                                     .packet = b}};

    flow_extract(b, &flow);
    dp_execute_ops(rig_dp, (struct dpif_op *[]){&op}, 1);
    return op.error;
}

static int
execute(struct dp_packet *b, const char *text, bool probe)
{
    struct ofpbuf actions;
    int error;

    actions_init(&actions, text);
    error = execute_actions(b, &actions, probe);
    ofpbuf_uninit(&actions);
    return error;
}

/* hash(l4),recirc(0x99), which has no text; as it is, or in a clone. */
static void
hash_actions(struct ofpbuf *actions, bool clone)
{
    struct ovs_action_hash *hash;
    size_t nest = 0;

    ofpbuf_init(actions, 0);
    if (clone) {
        nest = nl_msg_start_nested(actions, OVS_ACTION_ATTR_CLONE);
    }
    hash = nl_msg_put_unspec_zero(actions, OVS_ACTION_ATTR_HASH, sizeof *hash);
    hash->hash_alg = OVS_HASH_ALG_L4;
    nl_msg_put_u32(actions, OVS_ACTION_ATTR_RECIRC, 0x99);
    if (clone) {
        nl_msg_end_nested(actions, nest);
    }
}

static uint32_t
run_hash(uint32_t id, bool clone)
{
    struct dp_packet_batch batch;
    struct ofpbuf actions;

    hash_actions(&actions, clone);
    dp_packet_batch_init_packet(&batch, udp_packet(id));
    run_actions(&batch, true, &actions);
    ofpbuf_uninit(&actions);
    return recirculated_hash();
}

/* Packets of a flow hash alike, whichever way they came. */
static void
test_hash(void)
{
    struct dp_packet *b = udp_packet(5);
    struct ofpbuf actions;
    uint32_t hash;

    CASE("exec-hash");
    hash = run_hash(5, false);
    CHECK(hash != 0);
    hash_actions(&actions, false);
    CHECK(execute_actions(b, &actions, false) == 0);
    ofpbuf_uninit(&actions);
    CHECK(recirculated_hash() == hash);
    CHECK(run_hash(5, true) == hash);
    CHECK(run_hash(6, false) != hash);
    dp_packet_delete(b);
}

/* --- recirculation, tunnels ---------------------------------------------------------------- */

static void
test_recirc(void)
{
    struct dp_packet *b = udp_packet(1);
    struct dp_packet_batch batch;

    CASE("exec-recirc");
    put_flow("recirc_id(0x1),in_port(8),eth(),eth_type(0x0800),ipv4(frag=no)",
             "set(ipv4(ttl=5)),push_vlan(vid=5,pcp=0),4");
    put_flow("recirc_id(0x2),in_port(8),eth(),eth_type(0x0800),ipv4(frag=no)", "5");
    run(udp_packet(1), "recirc(1)");
    CHECK(n_sent_to(4) == 1 && dp_packet_size(sent_to(4)) == 204);
    dp_packet_batch_init_packet(&batch, b);
    run_batch(&batch, false, "recirc(1),recirc(2),6");
    CHECK(dp_packet_size(b) == 200);
    CHECK(n_sent_to(4) == 2 && n_sent_to(5) == 1 && n_sent_to(6) == 1);
    CHECK(same_frame(sent_to(5), b) && same_frame(sent_to(6), b));
    forget_sent();

    CASE("exec-recirc-bound");
    put_flow("recirc_id(0x3),in_port(8),eth(),eth_type(0x0800),ipv4(frag=no)", "3,recirc(3)");
    run(udp_packet(1), "recirc(3)");
    CHECK(n_sent_to(3) == DP_MAX_DEPTH);
    forget_sent();
    /* Nothing is left of it: the next packet has all its turns. */
    dp_packet_batch_init_packet(&batch, b);
    run_batch(&batch, false, "recirc(3)");
    CHECK(n_sent_to(3) == DP_MAX_DEPTH);
    forget_sent();
    dp_packet_delete(b);
}

#define PUSH                                                                                       \
    "tnl_push(tnl_port(7),header(size=50,type=4,eth(dst=f8:bc:12:44:34:b6,"                        \
    "src=f8:bc:12:46:58:e0,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,"         \
    "ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x7b)),"           \
    "out_port(1))"

static void
test_tunnel(void)
{
    struct dp_packet *like = udp_packet(1), *outer;
    struct dp_packet_batch batch;
    struct udp_header *udp;
    struct flow flow;

    CASE("exec-tunnel-push");
    run(udp_packet(1), "clone(" PUSH ",1),2");
    CHECK(n_sent == 2 && dp_packet_size(sent_to(1)) == 250);
    CHECK(same_frame(sent_to(2), like));
    run(udp_packet(1), PUSH ",1");
    CHECK(n_sent == 3);
    /* The source port is of the inner flow, for ECMP: same flow, same port. */
    udp = (void *)((uint8_t *)dp_packet_data(sent[0].b) + 34);
    CHECK(udp->udp_src != 0);
    CHECK(udp->udp_src ==
          ((struct udp_header *)((uint8_t *)dp_packet_data(sent[2].b) + 34))->udp_src);
    outer = dp_packet_clone(sent_to(1));
    forget_sent();
    run(udp_packet(1), PUSH); /* for nobody */
    CHECK(n_sent == 0);

    CASE("exec-tunnel-pop");
    put_flow(
        "recirc_id(0),tunnel(tun_id=0x7b,src=1.1.2.88,dst=1.1.2.92,ttl=64,flags(-df+csum+key)),"
        "in_port(7),eth(),eth_type(0x0800),ipv4(frag=no)",
        "3");
    put_flow(
        "recirc_id(0),tunnel(tun_id=0x7b,src=1.1.2.88,dst=1.1.2.92,ttl=64,flags(-df-csum+key)),"
        "in_port(7),eth(),eth_type(0x0800),ipv4(frag=no)",
        "3");
    dp_packet_adopt(outer, u32_to_odp(1));
    flow_extract(outer, &flow);
    dp_packet_batch_init_packet(&batch, outer);
    run_batch(&batch, false, "tnl_pop(7),4");
    CHECK(n_sent_to(3) == 1 && same_frame(sent_to(3), like));
    CHECK(n_sent_to(4) == 1 && same_frame(sent_to(4), outer));
    forget_sent();
    run(outer, "tnl_pop(7)");
    CHECK(n_sent_to(3) == 1 && same_frame(sent_to(3), like));
    forget_sent();

    CASE("exec-tunnel-wrong");
    run(udp_packet(1), "tnl_pop(7)"); /* is no VXLAN */
    run(udp_packet(1), "tnl_pop(1)"); /* is no tunnel */
    run(udp_packet(1), "tnl_pop(77)");
    CHECK(n_sent == 0);
    dp_packet_delete(like);
}

/* --- the ways in --------------------------------------------------------------------------- */

/* As a handler has them: flows between the packets, and one that fails. */
static void
test_execute_several(void)
{
    struct dp_packet *b[3] = {udp_packet(1), udp_packet(2), udp_packet(3)};
    struct dpif_op ops[4], *opsp[] = {&ops[0], &ops[1], &ops[2], &ops[3]};
    struct ofpbuf actions;
    struct flow flow;

    CASE("exec-op-several");
    flow_extract(b[0], &flow);
    actions_init(&actions, "1");
    dp_packet_set_size(b[1], 13);
    for (unsigned i = 0; i < 3; i++) {
        ops[i] = (struct dpif_op){.type = DPIF_OP_EXECUTE,
                                  .execute = {.actions = actions.data,
                                              .actions_len = actions.size,
                                              .flow = &flow,
                                              .packet = b[i]}};
    }
    ops[3] = (struct dpif_op){.type = DPIF_OP_FLOW_PUT, .error = 77};
    dp_execute_ops(rig_dp, opsp, 4);
    CHECK(!ops[0].error && ops[1].error == EINVAL && !ops[2].error && ops[3].error == 77);
    CHECK(n_sent == 2);
    CHECK(same_frame(sent[0].b, b[0]) && same_frame(sent[1].b, b[2]));
    forget_sent();
    ofpbuf_uninit(&actions);
    for (unsigned i = 0; i < 3; i++) {
        dp_packet_delete(b[i]);
    }
}

static void
test_execute_op(void)
{
    struct dp_packet *b = udp_packet(1), *like = udp_packet(1);

    CASE("exec-op");
    CHECK(execute(b, "1", true) == 0);
    CHECK(n_sent == 0);
    CHECK(execute(b, "1,push_vlan(vid=5,pcp=0),2", false) == 0);
    CHECK(same_frame(sent_to(1), like));
    CHECK(dp_packet_size(sent_to(2)) == 204);
    CHECK(same_frame(b, sent_to(2)));
    forget_sent();

    /* What is left of it after an action that takes it all: the packet. */
    CHECK(execute(like, "meter(3),1", false) == 0);
    CHECK(n_sent == 0);
    CHECK(dp_packet_size(like) == 200);

    CASE("exec-op-segments");
    dp_packet_hwol_set_tcp_seg(like);
    like->mbuf.tso_segsz = 777;
    CHECK(execute(like, "1", false) == 0);
    CHECK(dp_packet_hwol_is_tso(sent_to(1)) && sent_to(1)->mbuf.tso_segsz == 777);
    CHECK(dp_packet_hwol_is_tso(like) && like->mbuf.tso_segsz == 777);
    forget_sent();

    CASE("exec-op-size");
    dp_packet_set_size(b, 13);
    CHECK(execute(b, "1", false) == EINVAL);
    dp_packet_delete(b);
    b = dp_packet_new(UINT16_MAX);
    dp_packet_put_zeros(b, UINT16_MAX);
    pkt_metadata_init(&b->md, u32_to_odp(8));
    CHECK(execute(b, "1", false) == 0);
    CHECK(dp_packet_size(sent_to(1)) == UINT16_MAX);
    forget_sent();
    dp_packet_delete(b);
    dp_packet_delete(like);
}

static void
test_slow(void)
{
    struct program program = {.kind = PROGRAM_SLOW};
    struct dp_actions a = {.program = &program};
    struct rte_mbuf *pkts[100];
    struct ofpbuf actions;

    /* Straight from the engine, the packets' layers are unknown. */
    CASE("exec-slow");
    actions_init(&actions, "set(ipv4(ttl=9)),push_vlan(vid=5,pcp=0),6");
    a.actions = actions.data;
    a.len = actions.size;
    program.slow = &a;
    for (unsigned i = 0; i < ARRAY_SIZE(pkts); i++) {
        struct dp_packet *b = udp_packet(i);

        dp_packet_reset_offsets(b);
        b->packet_type = 0x12345678;
        dp_packet_set_cutlen(b, 80);
        pkts[i] = &b->mbuf;
    }
    worker_begin(worker->worker);
    dp_slow(worker->worker, 8, &program, pkts, ARRAY_SIZE(pkts));
    worker_end(worker->worker);
    CHECK(n_sent == ARRAY_SIZE(pkts));
    for (unsigned i = 0; i < n_sent; i++) {
        struct flow flow;

        CHECK(sent[i].port == 6);
        flow_extract(sent[i].b, &flow);
        CHECK(ntohl(flow.nw_src) == 0x0a000000 + i);
        CHECK(flow.nw_ttl == 9 && vlan_tci_to_vid(flow.vlans[0].tci) == 5);
        CHECK(dp_packet_size(sent[i].b) == 204);
    }
    forget_sent();
    ofpbuf_uninit(&actions);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    struct netdev *tunnel;

    set_program_name(argv[0]);
    rig_start();
    odp_execute_init();
    netdev_vport_tunnel_register();
    ovs_assert(!netdev_open("tunnel", "vxlan", &tunnel));
    for (unsigned i = 1; i < N_PORTS; i++) {
        ports[i] = rig_port(i, i == TUNNEL ? DP_PORT_TUNNEL : DP_PORT_VIF);
        ports[i]->fast.send = capture;
    }
    ports[TUNNEL]->netdev = tunnel;
    worker = dp_worker_create(rig_dp, 0, false);
    dp_upcall_recv_set(RIG_DPIF, true);

    test_output();
    test_order();
    test_edits();
    test_trunc();
    test_userspace();
    test_meter();
    test_bond();
    test_hash();
    test_recirc();
    test_tunnel();
    test_execute_op();
    test_execute_several();
    test_slow();
    CASE("exec-complete");
    CHECK(n_incomplete == 0);

    dp_flow_flush(rig_dp);
    dp_worker_destroy(worker);
    for (unsigned i = 1; i < N_PORTS; i++) {
        rig_port_free(ports[i]);
    }
    netdev_close(tunnel);
    rig_stop();
    return check_done();
}

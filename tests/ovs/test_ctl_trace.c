/* Compiled flows on a real switch: it takes each of them, reports it as it was
 * given, and sends packets where the evaluator of the other tests (eval.h)
 * does, by ofproto/trace. */
#include <config.h>

#include "check.h"
#include "compile.h"
#include "eval.h"
#include "packets.h"
#include "pflow.h"
#include "trace.h"
#include "util.h"

#include "ctl_pool.h"
#include "ctl_switch.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"

#define N_PACKETS 40

static struct ctl_switch sw;
static struct eval eval;
static int of_ports[256]; /* by the datapath's numbers; 0: none */
static unsigned n_traced, n_sent, n_tracked;

static void
add_ports(void)
{
    static const char *const tunnels[] = {"vxlan", "geneve", "gre"};
    struct ds ds = DS_EMPTY_INITIALIZER;

    ds_put_format(&ds,
                  "set bridge xenbr0 protocols=OpenFlow15 fail_mode=secure "
                  "-- add-port xenbr0 eth1 -- set interface eth1 type=dummy ofport_request=%d",
                  PORT_UPLINK);
    for (int e = 0; e < 3; e++) {
        ds_put_format(&ds,
                      " -- add-port xenbr0 weft-%s -- set interface weft-%s type=%s "
                      "ofport_request=%d options:remote_ip=flow options:key=flow",
                      tunnels[e], tunnels[e], tunnels[e], PORT_TUNNEL(e));
    }
    for (int v = 0; v < N_VIFS; v++) {
        ds_put_format(&ds,
                      " -- add-port xenbr0 v%d -- set interface v%d type=dummy ofport_request=%d",
                      v, v, PORT_VIF(v));
    }
    CHECK(!ctl_sh(&sw, VSCTL "%s 2>&1", ds_cstr(&ds)));
    ds_destroy(&ds);
}

/* "    v0 10/3: (dummy)" */
static void
learn_ports(void)
{
    char *line, *save = NULL;

    CHECK(!ctl_sh(&sw, "$BIN/ovs-appctl -t $DIR/ctl dpif/show 2>&1"));
    for (line = strtok_r(ctl_said, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[32];
        int of, odp;

        if (sscanf(line, " %31s %d/%d:", name, &of, &odp) == 3 && odp > 0 && odp < 256) {
            of_ports[odp] = of;
        }
    }
}

/* Bits of the OpenFlow ports in the last line of datapath actions; false: the
 * tool does not take such a packet. */
static bool
traced_ports(uint32_t *ports)
{
    const char *last = NULL, *p = ctl_said;

    while ((p = strstr(p, "\nDatapath actions: "))) {
        p += strlen("\nDatapath actions: ");
        last = p;
    }
    *ports = 0;
    if (!last) {
        return false;
    }
    for (p = last; *p && *p != '\n';) {
        if (*p >= '0' && *p <= '9') {
            char *end;
            unsigned long odp = strtoul(p, &end, 10);

            if (odp < 256 && of_ports[odp]) {
                *ports |= 1u << of_ports[odp];
            }
            p = end;
        } else {
            int depth = 0;

            /* A whole action: its arguments are no ports. */
            while (*p && *p != '\n' && (depth || *p != ',')) {
                depth += (*p == '(') - (*p == ')');
                p++;
            }
        }
        p += *p == ',';
    }
    return true;
}

static void
any_packet(struct flow *f, int v, const struct pool *pool)
{
    const struct p_vif *to = &pool->vifs[pick(N_VIFS)];
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
    bool v6 = chance(40);

    memset(f, 0, sizeof *f);
    f->dl_src = pool->vifs[v].mac;
    f->dl_dst = chance(75) ? to->mac : eth_addr_broadcast;
    f->nw_ttl = 64;
    if (chance(15)) {
        f->dl_type = htons(ETH_TYPE_ARP);
        f->nw_proto = 1 + pick(2);
        f->arp_sha = f->dl_src;
        f->nw_src = in6_addr_get_mapped_ipv4(&pool->vifs[v].v4.c[0].addr);
        f->nw_dst = htonl(0x0a000000 | pick(14));
        f->nw_ttl = 0;
        return;
    }
    f->dl_type = htons(v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP);
    if (v6) {
        f->ipv6_src = address6(v + 1);
        f->ipv6_dst = address6(to->mac.ea[5]);
    } else {
        f->nw_src = htonl(0x0a000000 | (v + 1));
        f->nw_dst = htonl(0x0a000000 | to->mac.ea[5]);
    }
    if (v6 && chance(30)) {
        f->nw_proto = IPPROTO_ICMPV6;
        f->tp_src = htons(133 + pick(5));
        if (f->tp_src == htons(135) || f->tp_src == htons(136)) {
            f->nd_target = address6(v + 1);
            *(f->tp_src == htons(135) ? &f->arp_sha : &f->arp_tha) = f->dl_src;
        }
        return;
    }
    f->nw_proto = protocols[pick(3)];
    f->tp_src = htons(1024 + pick(60000));
    f->tp_dst = htons(chance(50) ? 76 + pick(12) : pick(1100));
}

/* The packet as the tool wants it: its generic names of ports and ICMP types are
 * those of TCP and of ICMP for IPv4. */
static char *
packet_text(const struct flow *f)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    bool arp = f->dl_type == htons(ETH_TYPE_ARP);
    const char *l4 = f->nw_proto == IPPROTO_TCP   ? "tcp"
                     : f->nw_proto == IPPROTO_UDP ? "udp"
                                                  : "sctp";

    ds_put_format(&ds, "%sdl_src=" ETH_ADDR_FMT ",dl_dst=" ETH_ADDR_FMT, arp ? "arp," : "",
                  ETH_ADDR_ARGS(f->dl_src), ETH_ADDR_ARGS(f->dl_dst));
    if (arp) {
        ds_put_format(&ds, ",arp_op=%u,arp_spa=" IP_FMT ",arp_tpa=" IP_FMT ",arp_sha=" ETH_ADDR_FMT,
                      f->nw_proto, IP_ARGS(f->nw_src), IP_ARGS(f->nw_dst),
                      ETH_ADDR_ARGS(f->arp_sha));
        return ds_steal_cstr(&ds);
    }
    ds_put_format(&ds, ",dl_type=%#x", ntohs(f->dl_type));
    if (f->dl_type == htons(ETH_TYPE_IP)) {
        ds_put_format(&ds, ",nw_src=" IP_FMT ",nw_dst=" IP_FMT, IP_ARGS(f->nw_src),
                      IP_ARGS(f->nw_dst));
    } else {
        ds_put_cstr(&ds, ",ipv6_src=");
        ipv6_format_addr(&f->ipv6_src, &ds);
        ds_put_cstr(&ds, ",ipv6_dst=");
        ipv6_format_addr(&f->ipv6_dst, &ds);
    }
    ds_put_format(&ds, ",nw_ttl=64,nw_proto=%u", f->nw_proto);
    if (f->nw_proto != IPPROTO_ICMPV6) {
        ds_put_format(&ds, ",%s_src=%u,%s_dst=%u", l4, ntohs(f->tp_src), l4, ntohs(f->tp_dst));
        return ds_steal_cstr(&ds);
    }
    ds_put_format(&ds, ",icmpv6_type=%u,icmpv6_code=0", ntohs(f->tp_src));
    if (!ipv6_addr_equals(&f->nd_target, &in6addr_any)) {
        ds_put_cstr(&ds, ",nd_target=");
        ipv6_format_addr(&f->nd_target, &ds);
        ds_put_format(&ds, ",nd_%s=" ETH_ADDR_FMT, f->tp_src == htons(135) ? "sll" : "tll",
                      ETH_ADDR_ARGS(f->dl_src));
    }
    return ds_steal_cstr(&ds);
}

static void
check_packet(const struct pool *pool)
{
    uint32_t is, should = 0, in_port;
    int v = pick(N_VIFS);
    char *text, tag[24] = "";
    struct flow f;

    any_packet(&f, v, pool);
    in_port = PORT_VIF(vif_root(pool, v));
    if (pool->vifs[v].parent) {
        trace_set_tag(&f, pool->vifs[v].tag);
        snprintf(tag, sizeof tag, "dl_vlan=%u,", pool->vifs[v].tag);
    }
    eval.n_conns = 0;
    eval_packet(&eval, &f, in_port);
    for (size_t i = 0; i < eval.n_out; i++) {
        should |= 1u << eval.out[i].port;
    }
    should &= ~(7u << PORT_TUNNEL(0)); /* no route leads anywhere here */

    text = packet_text(&f);
    ctl_sh(&sw,
           "$BIN/ovs-appctl -t $DIR/ctl ofproto/trace xenbr0 'in_port=%u,%s%s' "
           "--ct-next 'trk,new' 2>&1",
           in_port, tag, text);
    n_tracked += strstr(ctl_said, "ct_state=new|trk") != NULL;
    CHECK(traced_ports(&is));
    if (is != should) {
        printf("# %s%s from %u: is %#x, should be %#x\n", tag, text, in_port, is, should);
    }
    CHECK(is == should);
    n_traced++;
    n_sent += is != 0;
    free(text);
}

static void
check_pool(unsigned seed)
{
    struct model *model = model_create();
    struct compile *compile = compile_create(model);
    struct ds ds = DS_EMPTY_INITIALIZER;
    struct ftable *ft;
    struct pool pool;
    char path[128];
    FILE *f;

    pool_seed = seed;
    random_pool(&pool);
    pool.hosts[0] = (struct p_host){.there = true, .uplink = true, .tunnels = true};
    for (unsigned v = 0; v < N_VIFS; v++) {
        pool.vifs[v].host = chance(75) ? 0 : pool.vifs[v].host;
    }
    pool_state_all(&pool, model);
    compile_run(compile);
    model_changes_clear(model);
    ft = compile_host_flows(compile, pool_key(REC_HOST, 0));
    eval_set_flows(&eval, ft);
    ftable_format(ft, &ds);

    snprintf(path, sizeof path, "%s/flows", sw.dir);
    f = fopen(path, "w");
    ovs_assert(f);
    fputs(ds_cstr(&ds), f);
    fclose(f);
    ds_destroy(&ds);
    CASE("trace: a real switch takes every flow");
    CHECK(!ctl_sh(&sw, OFCTL "--bundle replace-flows $DIR/xenbr0.mgmt $DIR/flows 2>&1"));
    printf("%s", check_failed_ ? ctl_said : "");
    CASE("trace: and says that it has them");
    /* The tool finds equal lines different where a masked nw_frag is concerned. */
    ctl_sh(&sw, OFCTL "diff-flows unix:$DIR/xenbr0.mgmt $DIR/flows 2>&1 | "
                      "sed 's/^[+-]//' | sort | uniq -u");
    CHECK(!ctl_said[0]);
    printf("%.500s", ctl_said);
    CASE("trace: packets go where the evaluator sends them");
    for (unsigned i = 0; i < N_PACKETS; i++) {
        check_packet(&pool);
    }
    compile_destroy(compile);
    model_destroy(model);
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    eval_init(&eval);
    CASE("trace: a switch");
    if (ctl_switch_create(&sw)) {
        add_ports();
        learn_ports();
        check_pool(1001);
        check_pool(2002);
        printf("# %u traced, %u tracked, %u sent somewhere\n", n_traced, n_tracked, n_sent);
        CHECK(n_tracked > 5 && n_sent > 5);
    } else {
        CHECK(!"starts");
    }
    ctl_switch_destroy(&sw);
    eval_destroy(&eval);
    return check_done();
}

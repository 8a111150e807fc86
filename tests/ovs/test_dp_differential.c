/* The datapath against the definition of a match.
 *
 *   frames > worker_run() > cache > classifier > program > port
 *                                       | miss
 *                                   upcall > OpenFlow-like tables > megaflow
 *
 * Random rules with priorities and random packets: each packet must leave as,
 * and where, the rule says that a linear search over flow_extract()'s result
 * finds; and each rule's packets and bytes, summed over the megaflows that
 * stood for it and the packets that missed, must be those of the search.
 * Megaflows are made as ofproto makes them (of_table.h).  Rules come and go,
 * after which megaflows are revalidated as ofproto does it.
 *
 * Frames that come straight from a port go through worker_run(), two workers
 * in turn, one with hardly any cache.  Others have been in tunnels, or come
 * back from conntrack with its metadata, and go through dp_input().
 *
 * DIFF_SECONDS bounds the run, DIFF_SEED makes it another one. */
#include <config.h>

/* of_table.h comes first: it says why. */
#include "of_table.h"

#include <stdlib.h>

#include "check.h"
#include "diff_cases.h"
#include "diff_ofproto.h"
#include "odp-execute.h"
#include "openvswitch/vlog.h"
#include "timeval.h"

#define FRESH 8u         /* frames replaced per burst */
#define ROUND_BURSTS 80u /* between changes of the rules */
#define SET_ROUNDS 3u    /* with one set of rules and frames */
#define N_LOOKUPS 20u    /* compared after each round */

static struct of_theme theme;
static struct dp_port *ports[N_PORTS], *in_ports[16], *sink;
static uint64_t delivered[N_PORTS], expected[N_PORTS];

/* The burst that is under way. */
static struct {
    struct dp_packet *packet;
    const struct case_ *c;
} burst[ENGINE_BURST];

static struct {
    uint64_t packets, direct, checked, shorts, lookups, sets, changes;
} seen;

/* --- the reference ------------------------------------------------------------------ */

/* What a rule does, to one packet; false: it ends there. */
static bool
apply(const struct of_rule *r, struct dp_packet *b)
{
    struct eth_header *eth = dp_packet_data(b);

    switch (r->action) {
    case OF_PUSH_VLAN:
    case OF_PUSH_RECIRC:
        eth_push_vlan(b, htons(ETH_TYPE_VLAN), r->tci & htons(~VLAN_CFI));
        break;
    case OF_POP_VLAN:
        eth_pop_vlan(b);
        break;
    case OF_SET_ETH:
        eth->eth_dst = r->eth_dst;
        break;
    case OF_OUTPUT:
    case OF_DROP:
    case OF_DROP_EXPLICIT:
    case OF_TWO_OUTPUTS:
    case OF_RECIRC:
    case OF_N_ACTIONS:
        break;
    }
    if (r->action == OF_RECIRC || r->action == OF_PUSH_RECIRC) {
        b->md.recirc_id = r->recirc_id;
        return true;
    }
    return false;
}

static void
refer(struct case_ *c)
{
    struct dp_packet *b;
    bool goes_on = c->direct || c->frame.len >= ETH_HEADER_LEN;

    if (c->version == tables.version) {
        return;
    }
    c->version = tables.version;
    c->n_stages = 0;
    c->port = 0;
    b = packet_of(c);
    while (goes_on) {
        struct of_rule *r;
        struct flow flow;

        flow_extract(b, &flow);
        r = of_linear(&tables, &flow);
        c->rules[c->n_stages] = r;
        c->sizes[c->n_stages++] = dp_packet_size(b);
        goes_on = apply(r, b);
        if (!goes_on && r->action != OF_DROP && r->action != OF_DROP_EXPLICIT) {
            c->port = PORT_OF(r);
        }
    }
    c->out_len = dp_packet_size(b);
    memcpy(c->out, dp_packet_data(b), c->out_len);
    dp_packet_delete(b);
}

static void
count_reference(const struct case_ *c)
{
    for (unsigned i = 0; i < c->n_stages; i++) {
        c->rules[i]->ref_packets++;
        c->rules[i]->ref_bytes += c->sizes[i];
    }
    if (c->port) {
        expected[c->port - FIRST_PORT]++;
    }
    seen.shorts += !c->n_stages;
}

/* --- ports --------------------------------------------------------------------------------- */

static void
report_rule(const char *whose, unsigned port)
{
    const struct of_rule *r =
        port >= FIRST_PORT
            ? tables.rules[(port - FIRST_PORT) / OF_RULES_MAX][(port - FIRST_PORT) % OF_RULES_MAX]
            : NULL;

    if (r) {
        char *text = match_to_string(&r->match, NULL, r->priority);
        printf("# %s: rule %u of table %u, action %d: %s\n", whose, r->slot, r->table, r->action,
               text);
        free(text);
        for (unsigned i = 0; i < r->n_words; i++) {
            printf("#   word %u: %016" PRIx64 "/%016" PRIx64 "\n", r->idx[i], r->value[i],
                   r->mask[i]);
        }
    }
}

static void
report(const char *what, const struct case_ *c, unsigned port)
{
    static unsigned n;
    struct flow flow;
    char *text;

    if (n++ > 5) {
        return;
    }
    flow_of(c, &flow);
    text = flow_to_string(&flow, NULL);
    printf("# %s: port %u, reference %u of %u stages; %s\n", what, port, c->port, c->n_stages,
           text);
    free(text);
    report_rule("reference", c->port);
    report_rule("datapath", port);
    for (size_t i = 0; i < n_ukeys && c->n_stages == 1; i++) {
        report_ukey(&ukeys[i], &flow);
    }
}

/* Where 'm' is in the burst, if it is one of it and no clone. */
static int
find_in_burst(const struct rte_mbuf *m)
{
    uint32_t i = m->dynfield1[8];

    return i < ENGINE_BURST && &burst[i].packet->mbuf == m ? (int)i : -1;
}

static void
check_packet(const struct dp_packet *b, unsigned port)
{
    int i = find_in_burst(&b->mbuf);
    const struct case_ *c;

    if (i < 0) {
        return; /* missed, and was sent on by "ofproto": counted */
    }
    c = burst[i].c;
    burst[i].packet = NULL;
    seen.checked++;
    if (port != c->port) {
        report("wrong port", c, port);
        CHECK(port == c->port);
    } else if (dp_packet_size(b) != c->out_len || memcmp(dp_packet_data(b), c->out, c->out_len)) {
        report("wrong bytes", c, port);
        CHECK(!"bytes are those of the reference");
    }
}

static void
port_send(struct fast_port *fp, struct worker *w OVS_UNUSED, struct rte_mbuf **m, unsigned n)
{
    unsigned port = odp_to_u32(CONTAINER_OF(fp, struct dp_port, fast)->port_no);

    for (unsigned i = 0; i < n && port != SINK; i++) {
        delivered[port - FIRST_PORT]++;
        check_packet(dp_packet_of(m[i]), port);
    }
    dp_packets_free(m, n);
}

static struct dp_port *
make_port(unsigned port_no)
{
    struct dp_port *p = xzalloc(sizeof *p);

    p->dp = dp;
    p->port_no = u32_to_odp(port_no);
    p->kind = DP_PORT_WAITED;
    p->fast.send = port_send;
    engine_port_set(dp->engine, port_no, &p->fast);
    return p;
}

static void
free_port(struct dp_port *p)
{
    engine_port_set(dp->engine, odp_to_u32(p->port_no), NULL);
    epoch_synchronize();
    free(p);
}

/* --- bursts --------------------------------------------------------------------------------------
 */

static struct case_ *
pick(bool direct, uint16_t in_port)
{
    for (;;) {
        struct case_ *c = &cases[frames_below(&rnd, N_FRAMES)];
        if (c->direct == direct && (direct || c->in_port == in_port)) {
            return c;
        }
    }
}

static void
run_burst(struct dp_worker *w, int64_t now)
{
    bool direct = frames_chance(&rnd, 35);
    uint16_t in_port = 1 + frames_below(&rnd, 3);
    unsigned n = 1 + frames_below(&rnd, direct ? NETDEV_MAX_BURST : ENGINE_BURST);
    unsigned repeat = FRAMES_PICK(&rnd, 0, 0, 60, 100);
    struct rte_mbuf *mbufs[ENGINE_BURST];
    struct case_ *c = NULL;

    for (unsigned i = 0; i < n; i++) {
        if (!c || !frames_chance(&rnd, repeat)) {
            c = pick(direct, in_port);
        }
        refer(c);
        count_reference(c);
        burst[i].c = c;
        burst[i].packet = packet_of(c);
        mbufs[i] = &burst[i].packet->mbuf;
        mbufs[i]->dynfield1[8] = i;
    }
    seen.packets += n;
    worker_begin(w->worker);
    if (direct) {
        struct dp_packet_batch batch;

        seen.direct += n;
        worker_set_now(w->worker, now);
        dp_packet_batch_init(&batch);
        for (unsigned i = 0; i < n; i++) {
            dp_packet_batch_add(&batch, burst[i].packet);
        }
        w->depth = 0;
        dp_input(w, &batch, false);
    } else {
        worker_run(w->worker, in_port, mbufs, n, now);
    }
    worker_end(w->worker);
    memset(burst, 0, sizeof burst);
    handle_all();
}

/* --- rounds
 * ---------------------------------------------------------------------------------------- */

static void
random_theme(void)
{
    static struct flow pairs[60][2];
    struct case_ *twin = xmalloc(sizeof *twin);

    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
        const struct case_ *c = &cases[frames_below(&rnd, N_BASIC)];
        make_twin(twin, c);
        check_case(twin);
        flow_of(c, &pairs[i][0]);
        flow_of(twin, &pairs[i][1]);
    }
    free(twin);
    of_random_theme(&rnd, &theme, pairs, ARRAY_SIZE(pairs));
}

static void
random_rule(unsigned table, unsigned slot)
{
    struct flow from, other;
    struct match match;

    flow_of(&cases[frames_below(&rnd, frames_chance(&rnd, 70) ? N_BASIC : N_FRAMES)], &from);
    flow_of(&cases[frames_below(&rnd, N_BASIC)], &other);
    of_random_match(&rnd, &theme, &from, &other, &match);
    /* Distinct, so that there is one right answer. */
    of_rule_add(&tables, table, slot, &match, 1 + frames_below(&rnd, 100) * OF_RULES_MAX + slot,
                &rnd);
}

static void
random_rules(void)
{
    unsigned percent = FRAMES_PICK(&rnd, 5, 30, 90);

    for (unsigned t = 0; t < OF_TABLES; t++) {
        struct match all;
        match_init_catchall(&all);
        of_rule_add(&tables, t, 0, &all, 0, &rnd);
        for (unsigned i = 1; i < OF_RULES_MAX; i++) {
            if (frames_chance(&rnd, percent)) {
                random_rule(t, i);
            }
        }
    }
}

static void
change_rules(void)
{
    for (unsigned n = 1 + frames_below(&rnd, 6); n; n--) {
        unsigned t = frames_below(&rnd, OF_TABLES), i = 1 + frames_below(&rnd, OF_RULES_MAX - 1);
        if (tables.rules[t][i]) {
            of_rule_del(&tables, t, i);
        }
        if (frames_chance(&rnd, 50)) {
            random_rule(t, i);
        }
        seen.changes++;
    }
}

static bool
rule_matches(const struct cls_rule *rule, const struct flow *flow)
{
    const uint64_t *f = (const uint64_t *)flow;

    for (unsigned i = 0; i < rule->n_words; i++) {
        if ((f[rule->idx[i]] & rule->mask[i]) != rule->value[i]) {
            return false;
        }
    }
    return true;
}

/* The classifier finds a megaflow for a packet if, and only if, there is one. */
static void
compare_lookup(const struct case_ *c)
{
    const struct dp_flow *found;
    struct dp_worker *w;
    bool any = false;
    struct flow flow;

    flow_of(c, &flow);
    for (size_t i = 0; i < n_ukeys && !any; i++) {
        any = ukey_matches(&ukeys[i], &flow);
    }
    w = dp_borrow(dp);
    found = dp_flow_classify(dp, &flow);
    CHECK(any == (found != NULL));
    CHECK(!found || rule_matches(&found->fast.rule, &flow));
    dp_return(w);
    seen.lookups++;
}

static void
compare_counters(void)
{
    credit_all();
    for (unsigned t = 0; t < OF_TABLES; t++) {
        for (unsigned i = 0; i < OF_RULES_MAX; i++) {
            const struct of_rule *r = tables.rules[t][i];
            if (r && (r->got_packets != r->ref_packets || r->got_bytes != r->ref_bytes)) {
                printf("# rule %u of table %u: %" PRIu64 " packets, %" PRIu64
                       " bytes; reference %" PRIu64 ", %" PRIu64 "\n",
                       i, t, r->got_packets, r->got_bytes, r->ref_packets, r->ref_bytes);
                CHECK(!"rules' counters equal the reference's");
            }
        }
    }
    for (unsigned i = 0; i < N_PORTS; i++) {
        CHECK(delivered[i] == expected[i]);
    }
}

/* One rule set and its changes. */
static void
run_set(struct dp_worker *workers[2], long long int end)
{
    seen.sets++;
    of_tables_init(&tables);
    make_cases();
    random_theme();
    random_rules();
    for (unsigned round = 0; round < SET_ROUNDS && time_msec() < end; round++) {
        for (unsigned i = 0; i < ROUND_BURSTS; i++) {
            run_burst(workers[frames_below(&rnd, 2)], time_msec());
            for (unsigned k = 0; k < FRESH; k++) {
                make_case(&cases[frames_below(&rnd, N_FRAMES)], true);
            }
        }
        compare_counters();
        for (unsigned i = 0; i < N_LOOKUPS; i++) {
            compare_lookup(&cases[frames_below(&rnd, N_FRAMES)]);
        }
        change_rules();
        revalidate_all(false);
        epoch_reclaim();
        ovsrcu_quiesce();
        if (check_failed_) {
            break;
        }
    }
    credit_all();
    revalidate_all(true);
    of_tables_destroy(&tables);
}

static uint64_t
environment(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);

    return value ? strtoull(value, NULL, 0) : otherwise;
}

static void
start(void)
{
    dp = dp_create(&dpif_weft_class, "differential");
    ovs_assert(dp);
    dpif.dpif.dpif_class = &dpif_weft_class;
    dpif.dp = dp;
    dp_upcall_handlers_set(&dpif.dpif, 1);
    dp_upcall_recv_set(&dpif.dpif, true);
    for (unsigned i = 0; i < N_PORTS; i++) {
        ports[i] = make_port(FIRST_PORT + i);
    }
    sink = make_port(SINK);
    for (unsigned i = 1; i < ARRAY_SIZE(in_ports); i++) {
        in_ports[i] = make_port(i);
    }
}

static void
stop(void)
{
    for (unsigned i = 0; i < N_PORTS; i++) {
        free_port(ports[i]);
    }
    free_port(sink);
    for (unsigned i = 1; i < ARRAY_SIZE(in_ports); i++) {
        free_port(in_ports[i]);
    }
    dp_upcall_recv_set(&dpif.dpif, false);
    dp_destroy(dp);
    free(ukeys);
}

int
main(void)
{
    uint64_t n_seconds = environment("DIFF_SECONDS", 12);
    struct dp_worker *workers[2];
    struct worker_stats s;
    long long int end;
    uint64_t lost;

    rnd.state = environment("DIFF_SEED", 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    /* Frames are malformed on purpose. */
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    odp_execute_init();
    start();
    workers[0] = dp_worker_create(dp, 8192, false);
    workers[1] = dp_worker_create(dp, 64, false);

    CASE("differential: packets and counters are those of a linear search");
    end = time_msec() + n_seconds * 1000;
    while (time_msec() < end && !check_failed_) {
        run_set(workers, end);
    }
    atomic_read_relaxed(&dp->n_lost, &lost);
    CHECK(!lost);

    CASE("differential: the run could have shown a mistake");
    dp_workers_stats(dp, &s);
    printf("# %" PRIu64 " packets (%" PRIu64 " not from ports), %" PRIu64 " checked one by one; "
           "cache: %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " odd, %" PRIu64 " learned\n",
           seen.packets, seen.direct, seen.checked, s.cache_hits, s.misses, s.odd, s.learned);
    printf("# %" PRIu64 " upcalls, %" PRIu64 " of them unfit for a megaflow, %" PRIu64
           " megaflows; %" PRIu64 " sets of rules, %" PRIu64 " changes: %" PRIu64
           " revalidated, %" PRIu64 " deleted, %" PRIu64 " modified\n",
           of_seen.upcalls, of_seen.unfit, of_seen.installed, seen.sets, seen.changes,
           of_seen.revalidated, of_seen.deleted, of_seen.modified);
    CHECK(s.drops[ENGINE_DROP_SHORT] == seen.shorts);
    CHECK(s.cache_hits > seen.packets / 20 && s.odd > seen.packets / 20);
    CHECK(seen.checked > seen.packets / 3 && of_seen.modified && of_seen.deleted);

    dp_worker_destroy(workers[0]);
    dp_worker_destroy(workers[1]);
    stop();
    return check_done();
}

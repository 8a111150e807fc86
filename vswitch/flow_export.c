/* The exporter's thread: see flow_export.h.
 *
 * It wakes some ten times a second, takes what workers have ended (and looks
 * after those at rest), translates and sends.  Nothing that it does holds up a
 * worker: records come by a lock-free list whose length is bounded. */
#include <config.h>

#include "flow_export_priv.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "dp.h"
#include "drop.h"
#include "fast/record.h"
#include "latch.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(flow_export);

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

#define PERIOD_MS 100
#define LAST_MS 20
#define BATCH 256u

/* An exporter that runs, and what it was made from. */
struct running {
    struct export *export;             /* NULL: all collectors are refused */
    uint32_t waiting;                  /* bit i: target i is refused, and tried again */
    char *refused;                     /* lines: what is wrong with which collector */
    const struct plan_export *made_of; /* in the plan */
    uint32_t bridge;                   /* index in the plan */
    char name[64];
};

static struct ovs_mutex lock = OVS_MUTEX_INITIALIZER;
static struct plan *next_plan OVS_GUARDED_BY(lock); /* for the thread to take over */
/* The thread's; the lock is held to change them and by others to look. */
static struct running *runs;
static size_t n_runs;
static struct plan *plan;

static struct latch wake;
static pthread_t thread;
static bool thread_runs;
static atomic_bool stop;
static struct dp *dp; /* the thread's until it has ended */

/* What one round of collecting needs. */
struct round {
    int64_t offset; /* from the workers' clock to Unix time, in ms */
    uint64_t now;   /* Unix ms */
    unsigned n;
    uint32_t bridge;
    struct flow_record batch[BATCH];
    bool sure[BATCH]; /* the record's network */
    struct flow_record some[BATCH];
};

/* --- one record ----------------------------------------------------------------- */

static uint64_t
to_unix(const struct round *round, const struct record_block *b, uint32_t ms)
{
    return record_time(b, ms) + round->offset;
}

static void
put_ip4(struct in6_addr *to, uint32_t from)
{
    memset(to, 0, sizeof *to);
    to->s6_addr[10] = to->s6_addr[11] = 0xff;
    memcpy(to->s6_addr + 12, &from, 4);
}

static void
translate_addresses(struct flow_record *f, const struct record *r)
{
    const struct key *k = &r->key;

    if (f->eth_type == ETH_TYPE_IPV6) {
        memcpy(&f->src, r->ip6.src, 16);
        memcpy(&f->dst, r->ip6.dst, 16);
        f->tunnel_key = k->nw_tos & RECORD_TUNNEL ? k->ip6_label : 0;
        f->customer_vlan = k->nw_tos & RECORD_INNER_VLAN ? k->zero : 0;
        return;
    }
    if (f->eth_type == ETH_TYPE_IP) {
        put_ip4(&f->src, k->ip4_src);
        put_ip4(&f->dst, k->ip4_dst);
    }
    f->tunnel_key = k->nw_tos & RECORD_TUNNEL ? r->more.tunnel : 0;
    f->customer_vlan = k->nw_tos & RECORD_INNER_VLAN ? r->more.vlan : 0;
}

static void
translate_way(struct flow_record *f, const struct record *r)
{
    static const struct {
        uint8_t forwarding, reason;
    } drops[] = {
        [RECORD_DROP_NONE] = {128, DROP_DP_POLICY},
        [RECORD_DROP_POLICY] = {129, DROP_DP_POLICY}, /* ACL deny */
        [RECORD_DROP_UPCALL] = {128, DROP_DP_UPCALL},
        [RECORD_DROP_METER] = {138, DROP_DP_METER}, /* policer */
    };
    const struct plan_port *out = r->out < ENGINE_PORTS_MAX ? &plan->ports[r->out] : NULL;

    if (r->status == RECORD_FORWARDED) {
        f->forwarding = 64;
        if (out && out->exists) {
            f->out_if = out->of_port;
            f->out_vif = out->vif;
        } else if (out) {
            f->forwarding = 142; /* bad output interface */
            f->drop = 1 + DROP_DP_NO_PORT;
        }
    } else if (r->status == RECORD_DROPPED) {
        f->forwarding = drops[r->drop].forwarding;
        f->drop = 1 + drops[r->drop].reason;
    }
}

/* Returns whether its network is as sure as plan_network() says. */
static bool
translate(struct flow_record *f, const struct round *round, const struct record_block *b,
          const struct record *r)
{
    const struct plan_port *in = &plan->ports[r->key.in_port];
    const struct key *k = &r->key;
    bool sure;

    memset(f, 0, sizeof *f);
    f->start_ms = to_unix(round, b, r->first);
    f->end_ms = to_unix(round, b, r->last);
    f->packets = r->packets;
    f->bytes = r->bytes;
    f->in_if = in->of_port;
    f->in_vif = in->vif;
    f->rule_out = r->rule_out;
    f->rule_in = r->rule_in;
    f->sampling = plan->settings.sampling;
    f->eth_type = ntohs(k->eth_type);
    translate_addresses(f, r);
    f->sport = ntohs(k->tp_src);
    f->dport = ntohs(k->tp_dst);
    if (k->nw_proto == IPPROTO_ICMP || k->nw_proto == IPPROTO_ICMPV6) {
        f->dport = f->sport << 8 | f->dport;
        f->sport = 0;
    }
    f->vlan = ntohs(k->vlan_tci) & 0xfff;
    f->tcp_flags = r->tcp_flags;
    memcpy(f->src_mac, k->eth_src, 6);
    memcpy(f->dst_mac, k->eth_dst, 6);
    f->proto = k->nw_proto;
    f->tos = r->tos;
    f->direction = FLOW_INGRESS;
    f->end = r->end;
    f->fragments = !!(k->nw_tos & RECORD_FRAGMENT);
    f->network = plan_network(in, f, &sure);
    f->tenant = in->bridge ? plan_tenant(&plan->bridges[in->bridge - 1], f->network) : 0;
    translate_way(f, r);
    return sure;
}

/* To one exporter what of the batch is for it. */
static void
tell(struct running *run, struct round *round)
{
    const struct flow_record *records = round->batch;
    unsigned n = round->n;

    if (run->made_of->scoped) {
        n = 0;
        records = round->some;
        for (unsigned i = 0; i < round->n; i++) {
            if (round->sure[i] && plan_scope_has(run->made_of, round->batch[i].network)) {
                round->some[n++] = round->batch[i];
            }
        }
    }
    if (n) {
        export_records(run->export, records, n, round->now);
    }
}

static void
flush_batch(struct round *round)
{
    for (size_t i = 0; i < n_runs && round->n; i++) {
        if (runs[i].export && runs[i].bridge == round->bridge) {
            for (unsigned j = 0; j < round->n; j++) {
                round->batch[j].domain = runs[i].made_of->config.domain;
            }
            tell(&runs[i], round);
        }
    }
    round->n = 0;
}

static void
take_block(const struct record_block *b, void *round_)
{
    struct round *round = round_;

    for (unsigned i = 0; i < b->n; i++) {
        const struct record *r = &b->records[i];
        uint16_t in = r->key.in_port;
        uint32_t bridge = plan && in < ENGINE_PORTS_MAX ? plan->ports[in].bridge : 0;

        if (!bridge) {
            continue; /* its bridge does not export any more */
        }
        if (bridge - 1 != round->bridge || round->n == BATCH) {
            flush_batch(round);
            round->bridge = bridge - 1;
        }
        round->sure[round->n] = translate(&round->batch[round->n], round, b, r);
        round->n++;
    }
}

/* --- exporters under a plan ------------------------------------------------------------ */

/* One that runs under the same settings goes on, with its numbers. */
static bool
take_running(struct running *to, const struct export_config *config)
{
    for (size_t i = 0; i < n_runs; i++) {
        if (runs[i].export && !memcmp(&runs[i].made_of->config, config, sizeof *config)) {
            to->export = runs[i].export;
            to->refused = runs[i].refused;
            to->waiting = runs[i].waiting;
            runs[i].export = NULL;
            runs[i].refused = NULL;
            return true;
        }
    }
    return false;
}

/* Adds the collectors that wait; what is wrong with those that cannot be is said, and they
 * wait on. */
static void
add_waiting(struct running *to, const struct export_config *config)
{
    struct ds refused = DS_EMPTY_INITIALIZER;
    char why[256];

    for (unsigned i = 0; i < config->n_targets; i++) {
        const char *target = config->targets[i];

        if (!(to->waiting & 1u << i)) {
            continue;
        }
        if (export_add(to->export, config, target, why, sizeof why)) {
            VLOG_ERR_RL(&rl, "bridge %s: flows are not exported to %s: %s", to->name, target, why);
            ds_put_format(&refused, "  %s: refused: %s\n", target, why);
        } else {
            to->waiting &= ~(1u << i);
        }
    }
    free(to->refused);
    to->refused = ds_steal_cstr(&refused);
}

/* An exporter without collectors: all of them wait. */
static void
create(struct running *to, const struct export_config *config)
{
    struct export_config *none = xmemdup(config, sizeof *config);
    char why[256];

    none->n_targets = 0;
    if (export_create(none, &to->export, why, sizeof why)) {
        VLOG_ERR_RL(&rl, "bridge %s: flows are not exported: %s", to->name, why);
        to->refused = xasprintf("  refused: %s\n", why);
        to->export = NULL;
    }
    to->waiting = (1u << config->n_targets) - 1;
    free(none);
}

/* Certificates are renewed in their place. */
static void
renew_tls(struct running *to, const struct export_config *config)
{
    bool renewed;
    char why[256];

    if (export_renew_tls(to->export, config, &renewed, why, sizeof why)) {
        VLOG_ERR_RL(&rl, "bridge %s: the certificates of before stay in use: %s", to->name, why);
    } else if (renewed) {
        VLOG_INFO("bridge %s: the exporter's certificates are read again", to->name);
    }
}

/* The exporter with what it may tell of interfaces. */
static void
begin(struct running *to, const struct plan *p, const struct plan_bridge *b,
      const struct plan_export *of)
{
    struct export_interface *some;

    if (take_running(to, &of->config)) {
        renew_tls(to, &of->config);
    } else {
        create(to, &of->config);
    }
    if (to->export && to->waiting) {
        add_waiting(to, &of->config);
    }
    if (to->export && !export_n_collectors(to->export)) {
        export_destroy(to->export);
        to->export = NULL;
    }
    if (to->export) {
        some = xmalloc((b->n_interfaces + 1) * sizeof *some);
        export_interfaces(to->export, some, plan_scope_interfaces(p, b, of, some));
        free(some);
    }
}

static void
take_plan(struct plan *new) OVS_REQUIRES(lock)
{
    size_t max = 0, n = 0;
    struct running *new_runs;

    for (size_t i = 0; i < (new ? new->n_bridges : 0); i++) {
        max += new->bridges[i].n_exports;
    }
    new_runs = xcalloc(max, sizeof *new_runs);
    if (plan && new) {
        plan_keep(new, plan);
    }
    for (size_t i = 0; i < (new ? new->n_bridges : 0); i++) {
        const struct plan_bridge *b = &new->bridges[i];

        for (unsigned j = 0; j < b->n_exports; j++) {
            struct running *r = &new_runs[n++];

            r->made_of = &b->exports[j];
            r->bridge = i;
            ovs_strlcpy(r->name, b->name, sizeof r->name);
            begin(r, new, b, r->made_of);
        }
    }
    for (size_t i = 0; i < n_runs; i++) {
        export_destroy(runs[i].export);
        free(runs[i].refused);
    }
    free(runs);
    runs = new_runs;
    n_runs = n;
    plan_destroy(plan);
    plan = new;
}

/* --- the thread --------------------------------------------------------------------------- */

static void
run_round(void) OVS_REQUIRES(lock)
{
    static struct round round;
    struct export_losses losses;
    struct record_stats stats;

    round.now = time_wall_msec();
    round.offset = (int64_t)round.now - time_msec();
    round.n = 0;
    engine_record_collect(dp->engine, time_msec(), take_block, &round);
    flush_batch(&round);
    engine_record_stats(dp->engine, &stats);
    losses = (struct export_losses){stats.lost_records, stats.lost_packets, stats.lost_bytes};
    for (size_t i = 0; i < n_runs; i++) {
        if (runs[i].export) {
            export_losses(runs[i].export, &losses);
            export_run(runs[i].export, round.now);
        }
    }
}

static void *
export_main(void *aux OVS_UNUSED)
{
    while (!atomic_load(&stop)) {
        ovs_mutex_lock(&lock);
        run_round();
        if (next_plan) {
            /* What was counted under the old plan has been told. */
            take_plan(next_plan);
            next_plan = NULL;
            run_round();
        }
        ovs_mutex_unlock(&lock);
        poll_timer_wait(PERIOD_MS);
        latch_wait(&wake);
        poll_block();
        latch_poll(&wake);
    }
    xnanosleep(LAST_MS * 1000000ull); /* busy workers give up their tables meanwhile */
    ovs_mutex_lock(&lock);
    run_round();
    take_plan(NULL);
    ovs_mutex_unlock(&lock);
    return NULL;
}

static void
apply_ports(const struct plan *p)
{
    for (uint32_t i = 0; i < ENGINE_PORTS_MAX; i++) {
        engine_record_port(dp->engine, i, p && p->ports[i].bridge);
    }
}

void
flow_export_apply(struct dp *dp_, struct plan *p)
{
    if (!p) {
        if (thread_runs) {
            engine_record(dp->engine, NULL);
            atomic_store(&stop, true);
            latch_set(&wake);
            xpthread_join(thread, NULL);
            latch_destroy(&wake);
            thread_runs = false;
            ovs_mutex_lock(&lock);
            plan_destroy(next_plan);
            next_plan = NULL;
            ovs_mutex_unlock(&lock);
            apply_ports(NULL);
            dp = NULL;
        }
        return;
    }
    dp = dp_;
    apply_ports(p);
    engine_record(dp->engine, &p->settings);
    ovs_mutex_lock(&lock);
    plan_destroy(next_plan);
    next_plan = p;
    ovs_mutex_unlock(&lock);
    if (!thread_runs) {
        latch_init(&wake);
        atomic_store(&stop, false);
        thread = ovs_thread_create("flow_export", export_main, NULL);
        thread_runs = true;
    }
    latch_set(&wake);
}

/* --- showing ---------------------------------------------------------------------------------- */

static void
show_run(struct ds *s, const struct running *r)
{
    static const char *const versions[] = {
        [EXPORT_V5] = "NetFlow v5", [EXPORT_V9] = "NetFlow v9", [EXPORT_IPFIX] = "IPFIX"};
    struct export_stats t;

    ds_put_format(s, "%s: %s, domain %" PRIu32, r->name, versions[r->made_of->config.version],
                  r->made_of->config.domain);
    if (r->made_of->scoped) {
        ds_put_cstr(s, ", of networks");
        for (size_t i = 0; i < r->made_of->n_networks; i++) {
            ds_put_format(s, " %" PRIu32, r->made_of->networks[i]);
        }
    }
    if (r->made_of->config.sampling > 1) {
        ds_put_format(s, ", one packet in %" PRIu32, r->made_of->config.sampling);
    }
    ds_put_format(s, "\n%s", r->refused ? r->refused : "");
    if (!r->export) {
        return;
    }
    export_stats(r->export, &t);
    ds_put_format(s,
                  "  records %" PRIu64 ", messages %" PRIu64 ", bytes %" PRIu64
                  ", no form for %" PRIu64 "\n",
                  t.records, t.messages, t.bytes, t.not_v5);
    for (size_t i = 0; i < export_n_collectors(r->export); i++) {
        struct export_collector_stats c;

        export_collector_stats(r->export, i, &c);
        ds_put_format(s,
                      "  %s: %s, records %" PRIu64 ", messages %" PRIu64 ", dropped %" PRIu64
                      " records %" PRIu64 " messages, queued %zu bytes",
                      c.target, c.connected ? "connected" : "away", c.records, c.messages,
                      c.dropped_records, c.dropped_messages, c.queued);
        if (c.error) {
            ds_put_format(s, ", last error: %s", ovs_strerror(c.error));
        }
        ds_put_char(s, '\n');
    }
}

static void
show(struct unixctl_conn *conn, int argc OVS_UNUSED, const char *argv[] OVS_UNUSED,
     void *aux OVS_UNUSED)
{
    struct ds s = DS_EMPTY_INITIALIZER;
    struct record_stats t;

    if (!thread_runs) {
        unixctl_command_reply(conn, "no bridge exports flows\n");
        return;
    }
    engine_record_stats(dp->engine, &t);
    ovs_mutex_lock(&lock);
    for (size_t i = 0; i < n_runs; i++) {
        show_run(&s, &runs[i]);
    }
    ovs_mutex_unlock(&lock);
    ds_put_format(&s,
                  "datapath: records that left a full cache early %" PRIu64 ", lost %" PRIu64
                  " records %" PRIu64 " packets %" PRIu64 " bytes\n",
                  t.pushed_out, t.lost_records, t.lost_packets, t.lost_bytes);
    unixctl_command_reply(conn, ds_cstr(&s));
    ds_destroy(&s);
}

void
flow_export_show_init(void)
{
    unixctl_command_register("flow-export/show", "", 0, 0, show, NULL);
}

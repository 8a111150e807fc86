#include <config.h>

#include "fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compile.h"
#include "crowded.h"
#include "hash.h"
#include "hmapx.h"
#include "host.h"
#include "host_extra.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/hmap.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "pflow.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(fleet);

/* A host that is quiet is reported as seen this often. */
#define SEEN_MS 5000
/* A new leader learns where vifs are from all hosts before it changes any: a
 * host whose neighbours have not been heard would lose its way to their vifs.
 * It waits no longer than this for those that do not answer. */
#define HEAR_ALL_MS 5000

struct member {
    struct hmap_node node; /* by key */
    uint32_t key;          /* of the model's host */
    struct host *host;
    uint64_t epoch;       /* 0: another controller leads it */
    long long int new_at; /* since when we lead it and have not said how it is; 0: we have */
    struct ftable *table; /* that the host was given, or NULL */
    uint64_t ports_seqno; /* that the model knows */
    uint32_t refused_key; /* of the object whose flow the switch refused, or 0 */
    bool doubted;         /* it is not connected, and its ports have been told */
    bool tunnels[HOST_N_TUNNELS];
    struct model_host_status status; /* as last told to the model */
};

struct fleet {
    struct model *model;
    struct compile *compile;
    struct crowded crowded;
    struct hmap members;
    size_t n_led;
    long long int act_at; /* without having heard all hosts; 0: they have been */

    size_t n_overlays[HOST_N_TUNNELS];
    bool switches_changed; /* what kind of switch a host has */
};

struct fleet *
fleet_create(struct model *model, struct compile *compile)
{
    struct fleet *f = xzalloc(sizeof *f);

    f->model = model;
    f->compile = compile;
    hmap_init(&f->members);
    return f;
}

static void
remove_member(struct fleet *f, struct member *m)
{
    hmap_remove(&f->members, &m->node);
    host_destroy(m->host);
    free(m);
}

void
fleet_destroy(struct fleet *f)
{
    struct member *m;

    if (f) {
        HMAP_FOR_EACH_SAFE (m, node, &f->members) {
            remove_member(f, m);
        }
        hmap_destroy(&f->members);
        crowded_destroy(&f->crowded);
        free(f);
    }
}

static struct member *
find(const struct fleet *f, uint32_t key)
{
    struct member *m;

    HMAP_FOR_EACH_WITH_HASH (m, node, hash_int(key, 0), &f->members) {
        if (m->key == key) {
            return m;
        }
    }
    return NULL;
}

static struct model_host *
host_of(const struct fleet *f, const struct member *m)
{
    return model_host(model_by_key(f->model, m->key));
}

/* --- which of them are ours -------------------------------------------------------------- */

void
fleet_lead(struct fleet *f, uint64_t (*epoch_of)(const struct share *, const struct uuid *),
           const struct share *share)
{
    size_t before = f->n_led;
    struct member *m;

    f->n_led = 0;
    HMAP_FOR_EACH (m, node, &f->members) {
        struct model_host *mh = host_of(f, m);
        uint64_t epoch = epoch_of(share, &mh->obj.uuid);

        mh->awaited = !mh->status.connected && !mh->status.last_seen_ms && !mh->status.error[0];
        f->n_led += epoch > 0;
        mh->led = epoch > 0;
        if (epoch != m->epoch) {
            m->epoch = epoch;
            host_set_epoch(m->host, epoch);
            memset(&m->status, 0, sizeof m->status);
            m->new_at = time_msec();
            m->doubted = false;
            model_ports_doubt(f->model, mh, MODEL_UNKNOWN);
        }
    }
    if (!before && f->n_led) {
        f->act_at = time_msec() + HEAR_ALL_MS;
    }
}

const struct uuid *
fleet_stale(const struct fleet *f)
{
    const struct member *m;

    HMAP_FOR_EACH (m, node, &f->members) {
        if (m->epoch && host_get_status(m->host)->stale) {
            return &host_of(f, m)->obj.uuid;
        }
    }
    return NULL;
}

/* --- from the model to the hosts ------------------------------------------------------ */

static void
configure(struct fleet *f, struct member *m, const struct model_host *mh)
{
    struct host_config c = {
        .name = mh->obj.name,
        .ovsdb = mh->ovsdb,
        .openflow = mh->openflow,
        .bridge = mh->bridge,
        .uplink = mh->uplink,
        .tunnel_ip = mh->tunnel_ip,
        .enabled = mh->enabled,
    };

    for (int t = 0; t < HOST_N_TUNNELS; t++) {
        c.tunnels[t] = f->n_overlays[t] > 0;
    }
    memcpy(m->tunnels, c.tunnels, sizeof m->tunnels);
    host_configure(m->host, &c);
}

static void
add_member(struct fleet *f, const struct model_host *mh)
{
    struct member *m = xzalloc(sizeof *m);

    m->key = mh->obj.key;
    m->host = host_create(mh->obj.name);
    hmap_insert(&f->members, &m->node, hash_int(m->key, 0));
    configure(f, m, mh);
    host_watch(m->host);
}

/* Which kinds of tunnels the pool's networks use. */
static bool
count_overlays(struct fleet *f)
{
    size_t n[HOST_N_TUNNELS] = {0};
    bool changed = false;
    struct model_obj *obj;

    BUILD_ASSERT_DECL((int)HOST_VXLAN == MODEL_VXLAN && (int)HOST_GENEVE == MODEL_GENEVE &&
                      (int)HOST_GRE == MODEL_GRE);
    MODEL_FOR_EACH (obj, f->model, REC_NETWORK) {
        const struct model_network *net = model_network(obj);

        if (obj->live && net->type == MODEL_OVERLAY) {
            n[net->encap]++;
        }
    }
    for (int t = 0; t < HOST_N_TUNNELS; t++) {
        changed = changed || !n[t] != !f->n_overlays[t];
        f->n_overlays[t] = n[t];
    }
    return changed;
}

static bool
any_changed(const struct fleet *f, enum rec_kind kind)
{
    return !ovs_list_is_empty(&f->model->changed[kind]);
}

static void
sync_hosts(struct fleet *f)
{
    bool all = any_changed(f, REC_NETWORK) && count_overlays(f);
    struct model_obj *obj;
    struct member *m;

    MODEL_FOR_EACH_CHANGED (obj, f->model, REC_HOST) {
        m = find(f, obj->key);
        if (m && obj->change & MODEL_DELETED) {
            /* Its table goes with it. */
            remove_member(f, m);
            m = NULL;
        }
        if (obj->live && !m) {
            add_member(f, model_host(obj));
        } else if (obj->live && obj->change & MODEL_CFG && !all) {
            configure(f, m, model_host(obj));
        }
    }
    if (all) {
        HMAP_FOR_EACH (m, node, &f->members) {
            configure(f, m, host_of(f, m));
        }
    }
}

/* --- from the switches to the model ------------------------------------------------------ */

static bool
report_ports(struct fleet *f, struct member *m)
{
    uint64_t seqno = host_get_ports_seqno(m->host);
    struct model_host *mh = host_of(f, m);
    const struct host_port *ports;
    size_t n;

    if (seqno == m->ports_seqno) {
        return false;
    }
    m->ports_seqno = seqno;
    if (!seqno) {
        /* Connected anew and not read yet: what was known may still be true. */
        return false;
    }
    ports = host_get_ports(m->host, &n);
    model_ports_begin(f->model);
    for (size_t i = 0; i < n; i++) {
        model_port_report(f->model, mh, ports[i].name, ports[i].has_uuid ? &ports[i].uuid : NULL,
                          ports[i].has_mac ? &ports[i].mac : NULL, ports[i].ofport);
    }
    model_ports_end(f->model, mh);
    VLOG_DBG("%s: %" PRIuSIZE " ports", host_name(m->host), n);
    return true;
}

static void
report_pifs(struct fleet *f, struct member *m)
{
    uint64_t seqno = host_get_pifs_seqno(m->host);
    const struct host_pif *pifs;
    const struct model_ref *ref;
    size_t n;

    if (!seqno) {
        return; /* not read yet */
    }
    /* Each time, for the objects may be others of the same devices. */
    pifs = host_get_pifs(m->host, &n);
    MODEL_FOR_EACH_REF (ref, &host_of(f, m)->pifs) {
        struct model_pif *pif = model_pif(ref->from);
        struct model_pif_status s = {.speed_mbps = 0};
        bool asked = false;

        for (size_t i = 0; i < n; i++) {
            asked = asked || !strcmp(pifs[i].device, pif->device);
            if (pifs[i].there && !strcmp(pifs[i].device, pif->device)) {
                ovs_strlcpy(s.link, pifs[i].up ? "up" : "down", sizeof s.link);
                s.speed_mbps = pifs[i].speed_mbps;
                ovs_strlcpy(s.mac, pifs[i].mac, sizeof s.mac);
                ovs_strlcpy(s.bridge, pifs[i].bridge, sizeof s.bridge);
            }
        }
        if (asked) {
            model_pif_set_status(f->model, pif, &s);
        }
    }
}

static void
sync_extra(struct fleet *f)
{
    struct hmapx hosts = HMAPX_INITIALIZER(&hosts);
    struct member *m;

    fleet_extra_changed(f->model, &hosts);
    if (!hmapx_is_empty(&hosts)) {
        HMAP_FOR_EACH (m, node, &f->members) {
            struct model_host *mh = host_of(f, m);

            if (hmapx_contains(&hosts, mh)) {
                host_set_extra(m->host, fleet_extra(f->model, mh));
            }
        }
    }
    if (!hmapx_is_empty(&hosts) || f->switches_changed) {
        f->switches_changed = false;
        fleet_extra_errors(f->model);
    }
    hmapx_destroy(&hosts);
}

void
fleet_sync(struct fleet *f)
{
    struct member *m;
    bool ports = false;

    sync_hosts(f);
    HMAP_FOR_EACH (m, node, &f->members) {
        ports = report_ports(f, m) || ports;
        report_pifs(f, m);
    }
    if (ports) {
        model_settle(f->model);
    }
    sync_extra(f);
}

/* The object whose flow a switch refused says so until the switch has taken it. */
static void
report_refusal(struct fleet *f, struct member *m, const struct host_status *s)
{
    uint32_t key = s->refused_cookie;
    struct model_obj *obj;
    char text[320];

    if (key == m->refused_key) {
        return;
    }
    if ((obj = model_by_key(f->model, m->refused_key))) {
        model_set_error(f->model, obj, NULL);
    }
    if ((obj = model_by_key(f->model, key))) {
        snprintf(text, sizeof text, "host %s: %s", host_name(m->host), s->error);
        model_set_error(f->model, obj, text);
    }
    m->refused_key = key;
}

static void
report_status(struct fleet *f, struct member *m)
{
    const struct host_status *s = host_get_status(m->host);
    struct model_host_status now;
    bool seen;

    if (m->new_at && !s->connected && time_msec() < m->new_at + HEAR_ALL_MS) {
        /* What was said of it before may be true still: whoever waits for
         * connected hosts is to wait for this one. */
        return;
    }
    m->new_at = 0;
    memset(&now, 0, sizeof now);
    now.connected = s->connected;
    now.applied_generation = s->applied_generation;
    now.drift = s->drift.missing + s->drift.foreign;
    seen = s->last_seen_ms - m->status.last_seen_ms >= SEEN_MS;
    now.last_seen_ms = seen ? s->last_seen_ms : m->status.last_seen_ms;
    ovs_strlcpy(now.error, s->error, sizeof now.error);
    ovs_strlcpy(now.datapath_type, s->datapath_type, sizeof now.datapath_type);
    ovs_strlcpy(now.switch_type, s->switch_type, sizeof now.switch_type);
    ovs_strlcpy(now.version, s->version, sizeof now.version);
    if (memcmp(&now, &m->status, sizeof now)) {
        f->switches_changed = f->switches_changed ||
                              strcmp(now.switch_type, m->status.switch_type) ||
                              strcmp(now.datapath_type, m->status.datapath_type);
        m->status = now;
        model_host_set_status(f->model, host_of(f, m), &now);
    }
}

/* Ports that wait for it are there, with all that goes with them, when the switch
 * has confirmed the table of the run that saw them first. */
static void
confirm_ports(struct fleet *f, struct member *m)
{
    const struct host_status *s = host_get_status(m->host);
    uint64_t run = compile_get_stats(f->compile)->runs;
    struct model_host *mh = host_of(f, m);
    struct model_port *port;

    if (!s->connected) {
        if (!m->new_at && !m->doubted) {
            m->doubted = true;
            model_ports_doubt(f->model, mh, MODEL_UNCONFIRMED);
        }
        return;
    }
    m->doubted = false;
    LIST_FOR_EACH_SAFE (port, confirm_node, &mh->unconfirmed) {
        if (!port->revision) {
            port->revision = run;
        }
        if (s->applied_revision >= port->revision) {
            model_port_confirm(f->model, port);
        }
    }
}

/* Hosts may be changed. */
static bool
may_act(struct fleet *f)
{
    const struct member *m;

    if (f->act_at && time_msec() < f->act_at) {
        HMAP_FOR_EACH (m, node, &f->members) {
            if (!m->ports_seqno && host_of(f, m)->enabled) {
                return false;
            }
        }
    }
    f->act_at = 0;
    return true;
}

void
fleet_run(struct fleet *f)
{
    bool act = may_act(f);
    struct member *m;

    crowded_run(&f->crowded, f->model, f->compile);
    HMAP_FOR_EACH (m, node, &f->members) {
        struct ftable *table = m->epoch ? compile_host_flows(f->compile, m->key) : NULL;

        if (table && table != m->table) {
            host_set_table(m->host, table);
            host_set_meters(m->host, compile_host_meters(f->compile, m->key));
            m->table = table;
        }
        if (table && m->ports_seqno && act) {
            host_set_revision(m->host, compile_get_stats(f->compile)->runs);
            host_commit(m->host, f->model->generation, m->ports_seqno);
        }
        host_run(m->host);
        if (m->epoch) {
            report_refusal(f, m, host_get_status(m->host));
            report_status(f, m);
            confirm_ports(f, m);
        }
    }
}

void
fleet_wait(struct fleet *f)
{
    struct member *m;

    if (f->act_at) {
        poll_timer_wait_until(f->act_at);
    }
    if (f->switches_changed) {
        poll_immediate_wake();
    }
    HMAP_FOR_EACH (m, node, &f->members) {
        host_wait(m->host);
        if (m->epoch && m->new_at) {
            poll_timer_wait_until(m->new_at + HEAR_ALL_MS);
        }
        if (host_get_ports_seqno(m->host) != m->ports_seqno) {
            poll_immediate_wake();
        }
    }
}

size_t
fleet_tap(struct fleet *f, unsigned seconds)
{
    struct member *m;
    size_t n = 0;

    HMAP_FOR_EACH (m, node, &f->members) {
        n += host_tap(m->host, seconds);
    }
    return n;
}

bool
fleet_tap_vif(struct fleet *f, const struct model_vif *vif, const struct match *filter,
              unsigned seconds)
{
    struct member *m = vif->host ? find(f, vif->host->obj.key) : NULL;
    const struct model_port *port = m ? model_vif_port(vif, vif->host) : NULL;

    return port && host_tap_port(m->host, port->ofport, vif->tag, vif->obj.key, filter, seconds);
}

/* --- for people ------------------------------------------------------------------------------ */

bool
fleet_audit(struct fleet *f, const char *name)
{
    struct member *m;
    bool found = !name;

    HMAP_FOR_EACH (m, node, &f->members) {
        if (!name || !strcmp(host_name(m->host), name)) {
            host_audit(m->host);
            found = true;
        }
    }
    return found;
}

static int
compare_names(const void *a_, const void *b_)
{
    const struct member *const *a = a_, *const *b = b_;

    return strcmp(host_name((*a)->host), host_name((*b)->host));
}

void
fleet_format(const struct fleet *f, const char *name, struct ds *ds)
{
    struct member **sorted = xmalloc(sizeof *sorted * (hmap_count(&f->members) + 1));
    struct member *m;
    size_t n = 0;

    HMAP_FOR_EACH (m, node, &f->members) {
        if (!name || !strcmp(host_name(m->host), name)) {
            sorted[n++] = m;
        }
    }
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (size_t i = 0; i < n; i++) {
        host_format(sorted[i]->host, ds);
    }
    free(sorted);
}

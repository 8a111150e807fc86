/* ovs-appctl weft/show [--json] [DP]: what the datapath's threads, caches and
 * ports are doing. */
#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "dp.h"
#include "dpif_weft.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "unixctl.h"
#include "util.h"

static const char *const drop_names[ENGINE_N_DROPS] = {
    [ENGINE_DROP_ACTION] = "action",
    [ENGINE_DROP_NO_PORT] = "no-port",
    [ENGINE_DROP_HEADROOM] = "headroom",
    [ENGINE_DROP_SHORT] = "short",
};

static const char *const kind_names[] = {
    [DP_PORT_VIF] = "vif",
    [DP_PORT_POLLED] = "polled",
    [DP_PORT_WAITED] = "waited",
    [DP_PORT_TUNNEL] = "tunnel",
};

static void
put(struct json *object, const char *name, uint64_t value)
{
    json_object_put(object, name, json_integer_create(value));
}

static uint64_t
get(const struct json *object, const char *name)
{
    return json_integer(shash_find_data(json_object(object), name));
}

static const char *
get_string(const struct json *object, const char *name)
{
    return json_string(shash_find_data(json_object(object), name));
}

/* --- collecting -------------------------------------------------------------- */

static struct json *
drops_to_json(const struct worker_stats *s)
{
    struct json *drops = json_object_create();

    for (size_t i = 0; i < ENGINE_N_DROPS; i++) {
        put(drops, drop_names[i], s->drops[i]);
    }
    return drops;
}

static struct json *
threads_to_json(struct dp *dp)
{
    struct json *threads = json_array_create_empty();
    struct dp_worker *w;

    ovs_mutex_lock(&dp->workers_lock);
    LIST_FOR_EACH (w, in_all, &dp->workers) {
        struct json *t = json_object_create();
        struct worker_stats s;

        worker_stats(w->worker, &s);
        json_object_put_string(t, "name", w->name[0] ? w->name : "vif");
        put(t, "packets", s.packets);
        put(t, "cache-hits", s.cache_hits);
        put(t, "cache-misses", s.misses);
        put(t, "verdicts", s.verdicts);
        put(t, "odd", s.odd);
        put(t, "learned", s.learned);
        put(t, "evicted", s.evicted);
        put(t, "cache-entries", s.cache_entries);
        put(t, "cache-size", s.cache_size);
        json_object_put(t, "drops", drops_to_json(&s));
        json_array_add(threads, t);
    }
    ovs_mutex_unlock(&dp->workers_lock);
    return threads;
}

static struct json *
ports_to_json(struct dp *dp)
{
    struct json *ports = json_array_create_empty();
    struct dp_port *port;

    ovs_rwlock_rdlock(&dp->ports_lock);
    HMAP_FOR_EACH (port, node, &dp->ports) {
        struct json *p = json_object_create();
        uint64_t lost;

        atomic_read_relaxed(&port->upcalls_lost, &lost);
        put(p, "number", odp_to_u32(port->port_no));
        json_object_put_string(p, "name", netdev_get_name(port->netdev));
        json_object_put_string(p, "type", port->type);
        json_object_put_string(p, "kind", kind_names[port->kind]);
        put(p, "rx-queues", port->n_rxq);
        put(p, "drops", atomic_load_explicit(&port->fast.drops, memory_order_relaxed));
        put(p, "upcalls-lost", lost);
        json_array_add(ports, p);
    }
    ovs_rwlock_unlock(&dp->ports_lock);
    return ports;
}

static struct json *
dp_to_json(struct dp *dp)
{
    struct json *o = json_object_create();
    uint64_t hit, missed, lost;
    struct cls_stats c;
    struct worker_stats s;

    dp_workers_stats(dp, &s);
    cls_stats(dp->classifier, &c);
    atomic_read_relaxed(&dp->n_hit, &hit);
    atomic_read_relaxed(&dp->n_missed, &missed);
    atomic_read_relaxed(&dp->n_lost, &lost);
    json_object_put_format(o, "name", "%s@%s", dp->class->type, dp->name);
    put(o, "packets", s.packets);
    put(o, "cache-hits", s.cache_hits);
    put(o, "classifier-hits", hit);
    put(o, "upcalls", missed);
    put(o, "upcalls-lost", lost);
    put(o, "flows", dp_flow_count(dp));
    put(o, "masks", c.masks);
    put(o, "tables", c.tables);
    put(o, "longest-chain", c.longest_chain);
    json_object_put(o, "drops", drops_to_json(&s));
    json_object_put(o, "threads", threads_to_json(dp));
    json_object_put(o, "ports", ports_to_json(dp));
    return o;
}

/* --- showing ------------------------------------------------------------------ */

static void
format_drops(struct ds *ds, const struct json *o)
{
    const struct json *drops = shash_find_data(json_object(o), "drops");

    for (size_t i = 0; i < ENGINE_N_DROPS; i++) {
        ds_put_format(ds, "%s%s %" PRIu64, i ? ", " : "", drop_names[i], get(drops, drop_names[i]));
    }
    ds_put_char(ds, '\n');
}

static void
format_thread(struct ds *ds, const struct json *t)
{
    ds_put_format(ds,
                  "    %s: %" PRIu64 " packets, cache hits %" PRIu64 ", misses %" PRIu64
                  ", verdicts %" PRIu64 ", odd %" PRIu64 "\n",
                  get_string(t, "name"), get(t, "packets"), get(t, "cache-hits"),
                  get(t, "cache-misses"), get(t, "verdicts"), get(t, "odd"));
    ds_put_format(ds,
                  "      cache: %" PRIu64 " of %" PRIu64 " entries, learned %" PRIu64
                  ", evicted %" PRIu64 "\n      drops: ",
                  get(t, "cache-entries"), get(t, "cache-size"), get(t, "learned"),
                  get(t, "evicted"));
    format_drops(ds, t);
}

static void
format_port(struct ds *ds, const struct json *p)
{
    ds_put_format(ds, "    %" PRIu64 ": %s (%s, %s", get(p, "number"), get_string(p, "name"),
                  get_string(p, "type"), get_string(p, "kind"));
    if (get(p, "rx-queues")) {
        ds_put_format(ds, ", %" PRIu64 " rx queues", get(p, "rx-queues"));
    }
    ds_put_format(ds, "), dropped %" PRIu64 ", upcalls lost %" PRIu64 "\n", get(p, "drops"),
                  get(p, "upcalls-lost"));
}

static void
format_dp(struct ds *ds, const struct json *o)
{
    const struct json_array *threads = json_array(shash_find_data(json_object(o), "threads"));
    const struct json_array *ports = json_array(shash_find_data(json_object(o), "ports"));

    ds_put_format(ds,
                  "%s:\n  packets: %" PRIu64 ", cache hits %" PRIu64 ", classifier hits %" PRIu64
                  ", upcalls %" PRIu64 ", lost %" PRIu64 "\n",
                  get_string(o, "name"), get(o, "packets"), get(o, "cache-hits"),
                  get(o, "classifier-hits"), get(o, "upcalls"), get(o, "upcalls-lost"));
    ds_put_format(ds,
                  "  flows: %" PRIu64 ", masks %" PRIu64 ", tables %" PRIu64
                  ", longest chain %" PRIu64 "\n  drops: ",
                  get(o, "flows"), get(o, "masks"), get(o, "tables"), get(o, "longest-chain"));
    format_drops(ds, o);
    ds_put_cstr(ds, "  threads:\n");
    for (size_t i = 0; i < threads->n; i++) {
        format_thread(ds, threads->elems[i]);
    }
    ds_put_cstr(ds, "  ports:\n");
    for (size_t i = 0; i < ports->n; i++) {
        format_port(ds, ports->elems[i]);
    }
}

static void
show_one(struct dp *dp, void *all)
{
    json_array_add(all, dp_to_json(dp));
}

static void
weft_show(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    struct json *all = json_array_create_empty();
    struct ds reply = DS_EMPTY_INITIALIZER;
    const char *name = NULL;
    bool as_json = false;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            as_json = true;
        } else {
            name = argv[i];
        }
    }
    if (!dpif_weft_for_each(name, show_one, all) && name) {
        unixctl_command_reply_error(conn, "no datapath of this name");
    } else {
        if (as_json) {
            json_to_ds(all, JSSF_PRETTY | JSSF_SORT, &reply);
        }
        for (size_t i = 0; !as_json && i < json_array(all)->n; i++) {
            format_dp(&reply, json_array(all)->elems[i]);
        }
        unixctl_command_reply(conn, ds_cstr(&reply));
    }
    ds_destroy(&reply);
    json_destroy(all);
}

void
dpif_weft_show_init(void)
{
    unixctl_command_register("weft/show", "[--json] [DP]", 0, 2, weft_show, NULL);
}

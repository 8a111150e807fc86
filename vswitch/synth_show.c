/* ovs-appctl's commands for ports of type synth: docs/performance.md. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <rte_cycles.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "synth_port.h"
#include "unixctl.h"
#include "util.h"

static struct ovs_mutex all_mutex = OVS_MUTEX_INITIALIZER;
static struct ovs_list all OVS_GUARDED_BY(all_mutex) = OVS_LIST_INITIALIZER(&all);

void
synth_show_add(struct netdev_synth *dev)
{
    ovs_mutex_lock(&all_mutex);
    ovs_list_push_back(&all, &dev->node);
    ovs_mutex_unlock(&all_mutex);
}

void
synth_show_remove(struct netdev_synth *dev)
{
    ovs_mutex_lock(&all_mutex);
    ovs_list_remove(&dev->node);
    ovs_mutex_unlock(&all_mutex);
}

/* Calls 'each' for the named ports, or all.  False if a name is unknown; then
 * nothing is called. */
static bool
for_ports(int n, const char *names[], void (*each)(struct netdev_synth *, void *aux), void *aux)
{
    struct netdev_synth *dev;
    int found = 0;

    ovs_mutex_lock(&all_mutex);
    for (int turn = 0; turn < 2 && found == (turn ? n : 0); turn++) {
        LIST_FOR_EACH (dev, node, &all) {
            bool named = !n;

            for (int i = 0; i < n; i++) {
                named |= !strcmp(names[i], netdev_get_name(&dev->up));
            }
            if (named && turn) {
                ovs_mutex_lock(&dev->mutex);
                each(dev, aux);
                ovs_mutex_unlock(&dev->mutex);
            } else if (named) {
                found += n > 0;
            }
        }
    }
    ovs_mutex_unlock(&all_mutex);
    return found == n;
}

static uint64_t
to_ns(uint64_t cycles)
{
    return cycles * 1e9 / rte_get_tsc_hz();
}

static void
show_json(struct netdev_synth *dev, void *ports) OVS_REQUIRES(dev->mutex)
{
    struct synth_counts c = synth_port_counts(dev);
    struct json *port = json_object_create();
    uint64_t rate;

    atomic_read_relaxed(&dev->rate, &rate);
    if (rate == SYNTH_STOPPED) {
        json_object_put(port, "rate", json_null_create());
    } else {
        json_object_put(port, "rate", json_integer_create(rate));
    }
    json_object_put(port, "rx_packets", json_integer_create(c.rx_packets));
    json_object_put(port, "rx_bytes", json_integer_create(c.rx_bytes));
    json_object_put(port, "rx_missed", json_integer_create(c.rx_missed));
    json_object_put(port, "tx_packets", json_integer_create(c.tx_packets));
    json_object_put(port, "tx_bytes", json_integer_create(c.tx_bytes));
    if (dev->stamp) {
        const struct synth_latency *l = &dev->latency;

        json_object_put(port, "stamped", json_integer_create(synth_latency_count(l)));
        json_object_put(port, "p50_ns", json_integer_create(to_ns(synth_latency_quantile(l, .5))));
        json_object_put(port, "p99_ns", json_integer_create(to_ns(synth_latency_quantile(l, .99))));
        json_object_put(port, "max_ns", json_integer_create(to_ns(synth_latency_quantile(l, 1))));
    }
    json_object_put(ports, netdev_get_name(&dev->up), port);
}

static void
show_text(struct netdev_synth *dev, void *out) OVS_REQUIRES(dev->mutex)
{
    struct synth_counts c = synth_port_counts(dev);
    uint64_t rate;

    atomic_read_relaxed(&dev->rate, &rate);
    ds_put_format(out, "%s: ", netdev_get_name(&dev->up));
    if (!dev->flows.n) {
        ds_put_cstr(out, "no flows");
    } else if (rate == SYNTH_STOPPED) {
        ds_put_cstr(out, "stopped");
    } else if (rate == SYNTH_UNLIMITED) {
        ds_put_cstr(out, "as fast as polled");
    } else {
        ds_put_format(out, "%" PRIu64 " packets a second", rate);
    }
    ds_put_format(out, ", rx %" PRIu64 " packets, missed %" PRIu64 ", tx %" PRIu64 " packets\n",
                  c.rx_packets, c.rx_missed, c.tx_packets);
    if (dev->stamp) {
        const struct synth_latency *l = &dev->latency;

        ds_put_format(out,
                      "  %" PRIu64 " stamped packets: p50 %" PRIu64 " ns, p99 %" PRIu64
                      " ns, longest %" PRIu64 " ns\n",
                      synth_latency_count(l), to_ns(synth_latency_quantile(l, .5)),
                      to_ns(synth_latency_quantile(l, .99)), to_ns(synth_latency_quantile(l, 1)));
    }
}

static void
handle_show(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    bool as_json = argc > 1 && !strcmp(argv[1], "--json");
    struct json *answer, *ports;
    struct ds out = DS_EMPTY_INITIALIZER;
    bool ok;

    if (as_json) {
        ports = json_object_create();
        answer = json_object_create();
        /* Read with the counters, whoever asks may measure time by it. */
        json_object_put(answer, "tsc", json_integer_create(rte_rdtsc()));
        json_object_put(answer, "tsc_hz", json_integer_create(rte_get_tsc_hz()));
        json_object_put(answer, "ports", ports);
        ok = for_ports(argc - 2, argv + 2, show_json, ports);
        json_to_ds(answer, JSSF_SORT, &out);
        json_destroy(answer);
    } else {
        ok = for_ports(argc - 1, argv + 1, show_text, &out);
    }
    if (ok) {
        unixctl_command_reply(conn, ds_cstr(&out));
    } else {
        unixctl_command_reply_error(conn, "no such port of type synth");
    }
    ds_destroy(&out);
}

static void
set_rate(struct netdev_synth *dev, void *rate) OVS_REQUIRES(dev->mutex)
{
    atomic_store_relaxed(&dev->rate, *(uint64_t *)rate);
}

static void
handle_rate(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    unsigned long long n = SYNTH_STOPPED;
    uint64_t rate;

    if (strcmp(argv[1], "stop") && (!str_to_ullong(argv[1], 10, &n) || n > SYNTH_RATE_MAX)) {
        unixctl_command_reply_error(conn, "give a rate in packets a second, 0 for unlimited, "
                                          "or \"stop\"");
        return;
    }
    rate = n;
    if (for_ports(argc - 2, argv + 2, set_rate, &rate)) {
        unixctl_command_reply(conn, NULL);
    } else {
        unixctl_command_reply_error(conn, "no such port of type synth");
    }
}

static void
clear_latency(struct netdev_synth *dev, void *aux OVS_UNUSED) OVS_REQUIRES(dev->mutex)
{
    synth_latency_clear(&dev->latency);
}

static void
handle_clear(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    if (for_ports(argc - 1, argv + 1, clear_latency, NULL)) {
        unixctl_command_reply(conn, NULL);
    } else {
        unixctl_command_reply_error(conn, "no such port of type synth");
    }
}

void
synth_show_register(void)
{
    unixctl_command_register("synth/show", "[--json] [PORT]...", 0, INT_MAX, handle_show, NULL);
    unixctl_command_register("synth/rate", "PPS|stop [PORT]...", 1, INT_MAX, handle_rate, NULL);
    unixctl_command_register("synth/clear", "[PORT]...", 0, INT_MAX, handle_clear, NULL);
}

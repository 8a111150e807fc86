/* Which thread receives from which port.
 *
 * Two kinds of threads receive from ports that are not vifs.  "weft-wait"
 * sleeps until one of its file descriptors is readable (TAPs, Linux devices,
 * dummies); there is one a datapath.  "weft-poll-N" polls ports that have none
 * (DPDK's); there is one for each CPU N of other_config:pmd-cpu-mask, by
 * default one, and none while no port needs it. */
#include <config.h>

#include <limits.h>

#include "dp.h"
#include "dp_poller.h"
#include "openvswitch/vlog.h"
#include "ovs-numa.h"
#include "smap.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_poll);

/* The most that Open vSwitch's own datapath takes for pmd-maxsleep. */
#define NAP_MAX_US 10000

struct pollers {
    struct poller *waiter;
    struct poller **polling; /* by CPU; none until a port needs them */
    size_t n_polling;
    char *cmask;         /* other_config:pmd-cpu-mask, or NULL */
    unsigned max_nap_us; /* other_config:pmd-maxsleep */
};

static struct poller *
least_loaded(const struct pollers *ps)
{
    struct poller *best = ps->polling[0];

    for (size_t i = 1; i < ps->n_polling; i++) {
        if (poller_load(ps->polling[i]) < poller_load(best)) {
            best = ps->polling[i];
        }
    }
    return best;
}

static int
compare_cores(const void *a, const void *b)
{
    const unsigned *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* The CPUs that polling threads are to run on, at least one; malloc'ed. */
static unsigned *
wanted_cores(const char *cmask, size_t *n)
{
    struct ovs_numa_dump *dump = NULL;
    struct ovs_numa_info_core *core;
    unsigned *cores;

    if (cmask && cmask[0]) {
        dump = ovs_numa_dump_cores_with_cmask(cmask);
        if (!ovs_numa_dump_count(dump)) {
            VLOG_WARN("pmd-cpu-mask=%s names no CPU of this machine", cmask);
            ovs_numa_dump_destroy(dump);
            dump = NULL;
        }
    }
    *n = 0;
    cores = xcalloc(MAX(dump ? ovs_numa_dump_count(dump) : 1, 1), sizeof *cores);
    if (dump) {
        FOR_EACH_CORE_ON_DUMP(core, dump)
        {
            cores[(*n)++] = core->core_id;
        }
        ovs_numa_dump_destroy(dump);
        qsort(cores, *n, sizeof *cores, compare_cores);
        return cores;
    }
    dump = ovs_numa_dump_n_cores_per_numa(1);
    if (dump) {
        cores[0] = UINT_MAX;
        FOR_EACH_CORE_ON_DUMP(core, dump)
        {
            cores[0] = MIN(cores[0], core->core_id);
        }
        ovs_numa_dump_destroy(dump);
    }
    if (cores[0] == UINT_MAX) {
        cores[0] = 0;
    }
    *n = 1;
    return cores;
}

static void
start_polling(struct dp *dp)
{
    struct pollers *ps = dp->pollers;
    unsigned *cores;

    if (ps->n_polling) {
        return;
    }
    cores = wanted_cores(ps->cmask, &ps->n_polling);
    ps->polling = xcalloc(ps->n_polling, sizeof *ps->polling);
    for (size_t i = 0; i < ps->n_polling; i++) {
        ps->polling[i] = poller_create(dp, cores[i]);
        poller_set_max_nap(ps->polling[i], ps->max_nap_us);
    }
    free(cores);
}

static void
stop_polling(struct pollers *ps)
{
    for (size_t i = 0; i < ps->n_polling; i++) {
        poller_destroy(ps->polling[i]);
    }
    free(ps->polling);
    ps->polling = NULL;
    ps->n_polling = 0;
}

int
pollers_create(struct dp *dp)
{
    dp->pollers = xzalloc(sizeof *dp->pollers);
    dp->pollers->waiter = poller_create(dp, POLLER_WAITS);
    return 0;
}

void
pollers_destroy(struct dp *dp)
{
    struct pollers *ps = dp->pollers;

    if (ps) {
        stop_polling(ps);
        poller_destroy(ps->waiter);
        free(ps->cmask);
        free(ps);
    }
}

void
pollers_add(struct dp *dp, struct dp_port *port)
{
    if (port->kind == DP_PORT_WAITED) {
        for (unsigned i = 0; i < port->n_rxq; i++) {
            poller_give_rxq(dp->pollers->waiter, port, i);
        }
        return;
    }
    start_polling(dp);
    poller_give_port(least_loaded(dp->pollers), port);
    for (unsigned i = 0; i < port->n_rxq; i++) {
        poller_give_rxq(i ? least_loaded(dp->pollers) : port->owner, port, i);
    }
}

void
pollers_remove(struct dp *dp, struct dp_port *port)
{
    struct pollers *ps = dp->pollers;

    if (port->kind == DP_PORT_WAITED) {
        poller_take_away(ps->waiter, port);
        return;
    }
    atomic_store_explicit(&port->owner, NULL, memory_order_release);
    /* Who has read the owner before may still want to wake it. */
    epoch_synchronize();
    for (size_t i = 0; i < ps->n_polling; i++) {
        poller_take_away(ps->polling[i], port);
    }
}

void
pollers_set_config(struct dp *dp, const struct smap *other_config)
{
    struct pollers *ps = dp->pollers;
    const char *cmask = smap_get(other_config, "pmd-cpu-mask");
    struct dp_port *port;

    ps->max_nap_us = MIN(smap_get_ullong(other_config, "pmd-maxsleep", 0), NAP_MAX_US);
    for (size_t i = 0; i < ps->n_polling; i++) {
        poller_set_max_nap(ps->polling[i], ps->max_nap_us);
    }
    if (nullable_string_is_equal(ps->cmask, cmask)) {
        return;
    }
    free(ps->cmask);
    ps->cmask = nullable_xstrdup(cmask);
    if (!ps->n_polling) {
        return;
    }
    HMAP_FOR_EACH (port, node, &dp->ports) {
        if (port->kind == DP_PORT_POLLED) {
            pollers_remove(dp, port);
        }
    }
    stop_polling(ps);
    HMAP_FOR_EACH (port, node, &dp->ports) {
        if (port->kind == DP_PORT_POLLED) {
            pollers_add(dp, port);
        }
    }
}

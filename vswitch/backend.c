#include <config.h>

#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "dirs.h"
#include "dp-packet.h"
#include "dpdk.h"
#include "if-notifier.h"
#include "netback.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "pools.h"
#include "settings.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(netback);

#define RETRY_MS 1000

/* Guards the calls into netback that netback.h wants one at a time. */
static struct ovs_mutex calls = OVS_MUTEX_INITIALIZER;
static struct netback *netback; /* written by the main thread under 'calls' */
static bool keep_vifs OVS_GUARDED_BY(calls);

/* What netback_config points to; live as long as 'netback'. */
static char *hv, *journal_dir;

static long long int retry_at;
static char *last_why; /* the failure reported last, so that it is said once */

/* Queue threads hand back what did not come from our pools: packets of NICs'
 * pools, and Open vSwitch's malloc'ed copies. */
static void
free_foreign(struct rte_mbuf *m)
{
    dp_packet_delete(CONTAINER_OF(m, struct dp_packet, mbuf));
}

static void
log_message(int syslog_level, const char *msg)
{
    if (syslog_level <= LOG_ERR) {
        VLOG_ERR("%s", msg);
    } else if (syslog_level == LOG_WARNING) {
        VLOG_WARN("%s", msg);
    } else if (syslog_level <= LOG_INFO) {
        VLOG_INFO("%s", msg);
    } else {
        VLOG_DBG("%s", msg);
    }
}

/* Makes the directory of the journals, beside the other things that outlive
 * the process but not the machine. */
static int
make_journal_dir(char **why)
{
    free(journal_dir);
    journal_dir = xasprintf("%s/weft", ovs_rundir());
    if (mkdir(journal_dir, 0700) && errno != EEXIST) {
        int error = errno;

        *why = xasprintf("cannot create %s for netback's journals: %s", journal_dir,
                         ovs_strerror(error));
        return error;
    }
    return 0;
}

static int
check_prerequisites(const struct settings *s, char **why)
{
    if (!dpdk_available()) {
        *why = xstrdup("netback needs DPDK: run "
                       "'ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true'");
        return ENOTSUP;
    }
    if (!s->hv[0]) {
        *why = xstrdup("no hypervisor here (/dev/xen is missing): for a lab run 'ovs-vsctl set "
                       "Open_vSwitch . other_config:weft-hv=local:DIR' with weft-localxen's "
                       "directory");
        return ENODEV;
    }
    return 0;
}

/* The datapath writes a line for each queue of all ports whenever one port
 * comes or goes: with hundreds of vifs, tens of thousands of lines. */
static void
quieten_datapath(void)
{
    struct vlog_module *m = vlog_module_from_name("dpif_netdev");

    if (m && vlog_get_level(m, VLF_FILE) == VLL_INFO) {
        vlog_set_levels(m, VLF_ANY_DESTINATION, VLL_WARN);
        VLOG_INFO("logging of dpif_netdev reduced to warnings "
                  "('ovs-appctl vlog/set dpif_netdev:info' undoes that)");
    }
}

static int
start(const struct settings *s, char **why)
{
    char reason[256] = "";
    struct netback *nb;
    int error;

    error = make_journal_dir(why);
    if (error) {
        return error;
    }
    free(hv);
    hv = xstrdup(s->hv);
    error = pools_small() ? 0 : pools_create(s->small_mbufs, s->large_mbufs);
    if (error) {
        *why = xasprintf("DPDK's memory does not hold %u small and %u large packet buffers "
                         "(%zu MiB): lower other_config:weft-small-mbufs and weft-large-mbufs, or "
                         "raise dpdk-socket-mem (dpdk-alloc-mem without hugepages)",
                         s->small_mbufs, s->large_mbufs,
                         pools_memory(s->small_mbufs, s->large_mbufs) >> 20);
        return error;
    }

    struct netback_config config = {
        .hv = hv,
        .journal_dir = journal_dir,
        .small = pools_small(),
        .large = pools_large(),
        .free_foreign = free_foreign,
        .max_queues = s->max_queues,
        .gref_budget = s->gref_budget,
        .gref_per_queue = s->gref_per_queue,
        .grx_queue_bytes = s->rx_queue_bytes,
        .grx_expire_ms = s->rx_expire_ms,
        .grx_stall_ms = s->rx_stall_ms,
        .poll_us = s->poll_us,
        .turn_packets = s->turn_packets,
        .turn_bytes = s->turn_bytes,
        .log = log_message,
    };
    error = netback_start(&config, &nb, reason, sizeof reason);
    if (error) {
        *why = xasprintf("cannot start netback on %s: %s", s->hv,
                         reason[0] ? reason : ovs_strerror(error));
        pools_destroy();
        return error;
    }
    ovs_mutex_lock(&calls);
    __atomic_store_n(&netback, nb, __ATOMIC_RELEASE);
    ovs_mutex_unlock(&calls);
    VLOG_INFO("netback runs on %s: %u small and %u large packet buffers, %zu MiB", s->hv,
              s->small_mbufs, s->large_mbufs, pools_memory(s->small_mbufs, s->large_mbufs) >> 20);
    quieten_datapath();
    return 0;
}

int
backend_start(char **why)
{
    const struct settings *s = settings();
    int error;

    if (netback) {
        return 0;
    }
    error = check_prerequisites(s, why);
    return error ? error : start(s, why);
}

void
backend_prepare(void)
{
    const struct settings *s = settings();

    if (!netback && dpdk_available() && s->hv[0] && pools_create(s->small_mbufs, s->large_mbufs)) {
        VLOG_WARN("packet buffers cannot be made in advance");
    }
}

struct netback *
backend_instance(void)
{
    return __atomic_load_n(&netback, __ATOMIC_ACQUIRE);
}

bool
backend_running(void)
{
    return netback != NULL;
}

static bool
wanted(void)
{
    return !netback && settings()->known && settings()->hv[0] && dpdk_available();
}

void
backend_run(void)
{
    char *why = NULL;

    if (!wanted() || time_msec() < retry_at) {
        return;
    }
    if (!backend_start(&why)) {
        /* Ports that were refused for want of it get another chance. */
        if (last_why) {
            if_notifier_manual_report();
        }
        free(last_why);
        last_why = NULL;
        return;
    }
    retry_at = time_msec() + RETRY_MS;
    if (!last_why || strcmp(last_why, why)) {
        VLOG_WARN("%s (trying again)", why);
        free(last_why);
        last_why = xstrdup(why);
    }
    free(why);
}

void
backend_wait(void)
{
    if (wanted()) {
        poll_timer_wait_until(retry_at);
    }
}

void
backend_stop(bool close_vifs)
{
    ovs_mutex_lock(&calls);
    netback_stop(netback, close_vifs);
    netback = NULL;
    ovs_mutex_unlock(&calls);
    free(hv);
    free(journal_dir);
    free(last_why);
    hv = journal_dir = last_why = NULL;
}

void
backend_keep_vifs(void)
{
    ovs_mutex_lock(&calls);
    keep_vifs = true;
    ovs_mutex_unlock(&calls);
}

int
backend_attach(uint16_t domid, uint32_t handle, struct netback_vif **vif)
{
    int error;

    ovs_mutex_lock(&calls);
    error = netback ? netback_attach(netback, domid, handle, vif) : ENOTCONN;
    ovs_mutex_unlock(&calls);
    return error;
}

void
backend_detach(struct netback_vif *vif)
{
    ovs_mutex_lock(&calls);
    if (netback && !keep_vifs) {
        netback_detach(vif);
    }
    ovs_mutex_unlock(&calls);
}

struct netback_vif_info *
backend_list(size_t *n)
{
    struct netback_vif_info *list = NULL;
    size_t cap = 0, have = 0;

    ovs_mutex_lock(&calls);
    /* The list may grow between two looks at it. */
    while (netback && (have = netback_list(netback, list, cap)) > cap) {
        cap = have + 16;
        list = xrealloc(list, cap * sizeof *list);
    }
    ovs_mutex_unlock(&calls);
    *n = have;
    return list;
}

int
backend_list_fd(void)
{
    return netback ? netback_list_fd(netback) : -1;
}

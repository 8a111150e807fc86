/* netback: the instance that serves every vif of a host. */
#include "netback.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include <rte_mbuf.h>
#include <xenstore.h>

#include "vif.h"

void
netback_log(struct netback *nb, int level, const char *format, ...)
{
    char msg[640];
    va_list args;

    va_start(args, format);
    vsnprintf(msg, sizeof msg, format, args);
    va_end(args);
    if (nb->config.log) {
        nb->config.log(level, msg);
    } else {
        fprintf(stderr, "netback: %s\n", msg);
    }
}

static void
set_defaults(struct netback_config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!c->max_queues) {
        c->max_queues = cores < 1 ? 1 : cores;
    }
    if (c->max_queues > NETBACK_MAX_QUEUES) {
        c->max_queues = NETBACK_MAX_QUEUES;
    }
    c->gref_budget = c->gref_budget ? c->gref_budget : 65536;
    c->gref_per_queue = c->gref_per_queue ? c->gref_per_queue : 1024;
    if (c->gref_per_queue > JOURNAL_GREFS_MAX) {
        c->gref_per_queue = JOURNAL_GREFS_MAX;
    }
    c->grx_queue_bytes = c->grx_queue_bytes ? c->grx_queue_bytes : 4u << 20;
    c->grx_expire_ms = c->grx_expire_ms ? c->grx_expire_ms : 10000;
    c->grx_stall_ms = c->grx_stall_ms ? c->grx_stall_ms : 60000;
    c->poll_us = c->poll_us ? c->poll_us : 5;
    if (!c->turn_packets || c->turn_packets > NETBACK_TURN_MAX) {
        c->turn_packets = NETBACK_TURN_MAX;
    }
    c->turn_bytes = c->turn_bytes ? c->turn_bytes : 256u << 10;
}

/* A thousand vifs hold several descriptors each. */
static void
raise_fd_limit(void)
{
    struct rlimit rl;

    if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static bool
pools_fit(const struct netback_config *c)
{
    return rte_pktmbuf_data_room_size(c->small) >= NETBACK_HEADROOM + 1536 &&
           rte_pktmbuf_data_room_size(c->large) >= NETBACK_HEADROOM + NETBACK_FRAME_MAX;
}

static void
stop_ticker(struct netback *nb)
{
    atomic_store(&nb->ticker_stop, true);
    atomic_store(&nb->ticker_rests, 0);
    syscall(SYS_futex, &nb->ticker_rests, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    pthread_join(nb->ticker, NULL);
}

/* Signals are the main thread's. */
static int
start_threads(struct netback *nb)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&nb->ticker, NULL, netback_ticker, nb);
    if (!error) {
        pthread_setname_np(nb->ticker, "weft-ticker");
        error = pthread_create(&nb->thread, NULL, xenbus_main, nb);
        if (error) {
            stop_ticker(nb);
        } else {
            pthread_setname_np(nb->thread, "weft-xenbus");
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

int
netback_start(const struct netback_config *config, struct netback **out, char *why, size_t why_size)
{
    struct netback *nb;
    int error = posix_memalign((void **)&nb, 64, sizeof *nb);

    if (error) {
        snprintf(why, why_size, "out of memory");
        return error;
    }
    memset(nb, 0, sizeof *nb);
    nb->config = *config;
    set_defaults(&nb->config);
    nb->gref_left = nb->config.gref_budget;
    pthread_mutex_init(&nb->lock, NULL);
    nb->cmd_fd = nb->list_fd = -1;
    raise_fd_limit();

    if (!pools_fit(&nb->config)) {
        error = EINVAL;
        snprintf(why, why_size, "the packet buffers are too small");
        goto fail;
    }
    if (mkdir(nb->config.journal_dir, 0700) && errno != EEXIST) {
        error = errno;
        snprintf(why, why_size, "cannot make %s: %s", nb->config.journal_dir, strerror(error));
        goto fail;
    }
    error = hv_open(nb->config.hv, &nb->hv, why, why_size);
    if (error) {
        goto fail;
    }
    error = nb->hv->ops->store_open(nb->hv, &nb->xs);
    if (error) {
        snprintf(why, why_size, "%s: no connection to the store: %s", nb->config.hv,
                 strerror(error));
        goto fail;
    }
    nb->cmd_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    nb->list_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    error = nb->cmd_fd < 0 || nb->list_fd < 0 ? errno : start_threads(nb);
    if (error) {
        snprintf(why, why_size, "cannot start threads: %s", strerror(error));
        goto fail;
    }
    xenbus_wait_started(nb);
    *out = nb;
    return 0;

fail:
    if (nb->cmd_fd >= 0) {
        close(nb->cmd_fd);
    }
    if (nb->list_fd >= 0) {
        close(nb->list_fd);
    }
    if (nb->xs) {
        xs_close(nb->xs);
    }
    hv_close(nb->hv);
    pthread_mutex_destroy(&nb->lock);
    free(nb);
    return error;
}

void
netback_stop(struct netback *nb, bool close_vifs)
{
    if (!nb) {
        return;
    }
    if (close_vifs) {
        xenbus_call(nb, xenbus_close_all, NULL);
    }
    pthread_mutex_lock(&nb->lock);
    nb->stopping = true;
    pthread_mutex_unlock(&nb->lock);
    xenbus_kick(nb);
    pthread_join(nb->thread, NULL);
    stop_ticker(nb);
    couriers_close(nb);
    xs_close(nb->xs);
    hv_close(nb->hv);
    close(nb->cmd_fd);
    close(nb->list_fd);
    pthread_mutex_destroy(&nb->lock);
    free(nb);
}

int
netback_list_fd(const struct netback *nb)
{
    return nb->list_fd;
}

size_t
netback_list(struct netback *nb, struct netback_vif_info *infos, size_t cap)
{
    eventfd_t ignored;
    size_t n = 0;

    eventfd_read(nb->list_fd, &ignored);
    pthread_mutex_lock(&nb->lock);
    for (struct netback_vif *v = nb->vifs; v; v = v->next) {
        if (v->present) {
            if (n < cap) {
                infos[n] = v->info;
            }
            n++;
        }
    }
    pthread_mutex_unlock(&nb->lock);
    return n;
}

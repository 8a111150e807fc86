/* Naps of Open vSwitch's polling threads.
 *
 * With pmd-maxsleep set, a polling thread sleeps after every round that
 * brought few packets, a microsecond longer each time.  A short sleep costs
 * more than it saves (26 % of the thread's samples at 64-byte packets), and a
 * long one makes guests' packets wait.  Ours stands in front of the sleep:
 *
 *   something came from a guest since the last round        no sleep
 *   less than SPIN_US since then, or SLEEP_MIN_US asked for  the core to others, if they want it
 *   else                                                     sleep as long as asked,
 *                                                            or until the next packet
 *
 * What other ports receive still waits for the sleep to end. */
#include <config.h>

#include <sched.h>

#include <rte_cycles.h>

#include "backend.h"
#include "netback.h"
#include "util.h"
#include "wrap.h"

#define SPIN_US 5
#define SLEEP_MIN_US 20

void
__wrap_xnanosleep_no_quiesce(uint64_t ns)
{
    static __thread uint64_t busy_until;
    static __thread uint32_t seen;
    struct netback *nb = backend_instance();
    uint32_t before = seen;
    uint64_t now;

    if (!nb) {
        __real_xnanosleep_no_quiesce(ns);
        return;
    }
    now = rte_rdtsc();
    netback_rx_wait(nb, &seen, now < busy_until || ns < SLEEP_MIN_US * 1000 ? 0 : ns);
    if (seen != before) {
        busy_until = now + rte_get_tsc_hz() / 1000000 * SPIN_US;
    } else {
        sched_yield();
    }
}

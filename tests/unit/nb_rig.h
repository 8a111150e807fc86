/* nb_rig: a whole netback for tests, with nothing left out but the switch.
 *
 * rig_begin() makes a private directory, a broker process in it (local.h),
 * DPDK without hugepages and two mempools.  rig_netback() starts a netback in
 * this process.  The test is the switch through netback.h, and any number of
 * guests through nb_guest.h.
 *
 *   guest (nb_guest) ==rings, store== netback ==bursts== test
 *
 * Threads: the main thread, but for the log and what says otherwise. */
#ifndef NB_RIG_H
#define NB_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "netback.h"

struct xs_handle;

#define RIG_MAX_QUEUES 4u
/* Longer than a busy machine keeps a test from running. */
#define RIG_STALL_MS 1000u
#define RIG_EXPIRE_MS 60000u
#define RIG_QUEUE_BYTES (1u << 20)
#define RIG_GREF_BUDGET 1024u
#define RIG_GREF_PER_QUEUE 600u
/* Long enough for a loaded machine, short enough for a test that fails. */
#define RIG_PATIENCE_MS 20000

extern struct netback *rig_nb;
extern unsigned rig_expire_ms; /* of what rig_netback() starts */
extern struct rte_mempool *rig_small, *rig_large;

/* Exits the program on failure. */
void rig_begin(void);
/* Ends netback and the broker and removes the directory. */
void rig_end(void);
/* The same for a child process that joins the directory of its parent's rig. */
void rig_join(const char *dir);
const char *rig_dir(void);

/* Starts netback with the settings above; with 'journal' NULL, in the rig's
 * directory. */
void rig_netback(void);
void rig_netback_stop(bool close_vifs);

/* The store with dom0's rights; the main thread's own. */
struct xs_handle *rig_store(void);
/* Writes and reads PATH/KEY with dom0's rights.  rig_key_is() is false for a key
 * that is not there. */
void rig_write(const char *path, const char *key, const char *value);
bool rig_key_is(const char *path, const char *key, const char *value);

/* --- time ---------------------------------------------------------------- */

uint64_t rig_now_ns(void);
static inline uint64_t
rig_now_ms(void)
{
    return rig_now_ns() / 1000000;
}
/* Gives way for a moment. */
void rig_yield(void);
/* Looks at 'cond' until it holds or 'ms' have passed; its last value. */
#define RIG_UNTIL(cond, ms)                                                                        \
    ({                                                                                             \
        uint64_t until_ = rig_now_ms() + (ms);                                                     \
        bool held_;                                                                                \
        while (!(held_ = (cond)) && rig_now_ms() < until_) {                                       \
            rig_yield();                                                                           \
        }                                                                                          \
        held_;                                                                                     \
    })

/* --- the log (any thread) --------------------------------------------------- */

void rig_log_clear(void);
/* True if a line since then contains 'text'. */
bool rig_logged(const char *text);
unsigned rig_log_lines(void);
/* The thread that next logs a line with 'text' in it stands still there, until
 * rig_log_go(): to make happen what otherwise happens once in a thousand times.
 * rig_log_wait() waits until it stands. */
void rig_log_hold(const char *text);
bool rig_log_wait(void);
void rig_log_go(void);

/* --- what a test leaves behind ------------------------------------------------ */

struct rig_resources {
    unsigned fds, threads, buffers;
};
struct rig_resources rig_resources(void);
/* True as soon as no more is in use than in 'base'. */
bool rig_settles(const struct rig_resources *base);
bool rig_has_thread(const char *name);
/* CPU time of this process's thread called 'name', ns; 0 if there is none. */
uint64_t rig_thread_cpu_ns(const char *name);

/* --- the switch ---------------------------------------------------------------- */

/* Attaches vif 'domid'.0; exits the program on failure. */
struct netback_vif *rig_attach(uint16_t domid);
/* An mbuf with these bytes, as a switch would hand over. */
struct rte_mbuf *rig_mbuf(const void *frame, uint32_t len);
/* Takes packets of all queues of a vif until there are 'want' <= 1,024 or 'ms'
 * have passed.  'queue_of' (or NULL) gets the queue each came from. */
unsigned rig_collect(struct netback_vif *, struct rte_mbuf **, unsigned *queue_of, unsigned want,
                     int ms);
/* Takes and frees what there is.  Returns how many. */
unsigned rig_discard(struct netback_vif *);
void rig_free(struct rte_mbuf **, unsigned n);
struct netback_stats rig_stats(const struct netback_vif *);
uint64_t rig_drops(const struct netback_vif *, enum drop_reason);
struct netback_status rig_status(const struct netback_vif *);

#endif

/* settings: what other_config of the Open_vSwitch table says to Weft.
 *
 * The keys, their ranges and defaults:
 *   weft-hv              "xen" or "local:DIR".  Default: the environment's
 *                        WEFT_HV, else "xen" where /dev/xen exists, else none
 *   weft-plug            true: vifs become ports by themselves (true)
 *   weft-max-queues      queues offered to a guest, 1..8 (one a CPU)
 *   weft-gref-budget     static grant mappings on this host (65,536)
 *   weft-gref-per-queue  of those, at most for one queue (1,024)
 *   weft-small-mbufs     packet buffers of 1.5 KiB, 1,024..4,194,304 (32,768)
 *   weft-large-mbufs     packet buffers of 64 KiB, 64..1,048,576 (2,048)
 *   weft-rx-queue-bytes  buffer memory queued to a guest, per queue (4 MiB)
 *   weft-rx-expire-ms    a packet waits at most this long for a guest (10,000)
 *   weft-rx-stall-ms     a guest without buffers for this long is stalled (60,000)
 *   weft-poll-us         a queue polls this long before it sleeps (5)
 *   weft-turn-packets    datapath "weft": a guest's share of its thread's turn, 1..128 (128)
 *   weft-turn-bytes      the same in bytes, 4,096..16,777,216 (262,144)
 * All but weft-plug are read once, when the backend starts.
 *
 * Threads: settings_update() and settings() from the main thread only. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

struct smap;

struct settings {
    bool known;   /* the database has been read */
    char hv[256]; /* empty: no hypervisor */
    bool plug;
    unsigned max_queues;
    unsigned gref_budget, gref_per_queue;
    unsigned small_mbufs, large_mbufs;
    size_t rx_queue_bytes;
    unsigned rx_expire_ms, rx_stall_ms;
    unsigned poll_us;
    unsigned turn_packets;
    size_t turn_bytes;
};

/* Takes over a changed other_config; complains about values out of range
 * once per change and uses their defaults. */
void settings_update(const struct smap *other_config);
const struct settings *settings(void);

#endif

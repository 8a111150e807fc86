#include <config.h>

#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openvswitch/util.h"
#include "openvswitch/vlog.h"
#include "smap.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_settings);

static struct settings current = {.plug = true, .small_mbufs = 32768, .large_mbufs = 2048};
static struct smap seen = SMAP_INITIALIZER(&seen);

/* A number in [min, max], or 'def' where the key is absent or wrong. */
static unsigned
get_uint(const struct smap *cfg, const char *key, unsigned min, unsigned max, unsigned def)
{
    const char *text = smap_get(cfg, key);
    unsigned value;

    if (!text) {
        return def;
    }
    if (!str_to_uint(text, 10, &value) || value < min || value > max) {
        VLOG_WARN("other_config:%s=%s is not a number from %u to %u: using the default", key, text,
                  min, max);
        return def;
    }
    return value;
}

static const char *
find_hv(const struct smap *cfg)
{
    const char *hv = smap_get(cfg, "weft-hv");

    if (!hv) {
        hv = getenv("WEFT_HV");
    }
    if (!hv) {
        hv = access("/dev/xen", F_OK) ? "" : "xen";
    }
    return hv;
}

void
settings_update(const struct smap *cfg)
{
    struct settings *s = &current;

    if (s->known && smap_equal(&seen, cfg)) {
        return;
    }
    smap_destroy(&seen);
    smap_clone(&seen, cfg);

    ovs_strlcpy(s->hv, find_hv(cfg), sizeof s->hv);
    s->plug = smap_get_bool(cfg, "weft-plug", true);
    /* Zero leaves the choice to netback.h's default. */
    s->max_queues = get_uint(cfg, "weft-max-queues", 1, 8, 0);
    s->gref_budget = get_uint(cfg, "weft-gref-budget", 1, 262144, 0);
    s->gref_per_queue = get_uint(cfg, "weft-gref-per-queue", 1, 16384, 0);
    s->small_mbufs = get_uint(cfg, "weft-small-mbufs", 1024, 4194304, 32768);
    s->large_mbufs = get_uint(cfg, "weft-large-mbufs", 64, 1048576, 2048);
    s->rx_queue_bytes = get_uint(cfg, "weft-rx-queue-bytes", 131072, 1u << 30, 0);
    s->rx_expire_ms = get_uint(cfg, "weft-rx-expire-ms", 1, 3600000, 0);
    s->rx_stall_ms = get_uint(cfg, "weft-rx-stall-ms", 1, 3600000, 0);
    s->poll_us = get_uint(cfg, "weft-poll-us", 1, 1000000, 0);
    s->turn_packets = get_uint(cfg, "weft-turn-packets", 1, 128, 0);
    s->turn_bytes = get_uint(cfg, "weft-turn-bytes", 4096, 16777216, 0);
    s->known = true;
}

const struct settings *
settings(void)
{
    return &current;
}

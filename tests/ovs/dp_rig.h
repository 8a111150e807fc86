/* A datapath of type "weft" without ports and threads of its own, for tests
 * of its parts; and a dpif that the class's functions take for one of it. */
#ifndef DP_RIG_H
#define DP_RIG_H

#include "dp.h"
#include "ovs-rcu.h"
#include "packets.h"
#include "util.h"

static struct dp *rig_dp;
static struct dpif_weft rig_dpif;
#define RIG_DPIF (&rig_dpif.dpif)

static inline void
rig_start(void)
{
    struct dp *dp = dp_create(&dpif_weft_class, "rig");

    ovs_assert(dp);
    rig_dp = dp;
    rig_dpif.dpif.dpif_class = &dpif_weft_class;
    rig_dpif.dp = dp;
}

static inline void
rig_stop(void)
{
    dp_destroy(rig_dp);
}

/* A port that sends nothing, of a kind. */
static inline struct dp_port *
rig_port(uint16_t port_no, enum dp_port_kind kind)
{
    struct dp_port *port = xzalloc(sizeof *port);

    port->dp = rig_dp;
    port->port_no = u32_to_odp(port_no);
    port->kind = kind;
    engine_port_set(rig_dp->engine, port_no, &port->fast);
    return port;
}

/* No worker is online. */
static inline void
rig_port_free(struct dp_port *port)
{
    engine_port_set(rig_dp->engine, odp_to_u32(port->port_no), NULL);
    epoch_synchronize();
    free(port);
}

#endif

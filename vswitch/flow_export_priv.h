/* flow_export_priv: what flow_export_config.c tells flow_export.c.
 *
 * A plan is made by the main thread, complete; whoever has it owns it. */
#ifndef FLOW_EXPORT_PRIV_H
#define FLOW_EXPORT_PRIV_H

#include "export.h"
#include "fast/engine.h"

struct dp;

#define PLAN_EXPORTS_MAX 2u /* of a bridge: its NetFlow row and its IPFIX row */

struct plan_bridge {
    char name[64];
    unsigned n_exports;
    struct export_config exports[PLAN_EXPORTS_MAX];
    size_t n_interfaces;
    struct export_interface *interfaces;
};

/* A port of the datapath. */
struct plan_port {
    uint32_t bridge; /* index + 1; 0: of none that exports */
    uint32_t of_port;
    uint32_t vif, network; /* keys; 0: none */
    bool exists;
};

struct plan {
    struct record_settings settings;
    size_t n_bridges;
    struct plan_bridge *bridges;
    struct plan_port *ports; /* ENGINE_PORTS_MAX */
};

void plan_destroy(struct plan *); /* accepts NULL */

/* flow_export.c.  Begins, goes on under another plan, or (NULL) ends.  'dp'
 * must stay until the end. */
void flow_export_apply(struct dp *, struct plan *);
void flow_export_show_init(void);

#endif

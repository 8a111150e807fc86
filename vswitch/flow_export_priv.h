/* flow_export_priv: what flow_export_config.c tells flow_export.c.
 *
 * A plan is made by the main thread, complete; whoever has it owns it. */
#ifndef FLOW_EXPORT_PRIV_H
#define FLOW_EXPORT_PRIV_H

#include "export.h"
#include "fast/engine.h"

struct dp;

struct plan_export {
    struct export_config config;
    bool scoped;        /* of these networks' packets only */
    uint32_t *networks; /* keys, sorted */
    size_t n_networks;
};

/* Whose a network is. */
struct plan_tenant {
    uint32_t network, tenant; /* keys */
};

struct plan_bridge {
    char name[64];
    struct plan_tenant *tenants; /* sorted */
    size_t n_tenants;
    unsigned n_exports;
    struct plan_export *exports; /* its NetFlow row, its IPFIX row, those of networks */
    size_t n_interfaces;
    struct export_interface *interfaces;
    uint32_t *interface_ports; /* of each: the datapath's, or UINT32_MAX */
};

/* Whose packets come in at a port with a VLAN, at a tunnel's with a key. */
struct plan_tag {
    uint32_t id, network;
    uint64_t since;
};

/* A port of the datapath. */
struct plan_port {
    uint32_t bridge; /* index + 1; 0: of none that exports */
    uint32_t of_port;
    uint32_t vif, network; /* keys; 0: none */
    bool exists;
    uint64_t since;        /* Unix ms: all this is so */
    struct plan_tag *tags; /* sorted */
    size_t n_tags;
};

struct plan {
    struct record_settings settings;
    size_t n_bridges;
    struct plan_bridge *bridges;
    struct plan_port *ports; /* ENGINE_PORTS_MAX */
};

void plan_destroy(struct plan *); /* accepts NULL */

/* flow_export_scope.c: keys of networks, "TAG=NETWORK ..." of a port, tenants. */
void plan_scope(struct plan_export *, const char *networks);
void plan_port_tags(struct plan_port *, const char *tags);
bool plan_scope_has(const struct plan_export *, uint32_t network);
/* A record's network, 0: none.  'sure': its first packet came when that was so. */
uint32_t plan_network(const struct plan_port *, const struct flow_record *, bool *sure);
/* "NETWORK=TENANT ..." of a bridge; of two that are stated for one network neither counts. */
void plan_tenants(struct plan_bridge *, const char *tenants);
/* 0: nobody's, or nothing is said. */
uint32_t plan_tenant(const struct plan_bridge *, uint32_t network);
/* Those of the bridge that the exporter may tell of; 'to' has room for all. */
size_t plan_scope_interfaces(const struct plan *, const struct plan_bridge *,
                             const struct plan_export *, struct export_interface *to);
/* What is as it was has been so since then. */
void plan_keep(struct plan *, const struct plan *was);

/* flow_export.c.  Begins, goes on under another plan, or (NULL) ends.  'dp'
 * must stay until the end. */
void flow_export_apply(struct dp *, struct plan *);
void flow_export_show_init(void);

#endif

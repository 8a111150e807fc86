/* host_extra: what a host's switch should have besides its flows and its own
 * ports: mirrors and flow exporters.
 *
 * fleet works it out of the model (fleet_extra.c), host brings the switch's
 * database to it (host_db_extra.c).  Plain values without the model's pointers.
 *
 * Threads: none of this locks.  Ownership: host_set_extra() takes the struct. */
#ifndef HOST_EXTRA_H
#define HOST_EXTRA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "svec.h"

struct hmapx;
struct host;
struct model;
struct model_exporter;
struct model_host;
struct model_network;

enum host_mirror_output {
    HOST_MIRROR_PORT, /* a vif's */
    HOST_MIRROR_VLAN, /* by the uplink, with a tag */
    HOST_MIRROR_GRE,
    HOST_MIRROR_ERSPAN,
};

/* Open vSwitch has no more on a bridge. */
enum { HOST_MIRRORS_MAX = 32 };

/* The sources' ports are names; what of them is not there yet is left out. */
struct host_mirror {
    char *name;
    struct svec in, out; /* ports whose packets to, from the vif are copied */
    int select;          /* only those with this tag, 0: without one; -1: all */
    enum host_mirror_output how;
    uint32_t key;      /* of the mirror: names the tunnel's port */
    char *output_port; /* HOST_MIRROR_PORT */
    uint16_t vlan;     /* HOST_MIRROR_VLAN */
    char *remote_ip;   /* of a tunnel */
    char *local_ip;    /* or "" */
    uint16_t session;
    uint16_t snaplen;
};

enum host_protocol { HOST_NETFLOW, HOST_SFLOW, HOST_IPFIX, HOST_N_PROTOCOLS };

/* Numbers: 0 is the switch's default. */
struct host_exporter {
    struct svec targets, options; /* no targets: none */
    uint32_t sampling, active_timeout, cache_max_flows, polling, header;
    uint32_t domain;   /* of IPFIX; engine of NetFlow: its low bits */
    char *sflow_agent; /* or NULL */
};

/* One that hears of some networks' packets only, as our switches alone can. */
struct host_scope {
    uint32_t key;   /* the exporter's */
    char *networks; /* keys, with blanks between them */
    struct host_exporter exporter;
};

/* What exporters call a vif's port, and whose packets come in at the port with a
 * tag: "TAG=NETWORK ..." of a trunk's and the uplink's VLANs, a tunnel's keys. */
struct host_port_keys {
    char *port;
    uint32_t vif, network; /* 0: no vif's */
    char *tags;            /* or "" */
};

/* The uplink, if it has this name. */
struct host_bond {
    char *port; /* NULL: there is none */
    struct svec interfaces;
    const char *mode, *lacp; /* as the database has them */
    bool lacp_fast;
    char *primary; /* or "" */
    uint32_t updelay, downdelay;
};

struct host_extra {
    struct host_bond bond;
    struct svec pifs;            /* devices of which the switch is asked, sorted */
    struct host_port_keys *keys; /* in order of ports, if something is exported */
    size_t n_keys;
    struct svec tenants; /* of those networks: "NETWORK=TENANT", keys, sorted */
    struct host_mirror *mirrors;
    size_t n_mirrors;
    struct host_exporter exporters[HOST_N_PROTOCOLS];
    struct host_scope *scopes; /* in order of keys */
    size_t n_scopes;
};

/* The set of rows that have an IPFIX exporter of ours, for flows' sample actions. */
#define HOST_COLLECTOR_SET 1
/* Of a scoped exporter with this key: no flow's sample action names it. */
#define HOST_SCOPE_SET(KEY) ((int64_t)0x100 + (KEY))

void host_extra_free(struct host_extra *); /* NULL is fine */
bool host_extra_equal(const struct host_extra *, const struct host_extra *);
/* Names of the ports of a mirror to a VLAN: what goes into the first comes out of
 * the second. */
void host_mirror_vlan_ports(uint16_t vlan, char in[16], char out[16]);

/* fleet_extra.c: what the model wants of a host.  Says at mirrors what they
 * cannot copy. */
struct host_extra *fleet_extra(struct model *, const struct model_host *);
/* Adds the hosts of which the change set may have changed that. */
void fleet_extra_changed(const struct model *, struct hmapx *model_hosts);
void fleet_extra_errors(struct model *);

/* fleet_scope.c, parts of it: scoped exporters, and tags of the uplink and of tunnels. */
void fleet_scopes(const struct model *, struct host_extra *, const struct model_host *);
void fleet_scope_errors(struct model *);
/* Whether a switch can export some networks' packets only. */
bool fleet_scope_can(const char *switch_type, const char *datapath_type);
/* Whose the network is, for 'tenants'. */
void fleet_add_tenant(struct host_extra *, const struct model_network *);
void fleet_set_exporter(struct host_exporter *, const struct model_exporter *,
                        const struct model_host *);

/* host.c */
void host_set_extra(struct host *, struct host_extra *);

#endif

/* host: one managed switch, Open vSwitch or ours.
 *
 * Keeps two connections, OVSDB and OpenFlow, and brings the switch to what is
 * stated: the bridge's settings and its uplink and tunnel ports by OVSDB, the
 * flows of a "struct ftable" by OpenFlow, each change as one atomic bundle.
 * At every connect the switch's own table is read and only the difference is
 * sent.  Says in return which ports there are, what has been applied, and what
 * differed without our doing.
 *
 * A host acts only while host_set_epoch() says that we lead: it takes the
 * OpenFlow role MASTER with the epoch as generation id, so that a switch obeys
 * no controller of an older epoch.  While we do not, host_watch() has it read
 * the ports.
 *
 * Nothing is pushed before the switch's ports are known and host_commit() has
 * said that the table reckons with them: a controller that starts must not take
 * a running host's flows away.
 *
 * Threads: one, the daemon's main loop; nothing here blocks.
 * Ownership: the table is the caller's and must stay until host_set_table() or
 * host_destroy(); what the getters return stays the host's, good until the next
 * host_run(). */
#ifndef CTL_HOST_H
#define CTL_HOST_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "openvswitch/types.h"
#include "openvswitch/uuid.h"

struct ds;
struct flow;
struct ftable;
struct host;
struct match;
struct mtable;

/* Tunnel ports that a bridge may have: "weft-vxlan", "weft-geneve", "weft-gre". */
enum host_tunnel { HOST_VXLAN, HOST_GENEVE, HOST_GRE, HOST_N_TUNNELS };

struct host_config {
    const char *name;     /* the certificate's, too */
    const char *ovsdb;    /* "ssl:IP:PORT", "unix:PATH"; "tcp:127.x:PORT" with host_allow_plain() */
    const char *openflow; /* the same forms; for ssl and tcp the switch is told to listen there */
    const char *bridge;
    const char *uplink;           /* port name, or "" */
    struct in6_addr tunnel_ip;    /* :: none; IPv4 mapped */
    bool tunnels[HOST_N_TUNNELS]; /* wanted, if there is a tunnel_ip */
    bool enabled;
};

/* A port of the bridge that has an OpenFlow number. */
struct host_port {
    const char *name; /* a bond's name stands for its first member, too */
    uint32_t ofport;
    bool has_uuid, has_mac;
    struct uuid uuid;    /* external_ids:xs-vif-uuid */
    struct eth_addr mac; /* external_ids:attached-mac */
};

/* A physical interface that host_set_extra() names, as the switch has it. */
struct host_pif {
    char *device;
    bool there, up;
    int64_t speed_mbps;
    char mac[18];
    char bridge[64];
};

/* Flows that differed from what this controller stated, at the last comparison. */
struct host_drift {
    size_t missing;      /* were not there, or did something else */
    size_t foreign;      /* were there and should not be */
    long long int at_ms; /* time_msec(), 0: never compared */
};

struct host_status {
    bool connected; /* both connections, and the switch obeys us */
    bool stale;     /* the switch obeys a controller of a newer epoch */
    int64_t applied_generation;
    uint64_t applied_revision;  /* since it connected; 0: none yet */
    long long int last_seen_ms; /* time_wall_msec(), 0: never */
    char error[256];            /* or "" */
    char datapath_type[32], switch_type[16], version[64];
    struct host_drift drift;
    uint64_t n_drift;  /* flows repaired since the start, without those of a first connect */
    uint64_t n_pushes; /* bundles that were confirmed */
    uint64_t n_flow_mods;
    uint64_t n_refused;      /* bundles that the switch refused */
    uint64_t refused_cookie; /* of the flow that it refused, until a bundle is confirmed; 0: none */
};

/* A packet that a flow of ours reports. */
struct host_packet {
    uint64_t cookie; /* of the flow */
    uint8_t table;
    const struct flow *metadata; /* port, registers, connection; the rest is 0 */
    const struct flow *packet;   /* the packet's headers; the rest is 0 */
};
/* From now on called for each, from host_run(), whose host it may not destroy;
 * at most some hundred a second and host. */
void host_on_packet(void (*)(void *aux, struct host *, const struct host_packet *), void *aux);

/* The switch reports packets of new connections for so many seconds, as many as
 * its meter lets pass (cookies of kind FLOW_TAP); then it stops by itself.  0:
 * at once.  False: it is not connected, or reports none. */
bool host_tap(struct host *, unsigned seconds);
/* The same of a port's packets that fit the filter, each as it enters and, if
 * conntrack sees it, once more with what that says; cookies have 'key', the
 * vif's.  'tag': only what has it as it enters; 0: all. */
bool host_tap_port(struct host *, uint32_t ofport, uint16_t tag, uint32_t key,
                   const struct match *filter, unsigned seconds);

/* Plain TCP on loopback is fine from now on. */
void host_allow_plain(void);
/* Mean time between two comparisons of a host's flows with the wanted ones; 0:
 * only at connect.  Default 60 s. */
void host_set_audit_interval(unsigned seconds);

struct host *host_create(const char *name);
void host_destroy(struct host *); /* leaves the switch as it is */

void host_configure(struct host *, const struct host_config *);
/* 0: we do not lead; the connections are closed, or only watch. */
void host_set_epoch(struct host *, uint64_t epoch);
/* Learns the ports of hosts that others lead, too. */
void host_watch(struct host *);

/* The flows that the switch should have.  The host tracks the table. */
void host_set_table(struct host *, struct ftable *);
/* The meters that these flows go through: they are there before the flows, and
 * go after them.  NULL, as at first: the switch's meters are left alone. */
void host_set_meters(struct host *, const struct mtable *);
/* The table now is what 'generation' of the stated configuration means, given
 * the ports as of 'ports_seqno'. */
void host_commit(struct host *, int64_t generation, uint64_t ports_seqno);

/* Counts states of the table, finer than generations do; never 0. */
void host_set_revision(struct host *, uint64_t);

void host_run(struct host *);
void host_wait(struct host *);

const char *host_name(const struct host *);
const struct host_status *host_get_status(const struct host *);
/* Changes whenever a port came, went or changed; 0 until they are known. */
uint64_t host_get_ports_seqno(const struct host *);
/* Changes when what follows does. */
uint64_t host_get_pifs_seqno(const struct host *);
const struct host_pif *host_get_pifs(const struct host *, size_t *n);
/* In order of names. */
const struct host_port *host_get_ports(const struct host *, size_t *n);

/* Compares now rather than at the next turn. */
void host_audit(struct host *);
/* One paragraph for "weft-controllerd/status". */
void host_format(const struct host *, struct ds *);

#endif

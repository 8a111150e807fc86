/* model: what the pool database states, resolved and checked, for those who
 * act on it.
 *
 * Plain structs with references both ways.  An object is *live* when nothing
 * in it is wrong, everything it depends on is live, it is enabled and it has a
 * key.  Only live objects are found by the lookups and stand in other objects'
 * lists; one in error is left out with its dependants, says why in 'error' (the
 * database's column of that name shows it) and comes back by itself when the
 * cause is gone.
 *
 * The change set says what became live, changed or went since
 * model_changes_clear(): see MODEL_FOR_EACH_CHANGED.
 *
 * Threads: one, the daemon's main loop; nothing here blocks.
 * Ownership: the model owns every object.  Pointers to an object that went stay
 * good until model_changes_clear(), with its own fields and its references out
 * as they were; no list holds it any more. */
#ifndef MODEL_H
#define MODEL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/types.h"
#include "openvswitch/uuid.h"
#include "record.h"
#include "svec.h"

/* --- parts of objects ------------------------------------------------------- */

/* reg15 values that are no vif; keys stay below. */
#define MODEL_KEY_MAX 0xfffffeffu

/* What can differ in an object of the change set. */
enum model_change {
    MODEL_CREATED = 1 << 0, /* became live */
    MODEL_DELETED = 1 << 1, /* is live no more; with MODEL_CREATED: it went and came back */
    MODEL_CFG = 1 << 2,     /* own fields, references out included */
    /* network: its vifs; host: its vifs and ports; vm: its vifs; policy: its rules;
     * group: its flattened vifs or prefixes, also through nested groups, VMs and
     * addresses of vifs */
    MODEL_MEMBERS = 1 << 3,
    MODEL_POLICIES = 1 << 4, /* the list 'policies' of network, group, vm, vif or model */
    MODEL_PLACE = 1 << 5,    /* vif: its ports or its host */
    MODEL_PRESENCE = 1 << 6, /* network and host: network came to, or left, a host */
};

/* What every object starts with. */
struct model_obj {
    enum rec_kind kind;
    struct uuid uuid; /* of the database's row */
    char *name;
    uint32_t key; /* 1..MODEL_KEY_MAX, unique in the pool over all kinds; 0: none yet */
    bool live;
    unsigned change; /* enum model_change; 0: not in the change set */
    char *error;     /* "field: message", or NULL; what denies may be live with one */
    char *warning;   /* policies, rules, vifs: from lint; or NULL */

    char *refused;     /* model_set_error(); or NULL */
    bool refused_told; /* private to pool_db.c: the database says so */

    /* private to model*.c and pool_db.c */
    struct hmap_node kind_node, key_node;
    struct model_want *want;      /* by its uuid; who names it */
    struct model_obj *next_alike; /* of another kind with this uuid, as 'want' has them */
    struct ovs_list change_node, dirty_node, status_node;
    struct ovs_list refs_out; /* of model_ref by from_node */
    struct ovs_list claims;
    char *fault;                  /* what is wrong with its own fields, or NULL */
    unsigned long long int round; /* of the last visit by a walk */
    bool present;                 /* its row exists */
    unsigned char state;          /* enum model_state */
    bool widened;                 /* has a fault; what it says without is parsed */
    unsigned n_warnings;          /* of a policy's rules, while lint counts */
    bool enabled;
    bool was_live; /* when the change set was last cleared */
};

/* A reference that holds: 'from' names 'to'.  Stands in a list of 'to'. */
struct model_ref {
    struct model_obj *from;
    struct model_obj *to; /* NULL: not found or not live; then it is in no list */
    struct ovs_list to_node;
    /* private */
    struct ovs_list from_node;
    struct ovs_list want_node;
    struct model_want *want;
    unsigned field; /* enum model_field */
};
/* Over a list of references: REF's 'from' is the object that names us, e.g.
 *     MODEL_FOR_EACH_REF (ref, &network->vifs) { struct model_vif *vif = model_vif(ref->from); */
#define MODEL_FOR_EACH_REF(REF, LIST) LIST_FOR_EACH (REF, to_node, LIST)

/* An IPv4 or IPv6 prefix with no bits behind it.  IPv4 is mapped: ::ffff:a.b.c.d
 * with plen 96 + its own. */
struct model_prefix {
    struct in6_addr addr;
    uint8_t plen;
};
static inline bool
model_prefix_is_v4(const struct model_prefix *p)
{
    return p->plen >= 96 && IN6_IS_ADDR_V4MAPPED(&p->addr);
}
/* Whether every address of 'in' is in 'p'; families do not mix. */
bool model_prefix_contains(const struct model_prefix *p, const struct model_prefix *in);
struct model_prefixes {
    struct model_prefix *p;
    size_t n;
};

struct model_ports {
    uint16_t first, last;
};

enum model_action { MODEL_DENY, MODEL_ALLOW };

/* What a scope states of rates, in kbit/s and kbit; 0: nothing, for a burst what
 * suits the rate. */
struct model_rates {
    uint32_t in, out; /* to, from each vif; REC_RATE_LIFTED: no limit */
    uint32_t burst;
};
/* A limit that holds; kbps 0: there is none. */
struct model_limit {
    uint32_t kbps, burst;
};

/* --- the objects -------------------------------------------------------------- */

struct model_host {
    struct model_obj obj;
    char *ovsdb, *openflow; /* connection targets */
    char *bridge;
    char *uplink;                /* port name, or "" */
    struct in6_addr tunnel_ip;   /* :: none; IPv4 mapped */
    bool enabled;                /* false: leave the host alone */
    bool awaited;                /* not connected, and it is too early to say that it will not be */
    bool led;                    /* by us rather than another controller: fleet.c */
    bool reported;               /* it has said what ports it has: model_ports_end() */
    struct ovs_list vifs;        /* refs by vifs that state this host */
    struct ovs_list ports;       /* struct model_port by host_node, known vifs' and others' */
    struct ovs_list presences;   /* struct model_presence by host_node */
    struct ovs_list unconfirmed; /* struct model_port by confirm_node */
    struct ovs_list exporters;   /* refs by exporters that state this host */
    struct ovs_list remembered;  /* struct model_vif by remembered_node */
    struct ovs_list bonds, pifs; /* refs */

    struct model_host_status {
        bool connected;
        int64_t applied_generation;
        int64_t drift;        /* flows that were missing or foreign when last compared */
        int64_t last_seen_ms; /* wall clock, 0 never */
        char error[256];      /* of the connection or the configuration, or "" */
        char datapath_type[32];
        char switch_type[16]; /* "weft", "ovs", or "" */
        char version[64];
    } status;
};

struct model_tenant {
    struct model_obj obj;
    struct ovs_list networks, vms, groups, users;
};

/* Who may use the REST interface; nothing in the network follows from it. */
struct model_user {
    struct model_obj obj;
};

enum model_network_type { MODEL_VLAN, MODEL_OVERLAY };
enum model_encap { MODEL_VXLAN, MODEL_GENEVE, MODEL_GRE };

struct model_network {
    struct model_obj obj;
    struct model_tenant *tenant; /* or NULL: for everyone */
    enum model_network_type type;
    uint16_t tag; /* vlan: 1..4094 */
    uint32_t vni; /* overlay: 1..2^24-1 */
    enum model_encap encap;
    uint16_t mtu;
    bool default_disabled; /* default_locking_mode: disabled rather than unlocked */
    bool isolated_ports;   /* every vif counts as isolated */
    bool allow_dhcp_server, allow_ra;
    uint16_t zone;         /* conntrack zone 1..65535 */
    uint32_t policy_epoch; /* stated; another one has connections judged again */
    struct model_rates rates;
    struct ovs_list vifs; /* refs */
    struct ovs_list policies;
    struct ovs_list presences; /* struct model_presence by network_node */
    struct ovs_list mirrors;   /* refs */
    struct ovs_list exporters; /* refs */
};

struct model_vm {
    struct model_obj obj;
    struct model_tenant *tenant; /* or NULL */
    struct model_rates rates;
    /* Names of hosts, or NULL: who may run it, and who prepares to.  One that
     * nobody states so is where its ports are. */
    char *resident_on, *destination;
    struct ovs_list vifs, groups, policies;
    struct ovs_list resident_node; /* private; in model.residents, or empty */
};

enum model_locking { MODEL_LOCKED, MODEL_UNLOCKED, MODEL_DISABLED };

/* Seen from the vif. */
enum model_way { MODEL_IN, MODEL_OUT };

struct model_vif {
    struct model_obj obj;
    struct uuid
        xs_uuid; /* the toolstack's: external_ids:xs-vif-uuid; the row's own if none stated */
    struct model_vm *vm;
    struct model_network *network;
    struct eth_addr mac;
    struct model_prefixes ipv4_allowed, ipv6_allowed; /* single addresses or prefixes */
    struct model_prefixes addresses;                  /* known, stated */
    /* What groups count as this vif's: the allowed ones if locked, else the known ones. */
    struct model_prefixes effective;
    enum model_locking locking;     /* network_default resolved */
    bool isolated;                  /* own or by the network */
    struct model_limit limit[2];    /* by enum model_way: of the narrowest scope that states one */
    struct model_rates rates;       /* its own */
    struct model_host *stated_host; /* or NULL */
    /* Where the pool takes it to be: where its VM is resident if that is known,
     * else the stated host if there is one, else that of the port seen last, else,
     * until that host has said what ports it has, where the database says it was;
     * else NULL. */
    struct model_host *host;
    struct model_host *coming; /* its VM's destination, or NULL */
    bool resident;             /* 'host' is where its VM is resident */
    struct ovs_list
        ports; /* struct model_port by vif_node; on 'host' and, while it moves, others */
    struct ovs_list groups, policies;
    struct ovs_list mirrors, mirrors_to; /* refs by mirrors of it, and of which it is the output */
    struct ovs_list children;            /* refs by vifs of which it is the parent */
    /* One of a trunk: what its parent's port has with this tag.  'host', 'coming' and
     * the ports follow the parent's. */
    struct model_vif *parent; /* or NULL */
    uint16_t tag;             /* 0: it has a port of its own */
    /* private */
    struct hmap_node xs_node, mac_node;
    bool indexed, network_default, stated_isolated;
    char *remembered;     /* name of the host where it was, or NULL */
    bool host_remembered; /* 'host' is that one */
    struct ovs_list remembered_node;
    enum model_locking stated_locking;
};

struct model_group {
    struct model_obj obj;
    struct model_tenant *tenant; /* or NULL: pool-wide */
    struct model_prefixes own;   /* stated addresses */
    struct ovs_list groups;      /* refs by groups that nest this one */
    struct ovs_list policies;    /* refs by policies with this scope */
    struct ovs_list rules;       /* refs by rules with this remote group */
    /* private: cache of the flattened members */
    struct model_prefixes flat;
    struct model_vif **flat_vifs;
    size_t n_flat_vifs;
    bool flat_good;
};

/* From wide to narrow. */
enum model_scope {
    MODEL_SCOPE_GLOBAL,
    MODEL_SCOPE_POOL,
    MODEL_SCOPE_NETWORK,
    MODEL_SCOPE_GROUP,
    MODEL_SCOPE_VM,
    MODEL_SCOPE_VIF,
};

struct model_policy {
    struct model_obj obj;
    char *author;
    enum model_scope scope;
    struct model_obj *object; /* network, group, vm or vif by 'scope', else NULL */
    struct ovs_list rules;    /* refs */
    struct ovs_list node;     /* in model's global_policies or pool_policies, if 'object' is NULL */
    enum model_scope linked_scope; /* private */
};

#define MODEL_N_BANDS 12
#define MODEL_ORDER_MAX 2499
enum model_ethertype { MODEL_ETH_ANY, MODEL_ETH_IPV4, MODEL_ETH_IPV6 };

struct model_rule {
    struct model_obj obj;
    struct model_policy *policy;
    bool mandatory;
    uint16_t order; /* 0..MODEL_ORDER_MAX, lower wins */
    bool in;        /* to the vif; else from it */
    enum model_action action;
    enum model_ethertype ethertype; /* icmp, icmpv6 and one-family remotes are resolved */
    int protocol;                   /* 0..255, -1 any */
    struct model_group *remote_group;
    struct model_prefixes remote_cidrs; /* no group and none of these: any */
    struct model_ports *ports;          /* destination ports */
    size_t n_ports;                     /* 0: any */
    int icmp_type, icmp_code;           /* -1: any */
    bool stateful, log;
    uint16_t sample; /* deny, stateless: one packet in so many to the collectors; 0 none */
};

/* Copies of packets.  Its sources are the references out of FIELD_MIRROR_VIF and
 * _NETWORK: model_mirror_vifs(). */
struct model_mirror {
    struct model_obj obj;
    bool in, out;                 /* to, from the vifs */
    struct model_vif *output_vif; /* or NULL */
    uint16_t output_vlan;         /* or 0 */
    struct in6_addr output_ip;    /* or ::; IPv4 mapped */
    bool erspan;                  /* else GRE */
    uint16_t session;             /* of ERSPAN; key of GRE */
    uint16_t snaplen;             /* 0: whole packets */
    const char *crowded;          /* for fleet_extra_errors(): a host that has no room for it */
};

enum model_protocol { MODEL_NETFLOW, MODEL_SFLOW, MODEL_IPFIX, MODEL_N_PROTOCOLS };

/* What a host's switch tells collectors.  0: the switch's default. */
struct model_exporter {
    struct model_obj obj;
    enum model_protocol protocol;
    struct model_host *host; /* NULL: all that have none of their own */
    struct svec targets;
    struct svec options; /* "KEY=VALUE" */
    bool scoped;         /* of some networks' packets only: model_exporter_networks() */
    uint32_t sampling, active_timeout, cache_max_flows, polling, header;
};

/* A physical interface of a host, and what the host's switch says of it. */
struct model_pif {
    struct model_obj obj;
    struct model_host *host;
    char *device;
    struct model_pif_status {
        char link[8]; /* "up", "down", or "": it is at no bridge */
        int64_t speed_mbps;
        char mac[18];
        char bridge[64];
    } status;
    bool reported; /* since this controller runs */
};

enum model_bond_mode { MODEL_ACTIVE_BACKUP, MODEL_BALANCE_SLB, MODEL_BALANCE_TCP };
enum model_lacp { MODEL_LACP_OFF, MODEL_LACP_PASSIVE, MODEL_LACP_ACTIVE };

/* A host's physical interfaces as one port: its uplink, if that has the name. */
struct model_bond {
    struct model_obj obj;
    struct model_host *host;
    char *port;
    struct svec interfaces;
    enum model_bond_mode mode;
    enum model_lacp lacp;
    bool lacp_fast;
    char *primary;               /* or "" */
    uint32_t updelay, downdelay; /* ms */
};

/* What a host with a port of the vif is to it. */
enum model_role {
    MODEL_HERE,   /* it is there */
    MODEL_COMING, /* it may be there at any moment */
    MODEL_AWAY,   /* it is elsewhere, and not to be heard from there */
};

/* Whether a host's switch has a port with all that goes with it. */
enum model_confirm {
    MODEL_UNKNOWN, /* what the database says of it may be true */
    MODEL_UNCONFIRMED,
    MODEL_CONFIRMED,
};

/* A port of a managed switch that belongs, or might one day, to a vif. */
struct model_port {
    struct model_host *host;
    char *name; /* of the Interface */
    bool has_xs_uuid, has_mac;
    struct uuid xs_uuid;
    struct eth_addr mac;
    uint32_t ofport;
    struct model_vif *vif; /* live, or NULL */
    struct ovs_list host_node, vif_node;
    /* Of a trunk: one for each of the vif's children, by sub_node.  They are in no
     * list of the host's ports, and have the name and number of their 'trunk'. */
    struct ovs_list subs;
    struct model_port *trunk; /* or NULL */
    uint16_t tag;             /* what the vif's frames have here; 0: none */
    struct ovs_list sub_node;
    struct model_presence *presence;
    enum model_confirm confirm;   /* of resident vifs; others' are not asked for */
    uint64_t revision;            /* of the host's table that has it; 0: not known yet */
    struct ovs_list confirm_node; /* in the host's 'unconfirmed', or empty */
    /* private */
    struct hmap_node node, xs_node, mac_node;
    unsigned long long int came, round;
};

/* A network with at least one port of a live vif on a host. */
struct model_presence {
    struct model_network *network;
    struct model_host *host;
    size_t n_ports;
    struct ovs_list network_node, host_node;
    struct hmap_node node; /* private */
};

struct model {
    enum model_action default_action;
    struct model_rates rates; /* the pool's */
    char *pool_name;
    int64_t generation; /* of the stated configuration that the model shows */
    struct ovs_list global_policies, pool_policies; /* struct model_policy by node */
    unsigned change;                                /* MODEL_CFG, MODEL_POLICIES */
    struct ovs_list changed[REC_N_KINDS];           /* struct model_obj by change_node */
    struct hmap objs[REC_N_KINDS];                  /* every object, live or not */

    /* private */
    struct hmap by_key, wants, claims;
    size_t n_contested; /* claims that several objects have */
    struct model_asked {
        const char *field;
        struct model_claim_set *set; /* in no table yet */
        uint32_t hash;
    } asked[8]; /* claims of the object that is being put */
    size_t n_asked;
    struct hmap vif_by_xs, vif_by_mac;
    struct hmap ports, ports_by_xs, ports_by_mac, presences;
    struct ovs_list dirty[REC_N_KINDS];
    struct ovs_list status;    /* objects whose status the database lacks */
    struct ovs_list gone;      /* objects without a row, kept for the change set */
    struct ovs_list residents; /* struct model_vm with a resident_on */
    unsigned long long int round, port_round, ports_came, objs_came;
    /* Called by model_settle() for each object that comes to be in error. */
    void (*on_error)(struct model_obj *, const char *before, void *aux);
    void *on_error_aux;
};

/* --- casts ---------------------------------------------------------------------- */

#define MODEL_CAST(TYPE, KIND)                                                                     \
    static inline struct model_##TYPE *model_##TYPE(const struct model_obj *obj)                   \
    {                                                                                              \
        return obj && obj->kind == KIND ? (struct model_##TYPE *)obj : NULL;                       \
    }
MODEL_CAST(host, REC_HOST)
MODEL_CAST(tenant, REC_TENANT)
MODEL_CAST(network, REC_NETWORK)
MODEL_CAST(vm, REC_VM)
MODEL_CAST(vif, REC_VIF)
MODEL_CAST(group, REC_GROUP)
MODEL_CAST(policy, REC_POLICY)
MODEL_CAST(rule, REC_RULE)
MODEL_CAST(user, REC_USER)
MODEL_CAST(mirror, REC_MIRROR)
MODEL_CAST(exporter, REC_EXPORTER)
MODEL_CAST(bond, REC_BOND)
MODEL_CAST(pif, REC_PIF)

/* --- life ------------------------------------------------------------------------- */

/* An empty model: default action deny, no objects. */
struct model *model_create(void);
void model_destroy(struct model *);

/* --- feeding it (pool_db.c from the database, doc.c from a document) --------------- */

/* States the object 'uuid': new, or in place of what was stated before.  The
 * references in 'rec' are uuids.  A key of 0 leaves the object
 * waiting for one.  Takes effect with model_settle(). */
void model_put(struct model *, const struct uuid *, const struct rec *);
/* The object's row is gone. */
void model_remove(struct model *, enum rec_kind, const struct uuid *);
/* Resolves what the puts and removes since the last call touch, and no more. */
void model_settle(struct model *);

/* --- finding (live objects only) ------------------------------------------------------ */

struct model_obj *model_by_key(const struct model *, uint32_t key);
struct model_obj *model_by_uuid(const struct model *, enum rec_kind, const struct uuid *);
/* A rule's name is unique in its policy only: this is not for rules. */
struct model_obj *model_by_name(const struct model *, enum rec_kind, const char *);
/* Live or not, gone ones that the change set still shows included. */
struct model_obj *model_any_by_uuid(const struct model *, enum rec_kind, const struct uuid *);
/* Live or not.  'policy' is that of a rule. */
struct model_obj *model_any_by_name(const struct model *, enum rec_kind, const char *,
                                    const struct uuid *policy);

/* Over all objects of a kind; skip those that are not ->live. */
#define MODEL_FOR_EACH(OBJ, MODEL, KIND) HMAP_FOR_EACH (OBJ, kind_node, &(MODEL)->objs[KIND])

/* --- the change set ---------------------------------------------------------------------- */

bool model_has_changes(const struct model *);
/* Over the objects of a kind that changed; OBJ->change says how.  One with
 * MODEL_DELETED and not ->live has gone. */
#define MODEL_FOR_EACH_CHANGED(OBJ, MODEL, KIND)                                                   \
    LIST_FOR_EACH (OBJ, change_node, &(MODEL)->changed[KIND])
/* The consumer is done: frees what went. */
void model_changes_clear(struct model *);

/* --- what follows from the objects ------------------------------------------------------- */

/* 0..MODEL_N_BANDS-1, higher wins: default global 0 .. default vif 5, mandatory
 * vif 6 .. mandatory global 11. */
unsigned model_rule_band(const struct model_rule *);
/* All addresses of a group, nested ones, VMs' and vifs' included: sorted, none
 * inside another.  Good until the group's next MODEL_MEMBERS. */
const struct model_prefixes *model_group_prefixes(struct model *, struct model_group *);
/* All vifs of a group, each once, in order of keys. */
struct model_vif **model_group_vifs(struct model *, struct model_group *, size_t *n);
/* Whether the group holds the vif, directly, by its VM or by a nested group: a
 * walk up from the vif, whatever the group's size. */
bool model_group_has_vif(struct model *, const struct model_group *, const struct model_vif *);
/* Calls for each group that holds the vif, once each. */
void model_vif_groups(struct model *, struct model_vif *, void (*)(struct model_group *, void *aux),
                      void *aux);
/* The live vif of a network that has this MAC, or NULL. */
struct model_vif *model_vif_by_mac(const struct model *, const struct model_network *,
                                   struct eth_addr);
struct model_port *model_vif_port(const struct model_vif *, const struct model_host *);
/* Whose the frames with this tag (0: none) are at a port: the port itself, one of
 * its 'subs', or NULL. */
const struct model_port *model_port_tagged(const struct model_port *, uint16_t tag);
enum model_role model_vif_role(const struct model_vif *, const struct model_host *);
/* The vifs that a mirror copies from, each once, in order of keys; the caller
 * frees the array. */
struct model_vif **model_mirror_vifs(const struct model *, const struct model_mirror *, size_t *n);
/* The live ones of the networks that a scoped exporter names; the caller frees the array. */
struct model_network **model_exporter_networks(const struct model_exporter *, size_t *n);
/* Any port that was reported. */
struct model_port *model_port_by_name(const struct model *, const struct model_host *,
                                      const char *);
struct model_presence *model_presence(const struct model *, const struct model_network *,
                                      const struct model_host *);

/* --- what the hosts say -------------------------------------------------------------------- */

/* A port that names a vif by uuid or MAC (NULL: it does not) has this OpenFlow
 * port number.  The same again is no change.  The vif may be stated later. */
void model_port_report(struct model *, struct model_host *, const char *name,
                       const struct uuid *xs_vif_uuid, const struct eth_addr *mac, uint32_t ofport);
void model_port_gone(struct model *, struct model_host *, const char *name);
/* For a full read: ports not reported between begin and end have gone, and what
 * the database remembers of vifs on this host counts no more. */
void model_ports_begin(struct model *);
void model_ports_end(struct model *, struct model_host *);

/* The switch has what the port needs. */
void model_port_confirm(struct model *, struct model_port *);
/* Whether it has must be found out anew for all ports of the host. */
void model_ports_doubt(struct model *, struct model_host *, enum model_confirm);

/* --- status: coalesced, written to the database by pool_db_run() ------------------------------ */

/* Shows 'now' in the host's row.  'last_seen_ms' alone is written once a minute. */
void model_host_set_status(struct model *, struct model_host *,
                           const struct model_host_status *now);
void model_pif_set_status(struct model *, struct model_pif *, const struct model_pif_status *now);
/* What the switch refused of this object ("" or NULL: nothing any more).  Does
 * not take the object out. */
void model_set_error(struct model *, struct model_obj *, const char *error);
void model_set_warning(struct model *, struct model_obj *, const char *warning);

#endif

/* compile_impl: what the compiler's files share; nobody else includes it. */
#ifndef CTL_COMPILE_IMPL_H
#define CTL_COMPILE_IMPL_H

#include <netinet/in.h>

#include "compile.h"
#include "fmatch.h"
#include "model.h"
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"
#include "packets.h"
#include "pflow.h"
#include "pmeter.h"

/* --- registers ------------------------------------------------------------------ */

enum {
    REG_OUT = 0,      /* enum verdict of the source's side */
    REG_OUT_RULE = 1, /* the rule that decided it */
    REG_IN_RULE = 2,
    REG_IN = 3, /* enum verdict of the destination's side */
    REG_KIND = 5,
    REG_SRC_ISOLATED = 6,
    REG_DST_ISOLATED = 7,
    REG_CHUNK = 8,   /* of a long flood list */
    REG_PEER = 9,    /* the host beyond the tunnel */
    REG_OPENER = 11, /* of a connection that is judged: REG_SRC and REG_DST of its first packet */
    REG_OTHER = 12,
    REG_ZONE = 13,
    REG_SRC = 14, /* key of the vif that sent it; 0: from elsewhere */
    REG_DST = 15, /* key of the vif here that gets it, or: */
};
#define DST_UPLINK 0xffffff00u
#define DST_TUNNEL 0xffffff01u

enum verdict {
    PASS_STATEFUL = 1,
    PASS_STATELESS = 2,
    REFUSED = 3,
    NO_SIDE = 4, /* that side is not a vif of this host: nothing to say here */
};

enum packet_kind { KIND_FREE = 1, KIND_STATELESS = 2, KIND_TRACKED = 3 };

/* --- lists of flows --------------------------------------------------------------- */

struct flows {
    struct pflow **f;
    size_t n, allocated;
};

void flows_add(struct flows *, struct pflow *); /* takes over the reference */
void flows_clear(struct flows *);               /* frees it all */

/* --- what is kept between runs ------------------------------------------------------ */

enum unit_kind {
    UNIT_BASE, /* host's own: uplink and LOCAL */
    UNIT_PEER, /* another host's tunnel end */
    UNIT_VIF,
    UNIT_REMOTE,
    UNIT_NETWORK,
    UNIT_FLOOD,
    UNIT_RULE_VIF, /* a rule's flow for a vif in its scope */
};

struct unit {
    struct hmap_node node;
    enum unit_kind kind;
    uint32_t a, b; /* keys of the objects; b mostly 0 */
    uint32_t n_flows;
    union {
        struct pflow *flow; /* if there is but one, as mostly */
        struct pflow **flows;
    };
};

/* Where a mirror's copies come back into the bridge, to leave with a tag. */
struct cspan {
    uint32_t ofport;
    uint16_t vlan;
};

struct chost {
    struct hmap_node node; /* in compile.hosts */
    uint32_t key;
    bool gone, changed;
    struct ovs_list touched_node; /* in compile.touched, or empty */
    uint32_t uplink;              /* ofport, 0: none */
    uint32_t tunnel[3];           /* by enum model_encap; 0: none */
    struct in6_addr tunnel_ip;
    struct ftable table;
    struct mtable meters;
    struct cspan *spans;
    size_t n_spans;
    struct hmap units;
    struct ovs_list presences; /* struct cpresence by host_node */
};

struct cnet {
    struct hmap_node node; /* in compile.nets */
    uint32_t key;
    struct ovs_list presences; /* struct cpresence by net_node */
    struct ovs_list vifs;      /* struct cvif by net_node: all in the pool */
    uint64_t policy;           /* sum over rules that touch it */
};

/* A network on a host. */
struct cpresence {
    struct ovs_list net_node, host_node, dirty_node, flood_node, fresh_node;
    struct cnet *net;
    struct chost *host;
    struct ovs_list places; /* struct cplace */
    size_t n_places;
    uint64_t sum; /* over the vifs that are here and not disabled */
    bool dirty, flood_dirty, fresh;
};

/* A vif on a host. */
struct cplace {
    struct ovs_list presence_node;
    struct cvif *vif;
    struct cpresence *presence;
    uint32_t ofport;
    uint16_t tag; /* of its frames at the port; 0: none */
    bool isolated;
    bool reachable; /* not disabled, nor gone elsewhere */
    enum model_role role;
};

struct cvif {
    struct hmap_node node; /* in compile.vifs */
    uint32_t key;
    struct cnet *net;
    struct ovs_list net_node;
    struct cplace **places;
    size_t n_places;
    struct cscope **scopes; /* the scopes it is a member of */
    size_t n_scopes;
    struct model_vif *now;    /* during the run that placed it */
    uint64_t run;             /* compile.stats.runs when last computed */
    struct ovs_list run_node; /* in compile.placed during that run */
};

/* What rules apply to.  Of a group, VM or vif: the vifs.  Networks and the whole
 * pool have no members here: rules match the network, or everything. */
enum scope_type { SCOPE_ALL, SCOPE_NETWORK, SCOPE_VIF, SCOPE_SET };

struct scope_net {
    uint32_t net; /* key */
    uint32_t n;
    uint64_t sum; /* over the members in that network */
};

struct scope_host {
    struct chost *host;
    size_t n; /* members' places; 1 for SCOPE_ALL and SCOPE_NETWORK */
};

struct cscope {
    struct hmap_node node; /* in compile.scopes */
    uint32_t key;          /* of the object; 0: everything */
    enum scope_type type;
    struct hmap members; /* struct cmember */
    struct ovs_list rules;
    struct scope_net *nets;
    size_t n_nets;
    struct scope_host *hosts;
    size_t n_hosts;
};

struct cmember {
    struct hmap_node node; /* by the vif's key */
    struct cvif *vif;
    uint64_t round; /* compile.round when last seen */
};

struct crule {
    struct hmap_node node; /* in compile.rules */
    struct ovs_list scope_node;
    uint32_t key;
    struct cscope *scope;
    struct flows body;  /* the same on each host */
    uint64_t content;   /* hash of what it says */
    uint64_t vif_shape; /* hash of what it says per vif; 0: nothing */
};

struct compile {
    struct model *model;
    struct hmap hosts, nets, vifs, scopes, rules;
    struct flows pipeline; /* shared by all hosts */
    uint64_t policy;       /* sum over rules for everything, default action */
    struct ovs_list dirty_nets, dirty_floods, fresh; /* struct cpresence */
    struct ovs_list placed;                          /* cvif: this run's */
    struct ovs_list touched;                         /* chost: to be settled */
    bool hosts_changed;
    bool all_dirty; /* each network on each host, though not on 'dirty_nets' yet */
    enum model_action default_action;
    bool started;
    uint64_t round; /* of walks over members */
    struct compile_stats stats;
};

/* --- units (compile_unit.c) ---------------------------------------------------------- */

/* In place of what the unit had; takes over 'flows', which ends empty. */
void unit_set(struct compile *, struct chost *, enum unit_kind, uint32_t a, uint32_t b,
              struct flows *);
/* The same of a unit that is known not to be there; 'flows', of which there are some, stay
 * the caller's. */
void unit_add(struct compile *, struct chost *, enum unit_kind, uint32_t a, uint32_t b,
              const struct flows *);
/* As the host goes: of its table it takes nothing. */
void unit_free(struct chost *, struct unit *);
void unit_clear(struct compile *, struct chost *, enum unit_kind, uint32_t a, uint32_t b);
bool unit_exists(const struct chost *, enum unit_kind, uint32_t a, uint32_t b);
/* Shared flows, not owned by a unit. */
void host_give(struct compile *, struct chost *, const struct pflow *);
void host_withdraw(struct compile *, struct chost *, const struct pflow *);

struct chost *find_chost(const struct compile *, uint32_t key);
struct cnet *find_cnet(const struct compile *, uint32_t key);
struct cvif *find_cvif(const struct compile *, uint32_t key);
struct cpresence *find_presence(const struct cnet *, const struct chost *);

/* --- building flows (compile_build.c) -------------------------------------------------- */

struct build {
    struct compile *c;
    struct flows *out;
    uint64_t cookie;
    struct fmatch m;
    struct ofpbuf acts;
    uint64_t stub[512 / 8];
};

void build_init(struct build *, struct compile *, struct flows *out, uint64_t cookie);
void build_uninit(struct build *);
/* Emits a flow with the match and the actions so far, and starts afresh. */
void emit(struct build *, uint8_t table, uint16_t priority);
/* The same, but the match stays for a next flow. */
void emit_keep(struct build *, uint8_t table, uint16_t priority);

void act_reg(struct build *, unsigned reg, uint32_t value);
void act_field(struct build *, enum mf_field_id, const void *value); /* big-endian, whole field */
void act_goto(struct build *, uint8_t table);
void act_resubmit(struct build *, uint8_t table);
void act_output(struct build *, uint32_t ofport);
void act_conjunction(struct build *, uint32_t id, unsigned clause, unsigned n_clauses);
/* ct(commit,zone=NXM_NX_REG13[0..15],exec(ct_mark=epoch, ct_label=deciding rules and the
 * two vifs)) */
void act_commit(struct build *, uint32_t epoch);

void match_network(struct fmatch *, uint32_t key);
/* 'p' on the source or the destination address, with its dl_type. */
void match_prefix(struct fmatch *, const struct model_prefix *p, bool src);

/* --- the units' flows --------------------------------------------------------------------- */

/* compile_base.c */
void make_pipeline(struct compile *, struct flows *, enum model_action default_action);
void make_base(struct compile *, const struct chost *, struct flows *);
void make_peer(struct compile *, const struct chost *, const struct chost *peer, struct flows *);

/* compile_vif.c */
void make_vif(struct compile *, const struct model_vif *, uint32_t ofport, enum model_role,
              struct flows *);
void make_remote(struct compile *, const struct model_vif *, const struct chost *on,
                 struct flows *);

/* compile_net.c */
void make_network(struct compile *, const struct model_network *, const struct cpresence *,
                  struct flows *);
void make_flood(struct compile *, const struct model_network *, const struct cpresence *,
                struct flows *);

/* compile_rule.c */
void make_rule(struct compile *, const struct model_rule *, enum scope_type, uint32_t scope_key,
               struct flows *body);
/* For one vif of a SCOPE_SET. */
void make_rule_vif(struct compile *, const struct model_rule *, uint32_t vif_key, struct flows *);
uint64_t rule_content(struct compile *, const struct model_rule *);

/* --- hosts (compile_host.c) --------------------------------------------------------------- */

void update_host(struct compile *, const struct model_host *);
/* It will be freed when nothing is on it any more. */
void set_host_gone(struct compile *, struct chost *);
void update_peers(struct compile *);
bool is_peer(const struct chost *, const struct chost *other);
void free_host(struct compile *, struct chost *);
void settle_hosts(struct compile *);

/* --- places of vifs (compile_place.c) ------------------------------------------------------ */

/* The vif as the model has it now: created, moved, changed or gone. */
void place_vif(struct compile *, struct model_vif *);
/* The vif is on no host, and no member of anything, any more. */
void forget_vif(struct compile *, uint32_t key);
void place_remotes(struct compile *);
void place_fresh(struct compile *);
void place_floods(struct compile *);
void place_networks(struct compile *);
void dirty_network(struct compile *, struct cnet *);
void dirty_floods(struct compile *, struct cnet *);
struct cnet *get_cnet(struct compile *, uint32_t key);

/* --- scopes of rules (compile_scope.c) ------------------------------------------------------ */

/* The rule as the model has it now. */
void scope_rule(struct compile *, struct model_rule *);
void forget_rule(struct compile *, uint32_t key);
/* Members of the group, VM or vif with this key may have changed. */
void scope_members(struct compile *, const struct model_obj *);
/* A vif in scopes came to, or left, a host. */
void scope_place(struct compile *, struct cvif *, struct chost *, bool there);
/* A vif's network changes: its scopes' sums go with it. */
void scope_network(struct compile *, struct cvif *, uint32_t net_key, bool there);
void scope_leave(struct compile *, struct cvif *); /* all scopes */
/* A network came to, or left, a host; or a host came or goes (key 0). */
void scope_presence(struct compile *, uint32_t key, struct chost *, bool there);
uint32_t network_epoch(const struct compile *, const struct cpresence *);

uint64_t mix64(uint64_t a, uint64_t b);

#endif

/* record: one object of the pool as it is stated, in the vocabulary that the
 * database's columns, the document and the REST interface share.
 *
 * rec_tables describes every kind; readers and writers of the three forms walk
 * it.  A record is raw: rec_check() says whether its fields hold together by
 * themselves; what only the whole pool can tell is the model's business.
 *
 * Pure functions without Open vSwitch's headers.  A record owns its values. */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A kind comes after those its objects refer to. */
enum rec_kind {
    REC_POOL,
    REC_HOST,
    REC_TENANT,
    REC_NETWORK,
    REC_VM,
    REC_VIF,
    REC_GROUP,
    REC_POLICY,
    REC_RULE,
    REC_USER,
    REC_MIRROR,
    REC_EXPORTER,
    REC_BOND,
    REC_PIF,
    REC_N_KINDS
};

enum rec_type {
    REC_STRING,  /* s */
    REC_ENUM,    /* s, one of 'choices' */
    REC_INT,     /* i */
    REC_OPT_INT, /* i, -1: none */
    REC_BOOL,    /* i, 0 or 1 */
    REC_STRINGS, /* list: sorted, no member twice */
    REC_REF,     /* s: name or uuid of an object of kind 'ref'; "": none */
    REC_REFS,    /* list of such */
};

/* Indices into a record's values, by kind.  The name is no value: rec.name. */
enum { REC_POOL_DEFAULT_ACTION, REC_POOL_RATE_IN, REC_POOL_RATE_OUT, REC_POOL_BURST };
enum {
    REC_HOST_OVSDB,
    REC_HOST_OPENFLOW,
    REC_HOST_BRIDGE,
    REC_HOST_UPLINK,
    REC_HOST_TUNNEL_IP,
    REC_HOST_ENABLED,
};
enum {
    REC_NETWORK_TENANT,
    REC_NETWORK_TYPE,
    REC_NETWORK_TAG,
    REC_NETWORK_VNI,
    REC_NETWORK_ENCAPSULATION,
    REC_NETWORK_MTU,
    REC_NETWORK_LOCKING,
    REC_NETWORK_ISOLATED,
    REC_NETWORK_DHCP_SERVER,
    REC_NETWORK_RA,
    REC_NETWORK_POLICY_EPOCH,
    REC_NETWORK_RATE_IN,
    REC_NETWORK_RATE_OUT,
    REC_NETWORK_BURST,
};
enum { REC_VM_TENANT, REC_VM_RATE_IN, REC_VM_RATE_OUT, REC_VM_BURST };
enum {
    REC_VIF_VM,
    REC_VIF_NETWORK,
    REC_VIF_HOST,
    REC_VIF_XS_UUID,
    REC_VIF_MAC,
    REC_VIF_LOCKING,
    REC_VIF_IPV4,
    REC_VIF_IPV6,
    REC_VIF_ADDRESSES,
    REC_VIF_ISOLATED,
    REC_VIF_RATE_IN,
    REC_VIF_RATE_OUT,
    REC_VIF_BURST,
    REC_VIF_PARENT,
    REC_VIF_TAG,
};
enum { REC_GROUP_TENANT, REC_GROUP_ADDRESSES, REC_GROUP_VIFS, REC_GROUP_VMS, REC_GROUP_GROUPS };
enum {
    REC_POLICY_AUTHOR,
    REC_POLICY_SCOPE,
    REC_POLICY_NETWORK,
    REC_POLICY_GROUP,
    REC_POLICY_VM,
    REC_POLICY_VIF,
};
enum {
    REC_RULE_POLICY,
    REC_RULE_PART,
    REC_RULE_ORDER,
    REC_RULE_DIRECTION,
    REC_RULE_ACTION,
    REC_RULE_ETHERTYPE,
    REC_RULE_PROTOCOL,
    REC_RULE_REMOTE_GROUP,
    REC_RULE_REMOTE_CIDRS,
    REC_RULE_PORTS,
    REC_RULE_ICMP_TYPE,
    REC_RULE_ICMP_CODE,
    REC_RULE_STATEFUL,
    REC_RULE_LOG,
    REC_RULE_SAMPLE,
    REC_RULE_ENABLED,
};
enum { REC_USER_ROLE, REC_USER_TENANT, REC_USER_ENABLED };
enum {
    REC_MIRROR_VIFS,
    REC_MIRROR_NETWORKS,
    REC_MIRROR_DIRECTION,
    REC_MIRROR_OUTPUT_VIF,
    REC_MIRROR_OUTPUT_VLAN,
    REC_MIRROR_OUTPUT_IP,
    REC_MIRROR_ENCAPSULATION,
    REC_MIRROR_SESSION,
    REC_MIRROR_SNAPLEN,
    REC_MIRROR_ENABLED,
};
enum {
    REC_EXPORTER_PROTOCOL,
    REC_EXPORTER_HOST,
    REC_EXPORTER_NETWORKS,
    REC_EXPORTER_TARGETS,
    REC_EXPORTER_SAMPLING,
    REC_EXPORTER_ACTIVE_TIMEOUT,
    REC_EXPORTER_CACHE_MAX_FLOWS,
    REC_EXPORTER_POLLING,
    REC_EXPORTER_HEADER,
    REC_EXPORTER_OPTIONS,
    REC_EXPORTER_ENABLED,
};
enum {
    REC_BOND_HOST,
    REC_BOND_PORT,
    REC_BOND_INTERFACES,
    REC_BOND_MODE,
    REC_BOND_LACP,
    REC_BOND_LACP_FAST,
    REC_BOND_PRIMARY,
    REC_BOND_UPDELAY,
    REC_BOND_DOWNDELAY,
};
enum { REC_PIF_HOST, REC_PIF_DEVICE };
/* A rate limit that is none, whatever wider scopes state; 0: as they state. */
#define REC_RATE_LIFTED INT64_C(4000000000)

#define REC_MAX_FIELDS 16
#define REC_MAX_LIST 65536 /* members of a list */

struct rec_field {
    const char *name; /* column and member */
    enum rec_type type;
    enum rec_kind ref;           /* of REC_REF and REC_REFS */
    const char *const *choices;  /* of REC_ENUM, NULL at the end */
    int64_t min, max;            /* of numbers */
    const char *def;             /* as text; NULL: must be stated */
    bool (*check)(const char *); /* of a string or a list's member; NULL: any */
    const char *should;          /* what check wants: "must be ..." */
};

struct rec_table {
    const char *table;  /* of the database: "Network" */
    const char *member; /* of the document and of REST: "networks" */
    const char *noun;   /* "network" */
    size_t n_fields;
    const struct rec_field *fields;
};
extern const struct rec_table rec_tables[REC_N_KINDS];

struct rec_value {
    char *s; /* not to be written to: it may be the table's */
    int64_t i;
    char **list;
    size_t n;
};

struct rec {
    enum rec_kind kind;
    char *name;
    uint32_t key;    /* 0: none yet */
    uint32_t given;  /* bit f: field f was stated, not defaulted */
    uint32_t zone;   /* networks: what the controller allocated; 0: none yet */
    char *seen_host; /* vifs: where it was found last; or NULL */
    /* VMs: names of the host that may run it and of the one that prepares to; or NULL */
    char *resident_on, *destination;
    bool of_toolstack; /* VMs and vifs: weft-xapid has made it */
    struct rec_value v[REC_MAX_FIELDS];
};

/* Every field its default, or nothing if it has none. */
void rec_init(struct rec *, enum rec_kind);
void rec_destroy(struct rec *);
void rec_copy(struct rec *, const struct rec *from);
/* What nobody states, from what stood before. */
void rec_keep(struct rec *, const struct rec *before);
/* Index of the field, -1 if the kind has none of that name. */
int rec_field_index(enum rec_kind, const char *name);
/* Index by table, member or noun; REC_N_KINDS if it is none. */
enum rec_kind rec_kind_by_name(const char *);

/* Setters mark the field as given. */
void rec_set_string(struct rec *, unsigned field, const char *);
void rec_set_int(struct rec *, unsigned field, int64_t);
/* Adds to a list; rec_normalize() sorts it when all are there. */
void rec_add(struct rec *, unsigned field, const char *);
void rec_normalize(struct rec *);
bool rec_value_equal(enum rec_type, const struct rec_value *, const struct rec_value *);
/* Values that 'over' was given, into 'r'. */
void rec_overlay(struct rec *r, const struct rec *over);

/* Whether the record's fields are each in form and go together.  Otherwise
 * '*field' names the one that is wrong and 'why' says so in a sentence. */
bool rec_check(const struct rec *, const char **field, char *why, size_t why_size);

/* --- text forms, shared with whoever turns them into numbers ------------------ */

/* "a.b.c.d[/n]" or "x:y::z[/n]" into 16 bytes (IPv4 mapped) and the length as of
 * IPv6.  False: not in form, or bits are set behind the prefix. */
bool rec_parse_prefix(const char *, uint8_t addr[16], uint8_t *plen);
/* "80" or "1000-1999", 1..65535, ascending. */
bool rec_parse_ports(const char *, uint16_t *first, uint16_t *last);
/* "any" (-1), a name of the contract or 0..255; -2 if it is none. */
int rec_parse_protocol(const char *);
/* 8-4-4-4-12 hexadecimal digits. */
bool rec_is_uuid(const char *);

#endif

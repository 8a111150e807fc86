/* ct_entry: a connection with nothing of the tracker's own in it.
 *
 * Between ct.c, which knows struct conn, and ct_export.c and ct_import.c, which knows the
 * record format.
 *
 * Threads: RCU, any thread. */
#ifndef CT_ENTRY_H
#define CT_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "cmap.h"

struct conntrack;

#define CT_ALG_MAX 15u

/* One direction.  Network order. */
struct ct_tuple {
    uint8_t addr[2][16]; /* source, destination; IPv4 in the first four bytes, the rest 0 */
    /* TCP, UDP: port, 0, 0.  ICMP: id, type, code (the destination's type is
     * that of the answer).  Else: 0. */
    uint8_t l4[2][4];
};

struct ct_tcp_peer {
    uint32_t seqlo, seqhi;
    uint16_t max_win;
    uint8_t wscale; /* CT_ENTRY_WSCALE_* and the shift */
    uint8_t state;  /* enum ct_dpif_tcp_state */
};
#define CT_ENTRY_WSCALE_FLAGS 0xc0u /* known; unknown, be liberal */
#define CT_ENTRY_WSCALE_KNOWN 0x80u
#define CT_ENTRY_WSCALE_UNKNOWN 0x40u
#define CT_ENTRY_WSCALE_MAX 14u

struct ct_entry {
    bool v6;
    uint8_t proto;
    uint16_t zone;
    struct ct_tuple orig, reply;
    bool has_nat; /* went through NAT, maybe without effect */
    uint16_t nat_action;
    char alg[CT_ALG_MAX + 1]; /* "": none */
    bool related;             /* an ALG's data connection... */
    uint8_t parent_proto;     /* ...of this one */
    struct ct_tuple parent;
    int32_t seq_skew;
    bool seq_skew_reply;
    uint32_t mark;
    uint8_t label[16]; /* as in struct ovs_key_ct_labels */
    uint32_t timeout_policy;
    uint32_t left_ms; /* until it expires, without further packets */
    struct ct_tcp_peer tcp[2];
    uint8_t state; /* not TCP: enum icmp_state or other_state */
};

enum ct_entry_kind { CT_ENTRY_TCP, CT_ENTRY_ICMP, CT_ENTRY_OTHER };
/* Which state machine the tracker has for the protocol, whatever is below. */
enum ct_entry_kind ct_entry_kind(uint8_t proto);

/* Calls visit() for each connection that has not expired on one of
 * CT_ENTRY_LISTS lists.  A connection is on the same one as long as it lives. */
#define CT_ENTRY_LISTS 100u
void ct_entry_visit(struct conntrack *, unsigned list, long long now, const uint16_t *zone,
                    void (*visit)(const struct ct_entry *, void *aux), void *aux);

/* 'e' has been checked.  0, EEXIST or ENOSPC (table full, zone limit). */
int ct_entry_create(struct conntrack *, const struct ct_entry *e, long long now);

/* The same in place of the connection that has the tuple, in either direction, if
 * that one may go. */
int ct_entry_replace(struct conntrack *, const struct ct_entry *e, long long now,
                     bool (*may_go)(void *aux, const struct ct_entry *), void *aux);

/* Ends the connection of that original direction, if there is one. */
void ct_entry_remove(struct conntrack *, const struct ct_entry *e, long long now);

/* NULL if 'e' could be a connection, else what is wrong. */
const char *ct_entry_check(const struct ct_entry *e);

/* Who is told about one tracker's connections: each that begins or gets
 * another mark or label, as it is then, and each that ends ('gone').  From any
 * thread, perhaps with the tracker's locks held. */
struct ct_watcher {
    struct conntrack *ct;
    void (*tell)(struct ct_watcher *, const struct ct_entry *, bool gone);
};
/* There is one watcher at most.  NULL: none; the last one must then outlive
 * the RCU sections under way. */
void ct_watch(struct ct_watcher *);

/* Makes the next packet of each direction set the sequence windows, as if the
 * connection had been picked up in the middle: for a state that is old. */
void ct_entry_loosen(struct ct_entry *);

bool ct_zone_limit_next(struct conntrack *, struct cmap_position *pos, int32_t *zone,
                        uint32_t *limit);
/* Unless the zone has a limit. */
void ct_zone_limit_create(struct conntrack *, int32_t zone, uint32_t limit);

#endif

/* ct: see ct.h.
 *
 * Theory of Operation
 *
 * This file is Open vSwitch's connection tracker, compiled from its own source
 * and opened at three places, plus what uses the openings.  The linker finds
 * the tracker's functions here and leaves the library's objects out.
 *
 * Generations.  A reference (struct ct_ref) outlives RCU sections, so its
 * pointer may dangle.  What says whether it does is a counter outside the
 * connection: an array of generations, indexed by a hash of the connection's
 * address.  A connection's generation is bumped when it has left the table,
 * before its memory is handed to RCU, and after its mark or label changed.
 *
 *   Why reading the connection is safe while the generation is the same.
 *   Whoever frees does: leave the table; bump (release); ovsrcu_postpone();
 *   and a grace period later, free.  The reader is inside RCU and loads the
 *   generation (acquire).  Suppose the memory has been freed by then, or will
 *   be before the reader next quiesces.  The latter cannot be, unless the
 *   postponement came before this RCU section began; so in both cases the
 *   bump came before a quiescent state of this very thread, which is ordered
 *   with the postponement through the mutexes of seq and ovs-rcu.  Then the
 *   load sees the bump and the reference is refused.
 *
 *   Why taking is safe.  Between conntrack_execute() and the load of the
 *   generation the connection may have left the table, with its bump already
 *   in the value loaded.  Therefore the connection is looked up once more
 *   after the load: had the bump been in it, the connection's leaving, too,
 *   would be visible to the lookup.
 *
 *   Why mark and label need no look.  Taking reads them after the generation,
 *   so they are those of that generation or newer, and if newer the bump is
 *   still to come.
 *
 * A slot is shared by connections of the same hash.  A bump for another one
 * costs a lookup, nothing else.
 *
 * Tracking by reference is meant to be indistinguishable from
 * conntrack_execute().  It handles the cases whose outcome is the verdict that
 * was cached, and decides so before it changes anything. */
#include <config.h>

#include "ct.h"

#include <netinet/icmp6.h>

#include "conntrack-private.h"
#include "conntrack-tp.h"
#include "conntrack.h"
#include "ct_entry.h"
#include "offload.h"
#include "ovs-rcu.h"

/* What follows reaches into this very version of the source. */
_Static_assert(!__builtin_strcmp(PACKAGE_VERSION, "3.1.0"),
               "check vswitch/ct.c against lib/conntrack*.c of this version of Open vSwitch");

/* --- the tracker ------------------------------------------------------------ */

static void conn_changed(const struct conn *);
static void conn_gone(struct conntrack *, struct conn *);
static void conn_push_and_tell(struct conntrack *, struct conn *);
static void set_mark_and_tell(struct dp_packet *, struct conn *, uint32_t val, uint32_t mask);
static void set_label_and_tell(struct dp_packet *, struct conn *,
                               const struct ovs_key_ct_labels *val,
                               const struct ovs_key_ct_labels *mask);

/* ThreadSanitizer does not look into the library's cmap: it has to be told that
 * what was done before an insertion comes before what a lookup finds. */
#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *);
void __tsan_release(void *);

static char inserted;

static inline size_t
insert(struct cmap *cmap, struct cmap_node *node, uint32_t hash)
{
    __tsan_release(&inserted);
    return cmap_insert(cmap, node, hash);
}

static inline const struct cmap_node *
find(const struct cmap *cmap, uint32_t hash)
{
    const struct cmap_node *node = cmap_find(cmap, hash);

    __tsan_acquire(&inserted);
    return node;
}

static inline void
advance(struct cmap_cursor *cursor)
{
    cmap_cursor_advance(cursor);
    __tsan_acquire(&inserted);
}

static inline struct cmap_node *
next_position(const struct cmap *cmap, struct cmap_position *pos)
{
    struct cmap_node *node = cmap_next_position(cmap, pos);

    __tsan_acquire(&inserted);
    return node;
}
#define cmap_insert insert
#define cmap_find find
#define cmap_cursor_advance advance
#define cmap_next_position next_position
#endif

/* Opening 1: conn_clean() leaves memory to RCU. */
#undef ovsrcu_postpone
#define ovsrcu_postpone(FUNCTION, ARG)                                                             \
    (BEFORE_##FUNCTION(ARG), (void)sizeof((FUNCTION)(ARG), 1),                                     \
     ovsrcu_postpone__((void (*)(void *))(FUNCTION), ARG))
#define BEFORE_delete_conn(CONN) conn_gone(ct, CONN)
#define BEFORE_free(PTR) ((void)0)

/* Opening 2: set_mark() and set_label(), where they are called; where they are
 * declared and defined the first argument begins with "struct". */
#define set_mark(P, ...) SET_MARK_##P, __VA_ARGS__)
#define SET_MARK_pkt set_mark_and_tell(pkt
#define SET_MARK_struct set_mark(struct
#define set_label(P, ...) SET_LABEL_##P, __VA_ARGS__)
#define SET_LABEL_pkt set_label_and_tell(pkt
#define SET_LABEL_struct set_label(struct

/* Opening 4: new connections, as they enter the lists of expiry. */
#define conn_expire_push_front(CT, ...) PUSH_FRONT_##CT, __VA_ARGS__)
#define PUSH_FRONT_ct conn_push_and_tell(ct
#define PUSH_FRONT_struct conn_expire_push_front(struct

/* clang-format off */
#include "conntrack.c"
/* clang-format on */

/* --- timeouts ----------------------------------------------------------------- */

/* Bumped after each change of any tracker's timeout policies. */
static uint32_t policies_version = 1;

static size_t
insert_policy(struct cmap *cmap, struct cmap_node *node, uint32_t hash)
{
    size_t n = cmap_insert(cmap, node, hash);

    __atomic_fetch_add(&policies_version, 1, __ATOMIC_RELEASE);
    return n;
}

static size_t
remove_policy(struct cmap *cmap, struct cmap_node *node, uint32_t hash)
{
    size_t n = cmap_remove(cmap, node, hash);

    __atomic_fetch_add(&policies_version, 1, __ATOMIC_RELEASE);
    return n;
}

/* Opening 3: the table of timeout policies.  And a log module of its own. */
#pragma push_macro("cmap_insert")
#undef cmap_insert
#define cmap_insert insert_policy
#define cmap_remove remove_policy
#define this_module conntrack_tp_module
#include "conntrack-tp.c"
#undef this_module
#undef cmap_remove
#pragma pop_macro("cmap_insert")

/* conn_update_expiration() without a lookup: the timeouts of the policy that
 * this thread used last.  What it reads is as old as what a lookup could have
 * found at the time. */
static inline void
extend(struct conntrack *ct, struct conn *conn, enum ct_timeout tm, long long now)
{
    static __thread struct {
        const struct conntrack *ct;
        uint32_t version; /* 0: none */
        uint32_t id;
        uint32_t ms[N_CT_TM]; /* seconds * 1000 modulo 2^32, as there */
    } last;
    uint32_t version = __atomic_load_n(&policies_version, __ATOMIC_ACQUIRE);

    if (OVS_UNLIKELY(conntrack_tp_module.min_level >= VLL_DBG)) {
        conn_update_expiration(ct, conn, tm, now); /* logs */
        return;
    }
    if (OVS_UNLIKELY(last.version != version || last.id != conn->tp_id || last.ct != ct)) {
        const struct timeout_policy *tp = timeout_policy_lookup(ct, conn->tp_id);
        const unsigned *attrs = tp ? tp->policy.attrs : ct_dpif_netdev_tp_def;

        for (enum ct_timeout i = 0; i < N_CT_TM; i++) {
            last.ms[i] = attrs[tm_to_ct_dpif_tp(i)] * 1000;
        }
        last.ct = ct;
        last.id = conn->tp_id;
        last.version = version;
    }
    atomic_store_relaxed(&conn->expiration, now + last.ms[tm]);
}

/* The protocols. */
#define conn_update_expiration extend
/* clang-format off */
#include "conntrack-tcp.c"
#include "conntrack-icmp.c"
#include "conntrack-other.c"
/* clang-format on */
#undef conn_update_expiration

#undef set_mark
#undef set_label
#undef conn_expire_push_front

/* --- generations -------------------------------------------------------------- */

#define SLOT_BITS 16

static uint32_t generations[1u << SLOT_BITS];

static uint32_t
conn_slot(const struct conn *conn)
{
    return (uintptr_t)conn / 64 * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SLOT_BITS);
}

static uint32_t
generation(uint32_t slot)
{
    return __atomic_load_n(&generations[slot], __ATOMIC_ACQUIRE);
}

static void
conn_changed(const struct conn *conn)
{
    __atomic_fetch_add(&generations[conn_slot(conn)], 1, __ATOMIC_RELEASE);
}

static void tell_change(struct conn *);

/* Setting what is set already, packet after packet, shall not bump.  Two
 * threads that set different values may each miss the other's change between
 * their looks before and after; then at least one of them bumps, after both
 * have set, or the generation has moved. */
static void
set_mark_and_tell(struct dp_packet *pkt, struct conn *conn, uint32_t val, uint32_t mask)
{
    uint32_t before = generation(conn_slot(conn)), old;

    ovs_mutex_lock(&conn->lock);
    old = conn->mark;
    ovs_mutex_unlock(&conn->lock);
    set_mark(pkt, conn, val, mask);
    if (pkt->md.ct_mark != old || generation(conn_slot(conn)) != before) {
        conn_changed(conn);
        tell_change(conn);
    }
}

static void
set_label_and_tell(struct dp_packet *pkt, struct conn *conn, const struct ovs_key_ct_labels *val,
                   const struct ovs_key_ct_labels *mask)
{
    uint32_t before = generation(conn_slot(conn));
    ovs_u128 old;

    ovs_mutex_lock(&conn->lock);
    old = conn->label;
    ovs_mutex_unlock(&conn->lock);
    set_label(pkt, conn, val, mask);
    if (!ovs_u128_equals(pkt->md.ct_label, old) || generation(conn_slot(conn)) != before) {
        conn_changed(conn);
        tell_change(conn);
    }
}

/* --- packets ----------------------------------------------------------------- */

/* How a reference's packets are passed. */
enum ref_kind { REF_TCP, REF_UDP, REF_ICMP, REF_OTHER };

/* Where things lie in a plain packet. */
struct layout {
    const uint8_t *l3, *l4;
    uint32_t l4_len; /* without padding */
    uint8_t proto;
    bool v6, tagged;
};

static uint16_t
peek16(const uint8_t *p)
{
    ovs_be16 v;

    memcpy(&v, p, sizeof v);
    return ntohs(v);
}

/* False for whatever the fast path's key would call odd, too. */
static inline bool
parse(const struct dp_packet *packet, struct layout *l)
{
    const uint8_t *frame = dp_packet_data(packet);
    uint32_t len = dp_packet_size(packet), ofs = ETH_HEADER_LEN, ip_len;
    uint16_t type;

    if (len < ETH_HEADER_LEN + VLAN_HEADER_LEN + IP_HEADER_LEN) {
        return false;
    }
    type = peek16(frame + ETH_HEADER_LEN - 2);
    l->tagged = type == ETH_TYPE_VLAN_8021Q;
    if (l->tagged) {
        type = peek16(frame + ofs + VLAN_HEADER_LEN - 2);
        ofs += VLAN_HEADER_LEN;
    }
    l->l3 = frame + ofs;
    len -= ofs;
    if (type == ETH_TYPE_IP) {
        ip_len = peek16(l->l3 + 2);
        if (l->l3[0] != 0x45 || ip_len > len || ip_len < IP_HEADER_LEN ||
            len - ip_len > UINT16_MAX ||
            peek16(l->l3 + 6) & (IP_MORE_FRAGMENTS | IP_FRAG_OFF_MASK)) {
            return false;
        }
        l->v6 = false;
        l->proto = l->l3[9];
        l->l4 = l->l3 + IP_HEADER_LEN;
        l->l4_len = ip_len - IP_HEADER_LEN;
        return true;
    }
    if (type == ETH_TYPE_IPV6 && len >= IPV6_HEADER_LEN && l->l3[0] >> 4 == 6) {
        l->v6 = true;
        l->proto = l->l3[6];
        l->l4 = l->l3 + IPV6_HEADER_LEN;
        l->l4_len = peek16(l->l3 + 4);
        len -= IPV6_HEADER_LEN;
        return l->l4_len <= len && len - l->l4_len <= UINT16_MAX;
    }
    return false;
}

static bool
is_extension(uint8_t proto)
{
    switch (proto) {
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_FRAGMENT:
    case IPPROTO_AH:
    case IPPROTO_DSTOPTS:
        return true;
    }
    return false;
}

/* The sum of everything from the L4 header on, and the pseudo header. */
static bool
l4_sum_right(const struct layout *l, bool pseudo)
{
    uint32_t sum = 0;

    if (pseudo) {
        sum = l->v6 ? csum_add(0, l->l3 + 8, 32) : csum_add(0, l->l3 + 12, 8);
        sum += htons(l->proto) + htons(l->l4_len);
    }
    return csum_fold(csum_add(sum, l->l4, l->l4_len)) == 0;
}

static inline bool
l3_sum_right(const uint8_t *ip)
{
    uint32_t words[IP_HEADER_LEN / 4];
    uint64_t sum = 0;

    memcpy(words, ip, sizeof words);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        sum += words[i];
    }
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16)) == UINT16_MAX;
}

/* What conn_key_extract() demands of checksums and lengths, for a packet that
 * has passed parse() and whose protocol is of that kind. */
static inline bool
valid(const struct dp_packet *packet, const struct layout *l, enum ref_kind kind)
{
    bool l4_good;

    if (!l->v6 && !dp_packet_ip_checksum_valid(packet) && !dp_packet_hwol_is_ipv4(packet) &&
        (dp_packet_ip_checksum_bad(packet) || !l3_sum_right(l->l3))) {
        return false;
    }
    if (dp_packet_l4_checksum_bad(packet)) {
        return false;
    }
    l4_good = dp_packet_l4_checksum_valid(packet) || dp_packet_hwol_tx_l4_checksum(packet);
    switch (kind) {
    case REF_TCP:
        return l->l4_len >= TCP_HEADER_LEN && l->l4[12] >> 4 >= TCP_HEADER_LEN / 4 &&
               (l->l4[12] >> 4) * 4u <= l->l4_len && (l4_good || l4_sum_right(l, true));
    case REF_UDP:
        return l->l4_len >= UDP_HEADER_LEN && peek16(l->l4 + 4) >= UDP_HEADER_LEN &&
               peek16(l->l4 + 4) <= l->l4_len &&
               ((!l->v6 && !peek16(l->l4 + 6)) || l4_good || l4_sum_right(l, true));
    case REF_ICMP:
        return l->l4_len >= ICMP_HEADER_LEN && (l4_good || l4_sum_right(l, l->v6));
    case REF_OTHER:
        return true;
    }
    return false;
}

/* --- references ---------------------------------------------------------------- */

/* The connection's key as a packet in that layout has it. */
static bool
layout_key(const struct layout *l, uint16_t zone, struct conn_key *key, enum ref_kind *kind)
{
    memset(key, 0, sizeof *key);
    key->dl_type = htons(l->v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP);
    key->zone = zone;
    key->nw_proto = l->proto;
    if (l->v6) {
        memcpy(&key->src.addr, l->l3 + 8, 16);
        memcpy(&key->dst.addr, l->l3 + 24, 16);
    } else {
        memcpy(&key->src.addr, l->l3 + 12, 4);
        memcpy(&key->dst.addr, l->l3 + 16, 4);
    }
    switch (l->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
        *kind = l->proto == IPPROTO_TCP ? REF_TCP : REF_UDP;
        if (l->l4_len < UDP_HEADER_LEN) {
            return false;
        }
        memcpy(&key->src.port, l->l4, 2);
        memcpy(&key->dst.port, l->l4 + 2, 2);
        return key->src.port && key->dst.port;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        *kind = REF_ICMP;
        if (l->v6 != (l->proto == IPPROTO_ICMPV6) || l->l4_len < ICMP_HEADER_LEN || l->l4[1] != 0 ||
            (l->v6 ? l->l4[0] != ICMP6_ECHO_REQUEST && l->l4[0] != ICMP6_ECHO_REPLY
                   : l->l4[0] != ICMP4_ECHO_REQUEST && l->l4[0] != ICMP4_ECHO_REPLY)) {
            return false;
        }
        memcpy(&key->src.icmp_id, l->l4 + 4, 2);
        key->dst.icmp_id = key->src.icmp_id;
        key->src.icmp_type = l->l4[0];
        key->dst.icmp_type = l->v6 ? reverse_icmp6_type(l->l4[0]) : reverse_icmp_type(l->l4[0]);
        return true;
    default:
        *kind = REF_OTHER;
        return !l->v6 || !is_extension(l->proto);
    }
}

/* The tracker takes packets to or from the FTP port through its ALG, even
 * without a helper.  Behind a tag it also misreads IPv6 packets' protocol
 * (get_ip_proto()), so it may look for ports anywhere. */
static bool
may_meet_alg(const struct layout *l, enum ref_kind kind)
{
    enum { FTP = 21 };

    if (kind == REF_TCP || kind == REF_UDP) {
        return peek16(l->l4) == FTP || peek16(l->l4 + 2) == FTP;
    }
    return l->v6 && l->tagged;
}

/* The state that a connection of that kind has and keeps, once packets have
 * gone both ways. */
static bool
settled(const struct conn *conn, enum ref_kind kind)
{
    switch (kind) {
    case REF_TCP:
        return true; /* every packet is looked at */
    case REF_ICMP:
        return conn_icmp_cast(conn)->state == ICMPS_REPLY;
    case REF_UDP:
    case REF_OTHER:
        return conn_other_cast(conn)->state == OTHERS_BIDIR;
    }
    return false;
}

bool
ct_ref_take(struct conntrack *ct, const struct dp_packet *packet, uint16_t zone, long long now,
            struct ct_ref *ref, struct ct_verdict *v)
{
    struct conn *conn, *again;
    struct conn_key key, rev_key;
    enum ref_kind kind;
    struct layout l;
    bool reply, ok;

    if (packet->md.ct_state & (CS_SRC_NAT | CS_DST_NAT | CS_INVALID | CS_RELATED | CS_NEW) ||
        !(packet->md.ct_state & CS_ESTABLISHED) || !parse(packet, &l) ||
        !layout_key(&l, zone, &key, &kind) || may_meet_alg(&l, kind) ||
        !conn_lookup(ct, &key, now, &conn, &reply)) {
        return false;
    }
    memset(ref, 0, sizeof *ref);
    ref->conn = conn;
    ref->slot = conn_slot(conn);
    ref->seen = generation(ref->slot);
    if (!conn_lookup(ct, &key, now, &again, NULL) || again != conn) {
        return false;
    }
    rev_key = conn->key;
    conn_key_reverse(&rev_key);
    if (conn->conn_type != CT_CONN_TYPE_DEFAULT || conn->nat_action || conn->alg ||
        conn->alg_related || conn_key_cmp(&conn->rev_key, &rev_key)) {
        return false;
    }
    ovs_mutex_lock(&conn->lock);
    ok = settled(conn, kind) && !conn->seq_skew;
    v->mark = conn->mark;
    v->label = conn->label;
    ovs_mutex_unlock(&conn->lock);
    v->state = CS_TRACKED | CS_ESTABLISHED | (reply ? CS_REPLY_DIR : 0);

    memcpy(ref->src, &key.src.addr, sizeof ref->src);
    memcpy(ref->dst, &key.dst.addr, sizeof ref->dst);
    ref->v6 = l.v6;
    ref->proto = l.proto;
    ref->kind = kind;
    ref->reply = reply;
    if (kind != REF_OTHER) {
        memcpy(&ref->l4, l.l4, sizeof ref->l4);
        if (kind == REF_ICMP) {
            ref->icmp_id = key.src.icmp_id;
            memset((uint8_t *)&ref->l4 + 2, 0, 2); /* the checksum */
        }
    }
    /* Somebody who read mark and label elsewhere may rely on these. */
    return ok && v->mark == packet->md.ct_mark && ovs_u128_equals(v->label, packet->md.ct_label) &&
           v->state == packet->md.ct_state;
}

bool
ct_ref_label(const struct ct_ref *ref, uint64_t *label)
{
    struct conn *conn = ref->conn;

    if (generation(ref->slot) != ref->seen) {
        return false;
    }
    ovs_mutex_lock(&conn->lock);
    *label = conn->label.u64.lo;
    ovs_mutex_unlock(&conn->lock);
    return generation(ref->slot) == ref->seen;
}

static inline bool
same_flow(const struct ct_ref *ref, const struct layout *l)
{
    uint32_t l4, a4;
    ovs_be16 id;

    if (ref->v6 != l->v6 || ref->proto != l->proto) {
        return false;
    }
    if (l->v6) {
        if (memcmp(ref->src, l->l3 + 8, 16) || memcmp(ref->dst, l->l3 + 24, 16)) {
            return false;
        }
    } else {
        memcpy(&a4, l->l3 + 12, sizeof a4);
        memcpy(&l4, l->l3 + 16, sizeof l4);
        if (memcmp(ref->src, &a4, sizeof a4) || memcmp(ref->dst, &l4, sizeof l4)) {
            return false;
        }
    }
    if (ref->kind == REF_OTHER) {
        return true;
    }
    if (l->l4_len < UDP_HEADER_LEN) {
        return false;
    }
    memcpy(&l4, l->l4, sizeof l4);
    if (ref->kind == REF_ICMP) {
        memcpy(&id, l->l4 + 4, sizeof id);
        return !memcmp(&ref->l4, &l4, 2) && ref->icmp_id == id;
    }
    return !memcmp(&ref->l4, &l4, sizeof l4);
}

/* A packet that can change nothing but sequence numbers and the expiry, which
 * the tracker therefore calls valid or leaves alone. */
static inline bool
track_tcp(struct conntrack *ct, struct conn *conn, const struct layout *l, bool reply,
          long long now)
{
    uint16_t flags = peek16(l->l4 + 12);
    struct dp_packet packet; /* tcp_conn_update() reads these and no more */
    bool ok;

    if ((flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK) {
        return false;
    }
    packet.mbuf.buf_addr = CONST_CAST(uint8_t *, l->l4);
    packet.mbuf.data_off = 0;
    packet.mbuf.pkt_len = packet.mbuf.data_len = l->l4_len;
    packet.l2_pad_size = 0;
    packet.l4_ofs = 0;

    /* Without the wrappers, which note for people who holds it. */
    pthread_mutex_lock(&conn->lock.lock);
    ok = conn_tcp_cast(conn)->peer[reply].state >= CT_DPIF_TCPS_SYN_SENT;
    if (ok && tcp_conn_update(ct, conn, &packet, reply, now) != CT_UPDATE_VALID) {
        /* Out of window.  It will be counted when it is done again. */
        COVERAGE_ADD(conntrack_tcp_seq_chk_failed, -1);
        ok = false;
    }
    pthread_mutex_unlock(&conn->lock.lock);
    return ok;
}

bool
ct_ref_track(struct conntrack *ct, const struct ct_ref *ref, const struct dp_packet *packet,
             long long now)
{
    struct conn *conn = ref->conn;
    struct layout l;

    if (OVS_UNLIKELY(generation(ref->slot) != ref->seen || !parse(packet, &l) ||
                     !same_flow(ref, &l) || !valid(packet, &l, ref->kind) ||
                     now >= conn_expiration(conn))) {
        return false;
    }
    switch ((enum ref_kind)ref->kind) {
    case REF_TCP:
        return track_tcp(ct, conn, &l, ref->reply, now);
    case REF_ICMP:
        extend(ct, conn, CT_TM_ICMP_REPLY, now);
        return true;
    case REF_UDP:
    case REF_OTHER:
        extend(ct, conn, CT_TM_OTHER_BIDIR, now);
        return true;
    }
    return false;
}

void
ct_ref_prefetch(const struct ct_ref *ref)
{
    /* The connection may be gone, its address still may be fetched. */
    const char *conn = (const char *)ref->conn;

    __builtin_prefetch(&generations[ref->slot]);
    __builtin_prefetch(conn + offsetof(struct conn, expiration), 1);
    if (ref->kind == REF_TCP) {
        __builtin_prefetch(conn + offsetof(struct conn, lock), 1);
        __builtin_prefetch(conn + offsetof(struct conn_tcp, peer), 1);
    }
}

#include "ct_entry_impl.h"

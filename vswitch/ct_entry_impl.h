/* ct_entry: see ct_entry.h.  Part of ct.c, whose tracker it needs the inside of;
 * nobody else includes it. */
#ifndef CT_ENTRY_IMPL_H
#define CT_ENTRY_IMPL_H

BUILD_ASSERT_DECL(sizeof(union ct_addr) == 16);
BUILD_ASSERT_DECL(sizeof(struct ct_endpoint) == 20);
BUILD_ASSERT_DECL(CT_WSCALE_FLAG + CT_WSCALE_UNKNOWN == CT_ENTRY_WSCALE_FLAGS);
BUILD_ASSERT_DECL(TCP_MAX_WSCALE == CT_ENTRY_WSCALE_MAX);

enum ct_entry_kind
ct_entry_kind(uint8_t proto)
{
    return proto == IPPROTO_TCP                               ? CT_ENTRY_TCP
           : proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6 ? CT_ENTRY_ICMP
                                                              : CT_ENTRY_OTHER;
}

static void
tuple_from_key(struct ct_tuple *t, const struct conn_key *key)
{
    memcpy(t->addr[0], &key->src.addr, 16);
    memcpy(t->addr[1], &key->dst.addr, 16);
    memcpy(t->l4[0], &key->src.port, 2);
    memcpy(t->l4[1], &key->dst.port, 2);
    t->l4[0][2] = key->src.icmp_type;
    t->l4[0][3] = key->src.icmp_code;
    t->l4[1][2] = key->dst.icmp_type;
    t->l4[1][3] = key->dst.icmp_code;
}

static void
key_from_tuple(struct conn_key *key, const struct ct_tuple *t, const struct ct_entry *e,
               uint8_t proto)
{
    memset(key, 0, sizeof *key);
    memcpy(&key->src.addr, t->addr[0], 16);
    memcpy(&key->dst.addr, t->addr[1], 16);
    memcpy(&key->src.port, t->l4[0], 2);
    memcpy(&key->dst.port, t->l4[1], 2);
    key->src.icmp_type = t->l4[0][2];
    key->src.icmp_code = t->l4[0][3];
    key->dst.icmp_type = t->l4[1][2];
    key->dst.icmp_code = t->l4[1][3];
    key->dl_type = htons(e->v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP);
    key->zone = e->zone;
    key->nw_proto = proto;
}

static void
peer_to_entry(struct ct_tcp_peer *to, const struct tcp_peer *from)
{
    to->seqlo = from->seqlo;
    to->seqhi = from->seqhi;
    to->max_win = from->max_win;
    to->wscale = from->wscale;
    to->state = from->state;
}

static void
peer_from_entry(struct tcp_peer *to, const struct ct_tcp_peer *from)
{
    to->seqlo = from->seqlo;
    to->seqhi = from->seqhi;
    to->max_win = from->max_win;
    to->wscale = from->wscale;
    to->state = from->state;
}

static void
entry_from_conn(struct ct_entry *e, struct conn *conn, long long now)
{
    memset(e, 0, sizeof *e);
    e->v6 = conn->key.dl_type == htons(ETH_TYPE_IPV6);
    e->proto = conn->key.nw_proto;
    e->zone = conn->key.zone;
    tuple_from_key(&e->orig, &conn->key);
    tuple_from_key(&e->reply, &conn->rev_key);
    e->has_nat = conn->nat_conn != NULL;
    e->nat_action = conn->nat_action;
    if (conn->alg) {
        ovs_strlcpy(e->alg, conn->alg, sizeof e->alg);
    }
    e->related = conn->alg_related;
    if (e->related) {
        e->parent_proto = conn->parent_key.nw_proto;
        tuple_from_key(&e->parent, &conn->parent_key);
    }
    e->timeout_policy = conn->tp_id;

    ovs_mutex_lock(&conn->lock);
    e->seq_skew = conn->seq_skew;
    e->seq_skew_reply = conn->seq_skew_dir;
    e->mark = conn->mark;
    memcpy(e->label, &conn->label, sizeof e->label);
    e->left_ms = MAX(0, MIN(conn_expiration(conn) - now, UINT32_MAX));
    switch (ct_entry_kind(e->proto)) {
    case CT_ENTRY_TCP:
        peer_to_entry(&e->tcp[0], &conn_tcp_cast(conn)->peer[0]);
        peer_to_entry(&e->tcp[1], &conn_tcp_cast(conn)->peer[1]);
        break;
    case CT_ENTRY_ICMP:
        e->state = conn_icmp_cast(conn)->state;
        break;
    case CT_ENTRY_OTHER:
        e->state = conn_other_cast(conn)->state;
        break;
    }
    ovs_mutex_unlock(&conn->lock);
}

/* By the lists of expiry, where a connection stays in one place as long as it
 * lives; in the hash table it may move under a reader that comes and goes. */
BUILD_ASSERT_DECL(N_EXP_LISTS == CT_ENTRY_LISTS);

void
ct_entry_visit(struct conntrack *ct, unsigned list, long long now, const uint16_t *zone,
               void (*visit)(const struct ct_entry *, void *aux), void *aux)
{
    struct ct_entry e;
    struct conn *conn;

    RCULIST_FOR_EACH(conn, node, &ct->exp_lists[list])
    {
        if (!conn_expired(conn, now) && (!zone || conn->key.zone == *zone)) {
            entry_from_conn(&e, conn, now);
            visit(&e, aux);
        }
    }
}

static struct conn *
conn_from_entry(const struct ct_entry *e, long long now)
{
    struct conn_icmp *icmp;
    struct conn_other *other;
    struct conn_tcp *tcp;
    struct conn *conn;

    switch (ct_entry_kind(e->proto)) {
    case CT_ENTRY_TCP:
        tcp = xzalloc(sizeof *tcp);
        peer_from_entry(&tcp->peer[0], &e->tcp[0]);
        peer_from_entry(&tcp->peer[1], &e->tcp[1]);
        conn = &tcp->up;
        break;
    case CT_ENTRY_ICMP:
        icmp = xzalloc(sizeof *icmp);
        icmp->state = e->state;
        conn = &icmp->up;
        break;
    case CT_ENTRY_OTHER:
        other = xzalloc(sizeof *other);
        other->state = e->state;
        conn = &other->up;
        break;
    default:
        OVS_NOT_REACHED();
    }
    key_from_tuple(&conn->key, &e->orig, e, e->proto);
    key_from_tuple(&conn->rev_key, &e->reply, e, e->proto);
    if (e->related) {
        conn->alg_related = true;
        key_from_tuple(&conn->parent_key, &e->parent, e, e->parent_proto);
    }
    conn->nat_action = e->nat_action;
    conn->alg = e->alg[0] ? xstrdup(e->alg) : NULL;
    conn->seq_skew = e->seq_skew;
    conn->seq_skew_dir = e->seq_skew_reply;
    conn->mark = e->mark;
    memcpy(&conn->label, e->label, sizeof conn->label);
    conn->tp_id = e->timeout_policy;
    atomic_init(&conn->expiration, now + e->left_ms);
    conn->conn_type = CT_CONN_TYPE_DEFAULT;
    conn->admit_zone = INVALID_ZONE;
    ovs_mutex_init_adaptive(&conn->lock);
    atomic_flag_clear(&conn->reclaimed);
    if (e->has_nat) {
        conn->nat_conn = xzalloc(sizeof *conn->nat_conn);
        conn->nat_conn->key = conn->rev_key;
        conn->nat_conn->rev_key = conn->key;
        conn->nat_conn->conn_type = CT_CONN_TYPE_UN_NAT;
    }
    return conn;
}

/* Puts a connection where conn_not_found() puts new ones, and counts it. */
static void
conn_insert(struct conntrack *ct, struct conn *conn, struct zone_limit *zl)
    OVS_REQUIRES(ct->ct_lock)
{
    if (conn->nat_conn) {
        cmap_insert(&ct->conns, &conn->nat_conn->cm_node,
                    conn_key_hash(&conn->nat_conn->key, ct->hash_basis));
    }
    if (zl) {
        conn->admit_zone = zl->czl.zone;
        conn->zone_limit_seq = zl->czl.zone_limit_seq;
        atomic_count_inc(&zl->czl.count);
    }
    cmap_insert(&ct->conns, &conn->cm_node, conn_key_hash(&conn->key, ct->hash_basis));
    conn_expire_push_front(ct, conn);
    atomic_count_inc(&ct->n_conn);
}

int
ct_entry_create(struct conntrack *ct, const struct ct_entry *e, long long now)
{
    struct conn *conn = conn_from_entry(e, now);
    struct zone_limit *zl;
    unsigned int limit;
    int error = 0;

    ovs_mutex_lock(&ct->ct_lock);
    zl = zone_limit_lookup_or_default(ct, e->zone);
    atomic_read_relaxed(&ct->n_conn_limit, &limit);
    if (conn_lookup(ct, &conn->key, now, NULL, NULL) ||
        conn_lookup(ct, &conn->rev_key, now, NULL, NULL)) {
        error = EEXIST;
    } else if ((zl && atomic_count_get(&zl->czl.count) >= zl->czl.limit) ||
               atomic_count_get(&ct->n_conn) >= limit) {
        error = ENOSPC;
    } else {
        conn_insert(ct, conn, zl);
    }
    ovs_mutex_unlock(&ct->ct_lock);
    if (error) {
        delete_conn(conn); /* nobody has seen it */
    }
    return error;
}

void
ct_entry_remove(struct conntrack *ct, const struct ct_entry *e, long long now)
{
    struct conn_key key;
    struct conn *conn;

    key_from_tuple(&key, &e->orig, e, e->proto);
    if (conn_lookup(ct, &key, now, &conn, NULL) && conn->conn_type == CT_CONN_TYPE_DEFAULT) {
        conn_clean(ct, conn);
    }
}

int
ct_entry_replace(struct conntrack *ct, const struct ct_entry *e, long long now,
                 bool (*may_go)(void *aux, const struct ct_entry *), void *aux)
{
    struct ct_entry old;
    struct conn_key key;
    struct conn *conn;

    key_from_tuple(&key, &e->orig, e, e->proto);
    if (conn_lookup(ct, &key, now, &conn, NULL) && conn->conn_type == CT_CONN_TYPE_DEFAULT) {
        entry_from_conn(&old, conn, now);
        if (may_go(aux, &old)) {
            conn_clean(ct, conn);
        }
    }
    return ct_entry_create(ct, e, now);
}

/* --- watching --------------------------------------------------------------- */

static struct ct_watcher *_Atomic watcher;

void
ct_watch(struct ct_watcher *w)
{
    atomic_store_explicit(&watcher, w, memory_order_release);
}

static void
tell(struct conntrack *ct, struct conn *conn, bool gone)
{
    struct ct_watcher *w = atomic_load_explicit(&watcher, memory_order_acquire);

    if (w && w->ct == ct) {
        struct ct_entry e;

        entry_from_conn(&e, conn, time_msec());
        w->tell(w, &e, gone);
    }
}

static void
conn_push_and_tell(struct conntrack *ct, struct conn *conn)
{
    conn_expire_push_front(ct, conn);
    tell(ct, conn, false);
}

static void
conn_gone(struct conntrack *ct, struct conn *conn)
{
    conn_changed(conn);
    tell(ct, conn, true);
}

/* Where it changes nobody says whose connection it is. */
static void
tell_change(struct conn *conn)
{
    struct ct_watcher *w = atomic_load_explicit(&watcher, memory_order_acquire);
    struct conn *found;

    if (w && conn_lookup(w->ct, &conn->key, time_msec(), &found, NULL) && found == conn) {
        tell(w->ct, conn, false);
    }
}

bool
ct_zone_limit_next(struct conntrack *ct, struct cmap_position *pos, int32_t *zone, uint32_t *limit)
{
    struct cmap_node *node = cmap_next_position(&ct->zone_limits, pos);
    struct zone_limit *zl;

    if (!node) {
        return false;
    }
    INIT_CONTAINER(zl, node, node);
    *zone = zl->czl.zone;
    *limit = zl->czl.limit;
    return true;
}

void
ct_zone_limit_create(struct conntrack *ct, int32_t zone, uint32_t limit)
{
    ovs_mutex_lock(&ct->ct_lock);
    zone_limit_create(ct, zone, limit); /* leaves an existing one as it is */
    ovs_mutex_unlock(&ct->ct_lock);
}

#endif

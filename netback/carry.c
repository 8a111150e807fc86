/* carry: what a guest asked its backend for, on its way to another host's.
 *
 *   bytes
 *   4      version: 1
 *   4      hash algorithm, 4 hash types, as in io/netif.h
 *   40     key
 *   4      entries of the mapping, at most 4,096; 4 multicast addresses, at most 64
 *   2 each mapping: queues
 *   6 each multicast addresses
 *
 * Little-endian.  A new connection starts with nothing in the protocol, and
 * frontends ask again; until they have, this is what they had.  So it is applied
 * to the connection that comes next, and to no other. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cursor.h"
#include "vif.h"

#define CARRY_VERSION 1u
#define CARRY_FIXED (12u + HASH_KEY_MAX + 8u)

_Static_assert(NETBACK_CARRY_MAX == CARRY_FIXED + 2 * HASH_MAPPING_MAX + 6 * MCAST_MAX,
               "the largest fits");

struct vif_carried {
    uint32_t algorithm, flags, n_mapping, n_mcast;
    uint8_t key[HASH_KEY_MAX];
    uint16_t mapping[HASH_MAPPING_MAX];
    uint8_t mcast[MCAST_MAX][6];
};

static unsigned
put_mcast(const struct mcast_list *l, uint8_t *p)
{
    unsigned n = 0;

    for (unsigned i = 0; i < MCAST_MAX; i++) {
        uint64_t word = atomic_load_explicit(&l->addr[i], memory_order_relaxed);

        for (int k = 0; word && k < 6; k++) {
            p[6 * n + k] = word >> (40 - 8 * k);
        }
        n += word != 0;
    }
    return n;
}

struct export
{
    struct netback_vif *vif;
    uint8_t *buf;
    size_t len;
};

static int
export_settings(struct netback *nb, void *x_)
{
    struct export *x = x_;
    const struct journal *j = x->vif->journal;
    uint8_t *p = x->buf + CARRY_FIXED;

    (void)nb;
    if (!j) {
        return ENOTCONN;
    }
    uint32_t n = atomic_load(&j->hash.mapping_size);
    n = n > HASH_MAPPING_MAX ? HASH_MAPPING_MAX : n;
    put_le32(x->buf, CARRY_VERSION);
    put_le32(x->buf + 4, atomic_load(&j->hash.algorithm));
    put_le32(x->buf + 8, atomic_load(&j->hash.flags));
    for (unsigned i = 0; i < HASH_KEY_MAX / 4; i++) {
        put_be32(x->buf + 12 + 4 * i, atomic_load(&j->hash.key[i]));
    }
    put_le32(x->buf + 12 + HASH_KEY_MAX, n);
    for (uint32_t i = 0; i < n; i++, p += 2) {
        put_le16(p, atomic_load(&j->hash_mapping[i]));
    }
    n = put_mcast(&j->mcast, p);
    put_le32(x->buf + 16 + HASH_KEY_MAX, n);
    x->len = p + 6 * n - x->buf;
    return 0;
}

size_t
netback_export(struct netback_vif *v, uint8_t buf[NETBACK_CARRY_MAX])
{
    struct export x = {.vif = v, .buf = buf};

    return xenbus_call(v->nb, export_settings, &x) ? 0 : x.len;
}

static bool
parse(struct vif_carried *c, const uint8_t *data, size_t len)
{
    struct cursor in = cursor_on(data, len);
    const uint8_t *p = cursor_take(&in, CARRY_FIXED), *map, *mcast;

    if (!p || get_le32(p) != CARRY_VERSION) {
        return false;
    }
    c->algorithm = get_le32(p + 4);
    c->flags = get_le32(p + 8);
    memcpy(c->key, p + 12, HASH_KEY_MAX);
    c->n_mapping = get_le32(p + 12 + HASH_KEY_MAX);
    c->n_mcast = get_le32(p + 16 + HASH_KEY_MAX);
    if (c->algorithm > XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ || c->flags > 0xf ||
        c->n_mapping > HASH_MAPPING_MAX || c->n_mcast > MCAST_MAX) {
        return false;
    }
    map = cursor_take(&in, 2 * c->n_mapping);
    mcast = cursor_take(&in, 6 * c->n_mcast);
    if (!mcast || in.left) {
        return false;
    }
    for (uint32_t i = 0; i < c->n_mapping; i++) {
        c->mapping[i] = get_le16(map + 2 * i);
        if (c->mapping[i] >= NETBACK_MAX_QUEUES) {
            return false;
        }
    }
    for (uint32_t i = 0; i < c->n_mcast; i++) {
        memcpy(c->mcast[i], mcast + 6 * i, 6);
        if (!(c->mcast[i][0] & 1)) {
            return false;
        }
    }
    return true;
}

bool
netback_import_check(const uint8_t *data, size_t len)
{
    struct vif_carried c;

    return parse(&c, data, len);
}

struct import {
    struct netback_vif *vif;
    struct vif_carried *carried;
};

static int
import_settings(struct netback *nb, void *i_)
{
    struct import *i = i_;

    (void)nb;
    if (!i->vif->attached || i->vif->n_open) {
        return i->vif->attached ? EISCONN : ENOTCONN;
    }
    free(i->vif->carried);
    i->vif->carried = i->carried;
    return 0;
}

int
netback_import(struct netback_vif *v, const uint8_t *data, size_t len)
{
    struct import i = {v, malloc(sizeof *i.carried)};
    int error;

    if (!i.carried) {
        return ENOMEM;
    }
    error = parse(i.carried, data, len) ? xenbus_call(v->nb, import_settings, &i) : EINVAL;
    if (error) {
        free(i.carried);
    }
    return error;
}

void
netback_continue_stats(struct netback_vif *v, const struct netback_stats *s)
{
    atomic_store(&v->before.rx_packets, s->rx_packets);
    atomic_store(&v->before.rx_bytes, s->rx_bytes);
    atomic_store(&v->before.tx_packets, s->tx_packets);
    atomic_store(&v->before.tx_bytes, s->tx_bytes);
}

void
vif_apply_carried(struct netback_vif *v)
{
    struct vif_carried *c = v->carried;

    v->carried = NULL;
    if (c && v->journal) {
        struct hash_settings *h = &v->journal->hash;

        for (uint32_t i = 0; i < c->n_mapping; i++) {
            atomic_store(&h->mapping[i], c->mapping[i]);
        }
        for (unsigned i = 0; i < HASH_KEY_MAX / 4; i++) {
            atomic_store(&h->key[i], get_be32(c->key + 4 * i));
        }
        atomic_store(&h->mapping_size, c->n_mapping);
        atomic_store(&h->flags, c->flags);
        atomic_store(&h->algorithm, c->algorithm);
        for (uint32_t i = 0; i < c->n_mcast; i++) {
            mcast_add(&v->journal->mcast, c->mcast[i]);
        }
    }
    free(c);
}

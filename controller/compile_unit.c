/* Units: the flows of one object on one host, and the host's table. */
#include <config.h>

#include <stdlib.h>

#include "compile_impl.h"
#include "hash.h"
#include "util.h"

struct chost *
find_chost(const struct compile *c, uint32_t key)
{
    struct chost *h;

    HMAP_FOR_EACH_WITH_HASH (h, node, hash_int(key, 0), &c->hosts) {
        if (h->key == key) {
            return h;
        }
    }
    return NULL;
}

struct cnet *
find_cnet(const struct compile *c, uint32_t key)
{
    struct cnet *n;

    HMAP_FOR_EACH_WITH_HASH (n, node, hash_int(key, 0), &c->nets) {
        if (n->key == key) {
            return n;
        }
    }
    return NULL;
}

struct cvif *
find_cvif(const struct compile *c, uint32_t key)
{
    struct cvif *v;

    HMAP_FOR_EACH_WITH_HASH (v, node, hash_int(key, 0), &c->vifs) {
        if (v->key == key) {
            return v;
        }
    }
    return NULL;
}

struct cpresence *
find_presence(const struct cnet *net, const struct chost *host)
{
    struct cpresence *p;

    LIST_FOR_EACH (p, net_node, &net->presences) {
        if (p->host == host) {
            return p;
        }
    }
    return NULL;
}

static void
touch(struct compile *c, struct chost *h)
{
    if (ovs_list_is_empty(&h->touched_node)) {
        ovs_list_push_back(&c->touched, &h->touched_node);
    }
    c->stats.moves++;
}

void
host_give(struct compile *c, struct chost *h, const struct pflow *f)
{
    ftable_give(&h->table, f);
    touch(c, h);
}

void
host_withdraw(struct compile *c, struct chost *h, const struct pflow *f)
{
    ftable_withdraw(&h->table, f);
    touch(c, h);
}

static uint32_t
unit_hash(enum unit_kind kind, uint32_t a, uint32_t b)
{
    return hash_3words(kind, a, b);
}

static struct unit *
find_unit(const struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b)
{
    struct unit *u;

    HMAP_FOR_EACH_WITH_HASH (u, node, unit_hash(kind, a, b), &h->units) {
        if (u->kind == kind && u->a == a && u->b == b) {
            return u;
        }
    }
    return NULL;
}

bool
unit_exists(const struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b)
{
    return find_unit(h, kind, a, b) != NULL;
}

void
unit_set(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b,
         struct flows *flows)
{
    struct unit *u = find_unit(h, kind, a, b);
    struct flows old = {0};

    c->stats.units++;
    if (!flows->n) {
        unit_clear(c, h, kind, a, b);
        flows_clear(flows);
        return;
    }
    if (!u) {
        u = xzalloc(sizeof *u);
        u->kind = kind;
        u->a = a;
        u->b = b;
        hmap_insert(&h->units, &u->node, unit_hash(kind, a, b));
    } else {
        old = u->flows;
    }

    /* A unit makes its flows in the same order each time: what is the same, or
     * nearly, is mostly so position by position. */
    for (size_t i = 0; i < flows->n; i++) {
        if (i < old.n && pflow_equal(old.f[i], flows->f[i])) {
            pflow_unref(flows->f[i]);
            flows->f[i] = pflow_ref(old.f[i]);
        } else {
            host_give(c, h, flows->f[i]);
        }
    }
    for (size_t i = 0; i < old.n; i++) {
        if (i >= flows->n || flows->f[i] != old.f[i]) {
            host_withdraw(c, h, old.f[i]);
        }
    }
    flows_clear(&old);
    u->flows = *flows;
    if (u->flows.n < u->flows.allocated) {
        u->flows.f = xrealloc(u->flows.f, u->flows.n * sizeof *u->flows.f);
        u->flows.allocated = u->flows.n;
    }
    *flows = (struct flows){0};
}

void
unit_clear(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b)
{
    struct unit *u = find_unit(h, kind, a, b);

    if (u) {
        for (size_t i = 0; i < u->flows.n; i++) {
            host_withdraw(c, h, u->flows.f[i]);
        }
        flows_clear(&u->flows);
        hmap_remove(&h->units, &u->node);
        free(u);
    }
}

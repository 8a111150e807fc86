/* Units: the flows of one object on one host, and the host's table. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "compile_impl.h"
#include "hash.h"
#include "index.h"
#include "slab.h"
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

static struct pflow *const *
unit_flows(const struct unit *u)
{
    return u->n_flows == 1 ? &u->flow : u->flows;
}

/* Copies the list, and takes over its references. */
static void
put_flows(struct unit *u, const struct flows *flows)
{
    u->n_flows = flows->n;
    if (flows->n == 1) {
        u->flow = flows->f[0];
    } else {
        u->flows = slab_alloc(flows->n * sizeof *u->flows);
        memcpy(u->flows, flows->f, flows->n * sizeof *u->flows);
    }
}

static void
drop_flows(struct unit *u)
{
    struct pflow *const *flows = unit_flows(u);

    for (size_t i = 0; i < u->n_flows; i++) {
        pflow_unref(flows[i]);
    }
    if (u->n_flows != 1) {
        slab_free(u->flows, u->n_flows * sizeof *u->flows);
    }
}

static void
create_unit(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b,
            const struct flows *flows)
{
    struct unit *u = slab_alloc(sizeof *u);

    u->kind = kind;
    u->a = a;
    u->b = b;
    put_flows(u, flows);
    index_insert(&h->units, &u->node, unit_hash(kind, a, b));
    for (size_t i = 0; i < flows->n; i++) {
        host_give(c, h, flows->f[i]);
    }
    c->stats.units++;
}

void
unit_add(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b,
         const struct flows *flows)
{
    for (size_t i = 0; i < flows->n; i++) {
        pflow_ref(flows->f[i]);
    }
    create_unit(c, h, kind, a, b, flows);
}

void
unit_free(struct chost *h, struct unit *u)
{
    drop_flows(u);
    hmap_remove(&h->units, &u->node);
    slab_free(u, sizeof *u);
}

static void
replace_flows(struct compile *c, struct chost *h, struct unit *u, struct flows *flows)
{
    struct pflow *const *old = unit_flows(u);

    /* A unit makes its flows in the same order each time: what is the same, or
     * nearly, is mostly so position by position. */
    for (size_t i = 0; i < flows->n; i++) {
        if (i < u->n_flows && pflow_equal(old[i], flows->f[i])) {
            pflow_unref(flows->f[i]);
            flows->f[i] = pflow_ref(old[i]);
        } else {
            host_give(c, h, flows->f[i]);
        }
    }
    for (size_t i = 0; i < u->n_flows; i++) {
        if (i >= flows->n || flows->f[i] != old[i]) {
            host_withdraw(c, h, old[i]);
        }
    }
    drop_flows(u);
    put_flows(u, flows);
    c->stats.units++;
}

void
unit_set(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b,
         struct flows *flows)
{
    struct unit *u = find_unit(h, kind, a, b);

    if (!flows->n) {
        c->stats.units++;
        unit_clear(c, h, kind, a, b);
    } else if (!u) {
        create_unit(c, h, kind, a, b, flows);
    } else {
        replace_flows(c, h, u, flows);
    }
    free(flows->f);
    *flows = (struct flows){0};
}

void
unit_clear(struct compile *c, struct chost *h, enum unit_kind kind, uint32_t a, uint32_t b)
{
    struct unit *u = find_unit(h, kind, a, b);

    if (u) {
        struct pflow *const *flows = unit_flows(u);

        for (size_t i = 0; i < u->n_flows; i++) {
            host_withdraw(c, h, flows[i]);
        }
        unit_free(h, u);
    }
}

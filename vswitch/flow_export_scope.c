/* Which records are an exporter's that some networks' packets go to only, and whose
 * they are.
 *
 * A record's network is that of the port where its packets came in and of their
 * tag there (of a tunnel: their key).  Ports and tags change hands while records
 * of the old owner's packets wait in the workers' tables, so each says since when
 * it is whose: what began before is nobody's.
 *
 * Threads: whoever has the plan. */
#include <config.h>

#include "flow_export_priv.h"

#include <stdlib.h>
#include <string.h>

#include "util.h"

/* Calls for each word of "A B=C ...", which may be anything. */
static void
for_each_word(const char *text, void (*take)(void *, const char *), void *aux)
{
    char *copy = xstrdup(text), *save = NULL;

    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        take(aux, word);
    }
    free(copy);
}

/* "A=B"; false: it is not that, or A is 0. */
static bool
parse_pair(const char *word, unsigned *a, unsigned *b)
{
    const char *equals = strchr(word, '=');
    char text[16];

    if (!equals || equals - word >= sizeof text || !str_to_uint(equals + 1, 10, b)) {
        return false;
    }
    ovs_strlcpy(text, word, equals - word + 1);
    return str_to_uint(text, 10, a) && *a;
}

static int
compare_networks(const void *a_, const void *b_)
{
    const uint32_t *a = a_, *b = b_;

    return *a < *b ? -1 : *a > *b;
}

static void
add_network(void *export_, const char *word)
{
    struct plan_export *e = export_;
    unsigned key;

    if (str_to_uint(word, 10, &key) && key) {
        e->networks = xrealloc(e->networks, (e->n_networks + 1) * sizeof *e->networks);
        e->networks[e->n_networks++] = key;
    }
}

void
plan_scope(struct plan_export *e, const char *networks)
{
    e->scoped = true;
    for_each_word(networks, add_network, e);
    if (e->n_networks) {
        qsort(e->networks, e->n_networks, sizeof *e->networks, compare_networks);
    }
}

bool
plan_scope_has(const struct plan_export *e, uint32_t network)
{
    return network && e->n_networks &&
           bsearch(&network, e->networks, e->n_networks, sizeof *e->networks, compare_networks);
}

/* --- ports ------------------------------------------------------------------------- */

static int
compare_tags(const void *a_, const void *b_)
{
    const struct plan_tag *a = a_, *b = b_;

    return a->id < b->id ? -1 : a->id > b->id;
}

static const struct plan_tag *
find_tag(const struct plan_port *port, uint32_t id)
{
    const struct plan_tag key = {.id = id};

    return port->n_tags ? bsearch(&key, port->tags, port->n_tags, sizeof *port->tags, compare_tags)
                        : NULL;
}

static void
add_tag(void *port_, const char *word)
{
    struct plan_port *port = port_;
    unsigned id, network;

    if (parse_pair(word, &id, &network)) {
        port->tags = xrealloc(port->tags, (port->n_tags + 1) * sizeof *port->tags);
        port->tags[port->n_tags++] = (struct plan_tag){id, network, port->since};
    }
}

/* Of two that are stated for one tag neither counts. */
static void
sort_tags(struct plan_port *port)
{
    size_t n = 0;

    qsort(port->tags, port->n_tags, sizeof *port->tags, compare_tags);
    for (size_t i = 0; i < port->n_tags; i++) {
        if (n && port->tags[n - 1].id == port->tags[i].id) {
            if (port->tags[n - 1].network != port->tags[i].network) {
                port->tags[n - 1].network = 0;
            }
        } else {
            port->tags[n++] = port->tags[i];
        }
    }
    port->n_tags = n;
}

void
plan_port_tags(struct plan_port *port, const char *tags)
{
    for_each_word(tags, add_tag, port);
    if (port->n_tags) {
        sort_tags(port);
    }
}

uint32_t
plan_network(const struct plan_port *port, const struct flow_record *f, bool *sure)
{
    uint64_t id = f->tunnel_key ? f->tunnel_key : f->vlan;
    const struct plan_tag *tag = id && id <= UINT32_MAX ? find_tag(port, id) : NULL;

    *sure = f->start_ms >= (tag ? tag->since : port->since);
    return tag ? tag->network : port->network;
}

/* Whether packets of its networks may come in there. */
static bool
is_in_scope(const struct plan_export *e, const struct plan_port *port)
{
    bool in = plan_scope_has(e, port->network);

    for (size_t i = 0; i < port->n_tags && !in; i++) {
        in = plan_scope_has(e, port->tags[i].network);
    }
    return in;
}

size_t
plan_scope_interfaces(const struct plan *p, const struct plan_bridge *b,
                      const struct plan_export *e, struct export_interface *to)
{
    size_t n = 0;

    for (size_t i = 0; i < b->n_interfaces; i++) {
        if (!e->scoped || (b->interface_ports[i] < ENGINE_PORTS_MAX &&
                           is_in_scope(e, &p->ports[b->interface_ports[i]]))) {
            to[n++] = b->interfaces[i];
        }
    }
    return n;
}

/* --- tenants ----------------------------------------------------------------------- */

static int
compare_tenants(const void *a_, const void *b_)
{
    const struct plan_tenant *a = a_, *b = b_;

    return a->network < b->network ? -1 : a->network > b->network;
}

static void
add_tenant(void *bridge, const char *word)
{
    struct plan_bridge *b = bridge;
    unsigned network, tenant;

    if (parse_pair(word, &network, &tenant)) {
        b->tenants = xrealloc(b->tenants, (b->n_tenants + 1) * sizeof *b->tenants);
        b->tenants[b->n_tenants++] = (struct plan_tenant){network, tenant};
    }
}

void
plan_tenants(struct plan_bridge *b, const char *tenants)
{
    size_t n = 0;

    for_each_word(tenants, add_tenant, b);
    if (b->n_tenants) {
        qsort(b->tenants, b->n_tenants, sizeof *b->tenants, compare_tenants);
    }
    for (size_t i = 0; i < b->n_tenants; i++) {
        if (n && b->tenants[n - 1].network == b->tenants[i].network) {
            b->tenants[n - 1].tenant = 0;
        } else {
            b->tenants[n++] = b->tenants[i];
        }
    }
    b->n_tenants = n;
}

uint32_t
plan_tenant(const struct plan_bridge *b, uint32_t network)
{
    const struct plan_tenant key = {.network = network}, *found;

    found =
        b->n_tenants ? bsearch(&key, b->tenants, b->n_tenants, sizeof key, compare_tenants) : NULL;
    return found ? found->tenant : 0;
}

/* --- from plan to plan ---------------------------------------------------------------- */

static void
keep_port(struct plan_port *port, const struct plan_port *was)
{
    bool same = port->vif == was->vif && port->network == was->network;

    port->since = same ? was->since : port->since;
    for (size_t i = 0; i < port->n_tags && same; i++) {
        const struct plan_tag *tag = find_tag(was, port->tags[i].id);

        if (tag && tag->network == port->tags[i].network) {
            port->tags[i].since = tag->since;
        }
    }
}

void
plan_keep(struct plan *p, const struct plan *was)
{
    for (size_t i = 0; i < ENGINE_PORTS_MAX; i++) {
        keep_port(&p->ports[i], &was->ports[i]);
    }
}

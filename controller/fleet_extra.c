/* Mirrors and exporters: from the model to what each host should have. */
#include <config.h>

#include "host_extra.h"

#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "hmapx.h"
#include "model.h"
#include "packets.h"
#include "util.h"

#define MIRROR_WHY 400

void
host_mirror_vlan_ports(uint16_t vlan, char in[16], char out[16])
{
    snprintf(in, 16, "weft-span-%d", vlan & 0xfff);
    snprintf(out, 16, "weft-spanx-%d", vlan & 0xfff);
}

static void
free_mirrors_from(struct host_extra *x, size_t first)
{
    for (size_t i = first; i < x->n_mirrors; i++) {
        struct host_mirror *hm = &x->mirrors[i];

        svec_destroy(&hm->in);
        svec_destroy(&hm->out);
        free(hm->name);
        free(hm->output_port);
        free(hm->remote_ip);
        free(hm->local_ip);
    }
    x->n_mirrors = MIN(x->n_mirrors, first);
}

static void
free_exporter(struct host_exporter *e)
{
    svec_destroy(&e->targets);
    svec_destroy(&e->options);
    free(e->sflow_agent);
}

void
host_extra_free(struct host_extra *x)
{
    if (!x) {
        return;
    }
    free_mirrors_from(x, 0);
    for (int p = 0; p < HOST_N_PROTOCOLS; p++) {
        free_exporter(&x->exporters[p]);
    }
    for (size_t i = 0; i < x->n_keys; i++) {
        free(x->keys[i].port);
        free(x->keys[i].tags);
    }
    free(x->keys);
    for (size_t i = 0; i < x->n_scopes; i++) {
        free_exporter(&x->scopes[i].exporter);
        free(x->scopes[i].networks);
    }
    free(x->scopes);
    free(x->bond.port);
    free(x->bond.primary);
    svec_destroy(&x->bond.interfaces);
    svec_destroy(&x->pifs);
    svec_destroy(&x->tenants);
    free(x->mirrors);
    free(x);
}

/* --- comparing ------------------------------------------------------------------- */

static bool
mirrors_equal(const struct host_mirror *a, const struct host_mirror *b)
{
    return !strcmp(a->name, b->name) && svec_equal(&a->in, &b->in) &&
           svec_equal(&a->out, &b->out) && a->how == b->how && a->key == b->key &&
           nullable_string_is_equal(a->output_port, b->output_port) && a->vlan == b->vlan &&
           nullable_string_is_equal(a->remote_ip, b->remote_ip) &&
           nullable_string_is_equal(a->local_ip, b->local_ip) && a->session == b->session &&
           a->snaplen == b->snaplen && a->select == b->select;
}

static bool
exporters_equal(const struct host_exporter *a, const struct host_exporter *b)
{
    return svec_equal(&a->targets, &b->targets) && svec_equal(&a->options, &b->options) &&
           a->sampling == b->sampling && a->active_timeout == b->active_timeout &&
           a->cache_max_flows == b->cache_max_flows && a->polling == b->polling &&
           a->header == b->header && a->domain == b->domain &&
           nullable_string_is_equal(a->sflow_agent, b->sflow_agent);
}

static bool
bonds_equal(const struct host_bond *a, const struct host_bond *b)
{
    return nullable_string_is_equal(a->port, b->port) &&
           svec_equal(&a->interfaces, &b->interfaces) && a->mode == b->mode && a->lacp == b->lacp &&
           a->lacp_fast == b->lacp_fast && nullable_string_is_equal(a->primary, b->primary) &&
           a->updelay == b->updelay && a->downdelay == b->downdelay;
}

static bool
keys_equal(const struct host_port_keys *a, const struct host_port_keys *b)
{
    return !strcmp(a->port, b->port) && a->vif == b->vif && a->network == b->network &&
           !strcmp(a->tags, b->tags);
}

static bool
scopes_equal(const struct host_scope *a, const struct host_scope *b)
{
    return a->key == b->key && !strcmp(a->networks, b->networks) &&
           exporters_equal(&a->exporter, &b->exporter);
}

bool
host_extra_equal(const struct host_extra *a, const struct host_extra *b)
{
    if (!a || !b || a->n_mirrors != b->n_mirrors || a->n_keys != b->n_keys ||
        a->n_scopes != b->n_scopes) {
        return a == b;
    }
    if (!bonds_equal(&a->bond, &b->bond) || !svec_equal(&a->pifs, &b->pifs) ||
        !svec_equal(&a->tenants, &b->tenants)) {
        return false;
    }
    for (size_t i = 0; i < a->n_keys; i++) {
        if (!keys_equal(&a->keys[i], &b->keys[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < a->n_mirrors; i++) {
        if (!mirrors_equal(&a->mirrors[i], &b->mirrors[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < a->n_scopes; i++) {
        if (!scopes_equal(&a->scopes[i], &b->scopes[i])) {
            return false;
        }
    }
    for (int p = 0; p < HOST_N_PROTOCOLS; p++) {
        if (!exporters_equal(&a->exporters[p], &b->exporters[p])) {
            return false;
        }
    }
    return true;
}

/* --- mirrors ------------------------------------------------------------------------ */

static char *
address_text(const struct in6_addr *addr)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (ipv6_addr_is_set(addr)) {
        ipv6_string_mapped(text, addr);
    }
    return xstrdup(text);
}

static void
set_output(struct host_mirror *hm, const struct model_mirror *mirror, const struct model_host *host,
           const struct model_port *output)
{
    if (output) {
        hm->how = HOST_MIRROR_PORT;
        hm->output_port = xstrdup(output->name);
    } else if (mirror->output_vlan) {
        hm->how = HOST_MIRROR_VLAN;
        hm->vlan = mirror->output_vlan;
    } else {
        bool same =
            !!IN6_IS_ADDR_V4MAPPED(&mirror->output_ip) == !!IN6_IS_ADDR_V4MAPPED(&host->tunnel_ip);

        hm->how = mirror->erspan ? HOST_MIRROR_ERSPAN : HOST_MIRROR_GRE;
        hm->remote_ip = address_text(&mirror->output_ip);
        hm->local_ip = same ? address_text(&host->tunnel_ip) : xstrdup("");
        hm->session = mirror->session;
    }
}

/* Of a port with several vifs' frames only the one's. */
static int
selected(const struct model_port *port)
{
    return port->trunk ? port->tag : ovs_list_is_empty(&port->subs) ? -1 : 0;
}

static int
compare_vifs(const void *key, const void *vif_)
{
    const struct model_vif *vif = key, *const *other = vif_;

    return vif->obj.key < (*other)->obj.key ? -1 : vif->obj.key > (*other)->obj.key;
}

/* One in the trunk at the port that is none of 'vifs' (by key), or NULL.  Behind conntrack Open
 * vSwitch asks once more which mirrors a packet of the port is for, and the tag is off by then:
 * what such a vif sends would be copied as if it were its parent's. */
static const struct model_vif *
would_be_copied(const struct model_port *port, struct model_vif *const vifs[], size_t n)
{
    const struct model_port *sub;

    LIST_FOR_EACH (sub, sub_node, &port->subs) {
        if (!bsearch(sub->vif, vifs, n, sizeof *vifs, compare_vifs)) {
            return sub->vif;
        }
    }
    return NULL;
}

/* The part of a mirror, from 'first' on, that copies frames so selected. */
static struct host_mirror *
part_for(struct host_extra *x, size_t first, int select)
{
    struct host_mirror *hm;

    for (size_t i = first; i < x->n_mirrors; i++) {
        if (x->mirrors[i].select == select) {
            return &x->mirrors[i];
        }
    }
    x->mirrors = xrealloc(x->mirrors, (x->n_mirrors + 1) * sizeof *x->mirrors);
    hm = &x->mirrors[x->n_mirrors++];
    memset(hm, 0, sizeof *hm);
    hm->select = select;
    return hm;
}

/* Nothing if none of its sources are here, or its output is a vif elsewhere. */
static void
add_mirror(struct model *m, struct host_extra *x, const struct model_mirror *mirror,
           const struct model_host *host)
{
    const struct model_port *output =
        mirror->output_vif ? model_vif_port(mirror->output_vif, host) : NULL;
    size_t n, first = x->n_mirrors;
    struct model_vif **vifs;

    if (mirror->output_vif && !output) {
        return;
    }
    vifs = model_mirror_vifs(m, mirror, &n);
    for (size_t i = 0; i < n; i++) {
        const struct model_port *port = model_vif_port(vifs[i], host);
        bool out = port && mirror->out && !would_be_copied(port, vifs, n);
        struct host_mirror *hm;

        if (!port || (!mirror->in && !out)) {
            continue;
        }
        hm = part_for(x, first, selected(port));
        if (mirror->in) {
            svec_add(&hm->in, port->name);
        }
        if (out) {
            svec_add(&hm->out, port->name);
        }
    }
    free(vifs);
    for (size_t i = first; i < x->n_mirrors; i++) {
        struct host_mirror *hm = &x->mirrors[i];

        svec_sort_unique(&hm->in);
        svec_sort_unique(&hm->out);
        hm->name = hm->select < 0 ? xstrdup(mirror->obj.name)
                                  : xasprintf("%s/%d", mirror->obj.name, hm->select);
        hm->key = mirror->obj.key;
        hm->snaplen = mirror->snaplen;
        set_output(hm, mirror, host, output);
    }
}

static int
compare_mirrors(const void *a_, const void *b_)
{
    const struct host_mirror *a = a_, *b = b_;

    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->select < b->select ? -1 : a->select > b->select;
}

/* All that the host should have, the oldest first. */
static void
add_mirrors(struct model *m, struct host_extra *x, const struct model_host *host)
{
    const struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        if (obj->live) {
            add_mirror(m, x, model_mirror(obj), host);
        }
    }
    if (x->n_mirrors) {
        qsort(x->mirrors, x->n_mirrors, sizeof *x->mirrors, compare_mirrors);
    }
}

/* How many of them a bridge has room for; the parts of one are not divided. */
static size_t
with_room(const struct host_extra *x)
{
    size_t n = MIN(x->n_mirrors, HOST_MIRRORS_MAX);

    while (n && n < x->n_mirrors && x->mirrors[n - 1].key == x->mirrors[n].key) {
        n--;
    }
    return n;
}

/* --- exporters ----------------------------------------------------------------------- */

/* The host's own, else the pool's. */
static const struct model_exporter *
find_exporter(const struct model *m, enum model_protocol protocol, const struct model_host *host)
{
    const struct model_exporter *pools = NULL;
    const struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_EXPORTER) {
        const struct model_exporter *e = model_exporter(obj);

        if (!obj->live || e->scoped || e->protocol != protocol) {
            continue;
        } else if (e->host == host) {
            return e;
        } else if (!e->host) {
            pools = e;
        }
    }
    return pools;
}

void
fleet_set_exporter(struct host_exporter *he, const struct model_exporter *e,
                   const struct model_host *host)
{
    svec_clone(&he->targets, &e->targets);
    svec_clone(&he->options, &e->options);
    he->sampling = e->sampling;
    he->active_timeout = e->active_timeout;
    he->cache_max_flows = e->cache_max_flows;
    he->polling = e->polling;
    he->header = e->header;
    he->domain = host->obj.key;
    if (e->protocol == MODEL_SFLOW) {
        he->sflow_agent = ipv6_addr_is_set(&host->tunnel_ip) ? address_text(&host->tunnel_ip)
                          : host->uplink[0]                  ? xstrdup(host->uplink)
                                                             : NULL;
    }
}

/* The bond that has the uplink's name. */
static void
set_bond(struct host_bond *to, const struct model_host *host)
{
    static const char *const modes[] = {"active-backup", "balance-slb", "balance-tcp"};
    static const char *const lacp[] = {"off", "passive", "active"};
    const struct model_ref *ref;

    MODEL_FOR_EACH_REF (ref, &host->bonds) {
        const struct model_bond *bond = model_bond(ref->from);

        if (!strcmp(bond->port, host->uplink)) {
            to->port = xstrdup(bond->port);
            svec_clone(&to->interfaces, &bond->interfaces);
            svec_sort(&to->interfaces);
            to->mode = modes[bond->mode];
            to->lacp = lacp[bond->lacp];
            to->lacp_fast = bond->lacp_fast;
            to->primary = xstrdup(bond->primary);
            to->updelay = bond->updelay;
            to->downdelay = bond->downdelay;
        }
    }
}

static int
compare_port_keys(const void *a_, const void *b_)
{
    const struct host_port_keys *a = a_, *b = b_;

    return strcmp(a->port, b->port);
}

void
fleet_add_tenant(struct host_extra *x, const struct model_network *network)
{
    if (network->tenant) {
        svec_add_nocopy(&x->tenants, xasprintf("%" PRIu32 "=%" PRIu32, network->obj.key,
                                               network->tenant->obj.key));
    }
}

/* Beside those that fleet_scopes() has added. */
static void
add_keys(struct host_extra *x, const struct model_host *host)
{
    const struct model_presence *presence;
    const struct model_port *port, *sub;

    LIST_FOR_EACH (presence, host_node, &host->presences) {
        fleet_add_tenant(x, presence->network);
    }
    svec_sort_unique(&x->tenants);
    x->keys = xrealloc(x->keys, (x->n_keys + ovs_list_size(&host->ports) + 1) * sizeof *x->keys);
    LIST_FOR_EACH (port, host_node, &host->ports) {
        struct svec tags = SVEC_EMPTY_INITIALIZER;

        if (!port->vif) {
            continue;
        }
        LIST_FOR_EACH (sub, sub_node, &port->subs) {
            svec_add_nocopy(&tags, xasprintf("%d=%" PRIu32, sub->tag, sub->vif->network->obj.key));
        }
        svec_sort(&tags);
        x->keys[x->n_keys++] =
            (struct host_port_keys){xstrdup(port->name), port->vif->obj.key,
                                    port->vif->network->obj.key, svec_join(&tags, " ", "")};
        svec_destroy(&tags);
    }
    if (x->n_keys) {
        qsort(x->keys, x->n_keys, sizeof *x->keys, compare_port_keys);
    }
}

struct host_extra *
fleet_extra(struct model *m, const struct model_host *host)
{
    struct host_extra *x = xzalloc(sizeof *x);
    const struct model_ref *ref;

    BUILD_ASSERT_DECL((int)HOST_NETFLOW == MODEL_NETFLOW && (int)HOST_SFLOW == MODEL_SFLOW &&
                      (int)HOST_IPFIX == MODEL_IPFIX);
    add_mirrors(m, x, host);
    free_mirrors_from(x, with_room(x));
    for (int p = 0; p < HOST_N_PROTOCOLS; p++) {
        const struct model_exporter *e = find_exporter(m, p, host);

        if (e) {
            fleet_set_exporter(&x->exporters[p], e, host);
        }
    }
    set_bond(&x->bond, host);
    MODEL_FOR_EACH_REF (ref, &host->pifs) {
        svec_add(&x->pifs, model_pif(ref->from)->device);
    }
    svec_sort_unique(&x->pifs);
    fleet_scopes(m, x, host);
    if (x->exporters[HOST_NETFLOW].targets.n || x->exporters[HOST_IPFIX].targets.n || x->n_scopes) {
        add_keys(x, host);
    }
    return x;
}

/* --- when, and what does not go -------------------------------------------------------- */

static void
add_all(const struct model *m, struct hmapx *hosts)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        hmapx_add(hosts, obj);
    }
}

/* Mirrors may look at vifs anywhere; exporters want to know a host's own. */
void
fleet_extra_changed(const struct model *m, struct hmapx *hosts)
{
    bool mirrors = !hmap_is_empty(&m->objs[REC_MIRROR]);
    bool exporters = !hmap_is_empty(&m->objs[REC_EXPORTER]);
    bool bonds = !hmap_is_empty(&m->objs[REC_BOND]);
    struct model_port *port;
    struct model_obj *obj;

    MODEL_FOR_EACH_CHANGED (obj, m, REC_NETWORK) {
        /* Exporters want to know its tag, and whether it is in force. */
        if (obj->change & (MODEL_CREATED | MODEL_DELETED | MODEL_CFG) &&
            !ovs_list_is_empty(&model_network(obj)->exporters)) {
            add_all(m, hosts);
            return;
        }
    }
    if (!ovs_list_is_empty(&m->changed[REC_PIF]) || !ovs_list_is_empty(&m->changed[REC_MIRROR]) ||
        !ovs_list_is_empty(&m->changed[REC_BOND]) ||
        !ovs_list_is_empty(&m->changed[REC_EXPORTER]) ||
        (mirrors && (!ovs_list_is_empty(&m->changed[REC_VIF]) ||
                     !ovs_list_is_empty(&m->changed[REC_NETWORK]) ||
                     !ovs_list_is_empty(&m->changed[REC_HOST])))) {
        add_all(m, hosts);
        return;
    }
    if (exporters || bonds) {
        MODEL_FOR_EACH_CHANGED (obj, m, REC_HOST) {
            hmapx_add(hosts, obj);
        }
    }
    if (exporters) {
        MODEL_FOR_EACH_CHANGED (obj, m, REC_VIF) {
            LIST_FOR_EACH (port, vif_node, &model_vif(obj)->ports) {
                hmapx_add(hosts, &port->host->obj);
            }
        }
        MODEL_FOR_EACH_CHANGED (obj, m, REC_NETWORK) { /* whose it is */
            const struct model_presence *presence;

            LIST_FOR_EACH (presence, network_node, &model_network(obj)->presences) {
                hmapx_add(hosts, &presence->host->obj);
            }
        }
    }
}

/* Of a mirror to a vif: sources that are on other hosts than it is. */
static bool
is_apart(const struct model_mirror *mirror, struct model_vif *const vifs[], size_t n,
         char why[MIRROR_WHY])
{
    const struct model_host *host = mirror->output_vif ? mirror->output_vif->host : NULL;
    const struct model_vif *apart = NULL;
    size_t n_apart = 0;

    for (size_t i = 0; mirror->output_vif && i < n; i++) {
        if (vifs[i]->host && vifs[i]->host != host) {
            apart = apart ? apart : vifs[i];
            n_apart++;
        }
    }
    if (apart) {
        snprintf(why, MIRROR_WHY,
                 "output_vif: %" PRIuSIZE " of the mirrored vifs are not on its host, \"%.120s\" "
                 "on \"%.120s\" is the first: output_ip or output_vlan reaches other hosts",
                 n_apart, apart->obj.name, apart->host->obj.name);
    }
    return apart;
}

/* Sources of which only a part could be copied, and is not. */
static bool
is_partial(const struct model_mirror *mirror, struct model_vif *const vifs[], size_t n,
           char why[MIRROR_WHY])
{
    for (size_t i = 0; mirror->out && i < n; i++) {
        const struct model_port *port;

        LIST_FOR_EACH (port, vif_node, &vifs[i]->ports) {
            const struct model_vif *child = would_be_copied(port, vifs, n);

            if (child) {
                snprintf(why, MIRROR_WHY,
                         "vifs: what \"%.120s\" sends is not copied: \"%.120s\" in its trunk is "
                         "not mirrored, and could not be told from it",
                         vifs[i]->obj.name, child->obj.name);
                return true;
            }
        }
    }
    return false;
}

/* A host has as many as it can already, all of them older. */
static bool
is_one_too_many(const struct model_mirror *mirror, char why[MIRROR_WHY])
{
    if (mirror->crowded) {
        snprintf(why, MIRROR_WHY,
                 "vifs: is not made on host \"%.120s\", which has the %d mirrors that a switch can "
                 "have (one for each tag of trunks): mirror more vifs with fewer",
                 mirror->crowded, HOST_MIRRORS_MAX);
    }
    return mirror->crowded;
}

static void
check_mirror(struct model *m, struct model_mirror *mirror)
{
    struct model_vif **vifs;
    char why[MIRROR_WHY];
    size_t n;

    vifs = model_mirror_vifs(m, mirror, &n);
    model_set_error(m, &mirror->obj,
                    is_one_too_many(mirror, why) || is_apart(mirror, vifs, n, why) ||
                            is_partial(mirror, vifs, n, why)
                        ? why
                        : NULL);
    free(vifs);
}

/* The most rows of Mirror that any host could need: each mirror has one, and one for
 * each tag that it selects. */
static size_t
most_rows(const struct model *m)
{
    const struct model_obj *obj;
    size_t rows = 0;

    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        unsigned long tags[BITMAP_N_LONGS(4096)] = {0};
        struct model_vif **vifs;
        size_t n;

        if (obj->live) {
            vifs = model_mirror_vifs(m, model_mirror(obj), &n);
            for (size_t i = 0; i < n; i++) {
                bitmap_set1(tags, vifs[i]->parent ? vifs[i]->tag & 0xfff : 0);
            }
            rows += bitmap_count1(tags, 4096) + 1;
            free(vifs);
        }
    }
    return rows;
}

/* Which mirrors some host has no room for. */
static void
find_crowded(struct model *m)
{
    struct model_obj *obj, *host;

    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        model_mirror(obj)->crowded = NULL;
    }
    if (hmap_is_empty(&m->objs[REC_MIRROR]) || most_rows(m) <= HOST_MIRRORS_MAX) {
        return;
    }
    MODEL_FOR_EACH (host, m, REC_HOST) {
        struct host_extra *x = xzalloc(sizeof *x);
        size_t n;

        add_mirrors(m, x, model_host(host));
        n = with_room(x);
        MODEL_FOR_EACH (obj, m, REC_MIRROR) {
            for (size_t i = n; i < x->n_mirrors; i++) {
                if (x->mirrors[i].key == obj->key) {
                    model_mirror(obj)->crowded = host->name;
                }
            }
        }
        host_extra_free(x);
    }
}

/* A device of the bond that is none of its host's physical interfaces, where any
 * are stated; or NULL. */
static const char *
unknown_device(const struct model_bond *bond)
{
    const struct model_ref *ref;

    for (size_t i = 0; i < bond->interfaces.n && !ovs_list_is_empty(&bond->host->pifs); i++) {
        bool known = false;

        MODEL_FOR_EACH_REF (ref, &bond->host->pifs) {
            known = known || !strcmp(model_pif(ref->from)->device, bond->interfaces.names[i]);
        }
        if (!known) {
            return bond->interfaces.names[i];
        }
    }
    return NULL;
}

static void
check_bond(struct model *m, struct model_bond *bond)
{
    const char *host = bond->host->obj.name, *unknown = unknown_device(bond);
    char why[200];

    if (strcmp(bond->port, bond->host->uplink)) {
        snprintf(why, sizeof why, "port: is not in use: the uplink of host \"%.60s\" is \"%.60s\"",
                 host, bond->host->uplink);
    } else if (unknown) {
        snprintf(why, sizeof why,
                 "interfaces: \"%.15s\" is no physical interface of host \"%.60s\"", unknown, host);
    } else {
        why[0] = '\0';
    }
    model_set_error(m, &bond->obj, why);
}

void
fleet_extra_errors(struct model *m)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_BOND) {
        if (obj->live) {
            check_bond(m, model_bond(obj));
        } else {
            model_set_error(m, obj, NULL);
        }
    }

    fleet_scope_errors(m);
    find_crowded(m);
    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        if (obj->live) {
            check_mirror(m, model_mirror(obj));
        }
    }
}

/* Mirrors and exporters: from the model to what each host should have. */
#include <config.h>

#include "host_extra.h"

#include <stdlib.h>
#include <string.h>

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

void
host_extra_free(struct host_extra *x)
{
    if (!x) {
        return;
    }
    for (size_t i = 0; i < x->n_mirrors; i++) {
        struct host_mirror *hm = &x->mirrors[i];

        svec_destroy(&hm->in);
        svec_destroy(&hm->out);
        free(hm->name);
        free(hm->output_port);
        free(hm->remote_ip);
        free(hm->local_ip);
    }
    for (int p = 0; p < HOST_N_PROTOCOLS; p++) {
        svec_destroy(&x->exporters[p].targets);
        svec_destroy(&x->exporters[p].options);
        free(x->exporters[p].sflow_agent);
    }
    for (size_t i = 0; i < x->n_keys; i++) {
        free(x->keys[i].port);
    }
    free(x->keys);
    free(x->bond.port);
    free(x->bond.primary);
    svec_destroy(&x->bond.interfaces);
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
    return !strcmp(a->port, b->port) && a->vif == b->vif && a->network == b->network;
}

bool
host_extra_equal(const struct host_extra *a, const struct host_extra *b)
{
    if (!a || !b || a->n_mirrors != b->n_mirrors || a->n_keys != b->n_keys) {
        return a == b;
    }
    if (!bonds_equal(&a->bond, &b->bond)) {
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

/* --- exporters ----------------------------------------------------------------------- */

/* The host's own, else the pool's. */
static const struct model_exporter *
find_exporter(const struct model *m, enum model_protocol protocol, const struct model_host *host)
{
    const struct model_exporter *pools = NULL;
    const struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_EXPORTER) {
        const struct model_exporter *e = model_exporter(obj);

        if (obj->live && e->protocol == protocol && e->host == host) {
            return e;
        } else if (obj->live && e->protocol == protocol && !e->host) {
            pools = e;
        }
    }
    return pools;
}

static void
set_exporter(struct host_exporter *he, const struct model_exporter *e,
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

static void
add_keys(struct host_extra *x, const struct model_host *host)
{
    const struct model_port *port;

    x->keys = xmalloc((ovs_list_size(&host->ports) + 1) * sizeof *x->keys);
    LIST_FOR_EACH (port, host_node, &host->ports) {
        if (port->vif) {
            x->keys[x->n_keys++] = (struct host_port_keys){xstrdup(port->name), port->vif->obj.key,
                                                           port->vif->network->obj.key};
        }
    }
    if (x->n_keys) {
        qsort(x->keys, x->n_keys, sizeof *x->keys, compare_port_keys);
    }
}

struct host_extra *
fleet_extra(struct model *m, const struct model_host *host)
{
    struct host_extra *x = xzalloc(sizeof *x);
    const struct model_obj *obj;

    BUILD_ASSERT_DECL((int)HOST_NETFLOW == MODEL_NETFLOW && (int)HOST_SFLOW == MODEL_SFLOW &&
                      (int)HOST_IPFIX == MODEL_IPFIX);
    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        if (obj->live) {
            add_mirror(m, x, model_mirror(obj), host);
        }
    }
    if (x->n_mirrors) {
        qsort(x->mirrors, x->n_mirrors, sizeof *x->mirrors, compare_mirrors);
    }
    for (int p = 0; p < HOST_N_PROTOCOLS; p++) {
        const struct model_exporter *e = find_exporter(m, p, host);

        if (e) {
            set_exporter(&x->exporters[p], e, host);
        }
    }
    set_bond(&x->bond, host);
    if (x->exporters[HOST_NETFLOW].targets.n || x->exporters[HOST_IPFIX].targets.n) {
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

    if (!ovs_list_is_empty(&m->changed[REC_MIRROR]) || !ovs_list_is_empty(&m->changed[REC_BOND]) ||
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

static void
check_mirror(struct model *m, struct model_mirror *mirror)
{
    struct model_vif **vifs;
    char why[MIRROR_WHY];
    size_t n;

    vifs = model_mirror_vifs(m, mirror, &n);
    model_set_error(m, &mirror->obj,
                    is_apart(mirror, vifs, n, why) || is_partial(mirror, vifs, n, why) ? why
                                                                                       : NULL);
    free(vifs);
}

void
fleet_extra_errors(struct model *m)
{
    struct model_obj *obj;
    char why[200];

    MODEL_FOR_EACH (obj, m, REC_BOND) {
        const struct model_bond *bond = model_bond(obj);
        bool used = obj->live && !strcmp(bond->port, bond->host->uplink);

        snprintf(why, sizeof why, "port: is not in use: the uplink of host \"%.60s\" is \"%.60s\"",
                 obj->live ? bond->host->obj.name : "", obj->live ? bond->host->uplink : "");
        model_set_error(m, obj, obj->live && !used ? why : NULL);
    }

    MODEL_FOR_EACH (obj, m, REC_MIRROR) {
        if (obj->live) {
            check_mirror(m, model_mirror(obj));
        }
    }
}

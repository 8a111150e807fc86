/* Exporters of some networks' packets: from the model to what each host should have.
 *
 * The switch tells a packet's network by the port that it came in at, and its tag
 * there: of a vif's port that is the vif's, of the uplink and of tunnels it is said
 * in host_port_keys.  Only a datapath that counts packets where they come in can do
 * that; on another host nothing is exported, and the exporter's error says so.
 *
 * Threads: none of this locks. */
#include <config.h>

#include "host_extra.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "host_priv.h"
#include "model.h"
#include "util.h"

#define WHY 400

bool
fleet_scope_can(const char *switch_type, const char *datapath_type)
{
    return !strcmp(switch_type, "weft") && strcmp(datapath_type, "netdev") &&
           strcmp(datapath_type, "system");
}

static bool
is_for(const struct model_exporter *e, const struct model_host *host)
{
    return e->obj.live && e->scoped && (!e->host || e->host == host);
}

/* Which of the uplink (0) and the tunnels a network's packets come in at, and with what. */
static void
add_tag(struct svec tags[1 + HOST_N_TUNNELS], const struct model_network *network)
{
    bool vlan = network->type == MODEL_VLAN;

    svec_add_nocopy(
        &tags[vlan ? 0 : 1 + (int)network->encap],
        xasprintf("%" PRIu32 "=%" PRIu32, vlan ? network->tag : network->vni, network->obj.key));
}

static void
add_scope(struct host_extra *x, const struct model_exporter *e, const struct model_host *host,
          struct svec tags[1 + HOST_N_TUNNELS])
{
    struct svec keys = SVEC_EMPTY_INITIALIZER;
    struct model_network **networks;
    struct host_scope *scope;
    size_t n;

    networks = model_exporter_networks(e, &n);
    for (size_t i = 0; i < n; i++) {
        svec_add_nocopy(&keys, xasprintf("%" PRIu32, networks[i]->obj.key));
        add_tag(tags, networks[i]);
        fleet_add_tenant(x, networks[i]);
    }
    free(networks);
    svec_sort_unique(&keys);
    x->scopes = xrealloc(x->scopes, (x->n_scopes + 1) * sizeof *x->scopes);
    scope = &x->scopes[x->n_scopes++];
    memset(scope, 0, sizeof *scope);
    scope->key = e->obj.key;
    scope->networks = svec_join(&keys, " ", "");
    fleet_set_exporter(&scope->exporter, e, host);
    svec_destroy(&keys);
}

static int
compare_scopes(const void *a_, const void *b_)
{
    const struct host_scope *a = a_, *b = b_;

    return a->key < b->key ? -1 : a->key > b->key;
}

void
fleet_scopes(const struct model *m, struct host_extra *x, const struct model_host *host)
{
    const char *const ports[] = {x->bond.port ? HOST_DB_BOND_PORT : host->uplink, "weft-vxlan",
                                 "weft-geneve", "weft-gre"};
    struct svec tags[ARRAY_SIZE(ports)];
    const struct model_obj *obj;

    BUILD_ASSERT_DECL(ARRAY_SIZE(ports) == 1 + HOST_N_TUNNELS);
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
        svec_init(&tags[i]);
    }
    MODEL_FOR_EACH (obj, m, REC_EXPORTER) {
        if (is_for(model_exporter(obj), host)) {
            add_scope(x, model_exporter(obj), host, tags);
        }
    }
    if (x->n_scopes) {
        qsort(x->scopes, x->n_scopes, sizeof *x->scopes, compare_scopes);
    }
    x->keys = xmalloc(ARRAY_SIZE(ports) * sizeof *x->keys);
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        svec_sort_unique(&tags[i]);
        if (tags[i].n) {
            x->keys[x->n_keys++] =
                (struct host_port_keys){xstrdup(ports[i]), 0, 0, svec_join(&tags[i], " ", "")};
        }
        svec_destroy(&tags[i]);
    }
}

static void
check_exporter(struct model *m, struct model_exporter *e)
{
    const struct model_host *unable = NULL;
    const struct model_obj *obj;
    char why[WHY] = "";
    size_t n = 0;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct model_host *host = model_host(obj);
        const struct model_host_status *s = &host->status;

        if (obj->live && host->enabled && is_for(e, host) && s->switch_type[0] &&
            !fleet_scope_can(s->switch_type, s->datapath_type)) {
            unable = unable && unable->obj.key < obj->key ? unable : host;
            n++;
        }
    }
    if (unable) {
        snprintf(why, sizeof why,
                 "networks: nothing is exported on host \"%.120s\", whose datapath cannot tell "
                 "networks apart (hosts like that: %" PRIuSIZE "): run weft-vswitchd with "
                 "datapath_type weft there, or give it an exporter without networks",
                 unable->obj.name, n);
    }
    model_set_error(m, &e->obj, why[0] ? why : NULL);
}

void
fleet_scope_errors(struct model *m)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_EXPORTER) {
        if (obj->live) {
            check_exporter(m, model_exporter(obj));
        } else {
            model_set_error(m, obj, NULL);
        }
    }
}

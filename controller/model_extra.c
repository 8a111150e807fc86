/* What follows for vifs from limits and mirrors, and for networks from exporters. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "model_impl.h"
#include "util.h"

/* The limit of the narrowest scope that states one, with that scope's burst. */
static struct model_limit
find_limit(const struct model *m, const struct model_vif *vif, enum model_way way)
{
    const struct model_rates *scopes[] = {&vif->rates, &vif->vm->rates, &vif->network->rates,
                                          &m->rates};

    for (size_t i = 0; i < ARRAY_SIZE(scopes); i++) {
        uint32_t kbps = way == MODEL_IN ? scopes[i]->in : scopes[i]->out;

        if (kbps == REC_RATE_LIFTED) {
            break;
        } else if (kbps) {
            return (struct model_limit){kbps, scopes[i]->burst};
        }
    }
    return (struct model_limit){0, 0};
}

void
model_derive_limits(struct model *m, struct model_vif *vif)
{
    for (enum model_way way = MODEL_IN; way <= MODEL_OUT; way++) {
        struct model_limit limit = find_limit(m, vif, way);

        if (memcmp(&limit, &vif->limit[way], sizeof limit)) {
            vif->limit[way] = limit;
            model_mark(m, &vif->obj, MODEL_CFG);
        }
    }
}

static int
compare_keys(const void *a_, const void *b_)
{
    const struct model_vif *a = *(struct model_vif *const *)a_;
    const struct model_vif *b = *(struct model_vif *const *)b_;

    return a->obj.key < b->obj.key ? -1 : a->obj.key > b->obj.key;
}

static void
add_vif(struct model_vif ***vifs, size_t *n, size_t *cap, struct model_obj *vif)
{
    if (*n == *cap) {
        *vifs = x2nrealloc(*vifs, cap, sizeof **vifs);
    }
    (*vifs)[(*n)++] = model_vif(vif);
}

struct model_vif **
model_mirror_vifs(const struct model *m, const struct model_mirror *mirror, size_t *n)
{
    struct model_vif **vifs = NULL;
    const struct model_ref *ref, *in_net;
    size_t cap = 0, unique = 0;

    *n = 0;
    LIST_FOR_EACH (ref, from_node, &mirror->obj.refs_out) {
        if (ref->to && ref->field == FIELD_MIRROR_VIF) {
            add_vif(&vifs, n, &cap, ref->to);
        } else if (ref->to && ref->field == FIELD_MIRROR_NETWORK) {
            MODEL_FOR_EACH_REF (in_net, &model_network(ref->to)->vifs) {
                add_vif(&vifs, n, &cap, in_net->from);
            }
        }
    }
    if (*n) {
        qsort(vifs, *n, sizeof *vifs, compare_keys);
    }
    for (size_t i = 0; i < *n; i++) {
        if (!unique || vifs[unique - 1] != vifs[i]) {
            vifs[unique++] = vifs[i];
        }
    }
    *n = unique;
    return vifs;
}

struct model_network **
model_exporter_networks(const struct model_exporter *e, size_t *n)
{
    struct model_network **networks =
        xmalloc((ovs_list_size(&e->obj.refs_out) + 1) * sizeof *networks);
    const struct model_ref *ref;

    *n = 0;
    LIST_FOR_EACH (ref, from_node, &e->obj.refs_out) {
        if (ref->to && ref->to->live && ref->field == FIELD_EXPORTER_NETWORK) {
            networks[(*n)++] = model_network(ref->to);
        }
    }
    return networks;
}

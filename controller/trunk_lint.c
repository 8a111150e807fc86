#include <config.h>

#include "trunk_lint.h"

#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "trunk_move.h"
#include "util.h"

struct trunk {
    size_t n_locked, n_addresses;        /* of those that may have connections */
    const struct model_vif *an_unlocked; /* the first by name, or NULL */
};

static void
count(struct trunk *t, const struct model_vif *vif)
{
    bool locked = vif->locking == MODEL_LOCKED;

    if (vif->locking == MODEL_DISABLED) {
        return;
    }
    t->n_locked += locked;
    t->n_addresses += locked ? vif->ipv4_allowed.n + vif->ipv6_allowed.n : vif->addresses.n;
    if (!locked && (!t->an_unlocked || strcmp(vif->obj.name, t->an_unlocked->obj.name) < 0)) {
        t->an_unlocked = vif;
    }
}

static const char *
lead(const struct ds *ds)
{
    return ds->length ? "; " : "trunk: when the VM moves, ";
}

char *
trunk_lint(const struct model_vif *vif)
{
    struct trunk t = {.n_locked = 0};
    struct ds ds = DS_EMPTY_INITIALIZER;
    const struct model_ref *ref;
    size_t n_children = 0;

    MODEL_FOR_EACH_REF (ref, &vif->children) {
        if (ref->from->live) {
            count(&t, model_vif(ref->from));
            n_children++;
        }
    }
    if (!n_children) {
        return NULL;
    }
    count(&t, vif);
    if (t.n_locked && t.an_unlocked) {
        ds_put_format(&ds,
                      "%sthose of its vifs that are not locked (\"%.120s\" is one of them) take "
                      "connections of their stated addresses along and no others, since some are",
                      lead(&ds), t.an_unlocked->obj.name);
    }
    if (n_children > TRUNK_MOVE_CHILDREN) {
        ds_put_format(&ds, "%sonly %d of the %" PRIuSIZE " vifs in it take connections along",
                      lead(&ds), TRUNK_MOVE_CHILDREN, n_children);
    }
    if (t.n_locked && t.n_addresses > TRUNK_MOVE_ADDRESSES) {
        ds_put_format(&ds, "%sonly %d of its %" PRIuSIZE " addresses take connections along",
                      lead(&ds), TRUNK_MOVE_ADDRESSES, t.n_addresses);
    }
    return ds.length ? ds_steal_cstr(&ds) : NULL;
}

void
trunk_lint_all(struct model *m)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_VIF) {
        char *warning = obj->live ? trunk_lint(model_vif(obj)) : NULL;

        model_set_warning(m, obj, warning);
        free(warning);
    }
}

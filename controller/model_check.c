/* Deciding what is live.
 *
 * What is in error is left out, and what names it, too: nobody gets more than
 * was stated.  For a deny rule that is the wrong way around.  So a deny rule in
 * error stays live, SICK, and speaks of everybody if its remote group is, and of
 * all services if its record is.  So do, for deny rules alone, its policy and
 * the groups that are its policy's scope: a group holds what of it there is. */
#include <config.h>

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "model_impl.h"
#include "util.h"

/* Whether 'a' has what both claim: keys are given in order of age. */
static bool
older(const struct model_obj *a, const struct model_obj *b)
{
    if (a->key != b->key) {
        return a->key && (!b->key || a->key < b->key);
    }
    return uuid_compare_3way(&a->uuid, &b->uuid) < 0;
}

static enum model_state wrong(char **why, const char *field, const char *format, ...)
    OVS_PRINTF_FORMAT(3, 4);

static enum model_state
wrong(char **why, const char *field, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = xvasprintf(format, args);
    va_end(args);
    *why = xasprintf("%s: %s", field, text);
    free(text);
    return WRONG;
}

static enum model_state
check_claims(const struct model *m, struct model_obj *obj, char **why)
{
    struct model_claim *mine, *other;

    if (!m->n_contested) {
        return GOOD; /* in a cold start each claim would be a cache miss */
    }
    LIST_FOR_EACH (mine, obj_node, &obj->claims) {
        LIST_FOR_EACH (other, set_node, &mine->set->claims) {
            if (other->obj != obj && older(other->obj, obj)) {
                if (obj->kind == REC_HOST && !strcmp(mine->field, "openflow")) {
                    /* Which perhaps nobody has stated. */
                    return wrong(why, mine->field, "host \"%s\" has the same one, %s",
                                 other->obj->name, model_host(obj)->openflow);
                }
                return wrong(why, mine->field, "%s \"%s\" has the same one",
                             rec_tables[other->obj->kind].noun, other->obj->name);
            }
        }
    }
    return GOOD;
}

static enum model_state
check_refs(struct model *m, struct model_obj *obj, char **why)
{
    enum model_state state = GOOD;
    struct model_ref *ref;

    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        const char *field = model_field_name(ref->field);
        const char *noun = rec_tables[model_field_of(ref->field)->ref].noun;
        const struct model_obj *to = model_ref_any(ref);

        if (!to) {
            return wrong(why, field, "names a %s that is not there, " UUID_FMT, noun,
                         UUID_ARGS(&ref->want->uuid));
        }
        if (!to->present) {
            return wrong(why, field, "names %s \"%s\", which is not there any more", noun,
                         to->name);
        }
        if ((to->live && to->state != SICK) || model_fields[ref->field].member) {
            continue;
        }
        if (to->state == WRONG || to->state == SICK) {
            return wrong(why, field, "names %s \"%s\", which is in error", noun, to->name);
        }
        state = WAITS;
    }
    return state;
}

static struct model_obj *
target_of(const struct model_obj *obj, enum model_field field)
{
    struct model_ref *ref;

    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        if (ref->field == field) {
            return model_ref_live(ref);
        }
    }
    return NULL;
}

static struct model_obj *
tenant_of(const struct model_obj *obj)
{
    switch (obj->kind) {
    case REC_NETWORK:
        return target_of(obj, FIELD_NETWORK_TENANT);
    case REC_VM:
        return target_of(obj, FIELD_VM_TENANT);
    case REC_GROUP:
        return target_of(obj, FIELD_GROUP_TENANT);
    case REC_VIF:
        obj = target_of(obj, FIELD_VIF_VM);
        return obj ? tenant_of(obj) : NULL;
    default:
        return NULL;
    }
}

static const char *
tenant_name(const struct model_obj *tenant)
{
    return tenant ? tenant->name : "";
}

/* What the object names in the field, live or not. */
static struct model_obj *
named_by(const struct model_obj *obj, enum model_field field)
{
    struct model_ref *ref;

    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        if (ref->field == field) {
            struct model_obj *to = model_ref_any(ref);

            return to && to->present ? to : NULL;
        }
    }
    return NULL;
}

/* Before its references, for of a loop of parents each would wait for the other. */
static enum model_state
check_parent(struct model *m, struct model_obj *obj, char **why)
{
    struct model_obj *parent = obj->kind == REC_VIF ? named_by(obj, FIELD_VIF_PARENT) : NULL;

    if (parent && named_by(parent, FIELD_VIF_PARENT)) {
        return wrong(why, "parent", "vif \"%s\" has a parent itself", parent->name);
    }
    return GOOD;
}

static enum model_state
check_vif(struct model *m, struct model_obj *obj, char **why)
{
    struct model_obj *network = target_of(obj, FIELD_VIF_NETWORK);
    struct model_obj *owner = tenant_of(network), *tenant = tenant_of(obj);
    struct model_obj *parent = target_of(obj, FIELD_VIF_PARENT);

    if (parent && target_of(parent, FIELD_VIF_VM) != target_of(obj, FIELD_VIF_VM)) {
        return wrong(why, "parent", "vif \"%s\" is another VM's", parent->name);
    }
    if (parent && target_of(parent, FIELD_VIF_NETWORK) == network) {
        return wrong(why, "network", "is that of the parent, vif \"%s\"", parent->name);
    }

    if (owner && owner != tenant) {
        return wrong(why, "network", "network \"%s\" is tenant \"%s\"'s, the VM is \"%s\"'s",
                     network->name, owner->name, tenant_name(tenant));
    }
    return GOOD;
}

bool
model_may_hold(struct model *m, struct model_obj *group, struct model_obj *member)
{
    struct model_obj *owner = tenant_of(group), *tenant = tenant_of(member);

    return !owner || owner == tenant || (member->kind == REC_GROUP && !tenant);
}

static enum model_state
check_group(struct model *m, struct model_obj *obj, char **why)
{
    struct model_ref *ref;

    if (!tenant_of(obj)) {
        return GOOD;
    }
    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        struct model_obj *to = model_ref_live(ref);

        if (to && ref->field != FIELD_GROUP_TENANT && !model_may_hold(m, obj, to)) {
            return wrong(why, model_field_name(ref->field), "%s \"%s\" is of another tenant",
                         rec_tables[to->kind].noun, to->name);
        }
    }
    return GOOD;
}

/* What a mirror sends out it must not take in again. */
static enum model_state
check_mirror(struct model *m, struct model_obj *obj, char **why)
{
    struct model_obj *output = target_of(obj, FIELD_MIRROR_OUTPUT_VIF);
    struct model_obj *network = output ? target_of(output, FIELD_VIF_NETWORK) : NULL;
    struct model_ref *ref;

    if (output && (model_vif(output)->tag || !ovs_list_is_empty(&model_vif(output)->children))) {
        return wrong(why, "output_vif", "vif \"%s\" is of a trunk", output->name);
    }
    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        const struct uuid *to = &ref->want->uuid;

        if (output && ref->field == FIELD_MIRROR_VIF && uuid_equals(to, &output->uuid)) {
            return wrong(why, "output_vif", "vif \"%s\" is one of those that are mirrored",
                         output->name);
        }
        if (network && ref->field == FIELD_MIRROR_NETWORK && uuid_equals(to, &network->uuid)) {
            return wrong(why, "output_vif", "vif \"%s\" is in network \"%s\", which is mirrored",
                         output->name, network->name);
        }
    }
    return GOOD;
}

/* A loop comes first: its members would blame each other. */
static enum model_state
check_loop(struct model *m, struct model_obj *obj, char **why)
{
    struct model_group *via;

    if (obj->kind == REC_GROUP && model_group_loops(m, model_group(obj), &via)) {
        return wrong(why, "groups", "is in itself, by way of group \"%s\"", via->obj.name);
    }
    return GOOD;
}

/* As far as it goes by itself. */
static enum model_state
examine(struct model *m, struct model_obj *obj, char **why)
{
    enum model_state state = GOOD;

    if (!obj->present) {
        return WAITS;
    }
    if (obj->fault) {
        *why = xstrdup(obj->fault);
        return WRONG;
    }
    state = check_claims(m, obj, why);
    if (state == GOOD) {
        state = check_loop(m, obj, why);
    }
    if (state == GOOD) {
        state = check_parent(m, obj, why);
    }
    if (state == GOOD) {
        state = check_refs(m, obj, why);
    }
    if (state == GOOD && obj->kind == REC_VIF) {
        state = check_vif(m, obj, why);
    } else if (state == GOOD && obj->kind == REC_GROUP) {
        state = check_group(m, obj, why);
    } else if (state == GOOD && obj->kind == REC_MIRROR) {
        state = check_mirror(m, obj, why);
    }
    if (state == GOOD &&
        (!obj->key || !obj->enabled || (obj->kind == REC_NETWORK && !model_network(obj)->zone))) {
        state = WAITS;
    }
    return state;
}

static bool
has_its_key(const struct model_obj *obj)
{
    struct model_claim *mine, *other;

    LIST_FOR_EACH (mine, obj_node, &obj->claims) {
        LIST_FOR_EACH (other, set_node, &mine->set->claims) {
            if (!strcmp(mine->field, "key") && other->obj != obj && older(other->obj, obj)) {
                return false;
            }
        }
    }
    return obj->key != 0;
}

/* Whether 'obj', which is wrong, is to be gone by where something is denied. */
static bool
denies_still(const struct model_obj *obj)
{
    struct model_ref *ref;

    if ((obj->kind != REC_GROUP && obj->kind != REC_POLICY &&
         (obj->kind != REC_RULE || model_rule(obj)->action != MODEL_DENY)) ||
        !obj->enabled || !has_its_key(obj) || (obj->fault && !obj->widened)) {
        return false;
    }
    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        if (ref->field != FIELD_RULE_REMOTE_GROUP && ref->field != FIELD_GROUP_GROUP &&
            !model_fields[ref->field].member && !model_ref_live(ref)) {
            return false;
        }
    }
    return true;
}

enum model_state
model_check(struct model *m, struct model_obj *obj, char **why)
{
    enum model_state state = examine(m, obj, why);

    if (state != WRONG || !denies_still(obj)) {
        return state;
    }
    if (obj->kind == REC_RULE) {
        char *text =
            xasprintf("%s; until that is corrected, all that the rule could mean is denied", *why);

        free(*why);
        *why = text;
    }
    return SICK;
}

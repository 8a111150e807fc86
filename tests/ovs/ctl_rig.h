/* ctl_rig: a model fed by hand, for tests of it.
 *
 * Objects have uuids and keys made of their kind and a number: obj(REC_VIF, 1) is
 * "vif1". */
#ifndef CTL_RIG_H
#define CTL_RIG_H

#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "packets.h"
#include "util.h"
#include "uuid.h"

static struct model *m;

/* --- stating objects ---------------------------------------------------------------- */

static inline struct uuid
id(enum rec_kind kind, unsigned n)
{
    return (struct uuid){.parts = {0xabc, kind, 0, n}};
}

static inline const char *
ref(enum rec_kind kind, unsigned n)
{
    static char text[8][UUID_LEN + 1];
    static unsigned at;
    struct uuid uuid = id(kind, n);

    at = (at + 1) % 8;
    snprintf(text[at], sizeof text[at], UUID_FMT, UUID_ARGS(&uuid));
    return text[at];
}

static inline struct rec *
new_rec(enum rec_kind kind, unsigned n)
{
    static struct rec r;

    rec_destroy(&r);
    rec_init(&r, kind);
    free(r.name);
    r.name = xasprintf("%s%u", rec_tables[kind].noun, n);
    r.key = kind * 100 + n;
    return &r;
}

static inline void
put(const struct rec *r)
{
    struct uuid uuid = id(r->kind, r->key % 100);

    model_put(m, &uuid, r);
}

static inline void
take(enum rec_kind kind, unsigned n)
{
    struct uuid uuid = id(kind, n);

    model_remove(m, kind, &uuid);
    model_settle(m);
}

static inline struct model_obj *
obj(enum rec_kind kind, unsigned n)
{
    struct uuid uuid = id(kind, n);

    return model_by_uuid(m, kind, &uuid);
}

static inline struct model_obj *
any(enum rec_kind kind, unsigned n)
{
    struct uuid uuid = id(kind, n);

    return model_any_by_uuid(m, kind, &uuid);
}

/* In error, and live for deny rules. */
static inline bool
sick(enum rec_kind kind, unsigned n, const char *what)
{
    struct model_obj *o = any(kind, n);

    return o && o->live && o->error && strstr(o->error, what);
}

static inline bool
says(enum rec_kind kind, unsigned n, const char *what)
{
    struct model_obj *o = any(kind, n);

    return o && !o->live && o->error && strstr(o->error, what);
}

static inline void
network(unsigned n, unsigned tag, const char *tenant)
{
    struct rec *r = new_rec(REC_NETWORK, n);

    rec_set_string(r, REC_NETWORK_TYPE, "vlan");
    rec_set_int(r, REC_NETWORK_TAG, tag);
    rec_set_string(r, REC_NETWORK_TENANT, tenant);
    r->zone = n;
    put(r);
}

static inline void
host(unsigned n)
{
    struct rec *r = new_rec(REC_HOST, n);

    rec_set_string(r, REC_HOST_OVSDB, "unix:/run/x");
    put(r);
}

static inline void
vm(unsigned n, const char *tenant)
{
    struct rec *r = new_rec(REC_VM, n);

    rec_set_string(r, REC_VM_TENANT, tenant);
    put(r);
}

static inline struct rec *
vif_rec(unsigned n, unsigned vm_n, unsigned net, unsigned mac)
{
    struct rec *r = new_rec(REC_VIF, n);
    char text[32];

    snprintf(text, sizeof text, "02:00:00:00:00:%02x", mac);
    rec_set_string(r, REC_VIF_VM, ref(REC_VM, vm_n));
    rec_set_string(r, REC_VIF_NETWORK, ref(REC_NETWORK, net));
    rec_set_string(r, REC_VIF_MAC, text);
    snprintf(text, sizeof text, "10.0.0.%u", n);
    rec_add(r, REC_VIF_ADDRESSES, text);
    return r;
}

static inline void
vif(unsigned n, unsigned vm_n, unsigned net, unsigned mac)
{
    put(vif_rec(n, vm_n, net, mac));
}

static inline struct rec *
rule_rec(unsigned n, unsigned policy, unsigned order, const char *action)
{
    struct rec *r = new_rec(REC_RULE, n);

    rec_set_string(r, REC_RULE_POLICY, ref(REC_POLICY, policy));
    rec_set_int(r, REC_RULE_ORDER, order);
    rec_set_string(r, REC_RULE_DIRECTION, "in");
    rec_set_string(r, REC_RULE_ACTION, action);
    return r;
}

static inline struct rec *
policy_rec(unsigned n, const char *scope)
{
    struct rec *r = new_rec(REC_POLICY, n);

    rec_set_string(r, REC_POLICY_SCOPE, scope);
    return r;
}

/* A tenant, two networks, two hosts, two VMs with two vifs. */
static inline void
begin(void)
{
    m = model_create();
    put(new_rec(REC_TENANT, 1));
    put(new_rec(REC_TENANT, 2));
    host(1);
    host(2);
    network(1, 10, "");
    network(2, 20, "");
    vm(1, ref(REC_TENANT, 1));
    vm(2, "");
    vif(1, 1, 1, 1);
    vif(2, 2, 1, 2);
    model_settle(m);
    model_changes_clear(m);
}

static inline void
end(void)
{
    model_destroy(m);
}

/* Whether exactly these bits of the object changed; clears nothing. */
static inline bool
changed(const struct model_obj *o, unsigned bits)
{
    return o && o->change == bits;
}

static inline size_t
n_changed(void)
{
    size_t n = 0;

    for (int k = 0; k < REC_N_KINDS; k++) {
        n += ovs_list_size(&m->changed[k]);
    }
    return n;
}

static inline void
group(unsigned n, const char *cidr, const char *const *vifs, const char *const *vms,
      const char *const *groups)
{
    struct rec *r = new_rec(REC_GROUP, n);

    if (cidr) {
        rec_add(r, REC_GROUP_ADDRESSES, cidr);
    }
    for (; vifs && *vifs; vifs++) {
        rec_add(r, REC_GROUP_VIFS, *vifs);
    }
    for (; vms && *vms; vms++) {
        rec_add(r, REC_GROUP_VMS, *vms);
    }
    for (; groups && *groups; groups++) {
        rec_add(r, REC_GROUP_GROUPS, *groups);
    }
    rec_normalize(r);
    put(r);
    model_settle(m);
}

#define LIST(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

#endif

/* The job that a weft-migrate is given, of what the rows say. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "trunk_move.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_job);

enum { VIF_ZONES_MAX = 9 };

static void
put(struct json *o, const char *name, const char *value)
{
    if (value && *value) {
        json_object_put_string(o, name, value);
    }
}

static void
add_addresses(struct json *to, size_t *room, char **addresses, size_t n)
{
    for (size_t i = 0; i < n && *room; i++, --*room) {
        value_add(to, addresses[i]);
    }
}

/* What tells a vif's connections: its zone, and its addresses.  True: it may use
 * others as well. */
static bool
add_scope(const struct poolrec_vif *vif, struct json *zones, struct json *addresses, size_t *room)
{
    bool locked = !strcmp(vif->locking_mode, "locked");

    if (vif->network && vif->network->zone && json_array(zones)->n < VIF_ZONES_MAX) {
        json_array_add(zones, json_integer_create(vif->network->zone));
    }
    if (locked) {
        add_addresses(addresses, room, vif->ipv4_allowed, vif->n_ipv4_allowed);
        add_addresses(addresses, room, vif->ipv6_allowed, vif->n_ipv6_allowed);
    } else {
        add_addresses(addresses, room, vif->addresses, vif->n_addresses);
    }
    return !locked;
}

/* The vifs in its trunk; 'any_address' becomes false if one of them is locked.  Their addresses are
 * their networks', where they are announced with the tag. */
static struct json *
children_json(struct agent *a, const struct poolrec_vif *parent, struct json *zones, size_t *room,
              bool *any_address)
{
    struct json *list = json_array_create_empty();
    const struct poolrec_vif *vif;

    POOLREC_VIF_FOR_EACH(vif, store_idl(a->x->store))
    {
        if (vif->parent == parent && vif->n_tag && json_array(list)->n < TRUNK_MOVE_CHILDREN) {
            struct json *o = json_object_create(), *addresses = json_array_create_empty();

            *any_address &= add_scope(vif, zones, addresses, room);
            json_object_put(o, "pool_key", json_integer_create(vif->pool_key));
            json_object_put(o, "tag", json_integer_create(*vif->tag));
            put(o, "mac", vif->mac);
            json_object_put(o, "addresses", addresses);
            json_array_add(list, o);
        }
    }
    return list;
}

static size_t
count_addresses(const struct poolrec_vif *vif, bool *locked)
{
    *locked = !strcmp(vif->locking_mode, "locked");
    return *locked ? vif->n_ipv4_allowed + vif->n_ipv6_allowed : vif->n_addresses;
}

/* Of connections that the job has no room to name, or that cannot be told from
 * others: they are left behind, and made anew where the VM is.  The controller says
 * so before, in the vif's warning. */
static void
warn_left_behind(struct agent *a, const struct poolrec_vif *parent)
{
    const struct poolrec_vif *vif;
    size_t n = 1, n_locked, n_addresses;
    bool locked;

    n_addresses = count_addresses(parent, &locked);
    n_locked = locked;
    POOLREC_VIF_FOR_EACH(vif, store_idl(a->x->store))
    {
        if (vif->parent == parent && vif->n_tag) {
            n++;
            n_addresses += count_addresses(vif, &locked);
            n_locked += locked;
        }
    }
    if (n > TRUNK_MOVE_CHILDREN + 1) {
        VLOG_WARN("vif \"%s\": of the %" PRIuSIZE
                  " in its trunk only %d take their connections along",
                  parent->name, n - 1, TRUNK_MOVE_CHILDREN);
    }
    if (n_addresses > TRUNK_MOVE_ADDRESSES && n_locked) {
        VLOG_WARN("vif \"%s\": of the %" PRIuSIZE " addresses, its trunk's included, only %d take "
                  "their connections along",
                  parent->name, n_addresses, TRUNK_MOVE_ADDRESSES);
    }
    if (n_locked && n_locked < n) {
        VLOG_WARN("vif \"%s\": %" PRIuSIZE " of the %" PRIuSIZE
                  " at its port are locked: the others "
                  "take connections of their stated addresses along, and no more",
                  parent->name, n_locked, n);
    }
}

static struct json *
vif_json(struct agent *a, const struct poolrec_vif *vif, const char *vm)
{
    struct json *o = json_object_create(), *zones = json_array_create_empty();
    struct json *addresses = json_array_create_empty(), *children;
    size_t room = TRUNK_MOVE_ADDRESSES;
    char *port = guest_driver(vif->vm)->port(a, vm, vif->device);
    bool any_address;

    put(o, "uuid", store_uuid(&vif->header_.uuid));
    put(o, "mac", vif->mac);
    put(o, "port", port);
    put(o, "switch_dir", a->x->options->switch_dir);
    any_address = add_scope(vif, zones, addresses, &room);
    children = children_json(a, vif, zones, &room, &any_address);
    json_object_put(o, "pool_key", json_integer_create(vif->pool_key));
    json_object_put(o, "any_address", json_boolean_create(any_address));
    if (json_array(children)->n) {
        json_object_put(o, "trunk", json_boolean_create(true));
        json_object_put(o, "children", children);
    } else {
        json_destroy(children);
    }
    json_object_put(o, "zones", zones);
    json_object_put(o, "addresses", addresses);
    free(port);
    return o;
}

static struct json *
vifs_json(struct agent *a, const struct poolrec_vm *vm)
{
    struct json *list = json_array_create_empty();
    const struct poolrec_vif *vif;

    POOLREC_VIF_FOR_EACH(vif, store_idl(a->x->store))
    {
        if (vif->vm == vm && !vif->parent && a->x->options->switch_dir) {
            warn_left_behind(a, vif);
            json_array_add(list, vif_json(a, vif, store_uuid(&vm->header_.uuid)));
        }
    }
    return list;
}

/* Numbers that a client stated, as options of weft-migrate. */
static void
put_options(struct json *job, const struct json *options)
{
    static const char *const numbers[] = {"limit_mbps", "cpu_percent", "max_blackout_ms",
                                          "max_rounds", "connections"};
    const char *compress = value_map(options, "compress", "auto");
    long long int n;

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (str_to_llong(value_map(options, numbers[i], ""), 10, &n)) {
            json_object_put(job, numbers[i], json_integer_create(n));
        }
    }
    put(job, "compress",
        !strcmp(compress, "true") || !*compress ? "auto"
        : !strcmp(compress, "false")            ? "none"
                                                : compress);
    if (!strcmp(value_map(options, "postcopy", "false"), "true")) {
        json_object_put(job, "postcopy", json_boolean_create(true));
    }
    if (!strcmp(value_map(options, "live", "true"), "false")) {
        json_object_put(job, "offline", json_boolean_create(true));
    }
}

static void
put_tls(const struct xapi_options *o, struct json *job, const char *peer)
{
    struct json *tls;

    if (o->plain_migration) {
        json_object_put(job, "plain", json_boolean_create(true));
        return;
    }
    tls = json_object_create();
    put(tls, "private_key", o->stream_key);
    put(tls, "certificate", o->stream_certificate);
    put(tls, "ca_cert", o->stream_ca_cert);
    put(tls, "peer_name", peer);
    json_object_put(job, "tls", tls);
}

char *
migration_job(struct agent *a, const struct poolrec_migration *m, const struct poolrec_vm *vm,
              const char *role)
{
    const struct xapi_options *o = a->x->options;
    bool source = agent_is(a, m->from_host);
    struct json *job = json_object_create(), *driver = json_object_create();
    struct json *options = json_from_string(m->options);
    const struct guest_driver *d = guest_driver(vm);
    char *mine = xasprintf("%s-%s", source ? "send" : "recv", m->migration);
    char *journal = proc_path(a->procs, mine, "journal"), *text;

    put(job, "role", role);
    put(job, "driver", vm->driver);
    put(job, "migration", m->migration);
    put(job, "vm", m->vm);
    put(job, "vm_name", strlen(vm->name) < 256 ? vm->name : m->vm);
    put(job, "from", m->from_host);
    put(job, "to", m->to_host);
    json_object_put(job, "epoch", json_integer_create(m->epoch));
    put(job, "database", o->db);
    put(job, "private_key", o->private_key);
    put(job, "certificate", o->certificate);
    put(job, "ca_cert", o->ca_cert);
    if (source) {
        put(job, "connect", m->address);
    } else if (*m->address) { /* once announced it stays */
        put(job, "listen", m->address);
    } else {
        json_object_put_format(job, "listen", strchr(o->migration_address, ':') ? "[%s]:0" : "%s:0",
                               o->migration_address);
    }
    put_tls(o, job, source ? m->to_host : m->from_host);
    put_options(job, options);
    put(job, "journal", journal);
    json_object_put(job, "vifs", vifs_json(a, vm));
    if (d->describe) {
        d->describe(a, m->vm, driver);
    }
    json_object_put(job, vm->driver, driver);
    text = json_to_string(job, 0);
    json_destroy(job);
    json_destroy(options);
    free(journal);
    free(mine);
    return text;
}

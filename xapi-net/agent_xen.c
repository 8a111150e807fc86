/* Xen's domains: each is made and watched by a weft-domain (migrate/main_domain.c),
 * which says what becomes of it.  The domain does not end with that process: one
 * that was killed is followed by another, which finds the domain or that there is
 * none.  A domain that came by a migration is watched once its row is here. */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "openvswitch/json.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "util.h"

enum { MEMORY_DEFAULT = 256 << 20, START_MS = 120000, DOMAIN_NAME_MAX = 100 };

#define SCRIPT "vif-weft"

/* --- what its process has said -------------------------------------------------------------- */

/* The last event; destroyed by the caller. */
static struct json *
last_event(struct proc *p)
{
    char line[400] = "";

    if (p) {
        proc_last_line(p, line, sizeof line);
    }
    return json_from_string(line);
}

static bool
is_event(const struct json *o, const char *event)
{
    return !strcmp(value_map(o, "event", ""), event);
}

/* --- the job ---------------------------------------------------------------------------------- */

static void
put(struct json *o, const char *name, const char *value)
{
    if (value && *value) {
        json_object_put_string(o, name, value);
    }
}

/* Xen's tools take numbers for domain ids, and the pool's names may be any text. */
static const char *
domain_name(const struct poolrec_vm *vm)
{
    const char *name = vm->name;
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return isalpha((unsigned char)*name) && !name[n] && n <= DOMAIN_NAME_MAX &&
                   strcmp(name, "Domain-0") && !strstr(name, "--")
               ? name
               : store_uuid(&vm->header_.uuid);
}

static struct json *
vif_job(struct agent *a, const struct poolrec_vif *vif)
{
    struct json *o = json_object_create();

    json_object_put(o, "device", json_integer_create(atoi(vif->device)));
    put(o, "mac", vif->mac);
    put(o, "bridge", a->x->options->bridge);
    put(o, "script", SCRIPT);
    if (vif->network && vif->network->mtu) {
        json_object_put(o, "mtu", json_integer_create(vif->network->mtu));
    }
    return o;
}

/* EINVAL if the row names files that are none of --share. */
static int
put_config(struct agent *a, const struct poolrec_vm *vm, struct json *job)
{
    char *kernel = guest_file(a, smap_get_def(&vm->config, "kernel", "vmlinuz")), *ramdisk = NULL;
    const char *wanted = smap_get_def(&vm->config, "ramdisk", "");
    int64_t bytes = vm->memory_bytes ? vm->memory_bytes : MEMORY_DEFAULT;
    struct json *vifs = json_array_create_empty();
    const struct poolrec_vif *vif;

    if (*wanted) {
        ramdisk = guest_file(a, wanted);
    }
    put(job, "name", domain_name(vm));
    put(job, "type", smap_get(&vm->config, "type"));
    put(job, "kernel", kernel);
    put(job, "ramdisk", ramdisk);
    put(job, "cmdline", smap_get(&vm->config, "cmdline"));
    put(job, "tsc_mode", smap_get(&vm->config, "tsc_mode"));
    json_object_put(job, "vcpus", json_integer_create(smap_get_int(&vm->config, "vcpus", 1)));
    json_object_put(job, "memory_kb", json_integer_create(bytes >> 10));
    POOLREC_VIF_FOR_EACH(vif, store_idl(a->x->store))
    {
        if (vif->vm == vm && !vif->parent) {
            json_array_add(vifs, vif_job(a, vif));
        }
    }
    json_object_put(job, "vifs", vifs);
    bool good = kernel && (!*wanted || ramdisk);
    free(kernel);
    free(ramdisk);
    return good ? 0 : EINVAL;
}

/* One that only watches must be told what the domain is made of, too: for when the
 * guest reboots. */
static int
run_domain(struct agent *a, const char *uuid, bool start)
{
    const struct poolrec_vm *vm = store_vm(a->x->store, uuid);
    char *program = xasprintf("%s/weft-domain", a->x->options->bin);
    char *name = guest_name(&guest_xen, uuid), *text = NULL;
    struct json *job = json_object_create();
    char *argv[] = {program, NULL};
    int error = access(program, X_OK) ? errno : 0;

    json_object_put(job, "start", json_boolean_create(start));
    put(job, "uuid", uuid);
    if (vm) {
        int wrong = put_config(a, vm, job);

        json_object_put(job, "epoch", json_integer_create(vm->epoch));
        error = error || !start ? error : wrong;
    }
    if (!error) {
        text = json_to_string(job, 0);
        guest_forget(a, &guest_xen, uuid);
        error = proc_start(a->procs, name, argv, text, NULL);
    }
    free(text);
    json_destroy(job);
    free(name);
    free(program);
    return error;
}

/* --- the driver ---------------------------------------------------------------------------------
 */

static int
xen_adopt(struct agent *a, const struct poolrec_vm *vm)
{
    return run_domain(a, store_uuid(&vm->header_.uuid), false);
}

static enum guest_state
xen_state(struct agent *a, const char *vm, char why[200])
{
    struct proc *p = guest_proc(a, &guest_xen, vm);
    enum guest_state state = GUEST_ALIVE;
    struct json *event;

    *why = '\0';
    if (!p) {
        return GUEST_NONE;
    }
    if (proc_alive(p)) {
        return GUEST_ALIVE;
    }
    event = last_event(p);
    if (is_event(event, "ended")) {
        ovs_strlcpy(why, value_map(event, "why", ""), 200);
        state = GUEST_ENDED;
    } else {
        run_domain(a, vm, false); /* killed; if this fails, it is tried again */
    }
    json_destroy(event);
    return state;
}

static int
xen_start(struct agent *a, const struct poolrec_vm *vm)
{
    return run_domain(a, store_uuid(&vm->header_.uuid), true);
}

static bool
xen_ready(struct agent *a, const char *vm)
{
    struct json *event = last_event(guest_proc(a, &guest_xen, vm));
    bool ready = is_event(event, "running");

    json_destroy(event);
    return ready;
}

static void
xen_end(struct agent *a, const char *vm, enum guest_end how)
{
    struct proc *p = guest_proc(a, &guest_xen, vm);

    if (p) {
        proc_tell(p, how == GUEST_CLEAN ? "{\"cmd\":\"shutdown\"}" : "{\"cmd\":\"destroy\"}");
    }
}

/* weft-migrate finds the domain by the VM's uuid, and its number. */
static char *
xen_port(struct agent *a, const char *vm, const char *device)
{
    return xasprintf("vifDOMID.%s", *device ? device : "0");
}

/* Each host's bridge has a name of its own. */
static void
xen_describe(struct agent *a, const char *vm, struct json *job)
{
    put(job, "bridge", a->x->options->bridge);
    put(job, "script", SCRIPT);
}

const struct guest_driver guest_xen = {
    .name = "xen",
    .prefix = "domain-",
    .start_ms = START_MS,
    .state = xen_state,
    .start = xen_start,
    .ready = xen_ready,
    .adopt = xen_adopt,
    .end = xen_end,
    .port = xen_port,
    .describe = xen_describe,
};

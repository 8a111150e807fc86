/* Kinds of guests: the table, and what they have in common. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "openvswitch/vlog.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_guest);

const struct guest_driver *const guest_drivers[] = {&guest_cell, &guest_xen};
const size_t n_guest_drivers = ARRAY_SIZE(guest_drivers);

const struct guest_driver *
guest_driver(const struct poolrec_vm *vm)
{
    for (size_t i = 0; i < n_guest_drivers; i++) {
        if (!strcmp(vm->driver, guest_drivers[i]->name)) {
            return guest_drivers[i];
        }
    }
    return NULL;
}

char *
guest_name(const struct guest_driver *d, const char *vm)
{
    return xasprintf("%s%s", d->prefix, vm);
}

struct proc *
guest_proc(struct agent *a, const struct guest_driver *d, const char *vm)
{
    char *name = guest_name(d, vm);
    struct proc *p = proc_find(a->procs, name);

    free(name);
    return p;
}

void
guest_forget(struct agent *a, const struct guest_driver *d, const char *vm)
{
    struct proc *p = guest_proc(a, d, vm);

    if (p) {
        proc_forget(a->procs, p);
    }
}

enum guest_state
guest_look(struct agent *a, const struct guest_driver *d, const struct poolrec_vm *vm,
           char why[200])
{
    enum guest_state state = d->state(a, store_uuid(&vm->header_.uuid), why);

    if (state != GUEST_NONE || !d->adopt) {
        return state;
    }
    int error = d->adopt(a, vm);
    if (error) {
        static struct vlog_rate_limit limit = VLOG_RATE_LIMIT_INIT(6, 6);

        VLOG_WARN_RL(&limit, "%s: cannot be looked for: %s", vm->name, ovs_strerror(error));
    }
    return GUEST_ALIVE; /* for all we know */
}

char *
guest_file(struct agent *a, const char *name)
{
    return *name && *name != '.' && !strchr(name, '/')
               ? xasprintf("%s/%s", a->x->options->share, name)
               : NULL;
}

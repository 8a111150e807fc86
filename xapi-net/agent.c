#include <config.h>

#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent);

enum { CLEAN_MS = 60000, HARD_MS = 10000, LOOK_MS = 1000, STEP_MS = 100 };

/* --- life ------------------------------------------------------------------------------- */

struct agent *
agent_create(struct xapi *x)
{
    struct agent *a = xzalloc(sizeof *a);

    a->x = x;
    a->procs = procs_create(x->options->run_dir);
    hmap_init(&a->works);
    return a;
}

void
agent_destroy(struct agent *a)
{
    struct work *w;

    if (a) {
        HMAP_FOR_EACH_SAFE (w, node, &a->works) {
            hmap_remove(&a->works, &w->node);
            free(w);
        }
        hmap_destroy(&a->works);
        procs_destroy(a->procs);
        free(a);
    }
}

bool
agent_is(const struct agent *a, const char *host)
{
    return !strcmp(a->x->options->host, host);
}

const char *
task_method(const struct poolrec_task *task)
{
    return task->name + (strncmp(task->name, "Async.", 6) ? 0 : 6);
}

/* --- pieces of work ----------------------------------------------------------------------- */

struct work *
work_get(struct agent *a, const char *key)
{
    struct work *w;

    HMAP_FOR_EACH_WITH_HASH (w, node, hash_string(key, 0), &a->works) {
        if (!strcmp(w->key, key)) {
            return w;
        }
    }
    w = xzalloc(sizeof *w);
    ovs_strlcpy(w->key, key, sizeof w->key);
    w->agent = a;
    w->since = time_msec();
    hmap_insert(&a->works, &w->node, hash_string(key, 0));
    return w;
}

struct ovsdb_idl_txn *
work_begin(struct work *w)
{
    return store_begin(w->agent->x->store);
}

/* However it ended, the rows say what is to be done next. */
static void
work_written(enum store_result result, const char *why, void *work_)
{
    struct work *w = work_;

    w->busy = false;
    if (result != STORE_DONE) {
        VLOG_INFO("%s: %s", w->key, why);
    }
}

void
work_commit(struct work *w, struct ovsdb_idl_txn *txn)
{
    w->busy = true;
    store_commit(w->agent->x->store, txn, work_written, w);
}

void
work_again(struct work *w, int ms)
{
    poll_timer_wait(ms);
}

void
work_fail(struct work *w, const struct poolrec_task *task, const struct fault *f)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (txn) {
        VLOG_INFO("%s of %s failed: %s %s", task->name, task->vm, f->code,
                  f->n ? f->params[f->n - 1] : "");
        poolrec_task_verify_status(task);
        task_fail(task, f);
        work_commit(w, txn);
    }
}

/* --- start ----------------------------------------------------------------------------------- */

static void
fail_state(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm,
           const char *expected)
{
    char *ref = xasprintf(REF_PREFIX "%s", task->vm);
    struct fault f;

    fault_set(&f, "VM_BAD_POWER_STATE", ref, expected,
              !strcmp(vm->power_state, "Running") ? "running" : "halted", NULL);
    work_fail(w, task, &f);
    free(ref);
}

/* On condition that nobody claimed the VM meanwhile. */
static void
verify_claim(const struct poolrec_vm *vm)
{
    poolrec_vm_verify_resident_on(vm);
    poolrec_vm_verify_epoch(vm);
    poolrec_vm_verify_power_state(vm);
}

static void
claim(struct work *w, const struct poolrec_vm *vm)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (txn) {
        verify_claim(vm);
        poolrec_vm_set_resident_on(vm, w->agent->x->options->host);
        poolrec_vm_set_destination(vm, "");
        poolrec_vm_set_migration(vm, "");
        poolrec_vm_set_epoch(vm, vm->epoch + 1);
        work_commit(w, txn);
        w->since = time_msec();
    }
}

/* The VM is here and does not run (any more).  'task' (or NULL) ends with 'f', or
 * well. */
static void
give_up(struct work *w, const struct poolrec_vm *vm, const struct poolrec_task *task,
        const struct fault *f)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (!txn) {
        return;
    }
    verify_claim(vm);
    poolrec_vm_set_resident_on(vm, "");
    poolrec_vm_set_destination(vm, "");
    poolrec_vm_set_migration(vm, "");
    poolrec_vm_set_epoch(vm, vm->epoch + 1);
    poolrec_vm_set_power_state(vm, "Halted");
    if (task && f) {
        task_fail(task, f);
    } else if (task) {
        task_succeed(task, "");
    }
    work_commit(w, txn);
}

static void
started(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (txn) {
        verify_claim(vm);
        poolrec_vm_set_power_state(vm, "Running");
        task_succeed(task, "");
        work_commit(w, txn);
    }
}

/* One that should not be here: ended before another is started. */
static bool
clear_away(struct work *w, const struct guest_driver *d, const char *vm)
{
    char why[200];
    enum guest_state state = d->state(w->agent, vm, why);

    if (state != GUEST_ALIVE) {
        guest_forget(w->agent, d, vm);
        return true;
    }
    if (!w->told) {
        d->end(w->agent, vm, GUEST_HARD);
        w->told = true;
        w->since = time_msec();
    } else if (time_msec() - w->since > HARD_MS) {
        d->end(w->agent, vm, GUEST_KILL);
    }
    work_again(w, STEP_MS);
    return false;
}

static void
start_claimed(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    const struct guest_driver *d = guest_driver(vm);
    char why[200];
    enum guest_state state = d->state(w->agent, task->vm, why);
    struct fault f;
    int error = 0;

    if (state == GUEST_NONE) {
        error = d->start(w->agent, vm);
        w->since = time_msec();
    } else if (state == GUEST_ALIVE && d->ready(w->agent, task->vm)) {
        started(w, task, vm);
        return;
    } else if (state == GUEST_ALIVE && time_msec() - w->since > d->start_ms) {
        d->end(w->agent, task->vm, GUEST_KILL); /* given up when it has ended, and not before */
    }
    if (!error && state != GUEST_ENDED) {
        work_again(w, STEP_MS);
        return;
    }
    fault_set(&f, "INTERNAL_ERROR",
              error  ? ovs_strerror(error)
              : *why ? why
                     : "the guest did not come up in time",
              NULL);
    give_up(w, vm, task, &f);
}

/* Another host was told later to start it. */
static void
overtaken(struct work *w, const struct poolrec_task *task)
{
    char *ref = xasprintf(REF_PREFIX "%s", task->vm);
    struct fault f;

    fault_set(&f, "OTHER_OPERATION_IN_PROGRESS", "VM", ref, NULL);
    work_fail(w, task, &f);
    free(ref);
}

static void
step_start(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    if (!*vm->resident_on && !strcmp(task->status, "cancelling")) {
        struct ovsdb_idl_txn *txn = work_begin(w);
        if (txn) {
            poolrec_vm_verify_resident_on(vm);
            if (agent_is(w->agent, vm->destination)) {
                poolrec_vm_set_destination(vm, ""); /* nor may we start it later */
            }
            task_cancelled(task);
            work_commit(w, txn);
        }
    } else if (!*vm->resident_on && *vm->destination && !agent_is(w->agent, vm->destination)) {
        overtaken(w, task); /* and the database would not let us */
    } else if (!*vm->resident_on) {
        if (clear_away(w, guest_driver(vm), task->vm)) {
            w->told = false;
            claim(w, vm);
        }
    } else if (!agent_is(w->agent, vm->resident_on) || !strcmp(vm->power_state, "Running")) {
        fail_state(w, task, vm, "halted");
    } else {
        start_claimed(w, task, vm);
    }
}

/* --- shut down -------------------------------------------------------------------------------- */

static void
step_shutdown(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    bool hard = !strcmp(task_method(task), "VM.hard_shutdown");
    const struct guest_driver *d = guest_driver(vm);
    struct fault f;
    char why[200];

    if (!agent_is(w->agent, vm->resident_on)) {
        fail_state(w, task, vm, "running");
    } else if (guest_look(w->agent, d, vm, why) != GUEST_ALIVE) {
        give_up(w, vm, task, NULL);
    } else if (!w->told) {
        d->end(w->agent, task->vm, hard ? GUEST_HARD : GUEST_CLEAN);
        w->told = true;
        w->since = time_msec();
    } else if (hard && time_msec() - w->since > HARD_MS) {
        d->end(w->agent, task->vm, GUEST_KILL);
        work_again(w, STEP_MS);
    } else if (!hard && time_msec() - w->since > CLEAN_MS) {
        fault_set(&f, "INTERNAL_ERROR", "the guest did not shut down in time", NULL);
        work_fail(w, task, &f);
    } else {
        work_again(w, STEP_MS);
    }
}

/* --- what died, what strayed -------------------------------------------------------------------
 */

/* A weft-migrate here still has to do with its guest: from the claim on the VM's row
 * does not name the migration any more, and others can end its task. */
static bool
is_moving(struct agent *a, const char *vm)
{
    const struct poolrec_migration *m;
    bool is = false;

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(a->x->store))
    {
        if (!is && !strcmp(m->vm, vm) && !strcmp(m->status, "running")) {
            const char *end = agent_is(a, m->from_host) ? "send" : "recv";
            char *name = xasprintf("%s-%s", end, m->migration);

            is = proc_find(a->procs, name) != NULL;
            free(name);
        }
    }
    return is;
}

static void
look_at_resident(struct agent *a, const struct poolrec_vm *vm)
{
    const char *uuid = store_uuid(&vm->header_.uuid);
    const struct guest_driver *d = guest_driver(vm);
    struct work *w;
    char why[200];

    if (!d || *vm->migration || task_of_vm(a->x->store, uuid) || is_moving(a, uuid) ||
        guest_look(a, d, vm, why) == GUEST_ALIVE) {
        return;
    }
    char *key = xasprintf("died-%s", uuid);
    w = work_get(a, key);
    free(key);
    w->seen = true;
    if (!w->busy) {
        VLOG_WARN("%s has ended by itself%s%s", vm->name, *why ? ": " : "", why);
        give_up(w, vm, NULL, NULL);
    }
}

/* One that is here moves by an order to this host, which names the migration, or not at all.
 * What its row says otherwise is left over, or a destination's that has closed nothing: with
 * it no other order would be taken, and the host that it names could go on writing the row. */
static void
look_at_migration(struct agent *a, const struct poolrec_vm *vm)
{
    const char *uuid = store_uuid(&vm->header_.uuid);
    const struct poolrec_task *task;
    struct ovsdb_idl_txn *txn;
    struct work *w;

    if ((!*vm->migration && !*vm->destination) || is_moving(a, uuid)) {
        return;
    }
    POOLREC_TASK_FOR_EACH(task, store_idl(a->x->store))
    {
        if (task_open(task) && agent_is(a, task->host) && !strcmp(task->vm, uuid) &&
            *task->result && !strcmp(task->result, vm->migration)) {
            return;
        }
    }
    char *key = xasprintf("moves-not-%s", uuid);
    w = work_get(a, key);
    free(key);
    w->seen = true;
    if (!w->busy && (txn = work_begin(w))) {
        VLOG_WARN("%s is said to move to \"%s\", by no order", vm->name, vm->destination);
        verify_claim(vm);
        poolrec_vm_verify_migration(vm);
        poolrec_vm_set_destination(vm, "");
        poolrec_vm_set_migration(vm, "");
        work_commit(w, txn);
    }
}

struct look {
    struct agent *agent;
    const struct guest_driver *driver;
};

/* A guest of a VM that is not, and does not become, this host's. */
static void
look_at_guest(const char *name, void *look_)
{
    const struct look *look = look_;
    struct agent *a = look->agent;
    const char *uuid = name + strlen(look->driver->prefix);
    const struct poolrec_vm *vm = store_vm(a->x->store, uuid);
    enum guest_state state;
    char why[200];

    if (vm && (agent_is(a, vm->resident_on) || agent_is(a, vm->destination) || *vm->migration ||
               task_of_vm(a->x->store, uuid) || is_moving(a, uuid))) {
        return;
    }
    state = look->driver->state(a, uuid, why);
    if (state == GUEST_ENDED) {
        guest_forget(a, look->driver, uuid);
    } else if (state == GUEST_ALIVE) {
        VLOG_WARN("%s is not this host's: it is ended", name);
        look->driver->end(a, uuid, GUEST_HARD);
    }
}

static void
look_around(struct agent *a)
{
    const struct poolrec_vm *vm;

    if (time_msec() < a->look_at) {
        return;
    }
    a->look_at = time_msec() + LOOK_MS;
    POOLREC_VM_FOR_EACH(vm, store_idl(a->x->store))
    {
        if (agent_is(a, vm->resident_on)) {
            look_at_migration(a, vm);
            look_at_resident(a, vm);
        }
    }
    for (size_t i = 0; i < n_guest_drivers; i++) {
        struct look look = {a, guest_drivers[i]};

        procs_each(a->procs, look.driver->prefix, look_at_guest, &look);
    }
    procs_each(a->procs, "send-", look_at_migrate, a);
    procs_each(a->procs, "recv-", look_at_migrate, a);
}

/* --- the turn ------------------------------------------------------------------------------------
 */

/* Orders for one VM are carried out one after the other. */
static bool
is_first(struct agent *a, const struct poolrec_task *task)
{
    const struct poolrec_task *other;

    POOLREC_TASK_FOR_EACH(other, store_idl(a->x->store))
    {
        if (other != task && *task->vm && !strcmp(other->vm, task->vm) && task_open(other) &&
            (other->created < task->created ||
             (other->created == task->created &&
              uuid_compare_3way(&other->header_.uuid, &task->header_.uuid) < 0))) {
            return false;
        }
    }
    return true;
}

static void
step(struct work *w, const struct poolrec_task *task)
{
    const struct poolrec_vm *vm = *task->vm ? store_vm(w->agent->x->store, task->vm) : NULL;
    const char *method = task_method(task);
    struct fault f;

    if (!strcmp(method, "host.evacuate")) {
        step_evacuate(w, task);
    } else if (!vm) {
        char *ref = xasprintf(REF_PREFIX "%s", task->vm);
        fault_set(&f, "HANDLE_INVALID", "VM", ref, NULL);
        work_fail(w, task, &f);
        free(ref);
    } else if (!guest_driver(vm)) {
        fault_set(&f, "OPERATION_NOT_ALLOWED", "weft-xapid does not know the VM's driver", NULL);
        work_fail(w, task, &f);
    } else if (!strcmp(method, "VM.start") || !strcmp(method, "VM.start_on")) {
        step_start(w, task, vm);
    } else if (!strcmp(method, "VM.clean_shutdown") || !strcmp(method, "VM.hard_shutdown")) {
        step_shutdown(w, task, vm);
    } else if (!strcmp(method, "VM.pool_migrate")) {
        step_migrate(w, task, vm);
    } else if (!strcmp(method, "VIF.plug") || !strcmp(method, "VIF.unplug")) {
        step_plug(w, task, vm);
    } else {
        fault_set(&f, "INTERNAL_ERROR", "this host's weft-xapid does not know that order", NULL);
        work_fail(w, task, &f);
    }
}

static void
run_tasks(struct agent *a)
{
    const struct poolrec_task *task;

    POOLREC_TASK_FOR_EACH(task, store_idl(a->x->store))
    {
        struct work *w;

        if (!agent_is(a, task->host) || !task_open(task)) {
            continue;
        }
        w = work_get(a, store_uuid(&task->header_.uuid));
        w->seen = true;
        if (!w->busy && is_first(a, task)) {
            step(w, task);
        }
    }
}

static void
run_incoming(struct agent *a)
{
    const struct poolrec_migration *m;

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(a->x->store))
    {
        struct work *w;
        struct uuid uuid;
        char *key;

        if (!agent_is(a, m->to_host) || strcmp(m->status, "running") ||
            !uuid_from_string(&uuid, m->migration)) {
            continue;
        }
        key = xasprintf("incoming-%s", m->migration);
        w = work_get(a, key);
        free(key);
        w->seen = true;
        if (!w->busy) {
            step_incoming(w, m);
        }
    }
}

void
agent_run(struct xapi *x)
{
    struct agent *a = x->agent;
    struct work *w;

    if (!store_writable(x->store)) {
        return; /* nothing is begun that could not be written down */
    }
    HMAP_FOR_EACH (w, node, &a->works) {
        w->seen = false;
    }
    run_tasks(a);
    run_incoming(a);
    look_around(a);
    HMAP_FOR_EACH_SAFE (w, node, &a->works) {
        if (!w->seen && !w->busy) {
            hmap_remove(&a->works, &w->node);
            free(w);
        }
    }
}

void
agent_wait(struct xapi *x)
{
    procs_wait(x->agent->procs);
    poll_timer_wait_until(x->agent->look_at);
}

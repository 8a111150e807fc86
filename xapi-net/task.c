/* Tasks: work orders in the pool's database, and the requests that wait for them.
 *
 * A task's row is all there is to it: the weft-xapid of its host finds it there,
 * also after its own death, and writes how it ended.  Who asked without Async.
 * waits for that; if the coordinator dies meanwhile, the work goes on all the same. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

VLOG_DEFINE_THIS_MODULE(task);

enum {
    KEEP_MS = 3600 * 1000,
    KEEP_TASKS = 500,
    KEEP_MIGRATIONS = 100,
    FINISH_MS = 600 * 1000,
    TIDY_MS = 10000,
    ORPHAN_MS = 15000, /* a migration's task is its source's to end, for so long */
};

const struct poolrec_task *
task_insert(struct ovsdb_idl_txn *txn, const char *name, const char *vm, const char *host,
            const char *params, const char *description)
{
    struct uuid uuid;
    const struct poolrec_task *task;

    uuid_generate(&uuid);
    task = poolrec_task_insert_persist_uuid(txn, &uuid);
    poolrec_task_set_name(task, name);
    poolrec_task_set_description(task, description);
    poolrec_task_set_vm(task, vm);
    poolrec_task_set_host(task, host);
    poolrec_task_set_params(task, params);
    poolrec_task_set_status(task, "pending");
    poolrec_task_set_created(task, time_wall_msec());
    return task;
}

bool
task_open(const struct poolrec_task *task)
{
    return !strcmp(task->status, "pending") || !strcmp(task->status, "cancelling");
}

const struct poolrec_task *
task_of_vm(struct store *store, const char *vm)
{
    const struct poolrec_task *task;

    POOLREC_TASK_FOR_EACH(task, store_idl(store))
    {
        if (!strcmp(task->vm, vm) && task_open(task)) {
            return task;
        }
    }
    return NULL;
}

bool
task_begot(const struct poolrec_task *task, const struct poolrec_migration *m)
{
    struct uuid uuid;

    return !strcmp(task->result, m->migration) && uuid_from_string(&uuid, m->migration) &&
           !strcmp(m->task, store_uuid(&task->header_.uuid)) && !strcmp(task->vm, m->vm) &&
           !strcmp(task->host, m->from_host);
}

/* --- its end ------------------------------------------------------------------------- */

void
task_succeed(const struct poolrec_task *task, const char *result)
{
    poolrec_task_set_status(task, "success");
    poolrec_task_set_progress(task, 1);
    poolrec_task_set_result(task, result);
    poolrec_task_set_finished(task, time_wall_msec());
}

static void
end_with(const struct poolrec_task *task, const char *status, const struct fault *f)
{
    struct json *list = json_array_create_empty();
    char *text;

    value_add(list, f->code);
    for (unsigned i = 0; i < f->n; i++) {
        value_add(list, f->params[i]);
    }
    text = json_to_string(list, 0);
    poolrec_task_set_error_info(task, text);
    poolrec_task_set_status(task, status);
    poolrec_task_set_finished(task, time_wall_msec());
    free(text);
    json_destroy(list);
}

void
task_fail(const struct poolrec_task *task, const struct fault *f)
{
    end_with(task, "failure", f);
}

void
task_cancelled(const struct poolrec_task *task)
{
    char ref[REF_SIZE];
    struct fault f;

    snprintf(ref, sizeof ref, REF_PREFIX UUID_FMT, UUID_ARGS(&task->header_.uuid));
    fault_set(&f, "TASK_CANCELLED", ref, NULL);
    end_with(task, "cancelled", &f);
}

static void
host_ref(struct store *store, const char *name, char ref[REF_SIZE])
{
    const struct poolrec_host *host = store_host(store, name);

    snprintf(ref, REF_SIZE, "%s%s", host ? REF_PREFIX : REF_NULL,
             host ? store_uuid(&host->header_.uuid) : "");
}

void
task_fault_migrate(struct store *store, const struct poolrec_migration *m, const char *why,
                   struct fault *f)
{
    char vm[REF_SIZE], from[REF_SIZE], to[REF_SIZE];

    snprintf(vm, sizeof vm, REF_PREFIX "%.*s", UUID_LEN, m->vm);
    host_ref(store, m->from_host, from);
    host_ref(store, m->to_host, to);
    fault_set(f, "VM_MIGRATE_FAILED", vm, from, to, why, NULL);
}

/* ["CODE", ...] */
void
task_fault(const struct poolrec_task *task, struct fault *f)
{
    static const char *const codes[] = {
        "VM_BAD_POWER_STATE",      "OPERATION_NOT_ALLOWED",   "OTHER_OPERATION_IN_PROGRESS",
        "TASK_CANCELLED",          "VM_MIGRATE_FAILED",       "HOST_OFFLINE",
        "HANDLE_INVALID",          "INTERNAL_ERROR",          "NO_HOSTS_AVAILABLE",
        "DEVICE_ALREADY_ATTACHED", "DEVICE_ALREADY_DETACHED",
    };
    struct json *list = json_from_string(task->error_info);

    fault_set(f, "INTERNAL_ERROR", NULL);
    if (value_fits(list, V_SET) && json_array(list)->n) {
        const struct json_array *a = json_array(list);

        for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
            f->code = !strcmp(codes[i], json_string(a->elems[0])) ? codes[i] : f->code;
        }
        for (size_t i = 1; i < a->n; i++) {
            fault_add(f, json_string(a->elems[i]));
        }
    }
    json_destroy(list);
}

/* --- orders ---------------------------------------------------------------------------- */

/* Somebody else's order for the VM was there a moment earlier. */
static bool
overtaken(struct request *q)
{
    const char *vm = q->class == &class_vm ? q->args[0].s + strlen(REF_PREFIX) : "";
    const struct poolrec_vm *row = *vm ? store_vm(q->xapi->store, vm) : NULL;

    return row && (*row->resident_on || task_of_vm(q->xapi->store, vm));
}

static void
ordered(enum store_result result, const char *why, void *request_)
{
    struct request *q = request_;

    if (result == STORE_CONFLICT && overtaken(q)) {
        request_fail(q, "OTHER_OPERATION_IN_PROGRESS", "VM", q->args[0].s, NULL);
    } else if (result != STORE_DONE) {
        request_fail(q, "INTERNAL_ERROR", why, NULL);
    } else if (q->async) {
        request_answer(q, json_string_create_nocopy(xasprintf(REF_PREFIX "%s", q->order)));
    } else {
        strcpy(q->task, q->order);
        task_look(q);
    }
}

void
task_order(struct request *q, const char *vm, const char *host, const struct json *params)
{
    struct ovsdb_idl_txn *txn = request_begin(q);
    const struct poolrec_task *task;
    const struct poolrec_vm *row;
    char *name, *text;

    if (!txn) {
        return;
    }
    name = xasprintf("%s%s.%s", q->async ? "Async." : "", q->class->name, q->method->name);
    text = json_to_string(params, 0);
    row = store_vm(q->xapi->store, vm);
    if (row && !*row->resident_on && strcmp(row->destination, host)) {
        /* The database lets only the hosts named there write a VM's row. */
        poolrec_vm_verify_resident_on(row);
        poolrec_vm_verify_destination(row); /* or an order just given could not be carried out */
        poolrec_vm_set_destination(row, host);
    }
    task = task_insert(txn, name, vm, host, text, q->user);
    snprintf(q->order, sizeof q->order, UUID_FMT, UUID_ARGS(&task->header_.uuid));
    store_commit(q->xapi->store, txn, ordered, q);
    free(name);
    free(text);
}

bool
task_look(struct request *q)
{
    const struct poolrec_task *task = store_task(q->xapi->store, q->task);
    struct ovsdb_idl_txn *txn;
    struct fault f;

    if (task && task_open(task)) {
        return false;
    }
    if (!task) {
        request_fail(q, "HANDLE_INVALID", "task", q->task, NULL);
        return true;
    }
    /* Nobody else knows of it. */
    struct store *store = q->xapi->store;

    if (!strcmp(task->status, "success")) {
        request_answer(q, json_string_create(""));
    } else {
        task_fault(task, &f);
        request_refuse(q, &f);
    }
    txn = store_begin(store);
    if (txn) {
        poolrec_task_delete(task);
        store_commit(store, txn, NULL, NULL);
    }
    return true;
}

/* --- housekeeping ------------------------------------------------------------------------- */

/* The finished one that ended first. */
static const struct poolrec_task *
oldest(struct store *store, int64_t before)
{
    const struct poolrec_task *task, *found = NULL;

    POOLREC_TASK_FOR_EACH(task, store_idl(store))
    {
        if (!task_open(task) && task->finished < before &&
            (!found || task->finished < found->finished)) {
            found = task;
        }
    }
    return found;
}

/* By the clock of who wrote it: one that is ahead makes it old. */
static uint64_t
age_ms(int64_t at)
{
    return (uint64_t)time_wall_msec() - (uint64_t)at;
}

static const struct poolrec_migration *
oldest_migration(struct store *store)
{
    const struct poolrec_migration *m, *found = NULL;

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(store))
    {
        /* One that ended just now may have a weft-migrate that finishes, by its row. */
        if (strcmp(m->status, "running") && age_ms(m->finished) > FINISH_MS &&
            (!found || m->finished < found->finished)) {
            found = m;
        }
    }
    return found;
}

/* What the hosts of a closed migration could not write (a task of the other's, a VM
 * that is nobody's any more); and the history of migrations. */
static void
tidy_migrations(struct store *store)
{
    const struct poolrec_migration *m;
    size_t n = 0;

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(store))
    {
        const struct poolrec_task *task = store_task(store, m->task);
        struct fault f;

        const struct poolrec_vm *vm = store_vm(store, m->vm);
        bool begot = task && task_begot(task, m);

        n++;
        if (!strcmp(m->status, "running") || age_ms(m->finished) < ORPHAN_MS) {
            continue;
        }
        if (vm && !strcmp(vm->migration, m->migration)) {
            poolrec_vm_verify_migration(vm);
            poolrec_vm_verify_destination(vm);
            poolrec_vm_set_destination(vm, "");
            poolrec_vm_set_migration(vm, "");
        }
        if (!begot || !task_open(task)) {
            continue;
        }
        poolrec_task_verify_status(task);
        if (!strcmp(m->status, "success")) {
            task_succeed(task, "");
        } else {
            task_fault_migrate(store, m, m->status, &f);
            task_fail(task, &f);
        }
    }
    while (n > KEEP_MIGRATIONS && (m = oldest_migration(store))) {
        poolrec_migration_delete(m);
        n--;
    }
}

/* One that runs nowhere is not moving: what its row says of that, nobody else may have had
 * the right to take away. */
static void
tidy_halted(struct store *store)
{
    const struct poolrec_vm *vm;

    POOLREC_VM_FOR_EACH(vm, store_idl(store))
    {
        if (!*vm->resident_on && *vm->migration &&
            !task_of_vm(store, store_uuid(&vm->header_.uuid))) {
            poolrec_vm_verify_resident_on(vm);
            poolrec_vm_verify_migration(vm);
            poolrec_vm_set_destination(vm, "");
            poolrec_vm_set_migration(vm, "");
        }
    }
}

void
task_tidy(struct xapi *x)
{
    static long long int due;
    const struct poolrec_task *task;
    struct ovsdb_idl_txn *txn;
    size_t n = 0;

    if (time_msec() < due || !coord_is(x) || !(txn = store_begin(x->store))) {
        return;
    }
    due = time_msec() + TIDY_MS;
    POOLREC_TASK_FOR_EACH(task, store_idl(x->store))
    {
        n++;
    }
    while ((task = oldest(x->store, n > KEEP_TASKS ? INT64_MAX : time_wall_msec() - KEEP_MS))) {
        poolrec_task_delete(task);
        n--;
    }
    tidy_migrations(x->store);
    tidy_halted(x->store);
    store_commit(x->store, txn, NULL, NULL);
}

/* Theory of operation.
 *
 * The row Migration is what the two ends share; each end runs one weft-migrate
 * and writes what the other needs to know.
 *
 *   source's host                           destination's host
 *   VM.destination, Migration (prepare)
 *                                           (weft-cell --incoming,) weft-migrate receive
 *                                           Migration.address (ready)
 *   waits for VIF.confirmed_on
 *   weft-migrate send (its phases, figures)
 *            the two of them decide who runs the guest: VM.resident_on, epoch
 *   closes: VM.destination, .migration, Migration.status, the task
 *
 * A weft-migrate that died, or says that it has failed, is followed by "recover"
 * with the same job until one says how it ended or its journal does: that the row
 * has been decided is not enough, the guest is still to be run, resumed, destroyed
 * or sent the rest of its memory.
 * The source closes; if it does not (its host is gone), the destination does,
 * when it has the VM.  What is left over here then is ended by agent.c. */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_migrate);

enum {
    ADDRESS_MS = 60000, /* for the destination to be ready */
    CONFIRM_MS = 30000, /* for its switch to have the vifs' policy */
    WRITE_MS = 500,
    RECOVER_MS = 1000,   /* between two recoveries, times their number up to 30 */
    RECOVERIES_MAX = 30, /* that fail and say so; those that are killed do not count */
    CLOSE_MS = 10000,    /* the destination closes instead of the source */
    TICK_MS = 200,
    FINISH_S = 5,        /* between two of the same once the migration is closed */
    DISCARD_MS = 120000, /* a weft-migrate has that long to end once its VM is elsewhere */
};

/* --- its process -------------------------------------------------------------------------- */

static struct proc *
find_proc(struct work *w, const struct poolrec_migration *m, const char *end)
{
    char *name = xasprintf("%s-%s", end, m->migration);
    struct proc *p = proc_find(w->agent->procs, name);

    free(name);
    return p;
}

static void
run_migrate(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm,
            const char *end, const char *role)
{
    struct agent *a = w->agent;
    char *name = xasprintf("%s-%s", end, m->migration), *job = migration_job(a, m, vm, role);
    char *program = xasprintf("%s/weft-migrate", a->x->options->bin);
    char *argv[] = {program, NULL}; /* the job says the rest */
    int error = proc_start(a->procs, name, argv, job, NULL);

    if (error) {
        snprintf(w->why, sizeof w->why, "weft-migrate: %s", ovs_strerror(error));
    }
    w->since = time_msec();
    w->ended = false;
    free(program);
    free(job);
    free(name);
}

/* The last line of its journal is "CHECKSUM STEP" with one of these. */
static bool
stopped_at(struct agent *a, const char *name, const char *const steps[], size_t n_steps)
{
    char *path = proc_path(a->procs, name, "journal"), tail[16] = "";
    FILE *f = fopen(path, "re");
    size_t n = 0;
    bool found = false;

    if (f) {
        n = !fseek(f, -(long)(sizeof tail - 1), SEEK_END) ? fread(tail, 1, sizeof tail - 1, f) : 0;
        fclose(f);
    }
    for (size_t i = 0; i < n_steps && !found; i++) {
        size_t len = strlen(steps[i]);
        found = n >= len && !memcmp(tail + n - len, steps[i], len);
    }
    free(path);
    return found;
}

/* Something was done with the guest, and not all that was to do. */
static bool
unfinished(struct agent *a, const char *name)
{
    static const char *const steps[] = {" pausing\n", " ready\n",   " postcopy\n", " committed\n",
                                        " aborted\n", " running\n", " complete\n"};

    return stopped_at(a, name, steps, ARRAY_SIZE(steps));
}

static bool
is_unfinished(struct work *w, const struct poolrec_migration *m, const char *end)
{
    char *name = xasprintf("%s-%s", end, m->migration);
    bool is = unfinished(w->agent, name);

    free(name);
    return is;
}

/* It has said how it ended. */
static bool
settled(const struct work *w)
{
    return w->ended && (strcmp(w->status, "failed") || w->tries >= RECOVERIES_MAX);
}

/* Others have moved the VM on since: what is here is theirs to judge. */
static bool
moved_on(const struct poolrec_migration *m, const struct poolrec_vm *vm)
{
    return vm->epoch > m->epoch + 1;
}

/* After the last try, each a little later than the one before.  'p' may be NULL. */
static void
recover(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm,
        const char *end, struct proc *p)
{
    if (time_msec() - w->since > RECOVER_MS * MIN(w->tries, 30)) {
        VLOG_WARN("%s: weft-migrate (%s) has died or failed; recovering", vm->name, end);
        if (p) {
            proc_forget(w->agent->procs, p);
        }
        w->tries++;
        run_migrate(w, m, vm, end, "recover");
    }
    work_again(w, TICK_MS);
}

/* An earlier migration of the VM whose weft-migrate here has late packets to
 * carry: there is only one at a time. */
static bool
still_busy(struct work *w, const struct poolrec_migration *m)
{
    const struct poolrec_migration *other;

    POOLREC_MIGRATION_FOR_EACH(other, store_idl(w->agent->x->store))
    {
        struct proc *send, *recv;

        if (other == m || strcmp(other->vm, m->vm)) {
            continue;
        }
        send = find_proc(w, other, "send");
        recv = find_proc(w, other, "recv");
        if ((send && proc_alive(send)) || (recv && proc_alive(recv))) {
            return true;
        }
    }
    return false;
}

static const char *
text_of(const struct json *o, const char *name)
{
    return value_map(o, name, "");
}

static double
number_of(const struct json *o, const char *name)
{
    const struct json *v = shash_find_data(json_object(o), name);

    return !v                        ? 0
           : v->type == JSON_INTEGER ? (double)json_integer(v)
           : v->type == JSON_REAL    ? json_real(v)
                                     : 0;
}

/* How far: of what has to go in all, as far as one can know. */
static void
take_progress(struct work *w, const struct json *o)
{
    double done = number_of(o, "bytes_guest"), left = number_of(o, "pages_left") * 4096;

    if (done + left > 0) {
        double p = done / (done + left) * 0.95;
        w->progress = MAX(w->progress, MIN(p, 0.95));
    }
}

static void
take_event(struct work *w, const char *line)
{
    struct json *o = json_from_string(line);

    if (o->type == JSON_OBJECT) {
        const char *event = text_of(o, "event"), *phase = text_of(o, "phase");

        if (*phase) {
            ovs_strlcpy(w->phase, phase, sizeof w->phase);
        }
        if (!strcmp(event, "progress")) {
            take_progress(w, o);
        } else if (!strcmp(event, "result")) {
            w->ended = true;
            ovs_strlcpy(w->status, text_of(o, "status"), sizeof w->status);
            ovs_strlcpy(w->why, text_of(o, "why"), sizeof w->why);
        }
        if (!strcmp(event, "progress") || !strcmp(event, "result")) {
            ovs_strlcpy(w->stats, line, sizeof w->stats);
        }
        w->fresh = true;
    }
    json_destroy(o);
}

/* What it says; "IP:PORT" once it listens. */
static void
drain(struct work *w, struct proc *p, char address[64])
{
    char line[PROC_LINE_MAX];

    *address = '\0';
    while (proc_line(p, line, sizeof line)) {
        struct json *o = json_from_string(line);

        if (o->type == JSON_OBJECT && !strcmp(text_of(o, "event"), "listening")) {
            ovs_strlcpy(address, text_of(o, "address"), 64);
        }
        json_destroy(o);
        take_event(w, line);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The database would let us. */
static bool
may_write(const struct agent *a, const struct poolrec_vm *vm)
{
    return !a->x->options->agent_only || agent_is(a, vm->resident_on) ||
           agent_is(a, vm->destination);
}

/* What the VM's row says of a migration goes with this one: the row names it, or the VM is
 * still here, and the destination has named another.  That one would be the next's. */
static bool
is_of(const struct agent *a, const struct poolrec_vm *vm, const struct poolrec_migration *m,
      bool begot)
{
    return !strcmp(vm->migration, m->migration) ||
           (begot && agent_is(a, m->from_host) && agent_is(a, vm->resident_on));
}

/* 'status' is the task's: success, failure or cancelled. */
static void
close_migration(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm,
                const char *status, const char *why)
{
    struct store *store = w->agent->x->store;
    const struct poolrec_task *task = store_task(store, m->task);
    bool begot = task && task_begot(task, m);
    struct ovsdb_idl_txn *txn = work_begin(w);
    struct fault f;

    if (!txn) {
        return;
    }
    VLOG_INFO("%s: migration from %s to %s: %s %s", vm ? vm->name : m->vm, m->from_host, m->to_host,
              status, why);
    poolrec_migration_verify_status(m);
    if (vm) { /* 'status' was concluded from it */
        poolrec_vm_verify_resident_on(vm);
    }
    poolrec_migration_set_status(m, status);
    poolrec_migration_set_phase(m, "done");
    poolrec_migration_set_finished(m, time_wall_msec());
    if (*w->stats) {
        poolrec_migration_set_stats(m, w->stats);
    }
    if (vm && is_of(w->agent, vm, m, begot) && may_write(w->agent, vm)) {
        poolrec_vm_verify_migration(vm);
        poolrec_vm_set_destination(vm, "");
        poolrec_vm_set_migration(vm, "");
    }
    /* Another host's task may be out of our reach; the coordinator ends it (task_tidy()). */
    if (begot && task_open(task) &&
        (agent_is(w->agent, task->host) || !w->agent->x->options->agent_only)) {
        if (!strcmp(status, "success")) {
            task_succeed(task, "");
        } else if (!strcmp(status, "cancelled")) {
            task_cancelled(task);
        } else {
            task_fault_migrate(store, m, why, &f);
            task_fail(task, &f);
        }
    }
    work_commit(w, txn);
}

/* --- source -------------------------------------------------------------------------------------
 */

static void
prepare(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm,
        const char *to, const struct json *options)
{
    struct ovsdb_idl_txn *txn = work_begin(w);
    const struct poolrec_migration *m;
    struct uuid uuid;
    char *text;

    if (!txn) {
        return;
    }
    uuid_generate(&uuid);
    poolrec_vm_verify_resident_on(vm);
    poolrec_vm_verify_epoch(vm);
    poolrec_vm_verify_migration(vm);
    poolrec_vm_verify_power_state(vm);
    poolrec_vm_set_destination(vm, to);
    poolrec_vm_set_migration(vm, store_uuid(&uuid));
    poolrec_task_set_result(task, store_uuid(&uuid)); /* task_begot() */
    m = poolrec_migration_insert(txn);
    poolrec_migration_set_migration(m, store_uuid(&uuid));
    poolrec_migration_set_vm(m, task->vm);
    poolrec_migration_set_from_host(m, w->agent->x->options->host);
    poolrec_migration_set_to_host(m, to);
    poolrec_migration_set_epoch(m, vm->epoch);
    poolrec_migration_set_phase(m, "prepare");
    poolrec_migration_set_status(m, "running");
    poolrec_migration_set_started(m, time_wall_msec());
    poolrec_migration_set_task(m, store_uuid(&task->header_.uuid));
    if (options) {
        text = json_to_string(options, 0);
        poolrec_migration_set_options(m, text);
        free(text);
    }
    work_commit(w, txn);
    w->since = time_msec();
}

/* What keeps it from being begun; 'f' then says so. */
static bool
refuse(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm, const char *to,
       struct fault *f)
{
    char *ref = xasprintf(REF_PREFIX "%s", task->vm);

    f->code = NULL;
    if (!agent_is(w->agent, vm->resident_on) || strcmp(vm->power_state, "Running")) {
        fault_set(f, "VM_BAD_POWER_STATE", ref, "running",
                  *vm->resident_on ? "running elsewhere" : "halted", NULL);
    } else if (*vm->migration) {
        fault_set(f, "OTHER_OPERATION_IN_PROGRESS", "VM", ref, NULL);
    } else if (!store_host(w->agent->x->store, to) || agent_is(w->agent, to)) {
        fault_set(f, "OPERATION_NOT_ALLOWED", "there is no such other host", NULL);
    }
    free(ref);
    return f->code;
}

/* The one that was begun here for 'task': rows that say they are, any host can add. */
static const struct poolrec_migration *
migration_of(struct store *store, const struct poolrec_task *task)
{
    const struct poolrec_migration *m;

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(store))
    {
        if (task_begot(task, m)) {
            return m;
        }
    }
    return NULL;
}

/* The destination's switch has each vif's policy; or no controller drives it. */
static bool
confirmed(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm)
{
    const struct poolrec_host *host = store_host(w->agent->x->store, m->to_host);
    const struct poolrec_vif *vif;

    if (!host || !*host->controller) {
        return true;
    }
    POOLREC_VIF_FOR_EACH(vif, store_idl(w->agent->x->store))
    {
        bool good = vif->vm != vm;

        for (size_t i = 0; i < vif->n_confirmed_on; i++) {
            good = good || !strcmp(vif->confirmed_on[i], m->to_host);
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

/* Before the sender runs: nothing has happened to the guest. */
static void
wait_to_send(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm,
             const struct poolrec_migration *m)
{
    bool force = strstr(m->options, "\"force\":\"true\"");

    if (is_unfinished(w, m, "send") && !moved_on(m, vm)) {
        recover(w, m, vm, "send", NULL); /* could not be started again */
    } else if (!strcmp(task->status, "cancelling")) {
        close_migration(w, m, vm, "cancelled", "");
    } else if (!strcmp(m->phase, "failed")) {
        close_migration(w, m, vm, "failure", m->stats);
    } else if (!*m->address) {
        if (time_msec() - w->since > ADDRESS_MS) {
            close_migration(w, m, vm, "failure", "the destination did not get ready in time");
        }
    } else if (!force && !confirmed(w, m, vm)) {
        w->confirm_since = w->confirm_since ? w->confirm_since : time_msec();
        if (time_msec() - w->confirm_since > CONFIRM_MS) {
            close_migration(w, m, vm, "failure",
                            "the destination's switch has not confirmed the VIFs' policy in time");
        }
    } else if (!still_busy(w, m)) {
        run_migrate(w, m, vm, "send", "send");
    }
    work_again(w, TICK_MS);
}

static void
write_progress(struct work *w, const struct poolrec_task *task, const struct poolrec_migration *m)
{
    struct ovsdb_idl_txn *txn;

    if (!w->fresh || time_msec() - w->wrote < WRITE_MS || !(txn = work_begin(w))) {
        return;
    }
    w->fresh = false;
    w->wrote = time_msec();
    poolrec_task_set_progress(task, w->progress);
    poolrec_migration_set_phase(m, *w->phase ? w->phase : "send");
    poolrec_migration_set_stats(m, w->stats);
    work_commit(w, txn);
}

/* It has ended; false: another try is under way. */
static bool
source_ended(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm,
             struct proc *p)
{
    bool decided = w->ended || strcmp(vm->resident_on, m->from_host) || vm->epoch > m->epoch;

    if (settled(w) || moved_on(m, vm) || (decided && !is_unfinished(w, m, "send"))) {
        return true;
    }
    recover(w, m, vm, "send", p);
    return false;
}

/* A client has asked for it (VM.migrate_postcopy) since it began. */
static bool
wants_postcopy(const struct poolrec_task *task)
{
    struct json *params = json_from_string(task->params);
    const struct json *now = value_member(params, "postcopy");
    bool wants = now && now->type == JSON_TRUE;

    json_destroy(params);
    return wants;
}

static void
step_source(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm,
            const struct poolrec_migration *m)
{
    struct proc *p = find_proc(w, m, "send");
    char address[64];
    bool alive;

    if (!p) {
        wait_to_send(w, task, vm, m);
        return;
    }
    alive = proc_alive(p);
    drain(w, p, address);
    if (alive && !strcmp(task->status, "cancelling") && !w->told) {
        proc_tell(p, "{\"cmd\":\"cancel\"}");
        w->told = true;
    }
    if (alive && !w->told_postcopy && wants_postcopy(task)) {
        w->told_postcopy = !proc_tell(p, "{\"cmd\":\"postcopy\"}");
    }
    if (alive) {
        write_progress(w, task, m);
    } else if (source_ended(w, m, vm, p)) {
        bool moved = !strcmp(vm->resident_on, m->to_host);

        close_migration(w, m, vm,
                        moved                                 ? "success"
                        : !strcmp(task->status, "cancelling") ? "cancelled"
                                                              : "failure",
                        moved     ? ""
                        : *w->why ? w->why
                                  : "weft-migrate gave no reason");
    }
}

void
step_migrate(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    const struct poolrec_migration *m = migration_of(w->agent->x->store, task);
    struct json *params;
    struct fault f;

    if (m && !strcmp(m->status, "running")) {
        step_source(w, task, vm, m);
        return;
    }
    if (m) { /* the other end closed it, and the task with it: our view is old */
        return;
    }
    params = json_from_string(task->params);
    if (!strcmp(task->status, "cancelling")) {
        struct ovsdb_idl_txn *txn = work_begin(w);
        if (txn) {
            task_cancelled(task);
            work_commit(w, txn);
        }
    } else if (refuse(w, task, vm, value_map(params, "to", ""), &f)) {
        work_fail(w, task, &f);
    } else {
        prepare(w, task, vm, value_map(params, "to", ""), value_member(params, "options"));
    }
    json_destroy(params);
}

/* --- destination
 * ---------------------------------------------------------------------------------- */

static void
write_phase(struct work *w, const struct poolrec_migration *m, const char *phase,
            const char *address, const char *stats)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (txn) {
        poolrec_migration_verify_status(m);
        poolrec_migration_set_phase(m, phase);
        if (address) {
            poolrec_migration_set_address(m, address);
        }
        if (stats) {
            poolrec_migration_set_stats(m, stats);
        }
        work_commit(w, txn);
    }
}

/* What shall wait for it does, and nothing else of the VM is here any more. */
static bool
may_come(struct work *w, const struct guest_driver *d, const char *vm, enum guest_state state)
{
    return d->await ? d->ready(w->agent, vm) : state == GUEST_NONE;
}

/* What waits for the guest, then the receiver.  A failure is for the source to
 * read. */
static void
receive(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm)
{
    const struct guest_driver *d = guest_driver(vm);
    char why[200];
    enum guest_state state;

    /* Any host can write a row that says where a VM goes; the VM's own can only whose it is. */
    if (strcmp(vm->migration, m->migration) || !agent_is(w->agent, vm->destination)) {
        return;
    }
    state = d->state(w->agent, m->vm, why);
    if (state == GUEST_NONE && d->await) {
        int error = d->await(w->agent, vm);
        w->told = true;
        if (error) {
            write_phase(w, m, "failed", NULL, ovs_strerror(error));
        }
    } else if (state == GUEST_ALIVE && d->await && !w->told) {
        d->end(w->agent, m->vm, GUEST_HARD); /* not ours, and perhaps about to end */
    } else if (state == GUEST_ENDED) {
        if (!w->tries++) { /* left over from another time */
            guest_forget(w->agent, d, m->vm);
        } else {
            write_phase(w, m, "failed", NULL, *why ? why : "what waited for the guest has died");
        }
    } else if (may_come(w, d, m->vm, state) && !still_busy(w, m)) {
        w->tries = 0;
        run_migrate(w, m, vm, "recv", "receive");
    }
    work_again(w, TICK_MS / 2);
}

static void
receiver_ended(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm,
               struct proc *p)
{
    char words[200] = "";

    if (agent_is(w->agent, vm->resident_on)) {
        if (!settled(w) && !moved_on(m, vm) && is_unfinished(w, m, "recv")) {
            recover(w, m, vm, "recv", p); /* the guest may not run yet */
        } else if (time_msec() - w->since > CLOSE_MS) {
            close_migration(w, m, vm, "success", "");
        }
    } else if (w->ended && !*m->address) {
        write_phase(w, m, "failed", NULL, w->why);
    } else if (!w->ended && !*m->address) {
        proc_last_words(p, words, sizeof words);
        write_phase(w, m, "failed", NULL, *words ? words : "weft-migrate has died");
    } else if (!w->ended || (!settled(w) && is_unfinished(w, m, "recv"))) {
        recover(w, m, vm, "recv", p);
    }
    work_again(w, TICK_MS);
}

static void
step_open(struct work *w, const struct poolrec_migration *m, const struct poolrec_vm *vm)
{
    struct proc *p = find_proc(w, m, "recv");
    char address[64];
    bool alive;

    if (!strcmp(m->phase, "failed")) {
        return;
    }
    if (!p) {
        if (!*m->address) {
            receive(w, m, vm);
        } else if (is_unfinished(w, m, "recv") && !moved_on(m, vm)) {
            recover(w, m, vm, "recv", NULL); /* could not be started again */
        }
        return;
    }
    alive = proc_alive(p);
    drain(w, p, address);
    if (*address && !*m->address) {
        write_phase(w, m, "ready", address, NULL);
    } else if (!alive) {
        receiver_ended(w, m, vm, p);
    } else {
        w->since = time_msec();
    }
}

void
step_incoming(struct work *w, const struct poolrec_migration *m)
{
    const struct poolrec_vm *vm = store_vm(w->agent->x->store, m->vm);

    if (vm && guest_driver(vm)) {
        step_open(w, m, vm);
    }
}

/* --- what is left over -------------------------------------------------------------------- */

/* It said itself that it failed, and was begun a moment ago: another one so soon would
 * only fail, too. */
static bool
failed_lately(struct agent *a, const char *name, struct proc *p)
{
    char line[PROC_LINE_MAX] = "", *pid = proc_path(a->procs, name, "pid");
    struct json *o;
    struct stat st;
    bool lately;

    proc_last_line(p, line, sizeof line);
    o = json_from_string(line);
    lately = o->type == JSON_OBJECT && !strcmp(text_of(o, "status"), "failed") && !stat(pid, &st) &&
             llabs(time_wall() - st.st_mtime) < FINISH_S;
    json_destroy(o);
    free(pid);
    return lately;
}

/* The source has closed the migration: the VM is here by its row, and its guest may
 * still wait to be run, or for pages. */
static bool
finish_here(struct agent *a, const char *name, const struct poolrec_migration *m,
            const struct poolrec_vm *vm, struct proc *p)
{
    struct work w = {.agent = a};

    if (strncmp(name, "recv-", 5) || !vm || !guest_driver(vm) || !agent_is(a, vm->resident_on) ||
        vm->epoch != m->epoch + 1 || !unfinished(a, name)) {
        return false;
    }
    if (failed_lately(a, name, p)) {
        return true;
    }
    VLOG_WARN("%s: weft-migrate (recv) has died or failed; recovering", vm->name);
    proc_forget(a->procs, p);
    run_migrate(&w, m, vm, "recv", "recover");
    return true;
}

/* What a receiver that died may have left of a guest that did not come: looked for, so
 * that it is found not to be this host's (agent.c).  Not if it made none: one that is
 * here then was in its way. */
static void
look_for_remains(struct agent *a, const char *name, const struct poolrec_migration *m,
                 const struct poolrec_vm *vm)
{
    static const char *const made[] = {" prepared\n"};
    const struct guest_driver *d = vm ? guest_driver(vm) : NULL;
    char why[200];

    if (d && !strncmp(name, "recv-", 5) && strcmp(m->status, "success") &&
        !agent_is(a, vm->resident_on) &&
        (unfinished(a, name) || stopped_at(a, name, made, ARRAY_SIZE(made)))) {
        guest_look(a, d, vm, why);
    }
}

/* How long ago it was first seen here that it has no business here any more: by our own
 * clock, and over a restart of ours, too. */
static long long int
stray_ms(struct agent *a, const char *name)
{
    char *path = proc_path(a->procs, name, "stray");
    long long int now = time_msec(), since = now;
    FILE *f = fopen(path, "re");

    if (f && fscanf(f, "%lld", &since) != 1) {
        since = now;
    }
    if (!f && (f = fopen(path, "wxe"))) {
        fprintf(f, "%lld\n", now);
    }
    if (f) {
        fclose(f);
    }
    free(path);
    return now - since;
}

/* Nobody waits for the memory that its source may have.  That it is closed does not say so:
 * the destination closes it, too, where nobody is able to finish it for now. */
static bool
is_over(const struct poolrec_migration *m, const struct poolrec_vm *vm)
{
    struct json *o;
    bool over;

    if (!m || !vm || moved_on(m, vm) || strcmp(vm->resident_on, m->to_host)) {
        return true;
    }
    o = json_from_string(m->stats);
    over = o->type == JSON_OBJECT &&
           (!strcmp(text_of(o, "status"), "ok") || !strcmp(text_of(o, "status"), "gone"));
    json_destroy(o);
    return over;
}

/* It runs, and its VM is not here.  A receiver discards what it has made; killed, it would
 * leave that here.  A sender ends by itself; but for one that has not heard that all memory
 * has arrived, for which nobody listens any more. */
static void
end_stray(struct agent *a, const char *name, const struct poolrec_migration *m,
          const struct poolrec_vm *vm, struct proc *p)
{
    bool receives = !strncmp(name, "recv-", 5);

    if (stray_ms(a, name) < DISCARD_MS) {
        if (receives) {
            proc_tell(p, "{\"cmd\":\"cancel\"}");
        }
    } else if (receives || is_over(m, vm)) {
        proc_signal(p, SIGKILL);
    }
}

/* A process of a migration that is closed: whose the VM is has been decided. */
void
look_at_migrate(const char *name, void *agent_)
{
    struct agent *a = agent_;
    const struct poolrec_migration *m = store_migration(a->x->store, name + strlen("send-"));
    const struct poolrec_vm *vm = m ? store_vm(a->x->store, m->vm) : NULL;
    struct proc *p = proc_find(a->procs, name);
    char *journal;

    if (!p || (m && !strcmp(m->status, "running"))) {
        return;
    }
    if (proc_alive(p)) {
        if (!vm || !agent_is(a, vm->resident_on)) {
            end_stray(a, name, m, vm, p);
        }
        return;
    }
    if (m && finish_here(a, name, m, vm, p)) {
        return;
    }
    look_for_remains(a, name, m, vm);
    journal = proc_path(a->procs, name, "journal");
    unlink(journal);
    free(journal);
    proc_forget(a->procs, p);
}

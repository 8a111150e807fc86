/* Evacuation of this host. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_move);

enum { TICK_MS = 200, FAILURES_MAX = 3 };

/* --- evacuation: orders to migrate, so many at once ------------------------------------------ */

/* An order of ours for the VM; the newest. */
static const struct poolrec_task *
our_order(struct agent *a, const char *vm, const char *mark)
{
    const struct poolrec_task *t, *newest = NULL;

    POOLREC_TASK_FOR_EACH(t, store_idl(a->x->store))
    {
        if (!strcmp(t->vm, vm) && strstr(t->description, mark) &&
            (!newest || t->created > newest->created)) {
            newest = t;
        }
    }
    return newest;
}

struct survey {
    unsigned left, under_way, failed;
    const struct poolrec_vm *next; /* to be moved */
    const struct poolrec_task *failure;
};

static struct survey
look(struct agent *a, const char *mark)
{
    struct survey s = {.left = 0};
    const struct poolrec_vm *vm;

    POOLREC_VM_FOR_EACH(vm, store_idl(a->x->store))
    {
        const char *uuid = store_uuid(&vm->header_.uuid);
        const struct poolrec_task *order = our_order(a, uuid, mark);

        if (order && task_open(order)) {
            s.under_way++;
        } else if (!agent_is(a, vm->resident_on)) {
            continue;
        } else if (order) {
            s.failed++;
            s.failure = order;
        } else if (!strcmp(vm->power_state, "Running") && !task_of_vm(a->x->store, uuid)) {
            s.next = vm;
        }
        s.left++;
    }
    return s;
}

/* The other live host with the fewest VMs, there and on their way. */
static const struct poolrec_host *
choose(struct agent *a)
{
    const struct poolrec_host *host, *best = NULL;
    size_t best_n = SIZE_MAX;

    POOLREC_HOST_FOR_EACH(host, store_idl(a->x->store))
    {
        const struct poolrec_vm *vm;
        size_t n = 0;

        if (agent_is(a, host->name) || !host->enabled || !coord_host_live(a->x, host)) {
            continue;
        }
        POOLREC_VM_FOR_EACH(vm, store_idl(a->x->store))
        {
            n += !strcmp(vm->resident_on, host->name) || !strcmp(vm->destination, host->name);
        }
        if (n < best_n) {
            best = host;
            best_n = n;
        }
    }
    return best;
}

static void
order_one(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm,
          const char *mark, unsigned done, unsigned left)
{
    const struct poolrec_host *to = choose(w->agent);
    struct ovsdb_idl_txn *txn;
    struct json *params;
    struct fault f;
    char *text;

    if (!to) {
        fault_set(&f, "NO_HOSTS_AVAILABLE", NULL);
        work_fail(w, task, &f);
        return;
    }
    if (!(txn = work_begin(w))) {
        return;
    }
    params = json_object_create();
    json_object_put_string(params, "to", to->name);
    json_object_put(params, "options", json_object_create());
    text = json_to_string(params, 0);
    poolrec_task_verify_status(task);
    poolrec_task_set_progress(task, (double)done / MAX(done + left, 1));
    task_insert(txn, "Async.VM.pool_migrate", store_uuid(&vm->header_.uuid),
                w->agent->x->options->host, text, mark);
    work_commit(w, txn);
    free(text);
    json_destroy(params);
}

static void
finish(struct work *w, const struct poolrec_task *task, const struct survey *s)
{
    struct ovsdb_idl_txn *txn = work_begin(w);
    struct fault f;

    if (!txn) {
        return;
    }
    poolrec_task_verify_status(task);
    if (!strcmp(task->status, "cancelling")) {
        task_cancelled(task);
    } else if (s->failed) {
        task_fault(s->failure, &f);
        task_fail(task, &f);
    } else {
        task_succeed(task, "");
    }
    work_commit(w, txn);
}

void
step_evacuate(struct work *w, const struct poolrec_task *task)
{
    char *mark = xasprintf("evacuation %s", store_uuid(&task->header_.uuid));
    struct survey s = look(w->agent, mark);
    struct json *params = json_from_string(task->params);
    const struct json *at_once =
        params->type == JSON_OBJECT ? shash_find_data(json_object(params), "at_once") : NULL;
    unsigned most = at_once && at_once->type == JSON_INTEGER ? (unsigned)json_integer(at_once) : 3;
    bool stop = !strcmp(task->status, "cancelling") || s.failed >= FAILURES_MAX;

    if (s.under_way < most && s.next && !stop) {
        w->tries++;
        order_one(w, task, s.next, mark, w->tries - MIN(w->tries, s.under_way), s.left);
    } else if (!s.under_way && (stop || s.left == s.failed)) {
        finish(w, task, &s);
    }
    work_again(w, TICK_MS);
    json_destroy(params);
    free(mark);
}

/* Cells: guests that are processes (weft-cell). */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "cell_proto.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "smap.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_cell);

enum { DOMID_FIRST = 1000, DOMID_LAST = 32000, MEMORY_DEFAULT = 64 << 20, START_MS = 30000 };

static char *
cell_name(const char *vm)
{
    return guest_name(&guest_cell, vm);
}

static enum guest_state
cell_state(struct agent *a, const char *vm, char why[200])
{
    struct proc *p = guest_proc(a, &guest_cell, vm);

    *why = '\0';
    if (!p) {
        return GUEST_NONE;
    }
    if (proc_alive(p)) {
        return GUEST_ALIVE;
    }
    proc_last_words(p, why, 200);
    return GUEST_ENDED;
}

/* --- domain ids, one file a cell -------------------------------------------------------- */

static int
read_domid(struct agent *a, const char *name)
{
    char *path = proc_path(a->procs, name, "dom");
    FILE *f = fopen(path, "re");
    int domid = 0;

    if (f) {
        if (fscanf(f, "%d", &domid) != 1) {
            domid = 0;
        }
        fclose(f);
    }
    free(path);
    return domid;
}

struct taken {
    struct agent *agent;
    int last, wanted;
    bool found; /* the wanted one */
};

static void
note_domid(const char *name, void *taken_)
{
    struct taken *t = taken_;

    t->last = MAX(t->last, read_domid(t->agent, name));
    t->found = t->found || read_domid(t->agent, name) == t->wanted;
}

static bool
is_taken(struct agent *a, int domid)
{
    struct taken taken = {.agent = a, .wanted = domid};

    procs_each(a->procs, guest_cell.prefix, note_domid, &taken);
    return taken.found;
}

/* One more than any that is there: an id that was just given back may still be
 * closing. */
static int
new_domid(struct agent *a, const char *name)
{
    static int last = DOMID_FIRST - 1;
    static bool round; /* the highest id has been given: now the free ones, upwards */
    struct taken taken = {.agent = a, .last = last};
    char *path = proc_path(a->procs, name, "dom");
    FILE *f;

    procs_each(a->procs, guest_cell.prefix, note_domid, &taken);
    round = round || taken.last >= DOMID_LAST;
    last = round ? last : taken.last;
    do {
        last = last < DOMID_LAST ? last + 1 : DOMID_FIRST;
    } while (round && is_taken(a, last));
    f = fopen(path, "we");
    if (f) {
        fprintf(f, "%d\n", last);
        fclose(f);
    }
    free(path);
    return last;
}

static char *
cell_port(struct agent *a, const char *vm, const char *device)
{
    char *name = cell_name(vm), *port;

    port = xasprintf("vif%d.%s", read_domid(a, name), *device ? device : "0");
    free(name);
    return port;
}

/* --- its command line --------------------------------------------------------------------- */

static const struct poolrec_vif *
first_vif(struct agent *a, const struct poolrec_vm *vm)
{
    const struct poolrec_vif *vif, *first = NULL;

    POOLREC_VIF_FOR_EACH(vif, store_idl(a->x->store))
    {
        if (vif->vm == vm && !vif->parent && (!first || strcmp(vif->device, first->device) < 0)) {
            first = vif;
        }
    }
    return first;
}

/* Values of the pool's administrators, but a comma would still begin a new key. */
static void
put_key(struct ds *ds, const char *key, const char *value)
{
    if (value && *value && !strchr(value, ',')) {
        ds_put_format(ds, ",%s=%s", key, value);
    }
}

static char *
vif_option(struct agent *a, const struct poolrec_vm *vm, const struct poolrec_vif *vif)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    ds_put_format(&ds, "mac=%.17s", vif->mac);
    put_key(&ds, "ip", smap_get(&vm->config, "ip"));
    put_key(&ds, "gw", smap_get(&vm->config, "gw"));
    put_key(&ds, "handle", *vif->device ? vif->device : "0");
    put_key(&ds, "bridge", a->x->options->bridge);
    put_key(&ds, "vif-uuid", *vif->xs_uuid ? vif->xs_uuid : store_uuid(&vif->header_.uuid));
    put_key(&ds, "vm-uuid", store_uuid(&vm->header_.uuid));
    if (vif->network) {
        put_key(&ds, "network-uuid", store_uuid(&vif->network->header_.uuid));
        ds_put_format(&ds, ",mtu=%" PRId64, vif->network->mtu);
    }
    return ds_steal_cstr(&ds);
}

static int
start(struct agent *a, const struct poolrec_vm *vm, bool incoming)
{
    const struct xapi_options *o = a->x->options;
    char *image = guest_file(a, smap_get_def(&vm->config, "image", "cell.img"));
    if (!image) {
        return EINVAL;
    }
    char *name = cell_name(store_uuid(&vm->header_.uuid));
    const struct poolrec_vif *vif = first_vif(a, vm);
    int64_t bytes = vm->memory_bytes ? vm->memory_bytes : MEMORY_DEFAULT;
    char *program = xasprintf("%s/weft-cell", o->bin);
    char *control = proc_path(a->procs, name, "ctl"), *run_log = proc_path(a->procs, name, "runs");
    char *domid = xasprintf("%d", new_domid(a, name));
    char *memory = xasprintf("%" PRId64 "M", MAX(bytes >> 20, 1));
    char *epoch = xasprintf("%" PRId64, vm->epoch), *vif_text = NULL;
    const char *cmdline = smap_get(&vm->config, "cmdline");
    char *argv[32] = {
        program,   "--image", image,       "--memory", memory,    "--dir", (char *)o->localxen_dir,
        "--domid", domid,     "--control", control,    "--epoch", epoch,   "--run-log",
        run_log};
    size_t n = 15;
    int error;

    if (vif) {
        argv[n++] = "--vif";
        argv[n++] = vif_text = vif_option(a, vm, vif);
    }
    if (cmdline) {
        argv[n++] = "--cmdline";
        argv[n++] = (char *)cmdline;
    }
    if (incoming) {
        argv[n++] = "--incoming";
    }
    error = proc_start(a->procs, name, argv, NULL, NULL);
    free(vif_text);
    free(epoch);
    free(memory);
    free(domid);
    free(run_log);
    free(control);
    free(image);
    free(program);
    free(name);
    return error;
}

static int
cell_start(struct agent *a, const struct poolrec_vm *vm)
{
    return start(a, vm, false);
}

static int
cell_await(struct agent *a, const struct poolrec_vm *vm)
{
    return start(a, vm, true);
}

/* Its control socket is bound before anything runs. */
static bool
cell_ready(struct agent *a, const char *vm)
{
    char *name = cell_name(vm), *path = proc_path(a->procs, name, "ctl");
    struct cell_client client;
    bool ready = !cell_connect(&client, path);

    if (ready) {
        cell_disconnect(&client);
    }
    free(path);
    free(name);
    return ready;
}

/* The answer comes when it has ended, which the process's own end says as well. */
static bool
ask_to_destroy(const char *path)
{
    struct cell_req req = {
        .magic = CELL_PROTO_MAGIC, .version = CELL_PROTO_VERSION, .op = CELL_OP_DESTROY, .seq = 1};
    struct cell_client client;
    bool sent;

    if (cell_connect(&client, path)) {
        return false;
    }
    sent = !cell_send(client.fd, &req, CELL_REQ_HDR, -1);
    cell_disconnect(&client);
    return sent;
}

static void
cell_end(struct agent *a, const char *vm, enum guest_end how)
{
    struct proc *p = guest_proc(a, &guest_cell, vm);
    char *name = cell_name(vm), *path = proc_path(a->procs, name, "ctl");

    if (p && proc_alive(p) && (how != GUEST_HARD || !ask_to_destroy(path))) {
        proc_signal(p, how == GUEST_CLEAN ? SIGTERM : SIGKILL);
    }
    free(path);
    free(name);
}

static void
cell_describe(struct agent *a, const char *vm, struct json *job)
{
    char *name = cell_name(vm), *control = proc_path(a->procs, name, "ctl");

    json_object_put_string(job, "control", control);
    free(control);
    free(name);
}

const struct guest_driver guest_cell = {
    .name = "cell",
    .prefix = "cell-",
    .start_ms = START_MS,
    .state = cell_state,
    .start = cell_start,
    .await = cell_await,
    .ready = cell_ready,
    .end = cell_end,
    .port = cell_port,
    .describe = cell_describe,
};

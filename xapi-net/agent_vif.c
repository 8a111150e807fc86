/* VIF.plug and VIF.unplug: whether an interface of a running guest is a port of
 * its host's switch.
 *
 * The switch makes a port of each vif whose backend names a bridge in the
 * hypervisor's store, and takes it away when that key goes; the guest sees its
 * link change.  So plugging is writing that key, as a toolstack does.  What the
 * pool's controller then says of the port ends the order. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(agent_vif);

enum { TICK_MS = 100, PLUG_MS = 20000, STORE_S = 2 };

/* --- the store: one request a connection -------------------------------------------------- */

/* Source: xen/io/xs_wire.h. */
enum { STORE_WRITE = 11, STORE_RM = 13, STORE_ERROR = 16 };
struct store_head {
    uint32_t type, request, transaction, length;
};
BUILD_ASSERT_DECL(sizeof(struct store_head) == 16);

static int
store_connect(const char *dir)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = STORE_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof sun.sun_path, *dir ? "%s/xenstored" : "%s/run/xenstored/socket",
             *dir ? dir : "/var");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof sun)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* 'value' NULL: the key goes. */
static int
store_set(const char *dir, const char *path, const char *value)
{
    struct store_head head = {.type = value ? STORE_WRITE : STORE_RM, .request = 1};
    char message[sizeof head + 512], answer[64];
    size_t n = strlen(path) + 1, n_value = value ? strlen(value) : 0;
    struct store_head *said = (void *)answer;
    int fd = store_connect(dir), error = 0;
    ssize_t got;

    if (fd < 0) {
        return errno;
    }
    head.length = (uint32_t)(n + n_value);
    if (head.length > sizeof message - sizeof head) {
        close(fd);
        return ENAMETOOLONG;
    }
    memcpy(message, &head, sizeof head);
    memcpy(message + sizeof head, path, n);
    memcpy(message + sizeof head + n, value ? value : "", n_value);
    if (send(fd, message, sizeof head + head.length, MSG_NOSIGNAL) < 0) {
        error = errno;
    } else {
        got = recv(fd, answer, sizeof answer, 0);
        error = got < 0                                                              ? errno
                : (size_t)got < sizeof *said || (said->type == STORE_ERROR && value) ? EIO
                                                                                     : 0;
    }
    close(fd);
    return error;
}

/* --- the order ------------------------------------------------------------------------------ */

static const struct poolrec_vif *
vif_of(struct agent *a, const struct json *params)
{
    struct uuid uuid;

    return uuid_from_string(&uuid, value_map(params, "vif", ""))
               ? poolrec_vif_get_for_uuid(store_idl(a->x->store), &uuid)
               : NULL;
}

static int
set_bridge(struct agent *a, const char *vm, const struct poolrec_vif *vif, bool plug)
{
    char *port = guest_driver(vif->vm)->port(a, vm, vif->device), path[128];
    unsigned domid, handle;
    int error = EINVAL;

    if (sscanf(port, "vif%u.%u", &domid, &handle) == 2 && domid) {
        snprintf(path, sizeof path, "/local/domain/0/backend/vif/%u/%u/bridge", domid, handle);
        error = store_set(a->x->options->localxen_dir, path, plug ? a->x->options->bridge : NULL);
    }
    free(port);
    return error;
}

static void
succeed(struct work *w, const struct poolrec_task *task)
{
    struct ovsdb_idl_txn *txn = work_begin(w);

    if (txn) {
        poolrec_task_verify_status(task);
        task_succeed(task, "");
        work_commit(w, txn);
    }
}

/* The switch has done it, as far as its controller, if it has one, can see. */
static bool
done(struct agent *a, const struct poolrec_vif *vif, bool plug)
{
    const struct poolrec_host *host = store_host(a->x->store, a->x->options->host);

    return !host || !*host->controller || plug == !strcmp(vif->seen_host, a->x->options->host);
}

void
step_plug(struct work *w, const struct poolrec_task *task, const struct poolrec_vm *vm)
{
    bool plug = !strcmp(task_method(task), "VIF.plug");
    struct json *params = json_from_string(task->params);
    const struct poolrec_vif *vif = vif_of(w->agent, params);
    struct fault f = {.code = NULL};
    int error = 0;

    if (!vif || !agent_is(w->agent, vm->resident_on)) {
        fault_set(&f, "OPERATION_NOT_ALLOWED", "the VM is not on this host any more", NULL);
    } else if (!w->told) {
        error = set_bridge(w->agent, task->vm, vif, plug);
        w->told = true;
        w->since = time_msec();
    } else if (done(w->agent, vif, plug)) {
        succeed(w, task);
    } else if (time_msec() - w->since > PLUG_MS) {
        error = ETIMEDOUT;
    }
    if (error) {
        fault_set(&f, "INTERNAL_ERROR", ovs_strerror(error), NULL);
    }
    if (f.code) {
        work_fail(w, task, &f);
    }
    work_again(w, TICK_MS);
    json_destroy(params);
}

/* toolstack: see toolstack.h. */
#include "toolstack.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xenstore.h>

#include "hv/local.h"
#include "hv/xen_abi.h"

#define DEFAULT_SCRIPT "vif-weft"
/* Transactions that lose against others are tried again this often. */
#define MAX_TRIES 100

int
toolstack_open(const char *dir, struct xs_handle **xs)
{
    char path[256];

    if (dir) {
        local_store_path(dir, path, sizeof path);
        setenv("XENSTORED_PATH", path, 1);
    }
    *xs = xs_open(0);
    return *xs ? 0 : errno ? errno : EIO;
}

void
toolstack_backend_path(uint16_t domid, uint32_t handle, char path[TOOLSTACK_PATH_MAX])
{
    snprintf(path, TOOLSTACK_PATH_MAX, "/local/domain/0/backend/vif/%u/%u", domid, handle);
}

void
toolstack_frontend_path(uint16_t domid, uint32_t handle, char path[TOOLSTACK_PATH_MAX])
{
    snprintf(path, TOOLSTACK_PATH_MAX, "/local/domain/%u/device/vif/%u", domid, handle);
}

/* --- writing ----------------------------------------------------------------- */

/* A directory being filled inside a transaction.  The first failure sticks. */
struct dir_writer {
    struct xs_handle *xs;
    xs_transaction_t t;
    const char *dir;
    int error;
};

static void
put(struct dir_writer *w, const char *key, const char *value)
{
    char path[2 * TOOLSTACK_PATH_MAX];

    if (w->error || !value || !value[0]) {
        return;
    }
    if (snprintf(path, sizeof path, "%s/%s", w->dir, key) >= (int)sizeof path) {
        w->error = ENAMETOOLONG;
    } else if (!xs_write(w->xs, w->t, path, value, (unsigned)strlen(value))) {
        w->error = errno;
    }
}

static void __attribute__((format(printf, 3, 4)))
putf(struct dir_writer *w, const char *key, const char *format, ...)
{
    char value[TOOLSTACK_PATH_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    put(w, key, value);
}

/* An empty directory that 'owner' owns and 'reader' may read. */
static int
make_dir(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned owner,
         unsigned reader)
{
    struct xs_permissions perms[2] = {
        {.id = owner, .perms = XS_PERM_NONE},
        {.id = reader, .perms = XS_PERM_READ},
    };

    if (!xs_mkdir(xs, t, path) || !xs_set_permissions(xs, t, path, perms, 2)) {
        return errno;
    }
    return 0;
}

static int
write_backend(struct xs_handle *xs, xs_transaction_t t, const struct toolstack_vif *vif,
              const char *be, const char *fe)
{
    struct dir_writer w = {.xs = xs, .t = t, .dir = be};

    w.error = make_dir(xs, t, be, 0, vif->domid);
    put(&w, "frontend", fe);
    putf(&w, "frontend-id", "%u", vif->domid);
    put(&w, "online", "1");
    put(&w, "script", vif->script && vif->script[0] ? vif->script : DEFAULT_SCRIPT);
    put(&w, "mac", vif->mac);
    put(&w, "bridge", vif->bridge);
    putf(&w, "handle", "%u", vif->handle);
    put(&w, "type", "vif");
    put(&w, "rate", vif->rate);
    put(&w, "vif-uuid", vif->vif_uuid);
    put(&w, "network-uuid", vif->network_uuid);
    put(&w, "vlan", vif->vlan);
    put(&w, "vlan-mode", vif->vlan_mode);
    put(&w, "trunks", vif->trunks);
    if (vif->mtu) {
        putf(&w, "mtu", "%u", vif->mtu);
    }
    if (vif->hotplug_connected) {
        put(&w, "hotplug-status", "connected");
    }
    for (size_t i = 0; i < vif->n_backend_keys; i++) {
        put(&w, vif->backend_keys[i].name, vif->backend_keys[i].value);
    }
    /* Last, so that whoever sees the state sees all. */
    put(&w, "state", "1");
    return w.error;
}

/* Which VM the domain runs, as Xen's toolstacks write it. */
static int
write_vm(struct xs_handle *xs, xs_transaction_t t, const struct toolstack_vif *vif)
{
    char dir[TOOLSTACK_PATH_MAX];
    struct dir_writer w = {.xs = xs, .t = t, .dir = dir};

    snprintf(dir, sizeof dir, "/local/domain/%u", vif->domid);
    if (vif->vm_uuid && vif->vm_uuid[0]) {
        putf(&w, "vm", "/vm/%s", vif->vm_uuid);
    }
    return w.error;
}

static int
write_frontend(struct xs_handle *xs, xs_transaction_t t, const struct toolstack_vif *vif,
               const char *be, const char *fe)
{
    struct dir_writer w = {.xs = xs, .t = t, .dir = fe};

    w.error = make_dir(xs, t, fe, vif->domid, 0);
    put(&w, "backend", be);
    put(&w, "backend-id", "0");
    putf(&w, "handle", "%u", vif->handle);
    put(&w, "mac", vif->mac);
    if (vif->mtu) {
        putf(&w, "mtu", "%u", vif->mtu);
    }
    put(&w, "state", "1");
    return w.error;
}

static bool
path_exists(struct xs_handle *xs, xs_transaction_t t, const char *path)
{
    void *value = xs_read(xs, t, path, NULL);
    free(value);
    return value != NULL;
}

static int
create_once(struct xs_handle *xs, const struct toolstack_vif *vif, const char *be, const char *fe)
{
    xs_transaction_t t = xs_transaction_start(xs);
    int error;

    if (t == XBT_NULL) {
        return errno;
    }
    if (path_exists(xs, t, be) || path_exists(xs, t, fe)) {
        error = EEXIST;
    } else {
        error = write_backend(xs, t, vif, be, fe);
        error = error ? error : write_vm(xs, t, vif);
        error = error ? error : write_frontend(xs, t, vif, be, fe);
    }
    if (!xs_transaction_end(xs, t, error != 0) && !error) {
        error = errno;
    }
    return error;
}

int
toolstack_vif_create(struct xs_handle *xs, const struct toolstack_vif *vif)
{
    char be[TOOLSTACK_PATH_MAX], fe[TOOLSTACK_PATH_MAX];
    int error = EAGAIN;

    toolstack_backend_path(vif->domid, vif->handle, be);
    toolstack_frontend_path(vif->domid, vif->handle, fe);
    for (int i = 0; i < MAX_TRIES && error == EAGAIN; i++) {
        error = create_once(xs, vif, be, fe);
    }
    return error;
}

/* Removes 'path' and then its parents up to 'levels' as long as they are
 * left empty. */
static int
remove_path(struct xs_handle *xs, xs_transaction_t t, const char *path, int levels)
{
    char parent[TOOLSTACK_PATH_MAX];

    if (!xs_rm(xs, t, path) && errno != ENOENT) {
        return errno;
    }
    snprintf(parent, sizeof parent, "%s", path);
    while (levels-- > 0) {
        unsigned n = 0;
        *strrchr(parent, '/') = '\0';
        char **names = xs_directory(xs, t, parent, &n);
        if (!names) {
            return errno == ENOENT ? 0 : errno;
        }
        free(names);
        if (n) {
            break;
        }
        if (!xs_rm(xs, t, parent) && errno != ENOENT) {
            return errno;
        }
    }
    return 0;
}

int
toolstack_vif_destroy(struct xs_handle *xs, uint16_t domid, uint32_t handle)
{
    char be[TOOLSTACK_PATH_MAX], fe[TOOLSTACK_PATH_MAX];
    int error = EAGAIN;

    toolstack_backend_path(domid, handle, be);
    toolstack_frontend_path(domid, handle, fe);
    for (int i = 0; i < MAX_TRIES && error == EAGAIN; i++) {
        xs_transaction_t t = xs_transaction_start(xs);
        if (t == XBT_NULL) {
            return errno;
        }
        error = remove_path(xs, t, be, 1);
        error = error ? error : remove_path(xs, t, fe, 1);
        if (!xs_transaction_end(xs, t, error != 0) && !error) {
            error = errno;
        }
    }
    return error;
}

int
toolstack_vif_offline(struct xs_handle *xs, uint16_t domid, uint32_t handle)
{
    char be[TOOLSTACK_PATH_MAX];
    int error = EAGAIN;

    toolstack_backend_path(domid, handle, be);
    for (int i = 0; i < MAX_TRIES && error == EAGAIN; i++) {
        xs_transaction_t t = xs_transaction_start(xs);
        if (t == XBT_NULL) {
            return errno;
        }
        struct dir_writer w = {.xs = xs, .t = t, .dir = be};
        if (!path_exists(xs, t, be)) {
            w.error = ENOENT;
        }
        put(&w, "online", "0");
        put(&w, "state", "5");
        error = w.error;
        if (!xs_transaction_end(xs, t, error != 0) && !error) {
            error = errno;
        }
    }
    return error;
}

/* --- waiting ------------------------------------------------------------------- */

static int
read_state(struct xs_handle *xs, const char *dir)
{
    char path[2 * TOOLSTACK_PATH_MAX];

    snprintf(path, sizeof path, "%s/state", dir);
    char *value = xs_read(xs, XBT_NULL, path, NULL);
    int state = value ? atoi(value) : XenbusStateUnknown;
    free(value);
    return state >= 0 && state <= XenbusStateReconfigured ? state : XenbusStateUnknown;
}

void
toolstack_vif_states(struct xs_handle *xs, uint16_t domid, uint32_t handle, int *backend,
                     int *frontend)
{
    char path[TOOLSTACK_PATH_MAX];

    toolstack_backend_path(domid, handle, path);
    *backend = read_state(xs, path);
    toolstack_frontend_path(domid, handle, path);
    *frontend = read_state(xs, path);
}

static int64_t
now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Returns once a watch of 'xs' has fired, or ETIMEDOUT at 'deadline_ms'. */
static int
wait_watch(struct xs_handle *xs, int64_t deadline_ms)
{
    for (;;) {
        char **event = xs_check_watch(xs);
        if (event) {
            free(event);
            return 0;
        }
        if (errno != EAGAIN) {
            return errno;
        }
        int64_t left = deadline_ms - now_ms();
        if (left <= 0) {
            return ETIMEDOUT;
        }
        struct pollfd p = {.fd = xs_fileno(xs), .events = POLLIN};
        poll(&p, 1, (int)left);
    }
}

/* Watches 'path' until done(xs, dir, arg). */
static int
wait_for(struct xs_handle *xs, const char *path, int timeout_ms,
         bool (*done)(struct xs_handle *, const char *path, unsigned arg), unsigned arg)
{
    int64_t deadline = now_ms() + timeout_ms;
    int error = 0;

    if (!xs_watch(xs, path, path)) {
        return errno;
    }
    while (!done(xs, path, arg)) {
        error = wait_watch(xs, deadline);
        if (error) {
            break;
        }
    }
    xs_unwatch(xs, path, path);
    return error;
}

static bool
state_is_in(struct xs_handle *xs, const char *dir, unsigned states)
{
    return states & (1u << read_state(xs, dir));
}

static bool
exists(struct xs_handle *xs, const char *path, unsigned arg)
{
    return path_exists(xs, XBT_NULL, path);
}

int
toolstack_wait_backend(struct xs_handle *xs, uint16_t domid, uint32_t handle, unsigned states,
                       int timeout_ms)
{
    char be[TOOLSTACK_PATH_MAX];
    toolstack_backend_path(domid, handle, be);
    return wait_for(xs, be, timeout_ms, state_is_in, states);
}

int
toolstack_wait_frontend(struct xs_handle *xs, uint16_t domid, uint32_t handle, unsigned states,
                        int timeout_ms)
{
    char fe[TOOLSTACK_PATH_MAX];
    toolstack_frontend_path(domid, handle, fe);
    return wait_for(xs, fe, timeout_ms, state_is_in, states);
}

int
toolstack_wait_path(struct xs_handle *xs, const char *path, int timeout_ms)
{
    return wait_for(xs, path, timeout_ms, exists, 0);
}

int
toolstack_vif_unplug(struct xs_handle *xs, uint16_t domid, uint32_t handle, int timeout_ms)
{
    int error = toolstack_vif_offline(xs, domid, handle);
    if (!error) {
        error = toolstack_wait_backend(
            xs, domid, handle, 1u << XenbusStateClosed | 1u << XenbusStateUnknown, timeout_ms);
    }
    if (error && error != ETIMEDOUT && error != ENOENT) {
        return error;
    }
    int destroy_error = toolstack_vif_destroy(xs, domid, handle);
    return error == ETIMEDOUT ? error : destroy_error;
}

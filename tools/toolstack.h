/* toolstack: what a toolstack does to the store for a virtual interface.
 *
 * Makes and removes the two directories of a vif the way libxl does (keys,
 * owners, permissions), and waits for its ends to change state.
 *
 *   /local/domain/0/backend/vif/D/H   owner 0, readable by D
 *   /local/domain/D/device/vif/H      owner D, readable by 0
 *
 * Threads: calls that share an xs_handle must not run at the same time, and
 * the waiting ones take all of its watch events: give them a handle of their own.
 * Errors: 0 or a positive errno.  Source: libxl (keys as found in its store),
 * xen/io/netif.h, xen/io/xenbus.h. */
#ifndef TOOLSTACK_H
#define TOOLSTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xs_handle;

#define TOOLSTACK_PATH_MAX 128u

struct toolstack_key {
    const char *name, *value;
};

/* A vif to be made.  Strings that are NULL or empty write no key. */
struct toolstack_vif {
    uint16_t domid;
    uint32_t handle;
    const char *mac;    /* "00:16:3e:01:02:03" */
    const char *bridge; /* "xenbr0", "xenbr0.100", "xenbr0.100:200:300" */
    const char *script; /* default: "vif-weft" */
    const char *rate;   /* "bytes,usecs" */
    const char *vif_uuid, *vm_uuid, *network_uuid;
    const char *vlan, *vlan_mode, *trunks;
    unsigned mtu; /* 0: no key */
    /* Says that the hotplug script has run: true where the switch plugs the
     * vif by itself and no script does. */
    bool hotplug_connected;
    const struct toolstack_key *backend_keys; /* more keys for the backend */
    size_t n_backend_keys;
};

/* A connection with dom0's rights to the store of the local stand-in in
 * 'dir', or to Xen's own with 'dir' NULL. */
int toolstack_open(const char *dir, struct xs_handle **);

void toolstack_backend_path(uint16_t domid, uint32_t handle, char path[TOOLSTACK_PATH_MAX]);
void toolstack_frontend_path(uint16_t domid, uint32_t handle, char path[TOOLSTACK_PATH_MAX]);

/* Makes both directories, state 1, in one transaction.  EEXIST if the vif is there. */
int toolstack_vif_create(struct xs_handle *, const struct toolstack_vif *);
/* Removes both directories, and the directories above that become empty. */
int toolstack_vif_destroy(struct xs_handle *, uint16_t domid, uint32_t handle);
/* Asks the backend to close for good: online=0, state=5.  ENOENT if the vif
 * is gone. */
int toolstack_vif_offline(struct xs_handle *, uint16_t domid, uint32_t handle);

/* States of both ends; 0 (XenbusStateUnknown) if there is none. */
void toolstack_vif_states(struct xs_handle *, uint16_t domid, uint32_t handle, int *backend,
                          int *frontend);
/* Waits until the backend's state is in 'states' (bit n: state n; bit 0: the
 * directory is gone).  ETIMEDOUT after 'timeout_ms'. */
int toolstack_wait_backend(struct xs_handle *, uint16_t domid, uint32_t handle, unsigned states,
                           int timeout_ms);
int toolstack_wait_frontend(struct xs_handle *, uint16_t domid, uint32_t handle, unsigned states,
                            int timeout_ms);
/* Waits until 'path' exists; to follow any other key. */
int toolstack_wait_path(struct xs_handle *, const char *path, int timeout_ms);

/* Hot unplug: offline, wait for the backend to close, destroy.  ETIMEDOUT if
 * the backend did not close in time; the directories are removed all the same. */
int toolstack_vif_unplug(struct xs_handle *, uint16_t domid, uint32_t handle, int timeout_ms);

#endif

/* xenbus_priv: a vif's nodes in the store.  xenbus thread only. */
#ifndef XENBUS_PRIV_H
#define XENBUS_PRIV_H

#include "vif.h"

#define BACKEND_ROOT "/local/domain/0/backend/vif"

/* Reads DIR/KEY; NULL if absent.  The caller frees. */
char *xb_read(struct netback *, const char *dir, const char *key);
/* Reads a number up to 'max'; ENOENT if absent, EINVAL if it is not one. */
int xb_number(struct netback *, const char *dir, const char *key, uint64_t max, uint64_t *value);
/* A number other than 0. */
bool xb_flag(struct netback *, const char *dir, const char *key);
/* DIR/state; XenbusStateUnknown if there is none or 'dir' is NULL. */
int xb_state(struct netback *, const char *dir);

void xb_backend_dir(const struct netback_vif *, char *buf, size_t size);
/* Writes pairs of key and value, all or none.  Writes nothing if the toolstack
 * has meanwhile removed the directory or changed its state: the watch event
 * of that is on its way. */
bool xb_write_backend(struct netback_vif *, const char *const pairs[][2], unsigned n);
void xb_set_state(struct netback_vif *, int state);

/* Reads what the toolstack says of the vif and publishes it to the switch. */
void xb_read_info(struct netback_vif *, const char *dir);
void xb_publish(struct netback_vif *, bool present, const struct netback_vif_info *);
/* Key "rate"; 0 bytes: unlimited. */
void xb_read_rate(struct netback_vif *, uint64_t *bytes, uint64_t *usecs);
/* False: the kernel's backend serves it. */
bool xb_is_ours(struct netback_vif *, const char *dir);
/* The hotplug script, if there is one, has done its work. */
bool xb_hotplug_done(struct netback_vif *, const char *dir);
/* What the frontend wrote to connect.  On failure says which key is wrong. */
bool xb_read_connection(struct netback_vif *, struct connection *, char *why, size_t size);

#endif

/* network_state: what an end's network knows of a guest's vifs, as bytes for the
 * other.  Format: docs/vif-move.md.
 *
 * Threads: none of its own.  Ownership: lists and blobs belong to the struct. */
#ifndef NETWORK_STATE_H
#define NETWORK_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "network.h"

#define NETWORK_MACS_MAX 64u
#define NETWORK_GROUPS_MAX 128u
#define NETWORK_STATE_MAX (64u << 20)

struct vif_known {
    struct {
        uint16_t vlan;
        uint8_t mac[6];
    } macs[NETWORK_MACS_MAX];
    unsigned n_macs;
    struct {
        uint16_t vlan;
        char address[46];
    } groups[NETWORK_GROUPS_MAX];
    unsigned n_groups;
    uint8_t *blob; /* the switch's own (vswitch/vif_state.h), or NULL */
    size_t blob_len;
};

void vif_known_clear(struct vif_known *);

/* Lines of "fdb/show" and "mdb/show" about port number 'ofport'. */
void vif_known_add_macs(struct vif_known *, const char *fdb, uint32_t ofport);
void vif_known_add_groups(struct vif_known *, const char *mdb, uint32_t ofport);

/* '*data' is malloc'ed.  0, ENOMEM, EFBIG. */
int network_state_put(const struct vif_known *, size_t n, uint8_t **data, size_t *len);
/* Hostile.  EINVAL: nothing changed.  Fills at most 'n' cleared elements. */
int network_state_get(struct vif_known *, size_t n, const uint8_t *data, size_t len);

#endif

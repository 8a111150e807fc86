/* plug_want: the port that a vif should have.
 *
 * Resolves what the toolstack wrote about a vif (bridge and VLAN settings)
 * against the bridges that exist.  No side effects.
 *
 * Threads: pure functions. */
#ifndef PLUG_WANT_H
#define PLUG_WANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUG_NAME_SIZE 32

struct netback_vif_info;
struct ovsrec_bridge;
struct shash;

/* A name that a toolstack may use for a bridge. */
struct plug_bridge {
    const struct ovsrec_bridge *parent; /* where ports go */
    int64_t fake_tag;                   /* the VLAN that a fake bridge is, or -1 */
};

struct plug_want {
    char name[PLUG_NAME_SIZE];
    const struct ovsrec_bridge *bridge;
    char vlan_mode[24]; /* as in column vlan_mode; empty: none */
    int64_t tag;
    size_t n_tag; /* 0 or 1 */
    int64_t *trunks;
    size_t n_trunks;
};

/* "vif1.0". */
void plug_port_name(const struct netback_vif_info *, char name[PLUG_NAME_SIZE]);

/* Fills all of 'want' but its name.  'bridges' maps names to struct
 * plug_bridge.  On failure leaves a sentence in 'why' and nothing to destroy. */
bool plug_want(const struct netback_vif_info *, const struct shash *bridges, struct plug_want *,
               char *why, size_t why_size);
void plug_want_destroy(struct plug_want *);
/* "on xenbr0, access, tag 10", malloc'ed. */
char *plug_want_format(const struct plug_want *);

#endif

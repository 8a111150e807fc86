/* vif_state: what of a switch's state belongs to one guest's vif, as bytes for the
 * switch of another host.  Written and read here; the format is in
 * docs/vif-move.md.
 *
 * Threads: the main thread. */
#ifndef VIF_STATE_H
#define VIF_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netback_vif;

#define VIF_SCOPE_ZONES_MAX 9u
#define VIF_SCOPE_KEYS_MAX 9u
#define VIF_SCOPE_ADDRESSES_MAX 40u
#define VIF_STATE_METERS_MAX 32u
#define VIF_STATE_MAX (64u << 20)

/* Which connections are the vif's: those of its zones that carry its key in their
 * label (bits 64 to 95 or 96 to 127, where the pool's controller puts the two
 * ends' keys), if one is given, and one of its addresses in their tuples, if any are
 * given.  Anybody can write a label: the key alone is for a vif that may use any
 * address, and so could open all these connections itself. */
struct vif_scope {
    uint16_t zones[VIF_SCOPE_ZONES_MAX];
    unsigned n_zones;
    uint32_t keys[VIF_SCOPE_KEYS_MAX]; /* of the vif and of those in its trunk */
    unsigned n_keys;
    uint16_t ofport; /* whose meters are the vif's; 0: not known */
    bool unmark;     /* marks are the policy's of each host: not taken over; also with a key */
    struct {
        uint8_t bytes[16]; /* IPv4 in the first four, the rest 0 */
        uint8_t bits;      /* of the prefix */
        bool v6;
    } addresses[VIF_SCOPE_ADDRESSES_MAX];
    unsigned n_addresses;
};

/* "zone=N", "key=N", "address=A", "address=A/BITS", "ofport=N" or "unmark"; false if it is none of
 * them. */
bool vif_scope_add(struct vif_scope *, const char *word);

struct vif_state_result {
    size_t connections, existing, refused, meters;
    bool settings, counters; /* came along */
};

/* 'vif' NULL: connections only.  '*data' is malloc'ed.  0, or EFBIG: more than VIF_STATE_MAX. */
int vif_state_export(struct netback_vif *, const struct vif_scope *, uint8_t **data, size_t *len,
                     struct vif_state_result *);
/* Hostile input: EINVAL with a sentence in 'why', and nothing taken over.
 * Connections out of the scope are refused and counted. */
int vif_state_import(struct netback_vif *, const struct vif_scope *, const uint8_t *data,
                     size_t len, struct vif_state_result *, char *why, size_t why_size);

#endif

/* program: what to do with the packets of a flow.
 *
 * Compiled once from the flow's actions by the adapter (vswitch/dp_actions.c),
 * immutable, freed an epoch after the last flow let go of it.  What the fast
 * path can do itself is a short list of operations ended by an output or a
 * drop; anything else is PROGRAM_SLOW and goes to the adapter, which has the
 * original actions behind 'slow'. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdint.h>

enum program_kind {
    PROGRAM_DROP,   /* nothing at all */
    PROGRAM_OUTPUT, /* plain output to 'port' */
    PROGRAM_EDIT,   /* ops[], then output to 'port' */
    PROGRAM_TRACK,  /* connection tracking, then a second lookup (engine_ops.track) */
    PROGRAM_SLOW,   /* the adapter's */
};

enum edit_type {
    EDIT_PUSH_VLAN, /* tpid and tci in network order */
    EDIT_POP_VLAN,
    EDIT_SET_ETH, /* masked write of the 12 address bytes */
};

struct edit {
    uint8_t type;
    union {
        struct {
            uint16_t tpid, tci;
        } vlan;
        struct {
            uint8_t value[12], mask[12];
        } eth;
    };
};

#define PROGRAM_EDITS_MAX 8u

struct program {
    uint8_t kind;
    uint8_t n_edits;
    uint16_t port;    /* engine's port index */
    const void *slow; /* the adapter's; NULL only for DROP, OUTPUT and EDIT made in a test */
    struct edit edits[];
};

#endif

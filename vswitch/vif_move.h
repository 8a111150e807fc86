/* vif_move: a guest's vif on its way from one host's switch to another's.
 *
 * The commands weft/vif-* (docs/vif-move.md), by which weft-migrate holds a vif,
 * carries its state, and lets late frames follow the guest.  While a vif moves,
 * a thread of its own passes frames between netback and a socket:
 *
 *   RUNDIR/weft/move-PORT    SOCK_SEQPACKET, a message is a frame (netback/late.h)
 *
 * Out of it come the frames of a vif on hold, into it go those for a vif
 * that waits or has arrived.
 *
 * Threads: the main thread, but for the thread of a move. */
#ifndef VIF_MOVE_H
#define VIF_MOVE_H

#include <stdbool.h>

struct netback_vif;
struct vif_move;

void vif_move_init(void);

/* The port is about to lose its vif: what is kept leaves while somebody takes it
 * (0.2 s at most), then the thread ends.  Accepts NULL. */
void vif_move_destroy(struct vif_move *);
/* True if the port of a vif that is gone should stay a little for frames that are
 * still on their way to it (2 s from the first time this is asked). */
bool vif_move_lingers(struct vif_move *); /* accepts NULL */

#endif

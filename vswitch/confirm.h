/* confirm: a master's barrier means the datapath, too.
 *
 * Open vSwitch answers a barrier once its OpenFlow tables have changed; packets
 * go on meeting the old rules in the datapath's flows until the revalidators
 * have been through them.  Here the reply to a barrier of a connection with the
 * role MASTER waits for that, so that a controller that is told "done" can rely
 * on it.  Other connections (ovs-ofctl's) are answered at once, as ever.
 *
 * Works by standing in for rconn_send() and its neighbours; see wrap.h.
 *
 * Threads: the main thread, but for the hooks around flow dumps, which the
 * revalidators call. */
#ifndef CONFIRM_H
#define CONFIRM_H

void confirm_init(void); /* once, before the first bridge */
/* In each turn of the main loop, after bridge_run() and before poll_block(). */
void confirm_run(void);
void confirm_wait(void);

#endif

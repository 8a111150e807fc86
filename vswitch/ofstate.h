/* ofstate: the bridges' OpenFlow state outlives the process and the machine.
 *
 * Flow tables, groups, meters and Geneve option maps of every bridge are
 * written to DBDIR/weft/BRIDGE-UUID.openflow soon after they change, as text
 * that ovs-ofctl understands.  A process that starts puts them back before it
 * lets the first packet be decided, so that a host that boots without its
 * controller has its policy.  Until then ofproto behaves as with
 * other_config:flow-restore-wait=true.  A bridge whose state does not come back is
 * held (ofstate_hold.h).
 *
 * other_config:weft-save-openflow=false of table Open_vSwitch turns it off.
 *
 * Threads: the main thread; saving and restoring run on one of our own. */
#ifndef OFSTATE_H
#define OFSTATE_H

#include <stdbool.h>

void ofstate_init(const char *database);
void ofstate_run(void);
void ofstate_wait(void);
/* The process is going to end: what has changed by now is saved at once, nothing that changes
 * later.  Goes on needing ofstate_run() and bridge_run(), until it has ended. */
void ofstate_end(void);
bool ofstate_ended(void);
/* It ends with what it is at. */
void ofstate_give_up(void);
/* When it has ended, before bridge_exit(): bridges that go then keep their files. */
void ofstate_exit(void);

#endif

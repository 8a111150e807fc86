/* ofstate: the bridges' OpenFlow state outlives the process and the machine.
 *
 * Flow tables, groups, meters and Geneve option maps of every bridge are
 * written to DBDIR/weft/BRIDGE-UUID.openflow soon after they change, as text
 * that ovs-ofctl understands.  A process that starts puts them back before it
 * lets the first packet be decided, so that a host that boots without its
 * controller has its policy.  Until then ofproto behaves as with
 * other_config:flow-restore-wait=true.
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
/* The process is going to end: from now on nothing is put off. */
void ofstate_end(void);
/* Something has changed, by ofstate_end() if that was called, that is not in the files yet. */
bool ofstate_busy(void);
/* Before bridge_exit(): from then on bridges that go keep their files. */
void ofstate_exit(void);

#endif
